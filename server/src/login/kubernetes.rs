//! Kubernetes ServiceAccount tokens as proof: one HTTPS POST of a TokenReview.
//!
//! The identity is the pod's ServiceAccount, never an annotation. A service is named like the ServiceAccount unless a
//! binding gives others; it belongs to one namespace; the `default` account never gets one.

use std::path::PathBuf;
use std::time::Duration;

use lictor_runtime::Resolver;
use lictor_types::command::ServiceClaim;
use lictor_types::rpc::Login;
use lictor_types::{Refusal, ServiceName};
use serde::{Deserialize, Serialize};

use super::review;

/// A ServiceAccount token is a JWT: three parts with dots between. A join token's secret has none.
pub(crate) fn looks_like_token(proof: &str) -> bool {
    proof.matches('.').count() == 2
}

/// The longest that the API server may take.
const REVIEW_LIMIT: Duration = Duration::from_secs(10);
/// The longest configuration or token file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The content of `login.kubernetes.config_file`, read anew at every login so that a change needs no restart.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesLoginConfig {
    /// URL of the API server.
    pub api_server: String,
    /// The CA that signed the API server's certificate.
    pub ca_file: PathBuf,
    /// The token with which this server may create TokenReviews.
    pub token_file: PathBuf,
    /// The audience that a pod's token must be for.
    pub audience: String,
    /// Namespaces whose ServiceAccounts get the service of their own name.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// What else a ServiceAccount gets.
    #[serde(default)]
    pub bindings: Vec<Binding>,
}

/// Services that a ServiceAccount may be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// The services.
    pub services: Vec<String>,
}

/// Judges ServiceAccount tokens.
pub struct KubernetesLogin {
    config_file: PathBuf,
    resolver: Resolver,
}

/// What a login may be.
#[derive(Debug, PartialEq, Eq)]
pub struct Granted {
    /// The services.
    pub names: Vec<ServiceName>,
    /// The namespace that each of them belongs to from now on.
    pub claims: Vec<ServiceClaim>,
}

impl KubernetesLogin {
    /// Reads its configuration from `config_file` at every login.
    pub fn new(config_file: PathBuf, resolver: Resolver) -> Self {
        Self { config_file, resolver }
    }

    /// Asks Kubernetes whose token it is and decides what that account may be.
    ///
    /// # Errors
    /// The configuration cannot be read, the API server does not answer, the token is not good, or the account may not
    /// be what was asked for.
    pub(crate) async fn review(&self, login: &Login) -> Result<Granted, Refusal> {
        let text = read_small(&self.config_file)?;
        let config: KubernetesLoginConfig = serde_json::from_str(&text)
            .map_err(|error| Refusal::failed(format!("{}: {error}", self.config_file.display())))?;
        let pod = tokio::time::timeout(REVIEW_LIMIT, review::ask(&self.resolver, &config, &login.proof))
            .await
            .map_err(|_| Refusal::failed(format!("the Kubernetes API server took longer than {REVIEW_LIMIT:?}")))??;
        decide(&config, &pod, login)
    }
}

/// Who a token belongs to, as the API server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The namespace.
    pub namespace: String,
    /// The ServiceAccount.
    pub service_account: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
}

pub(crate) fn read_small(path: &std::path::Path) -> Result<String, Refusal> {
    let wrong = |error: &dyn std::fmt::Display| Refusal::failed(format!("cannot read {}: {error}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(wrong(&format!("it has {size} bytes, at most {FILE_BYTES_MAX} are allowed")));
    }
    std::fs::read_to_string(path).map_err(|error| wrong(&error))
}

/// What `pod` may be, by the rules; pure.
pub(crate) fn decide(config: &KubernetesLoginConfig, pod: &Pod, login: &Login) -> Result<Granted, Refusal> {
    let Pod { namespace, service_account, name, .. } = pod;
    let node = format!("{name}.{namespace}");
    if login.node.as_str() != node {
        return Err(Refusal::permission_denied(format!(
            "this token belongs to the pod {node:?}, which cannot be the node {:?}",
            login.node.as_str()
        )));
    }
    if service_account == "default" {
        return Err(Refusal::permission_denied(format!(
            "the ServiceAccount \"default\" of namespace {namespace:?} gets no identity: give the pod a ServiceAccount of \
             its own, named like its service"
        )));
    }
    let bound: Vec<&str> = config
        .bindings
        .iter()
        .filter(|it| it.namespace == *namespace && it.service_account == *service_account)
        .flat_map(|it| it.services.iter().map(String::as_str))
        .collect();
    let by_name = config.namespaces.contains(namespace);
    for service in &login.services {
        let service = service.as_str();
        if !(bound.contains(&service) || by_name && service == service_account) {
            return Err(Refusal::permission_denied(format!(
                "the ServiceAccount {service_account:?} of namespace {namespace:?} may not be the service {service:?}: \
                 add to spec.inject.bindings of the ConsulDatacenter {{namespace: {namespace}, serviceAccount: \
                 {service_account}, services: [{service}]}}"
            )));
        }
    }
    if login.services.is_empty() {
        return Err(Refusal::bad_request("a pod that logs in must name at least one service"));
    }
    let claims = login
        .services
        .iter()
        .map(|service| ServiceClaim { service: service.to_string(), namespace: namespace.clone() })
        .collect();
    Ok(Granted { names: login.services.clone(), claims })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> KubernetesLoginConfig {
        KubernetesLoginConfig {
            api_server: "https://kubernetes.default.svc".into(),
            ca_file: "/ca".into(),
            token_file: "/token".into(),
            audience: "lictor://lictor-system/dc1".into(),
            namespaces: vec!["apps".into()],
            bindings: vec![Binding {
                namespace: "other".into(),
                service_account: "runner".into(),
                services: vec!["batch".into()],
            }],
        }
    }

    fn pod(namespace: &str, service_account: &str) -> Pod {
        Pod {
            namespace: namespace.into(),
            service_account: service_account.into(),
            name: "pod-1".into(),
            uid: "u".into(),
        }
    }

    fn login(namespace: &str, services: &[&str]) -> Login {
        Login {
            proof: "a.b.c".into(),
            node: format!("pod-1.{namespace}").parse().unwrap(),
            services: services.iter().map(|it| it.parse().unwrap()).collect(),
            csr: Vec::new(),
            node_id: None,
        }
    }

    #[test]
    fn an_account_of_an_injected_namespace_is_the_service_of_its_name() {
        let granted = decide(&config(), &pod("apps", "web"), &login("apps", &["web"])).unwrap();
        assert_eq!(granted.names[0].as_str(), "web");
        assert_eq!(granted.claims, [ServiceClaim { service: "web".into(), namespace: "apps".into() }]);
    }

    #[test]
    fn a_binding_gives_other_names() {
        assert!(decide(&config(), &pod("other", "runner"), &login("other", &["batch"])).is_ok());
    }

    #[test]
    fn what_no_rule_gives_is_refused_with_the_binding_that_would() {
        for (namespace, account, service) in
            [("apps", "web", "api"), ("elsewhere", "web", "web"), ("other", "runner", "runner")]
        {
            let refusal = decide(&config(), &pod(namespace, account), &login(namespace, &[service])).unwrap_err();
            assert_eq!(refusal.status(), 403);
            assert!(refusal.text.contains(&format!("services: [{service}]")), "{refusal}");
        }
    }

    #[test]
    fn the_default_account_and_another_pods_name_are_refused() {
        let refusal = decide(&config(), &pod("apps", "default"), &login("apps", &["default"])).unwrap_err();
        assert!(refusal.text.contains("gets no identity"), "{refusal}");
        let mut stolen = login("apps", &["web"]);
        stolen.node = "pod-2.apps".parse().unwrap();
        assert!(decide(&config(), &pod("apps", "web"), &stolen).unwrap_err().text.contains("belongs to the pod"));
    }
}
