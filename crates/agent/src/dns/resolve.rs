//! From a packet to its answer: checks the question, asks the waist, and has the answer made.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use lictor_types::prepared_query::PreparedQueryExecute;
use lictor_types::query::ServiceQuery;
use lictor_types::refusal::RefusalKind;
use lictor_types::selection::Selection;
use lictor_types::{Answer, Consistency, Freshness, NodeName, Query, Refusal, ServiceName, duration};

use super::answer::{Sections, Subject};
use super::name::{Question, Wanted, WantedService, pointer};
use super::size::{Room, Style, encode, fit};
use super::{alias, recurse};
use crate::agent::Agent;
use crate::config::DnsConfig;
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
pub(super) struct Zones {
    own: Vec<Name>,
    /// What the resolvers of this machine append to names.
    searched: Vec<Name>,
}

impl Zones {
    /// The domains of the configuration. One that is no name is left out: the configuration has refused it already.
    /// `resolv_conf` is the text of this machine's file.
    pub(super) fn of(agent: &Agent, resolv_conf: &str) -> Self {
        let config = agent.config.load();
        let dns = &config.dns;
        let named = [Some(dns.domain.as_str()), dns.alt_domain.as_deref()];
        let mut own = absolute(named.into_iter().flatten());
        // The longest first, so that a domain inside another one wins.
        own.sort_by_key(|zone| std::cmp::Reverse(zone.num_labels()));
        let searched = resolv_conf.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            matches!(words.next(), Some("search" | "domain")).then_some(words)
        });
        Self { own, searched: absolute(searched.flatten()) }
    }

    pub(super) fn holding(&self, name: &Name) -> Option<&Name> {
        self.own.iter().find(|zone| zone.zone_of(name))
    }

    /// Whether `name` is one of ours with something behind it that a resolver appended: in a pod, whose resolver counts dots,
    /// every name of ours is asked for in all the pod's domains first.
    fn is_searched(&self, name: &Name, anywhere: bool) -> bool {
        let appended = |labels: usize| {
            let rest = name.trim_to(usize::from(name.num_labels()).saturating_sub(labels));
            anywhere || self.searched.contains(&rest)
        };
        let labels: Vec<&[u8]> = name.iter().collect();
        self.own.iter().any(|zone| {
            let zone: Vec<&[u8]> = zone.iter().collect();
            // The last label is left to what was appended; the first one to the name itself.
            (1..labels.len().saturating_sub(zone.len())).any(|at| {
                let same = |(one, two): (&&[u8], &&[u8])| one.eq_ignore_ascii_case(two);
                labels[at..at + zone.len()].iter().zip(&zone).all(same) && appended(at + zone.len())
            })
        })
    }
}

fn absolute<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Name> {
    let named = names.filter_map(|text| Name::from_ascii(text).ok());
    named
        .map(|mut name| {
            name.set_fqdn(true);
            name.to_lowercase()
        })
        .filter(|name| !name.is_root())
        .collect()
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// The reply to a packet; none for one that must not be answered.
pub(super) async fn reply(agent: &Agent, zones: &Zones, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
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
    let config = agent.config.load_full();
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = !config.dns.recursors.is_empty();
    response.queries.clone_from(&request.queries);
    response.edns = request.edns.as_ref().map(echoed);
    let sections = match refused(&request) {
        Some(code) => Sections { code: Some(code), ..Sections::default() },
        None => match sections(agent, zones, &request, transport, &mut response.metadata).await {
            Found::Ours(sections) => sections,
            Found::Elsewhere(answer) => return encode(&answer, true).ok(),
        },
    };
    response.metadata.response_code = sections.code.unwrap_or(ResponseCode::NoError);
    response.answers = sections.answers;
    response.authorities = sections.authorities;
    response.additionals = sections.additionals;
    let room = match transport {
        Transport::Tcp => Room::TCP,
        Transport::Udp => Room::udp(request.edns.as_ref().map(Edns::max_payload), config.dns.udp_answer_limit),
    };
    let style = Style { announce: config.dns.enable_truncate, compress: !config.dns.disable_compression };
    match fit(response, room, style) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            tracing::warn!(%error, "a DNS answer cannot be encoded");
            let mut failed = Message::error_msg(request.metadata.id, OpCode::Query, ResponseCode::ServFail);
            failed.queries = request.queries;
            failed.to_vec().ok()
        }
    }
}

/// What we say of EDNS to a client that spoke of it: its own size, and that the answer is the same for every subnet.
fn echoed(edns: &Edns) -> Edns {
    let mut echoed = Edns::new();
    echoed.set_max_payload(edns.max_payload());
    if let Some(EdnsOption::Subnet(subnet)) = edns.option(EdnsCode::Subnet) {
        let same_for_all = ClientSubnet::new(subnet.addr(), subnet.source_prefix(), 0);
        echoed.options_mut().insert(EdnsOption::Subnet(same_for_all));
    }
    echoed
}

/// Where an answer comes from.
enum Found {
    /// From us.
    Ours(Sections),
    /// From a recursor, whole.
    Elsewhere(Box<Message>),
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

async fn sections(
    agent: &Agent,
    zones: &Zones,
    request: &Message,
    transport: Transport,
    metadata: &mut Metadata,
) -> Found {
    let only = |code| Sections { code: Some(code), ..Sections::default() };
    let Some(query) = request.queries.first() else { return Found::Ours(only(ResponseCode::FormErr)) };
    let Some(domain) = zones.holding(&query.name) else {
        return elsewhere(agent, zones, request, transport, metadata).await;
    };
    Found::Ours(within(agent, zones, query, domain, metadata).await)
}

/// A name of another domain.
async fn elsewhere(
    agent: &Agent,
    zones: &Zones,
    request: &Message,
    transport: Transport,
    metadata: &mut Metadata,
) -> Found {
    let code = |code| Found::Ours(Sections { code: Some(code), ..Sections::default() });
    let Some(query) = request.queries.first() else { return code(ResponseCode::FormErr) };
    let config = agent.config.load_full();
    let recursors = !config.dns.recursors.is_empty();
    if query.query_type == RecordType::PTR
        && let (Some(address), Some(domain)) = (pointer(&query.name), zones.own.last())
    {
        match with_limit(&query.name, pointers(agent, query, domain, address)).await {
            Ok(found) if found.code.is_some() && recursors => {}
            Ok(found) => {
                metadata.authoritative = true;
                return Found::Ours(found);
            }
            Err(failed) => return code(failed),
        }
    }
    if zones.is_searched(&query.name, !recursors) {
        return code(ResponseCode::NXDomain);
    }
    if !recursors {
        return code(ResponseCode::Refused);
    }
    match recurse::forward(&config.dns, &*agent.rng, request, transport).await {
        Some(answer) => Found::Elsewhere(Box::new(answer)),
        None => code(ResponseCode::ServFail),
    }
}

/// What has this address.
async fn pointers(agent: &Agent, query: &Asked, domain: &Name, address: IpAddr) -> Result<Sections, Refusal> {
    let config = agent.config.load_full();
    let subject = subject(agent, &config.dns, query, domain);
    let filter = format!("Address == \"{address}\"");
    let nodes = Selection { query: Query::Nodes(BTreeMap::new()), filter, near: None, merge: None };
    match ask(agent, Query::Selected(Box::new(nodes))).await? {
        Answer::Nodes(nodes) => Ok(subject.pointers(&nodes, &[])),
        _ => Err(unexpected()),
    }
}

/// What an answer to `query` is about.
pub(super) fn subject<'a>(
    agent: &'a Agent,
    settings: &'a DnsConfig,
    query: &'a Asked,
    domain: &'a Name,
) -> Subject<'a> {
    Subject {
        name: &query.name,
        domain,
        kind: query.query_type,
        datacenter: &agent.identity.datacenter,
        settings,
        now_seconds: agent.clock.unix_millis() / 1000,
    }
}

/// What is found within the time that a question has; else why not, as the code of an answer.
async fn with_limit<T>(name: &Name, found: impl Future<Output = Result<T, Refusal>>) -> Result<T, ResponseCode> {
    match tokio::time::timeout(QUESTION_LIMIT, found).await {
        Ok(Ok(found)) => Ok(found),
        // Who may not see a name is told that there is none.
        Ok(Err(refusal)) if refusal.kind == RefusalKind::Forbidden => Err(ResponseCode::NXDomain),
        Ok(Err(refusal)) => {
            tracing::warn!(%name, %refusal, "a DNS question cannot be answered");
            Err(ResponseCode::ServFail)
        }
        Err(_) => {
            tracing::warn!(%name, "a DNS question took longer than {} s", QUESTION_LIMIT.as_secs());
            Err(ResponseCode::ServFail)
        }
    }
}

/// A name of one of our domains.
async fn within(agent: &Agent, zones: &Zones, query: &Asked, domain: &Name, metadata: &mut Metadata) -> Sections {
    metadata.authoritative = true;
    let config = agent.config.load_full();
    let subject = subject(agent, &config.dns, query, domain);
    let found = async {
        let mut sections = resolved(agent, &subject).await?;
        alias::follow(agent, zones, &config.dns, query.query_type, &mut sections).await?;
        Ok(sections)
    };
    match with_limit(&query.name, found).await {
        Ok(sections) => sections,
        Err(ResponseCode::NXDomain) => subject.absent(),
        Err(code) => Sections { code: Some(code), ..Sections::default() },
    }
}

/// What the catalog says of a name.
pub(super) async fn resolved(agent: &Agent, subject: &Subject<'_>) -> Result<Sections, Refusal> {
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
                Answer::CheckServiceNodes(rows) => Ok(subject.service(service.as_str(), &rows, &*agent.rng)),
                _ => Err(unexpected()),
            }
        }
        Some(Wanted::Virtual(name)) => {
            let Ok(service) = ServiceName::try_from(name) else { return Ok(subject.absent()) };
            match ask(agent, Query::VirtualAddress(service)).await? {
                Answer::VirtualAddress(Some(row)) if matches!(subject.kind, RecordType::A | RecordType::ANY) => {
                    Ok(subject.address(row.address().into()))
                }
                Answer::VirtualAddress(_) => Ok(subject.no_data()),
                _ => Err(unexpected()),
            }
        }
        Some(Wanted::Ingress(name)) => {
            let Ok(service) = ServiceName::try_from(name) else { return Ok(subject.absent()) };
            let query = ServiceQuery::all(service.clone());
            match ask(agent, Query::HealthIngress(query)).await? {
                Answer::CheckServiceNodes(rows) => Ok(subject.service(service.as_str(), &rows, &*agent.rng)),
                _ => Err(unexpected()),
            }
        }
        Some(Wanted::Query(name)) => query(agent, subject, name).await,
    }
}

/// What a prepared query finds, in the order that it asks for.
async fn query(agent: &Agent, subject: &Subject<'_>, name: String) -> Result<Sections, Refusal> {
    let execute = PreparedQueryExecute { name, connect: false };
    match ask(agent, Query::PreparedQueryExecute(execute)).await {
        Ok(Answer::PreparedQueryFound(mut found)) => {
            arrange(agent, &mut found, None, 0);
            let ttl = duration::parse(&found.dns.ttl).ok().filter(|_| !found.dns.ttl.is_empty());
            Ok(subject.found(&found.service.service, found.rows.iter().collect(), ttl))
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
        .iter()
        .filter_map(|row| Some((row.node.name.as_str().to_owned(), row.node.address.parse().ok()?)))
        .collect();
    for last in (1..servers.len()).rev() {
        servers.swap(last, agent.rng.below(last as u64 + 1) as usize);
    }
    servers.truncate(NAME_SERVERS_MAX);
    Ok(servers)
}

async fn ask(agent: &Agent, query: Query) -> Result<Answer, Refusal> {
    let config = agent.config.load();
    let token = agent.tokens.dns();
    let asked = |consistency, query| agent.datacenter.read(&token, query, Freshness { consistency, block: None });
    if !config.dns.allow_stale {
        return Ok(asked(Consistency::Default, query).await?.answer);
    }
    let read = asked(Consistency::Stale, query.clone()).await?;
    if Duration::from_millis(read.last_contact_millis) <= config.dns.max_stale {
        return Ok(read.answer);
    }
    Ok(asked(Consistency::Default, query).await?.answer)
}

fn unexpected() -> Refusal {
    Refusal::failed("the server answered another question than was asked; are all servers of one release?")
}
