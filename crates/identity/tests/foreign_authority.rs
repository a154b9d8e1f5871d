//! A server CA that Lictor did not make: of the shape that `consul tls ca create` writes (a subject of many parts, a SEC1
//! key). Whoever comes from Consul brings such files along.
//!
//! The files in `data/` were made for this test with `openssl ecparam -genkey` and `openssl req -x509`.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lictor_identity::{KeyedChain, Roots, RpcTrust, ServerAuthority, ServerCertificateRequest};
use lictor_runtime::PeerIdentity;
use lictor_runtime::transport::ALPN_RAFT;
use world::{shake, tls_at};

const CERTIFICATE: &str = include_str!("data/consul-agent-ca.pem");
const KEY: &str = include_str!("data/consul-agent-ca-key.pem");

#[tokio::test]
async fn servers_signed_by_a_ca_of_consuls_shape_know_each_other() {
    // A week after the CA's beginning.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000);
    let authority = ServerAuthority::from_pem(CERTIFICATE, KEY).unwrap();
    let issued = authority.sign_server(&ServerCertificateRequest::new("dc1", "consul"), now).unwrap();
    let server = KeyedChain::from_pem(&issued.chain_pem, &issued.key_pem).unwrap();
    let trust = Arc::new(RpcTrust::new(Roots::from_pem(CERTIFICATE).unwrap(), "dc1", "consul").unwrap());
    let tls = tls_at(now);
    let (accepted, dialled) = shake(
        tls.rpc_server(&server, &trust).unwrap(),
        tls.rpc_client(Some(&server), &trust, ALPN_RAFT).unwrap(),
        trust.server_name().clone(),
    )
    .await;
    dialled.unwrap();
    let accepted = accepted.unwrap();
    let session = accepted.get_ref().1;
    let peer = trust.classify(session.peer_certificates(), session.alpn_protocol(), now).unwrap();
    assert_eq!(peer, PeerIdentity::Server);
}
