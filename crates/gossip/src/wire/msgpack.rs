//! MessagePack as Serf writes it: the format before 2013, in which texts and bytes are the same and nothing has a length of
//! one byte.
//!
//! Invariants
//! - Reading allocates nothing and trusts no length: a text is a slice of the input, a count is only counted to.
//! - What is nested deeper than [`MAX_DEPTH`] is refused.

use super::WireError;

/// How deep arrays and maps may be nested.
pub const MAX_DEPTH: usize = 6;

/// Reads values one by one.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        let byte = *self.bytes.get(self.at).ok_or(WireError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count)).ok_or(WireError::Truncated)?;
        self.at += count;
        Ok(taken)
    }

    fn big_endian(&mut self, width: usize) -> Result<u64, WireError> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn length(&mut self, width: usize) -> Result<usize, WireError> {
        usize::try_from(self.big_endian(width)?).map_err(|_| WireError::Truncated)
    }

    /// The number of entries of a map; nil is an empty one.
    pub(crate) fn map(&mut self) -> Result<usize, WireError> {
        match self.byte()? {
            0xc0 => Ok(0),
            head @ 0x80..=0x8f => Ok(usize::from(head & 0x0f)),
            0xde => self.length(2),
            0xdf => self.length(4),
            head => Err(WireError::Unexpected { wanted: "a map", head }),
        }
    }

    /// The number of entries of a list; nil is an empty one.
    pub(crate) fn array(&mut self) -> Result<usize, WireError> {
        match self.byte()? {
            0xc0 => Ok(0),
            head @ 0x90..=0x9f => Ok(usize::from(head & 0x0f)),
            0xdc => self.length(2),
            0xdd => self.length(4),
            head => Err(WireError::Unexpected { wanted: "a list", head }),
        }
    }

    /// Whether the next value is nil; it is read if so.
    pub(crate) fn nil(&mut self) -> bool {
        let nil = self.bytes.get(self.at) == Some(&0xc0);
        self.at += usize::from(nil);
        nil
    }

    /// Bytes, in the old form or the new; nil is none.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = match self.byte()? {
            0xc0 => 0,
            head @ 0xa0..=0xbf => usize::from(head & 0x1f),
            0xd9 | 0xc4 => self.length(1)?,
            0xda | 0xc5 => self.length(2)?,
            0xdb | 0xc6 => self.length(4)?,
            head => return Err(WireError::Unexpected { wanted: "bytes", head }),
        };
        self.take(length)
    }

    /// A text: UTF-8, as a name must be.
    pub(crate) fn text(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::NotText)
    }

    /// A number that is not negative.
    pub(crate) fn unsigned(&mut self) -> Result<u64, WireError> {
        let number = self.signed()?;
        u64::try_from(number).map_err(|_| WireError::OutOfRange)
    }

    /// A number of 32 bits that is not negative.
    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.signed()?).map_err(|_| WireError::OutOfRange)
    }

    /// A number of 16 bits that is not negative.
    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        u16::try_from(self.signed()?).map_err(|_| WireError::OutOfRange)
    }

    /// A number of 8 bits that is not negative.
    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        u8::try_from(self.signed()?).map_err(|_| WireError::OutOfRange)
    }

    /// A number.
    pub(crate) fn signed(&mut self) -> Result<i128, WireError> {
        Ok(match self.byte()? {
            head @ 0x00..=0x7f => i128::from(head),
            head @ 0xe0..=0xff => i128::from(head.cast_signed()),
            0xcc => i128::from(self.big_endian(1)?),
            0xcd => i128::from(self.big_endian(2)?),
            0xce => i128::from(self.big_endian(4)?),
            0xcf => i128::from(self.big_endian(8)?),
            0xd0 => i128::from((self.big_endian(1)? as u8).cast_signed()),
            0xd1 => i128::from((self.big_endian(2)? as u16).cast_signed()),
            0xd2 => i128::from((self.big_endian(4)? as u32).cast_signed()),
            0xd3 => i128::from(self.big_endian(8)?.cast_signed()),
            head => return Err(WireError::Unexpected { wanted: "a number", head }),
        })
    }

    /// Yes or no.
    pub(crate) fn boolean(&mut self) -> Result<bool, WireError> {
        match self.byte()? {
            0xc2 | 0x00 => Ok(false),
            0xc3 | 0x01 => Ok(true),
            head => Err(WireError::Unexpected { wanted: "true or false", head }),
        }
    }

    /// A number with a fraction; whole numbers are taken too.
    pub(crate) fn float(&mut self) -> Result<f64, WireError> {
        match self.bytes.get(self.at) {
            Some(0xca) => {
                self.at += 1;
                Ok(f64::from(f32::from_bits(self.big_endian(4)? as u32)))
            }
            Some(0xcb) => {
                self.at += 1;
                Ok(f64::from_bits(self.big_endian(8)?))
            }
            _ => Ok(self.signed()? as f64),
        }
    }

    /// Passes over one value, whatever it is.
    pub(crate) fn skip(&mut self) -> Result<(), WireError> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<(), WireError> {
        if depth > MAX_DEPTH {
            return Err(WireError::TooDeep);
        }
        let head = *self.bytes.get(self.at).ok_or(WireError::Truncated)?;
        match head {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => self.at += 1,
            0xa0..=0xbf | 0xc4..=0xc6 | 0xd9..=0xdb => {
                self.bytes()?;
            }
            0x80..=0x8f | 0xde | 0xdf => {
                for _ in 0..self.map()? {
                    self.skip_nested(depth + 1)?;
                    self.skip_nested(depth + 1)?;
                }
            }
            0x90..=0x9f | 0xdc | 0xdd => {
                for _ in 0..self.array()? {
                    self.skip_nested(depth + 1)?;
                }
            }
            0xcc | 0xd0 => self.pass(2)?,
            0xcd | 0xd1 => self.pass(3)?,
            0xca | 0xce | 0xd2 => self.pass(5)?,
            0xcb | 0xcf | 0xd3 => self.pass(9)?,
            0xd4..=0xd8 => self.pass(2 + (1 << (head - 0xd4)))?,
            0xc7..=0xc9 => {
                self.at += 1;
                let length = self.length(1 << (head - 0xc7))?;
                self.pass(length.saturating_add(1))?;
            }
            0xc1 => return Err(WireError::Unexpected { wanted: "a value", head }),
        }
        Ok(())
    }

    fn pass(&mut self, count: usize) -> Result<(), WireError> {
        self.take(count).map(|_| ())
    }
}

/// Calls `field` with every key of the map that comes next. A key that `field` does not know is passed over: it answers
/// `false` and has read nothing.
pub(crate) fn fields<'a>(
    reader: &mut Reader<'a>,
    mut field: impl FnMut(&'a [u8], &mut Reader<'a>) -> Result<bool, WireError>,
) -> Result<(), WireError> {
    for _ in 0..reader.map()? {
        let key = reader.bytes()?;
        if !field(key, reader)? {
            reader.skip()?;
        }
    }
    Ok(())
}

/// Appends values.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    pub(crate) fn map(&mut self, entries: usize) -> &mut Self {
        match entries {
            0..16 => self.out.push(0x80 | entries as u8),
            16..0x1_0000 => self.head(0xde, entries as u64, 2),
            _ => self.head(0xdf, entries as u64, 4),
        }
        self
    }

    pub(crate) fn array(&mut self, entries: usize) -> &mut Self {
        match entries {
            0..16 => self.out.push(0x90 | entries as u8),
            16..0x1_0000 => self.head(0xdc, entries as u64, 2),
            _ => self.head(0xdd, entries as u64, 4),
        }
        self
    }

    pub(crate) fn nil(&mut self) -> &mut Self {
        self.out.push(0xc0);
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        match bytes.len() {
            0..32 => self.out.push(0xa0 | bytes.len() as u8),
            32..0x1_0000 => self.head(0xda, bytes.len() as u64, 2),
            _ => self.head(0xdb, bytes.len() as u64, 4),
        }
        self.out.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn unsigned(&mut self, number: u64) -> &mut Self {
        match number {
            0..0x80 => self.out.push(number as u8),
            0x80..0x100 => self.head(0xcc, number, 1),
            0x100..0x1_0000 => self.head(0xcd, number, 2),
            0x1_0000..0x1_0000_0000 => self.head(0xce, number, 4),
            _ => self.head(0xcf, number, 8),
        }
        self
    }

    pub(crate) fn boolean(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { 0xc3 } else { 0xc2 });
        self
    }

    pub(crate) fn float(&mut self, number: f64) -> &mut Self {
        self.head(0xcb, number.to_bits(), 8);
        self
    }

    fn head(&mut self, head: u8, number: u64, width: usize) {
        self.out.push(head);
        self.out.extend_from_slice(&number.to_be_bytes()[8 - width..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_shortest_form_and_come_back() {
        for (number, bytes) in [
            (0u64, vec![0]),
            (127, vec![0x7f]),
            (128, vec![0xcc, 0x80]),
            (256, vec![0xcd, 1, 0]),
            (65_536, vec![0xce, 0, 1, 0, 0]),
            (1 << 40, vec![0xcf, 0, 0, 1, 0, 0, 0, 0, 0]),
        ] {
            let mut out = Vec::new();
            Writer::new(&mut out).unsigned(number);
            assert_eq!(out, bytes, "{number}");
            assert_eq!(Reader::new(&out).unsigned(), Ok(number));
        }
        assert_eq!(Reader::new(&[0xd0, 0xff]).unsigned(), Err(WireError::OutOfRange));
        assert_eq!(Reader::new(&[0xd1, 0xff, 0xfe]).signed(), Ok(-2));
    }

    #[test]
    fn a_text_of_forty_bytes_has_no_length_of_one_byte() {
        let mut out = Vec::new();
        Writer::new(&mut out).text(&"x".repeat(40));
        assert_eq!(out[..3], [0xda, 0, 40]);
        assert_eq!(Reader::new(&out).text().unwrap().len(), 40);
    }

    #[test]
    fn the_newer_forms_of_bytes_are_read_too() {
        assert_eq!(Reader::new(&[0xc4, 2, 7, 8]).bytes(), Ok(&[7, 8][..]));
        assert_eq!(Reader::new(&[0xd9, 1, b'a']).text(), Ok("a"));
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_without_reserving_room() {
        assert_eq!(Reader::new(&[0xdb, 0xff, 0xff, 0xff, 0xff]).bytes(), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[0xdd, 0xff, 0xff, 0xff, 0xff]).skip(), Err(WireError::Truncated));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = vec![0x91; 1_000];
        assert_eq!(Reader::new(&deep).skip(), Err(WireError::TooDeep));
    }
}
