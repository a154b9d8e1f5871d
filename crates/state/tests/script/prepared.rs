//! The words about prepared queries.

use lictor_types::prepared_query::{
    PreparedQuery, PreparedQueryDelete, PreparedQueryExecute, PreparedQueryFound, PreparedQuerySet,
};
use lictor_types::{CheckServiceNode, Command, Query};

use super::lookup;

pub(super) fn query_of(line: &str) -> Option<Query> {
    let mut words = line.split(' ');
    let (verb, name) = (words.next()?, words.next().unwrap_or_default().to_owned());
    Some(match verb {
        "query" => Query::PreparedQuery(name),
        "queries" => Query::PreparedQueries,
        "explain" => Query::PreparedQueryExplain(name),
        "execute" => {
            let mut execute = PreparedQueryExecute::of(name);
            // `connect`, and `near=`, `agent=` and `client=` for who asks.
            for word in words {
                match word.split_once('=') {
                    Some(("near", near)) => execute.near = Some(near.to_owned()),
                    Some(("agent", agent)) => execute.agent = Some(agent.to_owned()),
                    Some(("client", client)) => execute.client = Some(client.to_owned()),
                    _ => execute.connect |= word == "connect",
                }
            }
            Query::PreparedQueryExecute(execute)
        }
        _ => return None,
    })
}

pub(super) fn command_of(line: &str) -> Option<Command> {
    let (verb, rest) = line.split_once(' ')?;
    match verb {
        "create-query" | "update-query" => {
            let mut query: PreparedQuery = serde_json::from_str(rest).unwrap();
            // What the leader does with a token before the log.
            if !query.token.is_empty() {
                query.token_lookup = Some(lookup(&query.token));
                query.sealed_token = std::mem::take(&mut query.token).into_bytes();
            }
            let create = verb == "create-query";
            Some(Command::PreparedQuerySet(Box::new(PreparedQuerySet { query, create, authorized: None })))
        }
        "delete-query" => {
            Some(Command::PreparedQueryDelete(PreparedQueryDelete { id: rest.to_owned(), authorized: None }))
        }
        _ => None,
    }
}

pub(super) fn query(query: &PreparedQuery) -> String {
    let token = match (query.token.as_str(), query.sealed_token.as_slice()) {
        ("", []) => String::new(),
        ("", _) => " token sealed".into(),
        (token, _) => format!(" token {token}"),
    };
    format!(
        "{} {:?} for {} tags={}{token} @{}/{}",
        query.id,
        query.name,
        query.service.service,
        query.service.tags.join(","),
        query.create_index,
        query.modify_index
    )
}

pub(super) fn found(found: &PreparedQueryFound) -> Vec<String> {
    let far = |at: usize| match found.distances.as_ref().and_then(|distances| distances.get(at)) {
        None => String::new(),
        Some(&u64::MAX) => " unknown".into(),
        Some(nanos) => format!(" {} us", nanos / 1000),
    };
    let row = |(at, row): (usize, &CheckServiceNode)| format!("{} {}{}", row.node.name, row.service.id_text(), far(at));
    let origin = found.origin.as_ref().map(|origin| format!(" near {origin}")).unwrap_or_default();
    let head = format!("{} ttl={}{origin}", found.service.service, found.dns.ttl);
    std::iter::once(head).chain(found.rows.iter().enumerate().map(row)).collect()
}
