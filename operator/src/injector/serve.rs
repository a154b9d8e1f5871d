//! The webhook's door: TLS, the route, the answer. Decides nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use kube::runtime::reflector::Store;
use lictor_crds::ConsulDatacenter;
use lictor_runtime::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::certificate::Credential;
use super::decide::{Decision, decide};
use super::patch::patch;
use crate::settings::OperatorSettings;

/// How long connections have to end at shutdown.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// The largest review that is read: etcd takes no object above 1.5 MiB, a review holds two.
const REVIEW_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connections at once; the API server needs a few, and probes one each.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take for the TLS handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long a client may take to send the head of a request.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, such as one for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The injector could not serve.
#[derive(Debug, thiserror::Error)]
pub enum InjectorError {
    /// The port could not be opened.
    #[error("cannot listen on {address}: is another process there, or is the port below 1024?")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

struct Door {
    settings: Arc<OperatorSettings>,
    known: Store<ConsulDatacenter>,
}

/// Serves until `shutdown`, from the moment there is a certificate.
pub(super) async fn serve(
    settings: Arc<OperatorSettings>,
    known: Store<ConsulDatacenter>,
    mut credential: watch::Receiver<Credential>,
    tasks: Tasks,
    shutdown: CancellationToken,
) -> Result<(), InjectorError> {
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        there = credential.wait_for(Option::is_some) => if there.is_err() { return Ok(()) },
    }
    // Answers before the datacenters are known would refuse pods wrongly.
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        ready = known.wait_until_ready() => if ready.is_err() { return Ok(()) },
    }
    let address = settings.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| InjectorError::Listen { address, source })?;
    tracing::info!(%address, "the injector serves");
    let service = TowerToHyperService::new(router(settings, known));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let Some(config) = credential.borrow().clone() else { continue };
                let connection = answer(stream, TlsAcceptor::from(config), service.clone(), place, tasks.clone());
                tasks.spawn_to_end(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: TowerToHyperService<Router>,
    _place: OwnedSemaphorePermit,
    tasks: Tasks,
) {
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tasks.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

fn router(settings: Arc<OperatorSettings>, known: Store<ConsulDatacenter>) -> Router {
    Router::new()
        .route("/inject", post(inject))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(REVIEW_BYTES_MAX))
        .with_state(Arc::new(Door { settings, known }))
}

async fn inject(State(door): State<Arc<Door>>, Json(review): Json<AdmissionReview<Pod>>) -> Response {
    let request: AdmissionRequest<Pod> = match review.try_into() {
        Ok(request) => request,
        Err(error) => {
            let review = AdmissionResponse::invalid(format!("the review holds no request: {error}")).into_review();
            return (StatusCode::BAD_REQUEST, Json(review)).into_response();
        }
    };
    Json(review_pod(&request, &door.known.state(), &door.settings.image).into_review()).into_response()
}

fn review_pod(
    request: &AdmissionRequest<Pod>,
    known: &[Arc<ConsulDatacenter>],
    default_image: &str,
) -> AdmissionResponse {
    let response = AdmissionResponse::from(request);
    let Some(pod) = &request.object else { return response };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    match decide(pod, namespace, known) {
        Decision::Leave => response,
        Decision::Refuse(refusal) => {
            tracing::info!(namespace, %refusal, "a pod was refused");
            let mut response = response.deny(&refusal);
            response.result.code = StatusCode::FORBIDDEN.as_u16();
            response
        }
        Decision::Inject(injection) => {
            let denied = response.clone();
            match response.with_patch(patch(pod, &injection, default_image)) {
                Ok(response) => response,
                Err(error) => denied.deny(format!("the patch cannot be written: {error}")),
            }
        }
    }
}
