//! Every route, and what all of them have in common.

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use tokio::time::Instant;
use tower::ServiceExt;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use super::failure::text;
use super::verdicts::Verdicts;
use super::{
    Door, agent, agent_checks, agent_health, agent_membership, agent_services, agent_tokens, authorize,
    ca_configuration, catalog, config_entries, connect, coordinate, discovery_chain, event, gateways, guard, health,
    keyring, kv, leaf, metrics, monitor, operator, operator_raft, prepared_query, session, snapshot, status, txn,
    usage,
};
use crate::agent::Agent;

/// Bytes of the smallest answer that is compressed, as in Consul.
const COMPRESSED_FROM: u64 = 1400;

/// The methods of one path, with Consul's answers to all others.
struct Endpoint {
    methods: MethodRouter<Arc<Door>>,
    allow: String,
}

fn endpoint() -> Endpoint {
    Endpoint { methods: MethodRouter::new(), allow: "OPTIONS".into() }
}

impl Endpoint {
    fn on<H, T>(mut self, name: &str, filter: MethodFilter, handler: H) -> Self
    where
        H: Handler<T, Arc<Door>>,
        T: 'static,
    {
        self.allow = format!("{},{name}", self.allow);
        self.methods = self.methods.on(filter, handler);
        self
    }

    fn get<H: Handler<T, Arc<Door>>, T: 'static>(self, handler: H) -> Self {
        self.on("GET", MethodFilter::GET, handler)
    }

    fn put<H: Handler<T, Arc<Door>>, T: 'static>(self, handler: H) -> Self {
        self.on("PUT", MethodFilter::PUT, handler)
    }

    fn post<H: Handler<T, Arc<Door>>, T: 'static>(self, handler: H) -> Self {
        self.on("POST", MethodFilter::POST, handler)
    }

    fn delete<H: Handler<T, Arc<Door>>, T: 'static>(self, handler: H) -> Self {
        self.on("DELETE", MethodFilter::DELETE, handler)
    }

    /// With the answers to OPTIONS and to methods that are not there; HEAD is not there, as in Consul.
    fn finish(self) -> MethodRouter<Arc<Door>> {
        let allow = HeaderValue::try_from(self.allow).unwrap_or(HeaderValue::from_static("OPTIONS"));
        let allow_options = allow.clone();
        let refuse = move |method: Method| {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("method {method} not allowed"));
            response.headers_mut().insert(header::ALLOW, allow.clone());
            std::future::ready(response)
        };
        let options = move || {
            let mut response = Response::<axum::body::Body>::default();
            response.headers_mut().insert(header::ALLOW, allow_options.clone());
            std::future::ready(response)
        };
        self.methods.options(options).head(refuse.clone()).fallback(refuse)
    }
}

fn routes() -> Router<Arc<Door>> {
    let tables = [
        kv_and_catalog(),
        locks(),
        queries_and_events(),
        coordinates(),
        agent_local(),
        mesh_and_cluster(),
        upkeep(),
        raft_and_autopilot(),
    ];
    let mut router = Router::new();
    for (path, endpoint) in tables.into_iter().flatten() {
        let methods = endpoint.finish();
        // What a path names may be missing, which has an answer of its own.
        if let Some(stem) = path.strip_suffix("{*name}") {
            router = router.route(stem, methods.clone());
        }
        router = router.route(path, methods);
    }
    router
}

type Table = Vec<(&'static str, Endpoint)>;

fn kv_and_catalog() -> Table {
    vec![
        ("/v1/kv/{*name}", endpoint().get(kv::get).put(kv::put).delete(kv::delete)),
        ("/v1/catalog/register", endpoint().put(catalog::register)),
        ("/v1/catalog/deregister", endpoint().put(catalog::deregister)),
        ("/v1/catalog/datacenters", endpoint().get(catalog::datacenters)),
        ("/v1/catalog/nodes", endpoint().get(catalog::nodes)),
        ("/v1/catalog/services", endpoint().get(catalog::services)),
        ("/v1/catalog/service/{*name}", endpoint().get(catalog::service)),
        ("/v1/catalog/connect/{*name}", endpoint().get(catalog::connect)),
        ("/v1/catalog/node/{*name}", endpoint().get(catalog::node)),
        ("/v1/catalog/node-services/{*name}", endpoint().get(catalog::node_services)),
        ("/v1/health/node/{*name}", endpoint().get(health::node)),
        ("/v1/health/checks/{*name}", endpoint().get(health::checks)),
        ("/v1/health/state/{*name}", endpoint().get(health::state)),
        ("/v1/health/service/{*name}", endpoint().get(health::service)),
        ("/v1/health/connect/{*name}", endpoint().get(health::connect)),
        ("/v1/health/ingress/{*name}", endpoint().get(gateways::ingress)),
        ("/v1/catalog/gateway-services/{*name}", endpoint().get(gateways::services)),
        ("/v1/internal/service-virtual-ip", endpoint().put(gateways::set_virtual_addresses)),
    ]
}

fn locks() -> Table {
    vec![
        ("/v1/session/create", endpoint().put(session::create)),
        ("/v1/session/destroy/{*name}", endpoint().put(session::destroy)),
        ("/v1/session/renew/{*name}", endpoint().put(session::renew)),
        ("/v1/session/info/{*name}", endpoint().get(session::info)),
        ("/v1/session/node/{*name}", endpoint().get(session::node)),
        ("/v1/session/list", endpoint().get(session::list_all)),
        ("/v1/txn", endpoint().put(txn::put)),
    ]
}

fn agent_local() -> Table {
    vec![
        ("/v1/agent/self", endpoint().get(agent::this)),
        ("/v1/agent/version", endpoint().get(agent::version)),
        ("/v1/agent/members", endpoint().get(agent::members)),
        ("/v1/agent/ready", endpoint().get(status::ready)),
        ("/v1/agent/services", endpoint().get(agent_services::list)),
        ("/v1/agent/service/register", endpoint().put(agent_services::register)),
        ("/v1/agent/service/deregister/{*name}", endpoint().put(agent_services::deregister)),
        ("/v1/agent/service/maintenance/{*name}", endpoint().put(agent_services::maintenance)),
        ("/v1/agent/maintenance", endpoint().put(agent_services::node_maintenance)),
        ("/v1/agent/service/{*name}", endpoint().get(agent_services::one)),
        ("/v1/agent/checks", endpoint().get(agent_checks::list)),
        ("/v1/agent/check/register", endpoint().put(agent_checks::register)),
        ("/v1/agent/check/deregister/{*name}", endpoint().put(agent_checks::deregister)),
        ("/v1/agent/check/pass/{*name}", endpoint().put(agent_checks::pass)),
        ("/v1/agent/check/warn/{*name}", endpoint().put(agent_checks::warn)),
        ("/v1/agent/check/fail/{*name}", endpoint().put(agent_checks::fail)),
        ("/v1/agent/check/update/{*name}", endpoint().put(agent_checks::update)),
        ("/v1/agent/health/service/name/{*name}", endpoint().get(agent_health::by_name)),
        ("/v1/agent/health/service/id/{*name}", endpoint().get(agent_health::by_id)),
        ("/v1/agent/token/{*name}", endpoint().put(agent_tokens::update)),
        ("/v1/agent/connect/authorize", endpoint().post(authorize::authorize)),
        ("/v1/agent/connect/ca/roots", endpoint().get(connect::roots)),
        ("/v1/agent/connect/ca/leaf/{*name}", endpoint().get(leaf::leaf)),
    ]
}

fn mesh_and_cluster() -> Table {
    let exact = endpoint().get(connect::exact).put(connect::set_exact).delete(connect::delete_exact);
    vec![
        ("/v1/connect/ca/roots", endpoint().get(connect::roots)),
        ("/v1/connect/ca/configuration", endpoint().get(ca_configuration::get).put(ca_configuration::set)),
        ("/v1/connect/intentions", endpoint().get(connect::intentions)),
        ("/v1/connect/intentions/exact", exact),
        ("/v1/connect/intentions/match", endpoint().get(connect::matching)),
        ("/v1/connect/intentions/check", endpoint().get(connect::check)),
        ("/v1/config", endpoint().put(config_entries::put)),
        ("/v1/config/{*name}", endpoint().get(config_entries::get).delete(config_entries::delete)),
        ("/v1/discovery-chain/{*name}", endpoint().get(discovery_chain::read).post(discovery_chain::compile)),
        ("/v1/exported-services", endpoint().get(discovery_chain::exported)),
        ("/v1/status/leader", endpoint().get(status::leader)),
        ("/v1/status/peers", endpoint().get(status::peers)),
        ("/v1/operator/join-token", endpoint().put(operator::create_join_token)),
    ]
}

/// What keeps a cluster well.
fn upkeep() -> Table {
    let keyring =
        endpoint().get(keyring::list).post(keyring::install).put(keyring::make_primary).delete(keyring::remove);
    vec![
        ("/v1/agent/host", endpoint().get(monitor::host)),
        ("/v1/agent/monitor", endpoint().get(monitor::monitor)),
        ("/v1/agent/metrics", endpoint().get(metrics::metrics)),
        ("/v1/operator/usage", endpoint().get(usage::usage)),
        ("/v1/operator/keyring", keyring),
        ("/v1/snapshot", endpoint().get(snapshot::save).put(snapshot::restore)),
    ]
}

fn raft_and_autopilot() -> Table {
    let configuration = endpoint().get(operator_raft::autopilot_configuration);
    let transfer = endpoint().post(operator_raft::transfer_leader).put(operator_raft::transfer_leader);
    vec![
        ("/v1/operator/raft/configuration", endpoint().get(operator_raft::configuration)),
        ("/v1/operator/raft/peer", endpoint().delete(operator_raft::remove_peer)),
        ("/v1/operator/raft/transfer-leader", transfer),
        ("/v1/operator/autopilot/configuration", configuration.put(operator_raft::set_autopilot_configuration)),
        ("/v1/operator/autopilot/health", endpoint().get(operator_raft::health)),
        ("/v1/operator/autopilot/state", endpoint().get(operator_raft::state)),
    ]
}

fn coordinates() -> Table {
    vec![
        ("/v1/coordinate/datacenters", endpoint().get(coordinate::datacenters)),
        ("/v1/coordinate/nodes", endpoint().get(coordinate::nodes)),
        ("/v1/coordinate/node/{*name}", endpoint().get(coordinate::node)),
        ("/v1/coordinate/update", endpoint().put(coordinate::update)),
    ]
}

fn queries_and_events() -> Table {
    let query = endpoint().get(prepared_query::get).put(prepared_query::update).delete(prepared_query::delete);
    vec![
        ("/v1/query", endpoint().get(prepared_query::list).post(prepared_query::create)),
        ("/v1/query/{*name}", query),
        ("/v1/agent/force-leave/{*name}", endpoint().put(agent_membership::force_leave)),
        ("/v1/agent/leave", endpoint().put(agent_membership::leave)),
        ("/v1/agent/reload", endpoint().put(agent_membership::reload)),
        ("/v1/agent/join/{*name}", endpoint().put(agent_membership::join)),
        ("/v1/event/fire/{*name}", endpoint().put(event::fire)),
        ("/v1/event/list", endpoint().get(event::list)),
    ]
}

/// The HTTP API of `agent`.
pub fn router(agent: Arc<Agent>) -> Router {
    let default_policy = if !agent.identity.acl_enabled || agent.identity.default_allow { "allow" } else { "deny" };
    let default_policy = HeaderValue::from_static(default_policy);
    let took = agent.figures.http.clone();
    let guarded = axum::middleware::from_fn_with_state(Arc::clone(&agent), guard::guard);
    let door = Arc::new(Door { agent, leaves: leaf::Leaves::default(), verdicts: Verdicts::default() });
    let inner = routes().route("/", axum::routing::get(root)).fallback(unknown).with_state(door).layer(guarded);
    let timed = inner.map_request(clean_path).map_future(move |answer| {
        let took = took.clone();
        async move {
            let begin = Instant::now();
            let answer = answer.await;
            took.took(begin.elapsed());
            answer
        }
    });
    let door = timed.map_response(move |mut response: Response| {
        const X_CONSUL_DEFAULT_POLICY: HeaderName = HeaderName::from_static("x-consul-default-acl-policy");
        response.headers_mut().insert(X_CONSUL_DEFAULT_POLICY, default_policy.clone());
        response
    });
    Router::new().fallback_service(door).layer(compression())
}

/// Gzip for whoever takes it; not for what is an archive or a value already.
fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(COMPRESSED_FROM).and(NotForContentType::const_new("application/octet-stream"));
    CompressionLayer::new().compress_when(worth_it)
}

async fn root() -> Response {
    text(
        StatusCode::OK,
        "Consul Agent: UI disabled. To enable, set ui_config.enabled=true in the agent configuration and restart.",
    )
}

async fn unknown(OriginalUri(uri): OriginalUri) -> Response {
    let words = if uri.path().starts_with("/v1/") {
        "Invalid URL path: not a recognized HTTP API endpoint"
    } else {
        "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'"
    };
    text(StatusCode::NOT_FOUND, words).into_response()
}

/// Go's mux cleans paths: `//` is one slash, `.` and `..` are gone. What is percent-encoded stays as it is.
fn clean_path(mut request: Request) -> Request {
    if let Some(path) = cleaned(request.uri().path()) {
        let path_and_query = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let mut parts = request.uri().clone().into_parts();
        // A path of parts of a valid path is valid; if it were not, the path stays as it came and finds no route.
        parts.path_and_query = path_and_query.parse().ok().or(parts.path_and_query);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

fn cleaned(path: &str) -> Option<String> {
    if !path.contains("//") && !path.contains("/.") {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let last_is_directory = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let end = if last_is_directory && !kept.is_empty() { "/" } else { "" };
    Some(format!("/{}{end}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, clean) in [
            ("/v1/kv/a", None),
            ("/v1/kv/a%2F%2Fb/", None),
            ("/v1/kv/.a", Some("/v1/kv/.a")),
            ("//v1///kv/a//b/", Some("/v1/kv/a/b/")),
            ("/v1/kv/a/../b/./c", Some("/v1/kv/b/c")),
            ("/../..", Some("/")),
        ] {
            assert_eq!(cleaned(path).as_deref(), clean, "{path}");
        }
    }
}
