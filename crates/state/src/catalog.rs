//! Registering and deregistering: the rules that span nodes, instances and checks.
//!
//! Invariants
//! - A registration is all or nothing: everything is checked before the first row changes.
//! - An instance has a node; a check has a node, and an instance if it names one.
//! - What a registration finds as it should be keeps its index, and nobody wakes.

use std::sync::Arc;

use lictor_types::check::SERF_HEALTH;
use lictor_types::command::{BoundedRegistration, Effect};
use lictor_types::refusal::RefusalKind;
use lictor_types::{
    CheckId, CheckStatus, Deregistration, HealthCheck, Index, Node, NodeService, Refusal, Registration, ServiceId,
};

use crate::authorize::needs_of_registration;
use crate::changes::{Commit, Table};
use crate::config::is_linking_gateway;
use crate::store::Store;
use crate::tables::Key;
use crate::tables::checks::check_id;
use crate::tables::nodes::node_key;
use crate::tables::services::{connect_key, service_key};

impl Store {
    /// The node row that a registration changes or makes; `None` when it leaves the node as it is.
    pub(crate) fn node_after(&self, registration: &Registration) -> Option<Node> {
        let old = self.nodes.get(&node_key(&registration.node));
        if old.is_some() && registration.skip_node_update {
            return None;
        }
        let kept = |given: &str, old: Option<&String>| match old {
            Some(old) if given.is_empty() => old.clone(),
            _ => given.to_owned(),
        };
        // Under a new name it is the same node: it keeps the index of its making.
        let by_id = self.nodes.by_id(&registration.id).filter(|_| !registration.id.is_empty());
        let before = old.or(by_id);
        let node = Node {
            id: kept(&registration.id, old.map(|old| &old.id)),
            name: registration.node.clone(),
            address: registration.address.clone(),
            datacenter: kept(&registration.datacenter, before.map(|before| &before.datacenter)),
            tagged_addresses: registration.tagged_addresses.clone(),
            meta: registration.node_meta.clone(),
            create_index: before.map(|before| before.create_index).unwrap_or_default(),
            modify_index: before.map(|before| before.modify_index).unwrap_or_default(),
            locality: registration.locality.clone(),
        };
        (before.map(|before| &**before) != Some(&node)).then_some(node)
    }

    pub(crate) fn register(&mut self, commit: &mut Commit, registration: &Registration) -> Result<Effect, Refusal> {
        self.check_registration(registration)?;
        let checks = self.checks_after(registration)?;
        if let Some(node) = self.node_after(registration) {
            self.set_node(commit, node);
        }
        let node = node_key(&registration.node);
        if let Some(service) = &registration.service {
            self.set_service(commit, &node, service.clone());
        }
        for check in checks {
            self.set_check(commit, &node, check);
        }
        Ok(Effect::Applied)
    }

    /// Registers what was authorised against older rows, if the rows of now require no more.
    pub(crate) fn register_within(
        &mut self,
        commit: &mut Commit,
        bounded: &BoundedRegistration,
    ) -> Result<Effect, Refusal> {
        let needs = needs_of_registration(self, &bounded.registration)?;
        match needs.iter().find(|need| !bounded.granted.contains(need)) {
            Some(need) => Err(Refusal::new(
                RefusalKind::Conflict,
                format!("what is registered there has changed meanwhile, so that this needs {need} too: retry"),
            )),
            None => self.register(commit, &bounded.registration),
        }
    }

    fn check_registration(&self, registration: &Registration) -> Result<(), Refusal> {
        if registration.address.is_empty() && !registration.skip_node_update {
            return Err(Refusal::failed("Must provide address if SkipNodeUpdate is not set"));
        }
        if !registration.id.is_empty() {
            check_uuid(&registration.id)?;
        }
        self.check_node_name(registration)?;
        if let Some(service) = &registration.service {
            service.check_kind().map_err(Refusal::failed)?;
            service.settled_port().map_err(Refusal::failed)?;
        }
        self.check_virtual_room(registration)
    }

    /// A name belongs to the id that has it, until that node is known to have failed.
    fn check_node_name(&self, registration: &Registration) -> Result<(), Refusal> {
        let key = node_key(&registration.node);
        let Some(holder) = self.nodes.get(&key) else { return Ok(()) };
        if registration.id.is_empty() || holder.id.eq_ignore_ascii_case(&registration.id) {
            return Ok(());
        }
        // A node that gave no id takes one, but is not swallowed by another node that changes its name.
        let is_rename = self.nodes.by_id(&registration.id).is_some();
        if holder.id.is_empty() && !is_rename {
            return Ok(());
        }
        match self.checks.get(&key, SERF_HEALTH) {
            Some(health) if health.status != CheckStatus::Critical => Err(Refusal::failed(format!(
                "Node name {} is reserved by node {} with name {} ({})",
                registration.node, holder.id, holder.name, holder.address
            ))),
            _ => Ok(()),
        }
    }

    /// The checks of a registration as they will be stored, but for their indexes.
    fn checks_after(&self, registration: &Registration) -> Result<Vec<HealthCheck>, Refusal> {
        let node = node_key(&registration.node);
        // A node that changes its name takes nothing along, and one that keeps its name keeps its spelling.
        let stored = self.nodes.get(&node).filter(|_| registration.skip_node_update);
        let name = stored.map_or(&registration.node, |stored| &stored.name);
        registration
            .check
            .iter()
            .chain(&registration.checks)
            .map(|check| {
                let mut check = check.clone();
                if check.check_id.is_none() {
                    check.check_id = check.name.parse::<CheckId>().ok();
                }
                if check.check_id.is_none() {
                    return Err(Refusal::bad_request("a check needs a CheckID or a Name"));
                }
                if let Some(other) = check.node.as_ref().filter(|other| node_key(other) != node) {
                    return Err(Refusal::failed(format!(
                        "Node '{other}' for check '{}' doesn't match register request node '{}'",
                        check_id(&check),
                        registration.node
                    )));
                }
                check.node = Some(name.clone());
                let service = match &registration.service {
                    Some(service) if service.id_text() == check.service_id => Some(service),
                    _ => self.services.get(&node, &check.service_id).map(|service| &**service),
                };
                match service {
                    Some(service) => fill_from(&mut check, service),
                    None if check.service_id.is_empty() => {
                        check.service_name = String::new();
                        check.service_tags = Vec::new();
                    }
                    None => {
                        return Err(Refusal::failed(format!(
                            "Unknown service ID '{}' for check ID '{}'",
                            check.service_id,
                            check_id(&check)
                        )));
                    }
                }
                Ok(check)
            })
            .collect()
    }

    fn set_node(&mut self, commit: &mut Commit, mut node: Node) {
        let key = node_key(&node.name);
        if let Some(renamed) = self.nodes.by_id(&node.id).filter(|_| !node.id.is_empty()).cloned()
            && node_key(&renamed.name) != key
        {
            self.remove_node(commit, &node_key(&renamed.name));
        }
        if node.create_index == Index(0) {
            node.create_index = commit.at;
        }
        node.modify_index = commit.at;
        let is_respelled = self.nodes.get(&key).is_some_and(|old| old.name != node.name);
        let name = node.name.clone();
        self.nodes.insert(node);
        self.indexes.changed(commit, Table::Nodes, key.clone());
        self.touch_node(commit, &key);
        if is_respelled {
            let checks: Vec<HealthCheck> = self.checks.on_node(&key).map(|check| (**check).clone()).collect();
            for mut check in checks {
                check.node = Some(name.clone());
                self.set_check(commit, &key, check);
            }
        }
    }

    fn set_service(&mut self, commit: &mut Commit, node: &Key, mut service: NodeService) {
        if service.id.is_none() {
            service.id = service.name.as_str().parse::<ServiceId>().ok();
        }
        service.port = service.settled_port().unwrap_or(service.port);
        self.address_instance(commit, &mut service);
        let old = self.services.get(node, service.id_text()).cloned();
        service.create_index = old.as_ref().map_or(commit.at, |old| old.create_index);
        service.modify_index = old.as_ref().map_or(commit.at, |old| old.modify_index);
        if old.as_deref() == Some(&service) {
            return;
        }
        service.modify_index = commit.at;
        self.services.insert(node, service.clone());
        if let Some(old) = &old {
            self.touch_service(commit, old);
            self.release_addresses_of(commit, old);
        }
        self.touch_service(commit, &service);
        self.indexes.changed(commit, Table::ServiceNames, service_key(&service));
        self.touch_contents(commit, node);
        if old.is_some_and(|old| old.name != service.name || old.tags != service.tags) {
            let checks: Vec<HealthCheck> =
                self.checks.of_instance(node, service.id_text()).map(|check| (**check).clone()).collect();
            for mut check in checks {
                fill_from(&mut check, &service);
                self.set_check(commit, node, check);
            }
        }
    }

    fn set_check(&mut self, commit: &mut Commit, node: &Key, mut check: HealthCheck) {
        let old = self.checks.get(node, check_id(&check)).cloned();
        check.create_index = old.as_ref().map_or(commit.at, |old| old.create_index);
        check.modify_index = old.as_ref().map_or(commit.at, |old| old.modify_index);
        if old.as_deref() == Some(&check) {
            return;
        }
        check.modify_index = commit.at;
        let service_id = check.service_id.clone();
        if check.status == CheckStatus::Critical {
            self.end_sessions_of_check(commit, node, check_id(&check));
        }
        self.checks.insert(node, check);
        if let Some(old) = old.filter(|old| old.service_id != service_id) {
            self.touch_checked(commit, node, &old.service_id);
        }
        self.touch_checked(commit, node, &service_id);
    }

    pub(crate) fn deregister(&mut self, commit: &mut Commit, what: &Deregistration) -> Result<Effect, Refusal> {
        let node = node_key(&what.node);
        let found = self.service_behind(what);
        if let (Some(authorized), Some(found)) = (&what.authorized_service, &found)
            && authorized != found
        {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                format!(
                    "what is registered there belongs to {found:?} now, not to {authorized:?}: look again and retry"
                ),
            ));
        }
        match (&what.service_id, &what.check_id) {
            (Some(id), _) => self.remove_service(commit, &node, id.as_str()),
            (None, Some(id)) => self.remove_check(commit, &node, id.as_str()),
            (None, None) => self.remove_node(commit, &node),
        }
        Ok(Effect::Applied)
    }

    /// The service that a deregistration by id is about: empty for a check of the node, `None` when there is no such
    /// row.
    pub(crate) fn service_behind(&self, what: &Deregistration) -> Option<String> {
        let node = node_key(&what.node);
        match (&what.service_id, &what.check_id) {
            (Some(id), _) => self.services.get(&node, id.as_str()).map(|service| service.name.to_string()),
            (None, Some(id)) => self.checks.get(&node, id.as_str()).map(|check| check.service_name.clone()),
            (None, None) => None,
        }
    }

    pub(crate) fn remove_node(&mut self, commit: &mut Commit, node: &Key) {
        if self.nodes.remove(node).is_none() {
            return;
        }
        self.tokens.remove_login(node);
        self.end_sessions_of_node(commit, node);
        self.remove_coordinates(commit, node);
        self.indexes.removed(commit, Table::Nodes, node.clone());
        let services: Vec<Key> = self.services.on_node(node).map(|service| Key::from(service.id_text())).collect();
        for id in services {
            self.remove_service(commit, node, &id);
        }
        let checks: Vec<Key> = self.checks.on_node(node).map(|check| Key::from(check_id(check))).collect();
        for id in checks {
            self.remove_check(commit, node, &id);
        }
        self.touch_contents(commit, node);
    }

    fn remove_service(&mut self, commit: &mut Commit, node: &Key, id: &str) {
        let Some(service) = self.services.remove(node, id) else { return };
        let checks: Vec<Key> = self.checks.of_instance(node, id).map(|check| Key::from(check_id(check))).collect();
        for check in checks {
            self.remove_check(commit, node, &check);
        }
        self.touch_service(commit, &service);
        self.release_addresses_of(commit, &service);
        self.indexes.changed(commit, Table::ServiceNames, service_key(&service));
        self.touch_contents(commit, node);
    }

    /// The services that an instance was of and for may need no address any more.
    fn release_addresses_of(&mut self, commit: &mut Commit, service: &NodeService) {
        self.release_virtual_address(commit, &service_key(service));
        if let Some(key) = connect_key(service) {
            self.release_virtual_address(commit, &key);
        }
    }

    fn remove_check(&mut self, commit: &mut Commit, node: &Key, id: &str) {
        if let Some(check) = self.checks.remove(node, id) {
            self.end_sessions_of_check(commit, node, id);
            self.touch_checked(commit, node, &check.service_id);
        }
    }

    /// A check of an instance, or with an empty id of the node itself, changed.
    fn touch_checked(&mut self, commit: &mut Commit, node: &Key, service_id: &str) {
        self.indexes.changed(commit, Table::Checks, node.clone());
        if service_id.is_empty() {
            self.touch_node(commit, node);
        } else {
            if let Some(service) = self.services.get(node, service_id).cloned() {
                self.touch_service(commit, &service);
            }
            self.touch_contents(commit, node);
        }
    }

    /// Readers of a node and of every service on it see it changed.
    fn touch_node(&mut self, commit: &mut Commit, node: &Key) {
        let services: Vec<Arc<NodeService>> = self.services.on_node(node).cloned().collect();
        for service in services {
            self.touch_service(commit, &service);
        }
        self.touch_contents(commit, node);
    }

    fn touch_contents(&mut self, commit: &mut Commit, node: &Key) {
        let exists = self.nodes.get(node).is_some();
        self.indexes.settled(commit, Table::NodeContents, node.clone(), exists);
    }

    /// Readers of the service that this instance is of, and of the one that it serves, see it changed.
    fn touch_service(&mut self, commit: &mut Commit, service: &NodeService) {
        let key = service_key(service);
        let exists = self.services.of_service(&key).next().is_some();
        if is_linking_gateway(&service.kind) {
            self.indexes.settled(commit, Table::Gateways, key.clone(), exists);
        }
        // Whether a gateway for all services stands before this one depends on its being there.
        if service.kind.is_empty() && self.has_gateway_for_all() {
            let has_connect = self.services.of_connect(&key).next().is_some();
            self.indexes.settled(commit, Table::Connect, key.clone(), has_connect);
        }
        self.indexes.settled(commit, Table::Services, key, exists);
        if let Some(key) = connect_key(service) {
            let exists = self.services.of_connect(&key).next().is_some();
            self.indexes.settled(commit, Table::Connect, key, exists);
        }
    }
}

fn fill_from(check: &mut HealthCheck, service: &NodeService) {
    check.service_name = service.name.to_string();
    check.service_tags = service.tags.clone();
}

/// Consul's words for an id that is not a UUID.
fn check_uuid(id: &str) -> Result<(), Refusal> {
    if id.len() != 36 {
        return Err(Refusal::failed("Bad node ID: uuid string is wrong length"));
    }
    let is_right = id.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    if is_right { Ok(()) } else { Err(Refusal::failed("Bad node ID: uuid is improperly formatted")) }
}
