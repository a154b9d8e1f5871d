//! The binary form of log, snapshot and RPC: CBOR maps keyed by field number.
//!
//! A field that a reader does not know is skipped, one that is missing has its default, so servers of two releases read each
//! other. A variant that a reader does not know is an error: an unknown command is refused before it is proposed.
//! Field numbers are for ever: append, never reuse. `golden/` beside this crate pins the bytes.

use minicbor::{Decode, Encode};

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}: {reason}")]
pub struct DecodeError {
    what: &'static str,
    reason: String,
}

/// The bytes of `value`.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    match minicbor::encode(value, &mut bytes) {
        Ok(()) => bytes,
        // A Vec takes every write and no encoder of ours returns an error of its own.
        Err(error) => unreachable!("encoding to memory cannot fail: {error}"),
    }
}

/// The value whose bytes these are. Bytes after the value are an error.
///
/// # Errors
/// The bytes are cut short, are not CBOR, or name a variant that this release does not know.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    let what = std::any::type_name::<T>();
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| DecodeError { what, reason: error.to_string() })?;
    if decoder.position() == bytes.len() {
        Ok(value)
    } else {
        Err(DecodeError { what, reason: format!("{} bytes follow its end", bytes.len() - decoder.position()) })
    }
}
