//! The catalog tells the truth: an hour of random registrations, deregistrations, crashes, restarts, partitions and answers that
//! get lost, in virtual time. `LICTOR_SEEDS` runs more of them.

use std::collections::BTreeSet;

use lictor_runtime::Rng as _;
use lictor_runtime::fs::{Crash, MemoryFs};
use lictor_types::refusal::RefusalKind;

use super::tests::{Catalog, start, sync_with};
use super::*;

/// Within this time after a fault has healed, the catalog is right again: the longest comparison interval and a retry.
const HEALED_WITHIN: Duration = Duration::from_secs(120 + 20);

struct World {
    rng: lictor_runtime::SeededRng,
    fs: MemoryFs,
    catalog: Arc<Catalog>,
    local: Arc<Local>,
    tasks: Tasks,
    /// What was acknowledged: the instances there are, with their ports.
    acknowledged: BTreeMap<String, u16>,
    /// Instances whose end was acknowledged while the catalog could be told.
    gone: BTreeSet<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let fs = MemoryFs::new();
        let (local, tasks) = start(Some(&fs), &[]);
        let catalog = Arc::new(Catalog::default());
        sync_with(&local, &catalog);
        let (acknowledged, gone) = (BTreeMap::new(), BTreeSet::new());
        Self { rng: lictor_runtime::SeededRng::new(seed), fs, catalog, local, tasks, acknowledged, gone }
    }

    /// Whether the catalog may not hear of the next change at once.
    fn cut_off(&self) -> bool {
        let held = self.catalog.held.lock();
        held.refusal.is_some() || held.loses_answers > 0
    }

    async fn register(&mut self) {
        let (id, port) = (format!("web{}", self.rng.below(12)), self.rng.below(1000) as u16 + 1);
        let check = serde_json::json!({"CheckID": format!("{id}-beat"), "TTL": "2h", "Status": "passing"});
        let written = serde_json::json!({"ID": id, "Name": "web", "Port": port, "Check": check});
        let definition = ServiceDefinition::from_json(&written).unwrap();
        self.gone.remove(&id);
        let told = !self.cut_off();
        self.local.register_service(definition, false, Credential::anonymous()).await.unwrap();
        if told {
            let held = self.catalog.held.lock();
            assert_eq!(held.services.get(&id).map(|service| service.port), Some(port), "acknowledged and not there");
        }
        self.acknowledged.insert(id, port);
    }

    async fn deregister(&mut self) {
        let Some(id) = self.acknowledged.keys().nth(self.rng.below(12) as usize).cloned() else { return };
        let told = !self.cut_off();
        self.local.deregister_service(&id.parse().unwrap()).await.unwrap();
        self.acknowledged.remove(&id);
        if told {
            self.gone.insert(id);
        }
    }

    fn crash(&mut self) {
        self.tasks.cancel();
        self.fs.crash(Crash::DropUnsynced);
        (self.local, self.tasks) = start(Some(&self.fs), &[]);
        sync_with(&self.local, &self.catalog);
    }

    /// Somebody else writes into the catalog what is not ours.
    fn disturb(&self) {
        let mut held = self.catalog.held.lock();
        if let Some(mut service) = held.services.values().next().cloned() {
            service.id = Some("stray".parse().unwrap());
            held.services.insert("stray".into(), service);
        }
        let first = held.checks.keys().next().cloned();
        first.map(|first| held.checks.remove(&first));
    }

    fn never_back(&self) {
        let held = self.catalog.held.lock();
        let back: Vec<&String> = self.gone.iter().filter(|id| held.services.contains_key(*id)).collect();
        assert!(back.is_empty(), "{back:?} were deregistered and are handed out");
    }

    async fn equal_after_healing(&self) {
        {
            let mut held = self.catalog.held.lock();
            (held.refusal, held.loses_answers) = (None, 0);
        }
        tokio::time::sleep(HEALED_WITHIN).await;
        let held = self.catalog.held.lock();
        let there: BTreeMap<String, u16> =
            held.services.iter().map(|(id, service)| (id.clone(), service.port)).collect();
        assert_eq!(there, self.acknowledged);
        let checks: Vec<String> = self.acknowledged.keys().map(|id| format!("{id}-beat")).collect();
        let there: BTreeSet<&String> = held.checks.keys().collect();
        assert_eq!(there, checks.iter().collect());
        let ours: Vec<String> = self.local.services().into_keys().map(|id| id.to_string()).collect();
        assert_eq!(ours, self.acknowledged.keys().cloned().collect::<Vec<_>>());
    }
}

async fn an_hour(seed: u64) {
    let mut world = World::new(seed);
    let end = Instant::now() + Duration::from_secs(3600);
    let mut next_heal = Instant::now() + Duration::from_secs(300);
    while Instant::now() < end {
        match world.rng.below(20) {
            0..8 => world.register().await,
            8..13 => world.deregister().await,
            13 | 14 => world.crash(),
            15 => world.catalog.held.lock().refusal = Some(Refusal::no_leader()),
            16 => world.catalog.held.lock().refusal = Some(Refusal::new(RefusalKind::Unavailable, "no server")),
            17 => world.catalog.held.lock().refusal = None,
            18 => world.catalog.held.lock().loses_answers = 2,
            _ => world.disturb(),
        }
        world.never_back();
        tokio::time::sleep(Duration::from_millis(world.rng.below(10_000))).await;
        world.never_back();
        if Instant::now() >= next_heal {
            world.equal_after_healing().await;
            next_heal = Instant::now() + Duration::from_secs(300);
        }
    }
    world.equal_after_healing().await;
    world.tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn after_any_fault_the_catalog_equals_what_the_agent_holds_and_nothing_that_was_removed_comes_back() {
    let seeds = std::env::var("LICTOR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    for seed in 1..=seeds {
        println!("seed {seed}");
        an_hour(seed).await;
    }
}
