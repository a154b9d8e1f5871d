//! The server port: one listener, three protocols, told apart by ALPN.
//!
//! - `raft/1`: servers only; handed to consensus.
//! - `h2`: RPC of agents and servers.
//! - `login/1`: anybody with a proof.
//!
//! Who dialled is known from the handshake, before a byte of the protocol is read.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lictor_agent::rpc::{Handler, serve_connection};
use lictor_runtime::transport::{ALPN_LOGIN, ALPN_RAFT, Accepted, Boxed, SharedTransport};
use lictor_runtime::{PeerIdentity, Tasks};
use lictor_types::rpc::{Operation, Report, Request, RequestBody, Response};
use lictor_types::{Credential, LeafCertificate, NodeName, Refusal, Requirement};
use tokio::sync::Semaphore;

use crate::datacenter::ServerDatacenter;
use crate::login;

/// Connections served at once; the next one waits in the listener's queue.
const CONNECTIONS_MAX: usize = 20_000;
/// Logins served at once.
const LOGINS_MAX: usize = 64;
/// After the listener itself failed, for example for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts and serves connections until the tasks are stopped.
pub async fn serve(datacenter: Arc<ServerDatacenter>, transport: SharedTransport, tasks: Tasks) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let logins = Arc::new(Semaphore::new(LOGINS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let Accepted { peer, protocol, address, stream } = match transport.accept().await {
            Ok(accepted) => accepted,
            // The listener was closed before us: this is the end, not a fault.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
            Err(error) => {
                tracing::error!(%error, "the server port cannot accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let datacenter = Arc::clone(&datacenter);
        datacenter.figures.connections.increment();
        match protocol.as_str() {
            ALPN_RAFT => tasks.spawn(async move {
                let _permit = permit;
                if let Err(error) = datacenter.consensus.serve(&peer, stream).await {
                    tracing::debug!(%address, %error, "a raft stream ended");
                }
            }),
            ALPN_LOGIN => {
                let logins = Arc::clone(&logins);
                tasks.spawn(async move {
                    let _permit = permit;
                    if let Ok(_login) = logins.acquire().await {
                        login::serve(&datacenter, &address, stream).await;
                    }
                });
            }
            _ => {
                let owner = tasks.child();
                // To its end: calls under way are answered before the server goes.
                tasks.spawn_to_end(async move {
                    let _permit = permit;
                    serve_connection(stream, peer, Arc::new(Door(datacenter)), &owner).await;
                });
            }
        }
    }
}

/// Requests of other agents, judged by who they are before the waist judges their token.
struct Door(Arc<ServerDatacenter>);

impl Handler for Door {
    fn handle(&self, peer: PeerIdentity, request: Request) -> Boxed<'_, Response> {
        Box::pin(async move {
            let datacenter = &self.0;
            if let Err(refusal) = admit(&peer, &request) {
                return Response::Refused(refusal);
            }
            if let (PeerIdentity::Client { node }, RequestBody::Operate(Operation::SignAgent(csr))) =
                (&peer, &request.body)
            {
                return match sign_agent(datacenter, node, csr).await {
                    Ok(leaf) => Response::Report(Report::Leaf(leaf)),
                    Err(refusal) => Response::Refused(refusal),
                };
            }
            datacenter.serve(request).await
        })
    }
}

/// Signs the next certificate of a client agent, and lets the token of its login live as long.
async fn sign_agent(datacenter: &ServerDatacenter, node: &str, csr: &[u8]) -> Result<LeafCertificate, Refusal> {
    let leaf = datacenter.sign_for_node(node, csr)?;
    let node: NodeName = node.parse().map_err(|error| Refusal::bad_request(format!("{error}")))?;
    datacenter.operate_anywhere(&Credential::anonymous(), Operation::RenewLogin(node)).await?;
    Ok(leaf)
}

/// What a peer may send at all, whatever its token says.
fn admit(peer: &PeerIdentity, request: &Request) -> Result<(), Refusal> {
    let server = *peer == PeerIdentity::Server;
    let node = match peer {
        PeerIdentity::Server => None,
        PeerIdentity::Client { node } => Some(node.as_str()),
        PeerIdentity::Workload { .. } | PeerIdentity::Anonymous => {
            return Err(Refusal::permission_denied("only agents and servers may speak RPC"));
        }
    };
    if request.forwarded && !server {
        return Err(Refusal::permission_denied("only servers may pass requests on"));
    }
    let RequestBody::Operate(operation) = &request.body else { return Ok(()) };
    match operation {
        // A client speaks for its own node only, so that no holder of one certificate declares others alive or gone.
        Operation::Keepalive(member) if !server && node != Some(member.name.as_str()) => {
            Err(not_yours(member.name.as_str(), peer))
        }
        Operation::Keepalive(member) if !server && member.is_server() => {
            Err(Refusal::permission_denied("a client's certificate cannot announce a server"))
        }
        Operation::GossipKeys(name) if !server && node != Some(name.as_str()) => Err(not_yours(name.as_str(), peer)),
        Operation::Leave(name) if !server && node != Some(name.as_str()) => Err(not_yours(name.as_str(), peer)),
        Operation::JoinServer(_)
        | Operation::Probe
        | Operation::ReadIndex
        | Operation::Login(_)
        | Operation::RenewLogin(_)
        | Operation::Standing(_)
        | Operation::LeaveRaft(_)
        | Operation::CompareState(_)
            if !server =>
        {
            Err(Refusal::permission_denied("only servers may ask this"))
        }
        _ => Ok(()),
    }
}

fn not_yours(node: &str, peer: &PeerIdentity) -> Refusal {
    let needed = Requirement::write(lictor_types::Resource::Node, node);
    Refusal::permission_denied(format!("the certificate of {peer:?} lacks permission {needed}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lictor_types::rpc::StateHash;
    use lictor_types::{Index, Member, MemberStatus};

    use super::*;

    fn keepalive(name: &str, role: &str) -> Request {
        let member = Member {
            name: name.parse().unwrap(),
            id: String::new(),
            address: "127.0.0.1".into(),
            port: 8301,
            tags: BTreeMap::from([("role".to_owned(), role.to_owned())]),
            meta: BTreeMap::new(),
            status: MemberStatus::Alive,
            protocols: None,
        };
        request(Operation::Keepalive(member), false)
    }

    fn request(operation: Operation, forwarded: bool) -> Request {
        Request { credential: Credential::anonymous(), body: RequestBody::Operate(operation), forwarded }
    }

    #[test]
    fn a_client_speaks_for_its_own_node_only() {
        let client = PeerIdentity::Client { node: "a".into() };
        assert!(admit(&client, &keepalive("a", "node")).is_ok());
        assert!(admit(&client, &keepalive("b", "node")).is_err());
        assert!(admit(&client, &keepalive("a", "consul")).is_err());
        assert!(admit(&client, &request(Operation::Leave("b".parse().unwrap()), false)).is_err());
        assert!(admit(&client, &request(Operation::Probe, false)).is_err());
        assert!(admit(&client, &request(Operation::LeaveRaft("x".into()), false)).is_err());
        assert!(admit(&client, &request(Operation::Standing("x".into()), false)).is_err());
        let keys_of = |node: &str| request(Operation::GossipKeys(node.parse().unwrap()), false);
        assert!(admit(&client, &keys_of("a")).is_ok() && admit(&client, &keys_of("b")).is_err());
        let asked = StateHash { index: Index(1), hash: 1, leader: "s1".into(), wait_millis: 1 };
        assert!(admit(&client, &request(Operation::CompareState(asked.clone()), false)).is_err());
        assert!(admit(&PeerIdentity::Server, &request(Operation::CompareState(asked), true)).is_ok());
        assert!(admit(&client, &request(Operation::Status, true)).is_err());
        assert!(admit(&PeerIdentity::Server, &keepalive("b", "consul")).is_ok());
    }

    #[test]
    fn a_workload_cannot_speak_rpc_at_all() {
        let workload = PeerIdentity::Workload { service: "web".into() };
        assert!(admit(&workload, &request(Operation::Status, false)).is_err());
        assert!(admit(&PeerIdentity::Anonymous, &request(Operation::Status, false)).is_err());
    }
}
