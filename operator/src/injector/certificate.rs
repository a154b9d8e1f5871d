//! The webhook's certificate: made by the first replica, shared by all through one Secret, renewed by whoever sees it due.
//!
//! Replicas agree by the Secret's resource version: of two that renew at once, one wins and the other reads its work.
//! The `caBundle` of the webhook's configuration is the operator's field alone; the chart does not have it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use lictor_identity::{AuthorityError, ServerAuthority, ServerCertificateRequest};
use lictor_runtime::Clock;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::sync::watch;

use crate::names::FIELD_MANAGER;
use crate::settings::OperatorSettings;

/// Name of the Secret, in the operator's namespace.
const SECRET: &str = "lictor-injector-tls";
/// Annotation: the moment from which a new certificate is made.
const RENEW_AFTER: &str = "lictor.dev/renew-after";
/// How long a certificate lasts. Its authority is made with it and signs nothing else.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// The part of its life after which it is replaced.
const RENEW_AFTER_PART: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// How often Secret and `caBundle` are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// The same while there is no certificate yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The names in the certificate are about this; nothing reads it.
const REALM: &str = "injector";

/// What the webhook serves with, once there is a certificate.
pub(crate) type Credential = Option<Arc<ServerConfig>>;

#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error("cannot read or write in Kubernetes")]
    Kubernetes(#[from] kube::Error),
    #[error("cannot make a certificate")]
    Authority(#[from] AuthorityError),
    #[error("the Secret {SECRET} holds no usable certificate and key: delete it and a new one is made")]
    Unusable,
}

/// Keeps the certificate until nobody serves with it any more.
pub(super) async fn keep(
    client: Client,
    settings: Arc<OperatorSettings>,
    clock: Arc<dyn Clock>,
    published: watch::Sender<Credential>,
) {
    let mut serving: Option<BTreeMap<String, ByteString>> = None;
    loop {
        match look(&client, &settings, clock.now()).await {
            Ok(data) => {
                // Serving does not wait for trust: what is amiss there shows in the API server's own words.
                if let Err(error) = trust(&client, &settings, &data).await {
                    warn("the API server does not trust the injector's certificate yet", &error);
                }
                if serving.as_ref() != Some(&data) {
                    match server_config(&data) {
                        Some(config) => {
                            published.send_replace(Some(Arc::new(config)));
                            serving = Some(data);
                            tracing::info!("the injector has a new certificate");
                        }
                        None => warn("the injector keeps the certificate it had", &CertificateError::Unusable),
                    }
                }
            }
            Err(error) => warn("the injector's certificate could not be looked after", &error),
        }
        let pause = if serving.is_some() { LOOK_INTERVAL } else { RETRY_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = published.closed() => return,
        }
    }
}

fn warn(what: &str, error: &CertificateError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "{what}");
}

/// Reads the Secret, and makes or renews it where it must be.
async fn look(
    client: &Client,
    settings: &OperatorSettings,
    now: SystemTime,
) -> Result<BTreeMap<String, ByteString>, CertificateError> {
    let secrets = Api::<Secret>::namespaced(client.clone(), &settings.namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let written = match secrets.get_opt(SECRET).await? {
        Some(found) if !is_due(&found, now) => Ok(found),
        Some(found) => {
            let previous = found.data.as_ref().and_then(|data| data.get("ca.crt").cloned());
            let mut renewed = make(settings, previous, now)?;
            renewed.metadata.resource_version = found.resource_version();
            secrets.replace(SECRET, &params, &renewed).await
        }
        None => secrets.create(&params, &make(settings, None, now)?).await,
    };
    let secret = match written {
        Ok(secret) => secret,
        // Another replica was faster: its work is as good.
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            secrets.get(SECRET).await?
        }
        Err(error) => return Err(error.into()),
    };
    Ok(secret.data.unwrap_or_default())
}

fn is_due(secret: &Secret, now: SystemTime) -> bool {
    let due = secret.annotations().get(RENEW_AFTER).and_then(|text| text.parse::<Timestamp>().ok());
    let whole = ["bundle.crt", "tls.crt", "tls.key"]
        .iter()
        .all(|key| secret.data.as_ref().is_some_and(|data| data.contains_key(*key)));
    !whole || due.is_none_or(|due| SystemTime::from(due) <= now)
}

/// A new authority and certificate. The bundle keeps the previous authority, for replicas that have not seen this yet.
fn make(
    settings: &OperatorSettings,
    previous: Option<ByteString>,
    now: SystemTime,
) -> Result<Secret, CertificateError> {
    let authority = ServerAuthority::create(REALM, &settings.namespace, now)?;
    let mut request = ServerCertificateRequest::new(REALM, &settings.namespace);
    let service = &settings.webhook_service;
    request.dns_names = vec![
        format!("{service}.{}.svc", settings.namespace),
        format!("{service}.{}.svc.cluster.local", settings.namespace),
    ];
    request.valid_for = LIFETIME;
    let issued = authority.sign_server(&request, now)?;
    let mut bundle = authority.certificate_pem().as_bytes().to_vec();
    if let Some(previous) = previous {
        bundle.push(b'\n');
        bundle.extend(previous.0);
    }
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    let due = Timestamp::try_from(now + RENEW_AFTER_PART).unwrap_or(Timestamp::MAX);
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            namespace: Some(settings.namespace.clone()),
            annotations: Some(BTreeMap::from([(RENEW_AFTER.to_owned(), due.to_string())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            ("ca.crt".to_owned(), text(authority.certificate_pem())),
            ("bundle.crt".to_owned(), ByteString(bundle)),
            ("tls.crt".to_owned(), text(&issued.chain_pem)),
            ("tls.key".to_owned(), text(&issued.key_pem)),
        ])),
        ..Secret::default()
    })
}

/// Writes the `caBundle`, if it is another one.
async fn trust(
    client: &Client,
    settings: &OperatorSettings,
    data: &BTreeMap<String, ByteString>,
) -> Result<(), CertificateError> {
    let bundle = data.get("bundle.crt").ok_or(CertificateError::Unusable)?;
    let configurations = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let name = &settings.webhook_configuration;
    let found = configurations.get(name).await?;
    let webhooks = found.webhooks.unwrap_or_default();
    if webhooks.iter().all(|webhook| webhook.client_config.ca_bundle.as_ref() == Some(bundle)) {
        return Ok(());
    }
    // Only the key and our field: everything else of the webhook stays the chart's.
    let webhooks: Vec<_> = webhooks
        .iter()
        .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": bundle } }))
        .collect();
    let patch = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": name },
        "webhooks": webhooks,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    configurations.patch(name, &params, &Patch::Apply(&patch)).await?;
    tracing::info!(configuration = name, "the API server trusts the injector's certificate");
    Ok(())
}

fn server_config(data: &BTreeMap<String, ByteString>) -> Option<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&data.get("tls.crt")?.0).collect::<Result<_, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(&data.get("tls.key")?.0).ok()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .ok()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> OperatorSettings {
        let read = |name: &str| (!name.starts_with("LICTOR_L")).then(|| "lictor".to_owned());
        OperatorSettings::from_environment(read).expect("legal")
    }

    #[test]
    fn a_certificate_serves_is_renewed_in_time_and_its_authority_stays_trusted_for_one_more_life() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let first = make(&settings(), None, now).expect("made");
        let data = first.data.clone().expect("data");
        assert!(server_config(&data).is_some());
        assert!(!is_due(&first, now));
        assert!(is_due(&first, now + LIFETIME * 3 / 4));
        let second = make(&settings(), data.get("ca.crt").cloned(), now + RENEW_AFTER_PART).expect("made");
        let bundle = &second.data.expect("data")["bundle.crt"].0;
        let authorities: Vec<_> = CertificateDer::pem_slice_iter(bundle).collect::<Result<_, _>>().expect("PEM");
        assert_eq!(authorities.len(), 2);
        let old = CertificateDer::from_pem_slice(&data["ca.crt"].0).expect("PEM");
        assert!(authorities.contains(&old));
    }

    #[test]
    fn a_secret_that_lacks_its_key_is_due() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let mut secret = make(&settings(), None, now).expect("made");
        secret.data.as_mut().expect("data").remove("tls.key");
        assert!(is_due(&secret, now));
    }
}
