//! `lictor join`, `leave`, `force-leave` and `reload`: what people tell an agent to do.

use bytes::Bytes;
use clap::Args;
use lictor_client::encode_path;

use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};

/// Whom to join.
#[derive(Args)]
pub(crate) struct JoinFlags {
    /// Addresses of members.
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Join the servers of another datacenter.
    #[arg(long)]
    wan: bool,
    #[command(flatten)]
    api: ApiFlags,
}

/// Which agent leaves or reloads.
#[derive(Args)]
pub(crate) struct AgentOnlyFlags {
    #[command(flatten)]
    api: ApiFlags,
}

/// Which member has left.
#[derive(Args)]
pub(crate) struct ForceLeaveFlags {
    /// Its node name.
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Forget it altogether.
    #[arg(long)]
    prune: bool,
    /// A server of any datacenter, in the pool of all servers.
    #[arg(long)]
    wan: bool,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn join(flags: JoinFlags) -> Result<Output, Failure> {
    join_all(&Api::connect(&flags.api)?, &flags.addresses, flags.wan).await
}

async fn join_all(api: &Api, addresses: &[String], wan: bool) -> Result<Output, Failure> {
    if addresses.is_empty() {
        return Err(Failure::new("At least one address to join must be specified."));
    }
    let mut joined = 0;
    let parameters: &[(&str, &str)] = if wan { &[("wan", "1")] } else { &[] };
    let mut problems = String::new();
    for address in addresses {
        let path = format!("/v1/agent/join/{}", encode_path(address));
        match api.client().put_bytes(&path, parameters, Bytes::new()).await {
            Ok(_) => joined += 1,
            Err(error) => problems.push_str(&format!("Error joining address '{address}': {error}\n")),
        }
    }
    if joined == 0 {
        return Err(Failure::new(format!("{problems}Failed to join any nodes.")));
    }
    let output = Output::line(format!("Successfully joined cluster by contacting {joined} nodes."));
    Ok(Output { remark: problems, ..output })
}

pub(super) async fn leave(flags: AgentOnlyFlags) -> Result<Output, Failure> {
    let api = Api::connect(&flags.api)?;
    let left = api.client().put_bytes("/v1/agent/leave", &[], Bytes::new()).await;
    left.map_err(Failure::because("Error leaving"))?;
    Ok(Output::line("Graceful leave complete"))
}

pub(super) async fn reload(flags: AgentOnlyFlags) -> Result<Output, Failure> {
    let api = Api::connect(&flags.api)?;
    let reloaded = api.client().put_bytes("/v1/agent/reload", &[], Bytes::new()).await;
    reloaded.map_err(Failure::because("Error reloading"))?;
    Ok(Output::line("Configuration reload triggered"))
}

pub(super) async fn force_leave(flags: ForceLeaveFlags) -> Result<Output, Failure> {
    let api = Api::connect(&flags.api)?;
    let [node] = flags.nodes.as_slice() else {
        return Err(Failure::new("A single node name must be specified to force leave."));
    };
    let path = format!("/v1/agent/force-leave/{}", encode_path(node));
    let asked = [("prune", flags.prune), ("wan", flags.wan)];
    let query: Vec<(&str, &str)> = asked.into_iter().filter(|(_, is)| *is).map(|(name, _)| (name, "1")).collect();
    let left = api.client().put_bytes(&path, &query, Bytes::new()).await;
    left.map_err(Failure::because("Error force leaving"))?;
    Ok(Output::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn one_address_that_is_joined_is_enough() {
        let fake = Fake::answering(&[("PUT /v1/agent/join/10.0.0.1", 200, "")]).await;
        let addresses = ["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        let output = join_all(&fake.api(), &addresses, false).await.unwrap();
        assert_eq!(output.bytes, b"Successfully joined cluster by contacting 1 nodes.\n");
        assert!(output.remark.starts_with("Error joining address '10.0.0.2': Unexpected response code: 404"));
        let failed = join_all(&fake.api(), &addresses[1..], false).await.unwrap_err().to_string();
        assert!(failed.ends_with("\nFailed to join any nodes."), "{failed}");
    }
}
