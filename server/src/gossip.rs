//! What a server does with the gossip pools: it believes them about members, passes their events on, and changes their keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_agent::pools::{as_member, as_user_event};
use lictor_gossip::{Change, Event, Gossip, GossipError, KeyOperation, KeyReport};
use lictor_types::keyring::{KeyringAnswer, KeyringOperation, KeyringRequest};
use lictor_types::rpc::Report;
use lictor_types::{Credential, MemberStatus, Refusal, Requirement, Resource};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::datacenter::ServerDatacenter;

/// Between two looks at all members: what was told and missed is seen then.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// What Consul says of a pool without keys.
const NO_KEYS_TO_LIST: &str = "Keyring is empty (encryption not enabled)";
/// The same, for a change.
const NO_KEYS_TO_CHANGE: &str = "No keyring to modify (encryption not enabled)";

/// Keeps the members and events of the server what gossip tells, until it is dropped.
pub(crate) async fn follow(datacenter: Arc<ServerDatacenter>) {
    let pool = datacenter.pools.lan_opened().await;
    let mut told = pool.events();
    loop {
        datacenter.members.told_all(datacenter.pools.members().await);
        let deadline = Instant::now() + LOOK_INTERVAL;
        loop {
            match tokio::time::timeout_at(deadline, told.recv()).await {
                Ok(Ok(event)) => hear(&datacenter, &event),
                Ok(Err(RecvError::Lagged(_))) | Err(_) => break,
                Ok(Err(RecvError::Closed)) => return,
            }
        }
    }
}

fn hear(datacenter: &ServerDatacenter, event: &Event) {
    match event {
        Event::Member { change, member } => {
            if let Some(member) = as_member(member) {
                datacenter.members.told(member, *change != Change::Reaped);
            }
        }
        Event::User { time, name, payload, .. } => {
            if let Some(event) = as_user_event(*time, name, payload) {
                datacenter.events.push(event);
            }
        }
        _ => {}
    }
}

impl ServerDatacenter {
    /// The keys of gossip. Whose certificate named the node that asks was judged at the door.
    pub(crate) async fn gossip_keys(&self) -> Result<Report, Refusal> {
        self.require_leader()?;
        let keys = self.pools.keys_in_force().await;
        Ok(Report::GossipKeys(keys.into_iter().map(Credential::new).collect()))
    }

    /// Lists or changes the keys at every member of both pools.
    pub(crate) async fn keyring(&self, credential: &Credential, asked: &KeyringRequest) -> Result<Report, Refusal> {
        let need = match asked.operation {
            KeyringOperation::List => Requirement::read(Resource::Operator, ""),
            _ => Requirement::write(Resource::Operator, ""),
        };
        self.require(credential, &[need])?;
        let mut answers = Vec::new();
        // The pool of all servers first, as Consul answers.
        for (wan, pool) in [(true, self.pools.wan()), (false, self.pools.lan())] {
            match pool {
                Some(pool) => answers.push(self.keyring_of(&pool, wan, asked).await),
                None if !wan => answers.push(self.keyring_answer(wan, KeyReport::default(), "gossip is off".into())),
                None => {}
            }
        }
        Ok(Report::Keyring(answers))
    }

    async fn keyring_of(&self, pool: &Gossip, wan: bool, asked: &KeyringRequest) -> KeyringAnswer {
        let operation = match asked.operation {
            KeyringOperation::List => KeyOperation::List,
            KeyringOperation::Install => KeyOperation::Install,
            KeyringOperation::Use => KeyOperation::Use,
            KeyringOperation::Remove => KeyOperation::Remove,
        };
        let own = pool.with_core(|core, _| core.keys()).await.unwrap_or_default();
        if own.is_empty() {
            let listed = operation == KeyOperation::List;
            let text = if listed { NO_KEYS_TO_LIST } else { NO_KEYS_TO_CHANGE };
            return self.keyring_answer(wan, KeyReport::default(), text.into());
        }
        if asked.local_only {
            let report = KeyReport {
                members: 1,
                responses: 1,
                primary_keys: own.first().map(|key| (key.clone(), 1)).into_iter().collect(),
                keys: own.into_iter().map(|key| (key, 1)).collect(),
                ..KeyReport::default()
            };
            return self.keyring_answer(wan, report, String::new());
        }
        match pool.change_keys(operation, &asked.key.secret, asked.relay_factor).await {
            Ok(report) => self.keyring_answer(wan, report, String::new()),
            Err(GossipError::Keys(report)) => {
                let error = GossipError::Keys(report.clone()).to_string();
                self.keyring_answer(wan, *report, error)
            }
            Err(error) => self.keyring_answer(wan, KeyReport::default(), error.to_string()),
        }
    }

    fn keyring_answer(&self, wan: bool, report: KeyReport, error: String) -> KeyringAnswer {
        let counted = |keys: BTreeMap<String, usize>| {
            keys.into_iter().map(|(key, count)| (key, u32::try_from(count).unwrap_or(u32::MAX))).collect()
        };
        KeyringAnswer {
            wan,
            datacenter: self.settings.datacenter.clone(),
            segment: String::new(),
            messages: report.messages,
            keys: counted(report.keys),
            primary_keys: counted(report.primary_keys),
            num_nodes: u32::try_from(report.members).unwrap_or(u32::MAX),
            error,
        }
    }

    /// Makes a failed member of the pool one that left, so that nobody tries to reach it again.
    pub(crate) async fn remove_from_pool(&self, node: &str, prune: bool) {
        let Some(pool) = self.pools.lan() else { return };
        let members = pool.members().await.unwrap_or_default();
        let gone = members.iter().filter_map(as_member).find(|it| it.name.as_str().eq_ignore_ascii_case(node));
        let Some(gone) = gone.filter(|it| it.status == MemberStatus::Failed || prune) else { return };
        if let Err(error) = pool.remove(gone.name.as_str(), prune).await {
            tracing::warn!(node, %error, "gossip was not told that the member is removed");
        }
    }
}
