//! `lictor keygen`: a gossip key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_runtime::{Rng, SystemRng};
use zeroize::Zeroizing;

use crate::output::{Failure, Output};

/// Bytes of a gossip key.
const KEY_BYTES: usize = 32;

pub(super) fn run() -> Result<Output, Failure> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    SystemRng.fill(key.as_mut_slice());
    Ok(Output::line(STANDARD.encode(key.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_and_another_each_time() {
        let (first, second) = (run().unwrap().bytes, run().unwrap().bytes);
        assert_eq!(STANDARD.decode(first.trim_ascii()).unwrap().len(), KEY_BYTES);
        assert_ne!(first, second);
    }
}
