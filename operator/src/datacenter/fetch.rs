//! Reads what a datacenter has in Kubernetes. Client required.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use lictor_crds::ConsulDatacenter;

use crate::names::Names;

/// More claims than this cannot belong to one datacenter: five servers, and room for ones left behind.
const CLAIMS_MAX: u32 = 50;

/// What a datacenter has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The Secrets with keys.
    pub keys: FoundKeys,
    /// The StatefulSet of the servers.
    pub stateful_set: Option<StatefulSet>,
    /// Claims of the servers' volumes.
    pub claims: Vec<PersistentVolumeClaim>,
}

/// The data of each Secret that exists.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundKeys {
    pub server_ca: Option<SecretData>,
    pub server_tls: Option<FoundCertificate>,
    pub seal_key: Option<SecretData>,
    pub gossip_key: Option<SecretData>,
    pub bootstrap_token: Option<SecretData>,
}

/// What a Secret holds, by key.
pub(crate) type SecretData = BTreeMap<String, Vec<u8>>;

/// The servers' certificate and when it is due.
#[derive(Clone, Debug)]
pub(crate) struct FoundCertificate {
    pub data: SecretData,
    pub renew_after: Option<String>,
}

/// Something could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {kind} {name}")]
pub(crate) struct FetchError {
    kind: &'static str,
    name: String,
    #[source]
    source: kube::Error,
}

/// Reads what `datacenter` has.
pub(crate) async fn fetch(client: &Client, datacenter: &ConsulDatacenter) -> Result<Found, FetchError> {
    let names = Names::of(datacenter);
    let secrets = Api::<Secret>::namespaced(client.clone(), &names.namespace);
    let data = |secret: Option<Secret>| secret.map(|secret| secret_data(&secret));
    let keys = FoundKeys {
        server_ca: data(secret(&secrets, names.server_ca()).await?),
        server_tls: secret(&secrets, names.server_tls()).await?.map(|secret| FoundCertificate {
            data: secret_data(&secret),
            renew_after: secret.annotations().get(super::keys::RENEW_AFTER).cloned(),
        }),
        seal_key: data(secret(&secrets, names.seal_key()).await?),
        gossip_key: data(secret(&secrets, names.gossip_key()).await?),
        bootstrap_token: data(secret(&secrets, names.bootstrap_token()).await?),
    };
    let stateful_set = Api::<StatefulSet>::namespaced(client.clone(), &names.namespace)
        .get_opt(&names.server())
        .await
        .map_err(|source| FetchError { kind: "StatefulSet", name: names.server(), source })?;
    let selector = names.selector().iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &names.namespace)
        .list(&ListParams::default().labels(&selector).limit(CLAIMS_MAX))
        .await
        .map_err(|source| FetchError { kind: "PersistentVolumeClaims of", name: names.server(), source })?
        .items;
    Ok(Found { keys, stateful_set, claims })
}

async fn secret(secrets: &Api<Secret>, name: String) -> Result<Option<Secret>, FetchError> {
    secrets.get_opt(&name).await.map_err(|source| FetchError { kind: "Secret", name, source })
}

fn secret_data(secret: &Secret) -> SecretData {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}
