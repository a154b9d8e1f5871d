//! `/v1/agent/connect/ca/leaf/SERVICE`: a leaf certificate with its key, made here, renewed here, kept in memory.
//!
//! Invariants
//! - The key is made on this agent and never sent to a server.
//! - Every read is authorised, also one that is answered from what is kept.
//! - At most [`LEAVES_MAX`] leaves are kept; what is kept belongs to one token and one service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::{HeaderName, HeaderValue, header};
use lictor_identity::{SigningRequest, SpiffeId, renewal_moment};
use lictor_types::rpc::{Operation, Report, SignLeaf};
use lictor_types::{
    Answer, Block, Credential, Freshness, Index, LeafCertificate, Query, Refusal, Requirement, Resource, ServiceName,
    Timestamp,
};
use parking_lot::Mutex;
use serde::Serialize;

use super::caller::{Ask, Tail, mark_index};
use super::catalog::service_in_path;
use super::connect::read_roots;
use super::failure::{Answered, Failure};

/// How many leaves are kept at once.
const LEAVES_MAX: usize = 64;
/// The shortest time between two signatures of one leaf, whatever its lifetime.
const RENEW_AFTER_MIN: Duration = Duration::from_secs(10);

/// A leaf and its key.
struct Leaf {
    certificate: LeafCertificate,
    key_pem: String,
    index: Index,
    /// The root it chains to.
    root_id: String,
    made_at: Timestamp,
    renew_at: Timestamp,
}

/// One place for one leaf; whoever renews it holds it, so that a crowd of readers makes one signature.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Leaf>>>>;

/// The leaves that are kept, by service and token.
#[derive(Default)]
pub(super) struct Leaves {
    slots: Mutex<BTreeMap<(ServiceName, String), Slot>>,
}

impl Leaves {
    fn slot(&self, service: &ServiceName, credential: &Credential) -> Result<Slot, Refusal> {
        let key = (service.clone(), credential.secret.clone());
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&key) {
            return Ok(slot.clone());
        }
        if slots.len() >= LEAVES_MAX {
            // One that nobody waits on: only this map holds it.
            let idle = slots.iter().find(|(_, slot)| Arc::strong_count(slot) == 1).map(|(key, _)| key.clone());
            let too_many = || {
                let text = format!("this agent keeps {LEAVES_MAX} leaf certificates at most, and all are waited on");
                Refusal::new(lictor_types::refusal::RefusalKind::TooMany, text)
            };
            slots.remove(&idle.ok_or_else(too_many)?);
        }
        Ok(slots.entry(key).or_default().clone())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LeafJson<'a> {
    serial_number: &'a str,
    #[serde(rename = "CertPEM")]
    cert_pem: &'a str,
    #[serde(rename = "PrivateKeyPEM")]
    private_key_pem: &'a str,
    service: &'a str,
    #[serde(rename = "ServiceURI")]
    service_uri: &'a str,
    valid_after: String,
    valid_before: String,
    create_index: Index,
    modify_index: Index,
}

/// `GET /v1/agent/connect/ca/leaf/SERVICE`; blocks until the leaf at `index` was replaced.
pub(super) async fn leaf(ask: Ask, Tail(service): Tail) -> Answered {
    let service = service_in_path(service)?;
    let block = ask.freshness.block;
    let deadline = block.map(|block| tokio::time::Instant::now() + block.wait());
    loop {
        ask.require(Requirement::write(Resource::Service, service.as_str())).await?;
        let slot = ask.door.leaves.slot(&service, &ask.credential)?;
        let Current { leaf, kept, roots_index } = current(&ask, &slot, &service).await?;
        let (Some(block), Some(deadline)) = (block, deadline) else { return shown(&ask, &service, &leaf, kept) };
        if leaf.index > block.after || tokio::time::Instant::now() >= deadline {
            return shown(&ask, &service, &leaf, kept);
        }
        wait_for_change(&ask, &leaf, roots_index, deadline).await?;
    }
}

/// A leaf that is good now.
struct Current {
    leaf: Arc<Leaf>,
    /// It was there already.
    kept: bool,
    /// The index that the roots were read at just now.
    roots_index: Index,
}

/// The leaf in `slot`, made anew if it is due.
async fn current(ask: &Ask, slot: &Slot, service: &ServiceName) -> Result<Current, Failure> {
    let mut held = slot.lock().await;
    let (roots_index, roots) = read_roots_now(ask).await?;
    let now = Timestamp::from(ask.door.agent.clock.now());
    if let Some(leaf) = &*held
        && leaf.root_id == roots.active_root_id
        && now < leaf.renew_at
    {
        return Ok(Current { leaf: leaf.clone(), kept: true, roots_index });
    }
    let leaf = Arc::new(make(ask, service, &roots, held.as_deref(), now).await?);
    *held = Some(leaf.clone());
    Ok(Current { leaf, kept: false, roots_index })
}

async fn read_roots_now(ask: &Ask) -> Result<(Index, lictor_types::CaRoots), Failure> {
    let (meta, Answer::CaRoots(Some(roots))) = ask.read_now(Query::CaRoots).await? else {
        // The same read, for its words on why there are none.
        return read_roots(ask).await.map(|(meta, roots)| (meta.index, roots));
    };
    Ok((meta.index, roots))
}

async fn make(
    ask: &Ask,
    service: &ServiceName,
    roots: &lictor_types::CaRoots,
    before: Option<&Leaf>,
    now: Timestamp,
) -> Result<Leaf, Failure> {
    let agent = &ask.door.agent;
    let failed =
        |error: &dyn std::fmt::Display| Refusal::failed(format!("cannot ask for a leaf of {service}: {error}"));
    let trust_domain = roots.trust_domain.parse().map_err(|error| failed(&error))?;
    let id = SpiffeId::service(&trust_domain, &agent.identity.datacenter, service.as_str())
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    let request = SigningRequest::create(&id).map_err(|error| failed(&error))?;
    let sign = SignLeaf { service: service.clone(), csr: request.csr_pem.into_bytes() };
    let Report::Leaf(certificate) = ask.operate(Operation::SignLeaf(sign)).await? else {
        return Err(Failure::unexpected_answer());
    };
    let before_end = certificate.valid_before.to_system_time();
    let renew_at = Timestamp::from(renewal_moment(now.to_system_time(), before_end, agent.rng.next_u64()));
    let index = certificate.roots_index.max(before.map_or(Index(1), |leaf| leaf.index.next()));
    Ok(Leaf {
        index,
        key_pem: request.key_pem.to_string(),
        root_id: roots.active_root_id.clone(),
        made_at: now,
        renew_at: renew_at.max(now.after(RENEW_AFTER_MIN)),
        certificate,
    })
}

/// Waits until the roots changed after `roots_index`, the leaf is due, or `deadline`.
async fn wait_for_change(
    ask: &Ask,
    leaf: &Leaf,
    roots_index: Index,
    deadline: tokio::time::Instant,
) -> Result<(), Failure> {
    let now = Timestamp::from(ask.door.agent.clock.now());
    let wait = deadline.saturating_duration_since(tokio::time::Instant::now()).min(leaf.renew_at.since(now));
    let block = Some(Block { after: roots_index, wait_millis: wait.as_millis() as u64 });
    let freshness = Freshness { block, ..ask.freshness };
    let roots = ask.door.agent.datacenter.read(&ask.credential, Query::CaRoots, freshness);
    tokio::select! {
        read = roots => { read?; }
        () = tokio::time::sleep(wait) => {}
    }
    Ok(())
}

fn shown(ask: &Ask, service: &ServiceName, leaf: &Leaf, kept: bool) -> Result<Response, Failure> {
    const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
    let Leaf { certificate, key_pem, index, .. } = leaf;
    let mut response = ask.json(&LeafJson {
        serial_number: &certificate.serial_number,
        cert_pem: &certificate.chain_pem,
        private_key_pem: key_pem,
        service: service.as_str(),
        service_uri: &certificate.uri,
        valid_after: certificate.valid_after.to_rfc3339(),
        valid_before: certificate.valid_before.to_rfc3339(),
        create_index: *index,
        modify_index: *index,
    })?;
    mark_index(&mut response, *index);
    let headers = response.headers_mut();
    headers.insert(X_CACHE, HeaderValue::from_static(if kept { "HIT" } else { "MISS" }));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if kept {
        let age = Timestamp::from(ask.door.agent.clock.now()).since(leaf.made_at);
        headers.insert(header::AGE, age.as_secs().into());
    }
    Ok(response)
}
