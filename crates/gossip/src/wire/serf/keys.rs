//! Changes of keys, and answers about the holder of a name.

use std::net::SocketAddr;

use super::kind;
use crate::wire::msgpack::{Reader, Writer, fields};
use crate::wire::{Versions, WireError, ip, socket, tags, write_ip};

/// Appends a key request with its first byte.
pub fn encode_key_request(key: &[u8], out: &mut Vec<u8>) {
    out.push(kind::KEY_REQUEST);
    Writer::new(out).map(1).text("Key").bytes(key);
}

/// Reads a key request after its first byte: the key.
///
/// # Errors
/// The bytes are no such message.
pub fn decode_key_request(bytes: &[u8]) -> Result<&[u8], WireError> {
    let mut found = &[][..];
    fields(&mut Reader::new(bytes), |key, reader| {
        if key == b"Key" {
            found = reader.bytes()?;
        }
        Ok(key == b"Key")
    })?;
    Ok(found)
}

/// What became of a key request at one member.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyResponse {
    /// Whether it was done.
    pub done: bool,
    /// Why not.
    pub message: String,
    /// The keys it holds, in base64.
    pub keys: Vec<String>,
    /// Its primary key, in base64.
    pub primary: String,
}

/// The most keys that are believed of one member.
const MAX_LISTED_KEYS: usize = 256;

impl KeyResponse {
    /// Reads the message after its first byte.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut response = Self::default();
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"Result" => response.done = reader.boolean()?,
                b"Message" => response.message = reader.text()?.to_owned(),
                b"Keys" => {
                    let count = reader.array()?;
                    if count > MAX_LISTED_KEYS {
                        return Err(WireError::TooLarge { what: "a list of keys", limit: MAX_LISTED_KEYS });
                    }
                    for _ in 0..count {
                        response.keys.push(reader.text()?.to_owned());
                    }
                }
                b"PrimaryKey" => response.primary = reader.text()?.to_owned(),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(response)
    }

    /// Appends the message with its first byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::KEY_RESPONSE);
        let mut writer = Writer::new(out);
        writer.map(4).text("Keys");
        if self.keys.is_empty() {
            writer.nil();
        } else {
            writer.array(self.keys.len());
            for key in &self.keys {
                writer.text(key);
            }
        }
        writer.text("Message").text(&self.message).text("PrimaryKey").text(&self.primary);
        writer.text("Result").boolean(self.done);
    }
}

/// Reads a conflict response after its first byte: where the member lives of whom it tells.
///
/// # Errors
/// The bytes are no such message, or tell of nobody.
pub fn decode_conflict_response(bytes: &[u8]) -> Result<SocketAddr, WireError> {
    let (mut address, mut port) = (None, 0);
    fields(&mut Reader::new(bytes), |key, reader| {
        match key {
            b"Addr" => address = ip(reader.bytes()?)?,
            b"Port" => port = reader.u16()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    socket(address, port).ok_or(WireError::Address(0))
}

/// Appends a conflict response with its first byte. `status` is Serf's number of the member's state.
pub fn encode_conflict_response(
    node: &str,
    address: SocketAddr,
    tags: &tags::Tags,
    status: u8,
    versions: Versions,
    out: &mut Vec<u8>,
) {
    out.push(kind::CONFLICT_RESPONSE);
    let mut writer = Writer::new(out);
    let [protocol_min, protocol_max, protocol_now, delegate_min, delegate_max, delegate_now] = versions.bytes();
    writer.map(11).text("Addr");
    write_ip(&mut writer, address.ip());
    writer.text("DelegateCur").unsigned(delegate_now.into()).text("DelegateMax").unsigned(delegate_max.into());
    writer.text("DelegateMin").unsigned(delegate_min.into()).text("Name").text(node);
    writer.text("Port").unsigned(address.port().into());
    writer.text("ProtocolCur").unsigned(protocol_now.into()).text("ProtocolMax").unsigned(protocol_max.into());
    writer.text("ProtocolMin").unsigned(protocol_min.into()).text("Status").unsigned(status.into());
    writer.text("Tags").map(tags.len());
    for (name, value) in tags {
        writer.text(name).text(value);
    }
}
