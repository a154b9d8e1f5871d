//! Streams: one message each way, of which only the content tells where it ends.
//!
//! Invariants
//! - Bytes are looked at once: what was passed over is not passed over again when more arrive.
//! - A stream larger than [`MAX_STREAM`] is refused as soon as that shows.

use super::envelope::{Extent, extent};
use super::msgpack::{Reader, Writer, fields};
use super::swim::MemberState;
use super::{MAX_STATES, MAX_STREAM, WireError, kind};

/// Collects a stream until its message is whole.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// Label and encryption are not known yet.
    #[default]
    Start,
    /// The whole is this long.
    Whole(usize),
    /// A map comes next, after which the message ends; its kind has been read.
    LastMap(usize),
    /// The header of a push/pull or of a user message comes next.
    Header(u8, usize),
    /// So many members, then so many bytes.
    States { at: usize, left: usize, behind: usize },
}

impl Assembler {
    /// Adds what has arrived. Answers whether the message is whole.
    ///
    /// # Errors
    /// It is larger than [`MAX_STREAM`], or no message at all.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, WireError> {
        if self.bytes.len() + bytes.len() > MAX_STREAM + 1024 {
            return Err(WireError::TooLarge { what: "a stream", limit: MAX_STREAM });
        }
        self.bytes.extend_from_slice(bytes);
        loop {
            match self.step() {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(WireError::Truncated) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// All that has arrived.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How much has arrived.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn step(&mut self) -> Result<bool, WireError> {
        self.stage = match self.stage {
            Stage::Start => match extent(&self.bytes)? {
                Extent::Whole(length) => Stage::Whole(length),
                Extent::PlainFrom(start) => match self.bytes[start] {
                    kind @ (kind::PUSH_PULL | kind::USER) => Stage::Header(kind, start + 1),
                    kind::COMPRESS | kind::PING | kind::ACK | kind::ERROR => Stage::LastMap(start + 1),
                    other => return Err(WireError::Kind(other)),
                },
            },
            Stage::Whole(length) => {
                return if self.bytes.len() >= length { Ok(true) } else { Err(WireError::Truncated) };
            }
            Stage::LastMap(at) => Stage::Whole(at + self.passed(at)?),
            Stage::Header(kind::USER, at) => {
                let mut reader = Reader::new(&self.bytes[at..]);
                let length = UserHeader::read(&mut reader)?;
                Stage::Whole(at + reader.position() + length)
            }
            Stage::Header(_, at) => {
                let mut reader = Reader::new(&self.bytes[at..]);
                let header = PushPullHeader::read(&mut reader)?;
                Stage::States { at: at + reader.position(), left: header.states, behind: header.user_state }
            }
            Stage::States { at, left: 0, behind } => Stage::Whole(at + behind),
            Stage::States { at, left, behind } => Stage::States { at: at + self.passed(at)?, left: left - 1, behind },
        };
        Ok(false)
    }

    /// How long the value at `at` is.
    fn passed(&self, at: usize) -> Result<usize, WireError> {
        let mut reader = Reader::new(self.bytes.get(at..).ok_or(WireError::Truncated)?);
        reader.skip()?;
        Ok(reader.position())
    }
}

struct UserHeader;

impl UserHeader {
    fn read(reader: &mut Reader<'_>) -> Result<usize, WireError> {
        let mut length = 0;
        fields(reader, |key, reader| {
            if key == b"UserMsgLen" {
                length = reader.unsigned()?;
            }
            Ok(key == b"UserMsgLen")
        })?;
        bounded(length, MAX_STREAM, "a user message")
    }
}

fn bounded(number: u64, limit: usize, what: &'static str) -> Result<usize, WireError> {
    usize::try_from(number).ok().filter(|it| *it <= limit).ok_or(WireError::TooLarge { what, limit })
}

#[derive(Clone, Copy, Debug)]
struct PushPullHeader {
    states: usize,
    user_state: usize,
    join: bool,
}

impl PushPullHeader {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (mut states, mut user_state, mut join) = (0, 0, false);
        fields(reader, |key, reader| {
            match key {
                b"Nodes" => states = reader.unsigned()?,
                b"UserStateLen" => user_state = reader.unsigned()?,
                b"Join" => join = reader.boolean()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            states: bounded(states, MAX_STATES, "the number of members in a push/pull")?,
            user_state: bounded(user_state, MAX_STREAM, "the user state of a push/pull")?,
            join,
        })
    }
}

/// Everything a member knows: an iterator over its members, and Serf's part.
#[derive(Clone, Debug)]
pub struct PushPull<'a> {
    /// Whether the sender joins the pool by it.
    pub join: bool,
    /// How many members follow.
    pub count: usize,
    states: Reader<'a>,
    user_state: usize,
}

impl<'a> PushPull<'a> {
    /// Reads the message after its first byte; the members are read one by one later.
    ///
    /// # Errors
    /// The header is damaged or asks for too much.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let header = PushPullHeader::read(&mut reader)?;
        Ok(Self { join: header.join, count: header.states, states: reader, user_state: header.user_state })
    }

    /// Calls `state` with every member, then answers Serf's part.
    ///
    /// # Errors
    /// A member cannot be read; those before it have been told.
    pub fn read(&self, mut state: impl FnMut(&MemberState<'a>)) -> Result<&'a [u8], WireError> {
        let mut reader = self.states.clone();
        for _ in 0..self.count {
            state(&MemberState::read(&mut reader)?);
        }
        reader.take(self.user_state)
    }
}

/// Appends the head of a push/pull, its kind included. The members and Serf's part follow it.
pub(crate) fn encode_header(states: usize, user_state: usize, join: bool, out: &mut Vec<u8>) {
    out.push(kind::PUSH_PULL);
    let mut writer = Writer::new(out);
    writer.map(3).text("Join").boolean(join).text("Nodes").unsigned(states as u64);
    writer.text("UserStateLen").unsigned(user_state as u64);
}

/// Reads a user message of a stream, after its first byte.
///
/// # Errors
/// It is damaged or too large.
pub fn decode_user(bytes: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(bytes);
    let length = UserHeader::read(&mut reader)?;
    reader.take(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::swim::{Alive, Life, encode_fixed, encode_state};
    use crate::wire::{MAX_META, Versions};

    fn push_pull(states: usize, user: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_header(states, user.len(), true, &mut out);
        for number in 0..states {
            let mut fixed = Vec::new();
            let (node, meta) = (format!("node-{number}"), vec![1; number % MAX_META]);
            let address = "10.0.0.1:8301".parse().unwrap();
            let versions = Versions::default();
            encode_fixed(&Alive { incarnation: 0, node: &node, address, meta: &meta, versions }, &mut fixed);
            encode_state(&fixed, number as u32, Life::Suspect, &mut out);
        }
        out.extend_from_slice(user);
        out
    }

    #[test]
    fn a_push_pull_is_whole_exactly_when_its_last_byte_has_come() {
        let whole = push_pull(20, b"serf's part");
        for piece in [1, 7, 1000] {
            let mut assembler = Assembler::default();
            let mut ends = Vec::new();
            for chunk in whole.chunks(piece) {
                ends.push(assembler.push(chunk).unwrap());
            }
            assert_eq!(ends.iter().position(|it| *it), Some(ends.len() - 1));
            let bytes = assembler.into_bytes();
            let read = PushPull::decode(&bytes[1..]).unwrap();
            let mut names = Vec::new();
            let user = read.read(|state| names.push((state.alive.node.to_owned(), state.alive.incarnation))).unwrap();
            assert_eq!((user, names.len(), read.join), (&b"serf's part"[..], 20, true));
            assert_eq!(names[19], ("node-19".into(), 19));
        }
    }

    #[test]
    fn a_stream_that_announces_too_much_is_refused_at_its_head() {
        let mut assembler = Assembler::default();
        assert!(matches!(assembler.push(&[kind::ENCRYPT, 0xff, 0, 0, 0]), Err(WireError::TooLarge { .. })));
        let mut head = Vec::new();
        encode_header(MAX_STATES + 1, 0, false, &mut head);
        assert!(matches!(Assembler::default().push(&head), Err(WireError::TooLarge { .. })));
        assert_eq!(Assembler::default().push(&[99]), Err(WireError::Kind(99)));
    }
}
