//! How answers are shown in scripts.

use lictor_state::Answered;
use lictor_types::gateway::VIRTUAL_TAG;
use lictor_types::session::SessionBehavior;
use lictor_types::transaction::{TransactionOutcome, TransactionResult};
use lictor_types::{Answer, HealthCheck, Intention, KvEntry, Node, NodeService, Session};

pub(crate) fn answered(answered: &Answered) -> Vec<String> {
    let mut lines = rows(&answered.answer);
    if lines.is_empty() {
        lines.push("nothing".into());
    }
    let filtered = if answered.filtered { ", some left out" } else { "" };
    lines[0] = format!("[{}{filtered}] {}", answered.index, lines[0]);
    for line in &mut lines[1..] {
        line.insert_str(0, "    ");
    }
    lines
}

fn rows(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::KvEntry(entry) => entry.iter().map(kv).collect(),
        Answer::KvEntries(entries) => entries.iter().map(kv).collect(),
        Answer::Keys(keys) => keys.clone(),
        Answer::Nodes(nodes) => nodes.iter().map(node).collect(),
        Answer::Node(it) => it.iter().map(node).collect(),
        Answer::Services(services) => {
            services.iter().map(|(name, tags)| format!("{name} tags={}", tags.join(","))).collect()
        }
        Answer::ServiceNodes(rows) => {
            rows.iter().map(|row| format!("{} {}", row.node.name, service(&row.service))).collect()
        }
        Answer::NodeServices(it) => {
            it.iter().flat_map(|it| std::iter::once(node(&it.node)).chain(it.services.values().map(service))).collect()
        }
        Answer::CheckServiceNodes(rows) => rows
            .iter()
            .map(|row| {
                let checks: Vec<String> = row.checks.iter().map(check).collect();
                format!("{} {} checks: {}", row.node.name, service(&row.service), checks.join(", "))
            })
            .collect(),
        Answer::Checks(checks) => checks
            .iter()
            .map(|it| {
                let of = if it.service_id.is_empty() {
                    String::new()
                } else {
                    format!(" of {} ({}) tags={}", it.service_id, it.service_name, it.service_tags.join(","))
                };
                let node = it.node.as_ref().map_or("", |node| node.as_str());
                format!("{node} {}{of} @{}/{}", check(it), it.create_index, it.modify_index)
            })
            .collect(),
        Answer::Sessions(sessions) => sessions.iter().map(session).collect(),
        Answer::Transaction(outcome) => transaction(outcome),
        Answer::Coordinates(rows) => rows.iter().map(|row| format!("{} {:?}", row.node, row.coord.vec)).collect(),
        Answer::CaRoots(roots) => roots.iter().map(|roots| roots.active_root_id.clone()).collect(),
        Answer::AuthoritySettings(settings) => settings
            .iter()
            .map(|it| format!("leaf={}s csr={}/s @{}", it.leaf_seconds, it.signatures_per_second, it.modify_index))
            .collect(),
        Answer::Autopilot(it) => vec![format!(
            "cleanup {} contact {} trailing {} quorum {} stabilization {} create {} modify {}",
            it.cleanup_dead_servers,
            it.last_contact_threshold_millis,
            it.max_trailing_logs,
            it.min_quorum,
            it.server_stabilization_millis,
            it.create_index.0,
            it.modify_index.0
        )],
        Answer::Intentions(intentions) => intentions.iter().map(intention).collect(),
        Answer::Intention(it) => it.iter().map(intention).collect(),
        Answer::ServiceIntentions(entry) => entry.iter().flat_map(entry_rows).collect(),
        Answer::PreparedQueries(queries) => queries.iter().map(super::prepared::query).collect(),
        Answer::PreparedQueryFound(found) => super::prepared::found(found),
        Answer::ConfigEntry(_)
        | Answer::ConfigEntries(_)
        | Answer::GatewayServices(_)
        | Answer::VirtualAddress(_)
        | Answer::AddressNames(_)
        | Answer::DiscoveryChain(_)
        | Answer::ExportedServices(_)
        | Answer::Completed(_) => super::config::rows(answer),
        Answer::ServiceIntentionsList(entries) => entries.iter().flat_map(entry_rows).collect(),
    }
}

fn kv(entry: &KvEntry) -> String {
    let value = String::from_utf8_lossy(&entry.value);
    let flags = if entry.flags == 0 { String::new() } else { format!(" flags={}", entry.flags) };
    let session = entry.session.as_ref().map(|session| format!(" held by {session}")).unwrap_or_default();
    let lock = if entry.lock_index == 0 { String::new() } else { format!(" lock {}", entry.lock_index) };
    format!("{} = {value}{flags}{session}{lock} @{}/{}", entry.key, entry.create_index, entry.modify_index)
}

fn session(session: &Session) -> String {
    let checks: Vec<&str> = session.checks().collect();
    let behavior = if session.behavior == SessionBehavior::Delete { " deletes" } else { "" };
    let ttl = if session.ttl.is_empty() { String::new() } else { format!(" ttl={}", session.ttl) };
    let delay = session.lock_delay / 1_000_000_000;
    format!(
        "{} on {} checks={}{behavior}{ttl} delay={delay}s @{}/{}",
        session.id,
        session.node,
        checks.join(","),
        session.create_index,
        session.modify_index
    )
}

pub(crate) fn transaction(outcome: &TransactionOutcome) -> Vec<String> {
    let found = outcome.results.iter().map(|result| match result {
        TransactionResult::Kv(it) => kv(it),
        TransactionResult::Node(it) => node(it),
        TransactionResult::Service(it) => service(it),
        TransactionResult::Check(it) => check(it),
    });
    let wrong = outcome.errors.iter().map(|error| format!("operation {}: {}", error.op_index, error.what));
    let heading = if outcome.errors.is_empty() { "all done" } else { "nothing done" };
    std::iter::once(heading.to_owned()).chain(found).chain(wrong).collect()
}

fn node(node: &Node) -> String {
    let id = if node.id.is_empty() { String::new() } else { format!(" id={}", node.id) };
    format!("{} {}{id} @{}/{}", node.name, node.address, node.create_index, node.modify_index)
}

fn service(service: &NodeService) -> String {
    let kind = match (service.kind.as_str(), service.proxy.destination_service_name.as_str()) {
        ("", _) => String::new(),
        (kind, "") => format!(" {kind}"),
        (kind, destination) => format!(" {kind} for {destination}"),
    };
    let address = service.tagged_addresses.get(VIRTUAL_TAG).map(|it| format!(" at {}", it.address)).unwrap_or_default();
    let proxy =
        Some(super::config::proxy(service)).filter(|it| it != "{}").map(|it| format!(" {it}")).unwrap_or_default();
    format!(
        "{} ({}){kind}{address} :{} tags={} @{}/{}{proxy}",
        service.id_text(),
        service.name,
        service.port,
        service.tags.join(","),
        service.create_index,
        service.modify_index
    )
}

fn check(check: &HealthCheck) -> String {
    format!("{}={}", check.check_id.as_ref().map_or("", |id| id.as_str()), check.status)
}

fn intention(it: &Intention) -> String {
    format!(
        "{} -> {}: {:?} ({}) @{}/{} made {} changed {}",
        it.source.name,
        it.destination,
        it.source.action,
        it.source.precedence,
        it.create_index,
        it.modify_index,
        it.source.created_at.0,
        it.source.updated_at.0
    )
}

fn entry_rows(entry: &lictor_types::ServiceIntentions) -> Vec<String> {
    let sources: Vec<String> =
        entry.sources.iter().map(|it| format!("{} {:?} ({})", it.name, it.action, it.precedence)).collect();
    vec![format!("{}: {} @{}/{}", entry.name, sources.join(", "), entry.create_index, entry.modify_index)]
}
