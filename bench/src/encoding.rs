//! Bytes and CPU of one command in three binary forms: the comparison behind `docs/decisions/0001`.
//!
//! All three can skip unknown fields and default missing ones. The rivals are given the same fields as plain structs.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use lictor_types::command::{KvCommand, KvVerb};
use lictor_types::{Command, Envelope, NodeService, Registration, Timestamp, encoding};
use serde::{Deserialize, Serialize};

/// Rounds of encoding and decoding for one figure.
const ROUNDS: u32 = 200_000;

#[derive(Clone, PartialEq, Serialize, Deserialize, prost::Message)]
struct PlainEnvelope {
    #[prost(bytes = "vec", tag = "1")]
    request_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    leader_time: u64,
    #[prost(message, optional, tag = "3")]
    kv: Option<PlainKv>,
    #[prost(message, optional, tag = "4")]
    registration: Option<PlainRegistration>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize, prost::Message)]
struct PlainKv {
    #[prost(uint32, tag = "1")]
    verb: u32,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(bytes = "vec", tag = "3")]
    value: Vec<u8>,
    #[prost(uint64, tag = "4")]
    flags: u64,
}

#[derive(Clone, PartialEq, Serialize, Deserialize, prost::Message)]
struct PlainRegistration {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    node: String,
    #[prost(string, tag = "3")]
    address: String,
    #[prost(string, tag = "4")]
    datacenter: String,
    #[prost(btree_map = "string, string", tag = "5")]
    node_meta: BTreeMap<String, String>,
    #[prost(string, tag = "6")]
    service_id: String,
    #[prost(string, tag = "7")]
    service: String,
    #[prost(string, repeated, tag = "8")]
    tags: Vec<String>,
    #[prost(uint32, tag = "9")]
    port: u32,
    #[prost(btree_map = "string, string", tag = "10")]
    meta: BTreeMap<String, String>,
    #[prost(bool, tag = "11")]
    skip_node_update: bool,
}

fn meta() -> BTreeMap<String, String> {
    [("k8s-node", "node-7"), ("pod-uid", "0e3c2b8e-4f0c-4a83-9a34-2f1f6f0d7c11"), ("version", "1.4.2")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn ours(kv: bool) -> Envelope {
    let command = if kv {
        Command::Kv(KvCommand { verb: KvVerb::Set, key: "app/config/limits".into(), value: vec![b'x'; 256], flags: 0 })
    } else {
        let mut service = NodeService::new("web".parse().expect("a legal name"));
        service.id = Some("web-1".parse().expect("a legal id"));
        service.tags = vec!["v2".into(), "primary".into()];
        service.port = 8080;
        service.meta = meta();
        Command::Register(Box::new(Registration {
            id: "0e3c2b8e-4f0c-4a83-9a34-2f1f6f0d7c11".into(),
            node: "web-7d9f.apps".parse().expect("a legal name"),
            address: "10.244.0.17".into(),
            datacenter: "dc1".into(),
            tagged_addresses: BTreeMap::new(),
            node_meta: meta(),
            service: Some(service),
            check: None,
            checks: Vec::new(),
            skip_node_update: false,
            locality: None,
        }))
    };
    Envelope { request_id: [7; 16], leader_time: Timestamp(1_795_367_100_123), command }
}

fn plain(kv: bool) -> PlainEnvelope {
    PlainEnvelope {
        request_id: vec![7; 16],
        leader_time: 1_795_367_100_123,
        kv: kv.then(|| PlainKv { verb: 0, key: "app/config/limits".into(), value: vec![b'x'; 256], flags: 0 }),
        registration: (!kv).then(|| PlainRegistration {
            id: "0e3c2b8e-4f0c-4a83-9a34-2f1f6f0d7c11".into(),
            node: "web-7d9f.apps".into(),
            address: "10.244.0.17".into(),
            datacenter: "dc1".into(),
            node_meta: meta(),
            service_id: "web-1".into(),
            service: "web".into(),
            tags: vec!["v2".into(), "primary".into()],
            port: 8080,
            meta: meta(),
            skip_node_update: false,
        }),
    }
}

/// Prints one line per form and command.
pub(crate) fn run() {
    println!("{:14} {:28} {:>6} {:>12} {:>12}", "command", "form", "bytes", "encode ns", "decode ns");
    for kv in [true, false] {
        let name = if kv { "kv put 256 B" } else { "registration" };
        let (mine, theirs) = (ours(kv), plain(kv));
        line(
            name,
            "minicbor, numbered fields",
            &encoding::encode(&mine),
            || encoding::encode(&mine),
            |bytes| {
                drop(black_box(encoding::decode::<Envelope>(bytes)));
            },
        );
        line(
            name,
            "prost derive",
            &prost::Message::encode_to_vec(&theirs),
            || prost::Message::encode_to_vec(&theirs),
            |bytes| {
                drop(black_box(<PlainEnvelope as prost::Message>::decode(bytes)));
            },
        );
        let named = || rmp_serde::to_vec_named(&theirs).expect("plain data");
        line(name, "MessagePack, named fields", &named(), named, |bytes| {
            drop(black_box(rmp_serde::from_slice::<PlainEnvelope>(bytes)));
        });
    }
}

fn line(command: &str, form: &str, bytes: &[u8], encode: impl Fn() -> Vec<u8>, decode: impl Fn(&[u8])) {
    let nanos = |work: &dyn Fn()| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| work());
        start.elapsed().as_nanos() / u128::from(ROUNDS)
    };
    let encoding = nanos(&|| drop(black_box(encode())));
    let decoding = nanos(&|| decode(bytes));
    println!("{command:14} {form:28} {:>6} {encoding:>12} {decoding:>12}", bytes.len());
}
