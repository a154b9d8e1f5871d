//! The wire formats, held against bytes that memberlist's and Serf's own encoder made: each is read as what it is, and written
//! as the same bytes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use lictor_gossip::Keyring;
use lictor_gossip::wire::envelope::unfold;
use lictor_gossip::wire::serf::{self, Filter, Intent, KeyResponse, Known, Query, QueryResponse, UserEvent};
use lictor_gossip::wire::stream::{Assembler, PushPull};
use lictor_gossip::wire::swim::{self, Accusation, Ack, Alive, IndirectPing, Life, Ping};
use lictor_gossip::wire::tags::{self, Tags};
use lictor_gossip::wire::{Versions, kind};

fn golden() -> HashMap<&'static str, Vec<u8>> {
    include_str!("golden/packets.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, hex) = line.split_once(' ').expect("a name and its bytes");
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
            (name, (0..hex.len()).step_by(2).map(byte).collect())
        })
        .collect()
}

fn a() -> SocketAddr {
    "10.0.0.1:8301".parse().expect("an address")
}

#[track_caller]
fn written(name: &str, expected: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    encode(&mut out);
    assert_eq!(out, expected, "{name} is written as other bytes");
}

const VERSIONS: Versions =
    Versions { protocol_min: 1, protocol_max: 5, protocol_now: 2, delegate_min: 2, delegate_max: 5, delegate_now: 5 };

fn meta() -> Vec<u8> {
    tags::encode(&Tags::from([("role".into(), "consul".into())])).expect("short tags")
}

#[test]
fn probes_and_their_answers() {
    let golden = golden();
    let ping = Ping { sequence: 300, node: "b", source: Some(a()), source_node: "a" };
    assert_eq!(Ping::decode(&golden["ping"][1..]), Ok(ping.clone()));
    written("ping", &golden["ping"], |out| ping.encode(out));
    let bare = Ping { sequence: 1, node: "b", source: None, source_node: "" };
    assert_eq!(Ping::decode(&golden["ping_without_source"][1..]), Ok(bare.clone()));
    written("ping_without_source", &golden["ping_without_source"], |out| bare.encode(out));
    let target = "10.0.0.2:8301".parse().expect("an address");
    let indirect =
        IndirectPing { sequence: 70_000, target, node: "b", nack: true, source: Some(a()), source_node: "a" };
    assert_eq!(IndirectPing::decode(&golden["indirect_ping"][1..]), Ok(indirect.clone()));
    written("indirect_ping", &golden["indirect_ping"], |out| indirect.encode(out));
    for (name, payload) in [("ack", &[1, 2, 3][..]), ("ack_empty", &[])] {
        let ack = Ack { sequence: 7, payload };
        assert_eq!(Ack::decode(&golden[name][1..]), Ok(ack.clone()));
        written(name, &golden[name], |out| ack.encode(out));
    }
    assert_eq!(swim::decode_nack(&golden["nack"][1..]), Ok(7));
    written("nack", &golden["nack"], |out| swim::encode_nack(7, out));
    assert_eq!(swim::decode_error(&golden["error"][1..]), Ok("no"));
    written("error", &golden["error"], |out| swim::encode_error("no", out));
}

#[test]
fn what_is_said_of_members() {
    let golden = golden();
    for (name, kind, from) in [("suspect", kind::SUSPECT, "a"), ("dead", kind::DEAD, "b")] {
        let accusation = Accusation { incarnation: 5, node: "b", from };
        assert_eq!(Accusation::decode(&golden[name][1..]), Ok(accusation.clone()));
        written(name, &golden[name], |out| accusation.encode(kind, out));
    }
    let meta = meta();
    let alive = Alive { incarnation: 5, node: "a", address: a(), meta: &meta, versions: VERSIONS };
    assert_eq!(Alive::decode(&golden["alive"][1..]), Ok(alive.clone()));
    written("alive", &golden["alive"], |out| alive.encode(out));
    assert_eq!(tags::decode(alive.meta)["role"], "consul");
    let mut assembler = Assembler::default();
    assert_eq!(assembler.push(&golden["push_pull"]), Ok(true));
    let read = PushPull::decode(&golden["push_pull"][1..]).expect("a push/pull");
    let mut states = Vec::new();
    let user = read.read(|state| states.push((state.alive.clone(), state.life))).expect("its members");
    assert_eq!((read.join, user), (true, &[1, 2, 3][..]));
    assert_eq!(states, [(alive, Life::Left)], "an IPv4 address in IPv6's clothes is the IPv4 address");
}

#[test]
fn serfs_messages() {
    let golden = golden();
    for (name, kind, prune) in [("join", serf::kind::JOIN, false), ("leave", serf::kind::LEAVE, true)] {
        let intent = Intent { time: 9, node: "a", prune };
        assert_eq!(Intent::decode(&golden[name][1..]), Ok(intent.clone()));
        written(name, &golden[name], |out| intent.encode(kind, out));
    }
    let event = UserEvent { time: 9, name: "deploy", payload: b"1.2.3", coalesce: true };
    assert_eq!(UserEvent::decode(&golden["user_event"][1..]), Ok(event.clone()));
    written("user_event", &golden["user_event"], |out| event.encode(out));
    let filters = [Filter::Nodes(vec!["a", "b"]), Filter::Tag { tag: "role", expression: "^web" }];
    for (name, filter) in ["filter_nodes", "filter_tag"].into_iter().zip(&filters) {
        assert_eq!(Filter::decode(&golden[name]).as_ref(), Ok(filter));
        assert_eq!(filter.encode(), golden[name]);
    }
    let query = Query {
        time: 9,
        id: 1 << 30,
        source: Some(a()),
        source_node: "a",
        filters: vec![&golden["filter_nodes"], &golden["filter_tag"]],
        flags: serf::FLAG_ACK,
        relay: 2,
        timeout: Duration::from_secs(5),
        name: "uptime",
        payload: b"?",
    };
    assert_eq!(Query::decode(&golden["query"][1..]).as_ref(), Ok(&query));
    written("query", &golden["query"], |out| query.encode(out));
    for (name, flags, payload) in [("query_response", 0, &b"!"[..]), ("query_ack", serf::FLAG_ACK, b"")] {
        let response = QueryResponse { time: 9, id: 1 << 30, from: "b", flags, payload };
        assert_eq!(QueryResponse::decode(&golden[name][1..]), Ok(response.clone()));
        written(name, &golden[name], |out| response.encode(out));
    }
    let (to, inner) = serf::decode_relay(&golden["relay"][1..]).expect("a relay");
    assert_eq!((to, inner[0]), (a(), serf::kind::QUERY_RESPONSE));
    written("relay", &golden["relay"], |out| serf::encode_relay(to, "a", inner, out));
}

#[test]
fn keys_conflicts_and_coordinates() {
    let golden = golden();
    assert_eq!(serf::decode_key_request(&golden["key_request"][1..]), Ok(&b"0123456789abcdef"[..]));
    written("key_request", &golden["key_request"], |out| serf::encode_key_request(b"0123456789abcdef", out));
    for (name, response) in [
        (
            "key_response",
            KeyResponse {
                done: true,
                keys: vec!["k1".into(), "k2".into()],
                primary: "k1".into(),
                ..Default::default()
            },
        ),
        ("key_response_empty", KeyResponse { message: "No keyring".into(), ..Default::default() }),
    ] {
        assert_eq!(KeyResponse::decode(&golden[name][1..]).as_ref(), Ok(&response));
        written(name, &golden[name], |out| response.encode(out));
    }
    assert_eq!(serf::decode_conflict_response(&golden["conflict_response"][1..]), Ok(a()));
    let read = serf::decode_coordinate(&golden["coordinate"]).expect("a coordinate");
    assert_eq!(
        (read.vector[0], read.vector[7], read.error, read.adjustment, read.height),
        (0.5, -1.0, 1.5, 0.25, 1e-5)
    );
    written("coordinate", &golden["coordinate"], |out| {
        serf::encode_coordinate(&read.vector, read.error, read.adjustment, read.height, out);
    });
    let mut known = Vec::new();
    let clocks = serf::read_push_pull(&golden["serf_push_pull"][1..], |it| known.push(it)).expect("a push/pull");
    assert_eq!((clocks.members, clocks.events, clocks.queries), (12, 6, 2));
    let event = UserEvent { time: 5, name: "deploy", payload: b"1.2.3", coalesce: false };
    for wanted in [Known::Event(event), Known::Left("b"), Known::Status("a", 3), Known::Status("b", 4)] {
        assert!(known.contains(&wanted), "{wanted:?} is not in {known:?}");
    }
    assert_eq!(known.len(), 4);
}

#[test]
fn compression_and_encryption() {
    let golden = golden();
    let mut found = Vec::new();
    unfold(&golden["compressed"], |kind, body| found.push((kind, body.to_vec()))).expect("a compressed packet");
    assert_eq!(found, [(kind::USER, [8, 1, 2, 3].repeat(40)[1..].to_vec())]);
    let ring = Keyring::new(&[*b"0123456789abcdef"]).expect("a key");
    assert_eq!(ring.open(&golden["sealed"], b"blue").expect("the key opens it"), b"hello");
    assert_eq!(ring.open(&golden["sealed_padded"], b"").expect("the key opens it"), b"hello");
}
