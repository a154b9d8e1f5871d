//! The data of an entry: the envelopes of everybody who waited, each with its length before it.

use bytes::{BufMut, Bytes, BytesMut};

/// The bytes that an envelope takes beside its own.
pub(super) const OVERHEAD: usize = 4;

/// Joins envelopes.
pub(super) fn join<'a>(envelopes: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes {
    let size = envelopes.clone().map(|envelope| OVERHEAD + envelope.len()).sum();
    let mut joined = BytesMut::with_capacity(size);
    for envelope in envelopes {
        joined.put_u32_le(envelope.len() as u32);
        joined.put_slice(envelope);
    }
    joined.freeze()
}

/// Takes joined envelopes apart; `None` when the bytes are not a joining.
pub(super) fn split(mut joined: &[u8]) -> Option<Vec<&[u8]>> {
    let mut envelopes = Vec::new();
    while !joined.is_empty() {
        let (length, rest) = joined.split_first_chunk::<OVERHEAD>()?;
        let (envelope, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        envelopes.push(envelope);
        joined = rest;
    }
    Some(envelopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_come_apart_as_they_were_joined() {
        let envelopes: [&[u8]; 3] = [b"one", b"", b"three"];
        let joined = join(envelopes.iter().copied());
        assert_eq!(split(&joined).unwrap(), envelopes);
        assert_eq!(split(&[]), Some(vec![]));
        assert_eq!(split(&joined[..joined.len() - 1]), None);
        assert_eq!(split(&joined[..2]), None);
    }
}
