//! Builds every object that a datacenter should have. Pure: the same input gives the same objects.

mod config;
mod network;
mod protection;
mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use lictor_crds::{ConsulDatacenter, DeletionPolicy};

use super::fetch::{Found, SecretData};
use super::keys::{Kept, Keys, RENEW_AFTER};
use crate::names::{Names, kept_metadata, owned_metadata};
use crate::settings::OperatorSettings;

/// Every object that a datacenter should have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub kept_secrets: Vec<KeptSecret>,
    pub server_tls: Secret,
    pub service_account: ServiceAccount,
    pub config_maps: [ConfigMap; 2],
    pub services: [Service; 2],
    pub disruption_budget: PodDisruptionBudget,
    pub network_policy: NetworkPolicy,
    pub stateful_set: StatefulSet,
    pub volume_growth: Vec<VolumeGrowth>,
}

/// A Secret whose data is written only when it is made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeptSecret {
    pub metadata: ObjectMeta,
    /// Its data, if it was made just now.
    pub data: Option<BTreeMap<String, ByteString>>,
}

/// A volume that is smaller than the resource asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeGrowth {
    pub namespace: String,
    pub claim: String,
    pub size: String,
}

/// Builds every object of `datacenter`.
pub(crate) fn build(datacenter: &ConsulDatacenter, settings: &OperatorSettings, found: &Found, keys: &Keys) -> Wanted {
    let names = Names::of(datacenter);
    let kept_secrets = [
        (names.server_ca(), &keys.server_ca),
        (names.seal_key(), &keys.seal_key),
        (names.gossip_key(), &keys.gossip_key),
        (names.bootstrap_token(), &keys.bootstrap_token),
    ];
    let mut tls_metadata = owned_metadata(datacenter, names.server_tls());
    tls_metadata.annotations = Some(BTreeMap::from([(RENEW_AFTER.to_owned(), keys.renew_after.clone())]));
    Wanted {
        kept_secrets: kept_secrets.into_iter().map(|(name, kept)| kept_secret(datacenter, name, kept)).collect(),
        server_tls: Secret { metadata: tls_metadata, data: Some(bytes(&keys.server_tls)), ..Secret::default() },
        service_account: ServiceAccount {
            metadata: owned_metadata(datacenter, names.server()),
            ..ServiceAccount::default()
        },
        config_maps: [config::server(datacenter), config::login(datacenter)],
        services: [network::headless(datacenter), network::client(datacenter)],
        disruption_budget: protection::disruption_budget(datacenter),
        network_policy: protection::network_policy(datacenter),
        stateful_set: stateful_set::stateful_set(datacenter, settings, found.stateful_set.as_ref()),
        volume_growth: volume_growth(datacenter, found),
    }
}

/// The keys that open the data share its fate: they stay with the volumes, or go with them.
fn kept_secret(datacenter: &ConsulDatacenter, name: String, kept: &Kept) -> KeptSecret {
    let metadata = match datacenter.spec.deletion_policy {
        DeletionPolicy::Retain => kept_metadata(datacenter, name),
        DeletionPolicy::Delete => owned_metadata(datacenter, name),
    };
    KeptSecret { metadata, data: kept.fresh.then(|| bytes(&kept.data)) }
}

fn bytes(data: &SecretData) -> BTreeMap<String, ByteString> {
    data.iter().map(|(key, value)| (key.clone(), ByteString(value.clone()))).collect()
}

/// Volumes whose request differs from the resource's. The schema lets sizes only grow, so every difference is growth.
/// A claim without a volume yet cannot grow: its turn comes in a later pass.
fn volume_growth(datacenter: &ConsulDatacenter, found: &Found) -> Vec<VolumeGrowth> {
    let wanted = &datacenter.spec.servers.storage.size;
    let requested = |claim: &k8s_openapi::api::core::v1::PersistentVolumeClaim| {
        claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").cloned()
    };
    found
        .claims
        .iter()
        .filter(|claim| claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"))
        .filter(|claim| requested(claim).is_some_and(|size| size != *wanted))
        .map(|claim| VolumeGrowth {
            namespace: claim.namespace().unwrap_or_default(),
            claim: claim.name_any(),
            size: wanted.0.clone(),
        })
        .collect()
}
