//! Who is woken by a big catalog that never rests: the readers of what changed, and nobody else.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::pin::pin;
use std::task::{Context, Waker};

use lictor_state::Store;
use lictor_state::access::{Authorized, Duty};
use lictor_state::published::Published;
use lictor_state::watches::Watch;
use lictor_types::query::ServiceQuery;
use lictor_types::{
    Command, Deregistration, Envelope, HealthCheck, Index, NodeService, Query, Registration, ServiceName, Timestamp,
};

const SERVICES: usize = 500;
const INSTANCES: usize = 20;

struct World {
    store: Store,
    published: Published,
    requests: u64,
}

impl World {
    fn apply(&mut self, command: Command) {
        self.requests += 1;
        let mut request_id = [0; 16];
        request_id[..8].copy_from_slice(&self.requests.to_be_bytes());
        let applied = self.store.apply(&Envelope { request_id, leader_time: Timestamp(0), command });
        self.published.publish(self.store.clone(), &applied.changes);
    }

    fn index(&self, query: Query) -> Index {
        self.store.answer(&Authorized::system(Duty::Reconcile, query)).index
    }
}

fn service(number: usize) -> ServiceName {
    format!("s{number}").parse().unwrap()
}

fn question(number: usize) -> Query {
    Query::HealthService(ServiceQuery::all(service(number)))
}

/// An instance on a node of its own, with a check.
fn registration(number: usize, instance: usize, output: &str) -> Command {
    let mut check: HealthCheck =
        HealthCheck::new("alive".parse().unwrap(), "alive", lictor_types::CheckStatus::Passing, output);
    check.service_id = "i".into();
    Command::Register(Box::new(Registration {
        id: String::new(),
        node: format!("n{number}-{instance}").parse().unwrap(),
        address: "10.0.0.1".into(),
        datacenter: "dc1".into(),
        tagged_addresses: std::collections::BTreeMap::new(),
        node_meta: std::collections::BTreeMap::new(),
        service: Some(NodeService { id: Some("i".parse().unwrap()), ..NodeService::new(service(number)) }),
        check: Some(check),
        checks: Vec::new(),
        skip_node_update: false,
        locality: None,
    }))
}

fn removal(number: usize, instance: usize) -> Command {
    Command::Deregister(Deregistration {
        node: format!("n{number}-{instance}").parse().unwrap(),
        service_id: None,
        check_id: None,
        authorized_service: None,
    })
}

/// How many of these were woken since the last look.
fn woken(watches: &mut [Watch]) -> usize {
    let is_woken = |watch: &mut Watch| pin!(watch.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    watches.iter_mut().map(is_woken).filter(|woken| *woken).count()
}

#[test]
fn ten_thousand_instances_wake_only_the_readers_of_their_own_service() {
    let mut world = World { store: Store::new(), published: Published::default(), requests: 0 };
    for number in 0..SERVICES {
        for instance in 0..INSTANCES {
            world.apply(registration(number, instance, "first"));
        }
    }
    // Readers of services that are there, and of ones that never were.
    let mut watches: Vec<Watch> =
        (0..SERVICES + 100).map(|number| world.published.watches().register(&question(number))).collect();
    let before: Vec<Index> = (0..SERVICES).map(|number| world.index(question(number))).collect();

    // One service churns: its readers wake, the other 599 sleep and keep their index.
    for round in 0..200 {
        world.apply(registration(7, round % INSTANCES, &format!("round {round}")));
        assert_eq!(woken(&mut watches), 1, "round {round}");
    }
    for (number, before) in before.iter().enumerate().filter(|(number, _)| *number != 7) {
        assert_eq!(world.index(question(number)), *before, "s{number}");
    }

    // Telling the same again wakes nobody.
    world.apply(registration(9, 0, "first"));
    assert_eq!(woken(&mut watches), 0);

    // A service that comes to its end wakes its own readers alone, with every instance and not once more.
    for instance in 0..INSTANCES {
        world.apply(removal(8, instance));
        assert_eq!(woken(&mut watches), 1, "instance {instance}");
    }
    let gone = world.index(question(8));
    assert!(gone > before[8]);
    // While it is gone, the churn of others neither wakes its readers nor moves its index.
    for round in 0..50 {
        world.apply(registration(7, 0, &format!("again {round}")));
    }
    assert_eq!(woken(&mut watches), 1);
    assert_eq!(world.index(question(8)), gone);
    // It comes back: its readers wake.
    world.apply(registration(8, 0, "back"));
    assert_eq!(woken(&mut watches), 1);
    assert!(world.index(question(8)) > gone);
}
