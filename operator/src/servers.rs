//! Asks the servers, over HTTPS with the datacenter's own CA and management token.
//!
//! Only the few calls the operator needs; each has a time limit shorter than the client's own.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use lictor_client::{Client, ClientError, ClientSettings};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::names::{HTTPS_PORT, Names, RPC_PORT};

/// How long a server may take to answer, connecting included.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// What it takes to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Certificate of the server CA.
    pub ca_pem: String,
    /// Management token.
    pub token: String,
}

/// What the servers said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    /// Each server that should be there.
    pub servers: Vec<ServerAnswer>,
    /// Names of the servers that vote, as one server that knows a leader tells them.
    pub voters: Vec<String>,
}

/// What one server said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerAnswer {
    /// Its name, which is its pod's.
    pub name: String,
    /// Where other servers reach it.
    pub address: String,
    /// Whether it answered at all.
    pub answered: bool,
    /// Name of the leader it knows.
    pub leader: Option<String>,
}

/// A node of the catalog that is a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodNode {
    /// Name of the node: `<pod>.<namespace>`.
    pub node: String,
    /// The pod's uid when it registered.
    pub pod_uid: String,
}

/// A server could not be asked, or did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer within {CALL_TIMEOUT:?}")]
    TimedOut,
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("none of the {servers} servers answered")]
    Nobody { servers: i32 },
}

impl CallError {
    /// The HTTP status, if there was an answer.
    fn status(&self) -> Option<u16> {
        match self {
            Self::Client(ClientError::Status { status, .. }) => Some(*status),
            _ => None,
        }
    }
}

/// Tells what the servers of a datacenter say; stood in for by tests.
pub(crate) trait ObserveServers: Send + Sync {
    /// Asks every server that should be there. Never fails: silence is an observation.
    fn observe<'a>(
        &'a self,
        names: &'a Names,
        replicas: i32,
        access: &'a Access,
    ) -> Pin<Box<dyn Future<Output = Observation> + Send + 'a>>;
}

/// Asks real servers.
pub(crate) struct HttpsServers;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentMember {
    name: String,
    addr: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CatalogNode {
    node: String,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

impl ObserveServers for HttpsServers {
    fn observe<'a>(
        &'a self,
        names: &'a Names,
        replicas: i32,
        access: &'a Access,
    ) -> Pin<Box<dyn Future<Output = Observation> + Send + 'a>> {
        Box::pin(async move {
            let mut observation = Observation {
                servers: join_all((0..replicas).map(|ordinal| ask_leader(names, ordinal, access))).await,
                voters: Vec::new(),
            };
            let Some(knowing) = observation.servers.iter().position(|server| server.leader.is_some()) else {
                return observation;
            };
            let host = names.pod_host(i32::try_from(knowing).unwrap_or_default());
            let members = get::<Vec<AgentMember>>(&host, "/v1/agent/members", access).await.unwrap_or_default();
            for server in &mut observation.servers {
                server.leader = server.leader.take().map(|address| name_of(&address, names, replicas, &members));
            }
            match get::<Vec<String>>(&host, "/v1/status/peers", access).await {
                Ok(peers) => {
                    let mut voters: Vec<_> =
                        peers.iter().map(|address| name_of(address, names, replicas, &members)).collect();
                    voters.sort();
                    observation.voters = voters;
                }
                Err(error) => tracing::debug!(%error, host, "the voters could not be asked for"),
            }
            observation
        })
    }
}

impl HttpsServers {
    /// Nodes of the catalog that are pods.
    pub(crate) async fn pod_nodes(
        &self,
        names: &Names,
        replicas: i32,
        access: &Access,
    ) -> Result<Vec<PodNode>, CallError> {
        let nodes: Vec<CatalogNode> = ask_any(names, replicas, access, |client| async move {
            client.get_json("/v1/catalog/nodes", &[]).await.map(|(nodes, _)| nodes)
        })
        .await?;
        let pod_node = |node: CatalogNode| {
            let pod_uid = node.meta?.remove("pod-uid")?;
            Some(PodNode { node: node.node, pod_uid })
        };
        Ok(nodes.into_iter().filter_map(pod_node).collect())
    }

    /// Takes a node and everything on it out of the catalog.
    pub(crate) async fn deregister(
        &self,
        names: &Names,
        replicas: i32,
        access: &Access,
        node: &str,
    ) -> Result<(), CallError> {
        let body = json!({ "Node": node });
        let body = &body;
        ask_any(names, replicas, access, |client| async move {
            client.put_json::<_, Value>("/v1/catalog/deregister", &[], body).await
        })
        .await
        .map(drop)
    }
}

async fn ask_leader(names: &Names, ordinal: i32, access: &Access) -> ServerAnswer {
    let host = names.pod_host(ordinal);
    let answer = get::<String>(&host, "/v1/status/leader", access).await;
    if let Err(error) = &answer {
        tracing::debug!(%error, host, "a server did not answer");
    }
    ServerAnswer {
        name: names.pod(ordinal),
        address: format!("{host}:{RPC_PORT}"),
        // A server that refuses is there all the same.
        answered: answer.as_ref().map_or_else(|error| error.status().is_some(), |_| true),
        leader: answer.ok().filter(|leader| !leader.is_empty()),
    }
}

async fn get<T: DeserializeOwned>(host: &str, path: &str, access: &Access) -> Result<T, CallError> {
    let client = client(host, access)?;
    within(async { client.get_json(path, &[]).await.map(|(value, _)| value) }).await
}

/// Asks one server after the other until one answers; a refusal of the request itself is an answer too.
async fn ask_any<T, Asking>(
    names: &Names,
    replicas: i32,
    access: &Access,
    ask: impl Fn(Client) -> Asking,
) -> Result<T, CallError>
where
    Asking: Future<Output = Result<T, ClientError>>,
{
    for ordinal in 0..replicas {
        match within(ask(client(&names.pod_host(ordinal), access)?)).await {
            // 500 is also "no leader": another server may know one.
            Err(error) if error.status().is_some_and(|status| (400..500).contains(&status)) => return Err(error),
            Err(error) => tracing::debug!(%error, server = names.pod(ordinal), "another server is asked"),
            Ok(answer) => return Ok(answer),
        }
    }
    Err(CallError::Nobody { servers: replicas })
}

async fn within<T>(asking: impl Future<Output = Result<T, ClientError>>) -> Result<T, CallError> {
    Ok(tokio::time::timeout(CALL_TIMEOUT, asking).await.map_err(|_| CallError::TimedOut)??)
}

fn client(host: &str, access: &Access) -> Result<Client, ClientError> {
    Client::new(ClientSettings {
        address: format!("https://{host}:{HTTPS_PORT}"),
        ca_pem: Some(access.ca_pem.clone()),
        token: Some(access.token.clone()),
        ..ClientSettings::default()
    })
}

/// The name of the server at `address`: by our own naming, else by what the members say, else the address itself.
fn name_of(address: &str, names: &Names, replicas: i32, members: &[AgentMember]) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let by_name = (0..replicas).find(|ordinal| names.pod_host(*ordinal) == host).map(|ordinal| names.pod(ordinal));
    let by_member = || members.iter().find(|member| member.addr == host).map(|member| member.name.clone());
    by_name.or_else(by_member).unwrap_or_else(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_its_dns_name_or_by_its_address_among_the_members() {
        let names = Names { namespace: "consul".to_owned(), name: "dc1".to_owned() };
        let members = [AgentMember { name: "dc1-server-2".to_owned(), addr: "10.1.0.7".to_owned() }];
        assert_eq!(
            name_of("dc1-server-1.dc1-server.consul.svc.cluster.local:8300", &names, 3, &members),
            "dc1-server-1"
        );
        assert_eq!(name_of("10.1.0.7:8300", &names, 3, &members), "dc1-server-2");
        assert_eq!(name_of("10.9.9.9:8300", &names, 3, &members), "10.9.9.9:8300");
    }
}
