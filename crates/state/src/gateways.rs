//! Services behind gateways: outside of the mesh behind terminating ones, inside of it behind ingress ones.

use std::collections::BTreeMap;

use lictor_types::config_entry::{ConfigEntry, ConfigKind};
use lictor_types::gateway::{GatewayService, KIND_INGRESS_GATEWAY, KIND_TERMINATING_GATEWAY};
use lictor_types::intention::WILDCARD;
use lictor_types::query::ServiceQuery;
use lictor_types::{Answer, Index, NodeService, Resource, ServiceName};
use serde_json::Value;

use crate::answer::Filter;
use crate::chain::protocol_of;
use crate::changes::Table;
use crate::store::Store;
use crate::tables::Key;

/// The service that the servers themselves are; no gateway stands before it by a wildcard.
const SERVERS: &str = "consul";

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

fn texts(object: &Value, name: &str) -> Vec<String> {
    let rows = object[name].as_array().into_iter().flatten();
    rows.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Whether a list of services names this one, itself or as one of all.
fn names(services: &[Value], service: &str) -> bool {
    services.iter().any(|it| text(it, "Name").eq_ignore_ascii_case(service) || text(it, "Name") == WILDCARD)
}

impl Store {
    /// Whether some terminating gateway stands before all services.
    pub(crate) fn has_gateway_for_all(&self) -> bool {
        let mut gateways = self.config_entries.of_kind(ConfigKind::TerminatingGateway);
        gateways.any(|gateway| gateway.rows("Services").iter().any(|it| text(it, "Name") == WILDCARD))
    }

    /// The terminating gateways that a service is behind, by their keys.
    fn gateways_before(&self, service: &str) -> impl Iterator<Item = Key> {
        let is_typical = service != SERVERS && self.services.of_service(service).any(|(_, it)| it.kind.is_empty());
        self.config_entries
            .of_kind(ConfigKind::TerminatingGateway)
            .filter(move |gateway| {
                let mut services = gateway.rows("Services").iter().map(|it| text(it, "Name"));
                services.any(|name| name.eq_ignore_ascii_case(service) || (name == WILDCARD && is_typical))
            })
            .map(|gateway| Key::from(gateway.name.to_ascii_lowercase()))
    }

    /// The instances of the terminating gateways that a service is behind, with their node keys.
    pub(crate) fn terminating_instances(&self, service: &str) -> Vec<(&Key, &std::sync::Arc<NodeService>)> {
        let gateways: Vec<Key> = self.gateways_before(service).collect();
        let instances = gateways.iter().flat_map(|gateway| self.services.of_service(gateway).collect::<Vec<_>>());
        instances.filter(|(_, it)| it.kind == KIND_TERMINATING_GATEWAY).collect()
    }

    /// The index of those instances: moved by them, their nodes and checks, and by what the gateways' entries say.
    pub(crate) fn terminating_index(&self, service: &str) -> Index {
        let of_gateways = self.gateways_before(service).map(|gateway| self.indexes.of_key(Table::Gateways, gateway));
        let linked = self.config_kind_index(ConfigKind::TerminatingGateway);
        of_gateways.max().unwrap_or_default().max(linked)
    }

    /// The ingress gateways that let callers of a service in, by their keys.
    fn gateways_to(&self, service: &str) -> impl Iterator<Item = Key> {
        let protocol = protocol_of(&self.config_entries, service);
        self.config_entries
            .of_kind(ConfigKind::IngressGateway)
            .filter(move |gateway| {
                gateway.rows("Listeners").iter().any(|listener| {
                    let services = listener["Services"].as_array().map_or(&[][..], Vec::as_slice);
                    let named = services.iter().any(|it| text(it, "Name").eq_ignore_ascii_case(service));
                    named || (text(listener, "Protocol") == protocol && names(services, service))
                })
            })
            .map(|gateway| Key::from(gateway.name.to_ascii_lowercase()))
    }

    pub(crate) fn health_ingress(&self, filter: &mut Filter<'_>, query: &ServiceQuery) -> (Index, Answer) {
        let service = query.service.key();
        let mut index = self.config_kind_index(ConfigKind::IngressGateway).max(self.protocol_index(&service));
        let mut rows = Vec::new();
        let may_read = filter.may_read(Resource::Service, query.service.as_str());
        for gateway in self.gateways_to(&service) {
            index = index.max(self.indexes.of_key(Table::Gateways, gateway.clone()));
            let instances: Vec<_> = self.services.of_service(&gateway).collect();
            let instances = instances.into_iter().filter(|(_, it)| may_read && it.kind == KIND_INGRESS_GATEWAY);
            rows.extend(self.joined(filter, query, instances));
        }
        (index, Answer::CheckServiceNodes(self.with_checks(query, rows).into()))
    }

    /// The last change of what says the protocol of a service.
    fn protocol_index(&self, service: &str) -> Index {
        let own = self.config_entries.index_of(ConfigKind::ServiceDefaults, service, &self.indexes);
        own.max(self.config_kind_index(ConfigKind::ProxyDefaults))
    }

    pub(crate) fn gateway_services(&self, filter: &mut Filter<'_>, gateway: &ServiceName) -> (Index, Answer) {
        let kinds = [ConfigKind::TerminatingGateway, ConfigKind::IngressGateway];
        let of = |kind| self.config_entries.index_of(kind, gateway.as_str(), &self.indexes);
        let mut index = kinds.into_iter().map(of).max().unwrap_or_default();
        let mut found = BTreeMap::new();
        let entries = kinds.into_iter().filter_map(|kind| self.config_entries.get(kind, gateway.as_str()));
        for entry in entries.filter(|_| filter.may_read(Resource::Service, gateway.as_str())) {
            let mut is_for_all = false;
            for (services, port, protocol) in listeners(entry) {
                is_for_all |= services.iter().any(|it| text(it, "Name") == WILDCARD);
                for row in self.linked(entry, services, port, protocol) {
                    // What is named itself is not there by a wildcard too.
                    let key = (row.service.to_ascii_lowercase(), row.port);
                    if !row.from_wildcard || !found.contains_key(&key) {
                        found.insert(key, row);
                    }
                }
            }
            if is_for_all {
                index = index.max(self.indexes.of_table(Table::ServiceNames));
                index = index.max(self.config_kind_index(ConfigKind::ServiceDefaults));
                index = index.max(self.config_kind_index(ConfigKind::ProxyDefaults));
            }
        }
        let rows = found.into_values().filter(|row| filter.may_read(Resource::Service, &row.service)).collect();
        (index, Answer::GatewayServices(rows))
    }

    fn linked(&self, entry: &ConfigEntry, services: &[Value], port: u16, protocol: &str) -> Vec<GatewayService> {
        let row = |service: &Value, name: &str, from_wildcard| GatewayService {
            gateway: entry.name.clone(),
            service: name.to_owned(),
            gateway_kind: entry.kind.as_str().to_owned(),
            port,
            protocol: protocol.to_owned(),
            hosts: texts(service, "Hosts"),
            ca_file: text(service, "CAFile").to_owned(),
            cert_file: text(service, "CertFile").to_owned(),
            key_file: text(service, "KeyFile").to_owned(),
            sni: text(service, "SNI").to_owned(),
            from_wildcard,
            create_index: entry.create_index,
            modify_index: entry.modify_index,
        };
        let named = |name: &str| services.iter().any(|it| text(it, "Name").eq_ignore_ascii_case(name));
        let mut rows = Vec::new();
        for service in services {
            if text(service, "Name") != WILDCARD {
                rows.push(row(service, text(service, "Name"), false));
                continue;
            }
            let is_ingress = entry.kind == ConfigKind::IngressGateway;
            let fits = |name: &str| !is_ingress || protocol_of(&self.config_entries, name) == protocol;
            let all = self.typical_names().into_iter().filter(|name| !named(name) && fits(name));
            rows.extend(all.map(|name| row(service, &name, true)));
        }
        rows
    }

    /// The names of services that have an instance which is neither proxy nor gateway.
    fn typical_names(&self) -> Vec<String> {
        let typical = self.services.all().filter(|(_, it)| it.kind.is_empty() && it.name.as_str() != SERVERS);
        let mut names: Vec<String> = typical.map(|(_, it)| it.name.as_str().to_owned()).collect();
        names.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
        names
    }
}

/// The services of each listener with its port and protocol; a terminating gateway has one for all.
fn listeners(entry: &ConfigEntry) -> Vec<(&[Value], u16, &str)> {
    if entry.kind == ConfigKind::TerminatingGateway {
        return vec![(entry.rows("Services"), 0, "")];
    }
    let port_of = |listener: &Value| listener["Port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let rows = entry.rows("Listeners").iter();
    rows.map(|listener| {
        let services = listener["Services"].as_array().map_or(&[][..], Vec::as_slice);
        (services, port_of(listener).unwrap_or_default(), text(listener, "Protocol"))
    })
    .collect()
}
