//! Sessions, locks and transactions.

use lictor_types::command::BoundedSession;
use lictor_types::session::{ServiceCheck, SessionBehavior, SessionDestroy};
use lictor_types::transaction::{
    CheckOperation, KvOperation, NodeOperation, RowVerb, ServiceOperation, TransactionError, TransactionKvVerb,
    TransactionOperation, TransactionOutcome, TransactionResult,
};
use lictor_types::{Session, Transaction};

use super::*;

fn session() -> Session {
    Session {
        id: "adf4238a-882b-9ddc-4a9d-5b6758e4159e".into(),
        name: "web".into(),
        node: "n1".parse().unwrap(),
        lock_delay: 15_000_000_000,
        behavior: SessionBehavior::Delete,
        ttl: "30s".into(),
        node_checks: vec!["serfHealth".into()],
        service_checks: vec![ServiceCheck { id: "service:web".into(), namespace: String::new() }],
        create_index: Index(4),
        modify_index: Index(4),
    }
}

fn operations() -> Vec<TransactionOperation> {
    use TransactionKvVerb as Kv;
    let keys = [
        Kv::Set,
        Kv::Cas,
        Kv::Lock,
        Kv::Unlock,
        Kv::Get,
        Kv::GetOrEmpty,
        Kv::GetTree,
        Kv::CheckIndex,
        Kv::CheckSession,
        Kv::CheckNotExists,
        Kv::Delete,
        Kv::DeleteTree,
        Kv::DeleteCas,
    ];
    let key = |verb| {
        let value = b"1".to_vec();
        TransactionOperation::Kv(KvOperation {
            verb,
            key: "a".into(),
            value,
            flags: 7,
            index: Index(3),
            session: "s".into(),
        })
    };
    let rows = [RowVerb::Get, RowVerb::Set, RowVerb::Cas, RowVerb::Delete, RowVerb::DeleteCas];
    let node_name = || "web-1.apps".parse().unwrap();
    keys.into_iter()
        .map(key)
        .chain(rows.map(|verb| TransactionOperation::Node(NodeOperation { verb, node: node() })))
        .chain([
            TransactionOperation::Service(Box::new(ServiceOperation {
                verb: RowVerb::Set,
                node: node_name(),
                service: service(),
            })),
            TransactionOperation::Check(Box::new(CheckOperation {
                verb: RowVerb::Cas,
                node: node_name(),
                check: HealthCheck::new("c".parse().unwrap(), "c", CheckStatus::Passing, ""),
            })),
            TransactionOperation::SessionDelete("s".into()),
        ])
        .collect()
}

fn outcome() -> TransactionOutcome {
    TransactionOutcome {
        results: vec![
            TransactionResult::Node(node()),
            TransactionResult::Service(Box::new(service())),
            TransactionResult::Check(Box::new(HealthCheck::new("c".parse().unwrap(), "c", CheckStatus::Warning, ""))),
            TransactionResult::Kv(KvEntry {
                lock_index: 2,
                key: "a".into(),
                flags: 0,
                value: Vec::new(),
                session: None,
                create_index: Index(1),
                modify_index: Index(3),
            }),
        ],
        errors: vec![TransactionError { op_index: 1, what: "key \"a\" exists".into() }],
    }
}

#[test]
fn sessions_and_locks() {
    let kv = |verb| Command::Kv(KvCommand { verb, key: "a".into(), value: b"1".to_vec(), flags: 7 });
    check("command-session-create", Command::SessionCreate(session()));
    let bounded = BoundedSession { session: session(), ttl_min_nanos: 5_000_000_000 };
    check("command-session-create-within", Command::SessionCreateWithin(bounded));
    check(
        "command-session-destroy",
        Command::SessionDestroy(SessionDestroy { id: "s".into(), authorized_node: Some("n1".into()) }),
    );
    check("command-sessions-expire", Command::SessionsExpire(vec!["s".into(), "t".into()]));
    check("command-kv-lock", kv(KvVerb::Lock("s".into())));
    check("command-kv-unlock", kv(KvVerb::Unlock("s".into())));
    check("query-session", Query::Session("s".into()));
    check("query-node-sessions", Query::NodeSessions("n1".parse().unwrap()));
    check("query-sessions", Query::Sessions);
    check("answer-sessions", Answer::Sessions(vec![session()]));
    check("operation-renew-session", Operation::RenewSession("s".into()));
    check("report-session", Report::Session(Some(Box::new(session()))));
    check("requirement-session", Requirement::write(Resource::Session, "n1"));
}

#[test]
fn transactions() {
    let granted = Some(vec![Requirement::write(Resource::Key, "a")]);
    let denied = vec![TransactionError { op_index: 0, what: "Permission denied: no".into() }];
    check("command-transaction", Command::Transaction(Transaction::new(operations())));
    check("command-transaction-judged", Command::Transaction(Transaction { operations: Vec::new(), granted, denied }));
    check("query-transaction", Query::Transaction(operations()));
    check("answer-transaction", Answer::Transaction(outcome()));
    check("outcome-transaction", Outcome { index: Index(9), effect: Effect::Transaction(Box::new(outcome())) });
}
