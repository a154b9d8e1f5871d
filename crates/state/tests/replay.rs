//! Same log, same bytes: random commands, applied on two stores of which one goes through a snapshot now and then.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeMap;

use lictor_state::Store;
use lictor_state::access::{Authorized, Duty};
use lictor_types::command::{
    Deregistration, Effect, IntentionDelete, IntentionUpsert, KvCommand, LoginRenewal, NameRight, NodeLogin,
    Registration, ServiceClaim,
};
use lictor_types::query::{KeysQuery, ServiceQuery};
use lictor_types::token::JoinToken;
use lictor_types::{
    Action, Answer, CheckStatus, Command, Envelope, HealthCheck, Index, KvVerb, Query, SourceIntention, Timestamp,
    Token,
};

/// SplitMix64: enough chance for tests, the same on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

const NODES: [&str; 4] = ["n1", "N1", "n2", "n3"];
const SERVICES: [&str; 3] = ["web", "db", "Web"];
const KEYS: [&str; 8] = ["a", "a/", "a/b", "a/b/c", "a/bc", "b", "b/é", "c"];

fn kv(chance: &mut Chance) -> Command {
    let index = Index(chance.below(40));
    let verb = match chance.below(8) {
        0 => KvVerb::Delete,
        1 => KvVerb::DeleteCas(index),
        2 => KvVerb::Cas(index),
        3 if chance.one_in(4) => KvVerb::DeleteTree,
        _ => KvVerb::Set,
    };
    let value = chance.below(3).to_string().into_bytes();
    Command::Kv(KvCommand { verb, key: chance.pick(&KEYS).into(), value, flags: chance.below(2) })
}

fn registration(chance: &mut Chance) -> Command {
    let id = if chance.one_in(2) {
        String::new()
    } else {
        format!("00000000-0000-0000-0000-00000000000{}", chance.below(3))
    };
    let service = (!chance.one_in(3)).then(|| {
        let name = chance.pick(&SERVICES);
        let proxy = if chance.one_in(3) {
            format!(r#","Kind":"connect-proxy","Proxy":{{"DestinationServiceName":"{}"}}"#, chance.pick(&SERVICES))
        } else {
            String::new()
        };
        let text = format!(
            r#"{{"ID":"id{}","Service":"{name}","Port":{},"Tags":["t{}"]{proxy}}}"#,
            chance.below(3),
            chance.below(2),
            chance.below(2)
        );
        serde_json::from_str(&text).unwrap()
    });
    let checks = (0..chance.below(3))
        .map(|_| {
            let status = [CheckStatus::Passing, CheckStatus::Warning, CheckStatus::Critical][chance.below(3) as usize];
            let id = chance.pick(&["serfHealth", "c1", "c2"]).parse().unwrap();
            let mut check = HealthCheck::new(id, "check", status, "");
            if chance.one_in(2) {
                check.service_id = format!("id{}", chance.below(3));
            }
            check
        })
        .collect();
    Command::Register(Box::new(Registration {
        id,
        node: chance.pick(&NODES).parse().unwrap(),
        address: format!("10.0.0.{}", chance.below(2)),
        datacenter: "dc1".into(),
        tagged_addresses: BTreeMap::new(),
        node_meta: BTreeMap::new(),
        service,
        check: None,
        checks,
        skip_node_update: chance.one_in(3),
        locality: None,
    }))
}

fn deregistration(chance: &mut Chance) -> Command {
    Command::Deregister(Deregistration {
        node: chance.pick(&NODES).parse().unwrap(),
        service_id: chance.one_in(2).then(|| format!("id{}", chance.below(3)).parse().unwrap()),
        check_id: chance.one_in(2).then(|| chance.pick(&["c1", "c2"]).parse().unwrap()),
        authorized_service: chance.one_in(3).then(|| chance.pick(&SERVICES).into()),
    })
}

fn token(chance: &mut Chance, now: u64) -> Command {
    let number = chance.below(4) as u8;
    Command::TokenSet(Token {
        accessor_id: format!("accessor{}", chance.below(4)),
        lookup: [number; 32],
        sealed_secret: vec![number],
        description: String::new(),
        management: chance.one_in(4),
        service_identities: vec![chance.pick(&SERVICES).into()],
        node_identities: Vec::new(),
        create_time: Timestamp(now),
        expiration_time: chance.one_in(2).then(|| Timestamp(now + chance.below(600_000))),
        create_index: Index(0),
        modify_index: Index(0),
        login_node: chance.one_in(2).then(|| chance.pick(&NODES).into()),
        login_node_id: chance.one_in(2).then(|| chance.pick(&["i1", "i2"]).into()),
    })
}

fn login(chance: &mut Chance, now: u64, lookup: [u8; 32]) -> Command {
    if chance.one_in(3) {
        let node = chance.pick(&NODES).parse().unwrap();
        return Command::LoginRenew(LoginRenewal { node, expiration_time: Timestamp(now + chance.below(600_000)) });
    }
    let Command::TokenSet(mut token) = token(chance, now) else { unreachable!("a token is set") };
    token.login_node = Some(chance.pick(&NODES).into());
    let right = [NameRight::FirstCome, NameRight::Named, NameRight::Proven][chance.below(3) as usize];
    Command::NodeLogin(Box::new(NodeLogin { token, join_token: chance.one_in(2).then(|| lookup.into()), right }))
}

fn command(chance: &mut Chance, now: u64) -> Command {
    let lookup = [chance.below(3) as u8; 32];
    match chance.below(17) {
        0..5 => kv(chance),
        5..9 => registration(chance),
        9 | 10 => deregistration(chance),
        11 => Command::IntentionUpsert(IntentionUpsert {
            destination: chance.pick(&["db", "*", "web"]).into(),
            source: SourceIntention {
                name: chance.pick(&["web", "*", "bad*"]).into(),
                action: if chance.one_in(2) { Action::Allow } else { Action::Deny },
                precedence: 0,
                kind: String::new(),
                description: String::new(),
                created_at: Timestamp(0),
                updated_at: Timestamp(0),
            },
        }),
        12 => Command::IntentionDelete(IntentionDelete {
            destination: chance.pick(&["db", "*", "web"]).into(),
            source: chance.pick(&["web", "*"]).into(),
        }),
        13 => token(chance, now),
        14 if chance.one_in(2) => Command::JoinTokenUse(lookup),
        14 => Command::JoinTokenSet(JoinToken {
            lookup,
            services: Vec::new(),
            reusable: chance.one_in(2),
            expiration_time: Timestamp(now + chance.below(600_000)),
            node: chance.one_in(2).then(|| chance.pick(&NODES).parse().unwrap()),
        }),
        15 => login(chance, now, lookup),
        _ if chance.one_in(2) => Command::ServerRemoved(chance.below(3).to_string()),
        _ => Command::ServiceClaim(ServiceClaim {
            service: chance.pick(&SERVICES).into(),
            namespace: chance.pick(&["one", "two"]).into(),
        }),
    }
}

fn envelopes(seed: u64, count: u64) -> Vec<Envelope> {
    let mut chance = Chance(seed);
    let mut now = 1_000_000;
    (0..count)
        .map(|number| {
            now += if chance.one_in(20) { chance.below(400_000) } else { chance.below(10) };
            let number = if chance.one_in(10) { number.saturating_sub(chance.below(5)) } else { number };
            let mut request_id = [0; 16];
            request_id[..8].copy_from_slice(&number.to_be_bytes());
            Envelope { request_id, leader_time: Timestamp(now), command: command(&mut chance, now) }
        })
        .collect()
}

#[test]
fn the_same_log_gives_the_same_bytes_even_over_a_snapshot() {
    for seed in 0..40 {
        let (mut one, mut other) = (Store::new(), Store::new());
        for (at, envelope) in envelopes(seed, 400).iter().enumerate() {
            if at % 97 == 96 {
                other = Store::restore(&other.snapshot()).unwrap();
            }
            assert_eq!(one.apply(envelope).outcome, other.apply(envelope).outcome, "seed {seed}, command {at}");
        }
        assert_eq!(one.snapshot(), other.snapshot(), "seed {seed}");
        assert_eq!(one.hash(), other.hash(), "seed {seed}");
    }
}

/// Every question a client may ask, about everything the random commands touch.
fn questions() -> Vec<Query> {
    let mut queries = vec![
        Query::Nodes(BTreeMap::new()),
        Query::Services(BTreeMap::new()),
        Query::Intentions,
        Query::ServiceIntentionsList,
        Query::KvList("a".into()),
        Query::KvKeys(KeysQuery { prefix: "a/b".into(), separator: "/".into() }),
    ];
    queries.extend(KEYS.map(|key| Query::KvGet(key.into())));
    for node in NODES {
        let node: lictor_types::NodeName = node.parse().unwrap();
        queries.extend([Query::Node(node.clone()), Query::NodeServices(node.clone()), Query::HealthNode(node)]);
    }
    for id in ["00000000-0000-0000-0000-000000000001", "00"] {
        queries.push(Query::NodeServices(id.parse().unwrap()));
    }
    for service in SERVICES {
        let plain = ServiceQuery::all(service.parse().unwrap());
        let connect = ServiceQuery { connect: true, ..plain.clone() };
        queries.extend([
            Query::HealthService(plain.clone()),
            Query::HealthService(connect),
            Query::HealthChecks(plain),
        ]);
    }
    queries.push(Query::IntentionMatch(lictor_types::query::IntentionMatch { by_source: false, name: "db".into() }));
    queries
}

#[test]
fn an_answer_that_differs_has_a_greater_index_and_woke_its_readers() {
    use std::pin::pin;
    use std::task::{Context, Waker};

    for seed in 100..120 {
        let published = lictor_state::published::Published::default();
        let mut store = Store::new();
        let ask = |store: &Store, query: &Query| store.answer(&Authorized::system(Duty::Reconcile, query.clone()));
        let mut asked: Vec<_> = questions()
            .into_iter()
            .map(|query| (published.watches().register(&query), ask(&store, &query), query))
            .collect();
        for (at, envelope) in envelopes(seed, 300).iter().enumerate() {
            let applied = store.apply(envelope);
            published.publish(store.clone(), &applied.changes);
            for (watch, before, query) in &mut asked {
                let after = ask(&store, query);
                let is_woken = pin!(watch.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
                assert!(after.index >= before.index, "seed {seed}, command {at}: the index of {query:?} went back");
                if after.answer != before.answer {
                    assert!(after.index > before.index, "seed {seed}, command {at}: {query:?} changed under its index");
                    assert!(is_woken, "seed {seed}, command {at}: {query:?} changed and nobody woke");
                }
                *before = after;
            }
        }
    }
}

#[test]
fn keys_behave_as_a_sorted_map() {
    for seed in 200..220 {
        let mut chance = Chance(seed);
        let mut store = Store::new();
        let mut model: BTreeMap<String, (Vec<u8>, u64, u64)> = BTreeMap::new();
        for number in 0..500_u64 {
            let mut request_id = [0; 16];
            request_id[..8].copy_from_slice(&number.to_be_bytes());
            let command = kv(&mut chance);
            let Command::Kv(KvCommand { verb, key, value, flags }) = command.clone() else { unreachable!() };
            let outcome = store.apply(&Envelope { request_id, leader_time: Timestamp(0), command }).outcome;
            let stored = model.get(&key).map(|(_, _, index)| *index);
            let holds = match verb {
                KvVerb::Cas(expected) => stored.unwrap_or(0) == expected.0,
                KvVerb::DeleteCas(expected) => stored.is_none_or(|index| index == expected.0),
                _ => true,
            };
            match verb {
                KvVerb::Set | KvVerb::Cas(_) if holds => {
                    let is_same =
                        model.get(&key).is_some_and(|(old, old_flags, _)| *old == value && *old_flags == flags);
                    if !is_same {
                        model.insert(key, (value, flags, outcome.index.0));
                    }
                }
                KvVerb::Delete | KvVerb::DeleteCas(_) if holds => drop(model.remove(&key)),
                KvVerb::DeleteTree => model.retain(|other, _| !other.starts_with(&key)),
                _ => {}
            }
            assert_eq!(outcome.effect, if holds { Effect::Applied } else { Effect::NotApplied }, "seed {seed}");
            let prefix = chance.pick(&["", "a", "a/", "a/b", "b/", "z"]);
            let query = Authorized::system(Duty::Reconcile, Query::KvList(prefix.into()));
            let Answer::KvEntries(entries) = store.answer(&query).answer else { panic!("another answer") };
            let found: Vec<_> =
                entries.into_iter().map(|it| (it.key, (it.value, it.flags, it.modify_index.0))).collect();
            let expected: Vec<_> = model.clone().into_iter().filter(|(key, _)| key.starts_with(prefix)).collect();
            assert_eq!(found, expected, "seed {seed}, command {number}, prefix {prefix:?}");
        }
    }
}
