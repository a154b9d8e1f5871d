//! `/v1/coordinate`: where nodes are in the space of round-trip times.

use http::StatusCode;
use lictor_types::refusal::RefusalKind;
use lictor_types::rpc::{Operation, Report};
use lictor_types::{Answer, Coordinate, NodeCoordinate, Query, Refusal};
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::caller::{Ask, Caller, Order, Tail};
use super::catalog::node_in_path;
use super::decode::{self, Names};
use super::failure::{Answered, Failure, text};

/// The coordinates of a datacenter's servers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DatacenterMap<'a> {
    datacenter: &'a str,
    #[serde(rename = "AreaID")]
    area_id: &'a str,
    coordinates: Vec<ServerCoordinate>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServerCoordinate {
    node: String,
    segment: &'static str,
    coord: Coordinate,
}

/// Refuses where the configuration has turned coordinates off, in Consul's words.
fn check_enabled(caller: &Caller) -> Result<(), Failure> {
    if caller.door.agent.config.load().disable_coordinates {
        return Err(Refusal::new(RefusalKind::Unauthorized, "Coordinate support disabled").into());
    }
    Ok(())
}

/// `GET /v1/coordinate/datacenters`: the servers by datacenter, named as in the WAN pool.
pub(super) async fn datacenters(caller: Caller, ask: Ask) -> Answered {
    check_enabled(&caller)?;
    let datacenter = &caller.door.agent.identity.datacenter;
    let Report::Members(members) = caller.operate(Operation::Members).await? else {
        return Err(Failure::unexpected_answer());
    };
    let (_, Answer::Coordinates(known)) = ask.read_now(Query::Coordinates).await? else {
        return Err(Failure::unexpected_answer());
    };
    let place = |name: &str| known.iter().find(|row| row.node.as_str() == name).map(|row| row.coord.clone());
    let coordinates = members
        .iter()
        .filter(|member| member.is_server())
        .map(|member| ServerCoordinate {
            node: format!("{}.{datacenter}", member.name),
            segment: "",
            coord: place(member.name.as_str()).unwrap_or_default(),
        })
        .collect();
    caller.json(&[DatacenterMap { datacenter, area_id: "wan", coordinates }])
}

/// `GET /v1/coordinate/nodes`.
pub(super) async fn nodes(ask: Ask) -> Answered {
    check_enabled(&ask)?;
    let (meta, Answer::Coordinates(rows)) = ask.read(Query::Coordinates).await? else {
        return Err(Failure::unexpected_answer());
    };
    ask.answer(meta, &rows)
}

/// `GET /v1/coordinate/node/NODE`: 404 for a node that has none.
pub(super) async fn node(ask: Ask, Tail(node): Tail) -> Answered {
    check_enabled(&ask)?;
    let (meta, Answer::Coordinates(rows)) = ask.read(Query::CoordinatesOf(node_in_path(node)?)).await? else {
        return Err(Failure::unexpected_answer());
    };
    if rows.is_empty() {
        return Ok(meta.onto(text(StatusCode::NOT_FOUND, "")));
    }
    ask.answer(meta, &rows)
}

/// What `coordinate/update` takes.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CoordinateBody {
    datacenter: String,
    node: String,
    segment: String,
    coord: Option<CoordinateNumbers>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CoordinateNumbers {
    vec: Vec<f64>,
    error: f64,
    adjustment: f64,
    height: f64,
}

/// `PUT /v1/coordinate/update`: taken at once, written with others within seconds.
pub(super) async fn update(order: Order, body: JsonBody) -> Answered {
    check_enabled(&order)?;
    let CoordinateBody { datacenter, node, segment, coord } = decode::decode(&body.0, Names::AnyCase)?;
    super::catalog::check_datacenter(&order, &datacenter)?;
    if !segment.is_empty() {
        return Err(Failure::bad_request("Segment must be empty: network segments are a Consul Enterprise feature"));
    }
    let CoordinateNumbers { vec, error, adjustment, height } =
        coord.ok_or_else(|| Refusal::bad_request("Request decode failed: Coord is missing"))?;
    let coord = Coordinate { vec, error, adjustment, height };
    coord.check()?;
    let update = NodeCoordinate { node: node_in_path(node)?, segment, coord };
    match order.operate(Operation::UpdateCoordinate(update)).await? {
        Report::Done => Ok(axum::response::Response::default()),
        _ => Err(Failure::unexpected_answer()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::double::{Tested, at};
    use super::*;

    #[tokio::test]
    async fn coordinates_that_are_turned_off_are_neither_told_nor_taken() {
        let door = Tested::configured(at(1, Answer::Coordinates(Vec::new())), "disable_coordinates = true");
        for (method, path) in [
            ("GET", "/v1/coordinate/datacenters"),
            ("GET", "/v1/coordinate/nodes"),
            ("GET", "/v1/coordinate/node/n1"),
            ("PUT", "/v1/coordinate/update"),
        ] {
            let got = door.call(method, path, r#"{"Node":"n1","Coord":{"Vec":[0,0,0,0,0,0,0,0]}}"#).await;
            assert_eq!((got.status.as_u16(), got.body.as_str()), (401, "Coordinate support disabled"), "{path}");
        }
        let door = Tested::answering(at(1, Answer::Coordinates(Vec::new())));
        assert_eq!(door.get("/v1/coordinate/nodes").await.body, "[]");
    }
}
