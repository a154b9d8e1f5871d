//! Who asks and how: what every handler takes first.
//!
//! Three extractors: [`Caller`] for what only this agent holds, [`Ask`] for reads and [`Order`] for writes of the
//! datacenter. They read the query string, token, consistency and datacenter once, so no handler does.
//!
//! Invariants
//! - `ns`, `partition`, `peer` and `sg` are refused, so nobody gets rows that were meant to be narrowed.
//! - A parked read holds no body: reads never take one.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use lictor_types::command::Effect;
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Operation, Report};
use lictor_types::transaction::TransactionOutcome;
use lictor_types::{
    Answer, Command, Consistency, Credential, Freshness, Index, Near, Query, Read, Refusal, Requirement, Rows,
};
use serde::Serialize;

use super::Door;
use super::choice;
use super::failure::{Answered, Failure};
use super::json;
use super::params::Params;
use super::verdicts::Verdict;

const X_CONSUL_TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const X_CONSUL_INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const X_CONSUL_KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
const X_CONSUL_LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
const X_CONSUL_CONSISTENCY: HeaderName = HeaderName::from_static("x-consul-effective-consistency");
const X_CONSUL_BACKEND: HeaderName = HeaderName::from_static("x-consul-query-backend");
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const X_CONSUL_FILTERED: HeaderName = HeaderName::from_static("x-consul-results-filtered-by-acls");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How long an endpoint of what this agent holds waits for what servers would add to it.
const SERVERS_PATIENCE: Duration = Duration::from_millis(500);

/// Who asks, with the parameters of the request.
pub(super) struct Caller {
    pub(super) door: Arc<Door>,
    pub(super) credential: Credential,
    pub(super) params: Params,
}

/// A read of the datacenter.
pub(super) struct Ask {
    caller: Caller,
    pub(super) freshness: Freshness,
    max_stale: Option<Duration>,
    near: Option<Near>,
    /// The address that the request came from.
    pub(super) client: Option<IpAddr>,
}

/// A write of the datacenter.
pub(super) struct Order(Caller);

/// What follows the endpoint's own path, decoded once; empty when nothing follows.
pub(super) struct Tail(pub(super) String);

impl Caller {
    fn new(parts: &Parts, door: &Arc<Door>) -> Result<Self, Refusal> {
        let params = Params::parse(parts.uri.query())?;
        refuse_unsupported(&params, &parts.headers)?;
        let credential = credential(&params, &parts.headers).unwrap_or_else(|| door.agent.tokens.default());
        Ok(Self { door: door.clone(), credential, params })
    }

    /// Refuses what is meant for a datacenter that nobody knows a way to.
    pub(super) fn check_datacenter(&self) -> Result<(), Refusal> {
        let asked = self.params.text("datacenter").or_else(|| self.params.text("dc"));
        match asked {
            Some(asked) if !asked.eq_ignore_ascii_case(&self.door.agent.identity.datacenter) => {
                Err(Refusal::failed("No path to datacenter"))
            }
            _ => Ok(()),
        }
    }

    /// JSON with status 200.
    pub(super) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Answered {
        self.json_with(StatusCode::OK, value)
    }

    /// JSON with a status.
    pub(super) fn json_with<T: Serialize + ?Sized>(&self, status: StatusCode, value: &T) -> Answered {
        let mut bytes = json::to_bytes(value, self.is_pretty()).map_err(unwritable)?;
        if self.params.has("pretty") {
            bytes.push(b'\n');
        }
        let mut response = Response::new(bytes.into());
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        Ok(response)
    }

    /// People are to read the answer.
    fn is_pretty(&self) -> bool {
        self.params.has("pretty") || self.door.agent.identity.dev
    }

    /// Which of these the caller may not, in the same order: as the servers say, or as they said last while none answers.
    pub(super) async fn denials(&self, requirements: Vec<Requirement>) -> Result<Verdict, Failure> {
        if requirements.is_empty() || !self.door.agent.identity.acl_enabled {
            return Ok(vec![None; requirements.len()]);
        }
        let asked = self.ask_for_verdict(requirements.clone());
        let Some(last) = self.door.verdicts.last(&self.credential, &requirements) else { return asked.await };
        match tokio::time::timeout(SERVERS_PATIENCE, asked).await {
            Ok(Err(Failure(refusal))) if !refusal.may_retry() => Err(refusal.into()),
            Ok(Ok(verdict)) => Ok(verdict),
            Ok(Err(_)) | Err(_) => Ok(last),
        }
    }

    async fn ask_for_verdict(&self, requirements: Vec<Requirement>) -> Result<Verdict, Failure> {
        let verdict = match self.operate(Operation::Authorize(requirements.clone())).await? {
            Report::Authorized(denials) if denials.len() == requirements.len() => denials,
            _ => return Err(Failure::unexpected_answer()),
        };
        self.door.verdicts.said(&self.credential, requirements, verdict.clone());
        Ok(verdict)
    }

    /// Goes on only if the caller may do all of this.
    pub(super) async fn require(&self, requirement: Requirement) -> Result<(), Failure> {
        match self.denials(vec![requirement]).await?.into_iter().flatten().next() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(()),
        }
    }

    /// As [`Self::operate`], for what the answer can do without: no server may make the caller wait.
    pub(super) async fn operate_soon(&self, operation: Operation) -> Result<Report, Failure> {
        let asked = self.operate(operation);
        let late = || Failure(Refusal::new(RefusalKind::NoLeader, "no server answered in time"));
        tokio::time::timeout(SERVERS_PATIENCE, asked).await.unwrap_or_else(|_| Err(late()))
    }

    /// Does what is neither read nor write.
    pub(super) async fn operate(&self, operation: Operation) -> Result<Report, Failure> {
        Ok(self.door.agent.datacenter.operate(&self.credential, operation).await?)
    }
}

impl Order {
    /// Who gave it.
    pub(super) fn into_caller(self) -> Caller {
        self.0
    }

    /// Changes the state; whether it took effect.
    pub(super) async fn write(&self, command: Command) -> Result<bool, Failure> {
        match self.effect(command).await? {
            Effect::Applied | Effect::Unassigned(_) => Ok(true),
            Effect::NotApplied => Ok(false),
            Effect::Transaction(outcome) => Ok(outcome.errors.is_empty()),
            Effect::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Changes the state; what that did, a refusal excepted.
    pub(super) async fn effect(&self, command: Command) -> Result<Effect, Failure> {
        match self.door.agent.datacenter.write(&self.credential, command).await?.effect {
            Effect::Refused(refusal) => Err(refusal.into()),
            effect => Ok(effect),
        }
    }

    /// Changes the state by a transaction; what came of it.
    pub(super) async fn transact(&self, command: Command) -> Result<TransactionOutcome, Failure> {
        match self.door.agent.datacenter.write(&self.credential, command).await?.effect {
            Effect::Transaction(outcome) => Ok(*outcome),
            Effect::Refused(refusal) => Err(refusal.into()),
            Effect::Applied | Effect::NotApplied | Effect::Unassigned(_) => Err(Failure::unexpected_answer()),
        }
    }
}

impl Deref for Order {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl Deref for Ask {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Ask {
    /// Asks the state as freshly as the request says.
    pub(super) async fn read(&self, query: Query) -> Result<(Meta, Answer), Failure> {
        self.read_as(query, self.freshness).await
    }

    /// As [`Self::read`], with what the request chooses among the rows by `filter`, `near` and `merge-central-config`.
    pub(super) async fn read_chosen(&self, query: Query) -> Result<(Meta, Answer), Failure> {
        self.read(choice::choosing(&self.params, self.near.clone(), query)?).await
    }

    /// Asks the state as freshly as the request says, without waiting for a newer answer.
    pub(super) async fn read_now(&self, query: Query) -> Result<(Meta, Answer), Failure> {
        self.read_as(query, Freshness { block: None, ..self.freshness }).await
    }

    async fn read_as(&self, query: Query, freshness: Freshness) -> Result<(Meta, Answer), Failure> {
        let datacenter = &self.door.agent.datacenter;
        let too_old =
            |read: &Read| self.max_stale.is_some_and(|limit| u128::from(read.last_contact_millis) > limit.as_millis());
        if freshness.consistency != Consistency::Stale || self.max_stale.is_none() {
            let read = datacenter.read(&self.credential, query, freshness).await?;
            return Ok(Meta::split(read, freshness.consistency, &self.credential));
        }
        let read = datacenter.read(&self.credential, query.clone(), freshness).await?;
        if !too_old(&read) {
            return Ok(Meta::split(read, Consistency::Stale, &self.credential));
        }
        let again = Freshness { consistency: Consistency::Default, block: freshness.block };
        let read = datacenter.read(&self.credential, query, again).await?;
        Ok(Meta::split(read, Consistency::Default, &self.credential))
    }

    /// JSON with the headers of a read.
    pub(super) fn answer<T: Serialize + ?Sized>(&self, meta: Meta, value: &T) -> Answered {
        let mut response = meta.onto(self.json(value)?);
        if self.params.has("cached") {
            // Agents hold no cache, so every answer was asked for.
            response.headers_mut().insert(X_CACHE, HeaderValue::from_static("MISS"));
        }
        Ok(response)
    }

    /// As [`Self::answer`], of rows that many readers get: they are written once.
    pub(super) fn answer_shared<T: Serialize>(&self, meta: Meta, rows: &Rows<T>) -> Answered {
        if self.is_pretty() {
            return self.answer(meta, &**rows);
        }
        let bytes = rows.written(|rows| json::to_bytes(rows, false)).map_err(unwritable)?;
        let mut response = Response::new(bytes.into());
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        Ok(meta.onto(response))
    }

    /// 404 without a body, with the headers of a read.
    pub(super) fn absent(meta: Meta) -> Response {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_FOUND;
        meta.onto(response)
    }
}

/// What a reader must know of an answer besides the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) index: Index,
    pub(super) known_leader: bool,
    pub(super) last_contact_millis: u64,
    consistency: Consistency,
    /// Rows were left out for want of rights, and the caller gave a token, so it may be told.
    pub(super) filtered: bool,
}

impl Meta {
    fn split(read: Read, consistency: Consistency, credential: &Credential) -> (Self, Answer) {
        let meta = Self {
            index: read.index,
            known_leader: read.known_leader,
            last_contact_millis: read.last_contact_millis,
            consistency,
            filtered: read.filtered_by_acls && !credential.is_anonymous(),
        };
        (meta, read.answer)
    }

    /// Consul's word for how it was read.
    pub(super) fn consistency_word(&self) -> &'static str {
        match self.consistency {
            Consistency::Default => "leader",
            Consistency::Consistent => "consistent",
            Consistency::Stale => "stale",
        }
    }

    /// Of two answers that are shown as one: the older index, so that no change is missed.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            index: self.index.min(other.index),
            known_leader: self.known_leader && other.known_leader,
            last_contact_millis: self.last_contact_millis.max(other.last_contact_millis),
            filtered: self.filtered || other.filtered,
            ..self
        }
    }

    /// `response` with Consul's headers of a read that nobody can wait on.
    pub(super) fn onto_without_index(self, response: Response) -> Response {
        let mut response = self.onto(response);
        response.headers_mut().remove(X_CONSUL_INDEX);
        response
    }

    /// `response` with Consul's headers of a read.
    pub(super) fn onto(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        let consistency = self.consistency_word();
        // A client that is told 0 would never block again.
        headers.insert(X_CONSUL_INDEX, self.index.0.max(1).into());
        headers
            .insert(X_CONSUL_KNOWN_LEADER, HeaderValue::from_static(if self.known_leader { "true" } else { "false" }));
        headers.insert(X_CONSUL_LAST_CONTACT, self.last_contact_millis.into());
        headers.insert(X_CONSUL_CONSISTENCY, HeaderValue::from_static(consistency));
        headers.insert(X_CONSUL_BACKEND, HeaderValue::from_static("blocking-query"));
        if self.filtered {
            headers.insert(X_CONSUL_FILTERED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// `true`-or-not header for local lists, which have no other read headers.
pub(super) fn mark_filtered(response: &mut Response, filtered: bool) {
    if filtered {
        response.headers_mut().insert(X_CONSUL_FILTERED, HeaderValue::from_static("true"));
    }
}

/// `X-Consul-Index` alone, for answers that this agent keeps itself.
pub(super) fn mark_index(response: &mut Response, index: Index) {
    response.headers_mut().insert(X_CONSUL_INDEX, index.0.max(1).into());
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure(Refusal::failed(format!("the answer cannot be written as JSON: {error}")))
}

/// `?token`, then `X-Consul-Token`, then `Authorization: Bearer`.
fn credential(params: &Params, headers: &HeaderMap) -> Option<Credential> {
    let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, token) = header(&AUTHORIZATION)?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    params
        .text("token")
        .or_else(|| header(&X_CONSUL_TOKEN).filter(|token| !token.is_empty()))
        .or_else(bearer)
        .filter(|token| !token.is_empty())
        .map(Credential::new)
}

/// Nothing is cached here, so that directives only have to make sense.
fn check_cache_control(headers: &HeaderMap) -> Result<(), Refusal> {
    let invalid = || Refusal::bad_request("Invalid Cache-Control header.");
    for value in headers.get_all(header::CACHE_CONTROL) {
        for directive in value.to_str().map_err(|_| invalid())?.split(',') {
            if let Some((name, seconds)) = directive.trim().split_once('=')
                && ["max-age", "stale-if-error"].iter().any(|known| known.eq_ignore_ascii_case(name.trim()))
                && seconds.trim().parse::<u32>().is_err()
            {
                return Err(invalid());
            }
        }
    }
    Ok(())
}

fn refuse_unsupported(params: &Params, headers: &HeaderMap) -> Result<(), Refusal> {
    const ENTERPRISE: [(&str, &str, &str); 2] =
        [("ns", "X-Consul-Namespace", "Namespaces"), ("partition", "X-Consul-Partition", "Partitions")];
    for (parameter, header, noun) in ENTERPRISE {
        let of = |what: String| {
            Err(Refusal::bad_request(format!("Invalid {what} - {noun} are a Consul Enterprise feature")))
        };
        if headers.get(header).is_some_and(|value| !value.is_empty()) {
            return of(format!("header: {header:?}"));
        }
        if params.text(parameter).is_some() {
            return of(format!("query parameter: {parameter:?}"));
        }
    }
    for parameter in ["peer", "sg"] {
        if params.text(parameter).is_some() {
            return Err(Refusal::bad_request(format!(
                "?{parameter} is not supported yet; ask without it and choose among the rows yourself"
            )));
        }
    }
    Ok(())
}

impl FromRequestParts<Arc<Door>> for Caller {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Failure> {
        Ok(Self::new(parts, door)?)
    }
}

impl FromRequestParts<Arc<Door>> for Order {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Failure> {
        let caller = Caller::new(parts, door)?;
        caller.check_datacenter()?;
        Ok(Self(caller))
    }
}

impl FromRequestParts<Arc<Door>> for Ask {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Failure> {
        let caller = Caller::new(parts, door)?;
        caller.check_datacenter()?;
        check_cache_control(&parts.headers)?;
        let mut freshness = caller.params.freshness(&door.limits(), &*door.agent.rng)?;
        let mut max_stale = caller.params.max_stale()?;
        if max_stale.is_none() && freshness.consistency == Consistency::Default && !caller.params.has("leader") {
            max_stale = door.discovery_max_stale(parts.uri.path());
        }
        // Who says how old an answer may be takes that of any server.
        if max_stale.is_some_and(|limit| !limit.is_zero()) && freshness.consistency == Consistency::Default {
            freshness.consistency = Consistency::Stale;
        }
        let here = &caller.door.agent.identity.node_name;
        let client = choice::client_address(parts);
        let near = choice::near(&caller.params, here, client);
        Ok(Self { caller, freshness, max_stale, near, client })
    }
}

impl FromRequestParts<Arc<Door>> for Tail {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Failure> {
        let params = RawPathParams::from_request_parts(parts, door)
            .await
            .map_err(|error| Failure::bad_request(format!("the path is not UTF-8 text: {error}")))?;
        Ok(Self(params.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default()))
    }
}
