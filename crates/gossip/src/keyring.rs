//! The keys of a pool: one to encrypt with, all of them to decrypt with.
//!
//! A rotation is: install the new key everywhere, use it everywhere, remove the old one everywhere. At every moment each member
//! holds the key that any other may encrypt with.
//!
//! Invariants
//! - A key that stands in a ring is 16, 24 or 32 bytes long, and stands there once.
//! - The primary key cannot be removed.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_runtime::Rng;
use zeroize::Zeroizing;

use crate::wire::WireError;

/// The most keys in a ring: a rotation needs two.
pub const MAX_KEYS: usize = 16;
/// The version byte before what is encrypted: AES-GCM without padding.
const UNPADDED: u8 = 1;
/// The older version: AES-GCM with PKCS #7 padding, read and never written.
const PADDED: u8 = 0;
const NONCE: usize = 12;
const TAG: usize = 16;
/// How much longer an encrypted message is.
pub const ENCRYPTION_OVERHEAD: usize = 1 + NONCE + TAG;

/// Why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key of another length.
    #[error("key size must be 16, 24 or 32 bytes")]
    Size,
    /// Not base64.
    #[error("a key must be base64")]
    Encoding,
    /// Not in the ring.
    #[error("Requested key is not in the keyring")]
    Unknown,
    /// The primary key.
    #[error("Removing the primary key is not allowed")]
    Primary,
    /// No room.
    #[error("the keyring holds {MAX_KEYS} keys already; remove one first")]
    Full,
}

struct Key {
    secret: Zeroizing<Vec<u8>>,
    cipher: LessSafeKey,
}

impl Key {
    fn new(secret: &[u8]) -> Result<Self, KeyError> {
        let algorithm = match secret.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            _ => return Err(KeyError::Size),
        };
        let cipher = LessSafeKey::new(UnboundKey::new(algorithm, secret).map_err(|_| KeyError::Size)?);
        Ok(Self { secret: Zeroizing::new(secret.to_vec()), cipher })
    }
}

/// The keys of a pool. The first is the primary.
pub struct Keyring {
    keys: Vec<Key>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keyring({} keys)", self.keys.len())
    }
}

impl Keyring {
    /// A ring of these keys, the first of which is the primary.
    ///
    /// # Errors
    /// There is no key, or one has another length than 16, 24 or 32 bytes.
    pub fn new<K: AsRef<[u8]>>(keys: &[K]) -> Result<Self, KeyError> {
        let mut ring = Self { keys: Vec::new() };
        for key in keys {
            ring.install(key.as_ref())?;
        }
        if ring.keys.is_empty() { Err(KeyError::Size) } else { Ok(ring) }
    }

    /// A ring of these keys in base64, as people write them.
    ///
    /// # Errors
    /// As [`Keyring::new`]; or a text is not base64.
    pub fn from_base64<K: AsRef<str>>(keys: &[K]) -> Result<Self, KeyError> {
        let keys: Result<Vec<_>, _> = keys.iter().map(|key| decode_key(key.as_ref())).collect();
        Self::new(&keys?)
    }

    /// All keys in base64, the primary first: the content of a keyring file.
    pub fn to_base64(&self) -> Vec<String> {
        self.keys.iter().map(|key| STANDARD.encode(&key.secret)).collect()
    }

    /// Adds a key to decrypt with.
    ///
    /// # Errors
    /// Its length is wrong, or the ring is full.
    pub fn install(&mut self, secret: &[u8]) -> Result<(), KeyError> {
        let key = Key::new(secret)?;
        if self.position(secret).is_some() {
            return Ok(());
        }
        if self.keys.len() >= MAX_KEYS {
            return Err(KeyError::Full);
        }
        self.keys.push(key);
        Ok(())
    }

    /// Makes a key of the ring the primary.
    ///
    /// # Errors
    /// It is not in the ring.
    pub fn make_primary(&mut self, secret: &[u8]) -> Result<(), KeyError> {
        let position = self.position(secret).ok_or(KeyError::Unknown)?;
        self.keys[..=position].rotate_right(1);
        Ok(())
    }

    /// Takes a key out; one that is not there is no error.
    ///
    /// # Errors
    /// It is the primary.
    pub fn remove(&mut self, secret: &[u8]) -> Result<(), KeyError> {
        match self.position(secret) {
            Some(0) => Err(KeyError::Primary),
            Some(position) => {
                self.keys.remove(position);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn position(&self, secret: &[u8]) -> Option<usize> {
        self.keys.iter().position(|key| key.secret.as_slice() == secret)
    }

    /// Appends `message`, encrypted with the primary key and bound to `bound`.
    pub fn seal(&self, message: &[u8], bound: &[u8], rng: &dyn Rng, out: &mut Vec<u8>) {
        let mut nonce = [0; NONCE];
        rng.fill(&mut nonce);
        out.reserve(ENCRYPTION_OVERHEAD + message.len());
        out.push(UNPADDED);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(message);
        let sealed = self.keys[0].cipher.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound),
            &mut out[start..],
        );
        match sealed {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            // Only a message of 64 GiB is refused: nothing of it may leave in the clear.
            Err(_) => out.truncate(start),
        }
    }

    /// What [`Keyring::seal`] was given, here or elsewhere.
    ///
    /// # Errors
    /// No key of the ring opens it.
    pub fn open(&self, sealed: &[u8], bound: &[u8]) -> Result<Vec<u8>, WireError> {
        let version = *sealed.first().ok_or(WireError::Truncated)?;
        if version != UNPADDED && version != PADDED {
            return Err(WireError::Undecipherable);
        }
        if sealed.len() < ENCRYPTION_OVERHEAD {
            return Err(WireError::Truncated);
        }
        let nonce: [u8; NONCE] = sealed[1..=NONCE].try_into().map_err(|_| WireError::Truncated)?;
        let (message, tag) = sealed[1 + NONCE..].split_at(sealed.len() - ENCRYPTION_OVERHEAD);
        let mut plain = vec![0; message.len()];
        for key in &self.keys {
            let nonce = Nonce::assume_unique_for_key(nonce);
            if key.cipher.open_separate_gather(nonce, Aad::from(bound), message, tag, &mut plain).is_ok() {
                if version == PADDED {
                    let padding = usize::from(*plain.last().ok_or(WireError::Truncated)?);
                    let kept = plain.len().checked_sub(padding).ok_or(WireError::Undecipherable)?;
                    plain.truncate(kept);
                }
                return Ok(plain);
            }
        }
        Err(WireError::Undecipherable)
    }
}

/// The bytes of a key that a person wrote.
///
/// # Errors
/// The text is not base64, or the key has another length than 16, 24 or 32 bytes.
pub fn decode_key(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let key = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| KeyError::Encoding)?);
    if matches!(key.len(), 16 | 24 | 32) { Ok(key) } else { Err(KeyError::Size) }
}

#[cfg(test)]
mod tests {
    use lictor_runtime::SeededRng;

    use super::*;

    #[test]
    fn what_one_ring_sealed_another_with_that_key_opens_and_no_other() {
        let rng = SeededRng::new(1);
        for size in [16, 24, 32] {
            let (old, new) = (vec![1; size], vec![2; size]);
            let mut sealed = Vec::new();
            Keyring::new(&[&old]).unwrap().seal(b"hello", b"label", &rng, &mut sealed);
            assert_eq!(sealed.len(), 5 + ENCRYPTION_OVERHEAD);
            let both = Keyring::new(&[&new, &old]).unwrap();
            assert_eq!(both.open(&sealed, b"label").unwrap(), b"hello");
            assert_eq!(both.open(&sealed, b""), Err(WireError::Undecipherable));
            assert_eq!(Keyring::new(&[&new]).unwrap().open(&sealed, b"label"), Err(WireError::Undecipherable));
        }
    }

    #[test]
    fn the_primary_key_is_the_first_and_stays() {
        let mut ring = Keyring::new(&[[1; 16], [2; 16], [3; 16]]).unwrap();
        ring.make_primary(&[3; 16]).unwrap();
        assert_eq!(ring.to_base64()[0], STANDARD.encode([3; 16]));
        assert_eq!(ring.remove(&[3; 16]), Err(KeyError::Primary));
        assert_eq!(ring.make_primary(&[4; 16]), Err(KeyError::Unknown));
        ring.remove(&[1; 16]).unwrap();
        assert_eq!(ring.to_base64(), [STANDARD.encode([3; 16]), STANDARD.encode([2; 16])]);
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        assert_eq!(Keyring::new(&[[1; 17]]).unwrap_err(), KeyError::Size);
        assert_eq!(Keyring::from_base64(&["!"]).unwrap_err(), KeyError::Encoding);
        assert!(Keyring::new::<[u8; 16]>(&[]).is_err());
    }

    #[test]
    fn damaged_bytes_are_refused_one_by_one() {
        let (ring, rng, mut sealed) = (Keyring::new(&[[1; 16]]).unwrap(), SeededRng::new(1), Vec::new());
        ring.seal(b"hello", b"", &rng, &mut sealed);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 0x80;
            assert!(ring.open(&damaged, b"").is_err(), "byte {at}");
            assert!(ring.open(&sealed[..at], b"").is_err(), "cut at {at}");
        }
    }
}
