//! The tables, one file each: rows behind `Arc` in persistent ordered maps, so that a clone of all of them is cheap.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

pub(crate) mod checks;
pub(crate) mod cluster;
pub(crate) mod config_entries;
pub(crate) mod coordinates;
pub(crate) mod intentions;
pub(crate) mod kv;
pub(crate) mod lock_delays;
pub(crate) mod nodes;
pub(crate) mod prepared_queries;
pub(crate) mod services;
pub(crate) mod sessions;
pub(crate) mod tokens;
pub(crate) mod virtual_addresses;

/// A key of a table: cheap to clone, because maps copy their nodes.
pub(crate) type Key = Arc<str>;

/// The rows whose key starts with `prefix`, in order.
pub(crate) fn under<'a, V: Clone>(map: &'a OrdMap<Key, V>, prefix: &'a str) -> impl Iterator<Item = (&'a Key, &'a V)> {
    map.range::<_, str>((Bound::Included(prefix), Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix))
}

/// The rows of a map with three-part keys that share the first part, in order.
pub(crate) fn of_first<'a, V: Clone>(
    map: &'a OrdMap<(Key, Key, Key), V>,
    first: &str,
) -> impl Iterator<Item = (&'a (Key, Key, Key), &'a V)> + use<'a, V> {
    let first = Key::from(first);
    map.range((first.clone(), Key::from(""), Key::from(""))..).take_while(move |(key, _)| key.0 == first)
}

/// The rows of a map with two-part keys that share the first part, in order.
pub(crate) fn of_pair<'a, V: Clone>(
    map: &'a OrdMap<(Key, Key), V>,
    first: &str,
) -> impl Iterator<Item = (&'a (Key, Key), &'a V)> + use<'a, V> {
    let first = Key::from(first);
    map.range((first.clone(), Key::from(""))..).take_while(move |(key, _)| key.0 == first)
}
