//! Checks that show the health of another instance or node: an alias of its checks.
//!
//! What this agent holds itself is looked at whenever it changes; what other nodes hold is asked of the catalog, which answers
//! when it changes.

use std::sync::Arc;
use std::time::Duration;

use lictor_types::{
    Answer, Block, CheckId, CheckStatus, Consistency, Credential, Freshness, HealthCheck, Index, NodeName, Query,
    Refusal,
};

use super::definition::CheckDefinition;
use super::probe::Finding;
use super::{Local, cut};

/// After a change of ours, before it is looked at: many come together.
const SETTLE: Duration = Duration::from_millis(50);
/// How long the catalog may keep a question that waits for a change.
const WAIT: Duration = Duration::from_secs(60);
/// Between two questions to the catalog, whatever it answers.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of an output that an alias shows: a ring of aliases must not make it longer at every turn.
const OUTPUT_BYTES_MAX: usize = 1024;
/// The kind of such a check.
const ALIAS: &str = "alias";
/// Before the catalog is asked again after it could not answer; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest wait before the catalog is asked again.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Whose health is shown.
pub(super) struct Alias {
    /// Another node; none for our own.
    node: Option<NodeName>,
    /// An instance there; empty for the node alone.
    service: String,
    token: Credential,
}

impl Alias {
    /// What a definition is an alias of, seen from the node `own`; none if it is none.
    pub(super) fn of(definition: &CheckDefinition, own: &NodeName) -> Option<Self> {
        let node = definition.alias_node.parse::<NodeName>().ok();
        let node = node.filter(|node| !node.as_str().eq_ignore_ascii_case(own.as_str()));
        let (service, token) = (definition.alias_service.clone(), definition.token.clone());
        definition.is_alias().then_some(Self { node, service, token })
    }
}

/// Keeps the check `id` in step with what it is an alias of.
pub(super) async fn follow(local: Arc<Local>, id: CheckId, alias: Alias) {
    match &alias.node {
        None => follow_here(local, id, &alias.service).await,
        Some(node) => follow_there(local, id, node, &alias).await,
    }
}

async fn follow_here(local: Arc<Local>, id: CheckId, service: &str) {
    let mut changed = local.changed();
    let node = local.identity.node_name.as_str();
    loop {
        changed.borrow_and_update();
        let (status, output) = {
            let rows = local.rows.lock();
            let exists = service.is_empty() || rows.services.keys().any(|it| it.as_str() == service);
            let others = rows.checks.iter().filter(|(other, _)| **other != id).map(|(_, row)| &row.check);
            health_of(others, service, exists, node)
        };
        local.observe(&id, status, &output).await;
        if changed.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
    }
}

async fn follow_there(local: Arc<Local>, id: CheckId, node: &NodeName, alias: &Alias) {
    let (mut after, mut retry) = (Index(0), RETRY_MIN);
    loop {
        match look(&local, node, alias, after).await {
            Ok((index, (status, output))) => {
                (after, retry) = (index, RETRY_MIN);
                local.observe(&id, status, &output).await;
                tokio::time::sleep(PAUSE).await;
            }
            Err(refusal) => {
                let output = format!("Failure checking the health of node {node}: {refusal}");
                local.observe(&id, CheckStatus::Critical, &output).await;
                after = Index(0);
                tokio::time::sleep(retry + Duration::from_millis(local.rng.below(retry.as_millis() as u64))).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

/// The health there, once the checks have changed after this index or a while has passed.
async fn look(local: &Local, node: &NodeName, alias: &Alias, after: Index) -> Result<(Index, Finding), Refusal> {
    let datacenter = local.datacenter().await;
    let token = if alias.token.is_anonymous() { local.tokens.default() } else { alias.token.clone() };
    let block = (after > Index(0)).then_some(Block { after, wait_millis: WAIT.as_millis() as u64 });
    let freshness = Freshness { consistency: Consistency::Stale, block };
    let read = datacenter.read(&token, Query::HealthNode(node.clone()), freshness).await?;
    let Answer::Checks(checks) = read.answer else { return Err(unexpected()) };
    let has_checks = checks.iter().any(|check| check.service_id == alias.service);
    let exists = alias.service.is_empty() || has_checks || {
        let now = Freshness { block: None, ..freshness };
        match datacenter.read(&token, Query::NodeServices(node.clone()), now).await?.answer {
            Answer::NodeServices(found) => found.is_some_and(|found| found.services.contains_key(&alias.service)),
            _ => return Err(unexpected()),
        }
    };
    Ok((read.index, health_of(checks.iter(), &alias.service, exists, node.as_str())))
}

fn unexpected() -> Refusal {
    Refusal::failed("a server answered another question than was asked")
}

/// The worst of the checks of an instance and of its node, in Consul's words. Aliases about the whole node are left out: two of
/// them would keep each other critical for ever.
fn health_of<'a>(checks: impl Iterator<Item = &'a HealthCheck>, service: &str, exists: bool, node: &str) -> Finding {
    if !exists {
        return (CheckStatus::Critical, format!("Service {service} could not be found on node {node}"));
    }
    let about = checks.filter(|check| match check.service_id.as_str() {
        "" => check.kind != ALIAS,
        id => id == service,
    });
    let mut found = (CheckStatus::Passing, "No checks found.".to_owned());
    for check in about {
        if check.status > found.0 {
            let output = cut(&check.output, OUTPUT_BYTES_MAX);
            found = (check.status, format!("Aliased check {:?} failing: {output}", check.name));
        } else if found.0 == CheckStatus::Passing {
            "All checks passing.".clone_into(&mut found.1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_of_the_instance_and_its_node_is_shown() {
        let check = |name: &str, service: &str, status| HealthCheck {
            service_id: service.into(),
            ..HealthCheck::new(name.parse().unwrap(), name, status, "out")
        };
        let checks = [
            check("a", "web", CheckStatus::Passing),
            check("b", "", CheckStatus::Warning),
            check("c", "other", CheckStatus::Critical),
        ];
        let shown = |checks: &[HealthCheck], exists| health_of(checks.iter(), "web", exists, "n1");
        assert_eq!(shown(&checks, true), (CheckStatus::Warning, "Aliased check \"b\" failing: out".into()));
        let alias = HealthCheck { kind: ALIAS.into(), ..checks[1].clone() };
        assert_eq!(shown(&[alias], true), (CheckStatus::Passing, "No checks found.".into()));
        assert_eq!(shown(&checks[..1], true), (CheckStatus::Passing, "All checks passing.".into()));
        assert_eq!(shown(&[], true), (CheckStatus::Passing, "No checks found.".into()));
        let absent = (CheckStatus::Critical, "Service web could not be found on node n1".into());
        assert_eq!(shown(&checks, false), absent);
    }
}
