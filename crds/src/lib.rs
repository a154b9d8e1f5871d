//! The custom resources of Lictor, as Rust types and as the YAML that a cluster is given.
//!
//! Invariants
//! - The committed YAML beside this crate is what [`yaml`] prints; a test compares them.
//! - Defaults live in the schema only: the operator never writes a default back into a spec.
//! - Every list is bounded, so that the API server can bound the cost of the rules over it.

#[allow(unreachable_pub, reason = "deriving the schema makes a copy of each type, which nobody can reach")]
mod spec;
#[allow(unreachable_pub, reason = "deriving the schema makes a copy of each type, which nobody can reach")]
mod status;

use kube::CustomResourceExt;

pub use spec::{
    Binding, ConsulDatacenter, ConsulDatacenterSpec, DEFAULT_DATACENTER, DEFAULT_REPLICAS, DEFAULT_STORAGE_SIZE,
    DeletionPolicy, ImagePullPolicy, Inject, Resources, Servers, Storage,
};
pub use status::{ConsulDatacenterStatus, Member, Quorum};

/// The file, beside this crate's manifest, that holds [`yaml`].
pub const YAML_FILE: &str = "lictor.dev_consuldatacenters.yaml";

/// The custom resource definitions as one YAML text, ready for `kubectl apply --server-side -f -`.
pub fn yaml() -> String {
    let definition = serde_json::to_value(ConsulDatacenter::crd()).expect("a definition of plain data serializes");
    let text = serde_saphyr::to_string(&definition).expect("plain data is writable as YAML");
    format!(
        "# Generated from the types of crate lictor-crds by `cargo run -p lictor-crds --example write`. Do not edit.\n\
         ---\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_yaml_is_what_the_types_say() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(YAML_FILE);
        let committed = std::fs::read_to_string(&path).expect("the generated file is committed");
        assert!(committed == yaml(), "{YAML_FILE} is stale: run `cargo run -p lictor-crds --example write`");
    }

    #[test]
    fn the_yaml_reads_back_as_the_same_definition() {
        let read: serde_json::Value = serde_saphyr::from_str(&yaml()).expect("our own YAML is legal");
        assert_eq!(read, serde_json::to_value(ConsulDatacenter::crd()).expect("serializes"));
    }

    #[test]
    fn an_empty_spec_takes_every_default() {
        let spec: ConsulDatacenterSpec = serde_json::from_value(serde_json::json!({})).expect("an empty spec is legal");
        assert_eq!(spec.datacenter, DEFAULT_DATACENTER);
        assert_eq!(spec.servers.replicas, DEFAULT_REPLICAS);
        assert_eq!(spec.servers.storage.size.0, DEFAULT_STORAGE_SIZE);
        assert_eq!(spec.deletion_policy, DeletionPolicy::Retain);
        assert!(spec.inject.namespaces.is_empty());
    }

    #[test]
    fn every_list_of_the_spec_is_bounded() {
        fn check(path: &str, schema: &serde_json::Value) {
            if schema["type"] == "array" {
                assert!(schema["maxItems"].is_number(), "{path} has no maxItems");
            }
            if let Some(properties) = schema["properties"].as_object() {
                for (name, property) in properties {
                    check(&format!("{path}.{name}"), property);
                }
            }
            if schema["items"].is_object() {
                check(&format!("{path}[]"), &schema["items"]);
            }
        }
        let definition = serde_json::to_value(ConsulDatacenter::crd()).expect("serializes");
        check("spec", &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]);
    }
}
