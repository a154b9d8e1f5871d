//! What servers of release 0.1.0 had in their logs and snapshots: later releases must read both, and make of the log the state
//! that is in the snapshot.
//!
//! The log holds every kind of command that the release knows, so every table of the state has rows. Both files were written
//! once, by `LICTOR_BLESS=1`; what is there is never written again. A later release adds files of its own beside them.

use std::mem::Discriminant;
use std::path::{Path, PathBuf};

use lictor_state::Store;
use lictor_types::archive::{RestoreCommit, RestorePart};
use lictor_types::command::ClusterIdentity;
use lictor_types::{Command, Envelope, encoding};
use minicbor::bytes::ByteVec;

use super::Runner;

/// Kinds of commands that the release knows.
const KINDS: usize = 35;

/// Before and after the first restore, in the words of the scripts.
const BEGINNING: &str = r#"
time 1767225600
set before/restore 1
"#;
const LINES: &str = r#"
time 1767225700
set app/a one flags=7
set app/b two
set app/a uno cas=7
set app/gone 1
delete app/gone
set tree/x 1
delete-tree tree/
ca-create one
ca-configure leaf=3600 csr=20
claim web for team-a
register {"Node":"n1","ID":"11111111-2222-3333-4444-555555555555","Address":"10.0.0.1","TaggedAddresses":{"lan":"10.0.0.1"},"NodeMeta":{"rack":"a"},"Locality":{"Region":"r","Zone":"z"},"Service":{"ID":"web1","Service":"web","Port":80,"Tags":["v1"],"Meta":{"v":"1"},"Weights":{"Passing":3,"Warning":1}},"Check":{"CheckID":"web","Name":"web","ServiceID":"web1","Status":"passing","Output":"ok","Definition":{"HTTP":"http://10.0.0.1/","Interval":"10s"}}}
register {"Node":"n1","Address":"10.0.0.1","Check":{"CheckID":"mood","Name":"mood","Status":"warning"},"SkipNodeUpdate":true}
register {"Node":"n2","Address":"10.0.0.2","Service":{"Service":"db","Port":5432,"Connect":{"Native":true}}}
register {"Node":"n2","Address":"10.0.0.2","Service":{"Service":"web-proxy","Kind":"connect-proxy","Port":20000,"Proxy":{"DestinationServiceName":"web","Upstreams":[{"DestinationName":"db","LocalBindPort":9191}]}}}
register {"Node":"n3","Address":"10.0.0.3","Service":{"Service":"gone"}}
deregister n3 service=gone
place n1 1
place n2 5
config {"Kind":"proxy-defaults","Config":{"protocol":"http"},"MeshGateway":{"Mode":"local"}}
config {"Kind":"service-defaults","Name":"web","Protocol":"http","Meta":{"team":"a"}}
config {"Kind":"service-resolver","Name":"web","DefaultSubset":"v1","ConnectTimeout":"15s","Subsets":{"v1":{"Filter":"Service.Meta.v == 1"}}}
config {"Kind":"service-splitter","Name":"web","Splits":[{"Weight":100,"ServiceSubset":"v1"}]}
config {"Kind":"terminating-gateway","Name":"tgw","Services":[{"Name":"legacy"},{"Name":"*"}]}
config {"Kind":"service-defaults","Name":"out","Destination":{"Addresses":["10.9.9.9"],"Port":443}}
config {"Kind":"service-defaults","Name":"dropped","Protocol":"tcp"}
unconfig service-defaults dropped
virtual-ips web are=10.1.2.3
allow web to db
deny * to db
allow web to gone
forget web to gone
set-entry {"Kind":"service-intentions","Name":"api","Sources":[{"Name":"web","Action":"allow","Description":"why"}],"Meta":{"a":"b"}}
set-entry {"Name":"short","Sources":[{"Name":"web","Action":"deny"}]}
delete-entry short
create-query {"ID":"33333333-0000-4000-8000-000000000001","Name":"all","Service":{"Service":"web","Tags":["v1"],"Failover":{"NearestN":2,"Datacenters":["dc2"]}},"DNS":{"TTL":"10s"}}
create-query {"ID":"33333333-0000-4000-8000-000000000002","Name":"short","Service":{"Service":"db"}}
update-query {"ID":"33333333-0000-4000-8000-000000000001","Name":"all","Service":{"Service":"web","OnlyPassing":true}}
delete-query 33333333-0000-4000-8000-000000000002
set-autopilot quorum=3 keep-dead
token web services=web secret=web-secret expires=1999999999
token boss management
token brief services=db
delete-token brief
join-token open services=web reusable expires=1999999999
join-token once services=db expires=1999999999
use-join-token once
login pod-token as pod-1 named id=44444444-0000-4000-8000-000000000001 expires=1999999999
renew pod-1 expires=1999999998
create-session s-held ttl=30s delay=15 checks=mood
create-session s-delayed delay=60 ttl=40s
create-session s-deletes deletes
create-session s-short ttl=2s least=1
create-session s-destroyed
destroy s-destroyed
lock locks/held holder session=s-held
lock locks/delayed holder session=s-delayed
lock locks/freed holder session=s-held
unlock locks/freed nobody session=s-held
expire s-delayed s-short
lock locks/deleted holder session=s-deletes
txn set app/c 3 ; lock locks/second holder session=s-held ; service-set n1 late port=81 ; health-set n1 late status=critical service=late ; node-set n4 10.0.0.4
txn set app/never 1 ; check-not-exists app/a
as web-secret
register {"Node":"n2","Service":{"ID":"web2","Service":"web","Port":80},"SkipNodeUpdate":true}
as system
request 77
set app/once 1
request 77
set app/once 1
"#;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/release-0.1.0")
}

fn part(id: u8, bytes: Vec<u8>) -> Command {
    Command::RestorePart(RestorePart { id: [id; 16], sequence: 0, bytes, continues: false })
}

/// Says every line, and what came of it.
fn lines(runner: &mut Runner, text: &str) -> Vec<String> {
    let said = |line: &str| runner.line(line).into_iter().map(|told| format!("{line}\n    {told}")).collect::<Vec<_>>();
    text.lines().filter(|line| !line.is_empty()).flat_map(said).collect()
}

/// The log as release 0.1.0 wrote it.
fn write() -> (Vec<ByteVec>, Store) {
    let mut runner = Runner::default();
    let mut said = lines(&mut runner, BEGINNING);
    let other = runner.store.snapshot();
    let identity =
        ClusterIdentity { cluster_id: "55555555-0000-4000-8000-000000000001".into(), seal_key_id: "k".into() };
    for command in [
        part(1, other.clone()),
        Command::RestoreCommit(RestoreCommit { id: [1; 16], parts: 1 }),
        Command::ClusterInitialize(identity),
        Command::ServerRemoved("gone".into()),
    ] {
        said.extend(runner.apply(command));
    }
    said.extend(lines(&mut runner, LINES));
    for command in [part(2, other.clone()), Command::RestoreAbort([2; 16]), Command::StateCompare, part(3, other)] {
        said.extend(runner.apply(command));
    }
    println!("{}", said.join("\n"));
    (runner.log.iter().map(|bytes| bytes.clone().into()).collect(), runner.store)
}

#[test]
fn the_log_of_release_0_1_0_makes_the_state_of_its_snapshot() {
    if std::env::var_os("LICTOR_BLESS").is_some() && !golden().exists() {
        let (log, store) = write();
        std::fs::create_dir_all(golden()).unwrap();
        std::fs::write(golden().join("log.cbor"), encoding::encode(&log)).unwrap();
        std::fs::write(golden().join("snapshot.cbor"), store.snapshot()).unwrap();
    }
    let read = |name: &str| std::fs::read(golden().join(name)).expect("a golden file");
    let log: Vec<ByteVec> = encoding::decode(&read("log.cbor")).unwrap();
    let mut store = Store::new();
    let mut kinds: Vec<Discriminant<Command>> = Vec::new();
    for bytes in &log {
        let envelope: Envelope = encoding::decode(bytes).unwrap();
        let kind = std::mem::discriminant(&envelope.command);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
        store.apply(&envelope);
    }
    assert_eq!(kinds.len(), KINDS, "every kind of command is in the log");
    let restored = Store::restore(&read("snapshot.cbor")).unwrap();
    assert_eq!(restored.index(), store.index());
    assert_eq!(restored.snapshot(), store.snapshot());
    assert!(restored.is_removed_server("gone"));
    assert!(restored.session("s-held").is_some() && restored.session("s-delayed").is_none());
}

/// What the snapshot of release 0.1.0 holds still does what it did: locks, their delays, and all that answers.
#[test]
fn a_server_goes_on_from_the_snapshot_of_release_0_1_0() {
    let bytes = std::fs::read(golden().join("snapshot.cbor")).expect("a golden file");
    let mut runner = Runner {
        store: Store::restore(&bytes).unwrap(),
        time: 1_767_225_701_000,
        requests: 5_000,
        ..Runner::default()
    };
    let mut ask = |line: &str| runner.line(line).join(" / ");
    let told: Vec<String> = [
        "get app/a",
        "create-session fresh",
        "lock locks/delayed mine session=fresh",
        "lock locks/held mine session=fresh",
        "lock locks/freed mine session=fresh",
        "session s-held",
        "virtual web",
        "virtual db",
        "query 33333333-0000-4000-8000-000000000001",
        "config-entry service-defaults web",
        "health web",
        "coordinates",
        "autopilot",
        "entry db",
        "ca-settings",
    ]
    .into_iter()
    .map(|line| format!("{line}: {}", ask(line)))
    .collect();
    assert_eq!(told, TOLD.trim().lines().collect::<Vec<_>>());
}

const TOLD: &str = r#"
get app/a: [9] app/a = uno @7/9
create-session fresh: @75 applied
lock locks/delayed mine session=fresh: @76 not applied
lock locks/held mine session=fresh: @77 not applied
lock locks/freed mine session=fresh: @78 applied
session s-held: [55] s-held on n1 checks=mood ttl=30s delay=15s @55/55
virtual web: [33] web 240.0.0.2 manual=10.1.2.3 @20/33
virtual db: [19] db 240.0.0.1 manual= @19/19
query 33333333-0000-4000-8000-000000000001: [44] 33333333-0000-4000-8000-000000000001 "all" for web tags= @41/43
config-entry service-defaults web: [26] service-defaults/web {"Expose":{},"MeshGateway":{},"Protocol":"http","TransparentProxy":{}} @26/26
health web: [69] n1 web1 (web) :80 tags=v1 @17/17 checks: mood=warning, web=passing /     n2 web2 (web) :80 tags= @69/69 checks: 
coordinates: [24] n1 [0.001, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0] /     n2 [0.005, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
autopilot: [45] cleanup false contact 200 trailing 250 quorum 3 stabilization 10000 create 45 modify 45
entry db: [35] db: web Allow (9), * Deny (8) @34/35
ca-settings: [15] leaf=3600s csr=20/s @15
"#;
