//! The envelopes around messages, from the outside in: label, encryption, checksum, compression, compound.
//!
//! Invariants
//! - What one packet becomes by decompression, all its parts together, is limited by [`MAX_INFLATED_PACKET`].
//! - Envelopes lie [`MAX_NESTING`] deep at most.

use std::borrow::Cow;

use lictor_runtime::Rng;
use weezl::{BitOrder, LzwStatus};

use super::msgpack::{Reader, Writer, fields};
use super::{MAX_INFLATED_PACKET, MAX_INFLATED_STREAM, MAX_LABEL, MAX_NESTING, MAX_STREAM, WireError, kind};
use crate::keyring::Keyring;

/// The bytes of a compound packet before its parts, and per part.
pub(crate) const COMPOUND_HEADER: usize = 2;
/// The bytes of a compound packet per part.
pub(crate) const COMPOUND_PART: usize = 2;
/// The most parts in a compound packet.
pub(crate) const MAX_PARTS: usize = 255;
/// The bytes of a stream before what is encrypted: the kind and a length.
const ENCRYPTED_HEADER: usize = 5;
/// LZW codes begin with bytes of eight bits.
const LITERAL_BITS: u8 = 8;

/// How packets and streams of one pool are wrapped.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The pool's label; empty for none.
    pub label: &'a str,
    /// The pool's keys.
    pub keyring: Option<&'a Keyring>,
    /// Whether what comes in must be encrypted.
    pub verify_incoming: bool,
    /// Whether what goes out is encrypted.
    pub verify_outgoing: bool,
}

impl Envelope<'_> {
    fn sealing(&self) -> Option<&Keyring> {
        self.keyring.filter(|_| self.verify_outgoing)
    }

    /// How many bytes of a packet the envelope takes.
    pub fn overhead(&self) -> usize {
        let label = if self.label.is_empty() { 0 } else { 2 + self.label.len() };
        label + self.sealing().map_or(0, |_| crate::keyring::ENCRYPTION_OVERHEAD)
    }

    fn write_label(&self, out: &mut Vec<u8>) {
        if !self.label.is_empty() {
            out.extend_from_slice(&[kind::LABEL, self.label.len().min(MAX_LABEL) as u8]);
            out.extend_from_slice(self.label.as_bytes());
        }
    }

    /// Appends `message` as a packet.
    pub fn seal_packet(&self, message: &[u8], checksum: bool, compress: bool, rng: &dyn Rng, out: &mut Vec<u8>) {
        self.write_label(out);
        let mut message = Cow::Borrowed(message);
        if compress && let Some(smaller) = deflate(&message).filter(|it| it.len() < message.len()) {
            message = Cow::Owned(smaller);
        }
        if checksum {
            let mut checked = Vec::with_capacity(5 + message.len());
            checked.push(kind::CHECKSUM);
            checked.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
            checked.extend_from_slice(&message);
            message = Cow::Owned(checked);
        }
        match self.sealing() {
            Some(keyring) => keyring.seal(&message, self.label.as_bytes(), rng, out),
            None => out.extend_from_slice(&message),
        }
    }

    /// The message in a packet, without label, encryption and checksum; [`unfold`] takes it apart.
    ///
    /// # Errors
    /// The packet is not this pool's, or is damaged.
    pub fn open_packet<'a>(&self, packet: &'a [u8]) -> Result<Cow<'a, [u8]>, WireError> {
        let packet = self.strip_label(packet)?;
        let mut plain = Cow::Borrowed(packet);
        if let Some(keyring) = self.keyring {
            match keyring.open(packet, self.label.as_bytes()) {
                Ok(opened) => plain = Cow::Owned(opened),
                Err(error) if self.verify_incoming => return Err(error),
                Err(_) => {}
            }
        }
        if let [kind::CHECKSUM, a, b, c, d, rest @ ..] = &*plain {
            if crc32fast::hash(rest) != u32::from_be_bytes([*a, *b, *c, *d]) {
                return Err(WireError::Checksum);
            }
            return Ok(match plain {
                Cow::Borrowed(whole) => Cow::Borrowed(&whole[5..]),
                Cow::Owned(mut whole) => {
                    whole.drain(..5);
                    Cow::Owned(whole)
                }
            });
        }
        Ok(plain)
    }

    fn strip_label<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], WireError> {
        let (label, rest) = match label_length(bytes)? {
            Some(length) => (&bytes[2..2 + length], &bytes[2 + length..]),
            None => (&[][..], bytes),
        };
        if label == self.label.as_bytes() {
            Ok(rest)
        } else {
            Err(WireError::Label(String::from_utf8_lossy(label).into_owned()))
        }
    }

    /// Appends `message` as all that goes one way over a stream.
    pub fn seal_stream(&self, message: &[u8], compress: bool, rng: &dyn Rng, out: &mut Vec<u8>) {
        self.write_label(out);
        let compressed = if compress { deflate(message) } else { None };
        let message = compressed.as_deref().unwrap_or(message);
        let Some(keyring) = self.sealing() else {
            out.extend_from_slice(message);
            return;
        };
        let length = u32::try_from(message.len() + crate::keyring::ENCRYPTION_OVERHEAD).unwrap_or(u32::MAX);
        let mut bound = vec![kind::ENCRYPT];
        bound.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&bound);
        bound.extend_from_slice(self.label.as_bytes());
        keyring.seal(message, &bound, rng, out);
    }

    /// The message in a whole stream, without label, encryption and compression.
    ///
    /// # Errors
    /// The stream is not this pool's, or is damaged.
    pub fn open_stream<'a>(&self, stream: &'a [u8]) -> Result<Cow<'a, [u8]>, WireError> {
        let body = self.strip_label(stream)?;
        let plain = match (body.first(), self.keyring) {
            (Some(&kind::ENCRYPT), None) => return Err(WireError::NotExpectedEncrypted),
            (Some(&kind::ENCRYPT), Some(keyring)) => {
                let header = body.get(..ENCRYPTED_HEADER).ok_or(WireError::Truncated)?;
                let bound = [header, self.label.as_bytes()].concat();
                Cow::Owned(keyring.open(&body[ENCRYPTED_HEADER..], &bound)?)
            }
            (_, Some(_)) if self.verify_incoming => return Err(WireError::NotEncrypted),
            _ => Cow::Borrowed(body),
        };
        if plain.first() == Some(&kind::COMPRESS) {
            return Ok(Cow::Owned(inflate(&plain[1..], MAX_INFLATED_STREAM)?));
        }
        Ok(plain)
    }
}

/// How long the label before `bytes` is; none where there is no label.
fn label_length(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    if bytes.first() != Some(&kind::LABEL) {
        return Ok(None);
    }
    let length = usize::from(*bytes.get(1).ok_or(WireError::Truncated)?);
    if length == 0 {
        return Err(WireError::Label(String::new()));
    }
    if bytes.len() < 2 + length { Err(WireError::Truncated) } else { Ok(Some(length)) }
}

/// How long the label and the encrypted part of a stream are together, or where its plain part begins.
pub(super) enum Extent {
    /// The stream is this long altogether.
    Whole(usize),
    /// From here on it is not encrypted, and only its content tells where it ends.
    PlainFrom(usize),
}

/// What the first bytes of a stream tell of its length.
pub(super) fn extent(bytes: &[u8]) -> Result<Extent, WireError> {
    let start = label_length(bytes)?.map_or(0, |length| 2 + length);
    let body = &bytes[start..];
    if *body.first().ok_or(WireError::Truncated)? != kind::ENCRYPT {
        return Ok(Extent::PlainFrom(start));
    }
    let length: [u8; 4] =
        body.get(1..ENCRYPTED_HEADER).and_then(|it| it.try_into().ok()).ok_or(WireError::Truncated)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_STREAM {
        return Err(WireError::TooLarge { what: "an encrypted stream", limit: MAX_STREAM });
    }
    Ok(Extent::Whole(start + ENCRYPTED_HEADER + length))
}

/// Calls `message` with every message of an opened packet: its kind, and what follows.
///
/// # Errors
/// The packet is damaged. What was read before the damage has been told already.
pub fn unfold(packet: &[u8], mut message: impl FnMut(u8, &[u8])) -> Result<(), WireError> {
    let mut room = MAX_INFLATED_PACKET;
    unfold_nested(packet, 0, &mut room, &mut message)
}

fn unfold_nested(
    bytes: &[u8],
    depth: usize,
    room: &mut usize,
    message: &mut impl FnMut(u8, &[u8]),
) -> Result<(), WireError> {
    if depth > MAX_NESTING {
        return Err(WireError::TooDeep);
    }
    let (kind, body) = bytes.split_first().ok_or(WireError::Truncated)?;
    match *kind {
        kind::COMPOUND => {
            let (count, rest) = body.split_first().ok_or(WireError::Truncated)?;
            let lengths = rest.get(..2 * usize::from(*count)).ok_or(WireError::Truncated)?;
            let mut parts = &rest[lengths.len()..];
            for length in lengths.chunks_exact(2) {
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                if parts.len() < length {
                    return Err(WireError::Truncated);
                }
                let (part, behind) = parts.split_at(length);
                parts = behind;
                // One bad part does not spoil the others.
                let _ = unfold_nested(part, depth + 1, room, message);
            }
        }
        kind::COMPRESS => {
            let inflated = inflate(body, *room)?;
            *room -= inflated.len();
            unfold_nested(&inflated, depth + 1, room, message)?;
        }
        other => message(other, body),
    }
    Ok(())
}

/// Appends `messages`, at least one, as one message: as it is when it is one, as a compound otherwise.
pub(crate) fn fold(messages: &[impl AsRef<[u8]>], out: &mut Vec<u8>) {
    if let [only] = messages {
        out.extend_from_slice(only.as_ref());
        return;
    }
    out.extend_from_slice(&[kind::COMPOUND, messages.len().min(MAX_PARTS) as u8]);
    for message in messages.iter().take(MAX_PARTS) {
        out.extend_from_slice(&(message.as_ref().len() as u16).to_be_bytes());
    }
    for message in messages.iter().take(MAX_PARTS) {
        out.extend_from_slice(message.as_ref());
    }
}

/// `message`, compressed, with its first byte; none if the compressor fails.
fn deflate(message: &[u8]) -> Option<Vec<u8>> {
    let packed = weezl::encode::Encoder::new(BitOrder::Lsb, LITERAL_BITS).encode(message).ok()?;
    let mut out = Vec::with_capacity(packed.len() + 16);
    out.push(kind::COMPRESS);
    Writer::new(&mut out).map(2).text("Algo").unsigned(0).text("Buf").bytes(&packed);
    Some(out)
}

/// What [`deflate`] was given, without its first byte; at most `limit` bytes.
fn inflate(bytes: &[u8], limit: usize) -> Result<Vec<u8>, WireError> {
    let (mut algorithm, mut packed) = (0, &[][..]);
    fields(&mut Reader::new(bytes), |key, reader| {
        match key {
            b"Algo" => algorithm = reader.u8()?,
            b"Buf" => packed = reader.bytes()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if algorithm != 0 {
        return Err(WireError::Compression);
    }
    let mut decoder = weezl::decode::Decoder::new(BitOrder::Lsb, LITERAL_BITS);
    let (mut out, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let step = decoder.decode_bytes(packed, &mut chunk);
        packed = &packed[step.consumed_in..];
        out.extend_from_slice(&chunk[..step.consumed_out]);
        if out.len() > limit {
            return Err(WireError::TooLarge { what: "a message after decompression", limit });
        }
        match step.status {
            Ok(LzwStatus::Done) => return Ok(out),
            Ok(LzwStatus::Ok) => {}
            Ok(LzwStatus::NoProgress) | Err(_) => return Err(WireError::Compression),
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_runtime::SeededRng;

    use super::*;

    fn plain(label: &str) -> Envelope<'_> {
        Envelope { label, keyring: None, verify_incoming: true, verify_outgoing: true }
    }

    fn opened(envelope: Envelope<'_>, packet: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, WireError> {
        let mut found = Vec::new();
        unfold(&envelope.open_packet(packet)?, |kind, body| found.push((kind, body.to_vec())))?;
        Ok(found)
    }

    #[test]
    fn a_packet_comes_back_through_every_combination_of_envelopes() {
        let (ring, rng) = (Keyring::new(&[[7; 32]]).unwrap(), SeededRng::new(1));
        let mut compound = Vec::new();
        fold(&[vec![kind::USER; 300], vec![kind::PING, 1, 2]], &mut compound);
        for case in 0..16 {
            let envelope = Envelope { keyring: (case & 1 != 0).then_some(&ring), ..plain(["", "blue"][case >> 1 & 1]) };
            let mut packet = Vec::new();
            envelope.seal_packet(&compound, case & 4 != 0, case & 8 != 0, &rng, &mut packet);
            let found = opened(envelope, &packet).unwrap();
            assert_eq!(found, [(kind::USER, vec![kind::USER; 299]), (kind::PING, vec![1, 2])], "case {case}");
            let (mut stream, big) = (Vec::new(), vec![kind::PUSH_PULL; 100_000]);
            envelope.seal_stream(&big, case & 8 != 0, &rng, &mut stream);
            assert_eq!(envelope.open_stream(&stream).unwrap(), big, "case {case}");
        }
    }

    #[test]
    fn a_packet_of_another_pool_is_refused() {
        let (rng, mut packet) = (SeededRng::new(1), Vec::new());
        plain("blue").seal_packet(&[kind::PING], false, false, &rng, &mut packet);
        assert_eq!(opened(plain("green"), &packet), Err(WireError::Label("blue".into())));
        assert_eq!(opened(plain(""), &packet), Err(WireError::Label("blue".into())));
        let ring = Keyring::new(&[[7; 32]]).unwrap();
        let sealed = Envelope { keyring: Some(&ring), ..plain("") };
        assert!(opened(sealed, &[kind::PING, 0x80]).is_err(), "a plain packet where all must be encrypted");
        assert_eq!(sealed.open_stream(&[kind::PING, 0x80]), Err(WireError::NotEncrypted));
        let relaxed = Envelope { verify_incoming: false, ..sealed };
        assert_eq!(opened(relaxed, &[kind::PING, 0x80]).unwrap(), [(kind::PING, vec![0x80])]);
    }

    #[test]
    fn a_changed_packet_fails_its_checksum() {
        let (rng, mut packet) = (SeededRng::new(1), Vec::new());
        plain("").seal_packet(&[kind::PING, 1, 2, 3], true, false, &rng, &mut packet);
        *packet.last_mut().unwrap() ^= 1;
        assert_eq!(opened(plain(""), &packet), Err(WireError::Checksum));
    }

    #[test]
    fn a_bomb_is_refused_before_it_fills_memory() {
        let bomb = deflate(&vec![kind::USER; 10_000_000]).unwrap();
        assert!(bomb.len() < 40_000, "{}", bomb.len());
        assert!(matches!(opened(plain(""), &bomb), Err(WireError::TooLarge { .. })));
        let many = deflate(&vec![kind::USER; 40_000]).unwrap();
        let (mut packet, mut total) = (Vec::new(), 0);
        fold(&vec![many; 100], &mut packet);
        unfold(&packet, |_, body| total += body.len()).unwrap();
        assert!(total <= MAX_INFLATED_PACKET, "{total}");
    }

    #[test]
    fn envelopes_do_not_nest_without_end() {
        let mut nested = vec![kind::PING];
        for _ in 0..=MAX_NESTING {
            nested = deflate(&nested).unwrap();
        }
        assert_eq!(opened(plain(""), &nested), Err(WireError::TooDeep));
    }
}
