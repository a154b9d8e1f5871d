//! A snapshot that release 0.1.0 wrote: every later release must read the same state from it.
//!
//! `LICTOR_BLESS=1` writes one where there is none; what is there already is never written again.

use std::path::{Path, PathBuf};

use lictor_state::Store;
use lictor_types::command::KvCommand;
use lictor_types::{Command, Envelope, Index, KvVerb, NodeService, Registration, Timestamp};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/snapshot-0.1.0.cbor")
}

fn kv(verb: KvVerb, key: &str, value: &str) -> Command {
    Command::Kv(KvCommand { verb, key: key.into(), value: value.into(), flags: 7 })
}

fn registration(node: &str, service: &str) -> Command {
    Command::Register(Box::new(Registration {
        id: String::new(),
        node: node.parse().expect("a legal name"),
        address: "10.1.0.1".into(),
        datacenter: "dc1".into(),
        tagged_addresses: [("lan".to_owned(), "10.1.0.1".to_owned())].into(),
        node_meta: [("rack".to_owned(), "a".to_owned())].into(),
        service: Some(NodeService::new(service.parse().expect("a legal name"))),
        check: None,
        checks: Vec::new(),
        skip_node_update: false,
        locality: None,
    }))
}

/// The same commands as ever: the state that they make is what the snapshot is of.
fn state() -> Store {
    let commands = [
        kv(KvVerb::Set, "a/1", "one"),
        kv(KvVerb::Set, "a/2", "two"),
        kv(KvVerb::Cas(Index(2)), "a/1", "uno"),
        kv(KvVerb::Delete, "a/2", ""),
        registration("n1", "web"),
        registration("n2", "web"),
        registration("n2", "api"),
        Command::ServerRemoved("gone".into()),
    ];
    let mut store = Store::new();
    for (number, command) in commands.into_iter().enumerate() {
        let leader_time = Timestamp(1_767_225_600_000 + number as u64);
        store.apply(&Envelope { request_id: [number as u8 + 1; 16], leader_time, command });
    }
    store
}

#[test]
fn the_snapshot_of_release_0_1_0_restores_the_same_state() {
    if std::env::var_os("LICTOR_BLESS").is_some() && !golden().exists() {
        std::fs::create_dir_all(golden().parent().unwrap()).unwrap();
        std::fs::write(golden(), state().snapshot()).unwrap();
    }
    let restored = Store::restore(&std::fs::read(golden()).expect("a golden file")).unwrap();
    assert_eq!(restored.snapshot(), state().snapshot());
    assert_eq!(restored.index(), Index(9));
    assert!(restored.is_removed_server("gone"));
}
