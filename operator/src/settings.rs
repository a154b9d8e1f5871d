//! What the operator is told at its start.

use std::net::{Ipv4Addr, SocketAddr};

/// The port that the injector serves on.
const WEBHOOK_PORT: u16 = 9443;

/// What the operator is told at its start. The chart hands it over as environment variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSettings {
    /// Namespace of the operator itself: its Lease and the injector's Secret live there.
    pub namespace: String,
    /// Name of this replica, unique among them.
    pub pod_name: String,
    /// Image of servers and sidecars whose datacenter names none.
    pub image: String,
    /// Where the injector listens.
    pub listen: SocketAddr,
    /// Name of the Service through which the API server reaches the injector.
    pub webhook_service: String,
    /// Name of the MutatingWebhookConfiguration whose `caBundle` the operator fills in.
    pub webhook_configuration: String,
    /// Name of the ClusterRoleBinding whose subjects the operator fills in: servers, which review tokens.
    pub token_review_binding: String,
}

/// An environment variable is missing or wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// It is not there and has no default.
    #[error("the environment variable {name} is missing: {meaning}")]
    Missing {
        /// Which.
        name: &'static str,
        /// What belongs there.
        meaning: &'static str,
    },
    /// It is not an address.
    #[error("LICTOR_LISTEN is {value:?}, which is no address: write it as 0.0.0.0:9443")]
    Listen {
        /// What was there.
        value: String,
    },
}

impl OperatorSettings {
    /// Reads the settings from `POD_NAMESPACE`, `POD_NAME`, `LICTOR_IMAGE`, `LICTOR_LISTEN`, `LICTOR_WEBHOOK_SERVICE`,
    /// `LICTOR_WEBHOOK_CONFIGURATION` and `LICTOR_TOKEN_REVIEW_BINDING`, given a way to read a variable.
    pub fn from_environment(read: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let needed = |name: &'static str, meaning: &'static str| {
            read(name).filter(|value| !value.is_empty()).ok_or(SettingsError::Missing { name, meaning })
        };
        let or = |name: &str, default: &str| read(name).unwrap_or_else(|| default.to_owned());
        let listen = match read("LICTOR_LISTEN") {
            None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, WEBHOOK_PORT)),
            Some(value) => value.parse().map_err(|_| SettingsError::Listen { value })?,
        };
        Ok(Self {
            namespace: needed("POD_NAMESPACE", "the namespace of the operator's pod, from metadata.namespace")?,
            pod_name: needed("POD_NAME", "the name of the operator's pod, from metadata.name")?,
            image: needed("LICTOR_IMAGE", "the image of servers and sidecars, usually the operator's own")?,
            listen,
            webhook_service: or("LICTOR_WEBHOOK_SERVICE", "lictor-injector"),
            webhook_configuration: or("LICTOR_WEBHOOK_CONFIGURATION", "lictor-injector"),
            token_review_binding: or("LICTOR_TOKEN_REVIEW_BINDING", "lictor-tokenreview"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_variable_is_named_with_what_belongs_there() {
        let error = OperatorSettings::from_environment(|name| (name == "POD_NAMESPACE").then(|| "lictor".to_owned()))
            .expect_err("three are missing");
        assert!(error.to_string().contains("POD_NAME is missing"), "{error}");
    }

    #[test]
    fn what_has_a_default_need_not_be_given() {
        let settings = OperatorSettings::from_environment(|name| {
            (!name.starts_with("LICTOR_W") && name != "LICTOR_LISTEN").then(|| name.to_lowercase())
        })
        .expect("the rest has defaults");
        assert_eq!(settings.listen.port(), WEBHOOK_PORT);
        assert_eq!(settings.webhook_service, "lictor-injector");
    }
}
