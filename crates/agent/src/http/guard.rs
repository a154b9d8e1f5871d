//! What every request passes before its handler, and every answer after it: `http_config`, and paths nobody can read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;

use super::choice::ClientAddress;
use super::failure::text;
use crate::agent::Agent;
use crate::config::HttpConfig;

/// What an answer is that does not say.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What answers differ by.
const ENCODING: HeaderValue = HeaderValue::from_static("Accept-Encoding");

/// Refuses what is not served to this client at all, or lets the request pass.
pub(super) async fn guard(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let config = agent.config.load_full();
    let mut response = match refused(&config.http, &request) {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_TYPE).or_insert(JSON);
    headers.append(header::VARY, ENCODING);
    for (name, value) in &config.http.response_headers {
        headers.insert(HeaderName::clone(name), value.clone());
    }
    response
}

fn refused(config: &HttpConfig, request: &Request) -> Option<Response> {
    // Decoded, as handlers see what it names: `%73` is another spelling of `s`.
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy();
    if path.chars().any(char::is_control) {
        return Some(text(StatusCode::BAD_REQUEST, "the path holds characters that cannot be printed"));
    }
    if config.block_endpoints.iter().any(|blocked| path.starts_with(blocked.as_str())) {
        return Some(text(StatusCode::FORBIDDEN, "Endpoint is blocked by agent configuration"));
    }
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if only_looks || config.allow_write_from.is_empty() {
        return None;
    }
    let client = request.extensions().get::<ClientAddress>().map(|client| client.0);
    let may_write = client.is_some_and(|client| config.allow_write_from.iter().any(|block| block.holds(client)));
    (!may_write).then(|| text(StatusCode::FORBIDDEN, "Access is restricted"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use lictor_types::Answer;

    use super::*;
    use crate::http::double::{Tested, at};

    fn door(fragment: &str) -> Tested {
        Tested::configured(at(9, Answer::Keys(vec!["a".into()])), fragment)
    }

    #[tokio::test]
    async fn every_answer_says_what_it_is_and_carries_the_headers_of_the_configuration() {
        let door = door("http_config { response_headers { Access-Control-Allow-Origin = \"*\" } }");
        for (method, path) in [("PUT", "/v1/agent/maintenance?enable=false"), ("OPTIONS", "/v1/kv/a")] {
            let got = door.call(method, path, "").await;
            assert_eq!((got.status, got.header("content-type")), (StatusCode::OK, "application/json"), "{path}");
            assert_eq!(got.header("access-control-allow-origin"), "*");
            assert_eq!(got.header("vary").to_ascii_lowercase(), "accept-encoding");
        }
        assert!(door.get("/v1/nothing").await.header("content-type").starts_with("text/plain"));
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_printed_is_refused() {
        let door = door("");
        for path in ["/v1/kv/a%0ab?keys", "/v1/kv/%00?keys", "/v1/kv/a%7f?keys"] {
            assert_eq!(door.get(path).await.status, StatusCode::BAD_REQUEST, "{path}");
        }
        for path in ["/v1/kv/a%20b?keys", "/v1/kv/%C3%A9?keys"] {
            assert_eq!(door.get(path).await.status, StatusCode::OK, "{path}");
        }
    }

    #[tokio::test]
    async fn endpoints_are_blocked_and_writes_kept_to_some_addresses() {
        let door = door(
            "http_config { block_endpoints = [\"/v1/agent/self\", \"/v1/kv/secret\"] allow_write_http_from = [\"10.0.0.0/8\"] }",
        );
        let got = door.get("/v1/agent/self").await;
        assert_eq!(
            (got.status, got.body.as_str()),
            (StatusCode::FORBIDDEN, "Endpoint is blocked by agent configuration")
        );
        assert_eq!(door.get("/v1/kv/?keys").await.status, StatusCode::OK);
        for path in ["/v1/kv/secret/a?keys", "/v1/kv/%73ecret/a?keys", "/v1//kv/secret?keys"] {
            assert_eq!(door.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
        }
        for (client, status) in [("10.1.2.3", StatusCode::OK), ("192.168.0.1", StatusCode::FORBIDDEN)] {
            let mut request = Request::put("/v1/kv/a").body(Body::from("1")).unwrap();
            request.extensions_mut().insert(ClientAddress(client.parse().unwrap()));
            let got = door.send(request).await;
            assert_eq!(got.status, status, "{client}: {}", got.body);
        }
    }
}
