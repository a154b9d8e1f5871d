//! The production transport over real sockets: what comes out of `accept`, and rotation without a restart.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use lictor_identity::{KeyedChain, Roots, RpcMaterial, RpcTrust, TlsTransport};
use lictor_runtime::transport::{ALPN_LOGIN, ALPN_RAFT, ALPN_RPC};
use lictor_runtime::{PeerIdentity, Resolver, Tasks, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::*;

async fn listening(material: &Arc<RpcMaterial>, tasks: &Tasks) -> (TlsTransport, String) {
    let any = "127.0.0.1:0".parse().unwrap();
    let transport = TlsTransport::listening(any, Arc::clone(material), Resolver::from_system(), tasks).await.unwrap();
    let address = transport.local_address().unwrap().to_string();
    (transport, address)
}

fn material(world: &World, own: Option<KeyedChain>) -> Arc<RpcMaterial> {
    RpcMaterial::new(tls_at(now()), Arc::clone(&world.trust), own)
}

fn dialler(material: Arc<RpcMaterial>) -> TlsTransport {
    TlsTransport::dialling(material, Resolver::from_system())
}

#[tokio::test]
async fn bytes_pass_both_ways_between_peers_that_know_each_other() {
    let (world, tasks) = (World::new(), Tasks::new());
    let (server, address) = listening(&material(&world, Some(world.server())), &tasks).await;
    let client = dialler(material(&world, Some(world.client().chain().clone())));
    let (accepted, dialled) = tokio::join!(server.accept(), client.dial(&address, ALPN_RPC));
    let (mut accepted, mut dialled) = (accepted.unwrap(), dialled.unwrap());
    assert_eq!(accepted.peer, PeerIdentity::Client { node: "node-1".into() });
    assert_eq!(accepted.protocol, ALPN_RPC);
    dialled.write_all(b"ping").await.unwrap();
    dialled.flush().await.unwrap();
    let mut heard = [0; 4];
    accepted.stream.read_exact(&mut heard).await.unwrap();
    accepted.stream.write_all(b"pong").await.unwrap();
    accepted.stream.flush().await.unwrap();
    dialled.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"pong");
    assert!(tasks.stop(Duration::from_secs(5)).await);
    assert_eq!(server.accept().await.err().unwrap().kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn refused_and_silent_strangers_do_not_keep_others_out() {
    let (world, tasks) = (World::new(), Tasks::new());
    let (server, address) = listening(&material(&world, Some(world.server())), &tasks).await;
    let _silent = tokio::net::TcpStream::connect(&address).await.unwrap();
    let mut garbage = tokio::net::TcpStream::connect(&address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // A workload that tries raft: its handshake passes, its classification does not, and the stream just ends.
    let workload = dialler(material(&world, Some(world.workload("web").chain().clone())));
    if let Ok(mut refused) = workload.dial(&address, ALPN_RAFT).await {
        assert!(!matches!(refused.read(&mut [0; 1]).await, Ok(1..)));
    }
    let other_server = dialler(material(&world, Some(world.server())));
    let (accepted, dialled) = tokio::join!(server.accept(), other_server.dial(&address, ALPN_RAFT));
    assert_eq!(accepted.unwrap().peer, PeerIdentity::Server);
    assert!(dialled.is_ok());
    tasks.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn without_a_certificate_only_login_can_be_dialled_and_a_later_one_is_used_at_once() {
    let (world, tasks) = (World::new(), Tasks::new());
    let (server, address) = listening(&material(&world, Some(world.server())), &tasks).await;
    let own = material(&world, None);
    let client = dialler(Arc::clone(&own));
    let error = client.dial(&address, ALPN_RPC).await.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    let (accepted, dialled) = tokio::join!(server.accept(), client.dial(&address, ALPN_LOGIN));
    assert_eq!(accepted.unwrap().peer, PeerIdentity::Anonymous);
    dialled.unwrap();
    own.set_own(world.client().chain().clone());
    let (accepted, _dialled) = tokio::join!(server.accept(), client.dial(&address, ALPN_RPC));
    assert_eq!(accepted.unwrap().peer, PeerIdentity::Client { node: "node-1".into() });
    tasks.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn replaced_roots_hold_from_the_next_handshake_on() {
    let (world, tasks) = (World::new(), Tasks::new());
    let (server, address) = listening(&material(&world, Some(world.server())), &tasks).await;
    let next = mesh(world.domain().as_str());
    let id = lictor_identity::SpiffeId::client(world.domain(), "dc1", "node-2").unwrap();
    world.trust.set_mesh_roots(world.domain().clone(), next.root_pem()).unwrap();
    // The old member first: if it were still taken, it would come out of `accept` before the new one.
    let old = dialler(material(&world, Some(world.client().chain().clone())));
    if let Ok(mut refused) = old.dial(&address, ALPN_RPC).await {
        assert!(!matches!(refused.read(&mut [0; 1]).await, Ok(1..)));
    }
    let new = dialler(material(&world, Some(credential(&next, &id).chain().clone())));
    let (accepted, _dialled) = tokio::join!(server.accept(), new.dial(&address, ALPN_RPC));
    assert_eq!(accepted.unwrap().peer, PeerIdentity::Client { node: "node-2".into() });

    // The server authority too: a dialler that has the new one refuses the old server.
    let other = World::new();
    world.trust.set_server_roots(Roots::from_pem(other.server_authority.certificate_pem()).unwrap());
    assert!(new.dial(&address, ALPN_LOGIN).await.is_err());
    tasks.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_dialler_says_what_it_could_not_reach() {
    let world = World::new();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let client = dialler(material(&world, None));
    let error = client.dial(&address, ALPN_LOGIN).await.err().unwrap().to_string();
    assert!(error.contains(&address) && error.contains("refused"), "{error}");
    assert_eq!(client.accept().await.err().unwrap().kind(), std::io::ErrorKind::Unsupported);
    let roots = Roots::from_pem(world.server_authority.certificate_pem()).unwrap();
    assert!(RpcTrust::new(roots, "no spaces", "consul").is_err());
}
