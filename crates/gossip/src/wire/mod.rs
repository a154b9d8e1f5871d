//! What goes over the wire: memberlist's messages, Serf's messages inside them, and the envelopes around both.
//!
//! The formats are those of memberlist protocol 2 to 5 and Serf protocol 2 to 5.
//!
//! Invariants
//! - Reading never allocates more than a named limit and never panics, whatever the bytes.
//! - A map's unknown keys are passed over, its missing ones are zero: that is how both protocols grew.

pub mod consul;
pub mod envelope;
pub mod msgpack;
pub mod serf;
pub mod stream;
pub mod swim;
pub mod tags;

use std::net::{IpAddr, SocketAddr};

use msgpack::{Reader, Writer};

/// The longest name of a member.
pub const MAX_NAME: usize = 255;
/// The longest meta data of a member: its tags, encoded.
pub const MAX_META: usize = 512;
/// The longest label of a pool.
pub const MAX_LABEL: usize = 255;
/// The largest whole stream, as memberlist has it.
pub const MAX_STREAM: usize = 20 * 1024 * 1024;
/// The largest a stream may become when it is decompressed.
pub const MAX_INFLATED_STREAM: usize = 2 * MAX_STREAM;
/// The largest a packet may become when it is decompressed: no packet is larger than UDP's.
pub const MAX_INFLATED_PACKET: usize = 64 * 1024;
/// The most members a push/pull may list.
pub const MAX_STATES: usize = 1 << 20;
/// How deep compound and compressed packets may lie in each other.
pub const MAX_NESTING: usize = 4;
/// The latest Lamport time that is believed: a later one would leave no room to count on.
pub const MAX_LAMPORT: u64 = 1 << 56;

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end too early.
    #[error("the message ends too early")]
    Truncated,
    /// A value of another kind stands here.
    #[error("{wanted} was expected where the byte {head:#04x} stands")]
    Unexpected {
        /// What should stand here.
        wanted: &'static str,
        /// What stands here.
        head: u8,
    },
    /// A number does not fit.
    #[error("a number is out of range")]
    OutOfRange,
    /// A name is not UTF-8.
    #[error("a name is not UTF-8")]
    NotText,
    /// Values or packets are nested too deep.
    #[error("values are nested too deep")]
    TooDeep,
    /// Something is larger than its limit.
    #[error("{what} is larger than {limit}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// The limit, in bytes or entries.
        limit: usize,
    },
    /// An address is neither 4 nor 16 bytes long.
    #[error("an address of {0} bytes: it must be 4 or 16")]
    Address(usize),
    /// The first byte names no message that may stand here.
    #[error("a message of kind {0} cannot stand here")]
    Kind(u8),
    /// The checksum differs.
    #[error("the checksum of the packet is wrong")]
    Checksum,
    /// The compressed bytes are damaged.
    #[error("the compressed bytes are damaged")]
    Compression,
    /// The label is another's: the packet belongs to another pool.
    #[error("the label {0:?} is not this pool's")]
    Label(String),
    /// No key opens it.
    #[error("no installed key can decrypt the message")]
    Undecipherable,
    /// Not encrypted, where it must be.
    #[error("the message is not encrypted, and this pool is")]
    NotEncrypted,
    /// Encrypted, where nothing is.
    #[error("the message is encrypted, and this pool has no key")]
    NotExpectedEncrypted,
}

/// The first byte of a memberlist message.
pub mod kind {
    /// Are you there?
    pub const PING: u8 = 0;
    /// Ask another whether it is there.
    pub const INDIRECT_PING: u8 = 1;
    /// I am.
    pub const ACK: u8 = 2;
    /// A member does not answer.
    pub const SUSPECT: u8 = 3;
    /// A member is there.
    pub const ALIVE: u8 = 4;
    /// A member is gone.
    pub const DEAD: u8 = 5;
    /// Everything one knows, over a stream.
    pub const PUSH_PULL: u8 = 6;
    /// Several messages in one packet.
    pub const COMPOUND: u8 = 7;
    /// A message of Serf's.
    pub const USER: u8 = 8;
    /// A compressed message.
    pub const COMPRESS: u8 = 9;
    /// An encrypted stream.
    pub const ENCRYPT: u8 = 10;
    /// The other one does not answer me either.
    pub const NACK: u8 = 11;
    /// A packet with its checksum.
    pub const CHECKSUM: u8 = 12;
    /// Why a stream is refused.
    pub const ERROR: u8 = 13;
    /// The pool's label, before everything else.
    pub const LABEL: u8 = 244;
}

/// The versions a member speaks: the lowest, highest and present one of memberlist's protocol, then of Serf's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Versions {
    /// memberlist's lowest.
    pub protocol_min: u8,
    /// memberlist's highest.
    pub protocol_max: u8,
    /// memberlist's present one.
    pub protocol_now: u8,
    /// Serf's lowest.
    pub delegate_min: u8,
    /// Serf's highest.
    pub delegate_max: u8,
    /// Serf's present one.
    pub delegate_now: u8,
}

impl Versions {
    /// The six bytes in their order on the wire.
    pub const fn bytes(self) -> [u8; 6] {
        [
            self.protocol_min,
            self.protocol_max,
            self.protocol_now,
            self.delegate_min,
            self.delegate_max,
            self.delegate_now,
        ]
    }

    fn from_wire(bytes: &[u8]) -> Self {
        match *bytes {
            [protocol_min, protocol_max, protocol_now, delegate_min, delegate_max, delegate_now, ..] => {
                Self { protocol_min, protocol_max, protocol_now, delegate_min, delegate_max, delegate_now }
            }
            _ => Self::default(),
        }
    }
}

/// An address as 4 or 16 bytes; none for no bytes. An IPv4 address in IPv6's clothes is taken as the IPv4 address.
fn ip(bytes: &[u8]) -> Result<Option<IpAddr>, WireError> {
    match bytes.len() {
        0 => Ok(None),
        4 => Ok(<[u8; 4]>::try_from(bytes).ok().map(IpAddr::from)),
        16 => Ok(<[u8; 16]>::try_from(bytes).ok().map(|it| IpAddr::from(it).to_canonical())),
        other => Err(WireError::Address(other)),
    }
}

fn write_ip(writer: &mut Writer<'_>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => writer.bytes(&v4.octets()),
        IpAddr::V6(v6) => writer.bytes(&v6.octets()),
    };
}

fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    let name = reader.text()?;
    if name.len() > MAX_NAME {
        return Err(WireError::TooLarge { what: "a name", limit: MAX_NAME });
    }
    Ok(name)
}

fn lamport(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let time = reader.unsigned()?;
    if time > MAX_LAMPORT {
        return Err(WireError::OutOfRange);
    }
    Ok(time)
}

fn socket(address: Option<IpAddr>, port: u16) -> Option<SocketAddr> {
    address.filter(|_| port != 0).map(|ip| SocketAddr::new(ip, port))
}
