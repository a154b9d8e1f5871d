//! Serf's part of a push/pull.

use super::{MAX_EVENTS_AT_ONCE, UserEvent, kind};
use crate::wire::msgpack::{Reader, Writer, fields};
use crate::wire::{WireError, lamport, name};

/// Serf's part of a push/pull: its clocks, then what [`read_push_pull`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Of joins and leaves.
    pub members: u64,
    /// Of events.
    pub events: u64,
    /// Of queries.
    pub queries: u64,
}

/// What a push/pull of Serf's holds besides its clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<'a> {
    /// A member's last join or leave was then.
    Status(&'a str, u64),
    /// A member has left.
    Left(&'a str),
    /// An event.
    Event(UserEvent<'a>),
}

/// Reads Serf's part of a push/pull after its first byte. What is known comes in the order of the bytes, so `known` may hear of
/// a member that left before or after its time.
///
/// # Errors
/// The bytes are no such message; what was read before the damage has been told.
pub fn read_push_pull<'a>(bytes: &'a [u8], mut known: impl FnMut(Known<'a>)) -> Result<Clocks, WireError> {
    let mut clocks = Clocks::default();
    fields(&mut Reader::new(bytes), |key, reader| {
        match key {
            b"LTime" => clocks.members = lamport(reader)?,
            b"EventLTime" => clocks.events = lamport(reader)?,
            b"QueryLTime" => clocks.queries = lamport(reader)?,
            b"StatusLTimes" => {
                for _ in 0..reader.map()? {
                    let (node, time) = (name(reader)?, lamport(reader)?);
                    known(Known::Status(node, time));
                }
            }
            b"LeftMembers" => {
                for _ in 0..reader.array()? {
                    known(Known::Left(name(reader)?));
                }
            }
            b"Events" => {
                for _ in 0..reader.array()? {
                    read_events(reader, &mut known)?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(clocks)
}

fn read_events<'a>(reader: &mut Reader<'a>, known: &mut impl FnMut(Known<'a>)) -> Result<(), WireError> {
    if reader.nil() {
        return Ok(());
    }
    let (mut time, mut events) = (0, Vec::new());
    fields(reader, |key, reader| {
        match key {
            b"LTime" => time = lamport(reader)?,
            b"Events" => {
                let count = reader.array()?;
                if count > MAX_EVENTS_AT_ONCE {
                    return Err(WireError::TooLarge { what: "events of one time", limit: MAX_EVENTS_AT_ONCE });
                }
                for _ in 0..count {
                    let mut event = UserEvent::default();
                    fields(reader, |key, reader| {
                        match key {
                            b"Name" => event.name = name(reader)?,
                            b"Payload" => event.payload = reader.bytes()?,
                            _ => return Ok(false),
                        }
                        Ok(true)
                    })?;
                    events.push(event);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    for event in events {
        known(Known::Event(UserEvent { time, ..event }));
    }
    Ok(())
}

/// The events of one Lamport time: names and payloads.
pub type AtOnce<'a> = (u64, Vec<(&'a str, &'a [u8])>);

/// Appends Serf's part of a push/pull with its first byte.
pub fn encode_push_pull<'a>(
    clocks: Clocks,
    statuses: impl ExactSizeIterator<Item = (&'a str, u64)>,
    left: &[&str],
    events: &[AtOnce<'_>],
    out: &mut Vec<u8>,
) {
    out.push(kind::PUSH_PULL);
    let mut writer = Writer::new(out);
    writer.map(6).text("EventLTime").unsigned(clocks.events).text("Events").array(events.len());
    for (time, at_once) in events {
        writer.map(2).text("Events").array(at_once.len());
        for (name, payload) in at_once {
            writer.map(2).text("Name").text(name).text("Payload").bytes(payload);
        }
        writer.text("LTime").unsigned(*time);
    }
    writer.text("LTime").unsigned(clocks.members).text("LeftMembers").array(left.len());
    for node in left {
        writer.text(node);
    }
    writer.text("QueryLTime").unsigned(clocks.queries).text("StatusLTimes").map(statuses.len());
    for (node, time) in statuses {
        writer.text(node).unsigned(time);
    }
}
