//! The agent's own services and checks: registered through the API or by files, checked here, and kept the same in the
//! catalog.
//!
//! ```text
//! API, files ──register──> Local ──changes──> sync ──waist──> catalog
//!                            ^  │                └─ full comparison at the start, on reconnect, each minute or two
//!                observe ────┘  └─start/stop──> runner ──> probe (connects, or has a program run), TTL or alias
//! ```
//!
//! Invariants
//! - A change that was acknowledged is on disk first, if there is a data directory, and was told to the catalog, or that
//!   failed and will be tried again.
//! - Only changes travel. The catalog's rows of this node that nobody here knows are removed, except the leader's own.
//! - One task per check, ended when the check goes; numbers of services and checks are limited.
//! - No program is run unless the configuration allows it for where the definition came from.

mod alias;
mod ask;
mod canonical;
mod changes;
mod definition;
mod difference;
mod expiry;
mod files;
mod health;
mod maintenance;
mod probe;
mod rows;
mod runner;
mod sidecar;
mod store;
mod sync;
mod target;
mod thresholds;
mod trust;
mod validate;
mod warnings;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod truth_tests;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lictor_runtime::fs::Fs;
use lictor_runtime::{Resolver, Rng, Tasks};
use lictor_types::{CheckId, CheckStatus, Credential, HealthCheck, Locality, NodeService, Refusal, ServiceId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::SharedDatacenter;
use crate::agent::AgentIdentity;
use crate::config::{CheckSettings, Config};
use crate::tokens::{AgentTokens, TokenKind};
use changes::{Change, Concern, Plan};
use files::Files;
use rows::Rows;
use runner::Running;
use store::{Kept, KeptCheck, KeptService, KeptStatus, Record, Store};

pub use ask::ask_url;
pub use definition::{CheckDefinition, ConnectDefinition, ServiceDefinition};
pub use expiry::{Expiries, Verdict};
pub use health::ServiceHealth;
pub use sidecar::SidecarPorts;
pub(crate) use store::write_whole;
pub(crate) use validate::validate_pairs;
pub(crate) use warnings::not_in_dns;

/// Instances that one agent holds.
pub const SERVICES_MAX: usize = 8192;
/// Checks that one agent runs.
pub const CHECKS_MAX: usize = 16384;
/// How long a change waits for the catalog before it is acknowledged all the same: the hold time of a request.
const SETTLE_LIMIT: Duration = Duration::from_secs(8);
/// The check that says that the node is under maintenance.
pub const NODE_MAINTENANCE: &str = "_node_maintenance";
/// What the ids of checks begin with that say that an instance is under maintenance.
pub const SERVICE_MAINTENANCE: &str = "_service_maintenance:";

/// What the catalog is told of the node beside who it is; a reload may change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its meta, our version among it.
    pub meta: BTreeMap<String, String>,
    /// Where it is.
    pub locality: Option<Locality>,
}

impl NodeFacts {
    /// Those that `config` gives.
    pub fn new(config: &Config) -> Self {
        Self { meta: crate::agent::node_meta(config), locality: config.locality.clone() }
    }
}

/// What [`Local`] is made of.
pub struct LocalSettings {
    /// The agent.
    pub identity: AgentIdentity,
    /// What is told of its node.
    pub node: NodeFacts,
    /// For the node itself, and for services and checks that name no token.
    pub tokens: Arc<AgentTokens>,
    /// Tokens that are set through the API are kept over a restart.
    pub persist_tokens: bool,
    /// How checks are run and told.
    pub settings: CheckSettings,
    /// The ports of proxies that are registered without one.
    pub sidecar_ports: SidecarPorts,
    /// Instances from files.
    pub services: Vec<ServiceDefinition>,
    /// Checks from files.
    pub checks: Vec<CheckDefinition>,
    /// Where registrations survive a restart; none keeps them in memory.
    pub data: Option<(Arc<dyn Fs>, PathBuf)>,
    /// Names that checks connect to.
    pub resolver: Resolver,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Owner of the tasks.
    pub tasks: Tasks,
}

impl LocalSettings {
    /// The settings that `config` gives.
    pub fn new(
        identity: AgentIdentity,
        config: &Config,
        fs: Arc<dyn Fs>,
        resolver: Resolver,
        rng: Arc<dyn Rng>,
        tasks: Tasks,
    ) -> Self {
        Self {
            identity,
            node: NodeFacts::new(config),
            tokens: Arc::new(AgentTokens::of(config)),
            persist_tokens: config.acl.persist_tokens,
            settings: config.check_settings,
            sidecar_ports: config.ports.sidecars,
            services: config.services.clone(),
            checks: config.checks.clone(),
            data: config.data_dir.clone().map(|directory| (fs, directory)),
            resolver,
            rng,
            tasks,
        }
    }
}

/// The agent's own services and checks.
pub struct Local {
    identity: AgentIdentity,
    node: Mutex<NodeFacts>,
    tokens: Arc<AgentTokens>,
    persist_tokens: bool,
    settings: CheckSettings,
    sidecar_ports: SidecarPorts,
    sidecars: sidecar::Sidecars,
    resolver: Resolver,
    rng: Arc<dyn Rng>,
    tasks: Tasks,
    store: Option<Store>,
    /// To the task that carries them out.
    changes: mpsc::Sender<Change>,
    /// Held while a token is written down and put in force, so that both change in the same order.
    replacing_token: tokio::sync::Mutex<()>,
    /// What files define.
    files: Mutex<Files>,
    rows: Mutex<Rows>,
    running: Mutex<BTreeMap<CheckId, Running>>,
    expiries: Mutex<Expiries>,
    /// The catalog, once it is known.
    datacenter: watch::Sender<Option<SharedDatacenter>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
    /// The change up to which the catalog was told, or would not take it.
    told: watch::Sender<u64>,
    syncing: AtomicBool,
}

impl Local {
    /// Takes over what files and the data directory say, and starts to run the checks.
    ///
    /// # Errors
    /// The data directory cannot be used, or a definition of a file cannot be taken.
    pub fn start(settings: LocalSettings) -> io::Result<Arc<Self>> {
        let store = match &settings.data {
            Some((fs, directory)) => Some(Store::open(Arc::clone(fs), directory)?),
            None => None,
        };
        let (changes, waiting) = mpsc::channel(changes::WAITING_MAX);
        let local = Arc::new(Self {
            identity: settings.identity,
            node: Mutex::new(settings.node),
            tokens: settings.tokens,
            persist_tokens: settings.persist_tokens,
            settings: settings.settings,
            sidecar_ports: settings.sidecar_ports,
            sidecars: sidecar::Sidecars::default(),
            resolver: settings.resolver,
            rng: settings.rng,
            tasks: settings.tasks.child(),
            store,
            changes,
            replacing_token: tokio::sync::Mutex::new(()),
            files: Mutex::default(),
            rows: Mutex::new(Rows::default()),
            running: Mutex::new(BTreeMap::new()),
            expiries: Mutex::default(),
            datacenter: watch::channel(None).0,
            changed: watch::channel(0).0,
            told: watch::channel(0).0,
            syncing: AtomicBool::new(false),
        });
        local.load_tokens()?;
        let kept = local.store.as_ref().map(Store::load).transpose()?.unwrap_or_default();
        for service in &kept.services {
            if let Err(refusal) = local.take_service(&service.definition) {
                tracing::error!(%refusal, "a kept service cannot be taken");
            }
        }
        local.load_files(settings.services, settings.checks).map_err(|refusal| io::Error::other(refusal.text))?;
        local.load_kept_checks(kept)?;
        local.tasks.spawn(changes::carry_out_all(Arc::clone(&local), waiting));
        local.tasks.spawn(reap(Arc::clone(&local)));
        Ok(local)
    }

    /// Takes over the checks of the data directory. What files define stays as they say; the status is taken over.
    fn load_kept_checks(self: &Arc<Self>, kept: Kept) -> io::Result<()> {
        let mut lost = Vec::new();
        for KeptCheck { definition, status, output } in kept.checks {
            let Ok(id) = definition.id_text().parse::<CheckId>() else { continue };
            if !definition.service_id.is_empty() && self.service_named(&definition.service_id).is_none() {
                tracing::warn!(check = %id, service = definition.service_id, "a kept check has lost its service");
                lost.push(Record::CheckGone(id.to_string()));
                continue;
            }
            if !self.files.lock().checks.contains_key(&id)
                && let Err(refusal) = self.take_check(definition, true)
            {
                tracing::error!(%refusal, "a kept check cannot be taken");
                continue;
            }
            self.rows.lock().observe(&id, status, &output, Instant::now(), Duration::ZERO);
        }
        for KeptStatus { check, status, output } in kept.statuses {
            let Ok(id) = check.parse::<CheckId>() else { continue };
            if self.files.lock().checks.get(&id).is_some_and(|check| check.kind() == "ttl") {
                self.rows.lock().observe(&id, status, &output, Instant::now(), Duration::ZERO);
            } else {
                lost.push(Record::StatusGone(check));
            }
        }
        self.store.as_ref().map_or(Ok(()), |store| store.append(&lost))
    }

    fn load_files(
        self: &Arc<Self>,
        services: Vec<ServiceDefinition>,
        checks: Vec<CheckDefinition>,
    ) -> Result<(), Refusal> {
        let services = self.with_sidecars(&services)?;
        let files = Files::of(&services, &checks)?;
        files.checks.values().try_for_each(|check| self.may_run(check, false))?;
        *self.files.lock() = files;
        for service in services {
            let of_it = service.all_checks();
            self.take_service(&service)?;
            for check in of_it {
                self.take_check(check, false)?;
            }
        }
        for check in checks {
            self.must_have_service(&check.service_id)?;
            self.take_check(check, false)?;
        }
        Ok(())
    }

    /// Whether a check of this definition may be run: one that has a program run, from files or else from the API, only where
    /// the configuration says so.
    fn may_run(&self, definition: &CheckDefinition, from_api: bool) -> Result<(), Refusal> {
        let settings = &self.settings;
        if !definition.runs_programs() || settings.scripts_of_api || (settings.scripts_of_files && !from_api) {
            return Ok(());
        }
        Err(Refusal::failed(if settings.scripts_of_files {
            "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true"
        } else {
            "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or \
             'enable_local_script_checks' to true"
        }))
    }

    /// The catalog, as soon as it is known.
    async fn datacenter(&self) -> SharedDatacenter {
        let mut known = self.datacenter.subscribe();
        loop {
            if let Some(datacenter) = known.borrow_and_update().clone() {
                return datacenter;
            }
            if known.changed().await.is_err() {
                // The sender is ours: this never happens, and nobody could be asked.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends the checks and the comparison with the catalog, for an agent that leaves.
    pub async fn stop(&self, limit: Duration) {
        self.tasks.stop(limit).await;
        self.running.lock().clear();
    }

    /// Every instance by id.
    pub fn services(&self) -> BTreeMap<ServiceId, NodeService> {
        self.rows.lock().services.iter().map(|(id, row)| (id.clone(), row.service.clone())).collect()
    }

    /// One instance.
    pub fn service(&self, id: &ServiceId) -> Option<NodeService> {
        self.rows.lock().services.get(id).map(|row| row.service.clone())
    }

    /// Every check by id.
    pub fn checks(&self) -> BTreeMap<CheckId, HealthCheck> {
        self.rows.lock().checks.iter().map(|(id, row)| (id.clone(), row.check.clone())).collect()
    }

    /// One check.
    pub fn check(&self, id: &CheckId) -> Option<HealthCheck> {
        self.rows.lock().checks.get(id).map(|row| row.check.clone())
    }

    /// A number that grows with every change of a service or a check.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What the agent asks with where nothing brings a token.
    pub fn tokens(&self) -> Arc<AgentTokens> {
        Arc::clone(&self.tokens)
    }

    fn load_tokens(&self) -> io::Result<()> {
        let Some(store) = self.store.as_ref().filter(|_| self.persist_tokens) else { return Ok(()) };
        for (name, secret) in store.load_tokens()? {
            if let Some(kind) = TokenKind::named(&name) {
                self.tokens.keep(kind, Credential::new(secret));
            }
        }
        Ok(())
    }

    /// Asks with another token of this kind from now on, after a restart too where the configuration wants that.
    ///
    /// # Errors
    /// It cannot be kept; then nothing has changed.
    pub async fn replace_token(&self, kind: TokenKind, token: Credential) -> Result<(), Refusal> {
        let Some(store) = self.store.clone().filter(|_| self.persist_tokens) else {
            self.tokens.replace(kind, token);
            return Ok(());
        };
        let _replacing = self.replacing_token.lock().await;
        let mut kept = self.tokens.kept();
        kept.insert(kind.name().to_owned(), token.secret.clone());
        let written = tokio::task::spawn_blocking(move || store.keep_tokens(&kept)).await;
        changes::not_kept(written.unwrap_or_else(|error| Err(io::Error::other(error))))?;
        self.tokens.keep(kind, token);
        Ok(())
    }

    fn service_named(&self, id: &str) -> Option<NodeService> {
        self.service(&id.parse().ok()?)
    }

    /// Adds or replaces an instance and its checks, without the proxy in its definition, and tells the catalog.
    async fn register_instance(
        self: &Arc<Self>,
        mut definition: ServiceDefinition,
        replace_existing_checks: bool,
        credential: Credential,
    ) -> Result<(), Refusal> {
        definition.validate()?;
        if definition.token.is_anonymous() {
            definition.token = credential;
        }
        let mut checks = definition.all_checks();
        for check in checks.iter_mut().filter(|check| check.token.is_anonymous()) {
            check.token = definition.token.clone();
        }
        let concerns = self.concerns_of(definition.id_text(), &checks);
        let plan = move |local: &Arc<Self>| {
            local.has_room(definition.id_text(), &checks)?;
            checks.iter().try_for_each(|check| local.may_run(check, true))?;
            let others = || local.other_checks(definition.id_text(), &checks);
            let superseded = if replace_existing_checks { others() } else { Vec::new() };
            let service = KeptService { definition: definition.clone() };
            let mut records = vec![Record::Service(Box::new(service))];
            records.extend(checks.iter().map(|check| Record::Check(Box::new(local.kept_check(check)))));
            records.extend(superseded.iter().map(|check| Record::CheckGone(check.to_string())));
            Ok(Plan::new(records, move |local| {
                local.no_longer_of_files(Some(definition.id_text()), &checks);
                local.take_service(&definition)?;
                checks.into_iter().try_for_each(|check| local.take_check(check, true))?;
                superseded.iter().for_each(|check| local.drop_check(check));
                Ok(())
            }))
        };
        self.change(concerns, plan).await?;
        self.settle().await;
        Ok(())
    }

    /// Removes an instance and its checks alone, and tells the catalog.
    async fn deregister_instance(self: &Arc<Self>, service: &ServiceId) -> Result<(), Refusal> {
        let id = service.clone();
        let plan = move |local: &Arc<Self>| {
            local.service(&id).ok_or_else(|| unknown_service(id.as_str()))?;
            let checks = local.other_checks_of(id.as_str());
            let mut records: Vec<Record> = checks.iter().map(|check| Record::CheckGone(check.to_string())).collect();
            records.push(Record::ServiceGone(id.to_string()));
            Ok(Plan::new(records, move |local| {
                let checks = local.rows.lock().remove_service(&id).ok_or_else(|| unknown_service(id.as_str()))?;
                local.sidecars.lost(&id);
                // Should a file define it, the next reload brings it back.
                local.files.lock().services.remove(&id);
                local.running.lock().retain(|check, _| !checks.contains(check));
                local.note_change();
                Ok(())
            }))
        };
        self.change([Concern::Service(service.as_str().into())], plan).await?;
        self.settle().await;
        Ok(())
    }

    /// Adds or replaces a check, and tells the catalog.
    ///
    /// # Errors
    /// The definition is not valid (400), its service is unknown (404), there are too many (429), or it cannot be kept
    /// (500).
    pub async fn register_check(
        self: &Arc<Self>,
        mut definition: CheckDefinition,
        credential: Credential,
    ) -> Result<(), Refusal> {
        definition.validate_alone()?;
        self.may_run(&definition, true)?;
        if definition.token.is_anonymous() {
            definition.token = credential;
        }
        let concerns = self.concerns_of(&definition.service_id, std::slice::from_ref(&definition));
        let plan = move |local: &Arc<Self>| {
            local.must_have_service(&definition.service_id)?;
            local.has_room("", std::slice::from_ref(&definition))?;
            let records = vec![Record::Check(Box::new(local.kept_check(&definition)))];
            Ok(Plan::new(records, move |local| {
                local.no_longer_of_files(None, std::slice::from_ref(&definition));
                local.take_check(definition, true)
            }))
        };
        self.change(concerns, plan).await?;
        self.settle().await;
        Ok(())
    }

    /// Removes a check, and tells the catalog.
    ///
    /// # Errors
    /// 404 for an unknown id.
    pub async fn deregister_check(self: &Arc<Self>, id: &CheckId) -> Result<(), Refusal> {
        let gone = id.clone();
        let plan = move |local: &Arc<Self>| {
            local.check(&gone).ok_or_else(|| unknown_check(&gone))?;
            let records = vec![Record::StatusGone(gone.to_string()), Record::CheckGone(gone.to_string())];
            Ok(Plan::new(records, move |local| {
                local.drop_check(&gone);
                Ok(())
            }))
        };
        self.change(self.concerns_of_check(id), plan).await?;
        self.settle().await;
        Ok(())
    }

    /// The owner of a TTL check tells its status.
    ///
    /// # Errors
    /// 404 for an unknown id, 500 for a check of another kind.
    pub async fn set_ttl(self: &Arc<Self>, id: &CheckId, status: CheckStatus, output: &str) -> Result<(), Refusal> {
        let limit = {
            let rows = self.rows.lock();
            probe::output_limit(
                &rows.checks.get(id).ok_or_else(|| unknown_check(id))?.definition,
                self.settings.output_max_size,
            )
        };
        let has_ttl = self.running.lock().get(id).is_some_and(|running| {
            running.renew();
            running.has_ttl()
        });
        if !has_ttl {
            return Err(Refusal::failed(format!("CheckID {:?} does not have associated TTL", id.as_str())));
        }
        if self.observe(id, status, &cut(output, limit)).await {
            self.settle().await;
        }
        Ok(())
    }

    fn must_have_service(&self, id: &str) -> Result<(), Refusal> {
        if id.is_empty() || self.service_named(id).is_some() {
            Ok(())
        } else {
            Err(Refusal::not_found(format!("ServiceID {id:?} does not exist")))
        }
    }

    fn has_room(&self, service: &str, checks: &[CheckDefinition]) -> Result<(), Refusal> {
        let rows = self.rows.lock();
        let known = |id: &str| rows.checks.keys().any(|check| check.as_str() == id);
        let more_checks = checks.iter().filter(|check| !known(check.id_text())).count();
        let more_services = usize::from(!service.is_empty() && !rows.services.keys().any(|id| id.as_str() == service));
        if rows.services.len() + more_services > SERVICES_MAX || rows.checks.len() + more_checks > CHECKS_MAX {
            let text = format!("an agent holds {SERVICES_MAX} services and {CHECKS_MAX} checks at most");
            return Err(Refusal::new(lictor_types::refusal::RefusalKind::TooMany, text));
        }
        Ok(())
    }

    fn other_checks_of(&self, service: &str) -> Vec<CheckId> {
        let rows = self.rows.lock();
        rows.checks.iter().filter(|(_, row)| row.check.service_id == service).map(|(id, _)| id.clone()).collect()
    }

    /// The checks of an instance that are not among these; maintenance stays.
    fn other_checks(&self, service: &str, these: &[CheckDefinition]) -> Vec<CheckId> {
        let mut others = self.other_checks_of(service);
        others.retain(|id| {
            !these.iter().any(|check| check.id_text() == id.as_str()) && !id.as_str().starts_with(SERVICE_MAINTENANCE)
        });
        others
    }

    fn kept_check(&self, definition: &CheckDefinition) -> KeptCheck {
        let before = definition.id_text().parse().ok().and_then(|id| self.check(&id));
        let (status, output) = before
            .filter(|_| definition.status.is_empty())
            .map_or((definition.status.parse().unwrap_or_default(), String::new()), |check| {
                (check.status, check.output)
            });
        KeptCheck { definition: definition.clone(), status, output }
    }

    /// What a change of an instance (empty: of none) and of these checks of it concerns.
    fn concerns_of(&self, service: &str, checks: &[CheckDefinition]) -> Vec<Concern> {
        let ids = checks.iter().filter_map(|check| check.id_text().parse::<CheckId>().ok());
        let mut concerns: Vec<Concern> = ids.flat_map(|id| self.concerns_of_check(&id)).collect();
        concerns.extend((!service.is_empty()).then(|| Concern::Service(service.into())));
        concerns
    }

    /// What a change of a check that may be there concerns.
    fn concerns_of_check(&self, id: &CheckId) -> Vec<Concern> {
        let service = self.rows.lock().checks.get(id).map(|row| row.check.service_id.clone()).unwrap_or_default();
        let mut concerns = vec![Concern::Check(id.as_str().into())];
        concerns.extend((!service.is_empty()).then_some(Concern::Service(service)));
        concerns
    }

    fn take_service(&self, definition: &ServiceDefinition) -> Result<(), Refusal> {
        let service = definition.to_node_service().map_err(|error| Refusal::bad_request(error.to_string()))?;
        warnings::of_service(definition);
        self.sidecars.took(definition);
        if let Some(id) = service.id.clone() {
            let token = definition.token.clone();
            self.rows.lock().put_service(id, service, token);
            self.note_change();
        }
        Ok(())
    }

    fn take_check(self: &Arc<Self>, definition: CheckDefinition, kept: bool) -> Result<(), Refusal> {
        let id: CheckId = definition.id_text().parse().map_err(|error| Refusal::bad_request(format!("{error}")))?;
        let mut check = definition.to_health_check(id.clone());
        warnings::of_check(&definition);
        let is_maintenance = id.as_str() == NODE_MAINTENANCE || id.as_str().starts_with(SERVICE_MAINTENANCE);
        if is_maintenance {
            check.kind = "maintenance".into();
        }
        let token = definition.token.clone();
        self.running.lock().remove(&id);
        self.rows.lock().put_check(&self.identity.node_name, check, definition.clone(), token, kept, Instant::now());
        if !is_maintenance {
            let running = Running::start(self, id.clone(), &definition);
            self.running.lock().insert(id, running);
        }
        self.note_change();
        Ok(())
    }

    fn drop_check(&self, id: &CheckId) {
        self.running.lock().remove(id);
        self.rows.lock().remove_check(id);
        self.note_change();
    }

    /// What the catalog is told of the node.
    pub fn node(&self) -> NodeFacts {
        self.node.lock().clone()
    }

    /// Tells the catalog other things of the node from now on.
    pub fn set_node(&self, facts: NodeFacts) {
        let is_same = std::mem::replace(&mut *self.node.lock(), facts.clone()) == facts;
        if !is_same {
            self.rows.lock().node_changed();
            self.note_change();
        }
    }

    fn note_change(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// A check found something. Returns whether its status changed; then it is kept too.
    async fn observe(&self, id: &CheckId, status: CheckStatus, output: &str) -> bool {
        let output = if self.settings.discard_output { "" } else { output };
        let interval = self.settings.update_interval;
        let defer = interval / 2 + Duration::from_millis(self.rng.below(interval.as_millis() as u64));
        let defer = if interval.is_zero() { Duration::ZERO } else { defer };
        let (changed, status_changed) = self.rows.lock().observe(id, status, output, Instant::now(), defer);
        if changed {
            self.note_change();
        }
        if status_changed {
            self.keep_status(id, status, output).await;
        }
        status_changed
    }

    /// Writes a new status down: beside its definition, or alone for a TTL of a file. What looks for itself looks again.
    async fn keep_status(&self, id: &CheckId, status: CheckStatus, output: &str) {
        if self.store.is_none() {
            return;
        }
        let (check, output) = (id.clone(), output.to_owned());
        let plan = move |local: &Arc<Self>| {
            // It may have been removed while we waited.
            let found = local.rows.lock().checks.get(&check).map(|row| (row.kept, row.definition.clone()));
            let record = match found {
                Some((true, definition)) => Record::Check(Box::new(KeptCheck { definition, status, output })),
                Some((false, definition)) if definition.kind() == "ttl" => {
                    Record::Status(KeptStatus { check: check.to_string(), status, output })
                }
                _ => return Ok(Plan::nothing()),
            };
            Ok(Plan::new(vec![record], |_| Ok(())))
        };
        if let Err(refusal) = self.change(self.concerns_of_check(id), plan).await {
            tracing::warn!(check = %id, %refusal, "the status of a check is not kept");
        }
    }

    /// What to do with a TTL check whose time has run out.
    fn judge_expiry(&self, id: &CheckId, ttl: Duration, held: bool) -> Verdict {
        let (service, checks) = {
            let rows = self.rows.lock();
            let Some(row) = rows.checks.get(id) else { return Verdict::Expired };
            let service = row.check.service_name.clone();
            let of_it = |row: &&rows::CheckRow| row.check.service_name == service && row.definition.kind() == "ttl";
            let checks = rows.checks.values().filter(of_it).count();
            (service, checks)
        };
        let verdict = self.expiries.lock().judge(&service, checks, ttl, held, Instant::now());
        if let Verdict::Held { grace, first: true } = verdict {
            tracing::warn!(
                service,
                checks,
                held_back_seconds = grace.as_secs(),
                "many TTL checks of one service run out at once; the rest is held back once before it is critical"
            );
        }
        verdict
    }

    /// Waits until the catalog was told of every change so far, or until the limit.
    async fn settle(&self) {
        if !self.syncing.load(Ordering::Acquire) {
            return;
        }
        let change = *self.changed.borrow();
        let mut told = self.told.subscribe();
        // Late is not lost: the change is kept and tried again.
        let _ = tokio::time::timeout(SETTLE_LIMIT, told.wait_for(|told| *told >= change)).await;
    }
}

/// Removes instances that have been critical for longer than they allow.
async fn reap(local: Arc<Local>) {
    loop {
        tokio::time::sleep(local.settings.reap_interval).await;
        let overdue = local.rows.lock().to_reap(Instant::now());
        for id in overdue {
            tracing::info!(service = %id, "removed: it was critical for longer than its check allows");
            if let Err(refusal) = local.deregister_service(&id).await {
                tracing::warn!(service = %id, %refusal, "cannot remove a critical service");
            }
        }
    }
}

fn unknown_service(id: &str) -> Refusal {
    Refusal::not_found(format!(
        "Unknown service ID {id:?}. Ensure that the service ID is passed, not the service name."
    ))
}

fn unknown_check(id: &CheckId) -> Refusal {
    Refusal::not_found(format!(
        "Unknown check ID {:?}. Ensure that the check ID is passed, not the check name.",
        id.as_str()
    ))
}

/// An output within its limit.
fn cut(output: &str, limit: usize) -> String {
    if output.len() <= limit {
        return output.into();
    }
    let end = output.floor_char_boundary(limit);
    format!("{} ... (captured {end} of {} bytes)", &output[..end], output.len())
}
