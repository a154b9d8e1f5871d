//! What agents and servers say about the keys of gossip.

use std::collections::BTreeMap;

use lictor_types::keyring::{KeyringAnswer, KeyringOperation, KeyringRequest};
use lictor_types::{Credential, Operation, Report};

use super::check;

#[test]
fn what_is_said_about_the_keys_of_gossip_has_the_bytes_it_always_had() {
    check("operation-gossip-keys", Operation::GossipKeys("web-1".parse().unwrap()));
    check("report-gossip-keys", Report::GossipKeys(vec![Credential::new("k")]));
    for (name, operation) in [
        ("list", KeyringOperation::List),
        ("install", KeyringOperation::Install),
        ("use", KeyringOperation::Use),
        ("remove", KeyringOperation::Remove),
    ] {
        let asked = KeyringRequest { operation, key: Credential::new("k"), relay_factor: 2, local_only: true };
        check(&format!("operation-keyring-{name}"), Operation::Keyring(asked));
    }
    let answer = KeyringAnswer {
        wan: true,
        datacenter: "dc1".into(),
        segment: String::new(),
        messages: BTreeMap::from([("s1".to_owned(), "no".to_owned())]),
        keys: BTreeMap::from([("k".to_owned(), 3)]),
        primary_keys: BTreeMap::from([("k".to_owned(), 2)]),
        num_nodes: 3,
        error: "2/3 nodes reported success".into(),
    };
    check("report-keyring", Report::Keyring(vec![answer]));
}
