//! The servers' StatefulSet.
//!
//! Pods start in parallel, since servers need each other to become ready. Updates are rolling: the StatefulSet replaces
//! one pod at a time, highest first, and waits until it is ready, which a server is only once it knows a leader and has
//! applied its log; so a quorum outlives every step. A pod template that never becomes ready stops the roll there, and a
//! corrected one needs the stuck pod deleted by hand.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath,
    ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, TCPSocketAction,
    TopologySpreadConstraint, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lictor_crds::{ConsulDatacenter, DeletionPolicy, ImagePullPolicy};

use super::config::{
    CONFIG_DIRECTORY, DATA_DIRECTORY, LOGIN_DIRECTORY, SEAL_DIRECTORY, SECRET_CONFIG_DIRECTORY, TLS_DIRECTORY,
};
use crate::names::{BINARY, HTTPS_PORT, Names, RPC_PORT, USER_ID, owned_metadata};
use crate::settings::OperatorSettings;

/// Secrets and keys are readable by the servers' group and nobody else.
const SECRET_MODE: i32 = 0o440;
/// Time for a server to hand over leadership and close its log.
const GRACE_SECONDS: i64 = 30;

/// The StatefulSet of the servers, given the one there is.
pub(super) fn stateful_set(
    datacenter: &ConsulDatacenter,
    settings: &OperatorSettings,
    existing: Option<&StatefulSet>,
) -> StatefulSet {
    let names = Names::of(datacenter);
    let when_deleted = match datacenter.spec.deletion_policy {
        DeletionPolicy::Retain => "Retain",
        DeletionPolicy::Delete => "Delete",
    };
    StatefulSet {
        metadata: owned_metadata(datacenter, names.server()),
        spec: Some(StatefulSetSpec {
            service_name: Some(names.server()),
            replicas: Some(datacenter.spec.servers.replicas),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            selector: LabelSelector { match_labels: Some(names.selector()), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(names.labels()), ..ObjectMeta::default() }),
                spec: Some(pod(datacenter, settings, &names)),
            },
            volume_claim_templates: Some(vec![claim(datacenter, &names, existing)]),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(when_deleted.to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// A claim template cannot change: once there is one, its size stays, and the claims themselves are made to grow.
fn claim(datacenter: &ConsulDatacenter, names: &Names, existing: Option<&StatefulSet>) -> PersistentVolumeClaim {
    let storage = &datacenter.spec.servers.storage;
    let fixed = || -> Option<Quantity> {
        let template = existing?.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
        template.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").cloned()
    };
    let size = fixed().unwrap_or_else(|| storage.size.clone());
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some("data".to_owned()), labels: Some(names.selector()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), size)])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn pod(datacenter: &ConsulDatacenter, settings: &OperatorSettings, names: &Names) -> PodSpec {
    PodSpec {
        service_account_name: Some(names.server()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER_ID),
            run_as_group: Some(USER_ID),
            fs_group: Some(USER_ID),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }),
        topology_spread_constraints: Some(vec![
            spread(names, "kubernetes.io/hostname"),
            spread(names, "topology.kubernetes.io/zone"),
        ]),
        containers: vec![container(datacenter, settings, names)],
        volumes: Some(volumes(names)),
        ..PodSpec::default()
    }
}

/// Apart where possible; together rather than not at all, so that one node is enough to try it out.
fn spread(names: &Names, topology_key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector { match_labels: Some(names.selector()), ..LabelSelector::default() }),
        ..TopologySpreadConstraint::default()
    }
}

fn container(datacenter: &ConsulDatacenter, settings: &OperatorSettings, names: &Names) -> Container {
    let resources = &datacenter.spec.servers.resources;
    let some = |map: &BTreeMap<String, Quantity>| (!map.is_empty()).then(|| map.clone());
    Container {
        name: "server".to_owned(),
        image: Some(datacenter.spec.image.clone().unwrap_or_else(|| settings.image.clone())),
        image_pull_policy: datacenter.spec.image_pull_policy.map(ImagePullPolicy::as_str).map(str::to_owned),
        command: Some(vec![BINARY.to_owned()]),
        args: Some(vec![
            "agent".to_owned(),
            format!("-config-dir={CONFIG_DIRECTORY}"),
            format!("-config-dir={SECRET_CONFIG_DIRECTORY}"),
            format!("-data-dir={DATA_DIRECTORY}"),
            "-node=$(POD_NAME)".to_owned(),
            "-advertise=$(POD_IP)".to_owned(),
            format!("-advertise-server-address=$(POD_NAME).{}:{RPC_PORT}", names.server_host()),
        ]),
        env: Some(vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
        ]),
        ports: Some(vec![port("server", RPC_PORT), port("https", HTTPS_PORT)]),
        startup_probe: Some(Probe { period_seconds: Some(2), failure_threshold: Some(60), ..listening() }),
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(6), ..listening() }),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/v1/agent/ready".to_owned()),
                port: IntOrString::Int(HTTPS_PORT),
                scheme: Some("HTTPS".to_owned()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(2),
            timeout_seconds: Some(2),
            failure_threshold: Some(3),
            ..Probe::default()
        }),
        resources: Some(ResourceRequirements {
            requests: some(&resources.requests),
            limits: some(&resources.limits),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount("data", DATA_DIRECTORY, false),
            mount("config", CONFIG_DIRECTORY, true),
            mount("secret-config", SECRET_CONFIG_DIRECTORY, true),
            mount("login", LOGIN_DIRECTORY, true),
            mount("tls", TLS_DIRECTORY, true),
            mount("seal", SEAL_DIRECTORY, true),
        ]),
        ..Container::default()
    }
}

fn listening() -> Probe {
    let tcp_socket = Some(TCPSocketAction { port: IntOrString::Int(HTTPS_PORT), ..TCPSocketAction::default() });
    Probe { tcp_socket, timeout_seconds: Some(2), ..Probe::default() }
}

fn volumes(names: &Names) -> Vec<Volume> {
    let config = |name: &str, config_map: String| Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: config_map, ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    };
    let secret = |name: &str, secret: String, files: &[&str]| Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(SECRET_MODE),
            items: Some(
                files
                    .iter()
                    .map(|file| KeyToPath { key: (*file).to_owned(), path: (*file).to_owned(), mode: None })
                    .collect(),
            ),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    vec![
        config("config", names.server_config()),
        config("login", names.login()),
        // Only what a server reads: the directory of configuration must not hold the bare token as a file.
        secret("secret-config", names.bootstrap_token(), &["acl.json"]),
        secret("tls", names.server_tls(), &["ca.crt", "tls.crt", "tls.key"]),
        secret("seal", names.seal_key(), &["seal.key"]),
    ]
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
