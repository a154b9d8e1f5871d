//! Our gossip and a real Serf in one pool: both see the same members, tags, events, queries, leaves, failures and keys.

mod agents;
mod library;
mod serf;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lictor_gossip::{Answer, Config, Event, Gossip, KeyOperation, Keyring, QueryOptions, RecordPool, Settings};
use lictor_gossip::{Status, Tags, Timing};
use lictor_runtime::fs::RealFs;
use lictor_runtime::{Resolver, SystemRng, Tasks};
use lictor_tests::process::next_address;
use lictor_tests::{debian, eventually};
use tokio::sync::broadcast;

use crate::library::Library;
use crate::serf::{PORT, SerfAgent};

/// How long news may take through a pool of a few, on a busy machine.
const NEWS: Duration = Duration::from_secs(20);
/// How long a death may take to be seen.
const DEATH: Duration = Duration::from_secs(60);
const FIRST_KEY: &str = "T9jncgl9mbLus+baTTa7q7nPSUrXwbDi2dhbtqir37s=";
const SECOND_KEY: &str = "cg8StVXbQJ0gPvMd9o7yrg==";
const THIRD_KEY: &str = "HvY8ubRZMgafUOWvrOadwOckVa1wN3QWAo46FVKbVN8=";

fn cache() -> PathBuf {
    std::env::var_os("LICTOR_CACHE").expect("LICTOR_CACHE names a directory; `cargo xtask test` sets it").into()
}

fn program() -> PathBuf {
    debian::SERF.program(&cache()).unwrap_or_else(|error| panic!("{error}"))
}

/// A member of ours, and what it heard.
struct Ours {
    gossip: Gossip,
    events: broadcast::Receiver<Event>,
    tasks: Tasks,
    name: String,
}

impl Ours {
    async fn start(name: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let address = format!("{}:{PORT}", next_address()).parse().expect("an address");
        let mut config = Config::new(name, address);
        config.timing = Timing::local();
        config.compress_packets = true;
        config.tags = Tags::from([("role".into(), "consul".into()), ("dc".into(), "dc1".into())]);
        let mut settings = Settings {
            config,
            bind: address,
            snapshot: None,
            rejoin_after_leave: false,
            keyring_file: None,
            files: Arc::new(RealFs),
            rng: Arc::new(SystemRng),
            resolver: Resolver::from_system(),
            records: RecordPool::new(),
        };
        change(&mut settings);
        let tasks = Tasks::new();
        let gossip = Gossip::start(settings, &tasks).await.expect("it starts");
        Self { events: gossip.events(), gossip, tasks, name: name.to_owned() }
    }

    async fn join(&self, address: &str) {
        let address = [format!("{address}:{PORT}")];
        eventually("joining", NEWS, || self.gossip.join(&address, false)).await;
    }

    fn ip(&self) -> String {
        self.gossip.address().ip().to_string()
    }

    async fn sees(&self, name: &str, status: Status) -> Result<Tags, String> {
        let members = self.gossip.members().await.map_err(|error| error.to_string())?;
        let found = members.iter().find(|it| it.record.name() == name && it.status == status);
        found
            .map(|it| it.record.tags())
            .ok_or_else(|| format!("{} does not see {name} {status:?}: {members:?}", self.name))
    }

    /// Waits for the event that `wanted` picks something from.
    async fn hears<T>(&mut self, what: &str, wanted: impl Fn(Event) -> Option<T>) -> T {
        let heard = tokio::time::timeout(NEWS, async {
            loop {
                match self.events.recv().await {
                    Ok(event) => {
                        if let Some(found) = wanted(event) {
                            return found;
                        }
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        });
        heard.await.unwrap_or_else(|_| panic!("{} did not hear {what}", self.name))
    }

    async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(5)).await);
    }
}

/// Everybody sees everybody alive.
async fn all_even(ours: &[&Ours], theirs: &[&SerfAgent]) {
    let names: Vec<&str> =
        ours.iter().map(|it| it.name.as_str()).chain(theirs.iter().map(|it| it.name.as_str())).collect();
    for name in names {
        for one in ours {
            eventually("ours see all", NEWS, || one.sees(name, Status::Alive)).await;
        }
        for one in theirs {
            eventually("theirs see all", NEWS, async || one.sees(name, "alive")).await;
        }
    }
}

async fn tags_events_and_queries_pass(ours: &mut Ours, theirs: &SerfAgent) {
    let tags = Tags::from([("role".into(), "node".into()), ("build".into(), "1.2.3".into())]);
    ours.gossip.set_tags(tags.clone()).await.expect("tags that fit");
    let name = ours.name.clone();
    eventually("our tags are seen", NEWS, async || match theirs.sees(&name, "alive")?.tags {
        seen if seen == tags => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    theirs.run("tags", &["-set", "color=blue"]).expect("serf takes tags");
    eventually("their tags are seen", NEWS, async || {
        let tags = ours.sees(&theirs.name, Status::Alive).await?;
        if tags.get("color").is_some_and(|it| it == "blue") { Ok(()) } else { Err(format!("{tags:?}")) }
    })
    .await;

    ours.gossip.user_event("deploy", b"from ours", false).await.expect("a short event");
    eventually("our event is handled", NEWS, async || match theirs.events() {
        events if events.contains("user deploy from ours") => Ok(()),
        events => Err(events),
    })
    .await;
    theirs.run("event", &["-coalesce=false", "restart", "from theirs"]).expect("serf takes an event");
    let payload = ours
        .hears("their event", |event| match event {
            Event::User { name, payload, .. } if name == "restart" => Some(payload),
            _ => None,
        })
        .await;
    assert_eq!(payload, b"from theirs");

    let options = QueryOptions { acknowledge: true, relay: 1, nodes: vec![theirs.name.clone()], ..Default::default() };
    let mut answers = ours.gossip.query("who", b"", options).await.expect("a short query");
    let mut heard = Vec::new();
    while let Some(answer) = answers.recv().await {
        heard.push(answer);
    }
    let (from, payload) = (theirs.name.clone(), theirs.name.clone().into_bytes());
    assert!(heard.contains(&Answer::Received { from: from.clone() }), "{heard:?}");
    assert!(heard.contains(&Answer::Response { from, payload }), "{heard:?}");
    assert_eq!(heard.len(), 2, "a relayed answer counts once: {heard:?}");

    let only_us = format!("-node={}", ours.name);
    let asked =
        theirs.run("query", &["-format=json", "-timeout=10s", "-tag", "role=^no.e$", &only_us, "uptime", "now?"]);
    // The answer is given while the query runs: both ends are driven at once in `answering`.
    assert!(asked.is_ok(), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_ours_and_theirs_sees_members_tags_events_queries_leaves_and_failures() {
    let (program, directory) = (program(), tempfile::tempdir().expect("a temporary directory"));
    let mut first = SerfAgent::start(&program, directory.path(), "serf-1", &next_address(), &["-tag", "role=web"]);
    let mut one = Ours::start("ours-1", |_| {}).await;
    // We join them, they join us, and two of ours join each other.
    one.join(&first.address).await;
    let second = SerfAgent::start(&program, directory.path(), "serf-2", &next_address(), &[]);
    let ip = one.ip();
    eventually("serf joins us", NEWS, async || second.run("join", &[&format!("{ip}:{PORT}")])).await;
    let two = Ours::start("ours-2", |_| {}).await;
    two.join(&ip).await;
    all_even(&[&one, &two], &[&first, &second]).await;
    assert_eq!(one.sees("serf-1", Status::Alive).await.expect("seen")["role"], "web");
    assert_eq!(first.sees("ours-2", "alive").expect("seen").tags["dc"], "dc1");

    let answering = answer_queries(&one);
    tags_events_and_queries_pass(&mut one, &first).await;
    answering.stop(Duration::from_secs(5)).await;
    eventually("a coordinate of theirs", NEWS, async || {
        let found = one.gossip.with_core(|core, _| core.coordinate_of("serf-1")).await;
        found.ok().flatten().ok_or("none yet")
    })
    .await;
    let rtt = eventually("a round trip to us", NEWS, async || first.run("rtt", &["ours-1"])).await;
    assert!(rtt.contains("rtt:"), "{rtt}");

    // Goodbyes.
    second.run("leave", &[]).expect("serf leaves");
    eventually("their goodbye", NEWS, || one.sees("serf-2", Status::Left)).await;
    two.gossip.leave().await.expect("we leave");
    two.stop().await;
    eventually("our goodbye", NEWS, async || first.sees("ours-2", "left")).await;

    // Deaths, theirs and ours, and the removal of both.
    let three = Ours::start("ours-3", |_| {}).await;
    three.join(&ip).await;
    let mut third = SerfAgent::start(&program, directory.path(), "serf-3", &next_address(), &[]);
    eventually("serf joins us", NEWS, async || third.run("join", &[&format!("{ip}:{PORT}")])).await;
    all_even(&[&one, &three], &[&first, &third]).await;
    third.kill();
    three.stop().await;
    eventually("their death", DEATH, || one.sees("serf-3", Status::Failed)).await;
    eventually("our death", DEATH, async || first.sees("ours-3", "failed")).await;
    one.gossip.remove("serf-3", false).await.expect("the pool is told");
    eventually("our removal", NEWS, async || first.sees("serf-3", "left")).await;
    first.run("force-leave", &["ours-3"]).expect("serf removes");
    eventually("their removal", NEWS, || one.sees("ours-3", Status::Left)).await;

    // Who died and comes back is taken back at once, whoever knew it dead.
    first.kill();
    eventually("a second death", DEATH, || one.sees("serf-1", Status::Failed)).await;
    let address = first.address.clone();
    let back = SerfAgent::start(&program, directory.path(), "serf-1", &address, &[&format!("-join={ip}:{PORT}")]);
    eventually("the return", NEWS, || one.sees("serf-1", Status::Alive)).await;
    eventually("the return to them", NEWS, async || back.sees("ours-1", "alive")).await;
    one.stop().await;
}

/// Answers every query that reaches this member, with its name.
fn answer_queries(ours: &Ours) -> Tasks {
    let (tasks, gossip, name) = (Tasks::new(), ours.gossip.clone(), ours.name.clone());
    let mut events = gossip.events();
    tasks.spawn(async move {
        while let Ok(event) = events.recv().await {
            if let Event::Query(question) = event {
                let answer = format!("{name} was asked {}", String::from_utf8_lossy(&question.payload));
                gossip.respond(question, answer.into_bytes()).await.expect("in time");
            }
        }
    });
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_pool_changes_its_keys_from_both_sides_and_never_splits() {
    let (program, directory) = (program(), tempfile::tempdir().expect("a temporary directory"));
    let theirs_file = directory.path().join("serf.keyring");
    std::fs::write(&theirs_file, format!("[\"{FIRST_KEY}\"]")).expect("a file");
    let keyring = format!("-keyring-file={}", theirs_file.display());
    let theirs = SerfAgent::start(&program, directory.path(), "serf-1", &next_address(), &[&keyring]);
    let ours_file = directory.path().join("ours.keyring");
    let one = Ours::start("ours-1", |settings| {
        settings.config.keyring = Some(Keyring::from_base64(&[FIRST_KEY]).expect("a key"));
        settings.keyring_file = Some(ours_file.clone());
    })
    .await;
    one.join(&theirs.address).await;
    let two = Ours::start("ours-2", |settings| {
        settings.config.keyring = Some(Keyring::from_base64(&[FIRST_KEY]).expect("a key"));
    })
    .await;
    two.join(&one.ip()).await;
    all_even(&[&one, &two], &[&theirs]).await;

    let stranger = Ours::start("stranger", |_| {}).await;
    let refused = stranger.gossip.join(&[format!("{}:{PORT}", one.ip())], false).await;
    assert!(refused.is_err(), "who has no key does not get in");
    stranger.stop().await;

    for operation in [KeyOperation::Install, KeyOperation::Use] {
        let report = one.gossip.change_keys(operation, SECOND_KEY, 0).await.expect("all three do it");
        assert_eq!((report.members, report.responses), (3, 3));
    }
    one.gossip.change_keys(KeyOperation::Remove, FIRST_KEY, 0).await.expect("all three do it");
    let listed = two.gossip.change_keys(KeyOperation::List, "", 0).await.expect("all three answer");
    assert_eq!(listed.keys.into_iter().collect::<Vec<_>>(), [(SECOND_KEY.to_owned(), 3)]);

    for (verb, key) in [("-install", THIRD_KEY), ("-use", THIRD_KEY), ("-remove", SECOND_KEY)] {
        let said = theirs.run("keys", &[verb, key]).expect("all three do it");
        assert!(said.contains("uccessfully"), "{said}");
    }
    assert!(theirs.run("keys", &["-list"]).expect("a list").contains("[3/3]"));
    let kept: Vec<String> =
        serde_json::from_str(&std::fs::read_to_string(&ours_file).expect("a keyring file")).expect("a list");
    assert_eq!(kept, [THIRD_KEY]);
    assert!(std::fs::read_to_string(&theirs_file).expect("a keyring file").contains(THIRD_KEY));

    // Who held a key that is no longer one cannot come in; nobody was lost on the way.
    all_even(&[&one, &two], &[&theirs]).await;
    one.gossip.user_event("after", b"the change", false).await.expect("a short event");
    eventually("events pass", NEWS, async || match theirs.events() {
        events if events.contains("user after the change") && !events.contains("member-failed") => Ok(()),
        events => Err(events),
    })
    .await;
    for ours in [one, two] {
        ours.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_the_library_speak_every_protocol_with_ours_and_change_an_encrypted_pools_key() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = Library::build(directory.path());
    for (protocol, key) in [(2, ""), (4, ""), (5, FIRST_KEY)] {
        let mut ours = Ours::start("ours-1", |settings| {
            if !key.is_empty() {
                settings.config.keyring = Some(Keyring::from_base64(&[key]).expect("a key"));
            }
        })
        .await;
        let peer = Library::start(&program, "library", &next_address(), key, protocol);
        let ip = ours.ip();
        eventually("the library joins us", NEWS, async || peer.ask(&format!("join {ip}:{PORT}"))).await;
        eventually("we see it", NEWS, || ours.sees("library", Status::Alive)).await;
        let wanted = "library=alive(library) ours-1=alive(consul)";
        // Before protocol 3 the role is all that a member tells of itself.
        eventually("it sees us", NEWS, async || match peer.ask("members")? {
            seen if seen == wanted => Ok(()),
            other => Err(other),
        })
        .await;
        peer.ask("event deploy now").expect("it tells");
        let payload = ours
            .hears("its event", |event| match event {
                Event::User { name, payload, .. } if name == "deploy" => Some(payload),
                _ => None,
            })
            .await;
        assert_eq!(payload, b"now");
        ours.gossip.user_event("restart", b"soon", false).await.expect("a short event");
        eventually("our event", NEWS, async || peer.said("user restart soon")).await;
        if protocol >= 4 {
            let answering = answer_queries(&ours);
            let answers = peer.ask("query uptime now?").expect("answers");
            assert_eq!(answers, "library:library says now?|ours-1:ours-1 was asked now?");
            answering.stop(Duration::from_secs(5)).await;
        }
        if !key.is_empty() {
            peer.ask(&format!("rotate {SECOND_KEY}")).expect("both change their key");
            assert_eq!(ours.gossip.with_core(|core, _| core.keys()[0].clone()).await.expect("keys"), SECOND_KEY);
        }
        peer.ask("leave").expect("it leaves");
        eventually("its goodbye", NEWS, || ours.sees("library", Status::Left)).await;
        ours.stop().await;
    }
}
