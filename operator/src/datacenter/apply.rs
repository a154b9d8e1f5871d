//! Writes what should be, by server-side apply: a field that is as it should be is no write. Client required.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::build::{KeptSecret, VolumeGrowth, Wanted};
use crate::names::FIELD_MANAGER;

/// Makes the data of Secrets that are made once. Another manager than the one that applies, so that applying such a
/// Secret without its data does not take the data away.
const KEY_MAKER: &str = "lictor-operator-keys";

/// What stands after the writing.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    /// The StatefulSet, with its status.
    pub stateful_set: StatefulSet,
    /// Why volumes could not grow, if they could not.
    pub growth_refused: Option<String>,
}

/// Something could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {kind} {name}")]
pub(crate) struct ApplyError {
    kind: String,
    name: String,
    #[source]
    source: kube::Error,
}

/// Writes everything, keys first: no server may start without the keys it will need for ever.
pub(crate) async fn apply(client: &Client, wanted: &Wanted) -> Result<Applied, ApplyError> {
    let Wanted {
        kept_secrets,
        server_tls,
        service_account,
        config_maps,
        services,
        disruption_budget,
        network_policy,
        stateful_set,
        volume_growth,
    } = wanted;
    for secret in kept_secrets {
        create_once(client, secret).await?;
    }
    put(client, server_tls).await?;
    put(client, service_account).await?;
    for config_map in config_maps {
        put(client, config_map).await?;
    }
    for service in services {
        put(client, service).await?;
    }
    put(client, disruption_budget).await?;
    put(client, network_policy).await?;
    let stateful_set = put(client, stateful_set).await?;
    let mut growth_refused = None;
    for growth in volume_growth {
        if let Err(error) = grow(client, growth).await {
            // A class that cannot grow volumes must not keep the rest from its way: it becomes a condition.
            let reason = super::brief(&error);
            growth_refused = Some(format!("volume {} cannot grow to {}: {reason}", growth.claim, growth.size));
        }
    }
    Ok(Applied { stateful_set, growth_refused })
}

/// Creates the Secret if it was made just now, and never writes its data again.
async fn create_once(client: &Client, KeptSecret { metadata, data }: &KeptSecret) -> Result<(), ApplyError> {
    let name = metadata.name.clone().unwrap_or_default();
    if let Some(data) = data {
        let mut secret = Secret { data: Some(data.clone()), ..Secret::default() };
        secret.metadata.name = Some(name.clone());
        secret.metadata.namespace.clone_from(&metadata.namespace);
        let params = PostParams { field_manager: Some(KEY_MAKER.to_owned()), ..PostParams::default() };
        // If another has made it meanwhile, this fails and the next pass finds that one.
        Api::<Secret>::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default())
            .create(&params, &secret)
            .await
            .map_err(|source| ApplyError { kind: "Secret".to_owned(), name, source })?;
    }
    put(client, &Secret { metadata: metadata.clone(), ..Secret::default() }).await.map(drop)
}

async fn put<K>(client: &Client, object: &K) -> Result<K, ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = object.name_any();
    let objects = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    objects
        .patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object))
        .await
        .map_err(|source| ApplyError { kind: K::kind(&()).into_owned(), name, source })
}

async fn grow(client: &Client, VolumeGrowth { namespace, claim, size }: &VolumeGrowth) -> Result<(), kube::Error> {
    let patch = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
    Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace)
        .patch(
            claim,
            &PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() },
            &Patch::Merge(&patch),
        )
        .await
        .map(drop)
}
