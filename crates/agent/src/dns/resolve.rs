//! From a packet to its answer: checks the question, asks the waist, and has the answer made.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use lictor_types::prepared_query::PreparedQueryExecute;
use lictor_types::query::ServiceQuery;
use lictor_types::refusal::RefusalKind;
use lictor_types::{Answer, Consistency, Freshness, NodeName, Query, Refusal, ServiceName, duration};
use tokio::time::Instant;

use super::answer::{Sections, Subject};
use super::name::{Question, Wanted, WantedService};
use super::size::{Room, fit};
use crate::agent::Agent;
use crate::prepared_query::arrange;

/// How long a question may take; resolvers have given up by then.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// Name servers in an answer.
const NAME_SERVERS_MAX: usize = 3;
/// The service that every server is an instance of.
const SERVERS: &str = "consul";
/// Bytes of the head of every message.
const HEADER_BYTES: usize = 12;

/// The domains that we answer for.
#[derive(Clone, Debug)]
pub(super) struct Zones(Vec<Name>);

impl Zones {
    /// The domains of the configuration. One that is no name is left out: the configuration has refused it already.
    pub(super) fn of(agent: &Agent) -> Self {
        let config = agent.config.load();
        let dns = &config.dns;
        let named = [Some(&dns.domain), dns.alt_domain.as_ref()];
        let mut zones: Vec<Name> = named.into_iter().flatten().filter_map(|text| Name::from_ascii(text).ok()).collect();
        for zone in &mut zones {
            zone.set_fqdn(true);
        }
        // The longest first, so that a domain inside another one wins.
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.num_labels()));
        Self(zones)
    }

    fn holding(&self, name: &Name) -> Option<&Name> {
        self.0.iter().find(|zone| zone.zone_of(name))
    }
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// The reply to a packet; none for one that must not be answered.
pub(super) async fn reply(agent: &Agent, zones: &Zones, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let begin = Instant::now();
    let request = match Message::from_vec(packet) {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(%error, "a DNS packet that cannot be read");
            return malformed(packet);
        }
    };
    if request.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.queries.clone_from(&request.queries);
    if let Some(edns) = &request.edns {
        let mut echoed = Edns::new();
        echoed.set_max_payload(edns.max_payload());
        response.set_edns(echoed);
    }
    let sections = match refused(&request) {
        Some(code) => Sections { code: Some(code), ..Sections::default() },
        None => sections(agent, zones, &request, &mut response.metadata).await,
    };
    response.metadata.response_code = sections.code.unwrap_or(ResponseCode::NoError);
    response.answers = sections.answers;
    response.authorities = sections.authorities;
    response.additionals = sections.additionals;
    let is_reverse = request.queries.first().is_some_and(|query| query.query_type == RecordType::PTR);
    let figure = if is_reverse { &agent.figures.dns_reverse } else { &agent.figures.dns };
    figure.took(begin.elapsed());
    let config = agent.config.load_full();
    let room = match transport {
        Transport::Tcp => Room::TCP,
        Transport::Udp => Room::udp(request.edns.as_ref().map(Edns::max_payload), config.dns.udp_answer_limit),
    };
    match fit(response, room, config.dns.enable_truncate) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            tracing::warn!(%error, "a DNS answer cannot be encoded");
            let mut failed = Message::error_msg(request.metadata.id, OpCode::Query, ResponseCode::ServFail);
            failed.queries = request.queries;
            failed.to_vec().ok()
        }
    }
}

/// FORMERR for a query whose head can be read; nothing for anything else, lest two servers answer each other for ever.
fn malformed(packet: &[u8]) -> Option<Vec<u8>> {
    let head = packet.get(..HEADER_BYTES)?;
    let is_query = head[2] & 0b1000_0000 == 0;
    let id = u16::from_be_bytes([head[0], head[1]]);
    is_query.then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok()).flatten()
}

/// Why a well-formed query is not one for us.
fn refused(request: &Message) -> Option<ResponseCode> {
    if request.metadata.op_code != OpCode::Query {
        return Some(ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else { return Some(ResponseCode::FormErr) };
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Some(ResponseCode::BADVERS);
    }
    if !matches!(query.query_class, DNSClass::IN | DNSClass::ANY) {
        return Some(ResponseCode::Refused);
    }
    matches!(query.query_type, RecordType::AXFR | RecordType::IXFR).then_some(ResponseCode::NotImp)
}

async fn sections(agent: &Agent, zones: &Zones, request: &Message, metadata: &mut Metadata) -> Sections {
    let only = |code| Sections { code: Some(code), ..Sections::default() };
    let Some(query) = request.queries.first() else { return only(ResponseCode::FormErr) };
    let Some(domain) = zones.holding(&query.name) else { return only(ResponseCode::Refused) };
    metadata.authoritative = true;
    let config = agent.config.load_full();
    let subject = Subject {
        name: &query.name,
        domain,
        kind: query.query_type,
        datacenter: &agent.identity.datacenter,
        settings: &config.dns,
        now_seconds: agent.clock.unix_millis() / 1000,
    };
    match tokio::time::timeout(QUESTION_LIMIT, resolved(agent, &subject)).await {
        Ok(Ok(sections)) => sections,
        // Who may not see a name is told that there is none.
        Ok(Err(refusal)) if refusal.kind == RefusalKind::Forbidden => subject.absent(),
        Ok(Err(refusal)) => {
            tracing::warn!(name = %query.name, %refusal, "a DNS question cannot be answered");
            only(ResponseCode::ServFail)
        }
        Err(_) => {
            tracing::warn!(name = %query.name, "a DNS question took longer than {} s", QUESTION_LIMIT.as_secs());
            only(ResponseCode::ServFail)
        }
    }
}

async fn resolved(agent: &Agent, subject: &Subject<'_>) -> Result<Sections, Refusal> {
    if matches!(subject.kind, RecordType::SOA | RecordType::NS) {
        return Ok(subject.zone(&name_servers(agent).await?));
    }
    let Question { wanted, datacenter } = Question::parse(subject.name, subject.domain, subject.kind);
    if datacenter.is_some_and(|datacenter| !datacenter.eq_ignore_ascii_case(subject.datacenter)) {
        return Ok(subject.absent());
    }
    match wanted {
        None => Ok(subject.absent()),
        Some(Wanted::Address(address)) => Ok(subject.address(address)),
        Some(Wanted::Node(name)) => {
            let Ok(name) = NodeName::try_from(name) else { return Ok(subject.absent()) };
            match ask(agent, Query::Node(name)).await? {
                Answer::Node(Some(node)) => Ok(subject.node(&node)),
                Answer::Node(None) => Ok(subject.absent()),
                _ => Err(unexpected()),
            }
        }
        Some(Wanted::Service(WantedService { name, tag, connect })) => {
            let Ok(service) = ServiceName::try_from(name) else { return Ok(subject.absent()) };
            let tags = tag.into_iter().collect();
            let query = ServiceQuery { tags, connect, ..ServiceQuery::all(service.clone()) };
            match ask(agent, Query::HealthService(query)).await? {
                Answer::CheckServiceNodes(rows) => Ok(subject.service(service.as_str(), rows, &*agent.rng)),
                _ => Err(unexpected()),
            }
        }
        Some(Wanted::Query(name)) => query(agent, subject, name).await,
    }
}

/// What a prepared query finds, in the order that it asks for.
async fn query(agent: &Agent, subject: &Subject<'_>, name: String) -> Result<Sections, Refusal> {
    let own = agent.identity.node_name.to_string();
    let execute = PreparedQueryExecute { agent: Some(own), ..PreparedQueryExecute::of(name) };
    match ask(agent, Query::PreparedQueryExecute(execute)).await {
        Ok(Answer::PreparedQueryFound(mut found)) => {
            arrange(&*agent.rng, &mut found, 0);
            let ttl = duration::parse(&found.dns.ttl).ok().filter(|_| !found.dns.ttl.is_empty());
            Ok(subject.found(&found.service.service, found.rows, ttl))
        }
        Ok(_) => Err(unexpected()),
        Err(refusal) if refusal.kind == RefusalKind::NotFound => Ok(subject.absent()),
        Err(refusal) => Err(refusal),
    }
}

async fn name_servers(agent: &Agent) -> Result<Vec<(String, IpAddr)>, Refusal> {
    let Ok(service) = SERVERS.parse::<ServiceName>() else { return Ok(Vec::new()) };
    let Answer::CheckServiceNodes(rows) = ask(agent, Query::HealthService(ServiceQuery::all(service))).await? else {
        return Err(unexpected());
    };
    let mut servers: Vec<_> = rows
        .into_iter()
        .filter_map(|row| Some((row.node.name.as_str().to_owned(), row.node.address.parse().ok()?)))
        .collect();
    for last in (1..servers.len()).rev() {
        servers.swap(last, agent.rng.below(last as u64 + 1) as usize);
    }
    servers.truncate(NAME_SERVERS_MAX);
    Ok(servers)
}

async fn ask(agent: &Agent, query: Query) -> Result<Answer, Refusal> {
    let consistency = if agent.config.load().dns.allow_stale { Consistency::Stale } else { Consistency::Default };
    let freshness = Freshness { consistency, block: None };
    Ok(agent.datacenter.read(&agent.tokens.dns(), query, freshness).await?.answer)
}

fn unexpected() -> Refusal {
    Refusal::failed("the server answered another question than was asked; are all servers of one release?")
}
