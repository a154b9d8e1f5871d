//! `?filter`, `?near` and `?merge-central-config`: which rows an answer has, in which order, and how complete.
//!
//! Questions of the datacenter carry the choice to the server that answers; lists that only this agent holds are chosen
//! from here. Both use one evaluator.

use std::net::IpAddr;

use http::request::Parts;
use lictor_filter::{Fields, Filter};
use lictor_types::{Merge, Near, NodeName, Query, Refusal, Selection};

use super::params::Params;

/// The address of the client of a connection, as the listener saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// The address of the client: the first of `X-Forwarded-For`, else that of its connection.
pub(super) fn client_address(parts: &Parts) -> Option<IpAddr> {
    let forwarded = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let first = forwarded.and_then(|list| list.split(',').next()).and_then(|it| it.trim().parse().ok());
    first.or_else(|| parts.extensions.get::<ClientAddress>().map(|it| it.0))
}

/// The node that rows are to be near to.
pub(super) fn near(params: &Params, here: &NodeName, client: Option<IpAddr>) -> Option<Near> {
    match params.text("near")? {
        "_agent" => Some(Near::Node(here.as_str().to_owned())),
        "_ip" => client.map(|address| Near::Address(address.to_string())),
        name => Some(Near::Node(name.to_owned())),
    }
}

/// `query` with the choice that the request makes among its rows.
pub(super) fn choosing(params: &Params, near: Option<Near>, query: Query) -> Result<Query, Refusal> {
    let filter = params.text("filter").unwrap_or_default().to_owned();
    let merge = params.flag("merge-central-config")?.then_some(Merge::CentralConfig);
    if filter.is_empty() && near.is_none() && merge.is_none() {
        return Ok(query);
    }
    Ok(Query::Selected(Box::new(Selection { query, filter, near, merge })))
}

/// The filter of a list that this agent holds; `None` for every row.
///
/// # Errors
/// 500 with Consul's words: it is no expression over these rows.
pub(super) fn filter<T: 'static>(
    params: &Params,
    fields: fn(&mut Fields<'_, T>),
) -> Result<Option<Filter<T>>, Refusal> {
    let compiled = params.text("filter").map(|text| Filter::compile(text, fields)).transpose();
    compiled.map_err(|error| Refusal::failed(error.to_string()))
}
