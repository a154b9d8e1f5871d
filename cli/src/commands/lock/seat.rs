//! A lock or a seat of a semaphore, by the recipes of Consul's own clients, so that theirs and ours exclude each other.
//!
//! A lock is one key, `PREFIX/.lock`, held by our session. A semaphore is a key of each contender, `PREFIX/SESSION`, held
//! by its session, and `PREFIX/.lock`, which lists who has a seat and changes by check-and-set.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lictor_client::{ClientError, encode_path};
use lictor_types::KvEntry;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use crate::api::Api;
use crate::output::Failure;

/// How long the session lives without us.
const TTL: Duration = Duration::from_secs(15);
/// Between two renewals, and how long one look at the lock waits for a change.
const RENEWAL: Duration = Duration::from_millis(7500);
/// After a lock that nobody holds could not be taken: a lock-delay runs.
const DELAY_PAUSE: Duration = Duration::from_secs(1);
/// Between two tries of a look that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// What Consul's clients mark the keys of locks with.
const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// What Consul's clients mark the keys of semaphores with.
const SEMAPHORE_FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;

/// Who has a seat; Consul's own JSON.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Holders {
    limit: u32,
    #[serde(default)]
    holders: BTreeMap<String, bool>,
}

/// What is contended for, with the session that contends.
pub(super) struct Seat {
    api: Api,
    prefix: String,
    limit: u32,
    session: String,
}

/// What a look at the keys found.
struct Look {
    entries: Vec<KvEntry>,
    index: u64,
}

impl Seat {
    /// Makes the session.
    pub(super) async fn open(api: Api, prefix: &str, limit: u32, name: &str) -> Result<Self, ClientError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "UPPERCASE")]
        struct Created {
            id: String,
        }
        let body = json!({ "Name": name, "TTL": lictor_types::duration::format(TTL) });
        let created: Created = api.client().put_json("/v1/session/create", &[], &body).await?;
        Ok(Self { api, prefix: prefix.to_owned(), limit, session: created.id })
    }

    fn is_semaphore(&self) -> bool {
        self.limit > 1
    }

    fn flags(&self) -> u64 {
        if self.is_semaphore() { SEMAPHORE_FLAGS } else { LOCK_FLAGS }
    }

    fn lock_key(&self) -> String {
        format!("{}/.lock", self.prefix)
    }

    /// The key that our session holds.
    fn own_key(&self) -> String {
        if self.is_semaphore() { format!("{}/{}", self.prefix, self.session) } else { self.lock_key() }
    }

    /// Takes the lock; its fencing token, or none at the deadline.
    pub(super) async fn take(&self, deadline: Option<Instant>) -> Result<Option<String>, Failure> {
        let taking = async {
            tokio::select! {
                taken = self.contend() => taken,
                lost = self.keep_session() => Err(Failure::new(lost)),
            }
        };
        match deadline {
            None => taking.await.map(Some),
            Some(deadline) => match timeout_at(deadline, taking).await {
                Ok(taken) => taken.map(Some),
                Err(_) => Ok(None),
            },
        }
    }

    async fn contend(&self) -> Result<String, Failure> {
        let mut index = 0;
        loop {
            let seen = self.look(index).await.map_err(failed)?;
            index = seen.index;
            self.check_use(&seen)?;
            let held_by_other = seen
                .entry(&self.lock_key())
                .and_then(|entry| entry.session.as_ref())
                .is_some_and(|it| *it != self.session);
            if held_by_other && !self.is_semaphore() {
                continue;
            }
            if !self.put(&self.own_key(), &[("acquire", &self.session)], b"").await.map_err(failed)? {
                sleep(DELAY_PAUSE).await;
                index = 0;
                continue;
            }
            if self.is_semaphore() && !self.sit_down().await? {
                continue;
            }
            let held = self.look(0).await.map_err(failed)?;
            // The lock is deleted when nobody wants it, and its lock index with it; the store's index only grows.
            return Ok(held.entry(&self.lock_key()).map_or(0, |it| it.modify_index.0).to_string());
        }
    }

    /// Nobody's other data is taken for a lock.
    fn check_use(&self, seen: &Look) -> Result<(), Failure> {
        match seen.entry(&self.lock_key()) {
            Some(entry) if entry.flags != self.flags() => {
                Err(Failure::new("Existing key does not match lock use: it is something else's"))
            }
            _ => Ok(()),
        }
    }

    /// Takes a seat if one is free.
    async fn sit_down(&self) -> Result<bool, Failure> {
        let seen = self.look(0).await.map_err(failed)?;
        self.check_use(&seen)?;
        let (mut list, at) = self.list(&seen)?;
        if list.limit != self.limit {
            return Err(Failure::new(format!(
                "semaphore limit conflict (lock: {}, local: {})",
                list.limit, self.limit
            )));
        }
        let is_alive = |session: &String| seen.entries.iter().any(|entry| entry.session.as_ref() == Some(session));
        list.holders.retain(|session, _| is_alive(session));
        if list.holders.len() >= self.limit as usize {
            return Ok(false);
        }
        list.holders.insert(self.session.clone(), true);
        self.put_list(&list, at).await
    }

    fn list(&self, seen: &Look) -> Result<(Holders, u64), Failure> {
        match seen.entry(&self.lock_key()) {
            None => Ok((Holders { limit: self.limit, holders: BTreeMap::new() }, 0)),
            Some(entry) => serde_json::from_slice(&entry.value)
                .map(|list| (list, entry.modify_index.0))
                .map_err(Failure::because("the list of the semaphore's holders cannot be read")),
        }
    }

    async fn put_list(&self, list: &Holders, at: u64) -> Result<bool, Failure> {
        let value = serde_json::to_vec(list).map_err(Failure::because("the list of holders cannot be written"))?;
        self.put(&self.lock_key(), &[("cas", &at.to_string())], &value).await.map_err(failed)
    }

    async fn put(&self, key: &str, query: &[(&str, &str)], value: &[u8]) -> Result<bool, ClientError> {
        let flags = self.flags().to_string();
        let query: Vec<(&str, &str)> = query.iter().copied().chain([("flags", flags.as_str())]).collect();
        let path = format!("/v1/kv/{}", encode_path(key));
        let reply = self.api.client().put_bytes(&path, &query, Bytes::copy_from_slice(value)).await?;
        Ok(reply.trim_ascii() == b"true")
    }

    /// The keys, as soon as they are newer than `index`, or after a while.
    async fn look(&self, index: u64) -> Result<Look, ClientError> {
        let (index, wait) = (index.to_string(), lictor_types::duration::format(RENEWAL));
        let query = [("recurse", ""), ("consistent", ""), ("index", index.as_str()), ("wait", wait.as_str())];
        let path = format!("/v1/kv/{}/", encode_path(&self.prefix));
        match self.api.client().get_json::<Vec<KvEntry>>(&path, &query).await {
            Ok((entries, meta)) => Ok(Look { entries, index: meta.index }),
            // Without an entry there is no index to wait from: the next look must not spin.
            Err(error) if error.is_not_found() => Ok(Look { entries: Vec::new(), index: 0 }),
            Err(error) => Err(error),
        }
    }

    fn holds(&self, seen: &Look) -> bool {
        let own = seen.entry(&self.own_key()).is_some_and(|entry| entry.session.as_ref() == Some(&self.session));
        let listed = || self.list(seen).is_ok_and(|(list, _)| list.holders.contains_key(&self.session));
        own && (!self.is_semaphore() || listed())
    }

    /// Returns when the lock is lost, with why. A look that fails is tried again `retries` times.
    pub(super) async fn watch(&self, retries: u32) -> String {
        let watching = async {
            let (mut index, mut failures) = (0, 0);
            loop {
                match self.look(index).await {
                    Ok(seen) if self.holds(&seen) => (index, failures) = (seen.index, 0),
                    Ok(_) => return "somebody took it, or the session has ended".to_owned(),
                    Err(error) if failures < retries => {
                        failures += 1;
                        eprintln!("cannot look at the lock, trying again: {error}");
                        sleep(RETRY_PAUSE).await;
                    }
                    Err(error) => return error.to_string(),
                }
            }
        };
        tokio::select! {
            why = watching => why,
            why = self.keep_session() => why,
        }
    }

    /// Renews the session until it cannot be renewed any more; why.
    async fn keep_session(&self) -> String {
        let mut renewed = Instant::now();
        loop {
            sleep(RENEWAL).await;
            let path = format!("/v1/session/renew/{}", encode_path(&self.session));
            match self.api.client().put_bytes(&path, &[], Bytes::new()).await {
                Ok(_) => renewed = Instant::now(),
                Err(error) if error.is_not_found() => return "the session has ended".into(),
                Err(error) if renewed.elapsed() > TTL => return format!("the session could not be renewed: {error}"),
                Err(_) => {}
            }
        }
    }

    /// Gives the lock back, and leaves nothing behind. What cannot be done now the end of the session does.
    pub(super) async fn close(self) {
        if let Err(failure) = self.give_back().await {
            eprintln!("Lock release failed: {failure}");
        }
        let path = format!("/v1/session/destroy/{}", encode_path(&self.session));
        if let Err(error) = self.api.client().put_bytes(&path, &[], Bytes::new()).await {
            eprintln!("cannot end the session: {error}");
        }
    }

    async fn give_back(&self) -> Result<(), Failure> {
        let delete = async |key: &str, at: u64| {
            let path = format!("/v1/kv/{}", encode_path(key));
            self.api.client().delete(&path, &[("cas", &at.to_string())]).await.map_err(failed)
        };
        loop {
            let seen = self.look(0).await.map_err(failed)?;
            if self.is_semaphore() && self.holds(&seen) {
                let (mut list, at) = self.list(&seen)?;
                list.holders.remove(&self.session);
                if !self.put_list(&list, at).await? {
                    continue;
                }
            }
            break;
        }
        let is_held = self.look(0).await.map_err(failed)?;
        let own = self.own_key();
        if is_held.entry(&own).is_none_or(|entry| entry.session.as_ref() != Some(&self.session)) {
            return Ok(());
        }
        self.put(&own, &[("release", &self.session)], b"").await.map_err(failed)?;
        // Only if nobody has taken it meanwhile.
        let seen = self.look(0).await.map_err(failed)?;
        if let Some(entry) = seen.entry(&own).filter(|entry| entry.session.is_none()) {
            delete(&own, entry.modify_index.0).await?;
        }
        Ok(())
    }
}

impl Look {
    fn entry(&self, key: &str) -> Option<&KvEntry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

fn failed(error: ClientError) -> Failure {
    Failure::new(error.to_string())
}
