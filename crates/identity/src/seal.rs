//! Sealing of secrets that go into replicated state, and the lookup value of token secrets.
//!
//! Invariants
//! - Each use has its own key, derived from the one in the file; the key in the file encrypts nothing itself.
//! - What was sealed for one context (its place in the state) does not open in another.
//! - Nonces are random; a key must not seal more than 2^32 times, which at one a millisecond takes 49 days of nothing
//!   but sealing: only token and authority writes seal.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_runtime::Rng;
use zeroize::Zeroizing;

/// Bytes of a seal key.
pub const SEAL_KEY_BYTES: usize = 32;

/// The first byte of sealed text: its format.
const FORMAT: u8 = 1;

/// Why something does not seal or open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key text is not a key.
    #[error("a seal key is {SEAL_KEY_BYTES} bytes, raw or as base64 text; this is not (`lictor keygen` makes one)")]
    InvalidKey,
    /// The sealed text is of a format that this release does not know, or too short.
    #[error("the sealed secret is of an unknown format; was it written by a later release?")]
    UnknownFormat,
    /// Another key, another context, or changed bytes.
    #[error("the secret was not sealed with this seal key for this place, or was changed since")]
    DoesNotOpen,
    /// The cipher failed.
    #[error("sealing failed in the cipher")]
    Cipher,
}

/// The datacenter's seal key.
pub struct SealKey {
    text: Zeroizing<String>,
    cipher: RandomizedNonceKey,
    lookup: hmac::Key,
    gossip: Zeroizing<String>,
    id: String,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SealKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SealKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// The cipher refuses it, which it does not.
    pub fn generate(rng: &dyn Rng) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; SEAL_KEY_BYTES]);
        rng.fill(bytes.as_mut_slice());
        Self::from_raw(&bytes)
    }

    /// Reads a key: 32 raw bytes, or base64 text of them, white space around it allowed.
    ///
    /// # Errors
    /// It is neither.
    pub fn from_bytes(content: &[u8]) -> Result<Self, SealError> {
        if let Ok(raw) = <&[u8; SEAL_KEY_BYTES]>::try_from(content) {
            return Self::from_raw(raw);
        }
        let decoded = Zeroizing::new(STANDARD.decode(content.trim_ascii()).map_err(|_| SealError::InvalidKey)?);
        Self::from_raw(decoded.as_slice().try_into().map_err(|_| SealError::InvalidKey)?)
    }

    fn from_raw(raw: &[u8; SEAL_KEY_BYTES]) -> Result<Self, SealError> {
        let cipher = derive(raw, b"lictor seal cipher v1")?;
        let lookup = derive(raw, b"lictor token lookup v1")?;
        let id = derive(raw, b"lictor seal key id v1")?;
        let gossip = derive(raw, b"lictor gossip key v1")?;
        Ok(Self {
            text: Zeroizing::new(STANDARD.encode(raw)),
            cipher: RandomizedNonceKey::new(&AES_256_GCM, cipher.as_slice()).map_err(|_| SealError::Cipher)?,
            lookup: hmac::Key::new(hmac::HMAC_SHA256, lookup.as_slice()),
            gossip: Zeroizing::new(STANDARD.encode(gossip.as_slice())),
            id: crate::pki::hex(&id[..8]),
        })
    }

    /// A name for the key that tells nothing about it; two servers with the same key have the same id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key itself as base64 text, to be written to its file.
    pub fn to_base64(&self) -> Zeroizing<String> {
        self.text.clone()
    }

    /// The key of gossip in base64, for a datacenter that names no other.
    pub fn gossip_key(&self) -> Zeroizing<String> {
        self.gossip.clone()
    }

    /// Encrypts `plaintext`; only [`SealKey::unseal`] with the same `context` opens it.
    ///
    /// # Errors
    /// The cipher failed.
    pub fn seal(&self, plaintext: &[u8], context: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut body = Zeroizing::new(Vec::with_capacity(plaintext.len() + AES_256_GCM.tag_len()));
        body.extend_from_slice(plaintext);
        let nonce =
            self.cipher.seal_in_place_append_tag(Aad::from(context), &mut *body).map_err(|_| SealError::Cipher)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Decrypts what [`SealKey::seal`] made for the same `context`.
    ///
    /// # Errors
    /// It was made with another key or for another context, or was changed.
    pub fn unseal(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let Some((&FORMAT, rest)) = sealed.split_first() else { return Err(SealError::UnknownFormat) };
        let Some((nonce, body)) = rest.split_at_checked(NONCE_LEN) else { return Err(SealError::UnknownFormat) };
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::UnknownFormat)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length =
            self.cipher.open_in_place(nonce, Aad::from(context), &mut body).map_err(|_| SealError::DoesNotOpen)?.len();
        body.truncate(length);
        Ok(body)
    }

    /// The value under which a token's secret is found, so that the secret itself need not be stored in the clear.
    pub fn token_lookup(&self, secret: &str) -> [u8; 32] {
        let mut value = [0; 32];
        value.copy_from_slice(hmac::sign(&self.lookup, secret.as_bytes()).as_ref());
        value
    }
}

/// A key for one use, from the key in the file (HKDF-SHA256).
fn derive(raw: &[u8; SEAL_KEY_BYTES], purpose: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let mut derived = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"lictor seal key")
        .extract(raw)
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(derived.as_mut_slice()))
        .map_err(|_| SealError::Cipher)?;
    Ok(derived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lictor_runtime::SeededRng;

    fn key(seed: u64) -> SealKey {
        SealKey::generate(&SeededRng::new(seed)).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_and_context_only() {
        let sealed = key(1).seal(b"secret", b"acl token 7").unwrap();
        assert_eq!(key(1).unseal(&sealed, b"acl token 7").unwrap().as_slice(), b"secret");
        assert_eq!(key(1).unseal(&sealed, b"acl token 8").unwrap_err(), SealError::DoesNotOpen);
        assert_eq!(key(2).unseal(&sealed, b"acl token 7").unwrap_err(), SealError::DoesNotOpen);
    }

    #[test]
    fn a_changed_or_cut_text_does_not_open() {
        let sealed = key(1).seal(b"secret", b"here").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key(1).unseal(&changed, b"here").is_err(), "byte {at}");
            assert!(key(1).unseal(&sealed[..at], b"here").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_same_secret_seals_differently_each_time_and_shows_nothing_of_itself() {
        let first = key(1).seal(b"secret-secret", b"here").unwrap();
        let second = key(1).seal(b"secret-secret", b"here").unwrap();
        assert_ne!(first, second);
        assert!(!first.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn a_key_is_read_raw_or_as_base64_and_nothing_else() {
        let made = key(1);
        let text = made.to_base64();
        let padded = format!(" {}\n", text.as_str());
        assert_eq!(SealKey::from_bytes(padded.as_bytes()).unwrap().id(), made.id());
        let raw = STANDARD.decode(text.as_bytes()).unwrap();
        assert_eq!(SealKey::from_bytes(&raw).unwrap().id(), made.id());
        for wrong in [&b""[..], b"short", &raw[..31], b"AAAA"] {
            assert_eq!(SealKey::from_bytes(wrong).unwrap_err(), SealError::InvalidKey);
        }
        assert_ne!(made.id(), key(2).id());
    }

    #[test]
    fn the_key_shows_neither_in_debug_nor_in_its_id() {
        let made = key(1);
        let raw = STANDARD.decode(made.to_base64().as_bytes()).unwrap();
        let shown = format!("{made:?}");
        assert!(!shown.contains(made.to_base64().as_str()));
        assert!(!crate::pki::hex(&raw).contains(made.id()));
    }

    #[test]
    fn a_lookup_value_depends_on_key_and_secret() {
        assert_eq!(key(1).token_lookup("a"), key(1).token_lookup("a"));
        assert_ne!(key(1).token_lookup("a"), key(1).token_lookup("b"));
        assert_ne!(key(1).token_lookup("a"), key(2).token_lookup("a"));
    }
}
