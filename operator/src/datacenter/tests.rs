//! Passes over a datacenter against an API server that only stores, and servers that say what a test wants.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::SystemTime;

use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use lictor_runtime::SeededRng;
use serde_json::{Value, json};

use super::*;
use crate::servers::{Access, ServerAnswer};
use crate::testing::FakeApi;

const SECRETS: &str = "/api/v1/namespaces/consul/secrets";
const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/consul/statefulsets/dc1-server";
const RESOURCE: &str = "/apis/lictor.dev/v1alpha1/namespaces/consul/consuldatacenters/dc1";
const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/lictor-tokenreview";

#[derive(Default)]
struct Says(Mutex<Observation>);

impl ObserveServers for Says {
    fn observe<'a>(
        &'a self,
        _: &'a Names,
        _: i32,
        access: &'a Access,
    ) -> Pin<Box<dyn Future<Output = Observation> + Send + 'a>> {
        assert!(access.ca_pem.contains("BEGIN CERTIFICATE") && access.token.len() == 36);
        Box::pin(async { self.0.lock().expect("not poisoned").clone() })
    }
}

struct FixedClock(SystemTime);

impl Clock for FixedClock {
    fn now(&self) -> SystemTime {
        self.0
    }
}

struct World {
    api: FakeApi,
    says: Arc<Says>,
    resource: Value,
}

impl World {
    fn new(spec: Value) -> Self {
        let resource = json!({
            "apiVersion": "lictor.dev/v1alpha1",
            "kind": "ConsulDatacenter",
            "metadata": { "name": "dc1", "namespace": "consul", "uid": "7d0c", "generation": 1 },
            "spec": spec,
        });
        let api = FakeApi::default();
        api.hold(RESOURCE, resource.clone());
        api.hold(BINDING, json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "lictor-tokenreview" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lictor-tokenreview" },
        }));
        Self { api, says: Arc::default(), resource }
    }

    /// One pass with the resource as it is stored now, and the spec the test wants.
    async fn pass_at(&self, now: SystemTime) -> Result<Action, Error> {
        let mut resource = self.api.object(RESOURCE).expect("stored");
        resource["spec"] = self.resource["spec"].clone();
        let datacenter: ConsulDatacenter = serde_json::from_value(resource).expect("a legal resource");
        let (known, mut writer) = reflector::store();
        writer.apply_watcher_event(&Event::Apply(datacenter.clone()));
        let settings = OperatorSettings::from_environment(|name| match name {
            "LICTOR_LISTEN" | "LICTOR_TOKEN_REVIEW_BINDING" => None,
            _ => Some("registry.example/lictor:1".to_owned()),
        });
        let context = Context {
            client: self.api.client(),
            settings: Arc::new(settings.expect("legal")),
            known,
            servers: self.says.clone(),
            clock: Arc::new(FixedClock(now)),
            random: Arc::new(SeededRng::new(7)),
            seen: Seen::default(),
        };
        reconcile(Arc::new(datacenter), Arc::new(context)).await
    }

    async fn pass(&self) -> Result<Action, Error> {
        self.pass_at(start()).await
    }

    /// The servers are up and `dc1-server-0` leads them.
    fn all_well(&self) {
        let server = |ordinal: i32| ServerAnswer {
            name: format!("dc1-server-{ordinal}"),
            address: format!("dc1-server-{ordinal}.dc1-server.consul.svc.cluster.local:8300"),
            answered: true,
            leader: Some("dc1-server-0".to_owned()),
        };
        let servers: Vec<_> = (0..3).map(server).collect();
        let voters = servers.iter().map(|server| server.name.clone()).collect();
        *self.says.0.lock().expect("not poisoned") = Observation { servers, voters };
        let mut set = self.api.object(STATEFUL_SET).expect("applied");
        set["status"] = json!({ "replicas": 3, "readyReplicas": 3, "currentRevision": "a", "updateRevision": "a" });
        self.api.hold(STATEFUL_SET, set);
    }

    fn condition(&self, type_: &str) -> Value {
        let resource = self.api.object(RESOURCE).expect("stored");
        let conditions = resource["status"]["conditions"].as_array().expect("conditions").clone();
        conditions.into_iter().find(|condition| condition["type"] == type_).expect("this condition is always there")
    }
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
}

#[tokio::test]
async fn a_second_pass_leaves_every_object_as_it_was() {
    let world = World::new(json!({}));
    world.pass().await.expect("first pass");
    let settled = world.api.objects();
    assert!(settled.len() >= 14, "{:?}", settled.keys());
    world.pass().await.expect("second pass");
    assert_eq!(world.api.objects(), settled);
}

#[tokio::test]
async fn keys_are_created_before_the_servers_and_never_written_again() {
    let world = World::new(json!({}));
    world.pass().await.expect("first pass");
    let writes = world.api.take_writes();
    let created: Vec<_> = writes.iter().filter(|write| write.starts_with("POST")).collect();
    assert_eq!(created.len(), 4, "{writes:?}");
    let first_server = writes.iter().position(|write| write.ends_with(STATEFUL_SET)).expect("applied");
    let last_key = writes.iter().rposition(|write| write.starts_with("POST")).expect("created");
    assert!(last_key < first_server);
    world.pass_at(start() + Duration::from_secs(60)).await.expect("second pass");
    assert!(world.api.take_writes().iter().all(|write| !write.starts_with("POST")));
}

#[tokio::test]
async fn the_certificate_is_renewed_in_time_and_by_the_same_authority() {
    let world = World::new(json!({}));
    world.pass().await.expect("first pass");
    let of = |key: &str| world.api.object(&format!("{SECRETS}/dc1-server-tls")).expect("applied")["data"][key].clone();
    let (authority, first) = (of("ca.crt"), of("tls.crt"));
    world.pass_at(start() + Duration::from_secs(200 * 86_400)).await.expect("too early");
    assert_eq!(of("tls.crt"), first);
    world.pass_at(start() + Duration::from_secs(230 * 86_400)).await.expect("due");
    assert_ne!(of("tls.crt"), first);
    assert_eq!(of("ca.crt"), authority);
}

#[tokio::test]
async fn a_datacenter_becomes_ready_when_every_server_votes_and_says_who_leads() {
    let world = World::new(json!({}));
    world.pass().await.expect("first pass");
    assert_eq!(world.condition("Ready")["status"], "False");
    assert_eq!(world.condition("QuorumHealthy")["reason"], "Starting");
    world.all_well();
    world.pass().await.expect("second pass");
    let status = world.api.object(RESOURCE).expect("stored")["status"].clone();
    assert_eq!(world.condition("Ready")["status"], "True", "{status:#}");
    assert_eq!(status["leader"], "dc1-server-0");
    assert_eq!(status["quorum"]["summary"], "3/3");
    assert_eq!(status["bootstrapped"], true);
    assert!(status["serverCa"].as_str().expect("text").contains("BEGIN CERTIFICATE"));
}

#[tokio::test]
async fn a_lost_quorum_is_told_and_not_taken_for_a_start() {
    let world = World::new(json!({}));
    world.pass().await.expect("first pass");
    world.all_well();
    world.pass().await.expect("second pass");
    world.says.0.lock().expect("not poisoned").servers.iter_mut().for_each(|server| server.leader = None);
    world.pass().await.expect("third pass");
    assert_eq!(world.condition("QuorumHealthy")["reason"], "Lost");
    assert_eq!(world.condition("LeaderElected")["status"], "False");
    assert_eq!(world.api.object(RESOURCE).expect("stored")["status"]["bootstrapped"], true);
}

#[tokio::test]
async fn a_lost_key_of_a_bootstrapped_datacenter_is_reported_and_not_replaced() {
    for secret in ["dc1-seal-key", "dc1-server-ca", "dc1-bootstrap-token"] {
        let world = World::new(json!({}));
        world.pass().await.expect("first pass");
        world.all_well();
        world.pass().await.expect("second pass");
        world.api.lose(&format!("{SECRETS}/{secret}"));
        world.pass().await.expect("third pass");
        assert!(world.api.object(&format!("{SECRETS}/{secret}")).is_none(), "{secret} was made anew");
        let stalled = world.condition("Stalled");
        assert_eq!(stalled["reason"], "KeyLost");
        assert!(stalled["message"].as_str().expect("text").contains(secret));
    }
}

#[tokio::test]
async fn a_paused_datacenter_is_only_reported_on() {
    let mut world = World::new(json!({}));
    world.pass().await.expect("first pass");
    world.api.take_writes();
    world.resource["spec"] = json!({ "paused": true, "image": "other:2" });
    world.pass().await.expect("second pass");
    assert_eq!(world.api.take_writes(), [format!("PATCH {RESOURCE}")]);
    assert_eq!(world.condition("Paused")["status"], "True");
}

#[tokio::test]
async fn bound_volumes_grow_while_the_template_of_the_claims_stays() {
    let mut world = World::new(json!({}));
    world.pass().await.expect("first pass");
    let path = |ordinal: i32| format!("/api/v1/namespaces/consul/persistentvolumeclaims/data-dc1-server-{ordinal}");
    for (ordinal, phase) in [(0, "Bound"), (1, "Pending")] {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": format!("data-dc1-server-{ordinal}"), "namespace": "consul" },
            "spec": { "resources": { "requests": { "storage": "10Gi" } } },
            "status": { "phase": phase },
        });
        world.api.hold(&path(ordinal), claim);
    }
    world.resource["spec"] = json!({ "servers": { "storage": { "size": "20Gi" } } });
    world.pass().await.expect("second pass");
    let size = |ordinal: i32| {
        world.api.object(&path(ordinal)).expect("held")["spec"]["resources"]["requests"]["storage"].clone()
    };
    assert_eq!((size(0), size(1)), (json!("20Gi"), json!("10Gi")));
    let set = world.api.object(STATEFUL_SET).expect("applied");
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "10Gi");
}

#[tokio::test]
async fn keys_share_the_fate_of_the_volumes() {
    for (policy, owned) in [("Retain", false), ("Delete", true)] {
        let world = World::new(json!({ "deletionPolicy": policy }));
        world.pass().await.expect("a pass");
        let set = world.api.object(STATEFUL_SET).expect("applied");
        assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], policy);
        let key = world.api.object(&format!("{SECRETS}/dc1-seal-key")).expect("made");
        assert_eq!(key["metadata"]["ownerReferences"].is_array(), owned, "{policy}");
    }
}

#[tokio::test]
async fn only_the_servers_account_may_review_tokens() {
    let world = World::new(json!({}));
    world.pass().await.expect("a pass");
    let binding = world.api.object(BINDING).expect("held");
    assert_eq!(binding["subjects"], json!([{ "kind": "ServiceAccount", "namespace": "consul", "name": "dc1-server" }]));
    assert_eq!(binding["roleRef"]["name"], "lictor-tokenreview");
}

#[tokio::test]
async fn every_container_is_fit_for_pod_security_restricted() {
    let world = World::new(json!({}));
    world.pass().await.expect("a pass");
    let set = world.api.object(STATEFUL_SET).expect("applied");
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in pod["containers"].as_array().expect("containers") {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    }
}

#[tokio::test]
async fn the_servers_read_what_the_contract_says() {
    let world = World::new(json!({
        "datacenter": "east",
        "inject": {
            "namespaces": ["apps"],
            "bindings": [{ "namespace": "apps", "serviceAccount": "web", "services": ["web-admin"] }],
        },
    }));
    world.pass().await.expect("a pass");
    let config = "/api/v1/namespaces/consul/configmaps";
    let file = |name: &str, file: &str| -> Value {
        let object = world.api.object(&format!("{config}/{name}")).expect("applied");
        serde_json::from_str(object["data"][file].as_str().expect("text")).expect("JSON")
    };
    let server = file("dc1-server-config", "server.json");
    assert_eq!(server["datacenter"], "east");
    assert_eq!(server["bootstrap_expect"], 3);
    assert_eq!(server["server_addresses"][2], "dc1-server-2.dc1-server.consul.svc.cluster.local:8300");
    let login = file("dc1-login", "kubernetes-login.json");
    assert_eq!(login["audience"], "lictor://consul/dc1");
    assert_eq!(login["bindings"][0]["service_account"], "web");
}
