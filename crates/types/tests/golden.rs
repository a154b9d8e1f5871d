//! The bytes of every encoded type, pinned for ever: what a release wrote, every later one reads.
//!
//! `golden/NAME.hex` holds the bytes of one value. Make new ones with `LICTOR_BLESS=1 cargo test -p lictor-types --test
//! golden`; an old one that changes is a broken promise to every disk out there.

#![allow(clippy::too_many_lines, reason = "one line per message")]
#![allow(clippy::unwrap_used, reason = "the whole file is a test; its names are legal or it fails")]

#[path = "golden/addresses.rs"]
mod addresses;
#[path = "golden/archive.rs"]
mod archive;
#[path = "golden/config_entries.rs"]
mod config_entries;
#[path = "golden/discovery_chain.rs"]
mod discovery_chain;
#[path = "golden/equality.rs"]
mod equality;
#[path = "golden/gossip.rs"]
mod gossip;
#[path = "golden/locks.rs"]
mod locks;
#[path = "golden/logins.rs"]
mod logins;
#[path = "golden/members.rs"]
mod members;
#[path = "golden/ports.rs"]
mod ports;
#[path = "golden/queries_and_events.rs"]
mod queries_and_events;
#[path = "golden/raft.rs"]
mod raft;
#[path = "golden/selection.rs"]
mod selection;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use lictor_types::authority::AuthorityRecord;
use lictor_types::command::{
    BoundedRegistration, ClusterIdentity, Deregistration, Effect, IntentionDelete, IntentionUpsert, IntentionsDelete,
    IntentionsSet, KvCommand, ServiceClaim,
};
use lictor_types::query::{IntentionMatch, IntentionQuery, KeysQuery, ServiceQuery, StateQuery};
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{
    CreateJoinToken, Login, LoginGrant, LoginHello, LoginReply, Probe, RaftServer, ReadRequest, RelayedWrite, Request,
    RequestBody, Response, ServerAddress, SignLeaf, Status, WriteRequest,
};
use lictor_types::service::NodeServices;
use lictor_types::token::JoinToken;
use lictor_types::{
    Action, Answer, Block, CaRoot, CaRoots, CheckServiceNode, CheckStatus, Command, Consistency, Credential, Envelope,
    Freshness, HealthCheck, Index, Intention, KvEntry, KvVerb, LeafCertificate, Member, MemberStatus, Node,
    NodeService, Operation, Outcome, Query, Read, Refusal, Registration, Report, Requirement, Resource, Rows,
    ServiceIntentions, ServiceNode, SourceIntention, Timestamp, Token, encoding,
};
use minicbor::{Decode, Encode};

fn check<T>(name: &str, value: T)
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.hex"));
    let bytes = encoding::encode(&value);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if std::env::var_os("LICTOR_BLESS").is_some() && !path.exists() {
        fs::write(&path, format!("{hex}\n")).expect("a golden file");
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let stored: Vec<u8> = (0..golden.trim().len() / 2)
        .map(|at| u8::from_str_radix(&golden[2 * at..2 * at + 2], 16).expect("hex"))
        .collect();
    let read: T = encoding::decode(&stored).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read, value, "{name}: what was written then is read as something else now");
    assert_eq!(hex, golden.trim(), "{name}: the bytes have changed");
}

fn pairs() -> BTreeMap<String, String> {
    BTreeMap::from([("k8s-node".to_owned(), "n1".to_owned())])
}

fn node() -> Node {
    Node {
        id: "0e3c2b8e-4f0c-4a83-9a34-2f1f6f0d7c11".into(),
        name: "web-1.apps".parse().unwrap(),
        address: "10.244.0.17".into(),
        datacenter: "dc1".into(),
        tagged_addresses: BTreeMap::from([("lan".into(), "10.244.0.17".into())]),
        meta: pairs(),
        create_index: Index(3),
        modify_index: Index(9),
        locality: None,
    }
}

fn service() -> NodeService {
    NodeService {
        id: Some("web".parse().unwrap()),
        tags: vec!["v2".into()],
        address: "10.244.0.17".into(),
        port: 8080,
        meta: pairs(),
        ..NodeService::new("web".parse().unwrap())
    }
}

fn health_check() -> HealthCheck {
    let mut check =
        HealthCheck::new("service:web".parse().unwrap(), "Service 'web' check", CheckStatus::Warning, "slow");
    check.service_id = "web".into();
    check.kind = "http".into();
    check.definition.http = "http://127.0.0.1:8080/healthz".into();
    check.definition.interval = "10s".into();
    check
}

fn source() -> SourceIntention {
    SourceIntention {
        name: "web".into(),
        action: Action::Deny,
        precedence: 9,
        kind: SourceIntention::consul_type(),
        description: "not today".into(),
        created_at: Timestamp(1),
        updated_at: Timestamp(2),
    }
}

fn intentions() -> ServiceIntentions {
    ServiceIntentions {
        kind: ServiceIntentions::KIND.into(),
        name: "api".into(),
        sources: vec![source()],
        meta: pairs(),
        create_index: Index(4),
        modify_index: Index(5),
    }
}

fn root() -> CaRoot {
    CaRoot {
        id: "aa:bb".into(),
        name: "root".into(),
        serial_number: 7,
        signing_key_id: "cc:dd".into(),
        external_trust_domain: String::new(),
        not_before: "2026-11-22T17:05:00Z".into(),
        not_after: "2036-11-22T17:05:00Z".into(),
        root_cert: "-----BEGIN CERTIFICATE-----".into(),
        intermediate_certs: Some(vec!["-----BEGIN CERTIFICATE-----".into()]),
        active: true,
        private_key_type: "ec".into(),
        private_key_bits: 256,
        create_index: Index(1),
        modify_index: Index(2),
    }
}

fn refusal() -> Refusal {
    Refusal::new(RefusalKind::Forbidden, "Permission denied: no")
}

fn registration() -> Registration {
    Registration {
        id: "0e3c2b8e-4f0c-4a83-9a34-2f1f6f0d7c11".into(),
        node: "web-1.apps".parse().unwrap(),
        address: "10.244.0.17".into(),
        datacenter: "dc1".into(),
        tagged_addresses: BTreeMap::new(),
        node_meta: pairs(),
        service: Some(service()),
        check: Some(health_check()),
        checks: vec![health_check()],
        skip_node_update: true,
        locality: None,
    }
}

fn commands() -> Vec<(&'static str, Command)> {
    let kv = |verb| Command::Kv(KvCommand { verb, key: "a/b".into(), value: vec![0, 255], flags: 42 });
    vec![
        ("register", Command::Register(Box::new(registration()))),
        (
            "register-within",
            Command::RegisterWithin(Box::new(BoundedRegistration {
                registration: registration(),
                granted: vec![Requirement::write(Resource::Node, "web-1.apps")],
            })),
        ),
        (
            "deregister",
            Command::Deregister(Deregistration {
                node: "web-1.apps".parse().unwrap(),
                service_id: Some("web".parse().unwrap()),
                check_id: Some("service:web".parse().unwrap()),
                authorized_service: Some("web".into()),
            }),
        ),
        ("kv-set", kv(KvVerb::Set)),
        ("kv-cas", kv(KvVerb::Cas(Index(7)))),
        ("kv-delete", kv(KvVerb::Delete)),
        ("kv-delete-cas", kv(KvVerb::DeleteCas(Index(8)))),
        ("kv-delete-tree", kv(KvVerb::DeleteTree)),
        ("intentions-set", Command::IntentionsSet(IntentionsSet { entry: intentions(), cas: Some(Index(3)) })),
        ("intentions-delete", Command::IntentionsDelete(IntentionsDelete { name: "api".into(), cas: None })),
        ("intention-upsert", Command::IntentionUpsert(IntentionUpsert { destination: "api".into(), source: source() })),
        (
            "intention-delete",
            Command::IntentionDelete(IntentionDelete { destination: "api".into(), source: "web".into() }),
        ),
        (
            "token-set",
            Command::TokenSet(Token {
                accessor_id: "11111111-2222-3333-4444-555555555555".into(),
                lookup: [3; 32],
                sealed_secret: vec![1, 2, 3],
                description: "for web".into(),
                management: false,
                service_identities: vec!["web".into()],
                node_identities: vec!["web-1.apps".into()],
                create_time: Timestamp(5),
                expiration_time: Some(Timestamp(6)),
                create_index: Index(1),
                modify_index: Index(2),
                login_node: Some("web-1.apps".into()),
                login_node_id: None,
            }),
        ),
        ("token-delete", Command::TokenDelete("11111111-2222-3333-4444-555555555555".into())),
        (
            "join-token-set",
            Command::JoinTokenSet(JoinToken {
                lookup: [4; 32],
                services: vec!["web".into()],
                reusable: false,
                expiration_time: Timestamp(9),
                node: None,
            }),
        ),
        ("join-token-use", Command::JoinTokenUse([5; 32])),
        (
            "cluster-initialize",
            Command::ClusterInitialize(ClusterIdentity {
                cluster_id: "11111111-2222-3333-4444-555555555555".into(),
                seal_key_id: "ab12".into(),
            }),
        ),
        (
            "authority-initialize",
            Command::AuthorityInitialize(AuthorityRecord {
                trust_domain: "11111111-2222-3333-4444-555555555555.consul".into(),
                root: root(),
                intermediate_pem: "-----BEGIN CERTIFICATE-----".into(),
                sealed_root_key: vec![6],
                settings: None,
                sealed_intermediate_key: vec![7],
            }),
        ),
        ("service-claim", Command::ServiceClaim(ServiceClaim { service: "web".into(), namespace: "apps".into() })),
        ("server-removed", Command::ServerRemoved("7f1c1a3e-2d4b-4c1d-9a55-0e6f1d2c3b4a".into())),
    ]
}

#[test]
fn every_command_keeps_its_bytes() {
    for (name, command) in commands() {
        check(
            &format!("command-{name}"),
            Envelope { request_id: [9; 16], leader_time: Timestamp(1_795_367_100_123), command },
        );
    }
    let outcome = |effect| Outcome { index: Index(12), effect };
    check("outcome-applied", outcome(Effect::Applied));
    check("outcome-not-applied", outcome(Effect::NotApplied));
    check("outcome-refused", outcome(Effect::Refused(refusal())));
}

#[test]
fn every_query_and_answer_keeps_its_bytes() {
    let service_query = || ServiceQuery {
        service: "web".parse().unwrap(),
        tags: vec!["v2".into()],
        node_meta: pairs(),
        passing: true,
        connect: true,
    };
    let queries = [
        ("kv-get", Query::KvGet("a".into())),
        ("kv-list", Query::KvList("a/".into())),
        ("kv-keys", Query::KvKeys(KeysQuery { prefix: "a/".into(), separator: "/".into() })),
        ("nodes", Query::Nodes(pairs())),
        ("services", Query::Services(BTreeMap::new())),
        ("service-nodes", Query::ServiceNodes(service_query())),
        ("node-services", Query::NodeServices("n1".parse().unwrap())),
        ("health-service", Query::HealthService(service_query())),
        ("health-node", Query::HealthNode("n1".parse().unwrap())),
        ("health-checks", Query::HealthChecks(service_query())),
        ("health-state", Query::HealthState(StateQuery { state: "any".into(), node_meta: pairs() })),
        ("ca-roots", Query::CaRoots),
        ("intentions", Query::Intentions),
        ("intention-exact", Query::IntentionExact(IntentionQuery { source: "web".into(), destination: "api".into() })),
        ("intention-match", Query::IntentionMatch(IntentionMatch { by_source: true, name: "web".into() })),
        ("service-intentions", Query::ServiceIntentions("api".into())),
        ("service-intentions-list", Query::ServiceIntentionsList),
        ("node", Query::Node("n1".parse().unwrap())),
    ];
    for (name, query) in queries {
        check(&format!("query-{name}"), query);
    }
    let entry = KvEntry {
        lock_index: 1,
        key: "a".into(),
        flags: 2,
        value: b"v".to_vec(),
        session: Some("s".into()),
        create_index: Index(3),
        modify_index: Index(4),
    };
    let intention = Intention {
        destination: "api".into(),
        source: source(),
        create_index: Index(1),
        modify_index: Index(2),
        meta: pairs(),
    };
    let services = BTreeMap::from([("web".to_owned(), service())]);
    let answers = [
        ("kv-entry", Answer::KvEntry(Some(entry.clone()))),
        ("kv-entries", Answer::KvEntries(vec![entry])),
        ("keys", Answer::Keys(vec!["a".into()])),
        ("nodes", Answer::Nodes(vec![node()])),
        ("services", Answer::Services(BTreeMap::from([("web".into(), vec!["v2".into()])]))),
        ("service-nodes", Answer::ServiceNodes(vec![ServiceNode { node: node(), service: service() }])),
        ("node-services", Answer::NodeServices(Some(NodeServices { node: node(), services }))),
        (
            "check-service-nodes",
            Answer::CheckServiceNodes(Rows::from(vec![CheckServiceNode {
                node: node(),
                service: service(),
                checks: vec![health_check()],
            }])),
        ),
        ("checks", Answer::Checks(vec![health_check()])),
        (
            "ca-roots",
            Answer::CaRoots(Some(CaRoots {
                active_root_id: "aa:bb".into(),
                trust_domain: "t.consul".into(),
                roots: vec![root()],
            })),
        ),
        ("intentions", Answer::Intentions(vec![intention.clone()])),
        ("intention", Answer::Intention(Some(intention))),
        ("service-intentions", Answer::ServiceIntentions(Some(intentions()))),
        ("service-intentions-list", Answer::ServiceIntentionsList(vec![intentions()])),
        ("node", Answer::Node(Some(node()))),
    ];
    for (name, answer) in answers {
        check(
            &format!("answer-{name}"),
            Read { index: Index(12), answer, filtered_by_acls: true, last_contact_millis: 3, known_leader: true },
        );
    }
}

#[test]
fn every_rpc_message_keeps_its_bytes() {
    let server = || ServerAddress {
        id: "7f1c1a3e-2d4b-4c1d-9a55-0e6f1d2c3b4a".into(),
        name: "s1".parse().unwrap(),
        address: "s1:8300".into(),
    };
    let member = Member {
        name: "n1".parse().unwrap(),
        id: "i".into(),
        address: "10.0.0.1".into(),
        port: 8301,
        tags: pairs(),
        meta: pairs(),
        status: MemberStatus::Failed,
        protocols: None,
    };
    let login = Login {
        proof: "p".into(),
        node: "n1".parse().unwrap(),
        services: vec!["web".parse().unwrap()],
        csr: b"csr".to_vec(),
        node_id: None,
    };
    let grant = LoginGrant {
        token: Credential::new("s"),
        chain_pem: "c".into(),
        roots_pem: "r".into(),
        trust_domain: "t.consul".into(),
        datacenter: "dc1".into(),
        servers: vec![server()],
        default_intention_allow: true,
    };
    let operations = [
        ("keepalive", Operation::Keepalive(member.clone())),
        ("leave", Operation::Leave("n1".parse().unwrap())),
        ("members", Operation::Members),
        ("status", Operation::Status),
        ("sign-leaf", Operation::SignLeaf(SignLeaf { service: "web".parse().unwrap(), csr: b"csr".to_vec() })),
        ("sign-agent", Operation::SignAgent(b"csr".to_vec())),
        (
            "create-join-token",
            Operation::CreateJoinToken(CreateJoinToken { services: vec!["web".into()], valid_seconds: 60, node: None }),
        ),
        ("join-server", Operation::JoinServer(server())),
        ("probe", Operation::Probe),
        ("remove-server", Operation::RemoveServer("i".into())),
        ("read-index", Operation::ReadIndex),
        ("transfer-leader", Operation::TransferLeader),
        ("authorize", Operation::Authorize(vec![Requirement::write(Resource::Service, "web")])),
        ("login", Operation::Login(Box::new(login.clone()))),
    ];
    let request = |body| Request { credential: Credential::new("secret"), body, forwarded: true };
    for (name, operation) in operations {
        check(&format!("operation-{name}"), request(RequestBody::Operate(operation)));
    }
    let command = Command::TokenDelete("i".into());
    let write = WriteRequest { request_id: [1; 16], command: command.clone() };
    let relayed = RelayedWrite { credential: Credential::new("secret"), write };
    check("relayed-write", relayed.clone());
    check("request-relay", request(RequestBody::Relay(vec![encoding::encode(&relayed).into()])));
    check("request-write", request(RequestBody::Write(Box::new(WriteRequest { request_id: [1; 16], command }))));
    let freshness =
        Freshness { consistency: Consistency::Stale, block: Some(Block { after: Index(4), wait_millis: 5_000 }) };
    check("request-read", request(RequestBody::Read(ReadRequest { query: Query::CaRoots, freshness })));
    let leaf = LeafCertificate {
        serial_number: "01:02".into(),
        chain_pem: "c".into(),
        uri: "spiffe://t.consul/ns/default/dc/dc1/svc/web".into(),
        valid_after: Timestamp(1),
        valid_before: Timestamp(2),
        roots_index: Index(3),
    };
    let probe = Probe {
        server: server(),
        cluster_id: Some("c".into()),
        bootstrap_expect: 3,
        found: vec![server()],
        initialized: true,
    };
    let status = Status {
        leader: Some("s1:8300".into()),
        peers: vec!["s1:8300".into()],
        index: Index(4),
        is_leader: true,
        servers: vec![RaftServer { server: server(), voter: true }],
        log: None,
    };
    let reports = [
        ("done", Report::Done),
        ("members", Report::Members(vec![member])),
        ("status", Report::Status(status)),
        ("leaf", Report::Leaf(leaf)),
        ("join-token", Report::JoinToken(Credential::new("s"))),
        ("probe", Report::Probe(probe)),
        ("read-index", Report::ReadIndex(4)),
        ("servers", Report::Servers(vec![server()], None)),
        ("authorized", Report::Authorized(vec![None, Some(refusal())])),
        ("granted", Report::Granted(Box::new(grant.clone()))),
    ];
    for (name, report) in reports {
        check(&format!("report-{name}"), Response::Report(report));
    }
    check("response-written", Response::Written(Outcome { index: Index(1), effect: Effect::Applied }));
    check("response-refused", Response::Refused(refusal()));
    check("login-hello", LoginHello { trust_domain: "t.consul".into(), datacenter: "dc1".into() });
    check("login-request", login);
    check("login-granted", LoginReply::Granted(grant));
    check("login-refused", LoginReply::Refused(refusal()));
}

/// A release that knows one field more and one command more than this one.
#[derive(Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
struct NewerKvEntry {
    #[n(0)]
    lock_index: u64,
    #[n(1)]
    key: String,
    #[n(2)]
    flags: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    value: Vec<u8>,
    #[n(5)]
    create_index: Index,
    #[n(6)]
    modify_index: Index,
    #[n(99)]
    invented_later: String,
}

#[derive(Encode)]
#[cbor(map)]
struct NewerEnvelope {
    #[cbor(n(0), with = "minicbor::bytes")]
    request_id: [u8; 16],
    #[n(1)]
    leader_time: Timestamp,
    #[n(2)]
    command: NewerCommand,
}

#[derive(Encode)]
enum NewerCommand {
    #[n(250)]
    InventedLater(#[n(0)] String),
}

#[test]
fn an_unknown_field_is_skipped_and_a_missing_one_has_its_default() {
    let newer = NewerKvEntry {
        lock_index: 1,
        key: "a".into(),
        flags: 2,
        value: vec![3],
        create_index: Index(4),
        modify_index: Index(5),
        invented_later: "x".into(),
    };
    let read: KvEntry = encoding::decode(&encoding::encode(&newer)).unwrap();
    assert_eq!((read.key.as_str(), read.session, read.modify_index), ("a", None, Index(5)));
}

#[test]
fn an_unknown_command_is_an_error_and_not_something_else() {
    let newer = NewerEnvelope {
        request_id: [0; 16],
        leader_time: Timestamp(1),
        command: NewerCommand::InventedLater("x".into()),
    };
    let error = encoding::decode::<Envelope>(&encoding::encode(&newer)).unwrap_err();
    assert!(error.to_string().contains("variant"), "{error}");
}

#[test]
fn bytes_that_are_cut_or_followed_by_others_are_refused() {
    let bytes = encoding::encode(&node());
    for cut in 0..bytes.len() {
        assert!(encoding::decode::<Node>(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(encoding::decode::<Node>(&[bytes, vec![0]].concat()).is_err());
}
