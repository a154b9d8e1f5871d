//! Members with real sockets on loopback: what they remember over a restart, and what a stranger's bytes do to them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lictor_gossip::{Change, Config, Event, Gossip, KeyOperation, Keyring, RecordPool, Settings, Status, Timing};
use lictor_runtime::fs::RealFs;
use lictor_runtime::{Resolver, SystemRng, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast::Receiver;

const LIMIT: Duration = Duration::from_secs(30);

struct Member {
    gossip: Gossip,
    events: Receiver<Event>,
    tasks: Tasks,
}

async fn start(name: &str, home: &Path, change: impl FnOnce(&mut Settings)) -> Member {
    let any = "127.0.0.1:0".parse().expect("an address");
    let mut config = Config::new(name, any);
    config.timing = Timing { broadcast_timeout: Duration::from_secs(1), ..Timing::local() };
    let mut settings = Settings {
        config,
        bind: any,
        snapshot: Some(home.join(format!("{name}.snapshot"))),
        rejoin_after_leave: false,
        keyring_file: Some(home.join(format!("{name}.keyring"))),
        files: Arc::new(RealFs),
        rng: Arc::new(SystemRng),
        resolver: Resolver::from_system(),
        records: RecordPool::new(),
    };
    change(&mut settings);
    let tasks = Tasks::new();
    let gossip = Gossip::start(settings, &tasks).await.expect("it starts");
    Member { events: gossip.events(), gossip, tasks }
}

impl Member {
    async fn hears(&mut self, wanted: impl Fn(&Event) -> bool) {
        let heard = async {
            loop {
                if wanted(&self.events.recv().await.expect("the member runs")) {
                    return;
                }
            }
        };
        tokio::time::timeout(LIMIT, heard).await.expect("it hears of it");
    }

    async fn status(&self, name: &str) -> Option<Status> {
        let name = name.to_owned();
        self.gossip.with_core(move |core, _| core.member(&name).map(|it| it.status)).await.expect("the member runs")
    }

    async fn stop(self) {
        assert!(self.tasks.stop(LIMIT).await);
    }
}

fn joined(name: &'static str) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Member { change: Change::Joined, member } if member.record.name() == name)
}

#[tokio::test]
async fn who_starts_again_joins_those_it_knew_and_who_left_does_not() {
    let home = tempfile::tempdir().unwrap();
    let mut one = start("one", home.path(), |_| {}).await;
    let two = start("two", home.path(), |_| {}).await;
    assert_eq!(two.gossip.join(&[one.gossip.address().to_string()], false).await.unwrap(), 1);
    one.hears(joined("two")).await;
    two.gossip.user_event("told", b"once", false).await.unwrap();
    one.hears(|event| matches!(event, Event::User { .. })).await;
    let address = two.gossip.address();
    two.stop().await;

    // The same place, nobody told it of the other: it remembers.
    let again = |settings: &mut Settings| {
        settings.bind = address;
        settings.config.address = address;
    };
    let mut two = start("two", home.path(), again).await;
    two.hears(joined("one")).await;
    assert_eq!(two.status("one").await, Some(Status::Alive));
    let old = tokio::time::timeout(Duration::from_millis(500), two.hears(|it| matches!(it, Event::User { .. }))).await;
    assert!(old.is_err(), "an event that was told in its earlier life is not told again");
    two.gossip.leave().await.unwrap();
    two.stop().await;
    one.hears(|event| matches!(event, Event::Member { change: Change::Left, .. })).await;

    let two = start("two", home.path(), again).await;
    let alone = two.gossip.members().await.unwrap();
    assert_eq!(alone.len(), 1, "who left comes back when it is told to: {alone:?}");
    let snapshot = std::fs::read_to_string(home.path().join("two.snapshot")).unwrap();
    assert!(snapshot.contains(&format!("alive: one {}", one.gossip.address())) && snapshot.contains("\nleave\n"));
    two.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn changed_keys_are_in_the_file_before_the_answer() {
    let home = tempfile::tempdir().unwrap();
    let (old, new) = ("T9jncgl9mbLus+baTTa7q7nPSUrXwbDi2dhbtqir37s=", "cg8StVXbQJ0gPvMd9o7yrg==");
    let one = start("one", home.path(), |settings| {
        settings.config.keyring = Some(Keyring::from_base64(&[old]).unwrap());
    })
    .await;
    let report = one.gossip.change_keys(KeyOperation::Install, new, 0).await.unwrap();
    assert_eq!((report.members, report.responses, report.errors), (1, 1, 0));
    let kept = |text: String| serde_json::from_str::<Vec<String>>(&text).unwrap();
    assert_eq!(kept(std::fs::read_to_string(home.path().join("one.keyring")).unwrap()), [old, new]);
    assert!(one.gossip.change_keys(KeyOperation::Remove, old, 0).await.is_err(), "the primary stays");
    assert!(one.gossip.change_keys(KeyOperation::Install, "short", 0).await.is_err());
    one.stop().await;
}

#[tokio::test]
async fn a_stranger_gets_no_memory_and_the_pool_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let mut one = start("one", home.path(), |_| {}).await;
    let address = one.gossip.address();
    // Announces 20 MiB and sends nothing; sends noise; sends half a message.
    let mut held = Vec::new();
    for opening in [&[10u8, 1, 0x40, 0, 0][..], &[0xff; 64], &[6, 0x83, 0xa4, b'J']] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(opening).await.unwrap();
        held.push(stream);
    }
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for packet in [&[0u8][..], &[7, 255], &[9, 0x82], &[244, 9, b'x'], &[99; 1200]] {
        socket.send_to(packet, address).await.unwrap();
    }
    // Noise is closed at once, the others when their time is over.
    let closed = tokio::time::timeout(LIMIT, held[1].read(&mut [0; 16])).await.expect("it is closed");
    assert!(matches!(closed, Ok(0) | Err(_)));
    let two = start("two", home.path(), |_| {}).await;
    two.gossip.join(&[address.to_string()], false).await.unwrap();
    one.hears(joined("two")).await;
    let refused = two.gossip.join(&["127.0.0.1:1".to_owned()], false).await.unwrap_err();
    assert!(refused.to_string().contains("Failed to join 127.0.0.1:1"), "{refused}");
    two.stop().await;
    one.stop().await;
}
