//! Recovery of a lost quorum: by `lictor operator recover`, or by Consul's `raft/peers.json` at the next start.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lictor_runtime::fs::{Fs, Open, RealFs, read_all};
use lictor_runtime::{Clock, Rng};
use lictor_types::{Command, Envelope, Timestamp, encoding};
use serde::Deserialize;

use crate::raft::{DataDirectory, DataDirectoryError, Holding, Member, RecoverError, Server, ServerId, Survivor};

/// Consul's file, in the directory of raft.
const PEERS_FILE: &str = "peers.json";
/// What it is called when it was used.
const PEERS_USED: &str = "peers.json.used";

/// Why nothing was recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DataDirectoryError),
    /// What it holds cannot be used.
    #[error("{path}: {source}", path = .path.display())]
    Holding {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: RecoverError,
    },
    /// There is no server in it.
    #[error("{0} is not the data directory of a server: give the -data-dir of its agent")]
    NoServer(PathBuf),
    /// Consul's file cannot be used.
    #[error("{path}: {why}", path = .path.display())]
    Peers {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// A server that does not run; nobody else can start it while this is there.
pub struct StoppedServer {
    path: PathBuf,
    survivor: Survivor,
    _directory: DataDirectory,
}

impl StoppedServer {
    /// Opens the data directory of an agent.
    ///
    /// # Errors
    /// Its server runs, there is none, or what it holds is damaged.
    pub fn open(data_dir: &Path, rng: &dyn Rng) -> Result<Self, RecoveryError> {
        let path = data_dir.join("raft");
        let fs = RealFs;
        if !fs.list(&path).is_ok_and(|names| names.iter().any(|name| name == "server.meta")) {
            return Err(RecoveryError::NoServer(data_dir.to_owned()));
        }
        let directory = DataDirectory::open(Arc::new(fs), &path, rng)?;
        let holding = |source| RecoveryError::Holding { path: data_dir.to_owned(), source };
        let survivor = Survivor::of(&directory).map_err(holding)?;
        Ok(Self { path: data_dir.to_owned(), survivor, _directory: directory })
    }

    /// What it holds.
    pub fn holding(&self) -> &Holding {
        &self.survivor.holding
    }

    /// Makes it the only voter of its cluster; all others it knew must join as new servers.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn become_the_only_voter(self, clock: &dyn Clock, rng: &dyn Rng) -> Result<(), RecoveryError> {
        let own = self.survivor.holding.id;
        let all = everybody(&self.survivor.holding);
        let voters = all.iter().filter(|it| it.id == own).map(|it| (it.id, it.server.clone())).collect();
        let gone: Vec<ServerId> = all.iter().map(|it| it.id).filter(|id| *id != own).collect();
        let envelopes = removals(&gone, clock, rng);
        let path = self.path;
        self.survivor
            .recover(voters, BTreeMap::new(), &envelopes)
            .map_err(|source| RecoveryError::Holding { path, source })
    }
}

fn everybody(holding: &Holding) -> Vec<Member> {
    holding.members.voters.iter().chain(&holding.members.learners).cloned().collect()
}

/// The lost servers must never come back: together they could be a quorum of what was.
fn removals(gone: &[ServerId], clock: &dyn Clock, rng: &dyn Rng) -> Vec<Vec<u8>> {
    let removal = |id: &ServerId| {
        let mut request_id = [0; 16];
        rng.fill(&mut request_id);
        let command = Command::ServerRemoved(id.to_string());
        encoding::encode(&Envelope { request_id, leader_time: Timestamp::from(clock.now()), command })
    };
    gone.iter().map(removal).collect()
}

#[derive(Deserialize)]
struct Peer {
    id: String,
    address: String,
    #[serde(default)]
    non_voter: bool,
}

/// Does what Consul's `peers.json` says, if it is there, and puts it aside.
///
/// # Errors
/// The file or what the server holds cannot be used. Then the server must not start.
pub(crate) fn by_peers_file(
    directory: &DataDirectory,
    fs: &dyn Fs,
    path: &Path,
    clock: &dyn Clock,
    rng: &dyn Rng,
) -> Result<(), RecoveryError> {
    let file = path.join(PEERS_FILE);
    let bytes = match fs.open(&file, Open::Existing).and_then(|opened| read_all(&*opened)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RecoveryError::Peers { path: file, why: error.to_string() }),
    };
    let wrong = |why: String| RecoveryError::Peers { path: file.clone(), why };
    let holding = |source| RecoveryError::Holding { path: path.to_owned(), source };
    let survivor = Survivor::of(directory).map_err(holding)?;
    let known = everybody(&survivor.holding);
    let (mut voters, mut learners) = (BTreeMap::new(), BTreeMap::new());
    for peer in parse(&bytes).map_err(wrong)? {
        let id: ServerId = peer.id.parse().map_err(|error| wrong(format!("{error}")))?;
        let name = known.iter().find(|it| it.id == id).map_or(peer.id, |it| it.server.name.clone());
        let list = if peer.non_voter { &mut learners } else { &mut voters };
        list.insert(id, Server { name, address: peer.address });
    }
    let kept = |id: &ServerId| voters.contains_key(id) || learners.contains_key(id);
    let gone: Vec<ServerId> = known.iter().map(|it| it.id).filter(|id| !kept(id)).collect();
    tracing::warn!(file = %file.display(), voters = voters.len(), gone = gone.len(), "recovering raft with the peers of this file");
    survivor.recover(voters, learners, &removals(&gone, clock, rng)).map_err(holding)?;
    let aside = fs.rename(&file, &path.join(PEERS_USED)).and_then(|()| fs.sync_dir(path));
    aside.map_err(|error| RecoveryError::Peers { path: file, why: error.to_string() })
}

fn parse(bytes: &[u8]) -> Result<Vec<Peer>, String> {
    let right = "write [{\"id\": \"<raft id>\", \"address\": \"<host:port>\", \"non_voter\": false}]";
    let peers: Vec<Peer> = serde_json::from_slice(bytes).map_err(|error| format!("{error}: {right}"))?;
    if peers.iter().all(|peer| peer.non_voter) {
        return Err(format!("it names no voter: {right}"));
    }
    Ok(peers)
}
