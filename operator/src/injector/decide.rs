//! Decides what becomes of a pod that asks for a sidecar. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use lictor_crds::ConsulDatacenter;

use super::annotations::{self, AnnotationError, DATACENTER, NamedPort, SERVICES, Wish};
use super::patch::SIDECAR;
use crate::names::Names;

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It does not ask, or has its sidecar already.
    Leave,
    /// It is given a sidecar.
    Inject(Box<Injection>),
    /// It may not start, and why.
    Refuse(Refusal),
}

/// Everything the patch needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Injection {
    /// The datacenter's name, as clients see it.
    pub datacenter: String,
    /// The objects of that datacenter.
    pub names: Names,
    /// Certificate of the server CA.
    pub server_ca: String,
    /// Image of the sidecar, if the datacenter names one.
    pub image: Option<String>,
    /// When the kubelet pulls it.
    pub image_pull_policy: Option<&'static str>,
    /// The pod's services.
    pub services: Vec<NamedPort>,
    /// What it reaches.
    pub upstreams: Vec<NamedPort>,
}

/// Why a pod may not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    #[error(
        "the ServiceAccount 'default' has no identity, since every pod that names none runs as it: make a ServiceAccount for this service and set spec.serviceAccountName"
    )]
    DefaultAccount,
    #[error(
        "pod uses hostNetwork, where the sidecar's ports would be the node's: set spec.hostNetwork to false, or leave the inject annotation away"
    )]
    HostNetwork,
    #[error("there is no ConsulDatacenter to join: make one, see 'kubectl explain consuldatacenter.spec'")]
    NoDatacenter,
    #[error(
        "there is no ConsulDatacenter {wanted:?}; there are: {there}. Set the annotation {DATACENTER} to one of them"
    )]
    UnknownDatacenter { wanted: String, there: String },
    #[error("more than one ConsulDatacenter could be meant: {there}. Set the annotation {DATACENTER} to one of them")]
    Ambiguous { there: String },
    #[error(
        "the ConsulDatacenter {datacenter} is not ready to take pods yet: it has no server CA. This pod is tried again by its controller"
    )]
    NotReady { datacenter: String },
    #[error(
        "namespace {namespace:?} may not join the ConsulDatacenter {datacenter}: add it to spec.inject.namespaces, or add to spec.inject.bindings {binding}"
    )]
    Namespace { namespace: String, datacenter: String, binding: String },
    #[error(
        "the ServiceAccount {account:?} in namespace {namespace:?} may not be the service {service:?} in the ConsulDatacenter {datacenter}: add to its spec.inject.bindings {binding}, or set the annotation {SERVICES}"
    )]
    Service { service: String, account: String, namespace: String, datacenter: String, binding: String },
}

/// Decides about `pod`, about to be made in `namespace`.
pub(crate) fn decide(pod: &Pod, namespace: &str, known: &[Arc<ConsulDatacenter>]) -> Decision {
    if !annotations::asks(pod.annotations()) || has_sidecar(pod) {
        return Decision::Leave;
    }
    match injection(pod, namespace, known) {
        Ok(injection) => Decision::Inject(Box::new(injection)),
        Err(refusal) => Decision::Refuse(refusal),
    }
}

fn has_sidecar(pod: &Pod) -> bool {
    let init_containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init_containers.into_iter().any(|container| container.name == SIDECAR)
}

fn injection(pod: &Pod, namespace: &str, known: &[Arc<ConsulDatacenter>]) -> Result<Injection, Refusal> {
    let spec = pod.spec.as_ref();
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        return Err(Refusal::HostNetwork);
    }
    let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    if account == "default" {
        return Err(Refusal::DefaultAccount);
    }
    let wish = annotations::read(pod, account)?;
    let datacenter = choose(&wish, namespace, known)?;
    permit(&wish, account, namespace, datacenter)?;
    let server_ca = datacenter
        .status
        .as_ref()
        .and_then(|status| status.server_ca.clone())
        .ok_or_else(|| Refusal::NotReady { datacenter: full_name(datacenter) })?;
    Ok(Injection {
        datacenter: datacenter.spec.datacenter.clone(),
        names: Names::of(datacenter),
        server_ca,
        image: datacenter.spec.image.clone(),
        image_pull_policy: datacenter.spec.image_pull_policy.map(lictor_crds::ImagePullPolicy::as_str),
        services: wish.services,
        upstreams: wish.upstreams,
    })
}

/// The one that the pod names; else the only one that takes its namespace; else the only one there is.
fn choose<'a>(
    wish: &Wish,
    namespace: &str,
    known: &'a [Arc<ConsulDatacenter>],
) -> Result<&'a ConsulDatacenter, Refusal> {
    let live: Vec<&ConsulDatacenter> =
        known.iter().map(AsRef::as_ref).filter(|datacenter| datacenter.metadata.deletion_timestamp.is_none()).collect();
    let list = |datacenters: &[&ConsulDatacenter]| {
        let mut there: Vec<_> = datacenters.iter().map(|datacenter| full_name(datacenter)).collect();
        there.sort();
        there.join(", ")
    };
    if live.is_empty() {
        return Err(Refusal::NoDatacenter);
    }
    if let Some(wanted) = &wish.datacenter {
        let named =
            |datacenter: &&ConsulDatacenter| full_name(datacenter) == *wanted || datacenter.name_any() == *wanted;
        let matching: Vec<&ConsulDatacenter> = live.iter().copied().filter(named).collect();
        return match matching[..] {
            [one] => Ok(one),
            [] => Err(Refusal::UnknownDatacenter { wanted: wanted.clone(), there: list(&live) }),
            _ => Err(Refusal::Ambiguous { there: list(&matching) }),
        };
    }
    let takes: Vec<&ConsulDatacenter> =
        live.iter().copied().filter(|datacenter| knows_namespace(datacenter, namespace)).collect();
    match (&takes[..], &live[..]) {
        ([one], _) | ([], [one]) => Ok(one),
        ([], _) => Err(Refusal::Ambiguous { there: list(&live) }),
        _ => Err(Refusal::Ambiguous { there: list(&takes) }),
    }
}

fn knows_namespace(datacenter: &ConsulDatacenter, namespace: &str) -> bool {
    let inject = &datacenter.spec.inject;
    inject.namespaces.iter().any(|known| known == namespace)
        || inject.bindings.iter().any(|binding| binding.namespace == namespace)
}

/// The servers decide the same at login; here it is said while somebody looks.
fn permit(wish: &Wish, account: &str, namespace: &str, datacenter: &ConsulDatacenter) -> Result<(), Refusal> {
    let inject = &datacenter.spec.inject;
    let by_name = inject.namespaces.iter().any(|known| known == namespace);
    let bound = |service: &str| {
        inject.bindings.iter().any(|binding| {
            binding.namespace == namespace
                && binding.service_account == account
                && binding.services.iter().any(|allowed| allowed == service)
        })
    };
    let binding = |services: &[&str]| {
        let services = services.join(", ");
        format!("{{namespace: {namespace}, serviceAccount: {account}, services: [{services}]}}")
    };
    let names: Vec<&str> = wish.services.iter().map(|service| service.name.as_str()).collect();
    if !knows_namespace(datacenter, namespace) {
        let (datacenter, binding) = (full_name(datacenter), binding(&names));
        return Err(Refusal::Namespace { namespace: namespace.to_owned(), datacenter, binding });
    }
    match names.iter().find(|name| !(bound(name) || by_name && **name == account)) {
        None => Ok(()),
        Some(service) => Err(Refusal::Service {
            service: (*service).to_owned(),
            account: account.to_owned(),
            namespace: namespace.to_owned(),
            datacenter: full_name(datacenter),
            binding: binding(&[service]),
        }),
    }
}

fn full_name(datacenter: &ConsulDatacenter) -> String {
    let names = Names::of(datacenter);
    format!("{}/{}", names.namespace, names.name)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
