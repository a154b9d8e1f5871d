//! What this crate's tests share: a network in memory, and random input.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use lictor_runtime::transport::{Accepted, Boxed, SharedTransport, Transport};
use lictor_runtime::{PeerIdentity, Rng, SeededRng, Stream, Tasks};
use parking_lot::Mutex;

use crate::rpc::{Handler, serve_connection};

pub(crate) type Listener = Arc<dyn Fn(Stream) + Send + Sync>;

/// Listeners by address.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<BTreeMap<String, Listener>>>);

impl Network {
    /// Serves RPC at `address`, every connection as one of `peer`.
    pub(crate) fn serve<H: Handler>(&self, address: &str, peer: PeerIdentity, handler: Arc<H>, tasks: &Tasks) {
        let tasks = tasks.clone();
        let listener: Listener = Arc::new(move |stream| {
            let (peer, handler, owner) = (peer.clone(), Arc::clone(&handler), tasks.clone());
            tasks.spawn(async move { serve_connection(stream, peer, handler, &owner).await });
        });
        self.listen(address, listener);
    }

    /// Gives every stream that is dialled at `address` to `listener`.
    pub(crate) fn listen(&self, address: &str, listener: Listener) {
        self.0.lock().insert(address.into(), listener);
    }

    /// Dials here.
    pub(crate) fn transport(&self) -> SharedTransport {
        Arc::new(self.clone())
    }
}

impl Transport for Network {
    fn dial<'a>(&'a self, address: &'a str, _: &'static str) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(async move {
            let listener = self.0.lock().get(address).cloned();
            let listener = listener.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let (near, far) = tokio::io::duplex(64 * 1024);
            listener(Box::new(far));
            Ok(Box::new(near) as Stream)
        })
    }

    fn accept(&self) -> Boxed<'_, io::Result<Accepted>> {
        Box::pin(std::future::pending())
    }
}

/// Runs `case` with a seed of its own `cases` times. A case that fails prints its seed.
pub(crate) fn random_cases(cases: u64, mut case: impl FnMut(&dyn Rng)) {
    for seed in 0..cases {
        let rng = SeededRng::new(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&rng)));
        if let Err(panic) = result {
            eprintln!("the case of seed {seed} fails");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Bytes of a random length below `longest`.
pub(crate) fn random_bytes(rng: &dyn Rng, longest: u64) -> Vec<u8> {
    let mut bytes = vec![0; rng.below(longest) as usize];
    rng.fill(&mut bytes);
    bytes
}

/// One of these at random.
pub(crate) fn one_of<'a, T: ?Sized>(rng: &dyn Rng, choices: &[&'a T]) -> &'a T {
    choices[rng.below(choices.len() as u64) as usize]
}
