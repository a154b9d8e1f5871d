//! The patch that adds the sidecar to a pod. Pure.
//!
//! The sidecar is a native one: an init container that is restarted for ever. It stands first, so that the pod's own
//! init containers have the mesh too, and the application starts only when `/started` says that the pod is registered.

use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::PointerBuf};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, Lifecycle,
    LifecycleHandler, ObjectFieldSelector, Pod, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
    SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::decide::Injection;
use crate::names::{BINARY, INJECTED_LABEL, RPC_PORT, USER_ID};

/// Name of the sidecar's container.
pub(crate) const SIDECAR: &str = "lictor-sidecar";
/// Tells that the pod has its sidecar.
const STATUS: &str = "lictor.dev/status";
/// Name of the volume with the pod's token.
const IDENTITY: &str = "lictor-identity";
const IDENTITY_DIRECTORY: &str = "/var/run/lictor/identity";
/// Where the sidecar takes mTLS from other pods; the n-th service of the pod has the port 2n further.
const INBOUND_PORT: i32 = 20_000;
/// Where the kubelet asks for its health.
const HEALTH_PORT: i32 = 20_001;
/// A token lives an hour; the kubelet renews it in time.
const TOKEN_SECONDS: i64 = 3600;
/// The application waits this many seconds for the sidecar before the kubelet starts the sidecar anew.
const START_LIMIT_SECONDS: i32 = 120;

/// The patch for `pod`.
pub(crate) fn patch(pod: &Pod, injection: &Injection, default_image: &str) -> Patch {
    let spec = pod.spec.as_ref();
    let mut operations = Vec::new();
    let mut entry = |has_map: bool, map: &str, key: &str, value: &str| {
        if !has_map {
            operations.push(add(["metadata", map], json!({})));
        }
        operations.push(add(["metadata", map, key], json!(value)));
    };
    entry(pod.metadata.annotations.is_some(), "annotations", STATUS, "injected");
    entry(pod.metadata.labels.is_some(), "labels", INJECTED_LABEL, "true");
    if spec.is_none_or(|spec| spec.volumes.is_none()) {
        operations.push(add(["spec", "volumes"], json!([])));
    }
    operations.push(add(["spec", "volumes", "-"], json!(identity_volume(injection))));
    if spec.is_none_or(|spec| spec.init_containers.is_none()) {
        operations.push(add(["spec", "initContainers"], json!([])));
    }
    operations.push(add(["spec", "initContainers", "0"], json!(sidecar(injection, default_image))));
    Patch(operations)
}

fn add<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path), value })
}

/// The token that says which ServiceAccount this is, good for this datacenter only. Mounted into the sidecar alone.
fn identity_volume(injection: &Injection) -> Volume {
    Volume {
        name: IDENTITY.to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(ServiceAccountTokenProjection {
                    audience: Some(injection.names.audience()),
                    expiration_seconds: Some(TOKEN_SECONDS),
                    path: "token".to_owned(),
                }),
                ..VolumeProjection::default()
            }]),
            default_mode: Some(0o444),
        }),
        ..Volume::default()
    }
}

fn sidecar(injection: &Injection, default_image: &str) -> Container {
    let mut args = vec![
        "sidecar".to_owned(),
        format!("-datacenter={}", injection.datacenter),
        format!("-server-address={}:{RPC_PORT}", injection.names.server_host()),
        format!("-login-token-file={IDENTITY_DIRECTORY}/token"),
    ];
    args.extend(injection.services.iter().map(|service| format!("-service={}:{}", service.name, service.port)));
    args.extend(injection.upstreams.iter().map(|upstream| format!("-upstream={}:{}", upstream.name, upstream.port)));
    Container {
        name: SIDECAR.to_owned(),
        image: Some(injection.image.clone().unwrap_or_else(|| default_image.to_owned())),
        image_pull_policy: injection.image_pull_policy.map(str::to_owned),
        restart_policy: Some("Always".to_owned()),
        command: Some(vec![BINARY.to_owned()]),
        args: Some(args),
        env: Some(vec![
            EnvVar { name: "LICTOR_CA_PEM".to_owned(), value: Some(injection.server_ca.clone()), ..EnvVar::default() },
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
            field("POD_UID", "metadata.uid"),
            field("NODE_NAME", "spec.nodeName"),
        ]),
        ports: Some(ports(injection.services.len())),
        startup_probe: Some(Probe {
            period_seconds: Some(1),
            failure_threshold: Some(START_LIMIT_SECONDS),
            ..asking("/started")
        }),
        readiness_probe: Some(Probe { period_seconds: Some(3), ..asking("/ready") }),
        lifecycle: Some(Lifecycle {
            // From inside: nobody who merely reaches the pod can make it leave. There is no shell in the image.
            pre_stop: Some(LifecycleHandler { exec: Some(drain()), ..LifecycleHandler::default() }),
            ..Lifecycle::default()
        }),
        resources: Some(resources()),
        security_context: Some(SecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER_ID),
            run_as_group: Some(USER_ID),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: IDENTITY.to_owned(),
            mount_path: IDENTITY_DIRECTORY.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn ports(services: usize) -> Vec<ContainerPort> {
    let port = |name: String, number: i32| ContainerPort {
        name: Some(name),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mut ports: Vec<_> = (0..services.max(1))
        .map(|index| port(format!("lictor-mesh-{index}"), INBOUND_PORT + 2 * i32::try_from(index).unwrap_or_default()))
        .collect();
    ports.push(port("lictor-health".to_owned(), HEALTH_PORT));
    ports
}

fn asking(path: &str) -> Probe {
    Probe { http_get: Some(health(path)), timeout_seconds: Some(2), failure_threshold: Some(3), ..Probe::default() }
}

fn drain() -> ExecAction {
    let line = [BINARY.to_owned(), "sidecar".to_owned(), "drain".to_owned()];
    ExecAction { command: Some([&line[..], &[format!("-health-address=127.0.0.1:{HEALTH_PORT}")]].concat()) }
}

fn health(path: &str) -> HTTPGetAction {
    HTTPGetAction { path: Some(path.to_owned()), port: IntOrString::Int(HEALTH_PORT), ..HTTPGetAction::default() }
}

fn resources() -> ResourceRequirements {
    let quantity = |name: &str, value: &str| (name.to_owned(), Quantity(value.to_owned()));
    ResourceRequirements {
        requests: Some([quantity("cpu", "20m"), quantity("memory", "32Mi")].into()),
        limits: Some([quantity("memory", "128Mi")].into()),
        ..ResourceRequirements::default()
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
