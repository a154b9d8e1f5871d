//! How many of what the state holds.

use std::collections::BTreeMap;

use lictor_types::archive::Usage;

use crate::store::Store;

/// What instances may be for the mesh; each is told, even when there is none.
const MESH_KINDS: [&str; 5] =
    ["connect-proxy", "mesh-gateway", "ingress-gateway", "terminating-gateway", "api-gateway"];
/// Instances that use the mesh by themselves.
const NATIVE: &str = "connect-native";

impl Store {
    /// How many of what there are. It costs the instances, not the keys.
    pub fn usage(&self) -> Usage {
        let mut connect_instances: BTreeMap<String, u64> =
            MESH_KINDS.iter().chain(&[NATIVE]).map(|kind| ((*kind).to_owned(), 0)).collect();
        let (mut services, mut last, mut billable_instances) = (0, None, 0);
        for (_, instance) in self.services.all() {
            let name = instance.name.key();
            let is_consul = *name == *"consul";
            if last.as_ref() != Some(&name) {
                services += 1;
                last = Some(name);
            }
            if !instance.kind.is_empty() {
                *connect_instances.entry(instance.kind.clone()).or_default() += 1;
            } else if !is_consul {
                billable_instances += 1;
            }
            if instance.connect.native {
                *connect_instances.entry(NATIVE.to_owned()).or_default() += 1;
            }
        }
        Usage {
            nodes: self.nodes.rows().len() as u64,
            services,
            service_instances: self.services.rows().len() as u64,
            connect_instances,
            billable_instances,
            keys: self.kv.rows().len() as u64,
            intentions: self.intentions.rows().len() as u64,
            checks: self.checks.rows().len() as u64,
            index: self.index(),
        }
    }
}
