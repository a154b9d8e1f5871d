//! `Connect.SidecarService`: the proxy of an instance, registered with it in one go, with Consul's defaults.
//!
//! Invariants
//! - A proxy has the port it had before, or one of the range that no instance of this agent has.
//! - A proxy that came with its instance goes with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lictor_types::service::KIND_CONNECT_PROXY;
use lictor_types::{Credential, Refusal, ServiceId};
use parking_lot::Mutex;

use super::{CheckDefinition, Local, ServiceDefinition};

/// What is behind the id of an instance in that of its proxy, and behind the name of its service.
const SUFFIX: &str = "-sidecar-proxy";
/// Between two looks whether a proxy listens.
const LISTENING_INTERVAL: Duration = Duration::from_secs(10);

/// The ports that proxies without one get: the first and the last; none where they get none.
pub type SidecarPorts = Option<(u16, u16)>;

/// The proxies that came with their instances.
#[derive(Default)]
pub(super) struct Sidecars {
    ids: Mutex<BTreeSet<ServiceId>>,
    /// Ports that were chosen and are not registered yet, so that no two proxies get one.
    chosen: Mutex<BTreeSet<u16>>,
}

/// A port that is chosen for as long as this lives.
struct Chosen<'a> {
    sidecars: &'a Sidecars,
    port: u16,
}

impl Drop for Chosen<'_> {
    fn drop(&mut self) {
        self.sidecars.chosen.lock().remove(&self.port);
    }
}

impl Sidecars {
    /// An instance was taken.
    pub(super) fn took(&self, definition: &ServiceDefinition) {
        let Ok(id) = ServiceId::try_from(definition.id_text().to_owned()) else { return };
        let mut ids = self.ids.lock();
        if definition.locally_registered_as_sidecar {
            ids.insert(id);
        } else {
            ids.remove(&id);
        }
    }

    /// An instance was removed.
    pub(super) fn lost(&self, id: &ServiceId) {
        self.ids.lock().remove(id);
    }

    /// The proxy that came with this instance.
    pub(super) fn of(&self, parent: &ServiceId) -> Option<ServiceId> {
        let id = ServiceId::try_from(format!("{parent}{SUFFIX}")).ok()?;
        self.ids.lock().contains(&id).then_some(id)
    }
}

impl ServiceDefinition {
    /// The proxy that this definition registers too, with everything but a port that it does not say.
    pub(crate) fn sidecar(&self) -> Option<Self> {
        let mut sidecar = (**self.connect.sidecar_service.as_ref()?).clone();
        sidecar.locally_registered_as_sidecar = true;
        sidecar.id = format!("{}{SUFFIX}", self.id_text());
        let or = |own: &mut String, default: &str| {
            if own.is_empty() {
                *own = default.to_owned();
            }
        };
        or(&mut sidecar.name, &format!("{}{SUFFIX}", self.name));
        or(&mut sidecar.kind, KIND_CONNECT_PROXY);
        if sidecar.meta.is_empty() {
            sidecar.meta.clone_from(&self.meta);
        }
        if sidecar.tags.is_empty() {
            sidecar.tags.clone_from(&self.tags);
        }
        if sidecar.locality.is_none() {
            sidecar.locality.clone_from(&self.locality);
        }
        if sidecar.token.is_anonymous() {
            sidecar.token = self.token.clone();
        }
        let proxy = &mut sidecar.proxy;
        or(&mut proxy.destination_service_name, &self.name);
        or(&mut proxy.destination_service_id, self.id_text());
        or(&mut proxy.local_service_address, "127.0.0.1");
        if proxy.local_service_port == 0 {
            proxy.local_service_port = self.settled_port();
        }
        if proxy.local_service_socket_path.is_none() && !self.socket_path.is_empty() {
            proxy.local_service_socket_path = Some(self.socket_path.clone());
        }
        Some(sidecar)
    }

    /// Whether the proxy in it can be one. Its port is not known yet.
    ///
    /// # Errors
    /// 400 with what is wrong.
    pub(super) fn validate_sidecar(&self) -> Result<(), Refusal> {
        let (Some(written), Some(mut sidecar)) = (&self.connect.sidecar_service, self.sidecar()) else { return Ok(()) };
        if !written.id.is_empty() {
            return Err(wrong("A SidecarService cannot specify an ID as this is managed by the agent"));
        }
        if written.connect.sidecar_service.is_some() {
            return Err(wrong("A SidecarService cannot have a nested SidecarService"));
        }
        if sidecar.port == 0 && sidecar.ports.is_none() {
            sidecar.port = 1;
        }
        sidecar.add_default_checks();
        sidecar.validate().map_err(|refusal| wrong(&refusal.text))
    }

    /// The checks of a proxy that has none: that it listens, and that its instance is well.
    fn add_default_checks(&mut self) {
        if self.check.is_some() || !self.checks.is_empty() {
            return;
        }
        let parent = self.proxy.destination_service_id.clone();
        let host = if self.address.is_empty() { &self.proxy.local_service_address } else { &self.address };
        let port = self.settled_port();
        let tcp = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        self.checks = vec![
            CheckDefinition {
                name: "Connect Sidecar Listening".into(),
                tcp,
                interval: Some(LISTENING_INTERVAL),
                ..CheckDefinition::default()
            },
            CheckDefinition {
                name: format!("Connect Sidecar Aliasing {parent}"),
                alias_service: parent,
                ..CheckDefinition::default()
            },
        ];
    }

    fn settled_port(&self) -> u16 {
        self.to_node_service().map_or(self.port, |service| service.port)
    }
}

fn wrong(text: &str) -> Refusal {
    Refusal::bad_request(format!("Invalid SidecarService: {text}"))
}

/// The proxy with a port, if it says none: `before`, or the first of the range that is not `taken`.
fn with_port(
    mut sidecar: ServiceDefinition,
    before: Option<u16>,
    taken: &BTreeSet<u16>,
    range: SidecarPorts,
) -> Result<ServiceDefinition, Refusal> {
    if sidecar.settled_port() == 0 && sidecar.socket_path.is_empty() {
        let chosen = match (before.filter(|port| *port != 0), range) {
            (Some(port), _) => port,
            (None, None) => {
                return Err(wrong("no port provided for sidecar_service and auto-assignment disabled in config"));
            }
            (None, Some((first, last))) => (first..=last).find(|port| !taken.contains(port)).ok_or_else(|| {
                wrong(&format!(
                    "no port provided for sidecar_service and none left in the configured range [{first}, {last}]"
                ))
            })?,
        };
        sidecar.port = chosen;
    }
    sidecar.add_default_checks();
    Ok(sidecar)
}

impl Local {
    fn ports_taken(&self) -> BTreeSet<u16> {
        self.rows.lock().services.values().map(|row| row.service.port).collect()
    }

    fn port_of(&self, sidecar: &ServiceDefinition) -> Option<u16> {
        self.service_named(sidecar.id_text()).map(|service| service.port)
    }

    /// Adds or replaces an instance and its checks, and the proxy in its definition, and tells the catalog. With
    /// `replace_existing_checks` the checks that the definition does not name are removed. `credential` is the request's; a
    /// token in the definition comes first.
    ///
    /// # Errors
    /// The definition is not valid (400), there is no port for the proxy (400), there are too many (429), or it cannot be
    /// kept (500).
    pub async fn register_service(
        self: &Arc<Self>,
        mut definition: ServiceDefinition,
        replace_existing_checks: bool,
        credential: Credential,
    ) -> Result<(), Refusal> {
        definition.validate()?;
        let Some(sidecar) = definition.sidecar() else {
            return self.register_instance(definition, replace_existing_checks, credential).await;
        };
        definition.connect.sidecar_service = None;
        let (sidecar, _chosen) = {
            let mut chosen = self.sidecars.chosen.lock();
            let mut taken = self.ports_taken();
            taken.insert(definition.settled_port());
            taken.extend(&*chosen);
            let before = self.port_of(&sidecar);
            let sidecar = with_port(sidecar, before, &taken, self.sidecar_ports)?;
            let port = sidecar.settled_port();
            chosen.insert(port);
            (sidecar, Chosen { sidecars: &self.sidecars, port })
        };
        self.register_instance(definition, replace_existing_checks, credential.clone()).await?;
        self.register_instance(sidecar, replace_existing_checks, credential).await
    }

    /// Removes an instance with its checks, and the proxy that came with it, and tells the catalog.
    ///
    /// # Errors
    /// 404 for an unknown id.
    pub async fn deregister_service(self: &Arc<Self>, id: &ServiceId) -> Result<(), Refusal> {
        self.deregister_instance(id).await?;
        match self.sidecars.of(id).filter(|sidecar| self.service(sidecar).is_some()) {
            Some(sidecar) => self.deregister_instance(&sidecar).await,
            None => Ok(()),
        }
    }

    /// Definitions of files with those of the proxies in them.
    ///
    /// # Errors
    /// There is no port for one.
    pub(super) fn with_sidecars(&self, services: &[ServiceDefinition]) -> Result<Vec<ServiceDefinition>, Refusal> {
        let mut taken = self.ports_taken();
        taken.extend(services.iter().map(ServiceDefinition::settled_port));
        taken.extend(services.iter().filter_map(|it| Some(it.connect.sidecar_service.as_ref()?.port)));
        let mut all = Vec::with_capacity(services.len());
        for service in services {
            let sidecar = service.sidecar();
            let mut service = service.clone();
            service.connect.sidecar_service = None;
            all.push(service);
            if let Some(sidecar) = sidecar {
                let before = self.port_of(&sidecar);
                let sidecar = with_port(sidecar, before, &taken, self.sidecar_ports)?;
                taken.insert(sidecar.settled_port());
                all.push(sidecar);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use lictor_runtime::fs::MemoryFs;
    use serde_json::{Value, json};

    use super::super::tests::start;
    use super::*;

    fn definition(written: &Value) -> ServiceDefinition {
        ServiceDefinition::from_json(written).unwrap()
    }

    async fn register(local: &Arc<Local>, written: Value) -> Result<(), Refusal> {
        local.register_service(definition(&written), false, Credential::anonymous()).await
    }

    fn ports(local: &Local) -> Vec<(String, u16)> {
        local.services().into_iter().map(|(id, service)| (id.to_string(), service.port)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_comes_with_its_instance_and_goes_with_it() {
        let (local, _tasks) = start(None, &[]);
        let web = json!({"ID": "web1", "Name": "web", "Port": 80, "Tags": ["v1"], "Meta": {"a": "b"},
            "Connect": {"SidecarService": {}}});
        register(&local, web.clone()).await.unwrap();
        let proxy = local.service(&"web1-sidecar-proxy".parse().unwrap()).unwrap();
        assert_eq!(
            (proxy.name.as_str(), proxy.kind.as_str(), proxy.port),
            ("web-sidecar-proxy", "connect-proxy", 21000)
        );
        assert_eq!((proxy.tags.len(), proxy.meta["a"].as_str()), (1, "b"));
        let told = &proxy.proxy;
        assert_eq!((told.destination_service_name.as_str(), told.destination_service_id.as_str()), ("web", "web1"));
        assert_eq!((told.local_service_address.as_str(), told.local_service_port), ("127.0.0.1", 80));
        let checks = local.checks();
        let named = |id: &str| checks[&id.parse().unwrap()].name.clone();
        assert_eq!(named("service:web1-sidecar-proxy:1"), "Connect Sidecar Listening");
        assert_eq!(checks[&"service:web1-sidecar-proxy:1".parse().unwrap()].definition.tcp, "127.0.0.1:21000");
        assert_eq!(named("service:web1-sidecar-proxy:2"), "Connect Sidecar Aliasing web1");
        // Another gets another port, and the same one keeps its own.
        register(&local, json!({"Name": "api", "Port": 81, "Connect": {"SidecarService": {}}})).await.unwrap();
        register(&local, web).await.unwrap();
        let expected = [("api", 81), ("api-sidecar-proxy", 21001), ("web1", 80), ("web1-sidecar-proxy", 21000)];
        assert_eq!(ports(&local), expected.map(|(id, port)| (id.to_owned(), port)));
        local.deregister_service(&"web1".parse().unwrap()).await.unwrap();
        assert_eq!(ports(&local).len(), 2);
        assert!(local.checks().keys().all(|id| !id.as_str().contains("web1")));
        // One that was registered by itself is nobody's.
        register(&local, json!({"Name": "db"})).await.unwrap();
        let alone = json!({"ID": "db-sidecar-proxy", "Name": "x", "Kind": "connect-proxy", "Port": 1,
            "Proxy": {"DestinationServiceName": "db"}});
        register(&local, alone).await.unwrap();
        local.deregister_service(&"db".parse().unwrap()).await.unwrap();
        assert!(local.service(&"db-sidecar-proxy".parse().unwrap()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_known_as_that_of_its_instance_after_a_restart() {
        let fs = MemoryFs::new();
        let (local, tasks) = start(Some(&fs), &[]);
        register(&local, json!({"Name": "web", "Port": 80, "Connect": {"SidecarService": {"Port": 7}}})).await.unwrap();
        drop(local);
        tasks.stop(Duration::from_secs(1)).await;
        let (local, _tasks) = start(Some(&fs), &[]);
        assert_eq!(ports(&local), [("web".to_owned(), 80), ("web-sidecar-proxy".to_owned(), 7)]);
        local.deregister_service(&"web".parse().unwrap()).await.unwrap();
        assert!(ports(&local).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn files_register_proxies_too() {
        let written = [
            json!({"name": "web", "port": 80, "connect": [{"sidecar_service": [{}]}]}),
            json!({"name": "api", "port": 81, "connect": {"sidecar_service": {"tags": ["x"]}}}),
        ];
        let (local, _tasks) = start(None, &written);
        let all = |web: u16, api: u16| {
            let expected = [("api", 81), ("api-sidecar-proxy", api), ("web", 80), ("web-sidecar-proxy", web)];
            expected.map(|(id, port)| (id.to_owned(), port))
        };
        assert_eq!(ports(&local), all(21000, 21001));
        let turned: Vec<ServiceDefinition> = written.iter().rev().map(definition).collect();
        local.take_files(&turned, &[]).await.unwrap();
        assert_eq!(ports(&local), all(21000, 21001), "a reload leaves every proxy its port");
        local.take_files(&turned[..1], &[]).await.unwrap();
        assert_eq!(ports(&local), [("api".to_owned(), 81), ("api-sidecar-proxy".to_owned(), 21001)]);
    }

    #[test]
    fn what_cannot_be_a_proxy_is_refused_in_consuls_words() {
        let refusal = |sidecar: Value| {
            let written = json!({"Name": "web", "Connect": {"SidecarService": sidecar}});
            ServiceDefinition::parse(&written).unwrap().validate().unwrap_err().text
        };
        for (sidecar, text) in [
            (json!({"ID": "x"}), "A SidecarService cannot specify an ID as this is managed by the agent"),
            (json!({"Connect": {"SidecarService": {}}}), "A SidecarService cannot have a nested SidecarService"),
            (json!({"Meta": {"consul-x": "1"}}), "Invalid Service Meta"),
        ] {
            let refused = refusal(sidecar);
            assert!(refused.starts_with("Invalid SidecarService: ") && refused.contains(text), "{refused}");
        }
        let sidecar = || definition(&json!({"Name": "web", "Connect": {"SidecarService": {}}})).sidecar().unwrap();
        let taken = BTreeSet::from([1, 2]);
        let given = |range| with_port(sidecar(), None, &taken, range).map(|it| it.port).map_err(|it| it.text);
        assert_eq!(given(Some((1, 3))), Ok(3));
        let none = "Invalid SidecarService: no port provided for sidecar_service and";
        assert_eq!(given(Some((1, 2))), Err(format!("{none} none left in the configured range [1, 2]")));
        assert_eq!(given(None), Err(format!("{none} auto-assignment disabled in config")));
        assert_eq!(with_port(sidecar(), Some(9), &taken, None).unwrap().port, 9);
    }
}
