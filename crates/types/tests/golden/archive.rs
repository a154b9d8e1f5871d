//! The bytes of what carries snapshots, pinned for ever; see `golden.rs`.

use std::collections::BTreeMap;

use lictor_types::archive::{
    RestoreCommit, RestorePart, RestoreWrite, SnapshotOpen, SnapshotOpened, SnapshotPiece, SnapshotRead, Usage,
};
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Command, Index};

use super::check;

#[test]
fn what_carries_snapshots_keeps_its_bytes() {
    let id = [7; 16];
    let part = RestorePart { id, sequence: 3, bytes: vec![0xa0], continues: true };
    check("command-restore-part", Command::RestorePart(part));
    check("command-restore-commit", Command::RestoreCommit(RestoreCommit { id, parts: 4 }));
    check("command-restore-abort", Command::RestoreAbort(id));
    check("operation-snapshot-open", Operation::SnapshotOpen(SnapshotOpen { id, stale: true }));
    check("operation-snapshot-read", Operation::SnapshotRead(SnapshotRead { id, piece: 2 }));
    check("operation-restore-open", Operation::RestoreOpen(id));
    check("operation-restore-write", Operation::RestoreWrite(RestoreWrite { id, piece: 2, bytes: vec![1, 2] }));
    check("operation-restore-finish", Operation::RestoreFinish(id));
    check("operation-usage", Operation::Usage);
    let opened = SnapshotOpened { index: Index(9), last_contact_millis: 5, known_leader: true };
    check("report-snapshot-opened", Report::SnapshotOpened(opened));
    check("report-snapshot-piece", Report::SnapshotPiece(SnapshotPiece { bytes: vec![1], end: false }));
    check("report-restored", Report::Restored(Some(Index(12))));
    let usage = Usage {
        nodes: 1,
        services: 2,
        service_instances: 3,
        connect_instances: BTreeMap::from([("connect-proxy".to_owned(), 1)]),
        billable_instances: 4,
        keys: 5,
        intentions: 6,
        checks: 7,
        index: Index(8),
    };
    check("report-usage", Report::Usage(usage));
}
