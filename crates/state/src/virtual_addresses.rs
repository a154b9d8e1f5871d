//! Which services have an address that stands for them in the mesh.
//!
//! Invariants
//! - A service that is served over mutual TLS, or that a config entry routes, has one; it keeps it until neither that nor
//!   any instance of it is left.

use core::net::Ipv4Addr;
use std::collections::BTreeSet;

use lictor_types::command::Effect;
use lictor_types::config_entry::{ConfigEntry, ConfigKind};
use lictor_types::gateway::{VIRTUAL_TAG, VirtualAddress};
use lictor_types::intention::WILDCARD;
use lictor_types::service::ServiceAddress;
use lictor_types::{Answer, Index, NodeService, Refusal, Registration, ServiceName, VirtualAddressesSet};

use crate::changes::{Commit, Table};
use crate::store::Store;
use crate::tables::Key;
use crate::tables::services::connect_key;

/// Addresses that people may give one service.
const MANUAL_MAX: usize = 8;

/// The services that a config entry alone gives an address to.
pub(crate) fn addressed_by(entry: &ConfigEntry) -> BTreeSet<String> {
    let own = || BTreeSet::from([entry.name.to_ascii_lowercase()]);
    match entry.kind {
        kind if kind.is_of_chain() => own(),
        ConfigKind::ServiceDefaults if entry.field("Destination").is_object() => own(),
        ConfigKind::TerminatingGateway => {
            let names = entry.rows("Services").iter().filter_map(|service| service["Name"].as_str());
            names.filter(|name| *name != WILDCARD).map(str::to_ascii_lowercase).collect()
        }
        _ => BTreeSet::new(),
    }
}

fn exhausted() -> Refusal {
    Refusal::failed("cannot allocate any more unique service virtual IPs")
}

impl Store {
    /// Whether something but its plain instances makes a service one of the mesh.
    fn wants_virtual_address(&self, service: &str) -> bool {
        let is_routed = || {
            let kinds = [ConfigKind::ServiceResolver, ConfigKind::ServiceSplitter, ConfigKind::ServiceRouter];
            kinds.into_iter().any(|kind| self.config_entries.get(kind, service).is_some())
        };
        let is_external =
            || self.config_entries.service_defaults(service).is_some_and(|it| it.field("Destination").is_object());
        let is_behind_gateway =
            || self.config_entries.of_kind(ConfigKind::TerminatingGateway).any(|it| addressed_by(it).contains(service));
        self.services.of_connect(service).next().is_some() || is_routed() || is_external() || is_behind_gateway()
    }

    /// Refuses a registration that would need an address when there is none.
    pub(crate) fn check_virtual_room(&self, registration: &Registration) -> Result<(), Refusal> {
        let key = registration.service.as_ref().and_then(connect_key);
        let needed = key.filter(|key| self.virtual_addresses.get(key).is_none());
        if needed.is_some() && !self.virtual_addresses.has_room(1) { Err(exhausted()) } else { Ok(()) }
    }

    /// Refuses a config entry that would need more addresses than there are.
    pub(crate) fn check_virtual_room_for(&self, entry: &ConfigEntry) -> Result<(), Refusal> {
        let named = addressed_by(entry);
        let needed = named.iter().filter(|service| self.virtual_addresses.get(service).is_none()).count();
        if self.virtual_addresses.has_room(needed) { Ok(()) } else { Err(exhausted()) }
    }

    /// Gives a service an address if it has none.
    pub(crate) fn assign_virtual_address(&mut self, commit: &mut Commit, service: &str, name: &str) {
        if self.virtual_addresses.get(service).is_some() {
            return;
        }
        // There is room: it was looked at before the first change.
        let Some(place) = self.virtual_addresses.take_place() else { return };
        let row = VirtualAddress {
            service: name.to_owned(),
            place,
            manual: Vec::new(),
            create_index: commit.at,
            modify_index: commit.at,
        };
        self.virtual_addresses.insert(Key::from(service), row);
        self.indexes.changed(commit, Table::VirtualAddresses, Key::from(service));
    }

    /// The instance with the address that stands for the service it serves.
    pub(crate) fn address_instance(&mut self, commit: &mut Commit, service: &mut NodeService) {
        let Some(key) = connect_key(service) else { return };
        let name = service.connect_destination().unwrap_or_default().to_owned();
        self.assign_virtual_address(commit, &key, &name);
        if let Some(row) = self.virtual_addresses.get(&key) {
            let address = ServiceAddress { address: row.address().to_string(), port: service.port };
            service.tagged_addresses.insert(VIRTUAL_TAG.into(), address);
        }
    }

    /// Takes the address of a service back if nothing is left that it is for.
    pub(crate) fn release_virtual_address(&mut self, commit: &mut Commit, service: &str) {
        if self.virtual_addresses.get(service).is_none()
            || self.services.of_service(service).next().is_some()
            || self.wants_virtual_address(service)
        {
            return;
        }
        if self.virtual_addresses.remove(service) {
            self.indexes.removed(commit, Table::VirtualAddresses, Key::from(service));
        }
    }

    pub(crate) fn set_virtual_addresses(
        &mut self,
        commit: &mut Commit,
        what: &VirtualAddressesSet,
    ) -> Result<Effect, Refusal> {
        if what.addresses.len() > MANUAL_MAX {
            return Err(Refusal::bad_request(format!("cannot associate more than {MANUAL_MAX} manual virtual IPs")));
        }
        for address in &what.addresses {
            if address.parse::<Ipv4Addr>().is_err() {
                return Err(Refusal::bad_request(format!("{address:?} is not a valid IPv4 address")));
            }
        }
        let key = what.service.to_ascii_lowercase();
        let Some(row) = self.virtual_addresses.get(&key) else { return Ok(Effect::NotApplied) };
        let mut changed = vec![VirtualAddress { manual: what.addresses.clone(), ..(**row).clone() }];
        if row.manual == what.addresses {
            return Ok(Effect::Unassigned(Vec::new()));
        }
        for other in self.virtual_addresses.rows().filter(|other| !other.service.eq_ignore_ascii_case(&what.service)) {
            let left: Vec<String> =
                other.manual.iter().filter(|address| !what.addresses.contains(address)).cloned().collect();
            if left.len() != other.manual.len() {
                changed.push(VirtualAddress { manual: left, ..other.clone() });
            }
        }
        let unassigned = changed[1..].iter().map(|row| row.service.clone()).collect();
        for mut row in changed {
            row.modify_index = commit.at;
            let key = Key::from(row.service.to_ascii_lowercase());
            self.virtual_addresses.insert(key.clone(), row);
            self.indexes.changed(commit, Table::VirtualAddresses, key);
        }
        Ok(Effect::Unassigned(unassigned))
    }

    pub(crate) fn virtual_address(&self, service: &ServiceName) -> (Index, Answer) {
        let row = self.virtual_addresses.get(&service.key());
        let gone = || self.indexes.of_extinction(Table::VirtualAddresses);
        let index = row.map_or_else(gone, |row| row.modify_index);
        (index, Answer::VirtualAddress(row.map(|row| (**row).clone())))
    }
}
