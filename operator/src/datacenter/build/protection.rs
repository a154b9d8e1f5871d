//! What keeps the servers from harm: how many may go at once, and who may reach which port.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lictor_crds::ConsulDatacenter;

use crate::names::{HTTPS_PORT, Names, RPC_PORT, owned_metadata};

/// One server at a time may be taken away on purpose; one that does not work anyway never holds up a drain.
pub(super) fn disruption_budget(datacenter: &ConsulDatacenter) -> PodDisruptionBudget {
    let names = Names::of(datacenter);
    PodDisruptionBudget {
        metadata: owned_metadata(datacenter, names.server()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(matching(names.selector())),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// RPC is for servers, and for pods of the namespaces that may have sidecars. HTTPS is for anyone: it asks for a token.
///
/// Egress stays open: servers talk to the API server, whose address no policy can select.
pub(super) fn network_policy(datacenter: &ConsulDatacenter) -> NetworkPolicy {
    let names = Names::of(datacenter);
    let inject = &datacenter.spec.inject;
    let namespaces: BTreeSet<&String> =
        inject.namespaces.iter().chain(inject.bindings.iter().map(|binding| &binding.namespace)).collect();
    let servers = NetworkPolicyPeer { pod_selector: Some(matching(names.selector())), ..NetworkPolicyPeer::default() };
    let sidecars = namespaces.into_iter().map(|namespace| NetworkPolicyPeer {
        namespace_selector: Some(matching(BTreeMap::from([(
            "kubernetes.io/metadata.name".to_owned(),
            namespace.clone(),
        )]))),
        ..NetworkPolicyPeer::default()
    });
    let rule = |port: i32, from: Option<Vec<NetworkPolicyPeer>>| NetworkPolicyIngressRule {
        from,
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(port)),
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        }]),
    };
    NetworkPolicy {
        metadata: owned_metadata(datacenter, names.server()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(matching(names.selector())),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                rule(RPC_PORT, Some(std::iter::once(servers).chain(sidecars).collect())),
                rule(HTTPS_PORT, None),
            ]),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn matching(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}
