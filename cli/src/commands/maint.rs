//! `lictor maint`: takes a node or a service out of use, and back.

use clap::Args;
use lictor_client::encode_path;
use serde_json::Value;

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::input::text_field;
use crate::output::{Failure, Output};

/// The check of a node that is in maintenance.
const NODE_CHECK: &str = "_node_maintenance";
/// How the id of the check of a service begins that is in maintenance.
const SERVICE_CHECK: &str = "_service_maintenance:";

/// What to take out of use.
#[derive(Args, Default)]
pub(crate) struct MaintFlags {
    /// Take it out of use.
    #[arg(long)]
    enable: bool,
    /// Back into use.
    #[arg(long)]
    disable: bool,
    /// Why, for people to read.
    #[arg(long)]
    reason: Option<String>,
    /// Id of the instance; without it the whole node.
    #[arg(long, value_name = "ID")]
    service: Option<String>,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn run(flags: MaintFlags) -> Result<Output, Failure> {
    maintain(&Api::connect(&flags.api)?, &flags).await
}

async fn maintain(api: &Api, flags: &MaintFlags) -> Result<Output, Failure> {
    let wrong = |text: &str| Err(Failure::new(text));
    match (flags.enable, flags.disable) {
        (true, true) => return wrong("Only one of -enable or -disable may be provided"),
        (false, _) if flags.reason.is_some() => return wrong("Reason may only be provided with -enable"),
        (false, false) if flags.service.is_some() => return wrong("Service requires either -enable or -disable"),
        (false, false) => return list(api, flags.format).await,
        _ => {}
    }
    let verb = if flags.enable { "enabling" } else { "disabling" };
    let done = if flags.enable { "enabled" } else { "disabled" };
    let mut query = vec![("enable", if flags.enable { "true" } else { "false" })];
    query.extend(flags.reason.as_deref().map(|reason| ("reason", reason)));
    let (path, what, line) = match &flags.service {
        Some(id) => (
            format!("/v1/agent/service/maintenance/{}", encode_path(id)),
            "service",
            format!("Service maintenance is now {done} for {id:?}"),
        ),
        None => ("/v1/agent/maintenance".to_owned(), "node", format!("Node maintenance is now {done}")),
    };
    let put = api.client().put_bytes(&path, &query, bytes::Bytes::new()).await;
    put.map_err(Failure::because(format!("Error {verb} {what} maintenance")))?;
    Ok(Output::line(line))
}

/// What is in maintenance now.
async fn list(api: &Api, format: Format) -> Result<Output, Failure> {
    let (own, _): (Value, _) =
        api.get("/v1/agent/self", &[]).await.map_err(Failure::because("Error getting agent info"))?;
    let (checks, _): (Value, _) =
        api.get("/v1/agent/checks", &[]).await.map_err(Failure::because("Error getting checks"))?;
    let node = own.pointer("/Config/NodeName").and_then(Value::as_str).unwrap_or_default();
    if format == Format::Json {
        let is_one = |check: &&Value| {
            let id = text_field(check, "CheckID");
            id == NODE_CHECK || id.starts_with(SERVICE_CHECK)
        };
        let all = checks.as_object().into_iter().flat_map(|checks| checks.values());
        return Output::json(&all.filter(is_one).collect::<Vec<_>>(), 2);
    }
    let mut lines = Vec::new();
    for check in checks.as_object().into_iter().flat_map(|checks| checks.values()) {
        let (id, reason) = (text_field(check, "CheckID"), text_field(check, "Notes"));
        let (what, name) = if id == NODE_CHECK {
            ("Node:", format!("  Name:   {node}"))
        } else if id.starts_with(SERVICE_CHECK) {
            ("Service:", format!("  ID:     {}", text_field(check, "ServiceID")))
        } else {
            continue;
        };
        lines.extend([what.to_owned(), name, format!("  Reason: {reason}"), String::new()]);
    }
    Ok(Output::lines(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn what_is_in_maintenance_is_listed_as_consul_lists_it() {
        let checks = r#"{"_node_maintenance":{"CheckID":"_node_maintenance","Notes":"disk"},
            "_service_maintenance:web":{"CheckID":"_service_maintenance:web","ServiceID":"web","Notes":"y"},"c":{"CheckID":"c"}}"#;
        let fake = Fake::answering(&[
            ("GET /v1/agent/self", 200, r#"{"Config":{"NodeName":"n1"}}"#),
            ("GET /v1/agent/checks", 200, checks),
            ("PUT /v1/agent/maintenance?enable=true&reason=disk", 200, ""),
            ("PUT /v1/agent/service/maintenance/web?enable=false", 200, ""),
        ])
        .await;
        let text = |output: Output| String::from_utf8(output.bytes).unwrap();
        let flags = MaintFlags::default();
        assert_eq!(
            text(maintain(&fake.api(), &flags).await.unwrap()),
            "Node:\n  Name:   n1\n  Reason: disk\n\nService:\n  ID:     web\n  Reason: y\n\n"
        );
        let flags = MaintFlags { enable: true, reason: Some("disk".into()), ..MaintFlags::default() };
        assert_eq!(text(maintain(&fake.api(), &flags).await.unwrap()), "Node maintenance is now enabled\n");
        let flags = MaintFlags { disable: true, service: Some("web".into()), ..MaintFlags::default() };
        assert_eq!(
            text(maintain(&fake.api(), &flags).await.unwrap()),
            "Service maintenance is now disabled for \"web\"\n"
        );
        let flags = MaintFlags { reason: Some("z".into()), ..MaintFlags::default() };
        let refused = maintain(&fake.api(), &flags).await.unwrap_err();
        assert_eq!(refused.to_string(), "Reason may only be provided with -enable");
    }
}
