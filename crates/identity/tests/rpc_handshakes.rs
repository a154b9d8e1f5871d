//! Who may speak what on the server port, proven by real handshakes in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use lictor_identity::{KeyedChain, PeerError, RpcTrust, ServerAuthority, SpiffeId};
use lictor_runtime::PeerIdentity;
use lictor_runtime::transport::{ALPN_LOGIN, ALPN_RAFT, ALPN_RPC};
use rustls::pki_types::CertificateDer;
use world::*;

/// Dials a server as `own`; the outer error is the handshake's as the server saw it, the inner one the classification's.
async fn dial(
    world: &World,
    own: Option<&KeyedChain>,
    protocol: &str,
) -> Result<Result<PeerIdentity, PeerError>, String> {
    let tls = tls_at(now());
    let listener = tls.rpc_server(&world.server(), &world.trust).unwrap();
    let dialler = tls.rpc_client(own, &world.trust, protocol).unwrap();
    let (server, _client) = shake(listener, dialler, world.trust.server_name().clone()).await;
    let server = server.map_err(|error| error.to_string())?;
    let session = server.get_ref().1;
    Ok(world.trust.classify(session.peer_certificates(), session.alpn_protocol(), now()))
}

#[tokio::test]
async fn a_server_speaks_raft_and_rpc() {
    let world = World::new();
    for protocol in [ALPN_RAFT, ALPN_RPC] {
        assert_eq!(dial(&world, Some(&world.server()), protocol).await.unwrap().unwrap(), PeerIdentity::Server);
    }
}

#[tokio::test]
async fn clients_and_workloads_speak_rpc_under_their_own_names() {
    let world = World::new();
    let client = dial(&world, Some(world.client().chain()), ALPN_RPC).await.unwrap().unwrap();
    assert_eq!(client, PeerIdentity::Client { node: "node-1".into() });
    let workload = dial(&world, Some(world.workload("web").chain()), ALPN_RPC).await.unwrap().unwrap();
    assert_eq!(workload, PeerIdentity::Workload { service: "web".into() });
}

#[tokio::test]
async fn cve_2021_37219_no_certificate_of_the_mesh_speaks_raft() {
    let world = World::new();
    let server_uri = SpiffeId::Server { trust_domain: world.domain().clone(), datacenter: "dc1".parse().unwrap() };
    for chain in [
        world.client().chain().clone(),
        world.workload("web").chain().clone(),
        forged_by_mesh(&world.mesh, vec![dns("server.dc1.consul"), uri(&world.service("web"))]),
    ] {
        let refused = dial(&world, Some(&chain), ALPN_RAFT).await.unwrap();
        assert!(matches!(refused, Err(PeerError::Role { .. })), "{refused:?}");
    }
    // These are not even let through the handshake, on any protocol.
    for names in
        [vec![dns("server.dc1.consul")], vec![uri(&server_uri)], vec![dns("server.dc1.consul"), uri(&server_uri)]]
    {
        for protocol in [ALPN_RAFT, ALPN_RPC] {
            assert!(dial(&world, Some(&forged_by_mesh(&world.mesh, names.clone())), protocol).await.is_err());
        }
    }
}

#[tokio::test]
async fn without_a_certificate_only_login_is_spoken() {
    let world = World::new();
    assert_eq!(dial(&world, None, ALPN_LOGIN).await.unwrap().unwrap(), PeerIdentity::Anonymous);
    for protocol in [ALPN_RAFT, ALPN_RPC] {
        let refused = dial(&world, None, protocol).await.unwrap();
        assert!(matches!(refused, Err(PeerError::NoCertificate { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_certificate_adds_nothing_to_login() {
    let world = World::new();
    let peer = dial(&world, Some(&world.server()), ALPN_LOGIN).await.unwrap().unwrap();
    assert_eq!(peer, PeerIdentity::Anonymous);
}

#[tokio::test]
async fn an_unknown_protocol_is_refused_and_so_is_none() {
    let world = World::new();
    assert!(dial(&world, Some(&world.server()), "http/1.1").await.is_err());
    let chain: Vec<CertificateDer<'static>> = world.server().certificates().to_vec();
    for protocol in [None, Some(&b"raft/2"[..]), Some(&b"\xff"[..])] {
        let refused = world.trust.classify(Some(&chain), protocol, now());
        assert!(matches!(refused, Err(PeerError::Protocol(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn certificates_of_other_authorities_are_refused() {
    let world = World::new();
    let other = World::new();
    for chain in [other.server(), other.client().chain().clone(), other.workload("web").chain().clone()] {
        assert!(dial(&world, Some(&chain), ALPN_RPC).await.is_err());
    }
}

#[tokio::test]
async fn a_certificate_of_the_server_authority_without_the_servers_exact_name_is_refused() {
    let world = World::new();
    let authority = &world.server_authority;
    let exact = forged(authority.certificate_pem(), authority.key_pem(), vec![dns("server.dc1.consul")]);
    assert_eq!(dial(&world, Some(&exact), ALPN_RPC).await.unwrap().unwrap(), PeerIdentity::Server);
    for names in [
        vec![dns("server.dc2.consul")],
        vec![dns("localhost")],
        vec![dns("*.dc1.consul")],
        vec![uri(&world.service("web"))],
    ] {
        let chain = forged(authority.certificate_pem(), authority.key_pem(), names);
        assert!(dial(&world, Some(&chain), ALPN_RPC).await.is_err());
    }
}

#[tokio::test]
async fn a_mesh_certificate_with_two_uris_or_of_another_place_is_refused() {
    let world = World::new();
    let elsewhere = SpiffeId::client(world.domain(), "dc2", "node-1").unwrap();
    let foreign = SpiffeId::client(&"other.consul".parse().unwrap(), "dc1", "node-1").unwrap();
    for names in [
        vec![uri(&world.service("web")), uri(&world.service("admin"))],
        vec![uri(&world.service("web")), uri(&world.service("web"))],
        vec![uri(&elsewhere)],
        vec![uri(&foreign)],
        vec![dns("web")],
    ] {
        assert!(dial(&world, Some(&forged_by_mesh(&world.mesh, names)), ALPN_RPC).await.is_err());
    }
}

#[tokio::test]
async fn a_workload_cannot_sign_certificates_for_others() {
    let world = World::new();
    let request = lictor_identity::SigningRequest::create(&world.service("web")).unwrap();
    let leaf = world
        .mesh
        .sign_leaf(
            &request.csr_pem,
            &world.service("web"),
            Duration::from_secs(3600),
            now(),
            &lictor_runtime::SystemRng,
        )
        .unwrap();
    let issued = forged(&leaf.leaf_pem, &request.key_pem, vec![uri(&world.service("admin"))]);
    let intermediate = world.workload("x").chain().certificates()[1].clone();
    let chain = [issued.certificates(), &[intermediate]].concat();
    let refused = world.trust.classify(Some(&chain), Some(ALPN_RPC.as_bytes()), now());
    let Err(PeerError::Untrusted(why)) = refused else { panic!("{refused:?}") };
    assert!(why.to_string().contains("EndEntityUsedAsCa"), "{why}");
    assert!(dial(&world, Some(&issued), ALPN_RPC).await.is_err());
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides() {
    let world = World::new();
    let later = tls_at(now() + Duration::from_secs(4 * 24 * 3600));
    let listener = later.rpc_server(&world.server(), &world.trust).unwrap();
    let client = world.client();
    let dialler = later.rpc_client(Some(client.chain()), &world.trust, ALPN_RPC).unwrap();
    let (server, _) = shake(listener, dialler, world.trust.server_name().clone()).await;
    assert!(server.unwrap_err().to_string().to_lowercase().contains("expired"));

    let much_later = tls_at(now() + Duration::from_secs(3 * 365 * 24 * 3600));
    let listener = much_later.rpc_server(&world.server(), &world.trust).unwrap();
    let dialler = much_later.rpc_client(None, &world.trust, ALPN_LOGIN).unwrap();
    let (_, client) = shake(listener, dialler, world.trust.server_name().clone()).await;
    assert!(client.unwrap_err().to_string().to_lowercase().contains("expired"));
}

#[tokio::test]
async fn a_dialler_takes_only_servers_of_its_datacenter() {
    let world = World::new();
    let tls = tls_at(now());
    let stranger = ServerAuthority::create("dc1", "consul", now()).unwrap();
    for (presented, accepted) in [
        (world.server(), true),
        (server_of(&stranger, "dc1"), false),
        (server_of(&world.server_authority, "dc2"), false),
        (world.client().chain().clone(), false),
        (forged_by_mesh(&world.mesh, vec![dns("server.dc1.consul"), uri(&world.service("web"))]), false),
    ] {
        let listener = server_presenting(&presented, &world.trust);
        let dialler = tls.rpc_client(None, &world.trust, ALPN_LOGIN).unwrap();
        let (_, client) = shake(listener, dialler, world.trust.server_name().clone()).await;
        assert_eq!(client.is_ok(), accepted, "{client:?}");
    }
}

#[tokio::test]
async fn before_the_mesh_has_roots_only_servers_are_known() {
    let world = World::new();
    let roots = lictor_identity::Roots::from_pem(world.server_authority.certificate_pem()).unwrap();
    let trust = Arc::new(RpcTrust::new(roots, "dc1", "consul").unwrap());
    let bare = World { trust, ..World::new() };
    let classify = |chain: &KeyedChain| bare.trust.classify(Some(chain.certificates()), Some(b"h2"), now());
    assert!(matches!(classify(world.client().chain()), Err(PeerError::Untrusted(_))));
    assert_eq!(classify(&world.server()).unwrap(), PeerIdentity::Server);
}
