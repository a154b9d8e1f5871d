//! `lictor operator usage`: how many services and instances there are.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};
use crate::table::{LIST_GAP, columns};

/// What to count.
#[derive(Subcommand)]
pub(crate) enum UsageCommand {
    /// Services and their instances
    Instances(InstancesFlags),
}

/// How to show it.
#[derive(Args, Default)]
pub(crate) struct InstancesFlags {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only the instances that are counted for a bill.
    #[arg(long, conflicts_with = "only_connect")]
    only_billable: bool,
    /// Only the instances of the mesh.
    #[arg(long)]
    only_connect: bool,
    /// Those of all datacenters; there is one that this agent can ask.
    #[arg(long)]
    all_datacenters: bool,
    #[command(flatten)]
    api: ApiFlags,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Counted {
    services: u64,
    service_instances: u64,
    billable_service_instances: u64,
    connect_service_instances: BTreeMap<String, u64>,
}

pub(crate) async fn run(UsageCommand::Instances(flags): UsageCommand) -> Result<Output, Failure> {
    instances(&Api::connect(&flags.api)?, &flags).await
}

async fn instances(api: &Api, flags: &InstancesFlags) -> Result<Output, Failure> {
    let query: &[(&str, &str)] = if flags.all_datacenters { &[("global", "")] } else { &[] };
    let (answer, _): (Value, _) =
        api.get("/v1/operator/usage", query).await.map_err(Failure::because("Error fetching usage information"))?;
    if flags.format == Format::Json {
        return Output::json(&answer, 2);
    }
    let usage: BTreeMap<String, Counted> =
        Deserialize::deserialize(&answer["Usage"]).map_err(Failure::because("Error decoding usage information"))?;
    let row = |cells: [&str; 3]| cells.map(str::to_owned);
    let (mut services, mut total) = (0, 0);
    let mut billable = vec![row(["Services", "Service instances", "Datacenter"])];
    let mut mesh = vec![row(["Type", "Service instances", "Datacenter"])];
    for (datacenter, counted) in &usage {
        services += counted.services;
        total += counted.billable_service_instances;
        billable.push([
            counted.services.to_string(),
            counted.billable_service_instances.to_string(),
            datacenter.clone(),
        ]);
        mesh.extend(
            counted
                .connect_service_instances
                .iter()
                .map(|(kind, count)| [kind.clone(), count.to_string(), datacenter.clone()]),
        );
        mesh.push(["all".to_owned(), counted.service_instances.to_string(), datacenter.clone()]);
    }
    billable.push([services.to_string(), total.to_string(), "(total)".to_owned()]);
    let mut lines = Vec::new();
    if !flags.only_connect {
        lines.push(format!("Billable Service Instances Total: {total}"));
        lines.extend(columns(&billable, LIST_GAP));
    }
    if !flags.only_connect && !flags.only_billable {
        lines.push(String::new());
    }
    if !flags.only_billable {
        lines.push("Connect Service Instances:".to_owned());
        lines.extend(columns(&mesh, LIST_GAP));
    }
    Ok(Output::lines(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn instances_are_shown_by_datacenter_and_kind() {
        let answer = r#"{"Usage":{"dc1":{"Nodes":3,"Services":2,"ServiceInstances":4,"BillableServiceInstances":2,
            "ConnectServiceInstances":{"connect-proxy":1}}},"Index":9}"#;
        let fake = Fake::answering(&[("GET /v1/operator/usage", 200, answer)]).await;
        let flags = InstancesFlags::default();
        let shown = String::from_utf8(instances(&fake.api(), &flags).await.unwrap().bytes).unwrap();
        assert!(shown.contains("Billable Service Instances Total: 2\n"), "{shown}");
        assert!(shown.contains("connect-proxy  1"), "{shown}");
        for (only_billable, shows_mesh) in [(true, false), (false, true)] {
            let flags = InstancesFlags { only_billable, only_connect: !only_billable, ..InstancesFlags::default() };
            let shown = String::from_utf8(instances(&fake.api(), &flags).await.unwrap().bytes).unwrap();
            let parts = (shown.contains("Billable Service"), shown.contains("Connect Service"));
            assert_eq!(parts, (!shows_mesh, shows_mesh), "{shown}");
        }
    }
}
