//! `lictor services export` and `exported-services`: what peers may call.

use clap::Args;
use lictor_filter::{Fields, Filter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{Api, ApiFlags};
use crate::commands::Format;
use crate::output::{Failure, Output};
use crate::table::{LIST_GAP, columns};

/// The entry that says what is exported.
const ENTRY: &str = "/v1/config/exported-services/default";

/// What to export, and to whom.
#[derive(Args, Default)]
pub(crate) struct ExportFlags {
    /// Name of the service.
    #[arg(long)]
    name: String,
    /// Peers that may call it, separated by commas.
    #[arg(long, value_name = "PEERS", value_delimiter = ',')]
    consumer_peers: Vec<String>,
    #[command(flatten)]
    api: ApiFlags,
}

/// Which to show, and how.
#[derive(Args, Default)]
pub(crate) struct ListFlags {
    /// Only those that this expression holds for, for example 'east in Consumers.Peers'.
    #[arg(long, value_name = "EXPRESSION", default_value = "")]
    filter: String,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Exported {
    service: String,
    consumers: Consumers,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Consumers {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    peers: Vec<String>,
}

fn fields(of: &mut Fields<'_, Exported>) {
    of.text("Service", |it| &it.service).within(
        "Consumers",
        |it| &it.consumers,
        |of| {
            of.texts("Peers", |it| &it.peers);
        },
    );
}

pub(super) async fn export(flags: &ExportFlags) -> Result<Output, Failure> {
    export_by(&Api::connect(&flags.api)?, flags).await
}

pub(super) async fn list(flags: &ListFlags) -> Result<Output, Failure> {
    list_of(&Api::connect(&flags.api)?, flags).await
}

async fn export_by(api: &Api, flags: &ExportFlags) -> Result<Output, Failure> {
    let ExportFlags { name, consumer_peers: peers, .. } = flags;
    if name.is_empty() {
        return Err(Failure::new("Missing the required -name flag"));
    }
    if peers.is_empty() {
        return Err(Failure::new("Missing the required -consumer-peers flag"));
    }
    if let Some(peer) = peers.iter().find(|peer| peer.is_empty()) {
        return Err(Failure::new(format!("Invalid peer {peer:?}")));
    }
    let failed = Failure::because("Error reading config entry exported-services/default");
    let found: Option<Value> = api.find(ENTRY, &[]).await.map_err(failed)?;
    let index = found.as_ref().and_then(|entry| entry["ModifyIndex"].as_u64()).unwrap_or_default().to_string();
    let mut services = found.as_ref().and_then(|entry| entry["Services"].as_array()).cloned().unwrap_or_default();
    add(&mut services, name, peers);
    let meta = found.as_ref().map(|entry| entry["Meta"].clone()).unwrap_or_default();
    let entry = json!({"Kind": "exported-services", "Name": "default", "Services": services, "Meta": meta});
    let written: bool = api
        .client()
        .put_json("/v1/config", &[("cas", &index)], &entry)
        .await
        .map_err(Failure::because("Error writing config entry"))?;
    if !written {
        return Err(Failure::new("Config entry was changed during update. Please try again"));
    }
    Ok(Output::line(format!("Successfully exported service {name:?} to peers {:?}", peers.join(","))))
}

/// Adds what is not there yet.
fn add(services: &mut Vec<Value>, name: &str, peers: &[String]) {
    let place = services.iter().position(|service| service["Name"] == name).unwrap_or_else(|| {
        services.push(json!({"Name": name, "Consumers": []}));
        services.len() - 1
    });
    let Some(consumers) = services[place]["Consumers"].as_array_mut() else { return };
    for peer in peers {
        if !consumers.iter().any(|consumer| consumer["Peer"] == peer.as_str()) {
            consumers.push(json!({"Peer": peer}));
        }
    }
}

async fn list_of(api: &Api, flags: &ListFlags) -> Result<Output, Failure> {
    let failed = Failure::because("Error reading exported services");
    let (mut services, _): (Vec<Exported>, _) = api.get("/v1/exported-services", &[]).await.map_err(failed)?;
    if !flags.filter.is_empty() {
        let filter = Filter::compile(&flags.filter, fields).map_err(Failure::because("Error while creating filter"))?;
        services.retain(|service| filter.matches(service));
    }
    if services.is_empty() {
        return Ok(Output::line("No exported services found"));
    }
    if flags.format == Format::Json {
        return Output::json(&services, 4);
    }
    let mut rows = vec![["Service".to_owned(), "Consumer Peers".to_owned()]];
    rows.extend(services.iter().map(|it| [it.service.clone(), it.consumers.peers.join(", ")]));
    Ok(Output::lines(columns(&rows, LIST_GAP)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    fn text(output: Output) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    fn flags(name: &str, peers: &[&str]) -> ExportFlags {
        let consumer_peers = peers.iter().map(|it| (*it).to_owned()).collect();
        ExportFlags { name: name.into(), consumer_peers, ..ExportFlags::default() }
    }

    #[tokio::test]
    async fn a_service_is_exported_beside_those_that_are_already() {
        let entry = r#"{"Kind":"exported-services","Name":"default","ModifyIndex":7,
            "Services":[{"Name":"web","Consumers":[{"Peer":"east"}]}]}"#;
        let fake = Fake::answering(&[
            ("GET /v1/config/exported-services/default", 200, entry),
            ("PUT /v1/config?cas=7", 200, "true"),
        ])
        .await;
        let said = text(export_by(&fake.api(), &flags("web", &["east", "west"])).await.unwrap());
        assert_eq!(said, "Successfully exported service \"web\" to peers \"east,west\"\n");
        let sent: Value = serde_json::from_str(&fake.last_body()).unwrap();
        assert_eq!(sent["Services"], json!([{"Name": "web", "Consumers": [{"Peer": "east"}, {"Peer": "west"}]}]));
        export_by(&fake.api(), &flags("db", &["east"])).await.unwrap();
        let sent: Value = serde_json::from_str(&fake.last_body()).unwrap();
        assert_eq!(sent["Services"][1], json!({"Name": "db", "Consumers": [{"Peer": "east"}]}));
    }

    #[tokio::test]
    async fn the_first_export_makes_the_entry_and_a_late_one_is_told_so() {
        let fake = Fake::answering(&[("PUT /v1/config?cas=0", 200, "false")]).await;
        let late = export_by(&fake.api(), &flags("web", &["east"])).await.unwrap_err().to_string();
        assert_eq!(late, "Config entry was changed during update. Please try again");
        for (wrong, words) in [
            (flags("", &["east"]), "Missing the required -name flag"),
            (flags("web", &[]), "Missing the required -consumer-peers flag"),
            (flags("web", &["east", ""]), "Invalid peer \"\""),
        ] {
            assert_eq!(export_by(&fake.api(), &wrong).await.unwrap_err().to_string(), words);
        }
    }

    #[tokio::test]
    async fn exported_services_are_listed_and_chosen() {
        let answer = r#"[{"Service":"db","Consumers":{"Peers":["east"]}},
            {"Service":"web","Consumers":{"Peers":["east","west"]}}]"#;
        let fake = Fake::answering(&[("GET /v1/exported-services", 200, answer)]).await;
        let listed = |filter: &str, format| {
            let flags = ListFlags { filter: filter.into(), format, ..ListFlags::default() };
            let api = fake.api();
            async move { list_of(&api, &flags).await.map(text) }
        };
        assert_eq!(
            listed("", Format::Pretty).await.unwrap(),
            "Service  Consumer Peers\ndb       east\nweb      east, west\n"
        );
        let chosen = listed("west in Consumers.Peers", Format::Json).await.unwrap();
        let chosen: Value = serde_json::from_str(&chosen).unwrap();
        assert_eq!(chosen, json!([{"Service": "web", "Consumers": {"Peers": ["east", "west"]}}]));
        assert_eq!(listed("Service == none", Format::Pretty).await.unwrap(), "No exported services found\n");
        let wrong = listed("Nope == 1", Format::Pretty).await.unwrap_err().to_string();
        assert!(wrong.starts_with("Error while creating filter: "), "{wrong}");
    }
}
