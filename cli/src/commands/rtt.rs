//! `lictor rtt`: the round-trip time between two nodes, estimated from their coordinates.

use clap::Args;
use lictor_client::encode_path;
use lictor_types::{Coordinate, NodeCoordinate};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};

/// Between which nodes.
#[derive(Args, Default)]
pub(crate) struct RttFlags {
    /// A node; with -wan a server as NODE.DATACENTER.
    #[arg(value_name = "NODE1")]
    one: String,
    /// The other node; the agent that is asked when left out.
    #[arg(value_name = "NODE2")]
    other: Option<String>,
    /// Servers of any datacenter instead of nodes of this one.
    #[arg(long)]
    wan: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Datacenter {
    coordinates: Vec<WanCoordinate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WanCoordinate {
    node: String,
    coord: Coordinate,
}

pub(super) async fn run(flags: RttFlags) -> Result<Output, Failure> {
    estimate(&Api::connect(&flags.api)?, &flags).await
}

async fn estimate(api: &Api, flags: &RttFlags) -> Result<Output, Failure> {
    let other = match &flags.other {
        Some(other) => other.clone(),
        None => this_agent(api, flags.wan).await?,
    };
    let (one_place, other_place, pool) = if flags.wan {
        let failed = Failure::because("Error getting coordinates");
        let (datacenters, _): (Vec<Datacenter>, _) =
            api.get("/v1/coordinate/datacenters", &[]).await.map_err(failed)?;
        let place = |name: &str| {
            let mut all = datacenters.iter().flat_map(|it| &it.coordinates);
            all.find(|it| it.node.eq_ignore_ascii_case(name)).map(|it| it.coord.clone())
        };
        (place(&flags.one), place(&other), "WAN")
    } else {
        (of_node(api, &flags.one).await?, of_node(api, &other).await?, "LAN")
    };
    let found = |place: Option<Coordinate>, name: &str| {
        place.ok_or_else(|| Failure::new(format!("Could not find a coordinate for node {name:?}")))
    };
    let (one_place, other_place) = (found(one_place, &flags.one)?, found(other_place, &other)?);
    let millis = one_place.round_trip(&other_place).as_nanos() as f64 / 1e6;
    if flags.format == Format::Json {
        let estimate = json!({ "Node1": flags.one, "Node2": other, "Milliseconds": millis, "Pool": pool });
        return Output::json(&estimate, 2);
    }
    Ok(Output::line(format!("Estimated {} <-> {other} rtt: {millis:.3} ms (using {pool} coordinates)", flags.one)))
}

async fn this_agent(api: &Api, wan: bool) -> Result<String, Failure> {
    let failed = Failure::because("Unable to look up agent info");
    let (agent, _): (Value, _) = api.get("/v1/agent/self", &[]).await.map_err(failed)?;
    let text = |name: &str| agent["Config"][name].as_str().unwrap_or_default();
    Ok(if wan { format!("{}.{}", text("NodeName"), text("Datacenter")) } else { text("NodeName").to_owned() })
}

async fn of_node(api: &Api, node: &str) -> Result<Option<Coordinate>, Failure> {
    let path = format!("/v1/coordinate/node/{}", encode_path(node));
    let found: Option<Vec<NodeCoordinate>> =
        api.find(&path, &[]).await.map_err(Failure::because("Error getting coordinates"))?;
    Ok(found.into_iter().flatten().next().map(|row| row.coord))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    const HERE: &str = r#"[{"Node":"a","Coord":{"Vec":[0,0,0,0,0,0,0,0],"Error":1,"Adjustment":0,"Height":0.00001}}]"#;
    const THERE: &str =
        r#"[{"Node":"b","Coord":{"Vec":[0.0015,0,0,0,0,0,0,0],"Error":1,"Adjustment":0,"Height":0.00001}}]"#;

    #[tokio::test]
    async fn the_time_between_two_nodes_is_told_in_consuls_words() {
        let fake = Fake::answering(&[
            ("GET /v1/coordinate/node/a", 200, HERE),
            ("GET /v1/coordinate/node/b", 200, THERE),
            ("GET /v1/coordinate/node/c", 404, ""),
        ])
        .await;
        let flags = |other: &str| RttFlags { one: "a".into(), other: Some(other.into()), ..RttFlags::default() };
        let told = estimate(&fake.api(), &flags("b")).await.unwrap();
        assert_eq!(String::from_utf8(told.bytes).unwrap(), "Estimated a <-> b rtt: 1.520 ms (using LAN coordinates)\n");
        let absent = estimate(&fake.api(), &flags("c")).await.unwrap_err().to_string();
        assert_eq!(absent, "Could not find a coordinate for node \"c\"");
    }
}
