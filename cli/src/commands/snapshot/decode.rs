//! `lictor snapshot decode`: the rows of a snapshot, one JSON object a line, for people and for programs like `jq`.
//!
//! Tokens, keys of the mesh CA and whatever else is sealed are not among them: of those only how many there are is told, by
//! `inspect`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use lictor_server::archive::container;
use lictor_state::Store;
use lictor_state::access::{Authorized, Duty};
use lictor_types::query::StateQuery;
use lictor_types::{Answer, ConfigKind, NodeName, Query};
use serde::Serialize;
use serde_json::json;

use crate::output::{Failure, Output};

struct Lines<'a> {
    store: &'a Store,
    output: Output,
}

impl Lines<'_> {
    fn ask(&self, query: Query) -> Answer {
        self.store.answer(&Authorized::system(Duty::Restore, query)).answer
    }

    fn rows<T: Serialize>(&mut self, kind: &str, rows: &[T]) -> Result<(), Failure> {
        for row in rows {
            let line = serde_json::to_vec(&json!({"Type": kind, "Data": row}));
            self.output.push_line(&line.map_err(Failure::because("Error printing JSON"))?);
        }
        Ok(())
    }

    fn catalog(&mut self) -> Result<(), Failure> {
        let Answer::Nodes(nodes) = self.ask(Query::Nodes(BTreeMap::new())) else { return Ok(()) };
        self.rows("Node", &nodes)?;
        for node in &nodes {
            self.services_of(&node.name)?;
        }
        let state = StateQuery { state: "any".into(), node_meta: BTreeMap::new() };
        let Answer::Checks(checks) = self.ask(Query::HealthState(state)) else { return Ok(()) };
        self.rows("Check", &checks)
    }

    fn services_of(&mut self, node: &NodeName) -> Result<(), Failure> {
        let Answer::NodeServices(Some(found)) = self.ask(Query::NodeServices(node.clone())) else { return Ok(()) };
        let rows: Vec<_> =
            found.services.values().map(|service| json!({"Node": node.as_str(), "Service": service})).collect();
        self.rows("Service", &rows)
    }

    fn all(&mut self) -> Result<(), Failure> {
        self.catalog()?;
        if let Answer::KvEntries(rows) = self.ask(Query::KvList(String::new())) {
            self.rows("KVS", &rows)?;
        }
        if let Answer::Sessions(rows) = self.ask(Query::Sessions) {
            self.rows("Session", &rows)?;
        }
        if let Answer::ServiceIntentionsList(rows) = self.ask(Query::ServiceIntentionsList) {
            self.rows("Intention", &rows)?;
        }
        for kind in ConfigKind::ALL {
            if let Answer::ConfigEntries(rows) = self.ask(Query::ConfigEntries(kind)) {
                self.rows("ConfigEntry", &rows)?;
            }
        }
        if let Answer::PreparedQueries(rows) = self.ask(Query::PreparedQueries) {
            self.rows("PreparedQuery", &rows)?;
        }
        if let Answer::Coordinates(rows) = self.ask(Query::Coordinates) {
            self.rows("Coordinate", &rows)?;
        }
        Ok(())
    }
}

/// How many keys begin with the same `depth` parts, and how many bytes they and their values take; the largest first. Only of
/// keys that begin with `prefix`.
pub(super) fn key_sizes(file: &Path, depth: usize, prefix: &str) -> Result<Vec<(String, u64, u64)>, Failure> {
    let store = stored(file)?;
    let lines = Lines { store: &store, output: Output::default() };
    let Answer::KvEntries(rows) = lines.ask(Query::KvList(prefix.to_owned())) else { return Ok(Vec::new()) };
    let mut sizes: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let begin: Vec<&str> = row.key.split('/').take(depth.max(1)).collect();
        let size = sizes.entry(begin.join("/")).or_default();
        *size = (size.0 + 1, size.1 + (row.key.len() + row.value.len()) as u64);
    }
    let mut sizes: Vec<_> = sizes.into_iter().map(|(name, (rows, bytes))| (name, rows, bytes)).collect();
    sizes.sort_by(|one, other| other.2.cmp(&one.2).then_with(|| one.0.cmp(&other.0)));
    Ok(sizes)
}

fn stored(file: &Path) -> Result<Store, Failure> {
    let file = File::open(file).map_err(Failure::because("Error opening snapshot file"))?;
    let mut store = Store::new();
    container::read(file, |_, part| Ok(store.read_part(&part)?)).map_err(Failure::because("Error reading snapshot"))?;
    Ok(store)
}

pub(super) fn decode(file: &Path) -> Result<Output, Failure> {
    let store = stored(file)?;
    let mut lines = Lines { store: &store, output: Output::default() };
    lines.all()?;
    Ok(lines.output)
}

#[cfg(test)]
mod tests {
    use lictor_server::archive::container::{Meta, Origin};
    use lictor_types::config_entry::ConfigEntrySet;
    use lictor_types::kv::KvEntry;
    use lictor_types::{Command, ConfigEntry, Envelope, KvVerb, Timestamp};

    use super::*;

    #[test]
    fn every_row_that_is_no_secret_is_a_line() {
        let mut store = Store::new();
        let mut number = 0;
        let mut apply = |command| {
            number += 1;
            store.apply(&Envelope { request_id: [number; 16], leader_time: Timestamp(1000), command });
        };
        let register = r#"{"Node":"n1","Address":"10.0.0.1","Service":{"Service":"web"},"Check":{"Name":"up"}}"#;
        apply(Command::Register(Box::new(serde_json::from_str(register).unwrap())));
        apply(Command::Kv(lictor_types::command::KvCommand {
            verb: KvVerb::Set,
            key: "a".into(),
            value: b"1".to_vec(),
            flags: 0,
        }));
        let entry = ConfigEntry::parse(ConfigKind::ServiceDefaults, &json!({"Name": "web"})).unwrap();
        apply(Command::ConfigEntrySet(Box::new(ConfigEntrySet { entry, cas: None })));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("s");
        let meta = Meta { version: 1, id: "2-9-1".into(), index: 9, term: 2, size: 0, lictor: Some(Origin::default()) };
        container::write(&store, meta, File::create(&file).unwrap()).unwrap();
        let shown = String::from_utf8(decode(&file).unwrap().bytes).unwrap();
        let lines: Vec<serde_json::Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let types: Vec<&str> = lines.iter().map(|line| line["Type"].as_str().unwrap()).collect();
        assert_eq!(types, ["Node", "Service", "Check", "KVS", "ConfigEntry"]);
        assert_eq!(lines[1]["Data"]["Service"]["Service"], "web");
        let row: KvEntry = serde_json::from_value(lines[3]["Data"].clone()).unwrap();
        assert_eq!((row.key.as_str(), &row.value[..]), ("a", &b"1"[..]));
    }

    #[test]
    fn keys_are_counted_by_what_they_begin_with() {
        let mut store = Store::new();
        for (number, key) in ["app/one/x", "app/one/y", "app/two", "b"].into_iter().enumerate() {
            let kv =
                lictor_types::command::KvCommand { verb: KvVerb::Set, key: key.into(), value: vec![0; 10], flags: 0 };
            let request_id = [number as u8 + 1; 16];
            store.apply(&Envelope { request_id, leader_time: Timestamp(1000), command: Command::Kv(kv) });
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("s");
        let meta = Meta { version: 1, id: "2-9-1".into(), index: 9, term: 2, size: 0, lictor: Some(Origin::default()) };
        container::write(&store, meta, File::create(&file).unwrap()).unwrap();
        let sizes = |depth, prefix| key_sizes(&file, depth, prefix).unwrap();
        let row = |name: &str, rows, bytes| (name.to_owned(), rows, bytes);
        assert_eq!(sizes(2, ""), [row("app/one", 2, 38), row("app/two", 1, 17), row("b", 1, 11)]);
        assert_eq!(sizes(1, "app/"), [row("app", 3, 55)]);
    }
}
