//! `/v1/connect/ca/configuration`: how the mesh CA signs, in Consul's words. No key is ever shown or taken.
//!
//! What can be set is what takes effect: `LeafCertTTL` and `CSRMaxPerSecond`. The rest belongs to a root that is made once;
//! a value other than the one it was made with is refused.

use axum::response::IntoResponse;
use lictor_types::authority::AuthoritySettings;
use lictor_types::{Answer, Command, Index, Query, Refusal, duration};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

use super::body::JsonBody;
use super::caller::{Ask, Order};
use super::decode::{self, Names};
use super::failure::{Answered, Failure};

/// The one provider: keys are kept by the servers, sealed.
const PROVIDER: &str = "consul";
/// Hours that the root is valid.
const ROOT_HOURS: u64 = 87_600;
/// Hours that the intermediate is valid.
const INTERMEDIATE_HOURS: u64 = 8_760;
/// Seconds of an hour.
const HOUR: u64 = 3600;
/// The kind and size of every key of the mesh.
const KEY: (&str, u32) = ("ec", 256);

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    provider: &'static str,
    config: ShownConfig,
    state: Option<()>,
    force_without_cross_signing: bool,
    create_index: Index,
    modify_index: Index,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownConfig {
    #[serde(rename = "CSRMaxConcurrent")]
    csr_max_concurrent: u32,
    #[serde(rename = "CSRMaxPerSecond")]
    csr_max_per_second: u32,
    #[serde(rename = "IntermediateCertTTL")]
    intermediate_cert_ttl: String,
    #[serde(rename = "LeafCertTTL")]
    leaf_cert_ttl: String,
    private_key_bits: u32,
    private_key_type: &'static str,
    #[serde(rename = "RootCertTTL")]
    root_cert_ttl: String,
}

/// What is taken. Fields that Consul's clients send back as they got them are taken and not kept.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
#[allow(dead_code, reason = "what a client sends back as it got it is read and not kept")]
struct ConfigurationBody {
    provider: String,
    config: ConfigBody,
    state: Option<Value>,
    force_without_cross_signing: bool,
    create_index: u64,
    modify_index: u64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct ConfigBody {
    #[serde(rename = "LeafCertTTL", with = "duration::optional")]
    leaf_cert_ttl: Option<Duration>,
    #[serde(rename = "IntermediateCertTTL", with = "duration::optional")]
    intermediate_cert_ttl: Option<Duration>,
    #[serde(rename = "RootCertTTL", with = "duration::optional")]
    root_cert_ttl: Option<Duration>,
    private_key_type: Option<String>,
    private_key_bits: Option<u32>,
    #[serde(rename = "CSRMaxPerSecond")]
    csr_max_per_second: Option<f64>,
    #[serde(rename = "CSRMaxConcurrent")]
    csr_max_concurrent: Option<u32>,
    private_key: Option<String>,
    root_cert: Option<String>,
    rotation_period: Option<Value>,
}

/// `GET /v1/connect/ca/configuration`.
pub(super) async fn get(ask: Ask) -> Answered {
    let (meta, Answer::AuthoritySettings(settings)) = ask.read(Query::AuthoritySettings).await? else {
        return Err(Failure::unexpected_answer());
    };
    let absent = || Refusal::failed("CA is uninitialized and unable to sign certificates yet: no leader has made it");
    let settings = settings.ok_or_else(absent)?;
    let shown = Shown {
        provider: PROVIDER,
        config: ShownConfig {
            csr_max_concurrent: 0,
            csr_max_per_second: settings.signatures_per_second,
            intermediate_cert_ttl: format!("{INTERMEDIATE_HOURS}h"),
            leaf_cert_ttl: short(Duration::from_secs(settings.leaf_seconds)),
            private_key_bits: KEY.1,
            private_key_type: KEY.0,
            root_cert_ttl: format!("{ROOT_HOURS}h"),
        },
        state: None,
        force_without_cross_signing: false,
        create_index: settings.modify_index,
        modify_index: settings.modify_index,
    };
    ask.answer(meta, &shown)
}

/// `PUT /v1/connect/ca/configuration`: replaces it as a whole; what is left out is the default.
pub(super) async fn set(order: Order, body: JsonBody) -> Answered {
    let settings = settings(decode::decode(&body.0, Names::SnakeToo)?)?;
    order.write(Command::AuthorityConfigure(settings)).await?;
    Ok(().into_response())
}

fn settings(body: ConfigurationBody) -> Result<AuthoritySettings, Failure> {
    let ConfigurationBody { provider, config, .. } = body;
    if provider != PROVIDER {
        let text =
            format!("unknown CA provider {provider:?}: there is one, {PROVIDER:?}, whose keys the servers keep sealed");
        return Err(Failure::bad_request(text));
    }
    if [&config.private_key, &config.root_cert].into_iter().flatten().any(|given| !given.is_empty()) {
        return Err(Failure::bad_request("PrivateKey and RootCert are not taken: the mesh CA makes its own root"));
    }
    if config.rotation_period.is_some_and(|given| !given.is_null()) {
        return Err(Failure::bad_request("RotationPeriod is not taken: Consul itself ignores it"));
    }
    let made = |name: &str, given: Option<Duration>, hours: u64| match given {
        Some(given) if given.as_secs() != hours * HOUR => Err(Failure::bad_request(format!(
            "{name} cannot be changed: the mesh CA was made with {hours}h and is not replaced yet"
        ))),
        _ => Ok(()),
    };
    made("IntermediateCertTTL", config.intermediate_cert_ttl, INTERMEDIATE_HOURS)?;
    made("RootCertTTL", config.root_cert_ttl, ROOT_HOURS)?;
    if config.private_key_type.as_deref().is_some_and(|it| it != KEY.0)
        || config.private_key_bits.is_some_and(|it| it != KEY.1)
    {
        return Err(Failure::bad_request(
            "PrivateKeyType and PrivateKeyBits: there is one kind of key, \"ec\" with 256 bits",
        ));
    }
    if config.csr_max_concurrent.is_some_and(|it| it != 0) {
        return Err(Failure::bad_request("CSRMaxConcurrent is not taken: set CSRMaxPerSecond"));
    }
    let default = AuthoritySettings::default();
    let signatures_per_second = match config.csr_max_per_second {
        None => default.signatures_per_second,
        Some(given) if (0.0..=1e6).contains(&given) => given.ceil() as u32,
        Some(given) => {
            return Err(Failure::bad_request(format!(
                "CSRMaxPerSecond {given} is not between 0 (any number) and 1000000"
            )));
        }
    };
    let leaf_seconds = config.leaf_cert_ttl.map_or(default.leaf_seconds, |it| it.as_secs());
    let settings = AuthoritySettings { leaf_seconds, signatures_per_second, ..default };
    settings.check().map_err(Failure::bad_request)?;
    Ok(settings)
}

/// As people write it: `72h`, not `72h0m0s`.
fn short(ttl: Duration) -> String {
    let seconds = ttl.as_secs();
    if seconds.is_multiple_of(HOUR) { format!("{}h", seconds / HOUR) } else { duration::format(ttl) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<AuthoritySettings, String> {
        let body = decode::decode(body.as_bytes(), Names::SnakeToo).map_err(|refusal| refusal.text)?;
        settings(body).map_err(|failure| failure.0.text)
    }

    #[test]
    fn what_consul_shows_is_taken_back() {
        let body = r#"{"Provider":"consul","Config":{"CSRMaxConcurrent":0,"CSRMaxPerSecond":50,"IntermediateCertTTL":"8760h",
            "LeafCertTTL":"24h","PrivateKeyBits":256,"PrivateKeyType":"ec","RootCertTTL":"87600h"},"State":null,
            "ForceWithoutCrossSigning":false,"CreateIndex":1,"ModifyIndex":2}"#;
        assert_eq!(read(body).unwrap().leaf_seconds, 24 * HOUR);
        assert_eq!(read(r#"{"Provider":"consul"}"#).unwrap(), AuthoritySettings::default());
        assert_eq!(short(Duration::from_secs(72 * HOUR)), "72h");
        assert_eq!(short(Duration::from_secs(5400)), "1h30m0s");
    }

    #[test]
    fn what_cannot_take_effect_is_refused() {
        for (body, complaint) in [
            (r#"{"Provider":"vault","Config":{}}"#, "unknown CA provider \"vault\""),
            (r#"{"Config":{}}"#, "unknown CA provider \"\""),
            (r#"{"Provider":"consul","Config":{"LeafCertTTL":"59m"}}"#, "greater or equal than 1h"),
            (r#"{"Provider":"consul","Config":{"LeafCertTTL":"8760h"}}"#, "3 * LeafCertTTL"),
            (r#"{"Provider":"consul","Config":{"RootCertTTL":"1h"}}"#, "RootCertTTL cannot be changed"),
            (r#"{"Provider":"consul","Config":{"PrivateKeyType":"rsa"}}"#, "one kind of key"),
            (r#"{"Provider":"consul","Config":{"PrivateKey":"x"}}"#, "PrivateKey and RootCert"),
            (r#"{"Provider":"consul","Config":{"CSRMaxPerSecond":-1}}"#, "CSRMaxPerSecond -1"),
            (r#"{"Provider":"consul","Config":{"LeafTTL":"1h"}}"#, "unknown field \"LeafTTL\""),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(complaint), "{body}: {error}");
        }
    }
}
