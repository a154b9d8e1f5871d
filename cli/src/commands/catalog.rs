//! `lictor catalog`: datacenters, nodes and services.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use lictor_client::encode_path;
use serde::Deserialize;
use serde_json::Value;

use super::{Format, key_value};
use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};
use crate::table::{DETAIL_GAP, LIST_GAP, columns};

/// Characters of a node id that are enough for people.
const SHORT_ID: usize = 8;

/// What to list.
#[derive(Subcommand)]
pub(crate) enum CatalogCommand {
    /// Lists the datacenters
    Datacenters(DatacentersFlags),
    /// Lists the nodes
    Nodes(NodesFlags),
    /// Lists the services
    Services(ServicesFlags),
}

/// Of which agent.
#[derive(Args)]
pub(crate) struct DatacentersFlags {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// Which nodes.
#[derive(Args, Default)]
pub(crate) struct NodesFlags {
    /// Also whole ids, tagged addresses and meta.
    #[arg(long)]
    detailed: bool,
    /// Only nodes with an instance of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only nodes with this meta; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    node_meta: Vec<(String, String)>,
    /// Only nodes that this expression holds for, for example 'Meta.os == linux'.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Nearest to this node first, by round-trip time; _agent is the agent that is asked.
    #[arg(long, value_name = "NODE")]
    near: Option<String>,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// Which services.
#[derive(Args, Default)]
pub(crate) struct ServicesFlags {
    /// Also their tags.
    #[arg(long)]
    tags: bool,
    /// Only services of this node.
    #[arg(long, value_name = "NAME_OR_ID")]
    node: Option<String>,
    /// Only services of nodes with this meta; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    node_meta: Vec<(String, String)>,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// A node, or an instance with its node: what is shown of both.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeRow {
    #[serde(rename = "ID", default)]
    id: String,
    node: String,
    address: String,
    #[serde(default)]
    datacenter: String,
    #[serde(default)]
    tagged_addresses: Option<BTreeMap<String, String>>,
    #[serde(default, alias = "NodeMeta")]
    meta: Option<BTreeMap<String, String>>,
}

/// The services of a node.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeServices {
    #[serde(default)]
    services: Option<BTreeMap<String, NodeService>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeService {
    service: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

pub(super) async fn run(command: CatalogCommand) -> Result<Output, Failure> {
    match command {
        CatalogCommand::Datacenters(flags) => datacenters(&Api::connect(&flags.api)?, flags.format).await,
        CatalogCommand::Nodes(flags) => nodes(&Api::connect(&flags.api)?, &flags).await,
        CatalogCommand::Services(flags) => services(&Api::connect(&flags.api)?, &flags).await,
    }
}

async fn datacenters(api: &Api, format: Format) -> Result<Output, Failure> {
    let (names, _): (Vec<String>, _) =
        api.get("/v1/catalog/datacenters", &[]).await.map_err(Failure::because("Error listing datacenters"))?;
    if format == Format::Json { Output::json(&names, 2) } else { Ok(Output::lines(names)) }
}

async fn nodes(api: &Api, flags: &NodesFlags) -> Result<Output, Failure> {
    let meta = meta_query(&flags.node_meta);
    let mut query: Vec<_> = meta.iter().map(|pair| ("node-meta", pair.as_str())).collect();
    query.extend(flags.filter.as_deref().map(|filter| ("filter", filter)));
    query.extend(flags.near.as_deref().map(|near| ("near", near)));
    let (answer, _): (Value, _) = match &flags.service {
        Some(service) => api
            .get(&format!("/v1/catalog/service/{}", encode_path(service)), &query)
            .await
            .map_err(Failure::because("Error listing nodes for service"))?,
        None => api.get("/v1/catalog/nodes", &query).await.map_err(Failure::because("Error listing nodes"))?,
    };
    if flags.format == Format::Json {
        return Output::json(&answer, 2);
    }
    let mut rows: Vec<NodeRow> = Deserialize::deserialize(answer).map_err(Failure::because("Error listing nodes"))?;
    if rows.is_empty() {
        return Ok(Output::remark("No nodes match the given query - try expanding your search."));
    }
    if flags.service.is_some() {
        // Several instances on one node are one node.
        let mut seen = BTreeSet::new();
        rows.retain(|row| seen.insert(row.node.clone()));
        if flags.near.is_none() {
            rows.sort_by(|one, other| one.node.cmp(&other.node));
        }
    }
    Ok(Output::lines(if flags.detailed { detailed(rows) } else { brief(rows) }))
}

fn brief(rows: Vec<NodeRow>) -> Vec<String> {
    let mut cells = vec![["Node", "ID", "Address", "DC"].map(str::to_owned)];
    cells.extend(
        rows.into_iter().map(|row| [row.node, row.id.chars().take(SHORT_ID).collect(), row.address, row.datacenter]),
    );
    columns(&cells, LIST_GAP)
}

fn detailed(rows: Vec<NodeRow>) -> Vec<String> {
    let mut cells = vec![["Node", "ID", "Address", "DC", "TaggedAddresses", "Meta"].map(str::to_owned)];
    cells.extend(rows.into_iter().map(|row| {
        let (tagged, meta) = (joined(row.tagged_addresses), joined(row.meta));
        [row.node, row.id, row.address, row.datacenter, tagged, meta]
    }));
    columns(&cells, LIST_GAP)
}

fn joined(map: Option<BTreeMap<String, String>>) -> String {
    let pairs: Vec<_> = map.unwrap_or_default().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(", ")
}

fn meta_query(meta: &[(String, String)]) -> Vec<String> {
    meta.iter().map(|(key, value)| format!("{key}:{value}")).collect()
}

async fn services(api: &Api, flags: &ServicesFlags) -> Result<Output, Failure> {
    let meta = meta_query(&flags.node_meta);
    let query: Vec<_> = meta.iter().map(|pair| ("node-meta", pair.as_str())).collect();
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if let Some(node) = &flags.node {
        let (found, _): (Option<NodeServices>, _) = api
            .get(&format!("/v1/catalog/node/{}", encode_path(node)), &query)
            .await
            .map_err(Failure::because("Error listing services for node"))?;
        for instance in found.and_then(|node| node.services).unwrap_or_default().into_values() {
            services.entry(instance.service).or_default().extend(instance.tags.unwrap_or_default());
        }
    } else {
        services = api.get("/v1/catalog/services", &query).await.map_err(Failure::because("Error listing services"))?.0;
    }
    if flags.format == Format::Json {
        return Output::json(&services, 2);
    }
    if services.is_empty() {
        return Ok(Output::remark("No services match the given query - try expanding your search."));
    }
    if !flags.tags {
        return Ok(Output::lines(services.keys()));
    }
    let rows: Vec<_> = services
        .into_iter()
        .map(|(name, mut tags)| {
            tags.sort();
            [name, tags.join(",")]
        })
        .collect();
    Ok(Output::lines(columns(&rows, DETAIL_GAP)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    fn text(output: Output) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    #[tokio::test]
    async fn nodes_are_listed_briefly_and_in_detail() {
        let answer = r#"[{"ID":"40e4a748-2192-161a-0510-9bf59fe950b5","Node":"n1","Address":"10.0.0.1","Datacenter":"dc1",
            "TaggedAddresses":{"lan":"10.0.0.1"},"Meta":{"a":"1","b":"2"}}]"#;
        let fake = Fake::answering(&[
            ("GET /v1/catalog/nodes", 200, answer),
            ("GET /v1/catalog/nodes?node-meta=no%3A1", 200, "[]"),
        ])
        .await;
        let mut flags = NodesFlags::default();
        assert_eq!(
            text(nodes(&fake.api(), &flags).await.unwrap()),
            "Node  ID        Address   DC\nn1    40e4a748  10.0.0.1  dc1\n"
        );
        let as_json = NodesFlags { format: Format::Json, ..NodesFlags::default() };
        assert!(text(nodes(&fake.api(), &as_json).await.unwrap()).contains("\"Address\": \"10.0.0.1\""));
        flags.detailed = true;
        let shown = text(nodes(&fake.api(), &flags).await.unwrap());
        assert!(
            shown.contains("40e4a748-2192-161a-0510-9bf59fe950b5  10.0.0.1  dc1  lan=10.0.0.1     a=1, b=2"),
            "{shown}"
        );
        flags.node_meta = vec![("no".into(), "1".into())];
        let none = nodes(&fake.api(), &flags).await.unwrap();
        assert_eq!((none.bytes.len(), none.code), (0, 0));
        assert!(none.remark.starts_with("No nodes match"));
    }

    #[tokio::test]
    async fn services_of_all_nodes_and_of_one_are_listed_with_their_tags() {
        let fake = Fake::answering(&[
            ("GET /v1/catalog/services", 200, r#"{"web":["v2","v1"],"consul":[]}"#),
            (
                "GET /v1/catalog/node/n1",
                200,
                r#"{"Node":{},"Services":{"web-1":{"Service":"web","Tags":["v1"]},"web-2":{"Service":"web","Tags":null}}}"#,
            ),
            ("GET /v1/catalog/node/n2", 200, "null"),
        ])
        .await;
        let mut flags = ServicesFlags::default();
        assert_eq!(text(services(&fake.api(), &flags).await.unwrap()), "consul\nweb\n");
        flags.tags = true;
        assert_eq!(text(services(&fake.api(), &flags).await.unwrap()), "consul\nweb         v1,v2\n");
        flags.node = Some("n1".into());
        assert_eq!(text(services(&fake.api(), &flags).await.unwrap()), "web      v1\n");
        flags.node = Some("n2".into());
        assert!(services(&fake.api(), &flags).await.unwrap().remark.starts_with("No services match"));
    }
}
