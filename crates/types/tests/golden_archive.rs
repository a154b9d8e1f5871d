//! The bytes of what carries snapshots, pinned for ever; see `golden.rs`.

#![allow(clippy::unwrap_used, reason = "the whole file is a test; its names are legal or it fails")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use lictor_types::archive::{
    RestoreCommit, RestorePart, RestoreWrite, SnapshotOpen, SnapshotOpened, SnapshotPiece, SnapshotRead, Usage,
};
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Command, Index, encoding};
use minicbor::{Decode, Encode};

fn check<T>(name: &str, value: T)
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.hex"));
    let hex: String = encoding::encode(&value).iter().map(|byte| format!("{byte:02x}")).collect();
    if std::env::var_os("LICTOR_BLESS").is_some() && !path.exists() {
        fs::write(&path, format!("{hex}\n")).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let stored: Vec<u8> =
        (0..golden.trim().len() / 2).map(|at| u8::from_str_radix(&golden[2 * at..2 * at + 2], 16).unwrap()).collect();
    let read: T = encoding::decode(&stored).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read, value, "{name}: what was written then is read as something else now");
    assert_eq!(hex, golden.trim(), "{name}: the bytes have changed");
}

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
