//! Config entries, by kind and name.
//!
//! Invariants
//! - A name is one entry of its kind whatever its case, as a service is one whatever its case.

use std::sync::Arc;

use imbl::OrdMap;
use lictor_types::Index;
use lictor_types::config_entry::{ConfigEntry, ConfigKind, PROXY_DEFAULTS_NAME};

use super::{Key, under};
use crate::changes::Table;
use crate::indexes::Indexes;

#[derive(Clone, Default)]
pub(crate) struct ConfigEntries {
    rows: OrdMap<Key, Arc<ConfigEntry>>,
}

/// The key of an entry; all of a kind share what comes before the name.
pub(crate) fn config_key(kind: ConfigKind, name: &str) -> Key {
    Key::from(format!("{kind}/{}", name.to_ascii_lowercase()))
}

/// What the keys of a kind start with.
pub(crate) fn kind_prefix(kind: ConfigKind) -> &'static str {
    match kind {
        ConfigKind::ServiceDefaults => "service-defaults/",
        ConfigKind::ProxyDefaults => "proxy-defaults/",
        ConfigKind::ServiceResolver => "service-resolver/",
        ConfigKind::ServiceSplitter => "service-splitter/",
        ConfigKind::ServiceRouter => "service-router/",
        ConfigKind::Mesh => "mesh/",
        ConfigKind::ExportedServices => "exported-services/",
        ConfigKind::IngressGateway => "ingress-gateway/",
        ConfigKind::TerminatingGateway => "terminating-gateway/",
        ConfigKind::ApiGateway => "api-gateway/",
        ConfigKind::BoundApiGateway => "bound-api-gateway/",
        ConfigKind::HttpRoute => "http-route/",
        ConfigKind::TcpRoute => "tcp-route/",
        ConfigKind::InlineCertificate => "inline-certificate/",
        ConfigKind::FileSystemCertificate => "file-system-certificate/",
        ConfigKind::JwtProvider => "jwt-provider/",
    }
}

impl ConfigEntries {
    pub(crate) fn get(&self, kind: ConfigKind, name: &str) -> Option<&Arc<ConfigEntry>> {
        self.rows.get(&config_key(kind, name))
    }

    /// What holds for one service.
    pub(crate) fn service_defaults(&self, service: &str) -> Option<&Arc<ConfigEntry>> {
        self.get(ConfigKind::ServiceDefaults, service)
    }

    /// What holds for all proxies.
    pub(crate) fn proxy_defaults(&self) -> Option<&Arc<ConfigEntry>> {
        self.get(ConfigKind::ProxyDefaults, PROXY_DEFAULTS_NAME)
    }

    /// The entries of a kind, by name.
    pub(crate) fn of_kind(&self, kind: ConfigKind) -> impl Iterator<Item = &Arc<ConfigEntry>> {
        under(&self.rows, kind_prefix(kind)).map(|(_, entry)| entry)
    }

    pub(crate) fn insert(&mut self, entry: ConfigEntry) {
        self.rows.insert(config_key(entry.kind, &entry.name), Arc::new(entry));
    }

    pub(crate) fn remove(&mut self, kind: ConfigKind, name: &str) {
        self.rows.remove(&config_key(kind, name));
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &ConfigEntry> {
        self.rows.values().map(|entry| &**entry)
    }

    /// The index of one entry; that of the last entry that went where there is none.
    pub(crate) fn index_of(&self, kind: ConfigKind, name: &str, indexes: &Indexes) -> Index {
        self.get(kind, name).map_or_else(|| indexes.of_extinction(Table::ConfigEntries), |entry| entry.modify_index)
    }
}
