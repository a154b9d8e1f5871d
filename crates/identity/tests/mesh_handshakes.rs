//! Who may speak to whom between sidecars, proven by real handshakes in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::time::Duration;

use lictor_identity::{Credential, KeyedChain, RenewableChain, SpiffeId, mesh_server_name, peer_spiffe_id};
use rustls::pki_types::ServerName;
use world::*;

fn name() -> ServerName<'static> {
    ServerName::try_from("web.default.dc1.internal.example").unwrap()
}

/// Which side took the other: (inbound took outbound, outbound took inbound).
async fn meet(inbound: &Credential, outbound: &Credential, expected: &SpiffeId) -> (bool, bool) {
    let tls = tls_at(now());
    let (server, client) =
        shake(tls.mesh_server(inbound).unwrap(), tls.mesh_client(outbound, expected).unwrap(), name()).await;
    (server.is_ok(), client.is_ok())
}

/// A sidecar that presents a forged chain on its inbound side, dialled by `web`.
async fn web_takes(world: &World, presented: &KeyedChain, expected: &SpiffeId) -> bool {
    let tls = tls_at(now());
    let listener = server_presenting(presented, &world.trust);
    let dialler = tls.mesh_client(&world.workload("web"), expected).unwrap();
    shake(listener, dialler, name()).await.1.is_ok()
}

/// A dialler that presents a forged chain, as the inbound side of `api` sees it.
async fn api_takes(world: &World, presented: Option<&KeyedChain>) -> bool {
    let tls = tls_at(now());
    let api = world.workload("api");
    let dialler = tls.rpc_client(presented, &world.trust, "any").unwrap();
    let mut dialler = (*dialler).clone();
    dialler.alpn_protocols.clear();
    dialler.dangerous().set_certificate_verifier(std::sync::Arc::new(Gullible));
    shake(tls.mesh_server(&api).unwrap(), std::sync::Arc::new(dialler), name()).await.0.is_ok()
}

/// Takes every server: only the other side's refusal can end the handshake.
#[derive(Debug)]
struct Gullible;

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        lictor_identity::material::provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn two_services_meet_and_know_each_other() {
    let world = World::new();
    let tls = tls_at(now());
    let (api, web) = (world.workload("api"), world.workload("web"));
    let expected = world.service("api");
    let server_name = mesh_server_name(&expected).unwrap();
    let (server, client) =
        shake(tls.mesh_server(&api).unwrap(), tls.mesh_client(&web, &expected).unwrap(), server_name).await;
    let (server, client) = (server.unwrap(), client.unwrap());
    assert_eq!(peer_spiffe_id(server.get_ref().1.peer_certificates().unwrap()).unwrap(), world.service("web"));
    assert_eq!(peer_spiffe_id(client.get_ref().1.peer_certificates().unwrap()).unwrap(), expected);
    assert_eq!(server.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(server.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
}

#[tokio::test]
async fn another_service_than_the_one_expected_is_refused() {
    let world = World::new();
    let (_, taken) = meet(&world.workload("evil"), &world.workload("web"), &world.service("api")).await;
    assert!(!taken);
}

#[tokio::test]
async fn services_of_another_root_are_refused_on_both_sides() {
    let (world, other) = (World::new(), World::new());
    let (inbound, outbound) = (world.workload("api"), other.workload("web"));
    assert_eq!(meet(&inbound, &outbound, &world.service("api")).await, (false, false));
    assert!(!api_takes(&world, Some(outbound.chain())).await);
}

#[tokio::test]
async fn a_peer_with_two_uris_is_refused_on_both_sides() {
    let world = World::new();
    for names in [
        vec![uri(&world.service("api")), uri(&world.service("admin"))],
        vec![uri(&world.service("admin")), uri(&world.service("api"))],
    ] {
        let forged = forged_by_mesh(&world.mesh, names);
        assert!(!web_takes(&world, &forged, &world.service("api")).await);
        assert!(!api_takes(&world, Some(&forged)).await);
    }
}

#[tokio::test]
async fn names_of_other_kinds_do_not_make_an_identity() {
    let world = World::new();
    let sni = dns("web.default.dc1.internal.example");
    assert!(!web_takes(&world, &forged_by_mesh(&world.mesh, vec![sni.clone()]), &world.service("api")).await);
    assert!(
        !web_takes(&world, &forged_by_mesh(&world.mesh, vec![sni, uri(&world.service("evil"))]), &world.service("api"))
            .await
    );
    assert!(
        web_takes(&world, &forged_by_mesh(&world.mesh, vec![uri(&world.service("api"))]), &world.service("api")).await
    );
}

#[tokio::test]
async fn inbound_takes_services_only_and_never_without_a_certificate() {
    let world = World::new();
    assert!(api_takes(&world, Some(world.workload("web").chain())).await);
    assert!(!api_takes(&world, None).await);
    assert!(!api_takes(&world, Some(world.client().chain())).await);
    assert!(!api_takes(&world, Some(&world.server())).await);
    let foreign = SpiffeId::service(&"other.consul".parse().unwrap(), "dc1", "web").unwrap();
    assert!(!api_takes(&world, Some(&forged_by_mesh(&world.mesh, vec![uri(&foreign)]))).await);
}

#[tokio::test]
async fn an_expired_peer_is_refused_on_both_sides() {
    let world = World::new();
    let later = tls_at(now() + Duration::from_secs(4 * 24 * 3600));
    let (api, web) = (world.workload("api"), world.workload("web"));
    let dialler = later.mesh_client(&web, &world.service("api")).unwrap();
    let (_, client) = shake(tls_at(now()).mesh_server(&api).unwrap(), dialler, name()).await;
    assert!(client.unwrap_err().to_string().to_lowercase().contains("expired"));
    let dialler = tls_at(now()).mesh_client(&web, &world.service("api")).unwrap();
    let (server, _) = shake(later.mesh_server(&api).unwrap(), dialler, name()).await;
    assert!(server.unwrap_err().to_string().to_lowercase().contains("expired"));
}

#[tokio::test]
async fn roots_of_both_generations_let_a_rotation_pass() {
    let world = World::new();
    let next = mesh(world.domain().as_str());
    let id = world.service("web");
    let new_web = credential(&next, &id);
    let old_api = world.workload("api");
    assert_eq!(meet(&old_api, &new_web, &world.service("api")).await, (false, false));
    let both = format!("{}{}", world.mesh.root_pem(), next.root_pem());
    let (api, web) = (old_api.with_roots(&both).unwrap(), new_web.with_roots(&both).unwrap());
    assert_eq!(meet(&api, &web, &world.service("api")).await, (true, true));
}

#[tokio::test]
async fn https_is_spoken_with_tls_1_2_and_1_3() {
    let world = World::new();
    let listener = tls_at(now()).https_server(&RenewableChain::new(world.server()), None).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut dialler = rustls::ClientConfig::builder_with_provider(lictor_identity::material::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(std::sync::Arc::new(Gullible))
            .with_no_client_auth();
        dialler.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (server, client) = shake(listener.clone(), dialler.into(), name()).await;
        assert_eq!(server.unwrap().get_ref().1.protocol_version(), Some(version.version));
        assert!(client.is_ok());
    }
}
