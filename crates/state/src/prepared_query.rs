//! Prepared queries: who may see and change them, and what they find.

use lictor_types::command::Effect;
use lictor_types::prepared_query::{
    HIDDEN_TOKEN, NEAR_ADDRESS, NEAR_AGENT, PreparedQuery, PreparedQueryDelete, PreparedQueryExecute,
    PreparedQueryFound, PreparedQuerySet, PreparedService,
};
use lictor_types::query::ServiceQuery;
use lictor_types::{
    Access, Answer, CheckServiceNode, CheckStatus, Index, Near, Query, Refusal, Requirement, Resource, duration,
};

use crate::access::Rules;
use crate::answer::{Filter, has_meta};
use crate::changes::{Commit, Table};
use crate::store::Store;
use crate::tables::prepared_queries::{cannot_modify, not_found};
use crate::template;

/// What storing a query requires, or why it makes no sense. That is said here, before the log, because whether a template
/// can be rendered may differ from release to release.
pub(crate) fn needs_of_set(store: &Store, command: &PreparedQuerySet) -> Result<Vec<Requirement>, Refusal> {
    let mut needs: Vec<Requirement> = command.query.access_name().map(write).into_iter().collect();
    if !command.create {
        let old = store.prepared_queries.get(&command.query.id).ok_or_else(|| cannot_modify(&command.query.id))?;
        needs.extend(old.access_name().map(write));
    }
    needs.dedup();
    check(&command.query)?;
    Ok(needs)
}

/// What removing a query requires.
pub(crate) fn needs_of_delete(store: &Store, command: &PreparedQueryDelete) -> Result<Vec<Requirement>, Refusal> {
    let old = store.prepared_queries.get(&command.id).ok_or_else(|| cannot_modify(&command.id))?;
    Ok(old.access_name().map(write).into_iter().collect())
}

fn write(name: &str) -> Requirement {
    Requirement::write(Resource::Query, name)
}

/// Whether a query makes sense by itself.
fn check(query: &PreparedQuery) -> Result<(), Refusal> {
    let invalid = |text: String| Err(Refusal::failed(format!("Invalid prepared query: {text}")));
    let service = &query.service;
    let failover = &service.failover;
    if query.access_name().is_none() && query.session.is_empty() {
        return invalid("Must be bound to a session".into());
    }
    if query.token == HIDDEN_TOKEN {
        return invalid(format!(
            "Bad Token '{HIDDEN_TOKEN}', it looks like a query definition with a redacted token was submitted"
        ));
    }
    if service.service.is_empty() {
        return invalid("Must provide a Service name to query".into());
    }
    if failover.nearest_n < 0 {
        return invalid(format!("Bad NearestN '{}', must be >= 0", failover.nearest_n));
    }
    if (failover.nearest_n != 0 || !failover.datacenters.is_empty()) && !failover.targets.is_empty() {
        return invalid("Targets cannot be populated with NearestN or Datacenters".into());
    }
    if !service.peer.is_empty() || failover.targets.iter().any(|target| !target.peer.is_empty()) {
        return invalid("there are no peers here: name a datacenter, or leave Peer out".into());
    }
    if let Some(reason) = bad_ttl(&query.dns.ttl) {
        return invalid(reason);
    }
    if query.is_template() {
        template::check(query).map_err(|reason| Refusal::failed(format!("failed compiling template: {reason}")))?;
    }
    Ok(())
}

fn bad_ttl(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    match duration::parse(rest) {
        Err(_) => Some(format!("Bad DNS TTL '{text}': time: invalid duration {text:?}")),
        Ok(ttl) if !sign.is_empty() && !ttl.is_zero() => Some(format!("DNS TTL '-{}', must be >=0", ttl.as_nanos())),
        Ok(_) => None,
    }
}

/// The HMAC of the token that a question about a prepared query is answered under, where that is not the asker's. Also
/// refuses what the asker may not see.
pub(crate) fn token_of_question(store: &Store, rules: &Rules, query: &Query) -> Result<Option<[u8; 32]>, Refusal> {
    match query {
        Query::PreparedQuery(id) => {
            let found = store.prepared_queries.get(id).ok_or_else(not_found)?;
            // Who knows the id of a query without a name may see it.
            if let Some(name) = found.access_name() {
                rules.require(&Requirement::read(Resource::Query, name))?;
            }
            Ok(None)
        }
        Query::PreparedQueryExplain(name) => {
            let found = store.prepared_queries.resolve(name)?;
            rules.require(&match found.access_name() {
                Some(name) => Requirement::read(Resource::Query, name),
                None => Requirement::write(Resource::Acl, ""),
            })?;
            Ok(None)
        }
        Query::PreparedQueryExecute(it) => Ok(store.prepared_queries.resolve(&it.name)?.token_lookup),
        _ => Ok(None),
    }
}

impl Store {
    /// Stores a query; one that is bound to a session goes when the session ends, so the session must be there.
    pub(crate) fn set_prepared_query(
        &mut self,
        commit: &mut Commit,
        command: &PreparedQuerySet,
    ) -> Result<Effect, Refusal> {
        let session = &command.query.session;
        if !session.is_empty() && self.session(session).is_none() {
            return Err(Refusal::failed(format!("invalid session {session:?}")));
        }
        self.prepared_queries.set(commit, &mut self.indexes, command)
    }

    /// Answers a question about prepared queries that was let pass.
    pub(crate) fn prepared_queries(&self, filter: &mut Filter<'_>, query: &Query) -> (Index, Answer) {
        let table = &self.prepared_queries;
        let rows = match query {
            Query::PreparedQuery(id) => table.get(id).map(|query| (**query).clone()).into_iter().collect(),
            Query::PreparedQueryExplain(name) => table.resolve(name).into_iter().collect(),
            Query::PreparedQueryExecute(it) => {
                let Ok(query) = table.resolve(&it.name) else { return (Index(0), Answer::PreparedQueries(Vec::new())) };
                return (Index(0), Answer::PreparedQueryFound(Box::new(self.find(filter, query, it))));
            }
            _ => table.rows().filter(|query| may_list(filter, query)).cloned().collect::<Vec<_>>(),
        };
        let shown = rows.into_iter().map(|query| hide_token(filter, query)).collect();
        (self.indexes.of_table(Table::PreparedQueries), Answer::PreparedQueries(shown))
    }

    fn find(&self, filter: &mut Filter<'_>, query: PreparedQuery, asked: &PreparedQueryExecute) -> PreparedQueryFound {
        let PreparedQuery { service, dns, .. } = query;
        let rows = match service.service.parse() {
            Ok(name) => {
                let connect = service.connect || asked.connect;
                let instances =
                    ServiceQuery { connect, node_meta: service.node_meta.clone(), ..ServiceQuery::all(name) };
                self.health_service(filter, &instances).into_iter().filter(|row| is_wanted(&service, row)).collect()
            }
            // A rendered name that is none finds nothing.
            Err(_) => Vec::new(),
        };
        let origin = self.origin_of(asked, &service);
        let distances = origin.as_deref().and_then(|origin| self.distances(origin, &rows));
        PreparedQueryFound { service, dns, rows, origin, distances }
    }

    /// The name of the node that the nearest instances are wanted of.
    fn origin_of(&self, asked: &PreparedQueryExecute, service: &PreparedService) -> Option<String> {
        match asked.near.as_deref().unwrap_or(&service.near) {
            "" => None,
            NEAR_AGENT => asked.agent.clone(),
            NEAR_ADDRESS => {
                let client = asked.client.as_deref()?;
                self.nodes.rows().find(|node| node.address == client).map(|node| node.name.to_string())
            }
            node => Some(node.to_owned()),
        }
    }

    /// How far each row's node is, in nanoseconds; the most there is for a node without a coordinate.
    fn distances(&self, origin: &str, rows: &[CheckServiceNode]) -> Option<Vec<u64>> {
        let origin = self.origin(&Near::Node(origin.to_owned()))?;
        let distance = |row: &CheckServiceNode| {
            let there = self.coordinate(&row.node.name);
            // A duration of seconds fits; a distance between two spaces is infinite, and the cast makes the most of it.
            there.map_or(u64::MAX, |there| (origin.distance(there) * 1e9) as u64)
        };
        Some(rows.iter().map(distance).collect())
    }
}

/// A query without a name is shown to nobody but who may see everything.
fn may_list(filter: &mut Filter<'_>, query: &PreparedQuery) -> bool {
    if is_management(filter) {
        return true;
    }
    query.access_name().is_some_and(|name| filter.may_read(Resource::Query, name))
}

fn is_management(filter: &Filter<'_>) -> bool {
    filter.rules.permits(Resource::Acl, "", Access::Write)
}

/// The token stays sealed for who may see it; for all others there is only that there is one.
fn hide_token(filter: &Filter<'_>, mut query: PreparedQuery) -> PreparedQuery {
    if query.has_token() && !is_management(filter) {
        query.token = HIDDEN_TOKEN.into();
        query.sealed_token = Vec::new();
    }
    query.token_lookup = None;
    query
}

fn is_wanted(wanted: &PreparedService, row: &CheckServiceNode) -> bool {
    let counts = |id: &str| !wanted.ignore_check_ids.iter().any(|ignored| ignored == id);
    let is_well =
        row.checks.iter().filter(|check| check.check_id.as_ref().is_none_or(|id| counts(id.as_str()))).all(|check| {
            match check.status {
                CheckStatus::Passing => true,
                CheckStatus::Warning => !wanted.only_passing,
                CheckStatus::Critical => false,
            }
        });
    let has_tag = |tag: &str| row.service.tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
    let fits = |tag: &String| tag.strip_prefix('!').map_or_else(|| has_tag(tag), |other| !has_tag(other));
    is_well && has_meta(&row.service.meta, &wanted.service_meta) && wanted.tags.iter().all(fits)
}
