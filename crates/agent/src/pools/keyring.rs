//! Which keys an agent's pools begin with.
//!
//! A changed keyring is kept in the data directory and comes first. Without one it is the key of the configuration. Without
//! that, servers derive one from the datacenter's seal key, and clients ask them for it over their mutual TLS: so gossip is
//! encrypted where nobody thought of it. Keys that nobody wrote down are asked for at every start and by whoever is alone in
//! the pool, as they may have been changed meanwhile.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lictor_gossip::Keyring;
use lictor_gossip::keyring::KeyError;
use lictor_runtime::fs::{Open, read_all};
use lictor_runtime::{RetryPause, Rng};
use lictor_types::rpc::{Operation, Report};
use zeroize::Zeroizing;

use super::join::is_alone;
use super::{PoolKind, Pools, Setup};
use crate::agent::Agent;
use crate::config::{GossipEncryption, GossipKey};

/// Between two questions for the keys.
const ASK_AGAIN: RetryPause = RetryPause { shortest: Duration::from_millis(250), longest: Duration::from_secs(10) };

/// Between two looks whether the others may have other keys.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

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

    /// Keeps the pools on the keys that the leader has, for ever, where nobody wrote any down: a server that starts anew knows
    /// the key that the seal key gives, and one that was away knows an older one than the others.
    pub(super) async fn follow_the_leaders_keys(self: Arc<Self>, agent: Arc<Agent>) {
        let Some(setup) = self.setup.as_ref().filter(|setup| setup.is_told_its_keys()) else { return };
        let pool = self.lan_opened().await;
        let is_kept = matches!(setup.kept_keys(PoolKind::Lan), Ok(Some(_)));
        if agent.identity.server && !is_kept {
            self.adopt(ask(&agent).await).await;
        }
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if is_alone(&pool).await {
                self.adopt(ask(&agent).await).await;
            }
        }
    }

    async fn adopt(&self, theirs: Vec<GossipKey>) {
        let keys = Keys { wan: theirs.clone(), lan: theirs };
        for (kind, pool) in [(PoolKind::Lan, self.lan()), (PoolKind::Wan, self.wan())] {
            let (Some(pool), Ok(Some(keyring))) = (pool, keys.keyring(kind)) else { continue };
            let adopted = pool.with_core(move |core, now| {
                let differs = core.keys() != keyring.to_base64();
                if differs {
                    core.adopt_keys(now, keyring);
                }
                differs
            });
            if adopted.await.unwrap_or_default() {
                tracing::info!(pool = ?kind, "gossip goes on with the keys that the leader has");
            }
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

    /// Nobody wrote the keys down: the servers derive them, and others learn them from a server.
    fn is_told_its_keys(&self) -> bool {
        matches!(self.config.encryption, GossipEncryption::ByDefault) && !self.on_loopback()
    }

    /// Where the keys of a pool are kept; none where they are not: a client that is told its keys asks again at every start.
    pub(super) fn keyring_file(&self, kind: PoolKind) -> Option<PathBuf> {
        let is_kept = self.config.keyring_file && (self.identity.server || !self.is_told_its_keys());
        let directory = self.data_dir.as_ref().filter(|_| is_kept)?;
        Some(directory.join(format!("{}.keyring", kind.file())))
    }

    /// The keys in the file of a pool, if there is one.
    fn kept_keys(&self, kind: PoolKind) -> Result<Option<Vec<GossipKey>>, KeysError> {
        let Some(path) = self.keyring_file(kind) else { return Ok(None) };
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lictor_runtime::fs::{Fs, MemoryFs};
    use lictor_runtime::{Resolver, SystemRng, Tasks};

    use super::*;
    use crate::agent::AgentIdentity;
    use crate::config::{Config, Flags, Host};

    const CONFIGURED: &str = "Y29uZmlndXJlZCAxNmJ5dA==";
    const DERIVED: &str = "ZGVyaXZlZCBrZXkgMTZieQ==";
    const KEPT: &str = "a2VwdCBrZXkgMTYgYnl0ZQ==";
    const SERVER: &str = r#"server = true bind_addr = "10.0.0.7" bootstrap_expect = 1 seal_key_file = "/seal"
        tls { defaults { ca_file = "/ca" cert_file = "/cert" key_file = "/key" } }"#;
    const CLIENT: &str = r#"bind_addr = "10.0.0.7" retry_join = ["10.0.0.8"] login_token_file = "/token"
        tls { defaults { ca_file = "/ca" } }"#;

    /// The keys of the LAN with which an agent begins where its keyring file holds `kept`; a server derives [`DERIVED`].
    fn begins_with(text: &str, kept: Option<&str>) -> Result<Option<Vec<String>>, String> {
        let flags = Flags { fragments: vec![format!("data_dir = \"/data\"\n{text}")], ..Flags::default() };
        let config = Config::load(&flags, &Host { name: "machine".into(), ..Host::default() }).unwrap();
        let identity = AgentIdentity::new(&config, String::new());
        let files = MemoryFs::new();
        files.create_dir_all(Path::new("/data/serf")).unwrap();
        if let Some(kept) = kept {
            let file = files.open(Path::new("/data/serf/local.keyring"), Open::Empty).unwrap();
            file.write_all_at(kept.as_bytes(), 0).unwrap();
        }
        let pools = Pools::new(&config, &identity, Resolver::from_system(), Arc::new(SystemRng), &Tasks::new());
        let mut pools = Arc::into_inner(pools).unwrap();
        pools.setup.as_mut().unwrap().files = Arc::new(files);
        let derived = config.server.then(|| Zeroizing::new(DERIVED.to_owned()));
        let keys = pools.own_keys(derived.as_ref()).map_err(|error| error.to_string())?;
        Ok(keys.map(|keys| keys.lan.iter().map(|key| key.expose().to_owned()).collect()))
    }

    fn with_key(text: &str) -> String {
        format!("{text}\nencrypt = {CONFIGURED:?}")
    }

    #[test]
    fn servers_derive_a_key_and_clients_ask_for_it() {
        assert_eq!(begins_with(SERVER, None), Ok(Some(vec![DERIVED.to_owned()])));
        assert_eq!(begins_with(CLIENT, None), Ok(None));
        let loopback = r#"server = true bind_addr = "127.0.0.1" bootstrap_expect = 1"#;
        assert_eq!(begins_with(loopback, None), Ok(Some(Vec::new())), "nobody listens on loopback");
    }

    #[test]
    fn kept_keys_come_before_the_configured_one_and_before_the_derived_one() {
        let kept = format!("[{KEPT:?},{CONFIGURED:?}]");
        let both = vec![KEPT.to_owned(), CONFIGURED.to_owned()];
        for text in [SERVER.to_owned(), with_key(SERVER), with_key(CLIENT)] {
            assert_eq!(begins_with(&text, Some(&kept)), Ok(Some(both.clone())), "{text}");
            let without = format!("{text}\ndisable_keyring_file = true");
            assert_ne!(begins_with(&without, Some(&kept)), Ok(Some(both.clone())), "{without}");
        }
        assert_eq!(begins_with(CLIENT, Some(&kept)), Ok(None), "a client that is told its keys keeps none");
    }

    #[test]
    fn encryption_that_is_off_stays_off() {
        let kept = format!("[{KEPT:?}]");
        assert_eq!(begins_with(&format!("{SERVER}\nencrypt = \"off\""), Some(&kept)), Ok(Some(Vec::new())));
    }

    #[test]
    fn a_broken_keyring_file_is_named_and_its_content_is_not() {
        for kept in [format!("[{KEPT:?}"), format!("[\"{}\"]", &KEPT[4..])] {
            let error = begins_with(&with_key(SERVER), Some(&kept)).unwrap_err();
            assert!(error.contains("/data/serf/local.keyring"), "{error}");
            assert!(!error.contains(&KEPT[4..12]), "{error}");
        }
    }
}
