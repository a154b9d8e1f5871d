//! Records: what a segment is made of.
//!
//! A segment begins with a header page and then holds batches. A batch is what one flush wrote: a [`Record::Batch`]
//! that says how long it is, then its records. A batch that was synced is padded with zeros to the end of its page, so
//! that a page that was once durable is never written again.
//!
//! Layout of a record: `kind u8, length u32, crc32c u32, payload`, little endian. No kind is zero, so a zero byte
//! where a record could begin means padding. The checksum covers the number of the segment and the offset too: a
//! record that the disk put in the wrong place is a broken one.

use bytes::Bytes;

/// Pages are padded to this size.
pub(super) const PAGE: u64 = 4096;
/// The bytes before a payload.
pub(super) const HEADER: usize = 9;
/// The length of the payload of [`Record::Batch`].
const BATCH_PAYLOAD: usize = 20;
/// The bytes that a [`Record::Batch`] takes.
pub(super) const BATCH: usize = HEADER + BATCH_PAYLOAD;
/// No payload may be longer: it bounds what a broken length makes a reader do.
pub(super) const PAYLOAD_LIMIT: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"lictor-l";
const VERSION: u32 = 1;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The beginning of a batch.
    Batch(Batch),
    /// A log entry.
    Entry { index: u64, body: Bytes },
    /// The vote of this server.
    Vote { body: Bytes },
    /// Entries from this index on are gone.
    Truncate { from: u64 },
    /// Entries up to and with this index are gone; the body is the position of the last of them.
    Purge { through: u64, body: Bytes },
    /// How far the log is known to be committed.
    Committed { body: Bytes },
}

/// The beginning of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Counts batches over all segments, from 1.
    pub sequence: u64,
    /// The batches up to this one were durable when this one was written.
    pub synced: u64,
    /// The bytes of the records that follow.
    pub length: u32,
}

const KIND_BATCH: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_VOTE: u8 = 3;
const KIND_TRUNCATE: u8 = 4;
const KIND_PURGE: u8 = 5;
const KIND_COMMITTED: u8 = 6;

/// What was found at an offset.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole record and the bytes it took.
    Record(Record, usize),
    /// Zeros up to the end of the page.
    Padding,
    /// Neither: `why` says what is wrong.
    Bad { why: &'static str },
}

fn checksum(segment: u64, offset: u64, kind: u8, payload: &[u8]) -> u32 {
    let mut head = [0; 21];
    head[..8].copy_from_slice(&segment.to_le_bytes());
    head[8..16].copy_from_slice(&offset.to_le_bytes());
    head[16] = kind;
    head[17..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

impl Record {
    /// The bytes that the record takes.
    pub(super) fn size(&self) -> usize {
        HEADER
            + match self {
                Self::Batch(_) => BATCH_PAYLOAD,
                Self::Entry { body, .. } | Self::Purge { body, .. } => 8 + body.len(),
                Self::Vote { body } | Self::Committed { body } => body.len(),
                Self::Truncate { .. } => 8,
            }
    }

    /// Appends the record to `buffer`, whose first byte will be at `base` in the segment.
    pub(super) fn encode(&self, segment: u64, base: u64, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; HEADER]);
        let kind = match self {
            Self::Batch(batch) => {
                buffer.extend_from_slice(&batch.sequence.to_le_bytes());
                buffer.extend_from_slice(&batch.synced.to_le_bytes());
                buffer.extend_from_slice(&batch.length.to_le_bytes());
                KIND_BATCH
            }
            Self::Entry { index, body } => {
                buffer.extend_from_slice(&index.to_le_bytes());
                buffer.extend_from_slice(body);
                KIND_ENTRY
            }
            Self::Vote { body } => {
                buffer.extend_from_slice(body);
                KIND_VOTE
            }
            Self::Truncate { from } => {
                buffer.extend_from_slice(&from.to_le_bytes());
                KIND_TRUNCATE
            }
            Self::Purge { through, body } => {
                buffer.extend_from_slice(&through.to_le_bytes());
                buffer.extend_from_slice(body);
                KIND_PURGE
            }
            Self::Committed { body } => {
                buffer.extend_from_slice(body);
                KIND_COMMITTED
            }
        };
        let payload = &buffer[start + HEADER..];
        let crc = checksum(segment, base + start as u64, kind, payload);
        let length = payload.len() as u32;
        buffer[start] = kind;
        buffer[start + 1..start + 5].copy_from_slice(&length.to_le_bytes());
        buffer[start + 5..start + HEADER].copy_from_slice(&crc.to_le_bytes());
    }

    fn decode(kind: u8, payload: &[u8]) -> Option<Self> {
        let number =
            |at: usize| payload.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        Some(match kind {
            KIND_BATCH => {
                let length = payload.get(16..20)?.try_into().ok().map(u32::from_le_bytes)?;
                Self::Batch(Batch { sequence: number(0)?, synced: number(8)?, length })
            }
            KIND_ENTRY => Self::Entry { index: number(0)?, body: Bytes::copy_from_slice(&payload[8..]) },
            KIND_VOTE => Self::Vote { body: Bytes::copy_from_slice(payload) },
            KIND_TRUNCATE => Self::Truncate { from: number(0)? },
            KIND_PURGE => Self::Purge { through: number(0)?, body: Bytes::copy_from_slice(&payload[8..]) },
            KIND_COMMITTED => Self::Committed { body: Bytes::copy_from_slice(payload) },
            _ => return None,
        })
    }
}

/// Looks at what is at `at` in `bytes`, whose first byte is at `base` in the segment.
pub(super) fn parse(segment: u64, base: u64, bytes: &[u8], at: usize) -> Found {
    let rest = &bytes[at..];
    if rest.first().is_none_or(|kind| *kind == 0) {
        let offset = base + at as u64;
        let page = (PAGE - offset % PAGE) as usize;
        return if rest.iter().take(page).all(|byte| *byte == 0) {
            Found::Padding
        } else {
            Found::Bad { why: "bytes where there should be padding" }
        };
    }
    if rest.len() < HEADER {
        return Found::Bad { why: "the segment ends inside the head of a record" };
    }
    let kind = rest[0];
    let length = u32::from_le_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize;
    let crc = u32::from_le_bytes([rest[5], rest[6], rest[7], rest[8]]);
    if length > PAYLOAD_LIMIT {
        return Found::Bad { why: "a record says that it is longer than any may be" };
    }
    let Some(payload) = rest.get(HEADER..HEADER + length) else {
        return Found::Bad { why: "the segment ends inside a record" };
    };
    if checksum(segment, base + at as u64, kind, payload) != crc {
        return Found::Bad { why: "the checksum of a record does not match" };
    }
    match Record::decode(kind, payload) {
        Some(record) => Found::Record(record, HEADER + length),
        None => Found::Bad { why: "a record of a kind that this version does not know" },
    }
}

/// Finds a batch at or after `from` that was written when batch `sequence` was already durable.
///
/// It proves that what is broken before it was once whole, so it must not be taken for the torn end of the log.
pub(super) fn find_later_batch(segment: u64, bytes: &[u8], from: usize, sequence: u64) -> Option<usize> {
    let mut at = from;
    while at + BATCH <= bytes.len() {
        if bytes[at] == 0 {
            at += 1;
            continue;
        }
        let looks_like_one = bytes[at] == KIND_BATCH && bytes[at + 1..at + 5] == (BATCH_PAYLOAD as u32).to_le_bytes();
        if looks_like_one
            && let Found::Record(Record::Batch(batch), _) = parse(segment, 0, bytes, at)
            && batch.synced >= sequence
        {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// The first page of a segment.
pub(super) fn segment_header(number: u64, first_sequence: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    page[..8].copy_from_slice(&MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    page[12..20].copy_from_slice(&number.to_le_bytes());
    page[20..28].copy_from_slice(&first_sequence.to_le_bytes());
    let crc = crc32c::crc32c(&page[..28]);
    page[28..32].copy_from_slice(&crc.to_le_bytes());
    page
}

/// Reads the first page of a segment: the sequence of its first batch.
pub(super) fn read_segment_header(number: u64, bytes: &[u8]) -> Result<u64, &'static str> {
    let Some(head) = bytes.get(..PAGE as usize) else {
        return Err("the file is shorter than the head of a segment");
    };
    if head[..8] != MAGIC {
        return Err("the file does not begin like a segment of the log");
    }
    if head[8..12] != VERSION.to_le_bytes() {
        return Err("the segment was written in a format that this version does not know");
    }
    let crc = u32::from_le_bytes([head[28], head[29], head[30], head[31]]);
    if crc32c::crc32c(&head[..28]) != crc || head[32..].iter().any(|byte| *byte != 0) {
        return Err("the checksum of the head of the segment does not match");
    }
    if head[12..20] != number.to_le_bytes() {
        return Err("the number in the head of the segment differs from that in its name");
    }
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&head[20..28]);
    Ok(u64::from_le_bytes(sequence))
}

/// The next place where a page begins.
pub(super) fn page_up(offset: u64) -> u64 {
    offset.next_multiple_of(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        vec![
            Record::Batch(Batch { sequence: 7, synced: 6, length: 90 }),
            Record::Entry { index: 5, body: Bytes::from_static(b"five") },
            Record::Entry { index: 6, body: Bytes::new() },
            Record::Vote { body: Bytes::from_static(b"vote") },
            Record::Truncate { from: 9 },
            Record::Purge { through: 4, body: Bytes::from_static(b"at") },
            Record::Committed { body: Bytes::from_static(b"c") },
        ]
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        for record in samples() {
            let mut buffer = Vec::new();
            record.encode(3, 4096, &mut buffer);
            assert_eq!(buffer.len(), record.size());
            match parse(3, 4096, &buffer, 0) {
                Found::Record(found, size) => assert_eq!((found, size), (record, buffer.len())),
                other => panic!("{record:?} became {other:?}"),
            }
        }
    }

    #[test]
    fn a_record_in_the_wrong_place_is_a_broken_one() {
        let mut buffer = Vec::new();
        Record::Truncate { from: 9 }.encode(3, 4096, &mut buffer);
        assert!(matches!(parse(4, 4096, &buffer, 0), Found::Bad { .. }));
        assert!(matches!(parse(3, 8192, &buffer, 0), Found::Bad { .. }));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        for record in samples() {
            let mut buffer = Vec::new();
            record.encode(1, 4096, &mut buffer);
            for bit in 0..buffer.len() * 8 {
                let mut broken = buffer.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert!(!matches!(parse(1, 4096, &broken, 0), Found::Record(..)), "bit {bit} of {record:?}");
            }
        }
    }

    #[test]
    fn every_flipped_byte_of_a_segment_header_is_found() {
        let header = segment_header(3, 17);
        assert_eq!(read_segment_header(3, &header), Ok(17));
        for at in 0..header.len() {
            let mut broken = header.clone();
            broken[at] ^= 0x40;
            assert!(read_segment_header(3, &broken).is_err(), "byte {at}");
        }
    }
}
