//! Pools of a thousand and more in one thread and virtual time: what the failure detector promises, and how fast it is.
//!
//! `LICTOR_GOSSIP_MEMBERS=10000 cargo test --workspace --test pool -- --nocapture` runs the largest pools with as many members.

mod world;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use lictor_gossip::wire::kind;
use lictor_gossip::wire::swim::Accusation;
use lictor_gossip::{Change, Event, KeyOperation, Keyring, Status, Timing, suspicion_timeout};
use lictor_runtime::Rng;
use world::{World, address, name, old_alive};

const SECOND: Duration = Duration::from_secs(1);

/// How many members the large pools have.
fn members() -> usize {
    std::env::var("LICTOR_GOSSIP_MEMBERS").ok().and_then(|it| it.parse().ok()).unwrap_or(1_000)
}

fn seed() -> u64 {
    std::env::var("LICTOR_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(7)
}

fn large() -> World {
    World::formed(seed(), members(), Timing::lan(), |_| {})
}

/// How long this thread has had a processor: other programs on the machine do not count.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(1))
}

fn status(world: &World, of: usize, by: usize) -> Option<Status> {
    world.cores[by].as_ref()?.member(&name(of)).map(|it| it.status)
}

#[test]
fn every_death_is_known_to_all_in_time_and_nobody_else_is_held_for_dead() {
    let (mut world, count) = (large(), members());
    let started = processor_time();
    world.run(10 * SECOND);
    let victims: Vec<usize> = (0..5).map(|it| 7 + it * count / 6).collect();
    let killed = world.now;
    for victim in &victims {
        world.kill(*victim);
    }
    world.run(60 * SECOND);
    let took = processor_time() - started;

    let mut known: HashMap<String, Vec<Duration>> = HashMap::new();
    for heard in &world.heard {
        if let Some(name) = heard.changed(Change::Failed) {
            known.entry(name).or_default().push(heard.at - killed);
        }
    }
    let dead: HashSet<String> = victims.iter().map(|it| name(*it)).collect();
    assert_eq!(known.keys().cloned().collect::<HashSet<_>>(), dead, "seed {}", seed());
    let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
    for (victim, times) in &known {
        assert_eq!(times.len(), count - victims.len(), "{victim} is not known dead to all");
        first = first.min(*times.iter().min().expect("some"));
        last = last.max(*times.iter().max().expect("some"));
    }
    // memberlist: a probe finds it within 1.58 intervals and half a second on average, and confirmations bring the wait down to
    // the shortest. A dozen seconds are left for bad luck with the order of probing.
    let shortest = suspicion_timeout(4, count, SECOND);
    assert!(first >= shortest, "nobody is held for dead before it could refute: {first:?} < {shortest:?}");
    assert!(last <= shortest + 12 * SECOND, "the last knew after {last:?}; the shortest is {shortest:?}");
    println!(
        "\nsummary: gossip: {count} members: deaths known to all after {:.1} s (first {:.1} s); {:.1}x real time",
        last.as_secs_f64(),
        first.as_secs_f64(),
        70.0 / took.as_secs_f64()
    );
}

/// How long an event takes to every member, and in how many bytes.
fn spread(timing: Timing) -> (Duration, u64) {
    let mut world = World::formed(seed(), members(), timing, |_| {});
    world.run(5 * SECOND);
    let (told, bytes) = (world.now, world.bytes);
    world.with(3, |core, now| core.user_event(now, "deploy", b"1.2.3", false)).expect("a short event");
    world.run(10 * SECOND);
    let quiet = world.bytes - bytes;
    let times: Vec<Duration> = world
        .heard
        .iter()
        .filter(|it| matches!(&it.event, Event::User { name, .. } if name == "deploy"))
        .map(|it| it.at - told)
        .collect();
    assert_eq!(times.len(), members(), "everybody hears it once");
    (times.into_iter().max().unwrap_or_default(), quiet)
}

#[test]
fn an_event_reaches_everybody_once_and_sooner_than_on_memberlists_beat() {
    let (eager, eager_bytes) = spread(Timing::lan());
    let (beat, beat_bytes) = spread(Timing { eager: None, ..Timing::lan() });
    println!(
        "\nsummary: gossip: {} members: an event at all after {:.2} s in {} KB (on memberlist's beat {:.2} s, {} KB)",
        members(),
        eager.as_secs_f64(),
        eager_bytes / 1024,
        beat.as_secs_f64(),
        beat_bytes / 1024
    );
    assert!(eager < beat, "{eager:?} is not sooner than {beat:?}");
    assert!(eager_bytes <= beat_bytes + beat_bytes / 10, "{eager_bytes} bytes are more than {beat_bytes}");
}

#[test]
fn who_left_does_not_come_back_by_others_words() {
    let count = 100;
    let mut world = World::formed(seed(), count, Timing::lan(), |_| {});
    world.run(5 * SECOND);
    // Nobody hears ten members while others leave; what they still believe must raise nobody.
    for number in 90..100 {
        world.side[number] = 1;
    }
    let leavers = [3, 4, 5];
    for leaver in leavers {
        world.with(leaver, |core, now| core.leave(now));
    }
    world.run(15 * SECOND);
    let records: Vec<_> =
        leavers.iter().map(|it| world.cores[*it].as_ref().expect("it is kept").own_record()).collect();
    for leaver in leavers {
        assert!(world.heard.iter().any(|it| it.by == leaver && matches!(it.event, Event::Gone)));
        world.kill(leaver);
    }
    // Long enough that the failure detector forgets them.
    world.run(130 * SECOND);
    for leaver in leavers {
        assert_eq!(status(&world, leaver, 10), Some(Status::Left));
    }
    let healed = world.now;
    for number in 90..100 {
        world.side[number] = 0;
    }
    for (record, to) in records.iter().zip([20, 30, 40]) {
        world.inject(to, &old_alive(record, 1));
    }
    world.run(300 * SECOND);
    let names: HashSet<String> = leavers.iter().map(|it| name(*it)).collect();
    for heard in world.heard.iter().filter(|it| it.at > healed) {
        if let Some(raised) = heard.changed(Change::Joined) {
            assert!(!names.contains(&raised), "{raised} was raised at {} by old words", heard.by);
        }
    }
    for by in world.living() {
        for leaver in leavers {
            assert_eq!(status(&world, leaver, by), Some(Status::Left), "{leaver} as {by} sees it");
        }
        for other in world.living() {
            assert_eq!(status(&world, other, by), Some(Status::Alive), "{other} as {by} sees it");
        }
    }
}

#[test]
fn who_was_dead_or_left_and_starts_again_is_back_within_seconds() {
    let mut world = World::formed(seed(), 50, Timing::lan(), |_| {});
    world.run(5 * SECOND);
    world.with(7, |core, now| core.leave(now));
    world.kill(8);
    world.run(15 * SECOND);
    world.kill(7);
    // Past the time that the failure detector remembers them.
    world.run(120 * SECOND);
    assert_eq!((status(&world, 7, 20), status(&world, 8, 20)), (Some(Status::Left), Some(Status::Failed)));
    for number in [7, 8] {
        world.restart(number);
        world.with(number, |core, now| core.join(now, &[address(30)], false));
    }
    world.run(5 * SECOND);
    for by in world.living() {
        for number in [7, 8] {
            assert_eq!(status(&world, number, by), Some(Status::Alive), "{number} as {by} sees it");
        }
    }
}

#[test]
fn a_lie_about_a_living_member_is_refuted_everywhere() {
    let mut world = World::formed(seed(), 200, Timing::lan(), |_| {});
    world.run(5 * SECOND);
    let lies = world.now;
    for victim in [11, 12, 13] {
        let mut packet = Vec::new();
        let node = name(victim);
        Accusation { incarnation: 1, node: &node, from: "node-00099" }.encode(kind::SUSPECT, &mut packet);
        world.inject(100, &packet);
    }
    world.run(60 * SECOND);
    assert!(
        !world.heard.iter().any(|it| it.at > lies && it.changed(Change::Failed).is_some()),
        "a suspicion is not a death"
    );
    let mut packet = Vec::new();
    Accusation { incarnation: 9, node: &name(14), from: "node-00099" }.encode(kind::DEAD, &mut packet);
    world.inject(100, &packet);
    world.run(20 * SECOND);
    for by in world.living() {
        for victim in 11..15 {
            assert_eq!(status(&world, victim, by), Some(Status::Alive), "{victim} as {by} sees it");
        }
    }
}

#[test]
fn losses_and_stalls_kill_nobody_who_lives() {
    let (count, mut world) = (members().min(1_000), large());
    world.loss_per_mille = 10;
    let (mut stalled, began) = (HashSet::new(), processor_time());
    // One in a hundred stands still for five seconds, others each time, for three minutes.
    for _ in 0..36 {
        for _ in 0..count / 100 {
            let number = world.rng.below(count as u64) as usize;
            world.stalled[number] = world.now + 5 * SECOND;
            stalled.insert(name(number));
        }
        world.run(5 * SECOND);
    }
    world.run(60 * SECOND);
    let held: Vec<String> = world.heard.iter().filter_map(|it| it.changed(Change::Failed)).collect();
    println!(
        "\nsummary: gossip: {count} members, 1 % loss, 1 % stalled for 5 s, 4 minutes: {} false deaths; {:.1}x real time",
        held.iter().collect::<HashSet<_>>().len(),
        240.0 / (processor_time() - began).as_secs_f64()
    );
    assert!(held.is_empty(), "seed {}: held for dead: {held:?}", seed());
}

#[test]
fn members_that_join_one_by_one_know_each_other() {
    let mut world = World::new(seed(), Timing::lan(), |_| {});
    let count = 150;
    for number in 0..count {
        world.add();
        if number > 0 {
            let other = world.rng.below(number as u64) as usize;
            world.with(number, |core, now| core.join(now, &[address(other)], false));
        }
        world.run(SECOND / 10);
    }
    world.run(60 * SECOND);
    for by in 0..count {
        let core = world.cores[by].as_ref().expect("it lives");
        assert_eq!(core.living_count(), count, "as {by} sees it");
    }
    let joined = world.heard.iter().filter(|it| matches!(it.event, Event::Joined { reached: 1, .. })).count();
    assert_eq!(joined, count - 1);
}

#[test]
fn a_change_of_keys_under_losses_splits_no_pool() {
    let (old, new) = ([1u8; 32], [2u8; 16]);
    let mut world = World::formed(seed(), 60, Timing::lan(), move |config| {
        config.keyring = Some(Keyring::new(&[old]).expect("a key"));
    });
    world.loss_per_mille = 20;
    world.run(10 * SECOND);
    for (operation, key) in
        [(KeyOperation::Install, &new[..]), (KeyOperation::Use, &new[..]), (KeyOperation::Remove, &old[..])]
    {
        // As people do it: again until everybody has said yes.
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 10, "{operation:?} was not done by all");
            let query = world.with(5, |core, now| core.change_keys(now, operation, key, 3)).expect("room for a query");
            let end = world.now + 30 * SECOND;
            world.run_until(end, |world| {
                world.heard.iter().any(|it| matches!(&it.event, Event::Keys { query: it, .. } if *it == query))
            });
            let done = world.heard.iter().any(
                |it| matches!(&it.event, Event::Keys { query: it, report } if *it == query && report.is_complete()),
            );
            if done {
                break;
            }
        }
        world.run(10 * SECOND);
    }
    for by in world.living() {
        let core = world.cores[by].as_ref().expect("it lives");
        assert_eq!(core.keys().len(), 1);
        assert_eq!(core.living_count(), 60, "as {by} sees it");
    }
    assert!(!world.heard.iter().any(|it| it.changed(Change::Failed).is_some()));
}

#[test]
fn two_sides_of_a_cut_find_each_other_again() {
    let mut world = World::formed(seed(), 40, Timing::lan(), |_| {});
    world.run(5 * SECOND);
    for number in 0..20 {
        world.side[number] = 1;
    }
    world.run(90 * SECOND);
    assert_eq!(status(&world, 30, 5), Some(Status::Failed));
    assert_eq!(status(&world, 5, 30), Some(Status::Failed));
    world.side.fill(0);
    world.run(180 * SECOND);
    for by in world.living() {
        for other in world.living() {
            assert_eq!(status(&world, other, by), Some(Status::Alive), "{other} as {by} sees it");
        }
    }
}

#[test]
fn two_members_of_one_name_are_told_apart_and_the_later_one_yields() {
    let mut world = World::formed(seed(), 20, Timing::lan(), |_| {});
    world.run(5 * SECOND);
    // Another process takes the name of member 3, at the address of member 20.
    let clone = world.add();
    let config = {
        let mut config = lictor_gossip::Config::new(name(3), address(clone));
        config.compress = false;
        config
    };
    let records = lictor_gossip::RecordPool::new();
    let rng = world.rng.clone();
    let core = lictor_gossip::Core::new(config, rng, records, world.now).expect("a core");
    world.cores[clone] = Some(core);
    world.with(clone, |core, now| core.join(now, &[address(8)], false));
    world.run(30 * SECOND);
    assert!(world.heard.iter().any(|it| it.by == clone && matches!(it.event, Event::NameLost)), "the clone yields");
    assert!(!world.heard.iter().any(|it| it.by == 3 && matches!(it.event, Event::NameLost)), "the holder stays");
}

#[test]
fn a_node_that_comes_back_with_another_address_keeps_its_name() {
    let mut world = World::formed(seed(), 20, Timing::lan(), |config| {
        config.tags.insert("id".into(), format!("id of {}", config.name));
    });
    world.run(5 * SECOND);
    // A pod that was replaced within a second: the others have not missed it yet.
    world.kill(3);
    world.run(SECOND / 2);
    let moved = world.add();
    let mut config = lictor_gossip::Config::new(name(3), address(moved));
    config.tags.insert("id".into(), format!("id of {}", name(3)));
    let (records, rng) = (lictor_gossip::RecordPool::new(), world.rng.clone());
    world.cores[moved] = Some(lictor_gossip::Core::new(config, rng, records, world.now).expect("a core"));
    world.with(moved, |core, now| core.join(now, &[address(8)], false));
    world.run(40 * SECOND);
    assert!(!world.heard.iter().any(|it| matches!(it.event, Event::NameLost)), "nobody took a name");
    for by in world.living().into_iter().filter(|by| *by != moved) {
        let member = world.cores[by].as_ref().and_then(|core| core.member(&name(3))).expect("known");
        assert_eq!((member.status, member.record.address()), (Status::Alive, address(moved)), "as {by} sees it");
    }
}

#[test]
fn a_member_from_elsewhere_is_in_no_pool_that_says_where_members_may_be() {
    let mut world = World::formed(seed(), 5, Timing::lan(), |config| {
        let blocks = (0..5).map(|number| format!("{}/32", address(number).ip()).parse().expect("a block"));
        config.allowed = blocks.collect();
    });
    world.run(5 * SECOND);
    let stranger = world.add();
    world.with(stranger, |core, now| core.join(now, &[address(0)], false));
    world.run(30 * SECOND);
    for by in 0..5 {
        assert!(status(&world, stranger, by).is_none(), "the stranger as {by} sees it");
        assert_eq!(status(&world, 0, by), Some(Status::Alive));
    }
}

#[test]
fn a_failed_member_is_kept_as_long_as_it_said() {
    let timing = Timing { reap_interval: 5 * SECOND, reconnect_timeout: 3600 * SECOND, ..Timing::lan() };
    let mut world = World::formed(seed(), 5, timing, |config| {
        config.kept_for = Some(|tags| tags.get("kept")?.parse().ok().map(Duration::from_secs));
        if config.name == name(3) {
            config.tags.insert("kept".into(), "60".into());
        }
    });
    world.run(5 * SECOND);
    world.kill(3);
    world.kill(4);
    world.run(40 * SECOND);
    assert_eq!((status(&world, 3, 0), status(&world, 4, 0)), (Some(Status::Failed), Some(Status::Failed)));
    world.run(90 * SECOND);
    assert_eq!((status(&world, 3, 0), status(&world, 4, 0)), (None, Some(Status::Failed)));
}

#[test]
fn one_seed_is_one_run() {
    let trace = || {
        let mut world = World::formed(42, 60, Timing::lan(), |_| {});
        world.loss_per_mille = 50;
        world.kill(3);
        world.run(40 * SECOND);
        let heard: Vec<_> = world.heard.iter().map(|it| (it.at, it.by, format!("{:?}", it.event))).collect();
        (world.packets, world.bytes, heard)
    };
    let first = trace();
    assert!(!first.2.is_empty());
    assert_eq!(first, trace());
}
