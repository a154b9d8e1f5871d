//! What each command and each query requires.
//!
//! Where a registration replaces a row that belongs to another service or node, that one's right is required too.

use lictor_types::query::{IntentionMatch, IntentionQuery};
use lictor_types::service::KIND_CONNECT_PROXY;
use lictor_types::{Command, Deregistration, HealthCheck, KvVerb, Query, Refusal, Registration, Requirement, Resource};

use crate::access::Rules;
use crate::config;
use crate::prepared_query;
use crate::store::Store;
use crate::tables::nodes::node_key;

/// What `command` requires as the rows are now.
pub(crate) fn needs_of_command(store: &Store, rules: &Rules, command: &Command) -> Result<Vec<Requirement>, Refusal> {
    Ok(match command {
        Command::Register(registration) => needs_of_registration(store, registration)?,
        Command::Deregister(what) => vec![needs_of_deregistration(store, |need| rules.allows(need), what)],
        Command::Kv(kv) => {
            let resource = if kv.verb == KvVerb::DeleteTree { Resource::KeyPrefix } else { Resource::Key };
            vec![Requirement::write(resource, kv.key.as_str())]
        }
        Command::IntentionsSet(it) => vec![Requirement::write(Resource::Intention, it.entry.name.as_str())],
        Command::IntentionsDelete(it) => vec![Requirement::write(Resource::Intention, it.name.as_str())],
        Command::IntentionUpsert(it) => vec![Requirement::write(Resource::Intention, it.destination.as_str())],
        Command::IntentionDelete(it) => vec![Requirement::write(Resource::Intention, it.destination.as_str())],
        Command::TokenSet(_) | Command::TokenDelete(_) | Command::JoinTokenSet(_) => {
            vec![Requirement::write(Resource::Acl, "")]
        }
        Command::AuthorityConfigure(_) | Command::AutopilotSet(_) => {
            vec![Requirement::write(Resource::Operator, "")]
        }
        Command::SessionCreate(session) => vec![Requirement::write(Resource::Session, session.node.as_str())],
        Command::SessionCreateWithin(it) => vec![Requirement::write(Resource::Session, it.session.node.as_str())],
        // A session that is not there is gone already, whoever asks.
        Command::SessionDestroy(what) => store
            .session(&what.id)
            .map(|session| Requirement::write(Resource::Session, session.node.as_str()))
            .into_iter()
            .collect(),
        // Judged operation by operation: what is denied is part of the answer.
        Command::Transaction(_) => Vec::new(),
        Command::PreparedQuerySet(it) => prepared_query::needs_of_set(store, it)?,
        Command::PreparedQueryDelete(it) => prepared_query::needs_of_delete(store, it)?,
        Command::ConfigEntrySet(it) => config::needs_of_set(it)?,
        Command::ConfigEntryDelete(it) => config::needs_of_delete(it)?,
        Command::VirtualAddressesSet(_) => vec![Requirement::write(Resource::Mesh, "")],
        Command::SessionsExpire(_)
        | Command::JoinTokenUse(_)
        | Command::ClusterInitialize(_)
        | Command::AuthorityInitialize(_)
        | Command::ServiceClaim(_)
        | Command::ServerRemoved(_)
        | Command::CoordinatesSet(_)
        | Command::RegisterWithin(_)
        | Command::NodeLogin(_)
        | Command::LoginRenew(_)
        | Command::RestorePart(_)
        | Command::RestoreCommit(_)
        | Command::RestoreAbort(_)
        | Command::StateCompare => {
            return Err(Refusal::permission_denied("only the leader itself makes this change"));
        }
    })
}

/// What `query` requires before anything is looked up; most questions are answered row by row instead.
pub(crate) fn needs_of_query(query: &Query) -> Option<Requirement> {
    match query {
        Query::Selected(it) => needs_of_query(&it.query),
        Query::KvGet(key) => Some(Requirement::read(Resource::Key, key.as_str())),
        Query::IntentionExact(IntentionQuery { destination: name, .. })
        | Query::IntentionMatch(IntentionMatch { name, .. })
        | Query::ServiceIntentions(name) => Some(Requirement::read(Resource::Intention, name.as_str())),
        Query::AuthoritySettings | Query::Autopilot => Some(Requirement::read(Resource::Operator, "")),
        Query::ConfigEntry(key) => config::needs_of_read(key),
        Query::VirtualAddress(name) => Some(Requirement::read(Resource::Service, name.as_str())),
        Query::Completed(service) => Some(Requirement::read(Resource::Service, service.name.as_str())),
        Query::DiscoveryChain(it) => Some(Requirement::read(Resource::Service, it.service.as_str())),
        Query::ExportedServices => Some(Requirement::read(Resource::Mesh, "")),
        Query::AddressNames(_)
        | Query::KvList(_)
        | Query::KvKeys(_)
        | Query::Nodes(_)
        | Query::Node(_)
        | Query::Services(_)
        | Query::ServiceNodes(_)
        | Query::NodeServices(_)
        | Query::HealthService(_)
        | Query::HealthNode(_)
        | Query::HealthChecks(_)
        | Query::HealthState(_)
        | Query::CaRoots
        | Query::Coordinates
        | Query::CoordinatesOf(_)
        | Query::Intentions
        | Query::Session(_)
        | Query::NodeSessions(_)
        | Query::Sessions
        | Query::Transaction(_)
        | Query::ServiceIntentionsList
        | Query::ConfigEntries(_)
        | Query::GatewayServices(_)
        | Query::HealthIngress(_)
        | Query::PreparedQuery(_)
        | Query::PreparedQueries
        | Query::PreparedQueryExplain(_)
        | Query::PreparedQueryExecute(_) => None,
    }
}

/// Who may write a node may take anything off it, as an agent must that tidies up after services it has no token of.
pub(crate) fn needs_of_deregistration(
    store: &Store,
    allows: impl Fn(&Requirement) -> bool,
    what: &Deregistration,
) -> Requirement {
    let node = Requirement::write(Resource::Node, what.node.as_str());
    match store.service_behind(what) {
        Some(service) if !service.is_empty() && !allows(&node) => Requirement::write(Resource::Service, service),
        _ => node,
    }
}

/// What a registration requires as the rows are now.
pub(crate) fn needs_of_registration(store: &Store, registration: &Registration) -> Result<Vec<Requirement>, Refusal> {
    let key = node_key(&registration.node);
    let mut needs = Vec::new();
    if store.node_after(registration).is_some() {
        needs.push(Requirement::write(Resource::Node, registration.node.as_str()));
        // The same id under another name: that node goes.
        if let Some(renamed) = store.nodes.by_id(&registration.id).filter(|node| node_key(&node.name) != key) {
            needs.push(Requirement::write(Resource::Node, renamed.name.as_str()));
        }
    }
    if let Some(service) = &registration.service {
        needs.push(Requirement::write(Resource::Service, service.name.as_str()));
        if service.kind == KIND_CONNECT_PROXY {
            needs.push(Requirement::write(Resource::Service, service.proxy.destination_service_name.as_str()));
        }
        if let Some(old) = store.services.get(&key, service.id_text()).filter(|old| old.name != service.name) {
            needs.push(Requirement::write(Resource::Service, old.name.as_str()));
        }
    }
    for check in registration.check.iter().chain(&registration.checks) {
        needs_of_check(store, registration, check, &mut needs)?;
    }
    needs.dedup();
    Ok(needs)
}

fn needs_of_check(
    store: &Store,
    registration: &Registration,
    check: &HealthCheck,
    needs: &mut Vec<Requirement>,
) -> Result<(), Refusal> {
    let key = node_key(&registration.node);
    let node = || Requirement::write(Resource::Node, registration.node.as_str());
    let id = check.check_id.as_ref().map_or(check.name.as_str(), |id| id.as_str());
    if check.service_id.is_empty() {
        needs.push(node());
    } else {
        let service = match &registration.service {
            Some(service) if service.id_text() == check.service_id => Some(service.name.as_str()),
            _ => store.services.get(&key, &check.service_id).map(|service| service.name.as_str()),
        };
        let Some(service) = service else {
            return Err(Refusal::failed(format!("Unknown service ID '{}' for check ID '{id}'", check.service_id)));
        };
        needs.push(Requirement::write(Resource::Service, service));
    }
    if let Some(old) = store.checks.get(&key, id).filter(|old| old.service_id != check.service_id) {
        needs.push(if old.service_id.is_empty() {
            node()
        } else {
            Requirement::write(Resource::Service, old.service_name.as_str())
        });
    }
    Ok(())
}
