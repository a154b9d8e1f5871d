//! Serf's messages, which memberlist carries as user messages.

mod coordinate;
mod keys;
mod state;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use coordinate::{WireCoordinate, decode_coordinate, encode_coordinate};
pub use keys::{
    KeyResponse, decode_conflict_response, decode_key_request, encode_conflict_response, encode_key_request,
};
pub use state::{AtOnce, Clocks, Known, encode_push_pull, read_push_pull};

use super::msgpack::{Reader, Writer, fields};
use super::{WireError, ip, lamport, name, socket, write_ip};

/// The first byte of a Serf message.
pub mod kind {
    /// A member says that it, or another, leaves.
    pub const LEAVE: u8 = 0;
    /// A member says that it joins.
    pub const JOIN: u8 = 1;
    /// Serf's part of a push/pull.
    pub const PUSH_PULL: u8 = 2;
    /// An event.
    pub const USER_EVENT: u8 = 3;
    /// A question to many.
    pub const QUERY: u8 = 4;
    /// An answer to it, or that it was received.
    pub const QUERY_RESPONSE: u8 = 5;
    /// What a member knows of the holder of a name.
    pub const CONFLICT_RESPONSE: u8 = 6;
    /// Which key a query is about.
    pub const KEY_REQUEST: u8 = 7;
    /// What became of it.
    pub const KEY_RESPONSE: u8 = 8;
    /// Pass this on to another.
    pub const RELAY: u8 = 9;
}

/// The flag of a query that wants to know who received it, and of the answer that says so.
pub const FLAG_ACK: u32 = 1;
/// The flag of a query that nobody passes on.
pub const FLAG_NO_BROADCAST: u32 = 2;
/// The most events that share a Lamport time in a push/pull.
pub const MAX_EVENTS_AT_ONCE: usize = 256;
/// The most filters of a query.
pub const MAX_FILTERS: usize = 64;

/// A member joins or leaves; which of both says the first byte.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Intent<'a> {
    /// When.
    pub time: u64,
    /// Who.
    pub node: &'a str,
    /// Of a leave: forget the member at once.
    pub prune: bool,
}

impl<'a> Intent<'a> {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut intent = Self::default();
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"LTime" => intent.time = lamport(reader)?,
                b"Node" => intent.node = name(reader)?,
                b"Prune" => intent.prune = reader.boolean()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(intent)
    }

    /// Appends the message with this first byte.
    pub fn encode(&self, kind: u8, out: &mut Vec<u8>) {
        out.push(kind);
        let mut writer = Writer::new(out);
        let leave = kind == self::kind::LEAVE;
        writer.map(2 + usize::from(leave)).text("LTime").unsigned(self.time).text("Node").text(self.node);
        if leave {
            writer.text("Prune").boolean(self.prune);
        }
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UserEvent<'a> {
    /// When.
    pub time: u64,
    /// What.
    pub name: &'a str,
    /// What about it.
    pub payload: &'a [u8],
    /// Whether only the last of many of that name matters.
    pub coalesce: bool,
}

impl<'a> UserEvent<'a> {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut event = Self::default();
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"LTime" => event.time = lamport(reader)?,
                b"Name" => event.name = name(reader)?,
                b"Payload" => event.payload = reader.bytes()?,
                b"CC" => event.coalesce = reader.boolean()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(event)
    }

    /// Appends the message with its first byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::USER_EVENT);
        let mut writer = Writer::new(out);
        writer.map(4).text("CC").boolean(self.coalesce).text("LTime").unsigned(self.time);
        writer.text("Name").text(self.name).text("Payload").bytes(self.payload);
    }
}

/// A question to many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// When.
    pub time: u64,
    /// Which, among those of that time.
    pub id: u32,
    /// Where answers go.
    pub source: Option<SocketAddr>,
    /// Who asks.
    pub source_node: &'a str,
    /// Who is asked: all filters must match.
    pub filters: Vec<&'a [u8]>,
    /// [`FLAG_ACK`], [`FLAG_NO_BROADCAST`].
    pub flags: u32,
    /// Through how many others each answer goes too.
    pub relay: u8,
    /// How long answers are waited for.
    pub timeout: Duration,
    /// What is asked.
    pub name: &'a str,
    /// What about it.
    pub payload: &'a [u8],
}

impl<'a> Query<'a> {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (mut address, mut port) = (None::<IpAddr>, 0);
        let mut query = Query {
            time: 0,
            id: 0,
            source: None,
            source_node: "",
            filters: Vec::new(),
            flags: 0,
            relay: 0,
            timeout: Duration::ZERO,
            name: "",
            payload: &[],
        };
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"LTime" => query.time = lamport(reader)?,
                b"ID" => query.id = reader.u32()?,
                b"Addr" => address = ip(reader.bytes()?)?,
                b"Port" => port = reader.u16()?,
                b"SourceNode" => query.source_node = name(reader)?,
                b"Filters" => {
                    let count = reader.array()?;
                    if count > MAX_FILTERS {
                        return Err(WireError::TooLarge { what: "the number of filters", limit: MAX_FILTERS });
                    }
                    for _ in 0..count {
                        query.filters.push(reader.bytes()?);
                    }
                }
                b"Flags" => query.flags = reader.u32()?,
                b"RelayFactor" => query.relay = reader.u8()?,
                b"Timeout" => query.timeout = Duration::from_nanos(reader.unsigned()?),
                b"Name" => query.name = name(reader)?,
                b"Payload" => query.payload = reader.bytes()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        query.source = socket(address, port);
        Ok(query)
    }

    /// Appends the message with its first byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::QUERY);
        let mut writer = Writer::new(out);
        writer.map(11).text("Addr");
        match self.source {
            Some(source) => write_ip(&mut writer, source.ip()),
            None => {
                writer.nil();
            }
        }
        writer.text("Filters").array(self.filters.len());
        for filter in &self.filters {
            writer.bytes(filter);
        }
        writer.text("Flags").unsigned(self.flags.into()).text("ID").unsigned(self.id.into());
        writer.text("LTime").unsigned(self.time).text("Name").text(self.name);
        writer.text("Payload").bytes(self.payload);
        writer.text("Port").unsigned(self.source.map_or(0, |it| it.port()).into());
        writer.text("RelayFactor").unsigned(self.relay.into()).text("SourceNode").text(self.source_node);
        writer.text("Timeout").unsigned(u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX >> 1));
    }
}

/// Who a query is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter<'a> {
    /// One of these members.
    Nodes(Vec<&'a str>),
    /// Members whose tag matches the expression.
    Tag {
        /// The tag's name.
        tag: &'a str,
        /// A regular expression.
        expression: &'a str,
    },
}

/// The most names in a filter.
const MAX_FILTER_NODES: usize = 1024;

impl<'a> Filter<'a> {
    /// Reads a filter.
    ///
    /// # Errors
    /// The bytes are no filter.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (kind, rest) = bytes.split_first().ok_or(WireError::Truncated)?;
        let mut reader = Reader::new(rest);
        match kind {
            0 => {
                let count = reader.array()?;
                if count > MAX_FILTER_NODES {
                    return Err(WireError::TooLarge { what: "the names in a filter", limit: MAX_FILTER_NODES });
                }
                (0..count).map(|_| name(&mut reader)).collect::<Result<_, _>>().map(Filter::Nodes)
            }
            1 => {
                let (mut tag, mut expression) = ("", "");
                fields(&mut reader, |key, reader| {
                    match key {
                        b"Tag" => tag = reader.text()?,
                        b"Expr" => expression = reader.text()?,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                Ok(Filter::Tag { tag, expression })
            }
            other => Err(WireError::Kind(*other)),
        }
    }

    /// The filter's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Filter::Nodes(nodes) => {
                let mut out = vec![0];
                let mut writer = Writer::new(&mut out);
                writer.array(nodes.len());
                for node in nodes {
                    writer.text(node);
                }
                out
            }
            Filter::Tag { tag, expression } => {
                let mut out = vec![1];
                Writer::new(&mut out).map(2).text("Expr").text(expression).text("Tag").text(tag);
                out
            }
        }
    }
}

/// An answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct QueryResponse<'a> {
    /// The query's time.
    pub time: u64,
    /// The query's id.
    pub id: u32,
    /// Who answers.
    pub from: &'a str,
    /// [`FLAG_ACK`] when it only says that the query was received.
    pub flags: u32,
    /// The answer.
    pub payload: &'a [u8],
}

impl<'a> QueryResponse<'a> {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut response = Self::default();
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"LTime" => response.time = lamport(reader)?,
                b"ID" => response.id = reader.u32()?,
                b"From" => response.from = name(reader)?,
                b"Flags" => response.flags = reader.u32()?,
                b"Payload" => response.payload = reader.bytes()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(response)
    }

    /// Appends the message with its first byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::QUERY_RESPONSE);
        let mut writer = Writer::new(out);
        writer.map(5).text("Flags").unsigned(self.flags.into()).text("From").text(self.from);
        writer.text("ID").unsigned(self.id.into()).text("LTime").unsigned(self.time).text("Payload");
        if self.payload.is_empty() {
            writer.nil()
        } else {
            writer.bytes(self.payload)
        };
    }
}

/// Reads a relay after its first byte: where to, and the message.
///
/// # Errors
/// The bytes are no such message.
pub fn decode_relay(bytes: &[u8]) -> Result<(SocketAddr, &[u8]), WireError> {
    let (mut address, mut port, mut reader) = (None, 0, Reader::new(bytes));
    fields(&mut reader, |key, reader| {
        if key != b"DestAddr" {
            return Ok(false);
        }
        fields(reader, |key, reader| {
            match key {
                b"IP" => address = ip(reader.bytes()?)?,
                b"Port" => port = reader.u16()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(true)
    })?;
    let to = socket(address, port).ok_or(WireError::Address(0))?;
    Ok((to, reader.rest()))
}

/// Appends a relay of `message` to the member `node` at `to`.
pub fn encode_relay(to: SocketAddr, node: &str, message: &[u8], out: &mut Vec<u8>) {
    out.push(kind::RELAY);
    let mut writer = Writer::new(out);
    writer.map(2).text("DestAddr").map(3).text("IP");
    write_ip(&mut writer, to.ip());
    writer.text("Port").unsigned(to.port().into()).text("Zone").text("").text("DestName").text(node);
    out.extend_from_slice(message);
}
