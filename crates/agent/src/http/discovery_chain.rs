//! Where calls of a service go in the end, and which services peers may call.

use lictor_types::config_entry::fold;
use lictor_types::discovery_chain::{ChainAnswer, ChainQuery, CompiledChain};
use lictor_types::{Answer, Query, Refusal, ServiceName, duration};
use serde::Serialize;
use serde_json::Value;

use super::body::JsonBody;
use super::caller::{Ask, Tail};
use super::failure::{Answered, Failure};

/// What a reader wants other than the entries say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Overrides {
    protocol: String,
    connect_timeout_nanos: u64,
    mesh_gateway: String,
}

/// `GET /v1/discovery-chain/SERVICE`.
pub(super) async fn read(ask: Ask, Tail(name): Tail) -> Answered {
    chain(&ask, name, Overrides::default()).await
}

/// `POST /v1/discovery-chain/SERVICE`: as a reader wants it that knows better than the entries.
pub(super) async fn compile(ask: Ask, Tail(name): Tail, body: JsonBody) -> Answered {
    if name.is_empty() {
        return Err(missing());
    }
    chain(&ask, name, overrides(&body.0)?).await
}

fn missing() -> Failure {
    Failure::bad_request("Missing chain name")
}

async fn chain(ask: &Ask, name: String, overrides: Overrides) -> Answered {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shown {
        chain: Box<CompiledChain>,
    }
    if name.is_empty() {
        return Err(missing());
    }
    let service = ServiceName::try_from(name).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let here = ask.door.agent.identity.datacenter.as_str();
    let query = ChainQuery {
        service,
        datacenter: ask.params.text("compile-dc").unwrap_or(here).to_owned(),
        protocol: overrides.protocol,
        connect_timeout_nanos: overrides.connect_timeout_nanos,
        mesh_gateway: overrides.mesh_gateway,
    };
    let (meta, Answer::DiscoveryChain(answer)) = ask.read(Query::DiscoveryChain(query)).await? else {
        return Err(Failure::unexpected_answer());
    };
    match answer {
        Some(ChainAnswer::Compiled(chain)) => ask.answer(meta, &Shown { chain }),
        Some(ChainAnswer::Broken(problem)) => Err(Refusal::failed(problem).into()),
        None => Err(Refusal::failed("no cluster ca config setup").into()),
    }
}

/// What a body asks for: names in any spelling, a duration as text or nanoseconds.
fn overrides(body: &[u8]) -> Result<Overrides, Refusal> {
    let undecodable = |problem: String| Refusal::bad_request(format!("Request decoding failed: {problem}"));
    let value: Value = serde_json::from_slice(body).map_err(|error| undecodable(error.to_string()))?;
    let Value::Object(written) = &value else { return Err(undecodable("an object is expected".into())) };
    let field = |object: &serde_json::Map<String, Value>, name: &str| {
        object.iter().find(|(key, _)| fold(key) == name).map(|(_, value)| value.clone())
    };
    let text = |name: &str, value: Value| match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(undecodable(format!("{name}: a text is expected"))),
    };
    let protocol = field(written, "overrideprotocol").unwrap_or_default();
    let gateway = match field(written, "overridemeshgateway") {
        Some(Value::Object(gateway)) => field(&gateway, "mode").unwrap_or_default(),
        None | Some(Value::Null) => Value::Null,
        Some(_) => return Err(undecodable("OverrideMeshGateway: an object is expected".into())),
    };
    let mesh_gateway = text("OverrideMeshGateway.Mode", gateway)?;
    if !matches!(mesh_gateway.as_str(), "" | "none" | "local" | "remote") {
        return Err(Refusal::bad_request("Invalid OverrideMeshGateway.Mode parameter"));
    }
    let connect_timeout_nanos = match field(written, "overrideconnecttimeout") {
        None | Some(Value::Null) => 0,
        Some(Value::Number(nanos)) => nanos.as_u64().unwrap_or_default(),
        Some(Value::String(text)) if text.is_empty() => 0,
        Some(Value::String(text)) => {
            let parsed = duration::parse(&text).map_err(undecodable)?;
            u64::try_from(parsed.as_nanos()).unwrap_or(u64::MAX)
        }
        Some(_) => return Err(undecodable("OverrideConnectTimeout: a duration is expected".into())),
    };
    Ok(Overrides { protocol: text("OverrideProtocol", protocol)?.to_lowercase(), connect_timeout_nanos, mesh_gateway })
}

/// `GET /v1/exported-services`: what peers may call, every service by its name.
pub(super) async fn exported(ask: Ask) -> Answered {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Consumers<'a> {
        peers: &'a [String],
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shown<'a> {
        service: &'a str,
        consumers: Consumers<'a>,
    }
    let (meta, Answer::ExportedServices(rows)) = ask.read(Query::ExportedServices).await? else {
        return Err(Failure::unexpected_answer());
    };
    let shown = rows.iter().map(|row| Shown { service: &row.service, consumers: Consumers { peers: &row.peers } });
    ask.answer(meta, &shown.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use lictor_types::query::ExportedService;

    use super::super::double::{Tested, at};
    use super::*;

    #[tokio::test]
    async fn a_chain_is_asked_for_as_the_body_wants_it() {
        let door = Tested::answering(at(3, Answer::DiscoveryChain(Some(ChainAnswer::Broken("no way".into())))));
        for (body, text) in [
            (r#"{"OverrideMeshGateway":{"Mode":"far"}}"#, "Invalid OverrideMeshGateway.Mode parameter"),
            ("[]", "Request decoding failed: an object is expected"),
            (r#"{"OverrideProtocol":[]}"#, "Request decoding failed: OverrideProtocol: a text is expected"),
            (r#"{"override_mesh_gateway":1}"#, "Request decoding failed: OverrideMeshGateway: an object is expected"),
        ] {
            let got = door.call("POST", "/v1/discovery-chain/web", body).await;
            assert_eq!((got.status, got.body.as_str()), (StatusCode::BAD_REQUEST, text), "{body}");
        }
        let got = door.get("/v1/discovery-chain/").await;
        assert_eq!((got.status, got.body.as_str()), (StatusCode::BAD_REQUEST, "Missing chain name"));
        assert!(door.double.asked.lock().reads.is_empty());

        let body =
            r#"{"override_protocol":"GRPC","OverrideConnectTimeout":"7s","overridemeshgateway":{"mode":"local"}}"#;
        let got = door.call("POST", "/v1/discovery-chain/web?compile-dc=dc9", body).await;
        assert_eq!((got.status.as_u16(), got.body.as_str()), (500, "no way"));
        let wanted = |query: ChainQuery| Query::DiscoveryChain(query);
        let service: ServiceName = "web".parse().unwrap();
        let asked = wanted(ChainQuery {
            service: service.clone(),
            datacenter: "dc9".into(),
            protocol: "grpc".into(),
            connect_timeout_nanos: 7_000_000_000,
            mesh_gateway: "local".into(),
        });
        assert_eq!(door.double.asked.lock().reads[0].1, asked);
        door.get("/v1/discovery-chain/web").await;
        let plain = wanted(ChainQuery {
            service,
            datacenter: "dc1".into(),
            protocol: String::new(),
            connect_timeout_nanos: 0,
            mesh_gateway: String::new(),
        });
        assert_eq!(door.double.asked.lock().reads[1].1, plain);
    }

    #[tokio::test]
    async fn exported_services_are_told_with_their_consumers() {
        let rows = vec![ExportedService { service: "web".into(), peers: vec!["east".into(), "west".into()] }];
        let door = Tested::answering(at(3, Answer::ExportedServices(rows)));
        let got = door.get("/v1/exported-services").await;
        assert_eq!(got.body, r#"[{"Service":"web","Consumers":{"Peers":["east","west"]}}]"#);
    }
}
