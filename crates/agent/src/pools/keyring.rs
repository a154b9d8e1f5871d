//! Which keys an agent's pools begin with.
//!
//! A changed keyring is kept in the data directory and comes first. Without one it is the key of the configuration. Without
//! that, servers derive one from the datacenter's seal key, and clients ask them for it over their mutual TLS: so gossip is
//! encrypted where nobody thought of it. Keys that nobody wrote down are looked up at every start, as they may have been
//! changed meanwhile.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lictor_gossip::Keyring;
use lictor_gossip::keyring::KeyError;
use lictor_runtime::fs::{Open, read_all};
use lictor_runtime::{RetryPause, Rng};
use lictor_types::rpc::{Operation, Report};
use zeroize::Zeroizing;

use super::{PoolKind, Pools, Setup};
use crate::agent::Agent;
use crate::config::{GossipEncryption, GossipKey};

/// Between two questions for the keys.
const ASK_AGAIN: RetryPause = RetryPause { shortest: Duration::from_millis(250), longest: Duration::from_secs(10) };

/// The keys of both pools, the primary first; none for pools that are not encrypted.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    lan: Vec<GossipKey>,
    wan: Vec<GossipKey>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A keyring file.
    #[error("cannot use the gossip keyring {path}: {reason}; remove the file to go back to the configured key")]
    File {
        /// Where it is.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl Keys {
    fn both(key: GossipKey) -> Self {
        Self { lan: vec![key.clone()], wan: vec![key] }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        !self.lan.is_empty()
    }

    pub(super) fn keyring(&self, kind: PoolKind) -> Result<Option<Keyring>, KeyError> {
        let keys = match kind {
            PoolKind::Lan => &self.lan,
            PoolKind::Wan => &self.wan,
        };
        let texts: Vec<&str> = keys.iter().map(GossipKey::expose).collect();
        (!texts.is_empty()).then(|| Keyring::from_base64(&texts)).transpose()
    }
}

impl Pools {
    /// The keys to begin with, where this agent has them itself; none when it must ask a server first. `derived` is the key
    /// that a server makes of the seal key.
    ///
    /// # Errors
    /// A keyring file cannot be used.
    pub fn own_keys(&self, derived: Option<&Zeroizing<String>>) -> Result<Option<Keys>, KeysError> {
        let Some(setup) = &self.setup else { return Ok(Some(Keys::default())) };
        let kept = (setup.kept_keys(PoolKind::Lan)?, setup.kept_keys(PoolKind::Wan)?);
        let configured = match &setup.config.encryption {
            GossipEncryption::Key(key) => Some(Keys::both(key.clone())),
            GossipEncryption::Off => Some(Keys::default()),
            GossipEncryption::ByDefault if setup.on_loopback() => Some(Keys::default()),
            GossipEncryption::ByDefault => derived.map(|key| Keys::both(GossipKey::new(key.to_string()))),
        };
        let (Some(lan), wan) = kept else { return Ok(configured) };
        if matches!(setup.config.encryption, GossipEncryption::Off) {
            tracing::warn!("encrypt = \"off\": the keys in the data directory are not used");
            return Ok(configured);
        }
        tracing::info!(
            keys = lan.len(),
            "gossip begins with the keys in the data directory, not with the configured one"
        );
        let wan = wan.or_else(|| Some(configured?.wan)).unwrap_or_else(|| lan.clone());
        Ok(Some(Keys { lan, wan }))
    }

    /// Asks the servers for the keys until one answers, and opens the pools with them.
    ///
    /// # Errors
    /// The pools do not open.
    pub async fn start_with_the_servers_keys(&self, agent: &Agent) -> Result<(), lictor_gossip::StartError> {
        let keys = ask(agent).await;
        self.start(&Keys { wan: keys.clone(), lan: keys }).await
    }

    /// A server that starts anew knows the key that the seal key gives, and others may have changed it since: takes what the
    /// leader has, once, unless the configuration or a file say what the keys are.
    pub async fn catch_up_with_the_leaders_keys(self: Arc<Self>, agent: Arc<Agent>) {
        let is_derived = self.setup.as_ref().is_some_and(|setup| {
            matches!(setup.config.encryption, GossipEncryption::ByDefault)
                && !setup.on_loopback()
                && matches!(setup.kept_keys(PoolKind::Lan), Ok(None))
        });
        if !is_derived {
            return;
        }
        let pool = self.lan_opened().await;
        let theirs = ask(&agent).await;
        let Ok(Some(keyring)) = (Keys { lan: theirs, ..Keys::default() }).keyring(PoolKind::Lan) else { return };
        let adopted = pool.with_core(move |core, now| {
            let differs = core.keys() != keyring.to_base64();
            if differs {
                core.adopt_keys(now, keyring);
            }
            differs
        });
        if adopted.await.unwrap_or_default() {
            tracing::info!("gossip goes on with the keys that the leader has");
        }
    }

    /// The keys in force, for an agent that has none yet.
    pub async fn keys_in_force(&self) -> Vec<String> {
        match self.lan() {
            Some(pool) => pool.with_core(|core, _| core.keys()).await.unwrap_or_default(),
            None => Vec::new(),
        }
    }
}

/// The keys as the leader has them, however long it takes.
async fn ask(agent: &Agent) -> Vec<GossipKey> {
    let mut failures = 0;
    loop {
        let question = Operation::GossipKeys(agent.identity.node_name.clone());
        let problem = match agent.datacenter.operate(&agent.tokens.agent(), question).await {
            Ok(Report::GossipKeys(keys)) => {
                return keys.into_iter().map(|key| GossipKey::new(key.secret.clone())).collect();
            }
            Ok(_) => "a server answered something else".into(),
            Err(refusal) => refusal.text,
        };
        if failures % 16 == 0 {
            tracing::info!(problem, "the servers do not tell the gossip keys yet; asking again");
        }
        tokio::time::sleep(ASK_AGAIN.after(failures, &*agent.rng as &dyn Rng)).await;
        failures = failures.saturating_add(1);
    }
}

impl Setup {
    fn on_loopback(&self) -> bool {
        self.config.lan.is_none_or(|pool| pool.bind.ip().is_loopback())
    }

    /// The keys in the file of a pool, if there is one.
    fn kept_keys(&self, kind: PoolKind) -> Result<Option<Vec<GossipKey>>, KeysError> {
        let Some(directory) = self.data_dir.as_ref().filter(|_| self.config.keyring_file) else { return Ok(None) };
        let path = directory.join(format!("{}.keyring", kind.file()));
        let wrong = |reason: String| KeysError::File { path: path.display().to_string(), reason };
        let file = match self.files.open(&path, Open::Existing) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let bytes = Zeroizing::new(read_all(&*file).map_err(|error| wrong(error.to_string()))?);
        // The text is a secret: what is wrong with it is said without it.
        let texts: Vec<String> =
            serde_json::from_slice(&bytes).map_err(|_| wrong("it is no JSON list of keys".into()))?;
        Keyring::from_base64(&texts).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(texts.into_iter().map(GossipKey::new).collect()))
    }
}
