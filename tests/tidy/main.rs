//! The house's own rules as tests: mostly absences, which no other test would miss.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie at the root").to_owned()
}

/// Every file below `place` with one of these extensions, as (path from the root, content).
fn files(place: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let (root, mut found, mut open) = (root(), Vec::new(), vec![root().join(place)]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "target" | ".git" | "node_modules") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|it| extensions.iter().any(|one| it == *one))
                && let Ok(text) = fs::read_to_string(&path)
            {
                let shown = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                found.push((shown, text));
            }
        }
    }
    found.sort();
    found
}

/// The lines of Rust files below `places` that hold one of `words` outside of comments, tests left out.
fn uses(places: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in places.iter().flat_map(|place| files(place, &["rs"])) {
        if path.ends_with("tests.rs") || path.contains("/tests/") {
            continue;
        }
        // Unit tests stand at the end of their file.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

fn must_be_absent(places: &[&str], words: &[&str], allowed: &[&str], rule: &str) {
    let found: Vec<_> =
        uses(places, words).into_iter().filter(|line| !allowed.iter().any(|place| line.starts_with(place))).collect();
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

const EVERYWHERE: &[&str] = &["crates", "server", "sidecar", "operator", "crds", "cli"];

#[test]
fn the_state_machine_reads_nothing_but_its_commands() {
    must_be_absent(
        &["crates/state"],
        &["SystemTime", "Instant", "rand::", "Rng", "std::fs", "std::net", "HashMap", "HashSet", "std::env"],
        &["crates/state/tests", "crates/state/src/trie.rs", "crates/state/src/watches.rs"],
        "the state is a function of the log: no clock, randomness, file, socket or unordered map",
    );
}

#[test]
fn only_the_raft_module_knows_the_consensus_library() {
    must_be_absent(EVERYWHERE, &["openraft"], &["server/src/raft"], "nothing outside server/src/raft names openraft");
}

#[test]
fn only_the_operator_knows_kubernetes() {
    must_be_absent(
        EVERYWHERE,
        &["kube::", "k8s_openapi"],
        &["operator", "crds"],
        "nothing outside operator and crds names kube",
    );
}

#[test]
fn only_the_waist_proposes() {
    must_be_absent(
        &["server", "crates/agent", "sidecar"],
        &["consensus.propose("],
        &["server/src/datacenter.rs"],
        "only the waist proposes to raft, after the authoriser",
    );
}

#[test]
fn only_the_authoriser_makes_what_the_state_answers() {
    must_be_absent(
        EVERYWHERE,
        &["Authorized {"],
        &["crates/state/src/access.rs", "crates/state/src/authorize.rs"],
        "only the authoriser makes Authorized",
    );
}

#[test]
fn names_are_resolved_in_one_place() {
    must_be_absent(
        EVERYWHERE,
        &["lookup_host", "to_socket_addrs", "HttpConnector"],
        &[],
        "every dial takes an address from runtime::Resolver: a static binary has no getaddrinfo",
    );
}

#[test]
fn every_queue_has_a_limit_and_every_task_an_owner() {
    must_be_absent(EVERYWHERE, &["unbounded_channel", "unbounded()"], &[], "every queue has a limit");
    must_be_absent(
        EVERYWHERE,
        &["tokio::spawn("],
        &["crates/runtime/src/tasks.rs"],
        "tasks are spawned by their owner, runtime::Tasks",
    );
}

#[test]
fn bugs_are_planted_by_tests_alone() {
    must_be_absent(EVERYWHERE, &["Faults::planted("], &[], "only a test plants a bug to see that it is found");
}

#[test]
fn time_and_randomness_come_in_as_values() {
    must_be_absent(
        &["crates", "server", "sidecar"],
        &["SystemTime::now()", "rand::rng()", "thread_rng"],
        // Raft's library asks for a generator of its own: `executor` seeds it in simulation.
        &["crates/runtime/src/clock.rs", "crates/runtime/src/random.rs", "server/src/raft/executor.rs"],
        "take a Clock and an Rng: a test must be able to steer them",
    );
}

#[test]
fn only_the_driver_of_gossip_owns_sockets_and_tasks() {
    must_be_absent(
        &["crates/gossip"],
        &["tokio", "Instant", "std::fs", "std::net::Tcp", "std::net::Udp"],
        &["crates/gossip/src/driver", "crates/gossip/tests"],
        "the core of gossip takes packets, bytes and the time as values: ten thousand members run in one test",
    );
}

#[test]
fn nothing_is_left_for_later_without_a_word() {
    let words = ["todo!(", "unimplemented!(", "dbg!("];
    must_be_absent(EVERYWHERE, &words, &[], "what is not done is not there");
    for (path, text) in files("tests", &["rs"]).into_iter().chain(EVERYWHERE.iter().flat_map(|it| files(it, &["rs"]))) {
        assert!(!text.lines().any(|line| line.trim() == "#[ignore]"), "{path}: an ignored test must say why");
    }
}

#[test]
fn crates_depend_in_one_direction_only() {
    let allowed: &[(&str, &[&str])] = &[
        ("crates/types", &[]),
        ("crates/runtime", &[]),
        ("crates/filter", &["types"]),
        ("crates/state", &["types", "filter"]),
        ("crates/identity", &["types", "runtime"]),
        ("crates/gossip", &["runtime"]),
        ("crates/client", &["types", "runtime"]),
        ("crates/agent", &["types", "filter", "runtime", "identity", "gossip"]),
        ("server", &["types", "runtime", "state", "identity", "gossip", "agent"]),
        ("sidecar", &["types", "runtime", "identity", "agent"]),
        ("crds", &[]),
        ("fuzz", &["runtime"]),
        ("operator", &["crds", "client", "identity", "runtime"]),
    ];
    for (place, may) in allowed {
        let manifest = fs::read_to_string(root().join(place).join("Cargo.toml")).expect("a manifest");
        let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let section = section.split("\n[").next().unwrap_or_default();
        let ours: BTreeSet<&str> = section
            .lines()
            .filter_map(|line| line.strip_prefix("lictor-"))
            .filter_map(|line| line.split([' ', '.', '=']).next())
            .collect();
        for dependency in ours {
            assert!(may.contains(&dependency), "{place} must not depend on {dependency}: see ARCHITECTURE.md");
        }
    }
}

#[test]
fn versions_are_pinned_in_one_place() {
    for (path, text) in files(".", &["toml"]) {
        if !path.ends_with("Cargo.toml") || path == "Cargo.toml" {
            continue;
        }
        if let Some(line) = text.lines().find(|line| line.contains("version = \"") && line.contains(" = {")) {
            panic!("{path}: {line}: versions stand in the workspace manifest");
        }
    }
}

#[test]
fn every_regression_that_is_listed_has_its_tests() {
    let page = fs::read_to_string(root().join("docs/regressions.md")).expect("docs/regressions.md");
    // What stands in the second half of each pair is within backticks.
    let named = page.split('`').skip(1).step_by(2).filter_map(|it| it.split_once("::"));
    let mut count = 0;
    for (path, name) in named {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let place = text.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{path} has no test {name}"));
        let before = text[..place].trim_end().lines().last().unwrap_or_default();
        let attribute =
            if before.contains("async") { text[..place].lines().rev().nth(1).unwrap_or_default() } else { before };
        assert!(attribute.contains("test"), "{path}: {name} is no test: {attribute:?}");
        count += 1;
    }
    assert!(count >= 40, "only {count} tests are named");
    let faults = page.split("## Not run").next().unwrap_or_default();
    let rows: Vec<&str> =
        faults.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what ")).collect();
    let without: Vec<&&str> = rows.iter().filter(|row| !row.contains("::")).collect();
    assert!(without.is_empty(), "no test is named for {without:?}");
    let unnamed: Vec<String> = rows.iter().flat_map(|row| unnamed_faults(row)).collect();
    assert!(unnamed.is_empty(), "no test of their lines carries these in its name or above it: {unnamed:?}");
}

/// The faults of a line whose number, or whose first word and year, none of its tests carries in its name or comment.
fn unnamed_faults(row: &str) -> Vec<String> {
    let what = row.trim_start_matches("| ").split(" |").next().unwrap_or_default();
    let is_commit = |word: &&str| word.len() == 8 && word.chars().all(|it| it.is_ascii_hexdigit());
    let words = what.split([' ', ',', '(', ')']).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let mut marks: Vec<String> = words
        .iter()
        .filter(|word| word.starts_with('#') || is_commit(word))
        .map(|word| word.trim_start_matches('#').to_lowercase())
        .collect();
    if marks.is_empty() {
        let first = words.first().map(|word| word.split('.').next().unwrap_or_default().to_lowercase());
        let year = words.iter().find(|word| word.len() == 4 && word.starts_with("20")).map(|word| (*word).to_owned());
        marks.extend(first.into_iter().chain(year));
    }
    let named: Vec<(&str, &str)> = row.split('`').skip(1).step_by(2).filter_map(|it| it.split_once("::")).collect();
    let said: Vec<String> = named.iter().map(|(path, name)| said_of(path, name)).collect();
    marks.retain(|mark| !said.iter().any(|said| said.contains(mark.as_str())));
    marks.into_iter().map(|mark| format!("{mark} of {what:?}")).collect()
}

/// The name of a test and the comment above it, in small letters.
fn said_of(path: &str, name: &str) -> String {
    let text = fs::read_to_string(root().join(path)).unwrap_or_default();
    let place = text.find(&format!("fn {name}(")).unwrap_or_default();
    let above = text[..place].lines().rev().skip(1);
    let comment: Vec<&str> =
        above.take_while(|line| line.trim().starts_with("///") || line.trim().starts_with("#[")).collect();
    format!("{name} {}", comment.join(" ")).to_lowercase()
}

#[test]
fn every_decision_has_its_four_parts() {
    for (path, text) in files("docs/decisions", &["md"]) {
        for part in ["## Context", "## Decision", "## Consequences", "## What would change our mind"] {
            assert!(text.contains(part), "{path} lacks {part:?}");
        }
    }
}

#[test]
fn the_architecture_stays_short() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    assert!(text.lines().count() < 200, "ARCHITECTURE.md is a bird's eye view: under 200 lines");
}
