//! Keys and certificates of a datacenter: what exists is kept, what is missing is made. Pure, given time and
//! randomness.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::jiff::Timestamp;
use lictor_crds::ConsulDatacenter;
use lictor_identity::{AuthorityError, ServerAuthority, ServerCertificateRequest};
use lictor_runtime::Rng;
use serde_json::json;

use super::fetch::{FoundCertificate, FoundKeys, SecretData};
use crate::names::{DNS_DOMAIN, Names};

/// Annotation on a Secret with a certificate: the moment from which a new one is made.
pub(crate) const RENEW_AFTER: &str = "lictor.dev/renew-after";

/// How long a certificate of the servers lasts.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The part of its life after which it is replaced, in percent.
const RENEW_AT_PERCENT: u32 = 60;
/// Bytes of a symmetric key.
const KEY_BYTES: usize = 32;

/// All keys of a datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// `ca.crt`, `ca.key`.
    pub server_ca: Kept,
    /// `ca.crt`, `tls.crt`, `tls.key`.
    pub server_tls: SecretData,
    /// When the servers' certificate is due.
    pub renew_after: String,
    /// `seal.key`.
    pub seal_key: Kept,
    /// `key`.
    pub gossip_key: Kept,
    /// `token`, `acl.json`.
    pub bootstrap_token: Kept,
}

/// The data of a Secret that is made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// What it holds.
    pub data: SecretData,
    /// Whether it was made just now and must be created.
    pub fresh: bool,
}

/// Keys or certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// The authority could not be made or read, or did not sign.
    #[error("the server CA in the Secret {secret} cannot be used")]
    Authority {
        /// Name of the Secret.
        secret: String,
        /// What was wrong.
        #[source]
        source: AuthorityError,
    },
    /// A Secret lacks a key.
    #[error("the Secret {secret} has no text under {key:?}: restore it, or delete the Secret if the datacenter is new")]
    Incomplete {
        /// Name of the Secret.
        secret: String,
        /// The key.
        key: &'static str,
    },
}

impl Keys {
    /// Certificate of the server CA, as PEM.
    pub(crate) fn ca_pem(&self) -> Option<String> {
        text(&self.server_ca.data, "ca.crt")
    }

    /// The first management token.
    pub(crate) fn token(&self) -> Option<String> {
        text(&self.bootstrap_token.data, "token")
    }
}

/// The text under `key`, without white space around it.
pub(crate) fn text(data: &SecretData, key: &str) -> Option<String> {
    let value = data.get(key)?;
    Some(std::str::from_utf8(value).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Keeps what was found and makes what is missing.
pub(crate) fn complete(
    datacenter: &ConsulDatacenter,
    found: &FoundKeys,
    random: &dyn Rng,
    now: SystemTime,
) -> Result<Keys, KeysError> {
    let names = Names::of(datacenter);
    let in_authority = |source| KeysError::Authority { secret: names.server_ca(), source };
    let (authority, server_ca) = match &found.server_ca {
        Some(data) => {
            let part = |key: &'static str| {
                // As PEM ends, whatever the white space it was restored with: certificates are compared as text.
                let text = text(data, key).map(|text| text + "\n");
                text.ok_or_else(|| KeysError::Incomplete { secret: names.server_ca(), key })
            };
            let authority = ServerAuthority::from_pem(&part("ca.crt")?, &part("ca.key")?).map_err(in_authority)?;
            (authority, Kept { data: data.clone(), fresh: false })
        }
        None => {
            let authority =
                ServerAuthority::create(&datacenter.spec.datacenter, DNS_DOMAIN, now).map_err(in_authority)?;
            let data = secret([("ca.crt", authority.certificate_pem()), ("ca.key", authority.key_pem())]);
            (authority, Kept { data, fresh: true })
        }
    };
    let (server_tls, renew_after) = match usable_certificate(found.server_tls.as_ref(), &authority, now) {
        Some(kept) => kept,
        None => issue(datacenter, &names, &authority, now).map_err(in_authority)?,
    };
    let symmetric = |found: &Option<SecretData>, secret_name: String, key: &'static str| match found {
        Some(data) if text(data, key).is_none() => Err(KeysError::Incomplete { secret: secret_name, key }),
        Some(data) => Ok(Kept { data: data.clone(), fresh: false }),
        None => {
            let mut bytes = [0; KEY_BYTES];
            random.fill(&mut bytes);
            Ok(Kept { data: secret([(key, BASE64.encode(bytes).as_str())]), fresh: true })
        }
    };
    let bootstrap_token = match &found.bootstrap_token {
        Some(data) if text(data, "token").is_none() => {
            return Err(KeysError::Incomplete { secret: names.bootstrap_token(), key: "token" });
        }
        Some(data) => Kept { data: data.clone(), fresh: false },
        None => {
            let token = random.uuid();
            let configuration = json!({ "acl": { "tokens": { "initial_management": token } } }).to_string();
            Kept { data: secret([("token", token.as_str()), ("acl.json", configuration.as_str())]), fresh: true }
        }
    };
    Ok(Keys {
        server_ca,
        server_tls,
        renew_after,
        seal_key: symmetric(&found.seal_key, names.seal_key(), "seal.key")?,
        gossip_key: symmetric(&found.gossip_key, names.gossip_key(), "key")?,
        bootstrap_token,
    })
}

/// The certificate there is, if it is of this authority and not yet due.
fn usable_certificate(
    found: Option<&FoundCertificate>,
    authority: &ServerAuthority,
    now: SystemTime,
) -> Option<(SecretData, String)> {
    let FoundCertificate { data, renew_after } = found?;
    let renew_after = renew_after.as_ref()?;
    let due: Timestamp = renew_after.parse().ok()?;
    let whole = ["tls.crt", "tls.key"].into_iter().all(|key| text(data, key).is_some());
    let ours = text(data, "ca.crt")? == authority.certificate_pem().trim();
    (whole && ours && now < SystemTime::from(due)).then(|| (data.clone(), renew_after.clone()))
}

fn issue(
    datacenter: &ConsulDatacenter,
    names: &Names,
    authority: &ServerAuthority,
    now: SystemTime,
) -> Result<(SecretData, String), AuthorityError> {
    let mut request = ServerCertificateRequest::new(&datacenter.spec.datacenter, DNS_DOMAIN);
    request.dns_names = names.certificate_names();
    request.ip_addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    request.valid_for = CERTIFICATE_LIFETIME;
    let issued = authority.sign_server(&request, now)?;
    let data = secret([
        ("ca.crt", authority.certificate_pem()),
        ("tls.crt", issued.chain_pem.as_str()),
        ("tls.key", issued.key_pem.as_str()),
    ]);
    Ok((data, renewal_time(now, CERTIFICATE_LIFETIME, authority.not_after())))
}

/// When a certificate made now is due, as an annotation writes it.
pub(crate) fn renewal_time(now: SystemTime, lifetime: Duration, authority_ends: SystemTime) -> String {
    let left = authority_ends.duration_since(now).unwrap_or_default();
    let due = now + lifetime.min(left) * RENEW_AT_PERCENT / 100;
    let seconds = due.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX).to_string()
}

fn secret<const N: usize>(entries: [(&str, &str); N]) -> SecretData {
    BTreeMap::from(entries.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())))
}
