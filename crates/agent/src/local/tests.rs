//! The agent's own services and checks against a catalog in memory.

use lictor_runtime::SeededRng;
use lictor_runtime::fs::{Crash, Fault, MemoryFs, Step};
use lictor_runtime::transport::Boxed;
use lictor_types::command::Effect;
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Operation, Report};
use lictor_types::service::NodeServices;
use lictor_types::{Answer, Command, Freshness, Index, Node, NodeName, Outcome, Query, Read};
use serde_json::{Value, json};

use super::*;
use crate::Datacenter;
use crate::tokens::AgentTokens;

/// A catalog of one node, which counts what it is told.
#[derive(Default)]
pub(super) struct Catalog {
    pub(super) held: Mutex<Held>,
}

#[derive(Default)]
pub(super) struct Held {
    node: Option<Node>,
    pub(super) services: BTreeMap<String, NodeService>,
    pub(super) checks: BTreeMap<String, HealthCheck>,
    writes: usize,
    reads: usize,
    pub(super) refusal: Option<Refusal>,
    /// So many writes are done whose answers get lost.
    pub(super) loses_answers: usize,
    denied_service: Option<String>,
    tokens: Vec<String>,
    /// How long every write takes.
    pub(super) slowness: Duration,
}

impl Datacenter for Catalog {
    fn write<'a>(&'a self, credential: &'a Credential, command: Command) -> Boxed<'a, Result<Outcome, Refusal>> {
        Box::pin(async move {
            let slowness = self.held.lock().slowness;
            if !slowness.is_zero() {
                tokio::time::sleep(slowness).await;
            }
            let mut held = self.held.lock();
            held.writes += 1;
            if let Some(refusal) = &held.refusal {
                return Err(refusal.clone());
            }
            held.tokens.push(credential.secret.clone());
            match command {
                Command::Register(registration) => {
                    let name = registration.service.as_ref().map(|service| service.id_text().to_owned());
                    if name.is_some() && name == held.denied_service {
                        return Err(Refusal::permission_denied("not yours"));
                    }
                    if !registration.skip_node_update || held.node.is_none() {
                        held.node = Some(Node {
                            id: registration.id,
                            name: registration.node,
                            address: registration.address,
                            datacenter: "dc1".into(),
                            tagged_addresses: registration.tagged_addresses,
                            meta: registration.node_meta,
                            create_index: Index(1),
                            modify_index: Index(1),
                            locality: registration.locality,
                        });
                    }
                    if let (Some(service), Some(name)) = (registration.service, name) {
                        held.services.insert(name, service);
                    }
                    for check in registration.checks {
                        held.checks.insert(check.check_id.clone().unwrap().to_string(), check);
                    }
                }
                Command::Deregister(gone) => {
                    if let Some(id) = gone.service_id {
                        held.services.remove(id.as_str());
                        held.checks.retain(|_, check| check.service_id != id.as_str());
                    }
                    if let Some(id) = gone.check_id {
                        held.checks.remove(id.as_str());
                    }
                }
                other => panic!("{other:?}"),
            }
            if held.loses_answers > 0 {
                held.loses_answers -= 1;
                return Err(Refusal::new(RefusalKind::Uncertain, "the answer is lost"));
            }
            Ok(Outcome { index: Index(2), effect: Effect::Applied })
        })
    }

    fn read<'a>(&'a self, _: &'a Credential, query: Query, _: Freshness) -> Boxed<'a, Result<Read, Refusal>> {
        Box::pin(async move {
            let mut held = self.held.lock();
            held.reads += 1;
            if let Some(refusal) = &held.refusal {
                return Err(refusal.clone());
            }
            let answer = match query {
                Query::NodeServices(_) => Answer::NodeServices(
                    held.node.clone().map(|node| NodeServices { node, services: held.services.clone() }),
                ),
                Query::HealthNode(_) => Answer::Checks(held.checks.values().cloned().collect()),
                other => panic!("{other:?}"),
            };
            Ok(Read { index: Index(2), answer, filtered_by_acls: false, last_contact_millis: 0, known_leader: true })
        })
    }

    fn operate<'a>(&'a self, _: &'a Credential, _: Operation) -> Boxed<'a, Result<Report, Refusal>> {
        Box::pin(async { Ok(Report::Done) })
    }
}

fn identity() -> AgentIdentity {
    AgentIdentity {
        node_name: "n1".parse::<NodeName>().unwrap(),
        node_id: "40e4a748-2192-161a-0510-9bf59fe950b5".into(),
        datacenter: "dc1".into(),
        server: false,
        bootstrap_expect: 0,
        address: "127.0.0.1".into(),
        server_port: 8300,
        serf_lan_port: 8301,
        serf_wan_port: None,
        domain: "consul.".into(),
        acl_enabled: false,
        default_allow: true,
        dev: false,
        http_port: Some(8500),
        https_port: None,
        dns_port: Some(8600),
        reconnect_timeout: None,
        meta: BTreeMap::new(),
    }
}

pub(super) fn start(fs: Option<&MemoryFs>, services: &[Value]) -> (Arc<Local>, Tasks) {
    start_with(fs, services, &[], CheckSettings::default())
}

fn start_with(
    fs: Option<&MemoryFs>,
    services: &[Value],
    checks: &[Value],
    settings: CheckSettings,
) -> (Arc<Local>, Tasks) {
    let tasks = Tasks::new();
    let local = Local::start(LocalSettings {
        identity: identity(),
        node: NodeFacts::default(),
        tokens: Arc::new(AgentTokens::new(
            Credential::new("default"),
            Credential::new("agent"),
            Credential::anonymous(),
        )),
        persist_tokens: true,
        settings,
        sidecar_ports: Some((21000, 21255)),
        services: services.iter().map(|service| ServiceDefinition::from_json(service).unwrap()).collect(),
        checks: checks.iter().map(|check| CheckDefinition::from_json(check).unwrap()).collect(),
        data: fs.map(|fs| (Arc::new(fs.clone()) as Arc<dyn Fs>, PathBuf::from("/data"))),
        resolver: Resolver::from_system(),
        rng: Arc::new(SeededRng::new(1)),
        tasks: tasks.clone(),
    });
    (local.unwrap(), tasks)
}

fn in_sync(local: &Arc<Local>) -> (Arc<Catalog>, watch::Sender<u64>) {
    let catalog = Arc::new(Catalog::default());
    let reconnections = sync_with(local, &catalog);
    (catalog, reconnections)
}

pub(super) fn sync_with(local: &Arc<Local>, catalog: &Arc<Catalog>) -> watch::Sender<u64> {
    let (reconnections, receiver) = watch::channel(0);
    local.keep_in_sync(Arc::clone(catalog) as _, receiver, watch::channel(0).1);
    reconnections
}

fn web() -> ServiceDefinition {
    ServiceDefinition::from_json(&json!({"Name": "web", "Port": 80, "Check": {"TTL": "10s"}})).unwrap()
}

async fn register(local: &Arc<Local>) {
    local.register_service(web(), false, Credential::anonymous()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_in_the_catalog_when_it_is_acknowledged() {
    let (local, _tasks) = start(None, &[]);
    let (catalog, _reconnections) = in_sync(&local);
    register(&local).await;
    assert_eq!(catalog.held.lock().services["web"].port, 80);
    assert_eq!(catalog.held.lock().checks["service:web"].status, CheckStatus::Critical);
    assert_eq!(catalog.held.lock().tokens, ["agent", "default"]);
    local.set_ttl(&"service:web".parse().unwrap(), CheckStatus::Passing, "fine").await.unwrap();
    assert_eq!(catalog.held.lock().checks["service:web"].status, CheckStatus::Passing);
    local.deregister_service(&"web".parse().unwrap()).await.unwrap();
    assert!(catalog.held.lock().services.is_empty() && catalog.held.lock().checks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_registrations_are_written_down_and_told_together() {
    let fs = MemoryFs::new();
    let (local, tasks) = start(Some(&fs), &[]);
    let (catalog, _reconnections) = in_sync(&local);
    register(&local).await;
    catalog.held.lock().slowness = Duration::from_millis(10);
    let syncs = || fs.steps().iter().filter(|step| matches!(step, Step::Sync(_))).count();
    let (begun, before) = (Instant::now(), syncs());
    let registrations = (0..100).map(|number| {
        let check = json!({"TTL": "10s", "Status": if number % 2 == 0 { "passing" } else { "critical" }});
        let service = json!({"ID": format!("web-{number}"), "Name": "web", "Check": check});
        let service = ServiceDefinition::from_json(&service).unwrap();
        local.register_service(service, false, Credential::anonymous())
    });
    for done in futures_util::future::join_all(registrations).await {
        done.unwrap();
    }
    assert_eq!(catalog.held.lock().services.len(), 101);
    assert!(begun.elapsed() <= Duration::from_millis(100), "{:?}", begun.elapsed());
    assert!(syncs() - before < 10, "{} syncs", syncs() - before);
    // One thing changed in two ways keeps the order in which that was asked.
    let (once, twice) = (json!({"Name": "web", "Port": 1}), json!({"Name": "web", "Port": 2}));
    let again = [once, twice].map(|it| ServiceDefinition::from_json(&it).unwrap());
    let web: ServiceId = "web".parse().unwrap();
    let [one, two] = again.map(|it| local.register_service(it, false, Credential::anonymous()));
    let (one, two, gone) = tokio::join!(one, two, local.deregister_service(&web));
    assert_eq!((one, two, gone), (Ok(()), Ok(()), Ok(())));
    tasks.cancel();
    fs.crash(Crash::DropUnsynced);
    let (again, _tasks) = start(Some(&fs), &[]);
    assert_eq!(again.services().keys().collect::<Vec<_>>(), local.services().keys().collect::<Vec<_>>());
    assert_eq!((again.services().len(), again.service(&web)), (100, None));
    assert_eq!(again.check(&"service:web-8".parse().unwrap()).unwrap().status, CheckStatus::Passing);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_registrations_and_changes_nothing() {
    let fs = MemoryFs::new();
    let (local, _tasks) = start(Some(&fs), &[]);
    register(&local).await;
    fs.fail_from(0, Fault::StorageFull);
    let other = ServiceDefinition { name: "other".into(), ..ServiceDefinition::default() };
    let refused = local.register_service(other.clone(), false, Credential::anonymous()).await.unwrap_err();
    assert!(refused.text.contains("cannot be kept in the data directory: no space left"), "{}", refused.text);
    let gone = local.deregister_service(&"web".parse().unwrap()).await;
    assert!(gone.is_err() && local.services().len() == 1 && local.checks().len() == 1);
    fs.heal();
    local.register_service(other, false, Credential::anonymous()).await.unwrap();
    fs.crash(Crash::DropUnsynced);
    let (again, _tasks) = start(Some(&fs), &[]);
    assert_eq!((again.services().len(), again.checks().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_agrees_is_compared_and_not_told_again() {
    let (local, _tasks) = start(None, &[json!({"Name": "web"})]);
    let (catalog, _reconnections) = in_sync(&local);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writes = catalog.held.lock().writes;
    let reads = catalog.held.lock().reads;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(catalog.held.lock().writes, writes);
    assert!(catalog.held.lock().reads >= reads + 8, "it was compared every minute or two");
}

#[tokio::test(start_paused = true)]
async fn what_a_reload_says_of_the_node_is_told_at_once_and_only_when_it_is_new() {
    let (local, _tasks) = start(None, &[]);
    let (catalog, _reconnections) = in_sync(&local);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let facts = NodeFacts {
        meta: BTreeMap::from([("rack".to_owned(), "b".to_owned())]),
        locality: Some(Locality { region: "eu".into(), zone: String::new() }),
    };
    local.set_node(facts.clone());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writes = {
        let held = catalog.held.lock();
        let node = held.node.as_ref().unwrap();
        assert_eq!((node.meta["rack"].as_str(), &node.locality), ("b", &facts.locality));
        held.writes
    };
    local.set_node(facts);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(catalog.held.lock().writes, writes, "what the catalog has is not told again");
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_lost_everything_gets_it_back_and_strays_are_removed() {
    let (local, _tasks) = start(None, &[json!({"Name": "web"})]);
    let (catalog, _reconnections) = in_sync(&local);
    tokio::time::sleep(Duration::from_secs(1)).await;
    {
        let mut held = catalog.held.lock();
        let stray = NodeService { id: Some("old".parse().unwrap()), ..held.services["web"].clone() };
        held.services = BTreeMap::from([("old".to_owned(), stray)]);
    }
    tokio::time::sleep(Duration::from_secs(121)).await;
    assert_eq!(catalog.held.lock().services.keys().collect::<Vec<_>>(), ["web"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_reached_again_is_compared_at_once() {
    let (local, _tasks) = start(None, &[json!({"Name": "web"})]);
    let (catalog, reconnections) = in_sync(&local);
    tokio::time::sleep(Duration::from_secs(1)).await;
    catalog.held.lock().services.clear();
    reconnections.send_modify(|count| *count += 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(catalog.held.lock().services.contains_key("web"));
}

#[tokio::test(start_paused = true)]
async fn a_registration_without_a_leader_is_acknowledged_and_told_later() {
    let (local, _tasks) = start(None, &[]);
    let (catalog, _reconnections) = in_sync(&local);
    tokio::time::sleep(Duration::from_secs(1)).await;
    catalog.held.lock().refusal = Some(Refusal::no_leader());
    register(&local).await;
    assert!(catalog.held.lock().services.is_empty());
    catalog.held.lock().refusal = None;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(catalog.held.lock().services.contains_key("web"));
}

#[tokio::test(start_paused = true)]
async fn a_denial_does_not_stop_the_others_and_is_not_hammered() {
    let (local, _tasks) = start(None, &[json!({"Name": "denied"}), json!({"Name": "web"})]);
    let (catalog, _reconnections) = in_sync(&local);
    catalog.held.lock().denied_service = Some("denied".into());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(catalog.held.lock().services.keys().collect::<Vec<_>>(), ["web"]);
    let writes = catalog.held.lock().writes;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let more = catalog.held.lock().writes - writes;
    assert!((5..30).contains(&more), "{more} tries in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_check_whose_owner_is_silent_expires_and_says_what_it_heard_last() {
    let (local, _tasks) = start(None, &[]);
    register(&local).await;
    let id: CheckId = "service:web".parse().unwrap();
    local.set_ttl(&id, CheckStatus::Passing, "all well").await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(local.check(&id).unwrap().status, CheckStatus::Passing);
    local.set_ttl(&id, CheckStatus::Passing, "all well").await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(local.check(&id).unwrap().status, CheckStatus::Passing);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let check = local.check(&id).unwrap();
    assert_eq!(check.status, CheckStatus::Critical);
    assert_eq!(check.output, "TTL expired (last output before timeout follows): all well");
}

#[tokio::test(start_paused = true)]
async fn what_came_through_the_api_survives_a_crash_with_its_status() {
    let fs = MemoryFs::new();
    let (local, tasks) = start(Some(&fs), &[]);
    register(&local).await;
    local.set_ttl(&"service:web".parse().unwrap(), CheckStatus::Warning, "slow").await.unwrap();
    local
        .register_service(
            ServiceDefinition { name: "gone".into(), ..ServiceDefinition::default() },
            false,
            Credential::anonymous(),
        )
        .await
        .unwrap();
    local.deregister_service(&"gone".parse().unwrap()).await.unwrap();
    tasks.cancel();
    fs.crash(Crash::DropUnsynced);
    let (again, _tasks) = start(Some(&fs), &[]);
    assert_eq!(again.services().keys().map(ServiceId::as_str).collect::<Vec<_>>(), ["web"]);
    let check = again.check(&"service:web".parse().unwrap()).unwrap();
    assert_eq!((check.status, check.output.as_str()), (CheckStatus::Warning, "slow"));
}

#[tokio::test(start_paused = true)]
async fn a_new_registration_keeps_the_status_and_replaces_checks_only_when_asked() {
    let (local, _tasks) = start(None, &[]);
    register(&local).await;
    let id: CheckId = "service:web".parse().unwrap();
    local.set_ttl(&id, CheckStatus::Passing, "ok").await.unwrap();
    let extra = json!({"Name": "extra", "ServiceID": "web", "TTL": "1h"});
    local.register_check(CheckDefinition::from_json(&extra).unwrap(), Credential::anonymous()).await.unwrap();
    register(&local).await;
    assert_eq!(local.check(&id).unwrap().status, CheckStatus::Passing);
    assert_eq!(local.checks().len(), 2);
    local.register_service(web(), true, Credential::anonymous()).await.unwrap();
    assert_eq!(local.checks().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn unknown_ids_are_refused_in_the_words_that_clients_match_on() {
    let (local, _tasks) = start(None, &[json!({"Name": "web"})]);
    let refusal = local.deregister_service(&"x".parse().unwrap()).await.unwrap_err();
    assert_eq!(
        (refusal.status(), refusal.text.as_str()),
        (404, "Unknown service ID \"x\". Ensure that the service ID is passed, not the service name.")
    );
    let refusal = local.set_ttl(&"x".parse().unwrap(), CheckStatus::Passing, "").await.unwrap_err();
    assert_eq!(
        (refusal.status(), refusal.text.as_str()),
        (404, "Unknown check ID \"x\". Ensure that the check ID is passed, not the check name.")
    );
    let check = CheckDefinition::from_json(&json!({"Name": "c", "ServiceID": "x", "TTL": "1s"})).unwrap();
    let refusal = local.register_check(check, Credential::anonymous()).await.unwrap_err();
    assert_eq!((refusal.status(), refusal.text.as_str()), (404, "ServiceID \"x\" does not exist"));
    let check = CheckDefinition::from_json(&json!({"Name": "c", "TCP": "127.0.0.1:1", "Interval": "1h"})).unwrap();
    local.register_check(check, Credential::anonymous()).await.unwrap();
    let refusal = local.set_ttl(&"c".parse().unwrap(), CheckStatus::Passing, "").await.unwrap_err();
    assert_eq!((refusal.status(), refusal.text.as_str()), (500, "CheckID \"c\" does not have associated TTL"));
}

#[tokio::test(start_paused = true)]
async fn maintenance_makes_an_instance_critical_until_it_ends() {
    let (local, _tasks) = start(None, &[json!({"Name": "web"})]);
    let id: ServiceId = "web".parse().unwrap();
    assert_eq!(local.service_health("web").unwrap().status, "passing");
    local.set_service_maintenance(&id, true, "", Credential::anonymous()).await.unwrap();
    assert_eq!(local.service_health("web").unwrap().status, "maintenance");
    let check = local.check(&"_service_maintenance:web".parse().unwrap()).unwrap();
    assert!(check.notes.contains("no reason was provided"), "{}", check.notes);
    local.set_service_maintenance(&id, false, "", Credential::anonymous()).await.unwrap();
    assert_eq!(local.service_health("web").unwrap().status, "passing");
    local.set_node_maintenance(true, "upgrade", Credential::anonymous()).await.unwrap();
    assert_eq!(local.service_health_by_name("WEB")[0].status, "maintenance");
}

#[test]
fn an_output_is_cut_at_its_limit_between_characters() {
    assert_eq!(cut("short", 10), "short");
    assert_eq!(cut("aäb", 2), "a ... (captured 1 of 4 bytes)");
}

#[tokio::test(start_paused = true)]
async fn other_files_take_the_place_of_the_old_ones_and_of_nothing_else() {
    let fs = MemoryFs::new();
    let service = |name: &str, port: u16, interval: &str| {
        let check = json!({"CheckID": format!("{name}-up"), "TTL": interval});
        ServiceDefinition::from_json(&json!({"Name": name, "Port": port, "Check": check})).unwrap()
    };
    let (local, _tasks) = start(
        Some(&fs),
        &[
            json!({"Name": "stays", "Port": 1, "Check": {"CheckID": "stays-up", "TTL": "90s"}}),
            json!({"Name": "goes", "Port": 2, "Check": {"CheckID": "goes-up", "TTL": "90s"}}),
        ],
    );
    let (catalog, _reconnections) = in_sync(&local);
    register(&local).await;
    let passing = |id: &str| local.checks()[&id.parse::<CheckId>().unwrap()].status == CheckStatus::Passing;
    for id in ["stays-up", "goes-up"] {
        local.set_ttl(&id.parse().unwrap(), CheckStatus::Passing, "fine").await.unwrap();
    }
    local.take_files(&[service("stays", 3, "80s"), service("comes", 4, "80s")], &[]).await.unwrap();
    let ports: BTreeMap<String, u16> =
        catalog.held.lock().services.iter().map(|(id, service)| (id.clone(), service.port)).collect();
    assert_eq!(ports, [("comes", 4), ("stays", 3), ("web", 80)].map(|(id, port)| (id.to_owned(), port)).into());
    assert!(passing("stays-up") && !passing("comes-up"), "a check that changed keeps its status");
    assert!(!local.checks().contains_key(&"goes-up".parse::<CheckId>().unwrap()));
    // The API takes it over; no file takes it away any more.
    local.register_service(service("stays", 5, "80s"), false, Credential::anonymous()).await.unwrap();
    local.take_files(&[], &[]).await.unwrap();
    let ids: Vec<String> = local.services().into_keys().map(|id| id.to_string()).collect();
    assert_eq!(ids, ["stays", "web"]);
    assert!(passing("stays-up"));
}

#[tokio::test(start_paused = true)]
async fn what_files_define_keeps_its_status_and_what_the_api_added_to_it_over_a_restart() {
    let fs = MemoryFs::new();
    let services = [json!({"Name": "web", "Check": {"CheckID": "beat", "TTL": "10s"}})];
    let (local, tasks) = start(Some(&fs), &services);
    local.set_ttl(&"beat".parse().unwrap(), CheckStatus::Passing, "fine").await.unwrap();
    let extra = json!({"Name": "extra", "ServiceID": "web", "TTL": "1h"});
    local.register_check(CheckDefinition::from_json(&extra).unwrap(), Credential::anonymous()).await.unwrap();
    local.set_service_maintenance(&"web".parse().unwrap(), true, "", Credential::anonymous()).await.unwrap();
    tasks.cancel();
    fs.crash(Crash::DropUnsynced);
    let (again, tasks) = start(Some(&fs), &services);
    let ids: Vec<String> = again.checks().into_keys().map(|id| id.to_string()).collect();
    assert_eq!(ids, ["_service_maintenance:web", "beat", "extra"]);
    let check = again.check(&"beat".parse().unwrap()).unwrap();
    assert_eq!((check.status, check.output.as_str()), (CheckStatus::Passing, "fine"));
    tasks.cancel();
    // A check that no file defines any more leaves nothing behind.
    let (last, _tasks) = start(Some(&fs), &[json!({"Name": "web"})]);
    assert!(last.check(&"beat".parse().unwrap()).is_none());
}

#[tokio::test(start_paused = true)]
async fn programs_of_the_api_are_refused_where_only_files_may_name_them() {
    let script = json!({"Name": "s", "Args": ["/bin/true"], "Interval": "10s"});
    let definition = CheckDefinition::from_json(&script).unwrap();
    let refused = async |settings| {
        let (local, _tasks) = start_with(None, &[], &[], settings);
        let refusal = local.register_check(definition.clone(), Credential::anonymous()).await.unwrap_err();
        (refusal.status(), refusal.text)
    };
    let none = CheckSettings::default();
    let words = "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or \
                 'enable_local_script_checks' to true";
    assert_eq!(refused(none).await, (500, words.into()));
    let of_files = CheckSettings { scripts_of_files: true, ..none };
    assert!(refused(of_files).await.1.contains("from remote calls"));
    let (local, _tasks) = start_with(None, &[], &[script], of_files);
    assert_eq!(local.checks().len(), 1);
    let both = CheckSettings { scripts_of_api: true, ..of_files };
    let (local, _tasks) = start_with(None, &[], &[], both);
    local.register_check(definition.clone(), Credential::anonymous()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_alias_shows_what_it_is_an_alias_of_here_and_elsewhere() {
    let services = [json!({"Name": "web", "Check": {"CheckID": "beat", "TTL": "1h"}})];
    let here = json!({"CheckID": "here", "Name": "here", "AliasService": "web"});
    let there = json!({"CheckID": "there", "Name": "there", "AliasNode": "n2", "AliasService": "db"});
    let absent = json!({"CheckID": "absent", "Name": "absent", "AliasService": "nobody"});
    // An alias of the whole node would see the others; it is not there.
    let (local, _tasks) = start_with(None, &services, &[here, there, absent], CheckSettings::default());
    let (catalog, _reconnections) = in_sync(&local);
    let status = |id: &str| local.check(&id.parse().unwrap()).map(|check| (check.status, check.output)).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status("absent").1, "Service nobody could not be found on node n1");
    assert_eq!(status("there"), (CheckStatus::Critical, "Service db could not be found on node n2".into()));
    assert_eq!(status("here").0, CheckStatus::Critical);
    for id in ["absent", "there"] {
        local.deregister_check(&id.parse().unwrap()).await.unwrap();
    }
    local.set_ttl(&"beat".parse().unwrap(), CheckStatus::Passing, "").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status("here"), (CheckStatus::Passing, "All checks passing.".into()));
    assert_eq!(catalog.held.lock().checks["here"].kind, "alias");
}

#[tokio::test(start_paused = true)]
async fn five_thousand_checks_do_not_start_in_a_burst() {
    const CHECKS: usize = 5000;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let checks: Vec<Value> =
        (0..CHECKS).map(|n| json!({"Name": format!("c{n}"), "TCP": closed, "Interval": "10s"})).collect();
    let (local, _tasks) = start_with(None, &[], &checks, CheckSettings::default());
    let mut counts = Vec::new();
    let mut before = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let ran = local.rows.lock().checks.values().filter(|row| !row.check.output.is_empty()).count();
        counts.push(ran - before);
        before = ran;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(local.rows.lock().checks.values().all(|row| row.check.output.contains("refused")));
    // Fifty is the mean of a tenth of a second.
    assert!(counts.iter().all(|count| *count < 110), "{counts:?}");
    assert!(counts.iter().filter(|count| **count > 10).count() > 90, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mass_expiry_is_held_back_and_owners_that_come_back_lose_nothing() {
    let instances: Vec<Value> = (0..40)
        .map(|n| json!({"ID": format!("web{n}"), "Name": "web", "Check": {"TTL": "20s", "Status": "passing"}}))
        .collect();
    let (local, _tasks) = start(None, &instances);
    let critical = || local.checks().values().filter(|check| check.status == CheckStatus::Critical).count();
    tokio::time::sleep(Duration::from_millis(20_500)).await;
    assert_eq!(critical(), 6, "15 % of 40");
    // Half of the owners come back in time.
    for n in 0..20 {
        let id: CheckId = format!("service:web{n}").parse().unwrap();
        local.set_ttl(&id, CheckStatus::Passing, "").await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    assert_eq!(critical(), 20, "those whose owners stay silent are critical in the end");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_set_through_the_api_survives_a_crash() {
    use crate::tokens::TokenKind;
    let fs = MemoryFs::new();
    let (local, tasks) = start(Some(&fs), &[]);
    local.replace_token(TokenKind::Agent, Credential::new("new")).await.unwrap();
    local.replace_token(TokenKind::Dns, Credential::new("dns")).await.unwrap();
    assert_eq!(local.tokens().agent().secret, "new");
    tasks.cancel();
    fs.crash(Crash::DropUnsynced);
    let (again, _tasks) = start(Some(&fs), &[]);
    let tokens = again.tokens();
    assert_eq!([tokens.agent(), tokens.dns(), tokens.default()].map(|it| it.secret), ["new", "dns", "default"]);
}
