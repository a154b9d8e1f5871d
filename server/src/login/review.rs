//! The TokenReview itself, without a Kubernetes client: the server crate knows one URL and one JSON body.

use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use lictor_runtime::Resolver;
use lictor_types::Refusal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::kubernetes::{KubernetesLoginConfig, Pod, read_small};

/// The largest reply that is read.
const REPLY_BYTES_MAX: usize = 256 * 1024;

#[derive(Deserialize)]
struct TokenReview {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    user: User,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    error: String,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

/// Asks the API server whose `token` it is.
pub(crate) async fn ask(resolver: &Resolver, config: &KubernetesLoginConfig, token: &str) -> Result<Pod, Refusal> {
    let body = serde_json::json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [config.audience]},
    });
    let (status, reply) = post(resolver, config, body.to_string()).await?;
    if !(200..300).contains(&status) {
        return Err(Refusal::failed(format!(
            "the Kubernetes API server answered {status} to a TokenReview: {}",
            String::from_utf8_lossy(&reply[..reply.len().min(300)])
        )));
    }
    let review: TokenReview = serde_json::from_slice(&reply)
        .map_err(|error| Refusal::failed(format!("the API server's TokenReview cannot be read: {error}")))?;
    interpret(&config.audience, review.status)
}

fn interpret(audience: &str, status: Status) -> Result<Pod, Refusal> {
    if !status.authenticated {
        let reason = if status.error.is_empty() { "no reason given" } else { &status.error };
        return Err(Refusal::permission_denied(format!(
            "Kubernetes does not accept this ServiceAccount token: {reason}"
        )));
    }
    // An API server that does not know audiences would leave them out: then the token may be for anybody.
    if !status.audiences.iter().any(|it| it == audience) {
        return Err(Refusal::permission_denied(format!(
            "this ServiceAccount token is not for the audience {audience:?}"
        )));
    }
    let no_account = || Refusal::permission_denied(format!("{:?} is not a ServiceAccount", status.user.username));
    let rest = status.user.username.strip_prefix("system:serviceaccount:").ok_or_else(no_account)?;
    let (namespace, service_account) = rest.split_once(':').ok_or_else(no_account)?;
    let extra = |key: &str| {
        status.user.extra.get(key).and_then(|values| values.first()).cloned().ok_or_else(|| {
            Refusal::permission_denied("this ServiceAccount token is not bound to a pod: use a projected volume")
        })
    };
    Ok(Pod {
        namespace: namespace.into(),
        service_account: service_account.into(),
        name: extra("authentication.kubernetes.io/pod-name")?,
        uid: extra("authentication.kubernetes.io/pod-uid")?,
    })
}

async fn post(resolver: &Resolver, config: &KubernetesLoginConfig, body: String) -> Result<(u16, Bytes), Refusal> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Refusal::failed(format!(
            "cannot ask the Kubernetes API server {} about a token: {what}: {error}",
            config.api_server
        ))
    };
    let authority = config
        .api_server
        .strip_prefix("https://")
        .map(|rest| rest.trim_end_matches('/'))
        .ok_or_else(|| failed("its URL", &"must begin with https://"))?;
    let (host, address) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|it| it.is_ascii_digit()) => (host.to_owned(), authority.to_owned()),
        _ => (authority.to_owned(), format!("{authority}:443")),
    };
    let bearer = read_small(&config.token_file)?;
    let ca = read_small(&config.ca_file)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let certificate = certificate.map_err(|error| failed("its CA file", &error))?;
        roots.add(certificate).map_err(|error| failed("its CA file", &error))?;
    }
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("TLS", &error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server_name = ServerName::try_from(host.clone()).map_err(|error| failed("its name", &error))?;
    let addresses = resolver.resolve(&address).await.map_err(|error| failed("resolving its name", &error))?;
    let first = addresses.first().ok_or_else(|| failed("resolving its name", &"no address"))?;
    let tcp = TcpStream::connect(first).await.map_err(|error| failed("connecting", &error))?;
    let stream =
        TlsConnector::from(Arc::new(tls)).connect(server_name, tcp).await.map_err(|error| failed("TLS", &error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed("HTTP", &error))?;
    let request = Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
        .header("host", host)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {}", bearer.trim()))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed("HTTP", &error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed("HTTP", &error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), REPLY_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| failed("its reply", &error))?;
        Ok((status, body.to_bytes()))
    };
    // The connection lives no longer than the exchange.
    tokio::select! {
        done = exchange => done,
        ended = connection => Err(failed("the connection", &ended.map_or_else(|error| error.to_string(), |()| "closed".into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: &str) -> Status {
        serde_json::from_str(json).unwrap()
    }

    const GOOD: &str = r#"{"authenticated":true,"audiences":["lictor://ns/dc1"],"user":{
        "username":"system:serviceaccount:apps:web",
        "extra":{"authentication.kubernetes.io/pod-name":["web-1"],"authentication.kubernetes.io/pod-uid":["u-1"]}}}"#;

    #[test]
    fn a_good_review_names_the_pod() {
        let pod = interpret("lictor://ns/dc1", status(GOOD)).unwrap();
        assert_eq!((pod.namespace.as_str(), pod.service_account.as_str(), pod.name.as_str()), ("apps", "web", "web-1"));
    }

    #[test]
    fn a_wrong_audience_or_an_unbound_token_is_refused() {
        assert!(interpret("lictor://ns/dc2", status(GOOD)).unwrap_err().text.contains("not for the audience"));
        assert!(
            interpret("lictor://ns/dc1", status(&GOOD.replace("pod-uid", "x"))).unwrap_err().text.contains("not bound")
        );
        let refused = status(r#"{"authenticated":false,"error":"pod is gone"}"#);
        assert!(interpret("lictor://ns/dc1", refused).unwrap_err().text.contains("pod is gone"));
    }
}
