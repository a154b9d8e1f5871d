//! The words for sessions, locks and transactions.
//!
//! A transaction is one line, its operations apart by ` ; `: `txn set a 1 ; check-index b index=3 ; node-get n1`.

use lictor_types::command::BoundedSession;
use lictor_types::session::{ServiceCheck, SessionBehavior, SessionDestroy};
use lictor_types::transaction::{
    CheckOperation, KvOperation, NodeOperation, RowVerb, ServiceOperation, TransactionKvVerb, TransactionOperation,
};
use lictor_types::{CheckStatus, Command, HealthCheck, Index, KvVerb, Node, NodeService, Query, Session, Transaction};

use super::{Arguments, kv};

pub(super) fn query_of(arguments: &Arguments<'_>, line: &str) -> Option<Query> {
    let first = arguments.word(1);
    Some(match (arguments.word(0), first) {
        ("sessions", "") => Query::Sessions,
        ("sessions", "on") => Query::NodeSessions(arguments.word(2).parse().unwrap()),
        ("session", _) => Query::Session(first.into()),
        ("look", _) => Query::Transaction(operations(&line["look ".len()..])),
        _ => return None,
    })
}

pub(super) fn command_of(arguments: &Arguments<'_>, line: &str) -> Option<Command> {
    let first = arguments.word(1);
    let session = || arguments.named.get("session").copied().unwrap_or_default().to_owned();
    Some(match arguments.word(0) {
        // create-session ID [least=SECONDS] ...
        "create-session" => match arguments.number("least") {
            None => Command::SessionCreate(new_session(first, arguments)),
            Some(least) => Command::SessionCreateWithin(BoundedSession {
                session: new_session(first, arguments),
                ttl_min_nanos: least * 1_000_000_000,
            }),
        },
        "destroy" => Command::SessionDestroy(SessionDestroy {
            id: first.into(),
            authorized_node: arguments.named.get("seen").map(|node| (*node).to_owned()),
        }),
        "expire" => Command::SessionsExpire(arguments.words[1..].iter().map(|id| (*id).to_owned()).collect()),
        "lock" => kv(KvVerb::Lock(session()), arguments),
        "unlock" => kv(KvVerb::Unlock(session()), arguments),
        "txn" => Command::Transaction(Transaction::new(operations(&line["txn ".len()..]))),
        _ => return None,
    })
}

fn new_session(id: &str, arguments: &Arguments<'_>) -> Session {
    let check = |id: String| ServiceCheck { id, namespace: String::new() };
    Session {
        id: id.into(),
        name: String::new(),
        node: arguments.named.get("node").copied().unwrap_or("n1").parse().unwrap(),
        lock_delay: arguments.number("delay").unwrap_or(0) * 1_000_000_000,
        behavior: if arguments.has("deletes") { SessionBehavior::Delete } else { SessionBehavior::Release },
        ttl: arguments.named.get("ttl").copied().unwrap_or_default().into(),
        node_checks: arguments.list("checks"),
        service_checks: arguments.list("service-checks").into_iter().map(check).collect(),
        create_index: Index(0),
        modify_index: Index(0),
    }
}

fn operations(line: &str) -> Vec<TransactionOperation> {
    line.split(" ; ").map(operation).collect()
}

fn operation(line: &str) -> TransactionOperation {
    let arguments = Arguments::new(line);
    let (word, first, second) = (arguments.word(0), arguments.word(1), arguments.word(2));
    let index = Index(arguments.number("index").unwrap_or(0));
    if let Some(verb) = word.strip_prefix("node-").and_then(RowVerb::from_word) {
        let node = Node {
            id: String::new(),
            name: first.parse().unwrap(),
            address: second.into(),
            datacenter: "dc1".into(),
            tagged_addresses: Default::default(),
            meta: Default::default(),
            create_index: Index(0),
            modify_index: index,
            locality: None,
        };
        return TransactionOperation::Node(NodeOperation { verb, node });
    }
    if let Some(verb) = word.strip_prefix("service-").and_then(RowVerb::from_word) {
        let mut service = NodeService::new(second.parse().unwrap());
        service.port = arguments.number("port").unwrap_or(0) as u16;
        service.modify_index = index;
        let node = first.parse().unwrap();
        return TransactionOperation::Service(Box::new(ServiceOperation { verb, node, service }));
    }
    let check_verb = word.strip_prefix("health-").and_then(RowVerb::from_word);
    if let Some(verb) = check_verb {
        let status = arguments.named.get("status").map_or(CheckStatus::Passing, |status| status.parse().unwrap());
        let mut check = HealthCheck::new(second.parse().unwrap(), second, status, "");
        check.service_id = arguments.named.get("service").copied().unwrap_or_default().into();
        check.modify_index = index;
        let node = first.parse().unwrap();
        return TransactionOperation::Check(Box::new(CheckOperation { verb, node, check }));
    }
    if word == "destroy" {
        return TransactionOperation::SessionDelete(first.into());
    }
    TransactionOperation::Kv(KvOperation {
        verb: TransactionKvVerb::from_word(word).unwrap_or_else(|| panic!("{word:?} is no operation")),
        key: first.into(),
        value: second.as_bytes().to_vec(),
        flags: arguments.number("flags").unwrap_or(0),
        index,
        session: arguments.named.get("session").copied().unwrap_or_default().into(),
    })
}
