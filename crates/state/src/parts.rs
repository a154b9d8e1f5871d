//! A snapshot cut into parts at the borders of its rows, as it is read: neither all its bytes nor all its rows are ever
//! in memory.
//!
//! Each part is a snapshot itself, of some rows; read one after another they give the whole. Nothing here knows what a
//! section holds.

use std::collections::BTreeMap;
use std::io::{self, Read};

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of the largest row.
const ROW_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How much a section holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectionSize {
    /// Rows; 1 for what is no table.
    pub rows: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// The parts of a snapshot.
pub struct Parts<R> {
    from: R,
    buffer: Vec<u8>,
    used: usize,
    limit: usize,
    sections_left: Option<u64>,
    /// The table that is being read, and how many of its rows have not been.
    table: Option<(u32, u64)>,
    sizes: BTreeMap<u32, SectionSize>,
    failed: bool,
}

fn malformed(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cannot read the snapshot: {reason}"))
}

impl<R: Read> Parts<R> {
    /// The parts of the snapshot that `from` holds; each has about `limit` bytes, or one row that is larger.
    pub fn new(from: R, limit: usize) -> Self {
        Self {
            from,
            buffer: Vec::new(),
            used: 0,
            limit,
            sections_left: None,
            table: None,
            sizes: BTreeMap::new(),
            failed: false,
        }
    }

    /// How much every section holds of what was read so far.
    pub fn sizes(&self) -> &BTreeMap<u32, SectionSize> {
        &self.sizes
    }

    /// What they were read from.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// Reads more; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let have = self.buffer.len();
        if have > ROW_BYTES_MAX {
            return Err(malformed("a row is too large"));
        }
        // As much again: a large row is looked at a few times only.
        let want = READ_BYTES.max(have);
        self.buffer.resize(have + want, 0);
        let read = loop {
            match self.from.read(&mut self.buffer[have..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.truncate(have + read);
        Ok(read > 0)
    }

    /// What `decode` makes of the next bytes, with as many of them as it needs.
    fn take<T>(
        &mut self,
        decode: impl Fn(&mut Decoder<'_>) -> Result<T, minicbor::decode::Error>,
    ) -> io::Result<(T, std::ops::Range<usize>)> {
        loop {
            let mut decoder = Decoder::new(&self.buffer[self.used..]);
            match decode(&mut decoder) {
                Ok(value) => {
                    let range = self.used..self.used + decoder.position();
                    self.used = range.end;
                    return Ok((value, range));
                }
                Err(error) if error.is_end_of_input() => {
                    if !self.fill()? {
                        return Err(malformed("it is cut short"));
                    }
                }
                Err(error) => return Err(malformed(&error.to_string())),
            }
        }
    }

    fn next_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.sections_left.is_none() {
            let (count, _) = self.take(|from| from.map())?;
            self.sections_left = Some(count.ok_or_else(|| malformed("its sections are not counted"))?);
        }
        let mut sections = 0;
        let mut body = Vec::new();
        while body.len() < self.limit {
            if let Some((section, rows)) = self.table.take() {
                let (taken, bytes) = self.rows(section, rows, body.len())?;
                if rows > taken {
                    self.table = Some((section, rows - taken));
                }
                head(&mut body, section, Some(taken));
                body.extend_from_slice(&bytes);
                sections += 1;
                continue;
            }
            match self.sections_left {
                Some(0) | None => break,
                Some(left) => self.sections_left = Some(left - 1),
            }
            let (section, _) = self.take(|from| from.u32())?;
            let (kind, _) = self.take(|from| from.datatype())?;
            if kind == Type::Array {
                let (rows, _) = self.take(|from| from.array())?;
                let rows = rows.ok_or_else(|| malformed("its rows are not counted"))?;
                self.sizes.entry(section).or_default();
                self.table = Some((section, rows)).filter(|_| rows > 0);
                continue;
            }
            let (_, range) = self.take(|from| from.skip())?;
            self.tally(section, range.len());
            head(&mut body, section, None);
            body.extend_from_slice(&self.buffer[range]);
            sections += 1;
        }
        if sections == 0 {
            if self.used < self.buffer.len() || self.fill()? {
                return Err(malformed("bytes follow its end"));
            }
            return Ok(None);
        }
        let mut part = Encoder::new(Vec::new());
        infallible(part.map(sections));
        let mut part = part.into_writer();
        part.extend_from_slice(&body);
        Ok(Some(part))
    }

    /// Rows of a table, until there are enough bytes with `before`.
    fn rows(&mut self, section: u32, rows: u64, before: usize) -> io::Result<(u64, Vec<u8>)> {
        let (mut taken, mut bytes) = (0, Vec::new());
        while taken < rows && (taken == 0 || before + bytes.len() < self.limit) {
            let (_, range) = self.take(|from| from.skip())?;
            self.tally(section, range.len());
            bytes.extend_from_slice(&self.buffer[range]);
            taken += 1;
        }
        Ok((taken, bytes))
    }

    fn tally(&mut self, section: u32, bytes: usize) {
        let size = self.sizes.entry(section).or_default();
        size.rows += 1;
        size.bytes += bytes as u64;
    }
}

fn head(body: &mut Vec<u8>, section: u32, rows: Option<u64>) {
    let mut encoder = Encoder::new(body);
    infallible(encoder.u32(section));
    if let Some(rows) = rows {
        infallible(encoder.array(rows));
    }
}

/// Encoding to memory cannot fail.
fn infallible<T>(result: Result<T, minicbor::encode::Error<std::convert::Infallible>>) {
    if let Err(error) = result {
        unreachable!("encoding to memory cannot fail: {error}");
    }
}

impl<R: Read> Iterator for Parts<R> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_part();
        self.failed = next.is_err();
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte at a time, as the slowest pipe.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut to[..1])
        }
    }

    #[test]
    fn cut_or_followed_bytes_are_an_error_and_nothing_comes_after_it() {
        let bytes = [0xa2, 0x01, 0x07, 0x09, 0x82, 0x61, b'a', 0x61, b'b'];
        let whole: Vec<_> = Parts::new(Drip(&bytes), 1).collect::<Result<_, _>>().unwrap();
        let expected: [&[u8]; 3] =
            [&[0xa1, 0x01, 0x07], &[0xa1, 0x09, 0x81, 0x61, b'a'], &[0xa1, 0x09, 0x81, 0x61, b'b']];
        assert_eq!(whole, expected);
        for length in 0..bytes.len() {
            let mut parts = Parts::new(&bytes[..length], 1);
            assert!(parts.by_ref().any(|part| part.is_err()), "{length} bytes are taken");
            assert!(parts.next().is_none());
        }
        let followed = [&bytes[..], &[0]].concat();
        assert!(Parts::new(&followed[..], 1000).any(|part| part.is_err()));
        let mut parts = Parts::new(&bytes[..], 1000);
        assert_eq!(parts.by_ref().count(), 1);
        assert_eq!(parts.sizes()[&9], SectionSize { rows: 2, bytes: 4 });
    }
}
