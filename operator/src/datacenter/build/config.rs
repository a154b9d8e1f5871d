//! The servers' configuration, in two ConfigMaps: what is read at start, and who may log in, read at every login.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use lictor_crds::ConsulDatacenter;
use serde_json::{Value, json};

use crate::names::{HTTPS_PORT, Names, RPC_PORT, owned_metadata};

/// Where the servers find their files. Not under `/lictor`: that is the binary.
pub(super) const CONFIG_DIRECTORY: &str = "/etc/lictor/config";
pub(super) const SECRET_CONFIG_DIRECTORY: &str = "/etc/lictor/secret-config";
pub(super) const LOGIN_DIRECTORY: &str = "/etc/lictor/login";
pub(super) const TLS_DIRECTORY: &str = "/etc/lictor/tls";
pub(super) const SEAL_DIRECTORY: &str = "/etc/lictor/seal";
pub(super) const DATA_DIRECTORY: &str = "/var/lib/lictor";

const LOGIN_FILE: &str = "kubernetes-login.json";
/// Where the kubelet mounts the ServiceAccount's token.
const ACCOUNT_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What a server reads at its start.
pub(super) fn server(datacenter: &ConsulDatacenter) -> ConfigMap {
    let names = Names::of(datacenter);
    let replicas = datacenter.spec.servers.replicas;
    let addresses: Vec<_> = (0..replicas).map(|ordinal| format!("{}:{RPC_PORT}", names.pod_host(ordinal))).collect();
    let content = json!({
        "server": true,
        "datacenter": datacenter.spec.datacenter,
        "bootstrap_expect": replicas,
        "bind_addr": "0.0.0.0",
        "client_addr": "127.0.0.1",
        "addresses": { "https": "0.0.0.0" },
        "ports": { "http": 8500, "https": HTTPS_PORT, "dns": 8600, "server": RPC_PORT },
        "server_addresses": addresses,
        "tls": { "defaults": {
            "ca_file": format!("{TLS_DIRECTORY}/ca.crt"),
            "cert_file": format!("{TLS_DIRECTORY}/tls.crt"),
            "key_file": format!("{TLS_DIRECTORY}/tls.key"),
        } },
        "seal_key_file": format!("{SEAL_DIRECTORY}/seal.key"),
        "acl": { "enabled": true, "default_policy": "deny" },
        "login": { "kubernetes": { "config_file": format!("{LOGIN_DIRECTORY}/{LOGIN_FILE}") } },
        // Members change through the leader only, and a restarted pod is the same member.
        "autopilot": { "cleanup_dead_servers": false },
        "leave_on_terminate": false,
    });
    config_map(datacenter, names.server_config(), "server.json", &content)
}

/// Which ServiceAccount may be which service.
pub(super) fn login(datacenter: &ConsulDatacenter) -> ConfigMap {
    let names = Names::of(datacenter);
    let inject = &datacenter.spec.inject;
    let bindings: Vec<_> = inject
        .bindings
        .iter()
        .map(|binding| {
            json!({
                "namespace": binding.namespace,
                "service_account": binding.service_account,
                "services": binding.services,
            })
        })
        .collect();
    let content = json!({
        "api_server": "https://kubernetes.default.svc.cluster.local",
        "ca_file": format!("{ACCOUNT_DIRECTORY}/ca.crt"),
        "token_file": format!("{ACCOUNT_DIRECTORY}/token"),
        "audience": names.audience(),
        "namespaces": inject.namespaces,
        "bindings": bindings,
    });
    config_map(datacenter, names.login(), LOGIN_FILE, &content)
}

fn config_map(datacenter: &ConsulDatacenter, name: String, file: &str, content: &Value) -> ConfigMap {
    ConfigMap {
        metadata: owned_metadata(datacenter, name),
        data: Some(BTreeMap::from([(file.to_owned(), format!("{content:#}\n"))])),
        ..ConfigMap::default()
    }
}
