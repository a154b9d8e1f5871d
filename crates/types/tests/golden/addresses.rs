//! The bytes of questions for the names of an address, pinned as in `golden.rs`.

use lictor_types::query::AddressNames;
use lictor_types::{Answer, Query};

use super::check;

#[test]
fn names_of_addresses_have_the_pinned_bytes() {
    check("query-address-names", Query::AddressNames("10.0.0.1".into()));
    let names = AddressNames { nodes: vec!["n1".parse().unwrap()], services: vec!["web".parse().unwrap()] };
    check("answer-address-names", Answer::AddressNames(names));
}
