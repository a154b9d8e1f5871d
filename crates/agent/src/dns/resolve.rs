//! From a packet to its answer: checks the question, asks the waist, and has the answer made.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use lictor_types::prepared_query::PreparedQueryExecute;
use lictor_types::query::ServiceQuery;
use lictor_types::refusal::RefusalKind;
use lictor_types::{
    Answer, CheckServiceNode, Consistency, Credential, Freshness, NodeName, Query, Refusal, Rows, ServiceName, duration,
};
use tokio::time::Instant;

use super::answer::{Sections, Subject};
use super::door::{Door, Shared};
use super::kept::Terms;
use super::name::{Question, Wanted, WantedService, pointer};
use super::packet::{self, HEADER_BYTES};
use super::size::{Room, Style, encode, fit};
use super::{alias, recurse};
use crate::agent::Agent;
use crate::config::{Config, DnsConfig};
use crate::prepared_query::arrange;

/// How long a question may take; resolvers have given up by then.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// Name servers in an answer.
const NAME_SERVERS_MAX: usize = 3;
/// The service that every server is an instance of.
const SERVERS: &str = "consul";

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

impl Transport {
    /// How much may be sent to an asker that can take `payload` bytes, if it said so.
    pub(super) fn room(self, payload: Option<u16>, settings: &DnsConfig) -> Room {
        match self {
            Self::Tcp => Room::TCP,
            Self::Udp => Room::udp(payload, settings.udp_answer_limit),
        }
    }
}

/// Who asks the waist for one question, and how: the same to the end of it, whatever is replaced meanwhile.
pub(super) struct Asking<'a> {
    pub(super) agent: &'a Agent,
    config: Arc<Config>,
    token: Credential,
    /// Who asks, as far as that matters to the answer.
    client: Option<IpAddr>,
}

impl<'a> Asking<'a> {
    /// As the configuration in force says.
    pub(super) fn of(agent: &'a Agent) -> Self {
        Self { agent, config: agent.config.load_full(), token: agent.tokens.dns(), client: None }
    }

    /// Under the terms that an answer is kept by.
    pub(super) fn under(agent: &'a Agent, terms: &Terms) -> Self {
        Self { agent, config: terms.config.clone(), token: terms.token.clone(), client: None }
    }

    pub(super) fn settings(&self) -> &DnsConfig {
        &self.config.dns
    }

    /// What an answer to `query` is about.
    pub(super) fn subject<'s>(&'s self, query: &'s Asked, domain: &'s Name) -> Subject<'s> {
        Subject {
            name: &query.name,
            domain,
            kind: query.query_type,
            datacenter: &self.agent.identity.datacenter,
            settings: self.settings(),
            now_seconds: self.agent.clock.unix_millis() / 1000,
        }
    }

    pub(super) async fn ask(&self, query: Query) -> Result<Answer, Refusal> {
        let asked =
            |consistency, query| self.agent.datacenter.read(&self.token, query, Freshness { consistency, block: None });
        if !self.settings().allow_stale {
            return Ok(asked(Consistency::Default, query).await?.answer);
        }
        let read = asked(Consistency::Stale, query.clone()).await?;
        if Duration::from_millis(read.last_contact_millis) <= self.settings().max_stale {
            return Ok(read.answer);
        }
        Ok(asked(Consistency::Default, query).await?.answer)
    }
}

/// The reply to a packet; none for one that must not be answered.
pub(super) async fn reply(
    door: &Arc<Door>,
    packet: &[u8],
    transport: Transport,
    from: Option<IpAddr>,
) -> Option<Vec<u8>> {
    let begin = Instant::now();
    let agent = &*door.agent;
    let shared = match packet::read(packet) {
        Some(asked) => door.shared(&asked, transport).await,
        None => None,
    };
    let shared = match shared {
        Some(Shared::Written(bytes)) => {
            agent.figures.dns.took(begin.elapsed());
            return Some(bytes);
        }
        Some(Shared::Sections(sections)) => Some(sections),
        None => None,
    };
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
    let subnet = request.edns.as_ref().and_then(client_subnet);
    let asking = Asking { client: subnet.map(|subnet| subnet.addr()).or(from), ..Asking::of(agent) };
    let dns = asking.settings();
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = !dns.recursors.is_empty();
    // Many questions are none, and to repeat them could take more room than the asker has.
    if let [only] = request.queries.as_slice() {
        response.queries.push(only.clone());
    }
    response.edns = request.edns.as_ref().map(echoed);
    let sections = match (shared, refused(&request)) {
        (Some(sections), None) => {
            response.metadata.authoritative = true;
            sections
        }
        (_, Some(code)) => Sections { code: Some(code), ..Sections::default() },
        (None, None) => match sections(&asking, door, &request, transport, &mut response.metadata).await {
            Found::Ours(sections) => sections,
            Found::Elsewhere(answer) => return encode(&answer, true).ok(),
        },
    };
    if let (Some(subnet), Some(edns)) = (subnet, &mut response.edns) {
        let scope = if sections.for_client { subnet.source_prefix() } else { 0 };
        let told = ClientSubnet::new(subnet.addr(), subnet.source_prefix(), scope);
        edns.options_mut().insert(EdnsOption::Subnet(told));
    }
    response.metadata.response_code = sections.code.unwrap_or(ResponseCode::NoError);
    response.answers = sections.answers;
    response.authorities = sections.authorities;
    response.additionals = sections.additionals;
    let is_reverse = request.queries.first().is_some_and(|query| query.query_type == RecordType::PTR);
    let figure = if is_reverse { &agent.figures.dns_reverse } else { &agent.figures.dns };
    figure.took(begin.elapsed());
    let room = transport.room(request.edns.as_ref().map(Edns::max_payload), dns);
    match fit(response, room, Style::of(dns)) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            tracing::warn!(%error, "a DNS answer cannot be encoded");
            let mut failed = Message::error_msg(request.metadata.id, OpCode::Query, ResponseCode::ServFail);
            failed.queries = request.queries;
            failed.to_vec().ok()
        }
    }
}

/// The subnet that a resolver asks for.
fn client_subnet(edns: &Edns) -> Option<ClientSubnet> {
    match edns.option(EdnsCode::Subnet) {
        Some(EdnsOption::Subnet(subnet)) => Some(*subnet),
        _ => None,
    }
}

/// What we say of EDNS to a client that spoke of it: its own size.
fn echoed(edns: &Edns) -> Edns {
    let mut echoed = Edns::new();
    echoed.set_max_payload(edns.max_payload());
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
    asking: &Asking<'_>,
    door: &Door,
    request: &Message,
    transport: Transport,
    metadata: &mut Metadata,
) -> Found {
    let only = |code| Sections { code: Some(code), ..Sections::default() };
    let Some(query) = request.queries.first() else { return Found::Ours(only(ResponseCode::FormErr)) };
    let zones = &door.zones;
    let Some(domain) = zones.holding(&query.name) else {
        return elsewhere(asking, door, request, transport, metadata).await;
    };
    Found::Ours(within(asking, zones, query, domain, metadata).await)
}

/// A name of another domain.
async fn elsewhere(
    asking: &Asking<'_>,
    door: &Door,
    request: &Message,
    transport: Transport,
    metadata: &mut Metadata,
) -> Found {
    let zones = &door.zones;
    let code = |code| Found::Ours(Sections { code: Some(code), ..Sections::default() });
    let Some(query) = request.queries.first() else { return code(ResponseCode::FormErr) };
    let recursors = !asking.settings().recursors.is_empty();
    if query.query_type == RecordType::PTR
        && let (Some(address), Some(domain)) = (pointer(&query.name), zones.own.last())
    {
        match with_limit(&query.name, pointers(asking, query, domain, address)).await {
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
    match recurse::forward(asking.settings(), &*asking.agent.rng, request, transport, &door.passed_on).await {
        Some(answer) => Found::Elsewhere(Box::new(answer)),
        None => code(ResponseCode::ServFail),
    }
}

/// What has this address.
async fn pointers(asking: &Asking<'_>, query: &Asked, domain: &Name, address: IpAddr) -> Result<Sections, Refusal> {
    let subject = asking.subject(query, domain);
    match asking.ask(Query::AddressNames(address.to_string())).await? {
        Answer::AddressNames(names) => Ok(subject.pointers(&names)),
        _ => Err(unexpected()),
    }
}

/// What is found within the time that a question has; else why not, as the code of an answer.
pub(super) async fn with_limit<T>(
    name: &Name,
    found: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, ResponseCode> {
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
async fn within(asking: &Asking<'_>, zones: &Zones, query: &Asked, domain: &Name, metadata: &mut Metadata) -> Sections {
    metadata.authoritative = true;
    let subject = asking.subject(query, domain);
    let found = async {
        let mut sections = resolved(asking, &subject).await?;
        alias::follow(asking, zones, query.query_type, &mut sections).await?;
        Ok(sections)
    };
    match with_limit(&query.name, found).await {
        Ok(sections) => sections,
        Err(ResponseCode::NXDomain) => subject.absent(),
        Err(code) => Sections { code: Some(code), ..Sections::default() },
    }
}

/// What the catalog says of a name.
pub(super) async fn resolved(asking: &Asking<'_>, subject: &Subject<'_>) -> Result<Sections, Refusal> {
    if matches!(subject.kind, RecordType::SOA | RecordType::NS) {
        return Ok(subject.zone(&name_servers(asking).await?));
    }
    let Some(wanted) = wanted(subject) else { return Ok(subject.absent()) };
    match wanted {
        Wanted::Address(address) => Ok(subject.address(address)),
        Wanted::Query(name) => query(asking, subject, name).await,
        Wanted::Service(_) | Wanted::Ingress(_) => match instances(asking, &wanted).await? {
            Some((service, rows)) => Ok(subject.service(service.as_str(), &rows, &*asking.agent.rng)),
            None => Ok(subject.absent()),
        },
        Wanted::Node(name) => node(asking, subject, name).await,
        Wanted::Virtual(name) => virtual_address(asking, subject, name).await,
    }
}

/// What a name of ours asks for, if that is in this datacenter.
pub(super) fn wanted(subject: &Subject<'_>) -> Option<Wanted> {
    let Question { wanted, datacenter } = Question::parse(subject.name, subject.domain, subject.kind);
    let is_here = datacenter.is_none_or(|datacenter| datacenter.eq_ignore_ascii_case(subject.datacenter));
    wanted.filter(|_| is_here)
}

/// The instances of a service that is asked for; none for a name that no service can have.
pub(super) async fn instances(
    asking: &Asking<'_>,
    wanted: &Wanted,
) -> Result<Option<(ServiceName, Rows<CheckServiceNode>)>, Refusal> {
    let named = |name: &str| name.parse::<ServiceName>().ok();
    let (service, query) = match wanted {
        Wanted::Service(WantedService { name, tag, connect }) => {
            let Some(service) = named(name) else { return Ok(None) };
            let tags = tag.iter().cloned().collect();
            let query = ServiceQuery { tags, connect: *connect, ..ServiceQuery::all(service.clone()) };
            (service, Query::HealthService(query))
        }
        Wanted::Ingress(name) => {
            let Some(service) = named(name) else { return Ok(None) };
            (service.clone(), Query::HealthIngress(ServiceQuery::all(service)))
        }
        _ => return Ok(None),
    };
    match asking.ask(query).await? {
        Answer::CheckServiceNodes(rows) => Ok(Some((service, rows))),
        _ => Err(unexpected()),
    }
}

async fn node(asking: &Asking<'_>, subject: &Subject<'_>, name: String) -> Result<Sections, Refusal> {
    let Ok(name) = NodeName::try_from(name) else { return Ok(subject.absent()) };
    match asking.ask(Query::Node(name)).await? {
        Answer::Node(Some(node)) => Ok(subject.node(&node)),
        Answer::Node(None) => Ok(subject.absent()),
        _ => Err(unexpected()),
    }
}

async fn virtual_address(asking: &Asking<'_>, subject: &Subject<'_>, name: String) -> Result<Sections, Refusal> {
    let Ok(service) = ServiceName::try_from(name) else { return Ok(subject.absent()) };
    match asking.ask(Query::VirtualAddress(service)).await? {
        Answer::VirtualAddress(Some(row)) if matches!(subject.kind, RecordType::A | RecordType::ANY) => {
            Ok(subject.address(row.address().into()))
        }
        Answer::VirtualAddress(_) => Ok(subject.no_data()),
        _ => Err(unexpected()),
    }
}

/// What a prepared query finds, in the order that it asks for.
async fn query(asking: &Asking<'_>, subject: &Subject<'_>, name: String) -> Result<Sections, Refusal> {
    let own = asking.agent.identity.node_name.to_string();
    let client = asking.client.map(|address| address.to_string());
    let execute = PreparedQueryExecute { agent: Some(own), client, ..PreparedQueryExecute::of(name) };
    match asking.ask(Query::PreparedQueryExecute(execute)).await {
        Ok(Answer::PreparedQueryFound(mut found)) => {
            arrange(&*asking.agent.rng, &mut found, 0);
            let ttl = duration::parse(&found.dns.ttl).ok().filter(|_| !found.dns.ttl.is_empty());
            let sections = subject.found(&found.service.service, found.rows.iter().collect(), ttl);
            Ok(Sections { for_client: true, ..sections })
        }
        Ok(_) => Err(unexpected()),
        Err(refusal) if refusal.kind == RefusalKind::NotFound => Ok(subject.absent()),
        Err(refusal) => Err(refusal),
    }
}

async fn name_servers(asking: &Asking<'_>) -> Result<Vec<(String, IpAddr)>, Refusal> {
    let Ok(service) = SERVERS.parse::<ServiceName>() else { return Ok(Vec::new()) };
    let query = Query::HealthService(ServiceQuery::all(service));
    let Answer::CheckServiceNodes(rows) = asking.ask(query).await? else {
        return Err(unexpected());
    };
    let mut servers: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row.node.name.as_str().to_owned(), row.node.address.parse().ok()?)))
        .collect();
    for last in (1..servers.len()).rev() {
        servers.swap(last, asking.agent.rng.below(last as u64 + 1) as usize);
    }
    servers.truncate(NAME_SERVERS_MAX);
    Ok(servers)
}

fn unexpected() -> Refusal {
    Refusal::failed("the server answered another question than was asked; are all servers of one release?")
}
