//! Questions and their answers, in front of a double of the waist.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use lictor_runtime::{Rng, Tasks};
use lictor_types::query::AddressNames;
use lictor_types::service::Weights;
use lictor_types::{Answer, CheckServiceNode, CheckStatus, HealthCheck, Index, Node, NodeService, Query, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::door::Door as OneDoor;
use super::resolve::{Transport, reply};
use super::{DnsListener, serve};
use crate::http::double::{Double, agent, at};
use crate::testing::{one_of, random_bytes, random_cases};

fn node(name: &str, address: &str) -> Node {
    Node {
        id: String::new(),
        name: name.parse().unwrap(),
        address: address.into(),
        datacenter: "dc1".into(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::from([("rack".to_owned(), "r=1".to_owned())]),
        create_index: Index(1),
        modify_index: Index(1),
        locality: None,
    }
}

/// An instance of `web` on a node, with its own address unless that is empty.
pub(super) fn row(name: &str, node_address: &str, own: &str, status: CheckStatus) -> CheckServiceNode {
    CheckServiceNode {
        node: node(name, node_address),
        service: NodeService {
            address: own.into(),
            port: 80,
            weights: Weights { passing: 3, warning: 2 },
            create_index: Index(1),
            modify_index: Index(1),
            ..NodeService::new("web".parse().unwrap())
        },
        checks: vec![HealthCheck::new("c".parse().unwrap(), "c", status, "")],
    }
}

struct Door {
    double: Arc<Double>,
    fragment: &'static str,
}

impl Door {
    fn with(answer: Answer) -> Self {
        Self { double: Double::answering(at(5, answer)), fragment: "" }
    }

    fn of_instances(rows: Vec<CheckServiceNode>) -> Self {
        Self::with(Answer::CheckServiceNodes(rows.into()))
    }

    async fn send(&self, request: &Message, transport: Transport) -> Message {
        let agent = agent(&self.double, self.fragment);
        let bytes = reply(&OneDoor::of(&agent, ""), &request.to_vec().unwrap(), transport, None).await.unwrap();
        Message::from_vec(&bytes).unwrap()
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.send(&question(name, kind), Transport::Udp).await
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut request = Message::new(77, MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(Asked::query(Name::from_ascii(name).unwrap(), kind));
    request
}

/// Records as `name type data`, in order of their text.
fn texts(records: &[Record]) -> Vec<String> {
    let mut texts: Vec<String> =
        records.iter().map(|record| format!("{} {} {}", record.name, record.record_type(), record.data)).collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn instances_are_answered_without_the_critical_ones() {
    let door = Door::of_instances(vec![
        row("a", "10.0.0.1", "", CheckStatus::Passing),
        row("b", "10.0.0.2", "10.9.0.2", CheckStatus::Warning),
        row("c", "10.0.0.3", "", CheckStatus::Critical),
        row("d", "10.0.0.4", "10.0.0.1", CheckStatus::Passing),
    ]);
    let got = door.ask("Web.service.consul.", RecordType::A).await;
    assert_eq!(texts(&got.answers), ["Web.service.consul. A 10.0.0.1", "Web.service.consul. A 10.9.0.2"]);
    assert!(got.metadata.authoritative && got.metadata.recursion_desired && !got.metadata.recursion_available);
    assert_eq!((got.metadata.id, got.answers[0].ttl), (77, 0));
    let strict =
        Door { fragment: "dns_config {\n only_passing = true\n service_ttl = { \"w*\" = \"9s\" }\n}\n", ..door };
    let got = strict.ask("web.service.consul.", RecordType::A).await;
    assert_eq!((texts(&got.answers).len(), got.answers[0].ttl), (1, 9));
    let Query::HealthService(asked) = &strict.double.asked.lock().reads[0].1 else { panic!("not a service query") };
    assert_eq!(asked.service.as_str(), "web");
}

#[tokio::test]
async fn locations_name_the_node_or_the_address_and_bring_the_address_along() {
    let door = Door::of_instances(vec![
        row("a.b", "10.0.0.1", "", CheckStatus::Passing),
        row("b", "10.0.0.2", "10.9.0.2", CheckStatus::Warning),
        row("c", "10.0.0.3", "db.example.com", CheckStatus::Passing),
    ]);
    let got = door.ask("_web._tcp.service.consul.", RecordType::SRV).await;
    assert_eq!(
        texts(&got.answers),
        [
            "_web._tcp.service.consul. SRV 1 2 80 0a090002.addr.dc1.consul.",
            "_web._tcp.service.consul. SRV 1 3 80 a.b.node.dc1.consul.",
            "_web._tcp.service.consul. SRV 1 3 80 db.example.com.",
        ]
    );
    assert_eq!(texts(&got.additionals), ["0a090002.addr.dc1.consul. A 10.9.0.2", "a.b.node.dc1.consul. A 10.0.0.1"]);
    let got = door.ask("v1.web.service.consul.", RecordType::A).await;
    assert!(got.answers.len() >= 2, "{got:?}");
    let Query::HealthService(asked) = door.double.asked.lock().reads.pop().unwrap().1 else { panic!("another query") };
    assert_eq!(asked.tags, ["v1"]);
}

#[tokio::test]
async fn names_that_are_not_there_and_types_that_are_not_there_differ() {
    let nobody = Door::of_instances(vec![row("c", "10.0.0.3", "", CheckStatus::Critical)]);
    for name in ["web.service.consul.", "web.service.dc9.consul.", "consul.", "x.y.consul."] {
        let got = nobody.ask(name, RecordType::A).await;
        assert_eq!(got.metadata.response_code, ResponseCode::NXDomain, "{name}");
        assert!(got.answers.is_empty() && got.authorities[0].record_type() == RecordType::SOA, "{name}");
    }
    let door = Door::of_instances(vec![row("a", "10.0.0.1", "", CheckStatus::Passing)]);
    let got = door.ask("web.service.consul.", RecordType::AAAA).await;
    assert_eq!((got.metadata.response_code, got.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(got.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(door.ask("web.example.com.", RecordType::A).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(door.ask("web.service.consul.", RecordType::AXFR).await.metadata.response_code, ResponseCode::NotImp);
}

#[tokio::test]
async fn a_node_brings_its_meta_along() {
    let door = Door::with(Answer::Node(Some(node("a", "10.0.0.1"))));
    let got = door.ask("a.node.consul.", RecordType::A).await;
    assert_eq!(texts(&got.answers), ["a.node.consul. A 10.0.0.1"]);
    assert_eq!(texts(&got.additionals), ["a.node.consul. TXT rack=r=1"]);
    let text = door.ask("a.node.dc1.consul.", RecordType::TXT).await;
    assert_eq!(texts(&text.answers), ["a.node.dc1.consul. TXT rack=r=1"]);
    let none = door.ask("a.node.consul.", RecordType::AAAA).await;
    assert_eq!(
        (none.metadata.response_code, none.answers.len(), none.authorities.len()),
        (ResponseCode::NoError, 0, 0)
    );
    let all = door.ask("a.node.consul.", RecordType::ANY).await;
    assert_eq!(all.answers.len(), 2);
    let alias = Door::with(Answer::Node(Some(node("a", "host.example.com"))));
    let got = alias.ask("a.node.consul.", RecordType::A).await;
    assert_eq!(texts(&got.answers), ["a.node.consul. CNAME host.example.com."]);
    let absent = Door::with(Answer::Node(None)).ask("zz.node.consul.", RecordType::A).await;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    let hex = door.ask("0a000001.addr.dc1.consul.", RecordType::A).await;
    assert_eq!(texts(&hex.answers), ["0a000001.addr.dc1.consul. A 10.0.0.1"]);
}

#[tokio::test]
async fn the_zone_names_its_servers() {
    let door = Door::of_instances(vec![row("s1", "10.0.0.1", "", CheckStatus::Passing)]);
    let got = door.ask("anything.consul.", RecordType::SOA).await;
    let RData::SOA(soa) = &got.answers[0].data else { panic!("{got:?}") };
    assert_eq!((soa.mname.to_string().as_str(), soa.refresh, soa.minimum), ("ns.consul.", 3600, 0));
    assert_eq!(texts(&got.authorities), ["consul. NS s1.node.dc1.consul."]);
    assert_eq!(texts(&got.additionals), ["s1.node.dc1.consul. A 10.0.0.1"]);
    let got = door.ask("consul.", RecordType::NS).await;
    assert_eq!(texts(&got.answers), ["consul. NS s1.node.dc1.consul."]);
}

#[tokio::test]
async fn a_small_reply_has_few_answers_and_a_large_one_all() {
    let rows = (1..=20).map(|n| row(&format!("n{n}"), &format!("10.0.0.{n}"), "", CheckStatus::Passing)).collect();
    let door = Door { fragment: "dns_config {\n enable_truncate = true\n}\n", ..Door::of_instances(rows) };
    let plain = door.ask("web.service.consul.", RecordType::A).await;
    assert_eq!((plain.answers.len(), plain.metadata.truncation), (3, true));
    let mut wide = question("web.service.consul.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    wide.set_edns(edns);
    let got = door.send(&wide, Transport::Udp).await;
    assert_eq!((got.answers.len(), got.metadata.truncation), (20, false));
    assert_eq!(got.edns.unwrap().max_payload(), 1232);
    assert_eq!(door.send(&question("web.service.consul.", RecordType::A), Transport::Tcp).await.answers.len(), 20);
}

#[tokio::test]
async fn what_goes_wrong_has_its_code() {
    let door = Door { double: Double::answering(Err(Refusal::no_leader())), fragment: "" };
    let code = |message: Message| message.metadata.response_code;
    assert_eq!(code(door.ask("web.service.consul.", RecordType::A).await), ResponseCode::ServFail);
    *door.double.reads.lock() = vec![Err(Refusal::acl_not_found())];
    assert_eq!(code(door.ask("web.service.consul.", RecordType::A).await), ResponseCode::NXDomain);
    let agent = agent(&door.double, "");
    let one = OneDoor::of(&agent, "");
    let mut cut = question("web.service.consul.", RecordType::A).to_vec().unwrap();
    cut.truncate(20);
    let answered = reply(&one, &cut, Transport::Udp, None).await.unwrap();
    assert_eq!(code(Message::from_vec(&answered).unwrap()), ResponseCode::FormErr);
    assert_eq!(reply(&one, &cut[..11], Transport::Udp, None).await, None);
    let response = Message::response(1, OpCode::Query).to_vec().unwrap();
    assert_eq!(reply(&one, &response, Transport::Udp, None).await, None);
    let mut two = question("a.node.consul.", RecordType::A);
    two.add_query(Asked::query(Name::from_ascii("b.node.consul.").unwrap(), RecordType::A));
    assert_eq!(code(door.send(&two, Transport::Udp).await), ResponseCode::FormErr);
}

#[tokio::test]
async fn both_transports_answer_on_one_port() {
    let tasks = Tasks::new();
    let double = Double::answering(at(5, Answer::Node(Some(node("a", "10.0.0.1")))));
    let listener = DnsListener::bind(([127, 0, 0, 1], 0).into(), 2).await.unwrap();
    let address = listener.local_address().unwrap();
    assert!(DnsListener::bind(address, 1).await.is_err(), "a port in use was taken twice");
    serve(vec![listener], &agent(&double, ""), &tasks);
    let request = question("a.node.consul.", RecordType::A).to_vec().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&request, address).await.unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(texts(&Message::from_vec(&buffer[..length]).unwrap().answers), ["a.node.consul. A 10.0.0.1"]);
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        stream.write_u16(request.len() as u16).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(Message::from_vec(&bytes).unwrap().answers.len(), 1);
    }
    assert!(tasks.stop(Duration::from_secs(5)).await);
}

/// A message that is nearly right: labels of our words and of others, any kind, any flags, and then some bytes changed.
fn nearly_a_question(rng: &dyn Rng) -> Vec<u8> {
    const WORDS: [&[u8]; 14] = [
        b"web",
        b"service",
        b"consul",
        b"node",
        b"query",
        b"addr",
        b"connect",
        b"virtual",
        b"dc1",
        b"_tcp",
        b"_web",
        b"0a000001",
        b"\xff\xfe",
        b"in-addr",
    ];
    let mut bytes = vec![0; 4];
    rng.fill(&mut bytes);
    bytes[2] &= 0b0000_0001;
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, rng.below(2) as u8]);
    for _ in 0..rng.below(8) {
        let word = one_of(rng, &WORDS);
        bytes.push(word.len() as u8);
        bytes.extend_from_slice(word);
    }
    if rng.below(4) > 0 {
        bytes.extend_from_slice(b"\x06consul");
    }
    bytes.push(0);
    bytes.extend_from_slice(&[0, one_of(rng, &[&1_u8, &2, &5, &6, &12, &16, &28, &33, &252, &255]).to_owned(), 0, 1]);
    if rng.below(2) == 0 {
        bytes.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 8, 0, 8, 0, 4, 0, 1, 24, 0]);
    }
    for _ in 0..rng.below(4) {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] = rng.next_u64() as u8;
    }
    bytes.truncate(bytes.len() - rng.below(6) as usize);
    bytes
}

/// Consul #3850: answers of more than 64 kB.
#[test]
fn no_packet_is_answered_with_more_than_its_room_or_ends_the_agent() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows = (1..=60).map(|n| row(&format!("n{n}"), &format!("10.0.0.{n}"), "", CheckStatus::Passing)).collect();
    let door = Door::of_instances(rows);
    runtime.block_on(async {
        let agent = agent(&door.double, "");
        let one = OneDoor::of(&agent, "search ns.svc.cluster.local");
        let mut answered = 0;
        random_cases(5_000, |rng| {
            let packet = if rng.below(5) == 0 { random_bytes(rng, 600) } else { nearly_a_question(rng) };
            let waker = std::task::Waker::noop();
            let mut reply = std::pin::pin!(reply(&one, &packet, Transport::Udp, None));
            // The double answers at once.
            let std::task::Poll::Ready(reply) = reply.as_mut().poll(&mut std::task::Context::from_waker(waker)) else {
                panic!("{packet:?} is not answered at once")
            };
            let Some(reply) = reply else { return };
            answered += 1;
            let room = match Message::from_vec(&packet) {
                Ok(request) => usize::from(request.edns.map_or(512, |edns| edns.max_payload().max(512))),
                Err(_) => 512,
            };
            assert!(reply.len() <= room, "{} bytes in room for {room}", reply.len());
            assert!(reply[2] & 0b1000_0000 != 0 && reply[..2] == packet[..2], "no answer to what was asked");
        });
        assert!(answered > 1000, "only {answered} were answered");
    });
}

/// Asks for a client of 198.51.100.0/24; for which clients the answer says that it is.
async fn ask_for_client(door: &Door, name: &str) -> ClientSubnet {
    let mut request = question(name, RecordType::A);
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new([198, 51, 100, 0].into(), 24, 0)));
    request.set_edns(edns);
    let edns = door.send(&request, Transport::Udp).await.edns.unwrap();
    match edns.option(EdnsCode::Subnet) {
        Some(EdnsOption::Subnet(subnet)) => *subnet,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_subnet_is_told_that_the_answer_is_the_same_for_all() {
    let door = Door::of_instances(vec![row("a", "10.0.0.1", "", CheckStatus::Passing)]);
    let subnet = ask_for_client(&door, "web.service.consul.").await;
    assert_eq!((subnet.source_prefix(), subnet.scope_prefix()), (24, 0));
}

#[tokio::test]
async fn what_a_resolver_appends_to_our_names_is_answered_at_once() {
    let door = Door::with(Answer::Node(None));
    for (search, fragment, name, code) in [
        ("", "", "web.service.consul.shop.svc.cluster.local.", ResponseCode::NXDomain),
        ("", "", "www.example.com.", ResponseCode::Refused),
        ("", "", "consul.example.com.", ResponseCode::Refused),
        (
            "search shop.svc.cluster.local svc.cluster.local\n",
            RECURSOR,
            "web.service.consul.svc.cluster.local.",
            ResponseCode::NXDomain,
        ),
        // Not one of the machine's domains: the recursors are asked, and this one is not there.
        ("search other.local\n", RECURSOR, "web.service.consul.svc.cluster.local.", ResponseCode::ServFail),
    ] {
        let agent = agent(&door.double, fragment);
        let request = question(name, RecordType::A).to_vec().unwrap();
        let bytes = reply(&OneDoor::of(&agent, search), &request, Transport::Udp, None).await.unwrap();
        assert_eq!(Message::from_vec(&bytes).unwrap().metadata.response_code, code, "{name} with {search:?}");
    }
    assert!(door.double.asked.lock().reads.is_empty());
}

const RECURSOR: &str = "recursors = [\"127.0.0.1:1\"]\ndns_config {\n recursor_timeout = \"200ms\"\n}\n";

#[tokio::test]
async fn an_answer_of_any_server_that_is_too_old_is_asked_for_again() {
    let read = |age, name: &str| {
        let read = at(5, Answer::Node(Some(node(name, "10.0.0.1")))).unwrap();
        Ok(lictor_types::Read { last_contact_millis: age, ..read })
    };
    let double = Double::answering(read(6000, "old"));
    *double.reads.lock() = vec![read(6000, "old"), read(0, "new")];
    let door = Door { double, fragment: "dns_config {\n max_stale = \"5s\"\n}\n" };
    assert_eq!(door.ask("a.node.consul.", RecordType::A).await.answers.len(), 1);
    let consistencies: Vec<_> = door.double.asked.lock().reads.iter().map(|read| read.2.consistency).collect();
    assert_eq!(consistencies, [lictor_types::Consistency::Stale, lictor_types::Consistency::Default]);
}

#[tokio::test]
async fn an_address_of_the_family_that_is_asked_for_is_chosen() {
    let mut both = row("a", "10.0.0.1", "10.9.0.1", CheckStatus::Passing);
    let six = lictor_types::service::ServiceAddress { address: "fd00::1".into(), port: 80 };
    both.service.tagged_addresses.insert("lan_ipv6".into(), six);
    let door = Door::of_instances(vec![both]);
    assert_eq!(
        texts(&door.ask("web.service.consul.", RecordType::AAAA).await.answers),
        ["web.service.consul. AAAA fd00::1"]
    );
    assert_eq!(
        texts(&door.ask("web.service.consul.", RecordType::A).await.answers),
        ["web.service.consul. A 10.9.0.1"]
    );
}

#[tokio::test]
async fn an_address_has_the_name_of_its_node() {
    let names = |nodes: &[&str], services: &[&str]| {
        Answer::AddressNames(AddressNames {
            nodes: nodes.iter().map(|name| name.parse().unwrap()).collect(),
            services: services.iter().map(|name| name.parse().unwrap()).collect(),
        })
    };
    let door = Door::with(names(&["a.b"], &["web"]));
    let got = door.ask("1.0.0.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(texts(&got.answers), ["1.0.0.10.in-addr.arpa. PTR a.b.node.dc1.consul."]);
    assert_eq!(door.double.asked.lock().reads.remove(0).1, Query::AddressNames("10.0.0.1".into()));
    let services = Door::with(names(&[], &["web", "db"])).ask("1.0.0.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(
        texts(&services.answers),
        ["1.0.0.10.in-addr.arpa. PTR db.service.dc1.consul.", "1.0.0.10.in-addr.arpa. PTR web.service.dc1.consul.",]
    );
    let none = Door::with(names(&[], &[])).ask("1.0.0.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn an_answer_that_is_of_a_client_is_told_to_be_of_its_subnet() {
    use lictor_types::prepared_query::{PreparedQueryFound, PreparedService, QueryDns};
    let found = PreparedQueryFound {
        service: PreparedService { service: "web".into(), ..PreparedService::default() },
        dns: QueryDns { ttl: "3s".into() },
        rows: vec![row("a", "10.0.0.1", "", CheckStatus::Passing)],
        origin: None,
        distances: None,
    };
    let door = Door::with(Answer::PreparedQueryFound(Box::new(found)));
    let subnet = ask_for_client(&door, "geo.query.consul.").await;
    assert_eq!((subnet.source_prefix(), subnet.scope_prefix()), (24, 24));
    let client = |door: &Door| match door.double.asked.lock().reads.pop().unwrap().1 {
        Query::PreparedQueryExecute(execute) => execute.client,
        other => panic!("another query: {other:?}"),
    };
    assert_eq!(client(&door).as_deref(), Some("198.51.100.0"));
    // Without a subnet it is whoever asks.
    let agent = agent(&door.double, "");
    let packet = question("geo.query.consul.", RecordType::A).to_vec().unwrap();
    reply(&OneDoor::of(&agent, ""), &packet, Transport::Udp, Some([10, 0, 0, 7].into())).await.unwrap();
    assert_eq!(client(&door).as_deref(), Some("10.0.0.7"));
}
