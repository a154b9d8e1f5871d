//! memberlist's own messages: probes, and what is said of members.

use std::net::{IpAddr, SocketAddr};

use super::msgpack::{Reader, Writer, fields};
use super::{MAX_META, Versions, WireError, ip, kind, name, socket, write_ip};

/// Are you there?
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ping<'a> {
    /// Comes back in the answer.
    pub sequence: u32,
    /// Who is meant: another one at that address does not answer.
    pub node: &'a str,
    /// Where the answer goes; where the packet came from, for none.
    pub source: Option<SocketAddr>,
    /// Who asks.
    pub source_node: &'a str,
}

impl<'a> Ping<'a> {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (mut ping, mut address, mut port) = (Self::default(), None, 0);
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"SeqNo" => ping.sequence = reader.u32()?,
                b"Node" => ping.node = name(reader)?,
                b"SourceAddr" => address = ip(reader.bytes()?)?,
                b"SourcePort" => port = reader.u16()?,
                b"SourceNode" => ping.source_node = name(reader)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        ping.source = socket(address, port);
        Ok(ping)
    }

    /// Appends the message with its first byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::PING);
        let mut writer = Writer::new(out);
        let entries = 2 + source_entries(self.source, self.source_node);
        writer.map(entries).text("Node").text(self.node).text("SeqNo").unsigned(self.sequence.into());
        write_source(&mut writer, self.source, self.source_node);
    }
}

fn source_entries(source: Option<SocketAddr>, node: &str) -> usize {
    2 * usize::from(source.is_some()) + usize::from(!node.is_empty())
}

fn write_source(writer: &mut Writer<'_>, source: Option<SocketAddr>, node: &str) {
    if let Some(source) = source {
        writer.text("SourceAddr");
        write_ip(writer, source.ip());
    }
    if !node.is_empty() {
        writer.text("SourceNode").text(node);
    }
    if let Some(source) = source {
        writer.text("SourcePort").unsigned(source.port().into());
    }
}

/// Ask another whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndirectPing<'a> {
    /// Comes back in the answer.
    pub sequence: u32,
    /// Where the other one is.
    pub target: SocketAddr,
    /// Who the other one is.
    pub node: &'a str,
    /// Whether to say so when it does not answer.
    pub nack: bool,
    /// Where the answer goes; where the packet came from, for none.
    pub source: Option<SocketAddr>,
    /// Who asks.
    pub source_node: &'a str,
}

impl<'a> IndirectPing<'a> {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (mut sequence, mut node, mut nack, mut source_node) = (0, "", false, "");
        let (mut target, mut port, mut address, mut source_port) = (None, 0, None, 0);
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"SeqNo" => sequence = reader.u32()?,
                b"Target" => target = ip(reader.bytes()?)?,
                b"Port" => port = reader.u16()?,
                b"Node" => node = name(reader)?,
                b"Nack" => nack = reader.boolean()?,
                b"SourceAddr" => address = ip(reader.bytes()?)?,
                b"SourcePort" => source_port = reader.u16()?,
                b"SourceNode" => source_node = name(reader)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let target = socket(target, port).ok_or(WireError::Address(0))?;
        Ok(Self { sequence, target, node, nack, source: socket(address, source_port), source_node })
    }

    /// Appends the message with its first byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::INDIRECT_PING);
        let mut writer = Writer::new(out);
        writer.map(5 + source_entries(self.source, self.source_node));
        writer.text("Nack").boolean(self.nack).text("Node").text(self.node);
        writer.text("Port").unsigned(self.target.port().into()).text("SeqNo").unsigned(self.sequence.into());
        write_source(&mut writer, self.source, self.source_node);
        writer.text("Target");
        write_ip(&mut writer, self.target.ip());
    }
}

/// I am there; or, without a payload over a stream, the same.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ack<'a> {
    /// From the question.
    pub sequence: u32,
    /// Serf puts its coordinate here.
    pub payload: &'a [u8],
}

impl<'a> Ack<'a> {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut ack = Self::default();
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"SeqNo" => ack.sequence = reader.u32()?,
                b"Payload" => ack.payload = reader.bytes()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(ack)
    }

    /// Appends the message with its first byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::ACK);
        let mut writer = Writer::new(out);
        writer.map(2).text("Payload");
        if self.payload.is_empty() {
            writer.nil()
        } else {
            writer.bytes(self.payload)
        };
        writer.text("SeqNo").unsigned(self.sequence.into());
    }
}

/// Reads a nack after its first byte: the sequence number of the question.
///
/// # Errors
/// The bytes are no such message.
pub fn decode_nack(bytes: &[u8]) -> Result<u32, WireError> {
    Ok(Ack::decode(bytes)?.sequence)
}

/// Appends a nack with its first byte.
pub fn encode_nack(sequence: u32, out: &mut Vec<u8>) {
    out.push(kind::NACK);
    Writer::new(out).map(1).text("SeqNo").unsigned(sequence.into());
}

/// A member does not answer, or is gone; which of both says the first byte.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Accusation<'a> {
    /// Which of its lives is meant.
    pub incarnation: u32,
    /// Who is meant.
    pub node: &'a str,
    /// Who says so. Who says of itself that it is gone has left.
    pub from: &'a str,
}

impl<'a> Accusation<'a> {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut accusation = Self::default();
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"Incarnation" => accusation.incarnation = reader.u32()?,
                b"Node" => accusation.node = name(reader)?,
                b"From" => accusation.from = name(reader)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(accusation)
    }

    /// Appends the message with this first byte.
    pub fn encode(&self, kind: u8, out: &mut Vec<u8>) {
        out.push(kind);
        let mut writer = Writer::new(out);
        writer.map(3).text("From").text(self.from);
        writer.text("Incarnation").unsigned(self.incarnation.into()).text("Node").text(self.node);
    }
}

/// A member is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive<'a> {
    /// Which of its lives.
    pub incarnation: u32,
    /// Who.
    pub node: &'a str,
    /// Where.
    pub address: SocketAddr,
    /// Its tags, encoded.
    pub meta: &'a [u8],
    /// What it speaks.
    pub versions: Versions,
}

impl<'a> Alive<'a> {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        Ok(MemberState::read(&mut Reader::new(bytes))?.alive)
    }

    /// Appends the message with its first byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::ALIVE);
        let mut writer = Writer::new(out);
        writer.map(6).text("Addr");
        write_ip(&mut writer, self.address.ip());
        writer.text("Incarnation").unsigned(self.incarnation.into()).text("Meta").bytes(self.meta);
        writer.text("Node").text(self.node).text("Port").unsigned(self.address.port().into());
        writer.text("Vsn").bytes(&self.versions.bytes());
    }
}

/// What a member's life is to memberlist, as push/pull tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It answers.
    Alive,
    /// It does not, and may refute.
    Suspect,
    /// It is gone.
    Dead,
    /// It said goodbye.
    Left,
}

impl Life {
    const fn number(self) -> u8 {
        match self {
            Self::Alive => 0,
            Self::Suspect => 1,
            Self::Dead => 2,
            Self::Left => 3,
        }
    }
}

/// One member in a push/pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState<'a> {
    /// Who and where.
    pub alive: Alive<'a>,
    /// In which state.
    pub life: Life,
}

impl<'a> MemberState<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (mut incarnation, mut node, mut meta, mut versions) = (0, "", &[][..], Versions::default());
        let (mut address, mut port, mut life) = (None::<IpAddr>, 0, Life::Alive);
        fields(reader, |key, reader| {
            match key {
                b"Incarnation" => incarnation = reader.u32()?,
                b"Name" | b"Node" => node = name(reader)?,
                b"Addr" => address = ip(reader.bytes()?)?,
                b"Port" => port = reader.u16()?,
                b"Meta" => meta = reader.bytes()?,
                b"Vsn" => versions = Versions::from_wire(reader.bytes()?),
                b"State" => {
                    life = match reader.u8()? {
                        0 => Life::Alive,
                        1 => Life::Suspect,
                        2 => Life::Dead,
                        3 => Life::Left,
                        _ => return Err(WireError::OutOfRange),
                    }
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if meta.len() > MAX_META {
            return Err(WireError::TooLarge { what: "the meta data of a member", limit: MAX_META });
        }
        if node.is_empty() {
            return Err(WireError::NotText);
        }
        let address = socket(address, port).ok_or(WireError::Address(0))?;
        Ok(Self { alive: Alive { incarnation, node, address, meta, versions }, life })
    }
}

/// The part of a [`MemberState`] that does not change with its incarnation, encoded once: five of its seven entries.
pub(crate) fn encode_fixed(alive: &Alive<'_>, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    writer.text("Addr");
    write_ip(&mut writer, alive.address.ip());
    writer.text("Meta").bytes(alive.meta).text("Name").text(alive.node);
    writer.text("Port").unsigned(alive.address.port().into()).text("Vsn").bytes(&alive.versions.bytes());
}

/// Appends a whole [`MemberState`] of which `fixed` is what [`encode_fixed`] made.
pub(crate) fn encode_state(fixed: &[u8], incarnation: u32, life: Life, out: &mut Vec<u8>) {
    Writer::new(out).map(7);
    out.extend_from_slice(fixed);
    Writer::new(out).text("Incarnation").unsigned(incarnation.into()).text("State").unsigned(life.number().into());
}

/// Appends the reason why a stream is refused.
pub fn encode_error(reason: &str, out: &mut Vec<u8>) {
    out.push(kind::ERROR);
    Writer::new(out).map(1).text("Error").text(reason);
}

/// Reads the reason why a stream was refused, after its first byte.
///
/// # Errors
/// The bytes are no such message.
pub fn decode_error(bytes: &[u8]) -> Result<&str, WireError> {
    let mut reason = "";
    fields(&mut Reader::new(bytes), |key, reader| {
        if key == b"Error" {
            reason = reader.text()?;
        }
        Ok(key == b"Error")
    })?;
    Ok(reason)
}
