//! Tests of whole sidecars, from login to farewell, against a server port that a double answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lictor_agent::Datacenter;
use lictor_agent::rpc::{self, Handler, login};
use lictor_identity::{
    KeyedChain, Roots, RpcMaterial, RpcTrust, ServerAuthority, ServerCertificateRequest, SpiffeId, Tls, TlsTransport,
};
use lictor_runtime::transport::{ALPN_LOGIN, Boxed};
use lictor_runtime::{Clock, PeerIdentity, Resolver, Stream, SystemClock, SystemRng, Tasks, Transport};
use lictor_types::rpc::{Login, LoginGrant, LoginHello, LoginReply, Request, RequestBody, Response};
use lictor_types::{Action, Credential, Operation, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::double::{LIMIT, Servers, intention, trust_domain};
use lictor_agent::session::Proof;

use crate::{ServiceSpec, Sidecar, SidecarParts, SidecarSettings, StartError, UpstreamSpec};

/// The one proof that is taken.
const PROOF: &str = "a join token";

impl Handler for Servers {
    fn handle(&self, _: PeerIdentity, request: Request) -> Boxed<'_, Response> {
        Box::pin(async move {
            let token = request.credential;
            let response = match request.body {
                RequestBody::Write(write) => self.write(&token, write.command).await.map(Response::Written),
                RequestBody::Read(read) => self.read(&token, read.query, read.freshness).await.map(Response::Read),
                RequestBody::Operate(operation) => self.operate(&token, operation).await.map(Response::Report),
                RequestBody::Relay(_) => Err(Refusal::bad_request("an agent passes nothing on")),
            };
            response.unwrap_or_else(Response::Refused)
        })
    }
}

/// The server port of the double.
struct Door {
    address: String,
    ca_pem: String,
}

impl Door {
    async fn open(servers: &Arc<Servers>, tasks: &Tasks) -> Self {
        let now = SystemClock.now();
        let authority = ServerAuthority::create("dc1", "consul", now).unwrap();
        let own = authority.sign_server(&ServerCertificateRequest::new("dc1", "consul"), now).unwrap();
        let ca_pem = authority.certificate_pem().to_owned();
        let trust = RpcTrust::new(Roots::from_pem(&ca_pem).unwrap(), "dc1", "consul").unwrap();
        trust.set_mesh_roots(trust_domain(), &servers.root_pem()).unwrap();
        let chain = KeyedChain::from_pem(&own.chain_pem, &own.key_pem).unwrap();
        let material = RpcMaterial::new(Tls::new(Arc::new(SystemClock)), Arc::new(trust), Some(chain));
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let transport = TlsTransport::listening(any, material, Resolver::from_system(), tasks).await.unwrap();
        let address = transport.local_address().unwrap().to_string();
        let (servers, owner) = (Arc::clone(servers), tasks.clone());
        tasks.spawn(async move {
            while let Ok(accepted) = transport.accept().await {
                let (servers, connection_owner) = (Arc::clone(&servers), owner.clone());
                owner.spawn(async move {
                    if accepted.protocol == ALPN_LOGIN {
                        grant(&servers, accepted.stream).await;
                    } else {
                        rpc::serve_connection(accepted.stream, accepted.peer, servers, &connection_owner).await;
                    }
                });
            }
        });
        Self { address, ca_pem }
    }
}

async fn grant(servers: &Servers, mut stream: Stream) {
    let hello = LoginHello { trust_domain: trust_domain().to_string(), datacenter: "dc1".into() };
    login::write_frame(&mut stream, &hello).await.unwrap();
    let Ok(asked) = login::read_frame::<Login, _>(&mut stream).await else { return };
    let reply = if asked.proof == PROOF {
        let id = SpiffeId::client(&trust_domain(), "dc1", asked.node.as_str()).unwrap();
        LoginReply::Granted(LoginGrant {
            token: Credential::new("token"),
            chain_pem: servers.sign(&id, &asked.csr).unwrap().chain_pem,
            roots_pem: servers.root_pem(),
            trust_domain: trust_domain().to_string(),
            datacenter: "dc1".into(),
            servers: Vec::new(),
            default_intention_allow: false,
        })
    } else {
        LoginReply::Refused(Refusal::permission_denied("another proof is needed"))
    };
    login::write_frame(&mut stream, &reply).await.unwrap();
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// A sidecar of `service`, whose application listens on `port`.
fn settings(door: &Door, service: &str, port: u16) -> SidecarSettings {
    SidecarSettings {
        node: format!("{service}-1.apps").parse().unwrap(),
        node_id: None,
        node_meta: [("k8s-node".to_owned(), "worker".to_owned())].into(),
        address: Ipv4Addr::LOCALHOST.into(),
        datacenter: "dc1".into(),
        server_addresses: vec![door.address.clone()],
        ca_pem: door.ca_pem.clone(),
        login_token: Proof::Secret(PROOF.into()),
        services: vec![ServiceSpec::parse(&format!("{service}:{port}"), 0, any_port()).unwrap()],
        upstreams: Vec::new(),
        local_address: Ipv4Addr::LOCALHOST.into(),
        health_address: Some(any_port()),
        http_address: Some(any_port()),
        dns_address: Some(any_port()),
        drain_limit: LIMIT,
    }
}

fn parts() -> SidecarParts {
    SidecarParts { clock: Arc::new(SystemClock), rng: Arc::new(SystemRng), resolver: Resolver::from_system() }
}

async fn start(settings: SidecarSettings) -> Sidecar {
    let sidecar = Sidecar::start(settings, parts()).await.unwrap();
    timeout(LIMIT, sidecar.started()).await.expect("it starts in time").unwrap();
    sidecar
}

/// Answers every connection with `hello` and ends it.
async fn application(tasks: &Tasks) -> u16 {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Checks connect and go away.
            let _ = stream.write_all(b"hello").await;
        }
    });
    port
}

async fn call(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("a call ends")?;
    Ok(answer)
}

async fn probe(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n").as_bytes()).await.unwrap();
    let mut reply = String::new();
    timeout(LIMIT, stream.read_to_string(&mut reply)).await.unwrap().unwrap();
    reply
}

#[tokio::test]
async fn two_sidecars_log_in_register_carry_a_call_and_leave_nothing_behind() {
    let (servers, tasks) = (Servers::new(), Tasks::new());
    servers.set_intentions(vec![intention("api", "web", Action::Allow)]);
    let door = Door::open(&servers, &tasks).await;
    let port = application(&tasks).await;
    let web = start(settings(&door, "web", port)).await;
    assert_eq!(servers.registered(), ["web", "web-sidecar-proxy"]);

    let mut api_settings = settings(&door, "api", application(&tasks).await);
    api_settings.upstreams = vec![UpstreamSpec { service: "web".parse().unwrap(), local: any_port() }];
    let api = start(api_settings).await;
    let upstream = api.addresses().upstreams[0];
    // The first check of the application may still be under way.
    let answered = async { while call(upstream).await.ok().as_deref() != Some("hello") {} };
    timeout(LIMIT, answered).await.expect("a call is carried");

    let health = web.addresses().health.unwrap();
    assert!(probe(health, "/started").await.starts_with("HTTP/1.1 200 "));
    assert!(probe(health, "/ready").await.starts_with("HTTP/1.1 200 "));
    assert!(probe(health, "/drain").await.ends_with("drained\n"));
    assert_eq!(servers.registered(), ["api", "api-sidecar-proxy"]);
    let refused = async { while call(upstream).await.is_ok() {} };
    timeout(LIMIT, refused).await.expect("nobody is called any more");
    assert!(TcpStream::connect(web.addresses().inbound[0]).await.is_err());
    web.stop(LIMIT).await;
    api.stop(LIMIT).await;
    assert!(servers.registered().is_empty());
    let farewells = servers.operations().into_iter().filter(|it| matches!(it, Operation::Leave(_))).count();
    assert_eq!(farewells, 2);
    assert!(tasks.stop(LIMIT).await);
}

#[tokio::test]
async fn a_sidecar_that_nobody_lets_in_says_so_refuses_calls_and_can_be_stopped() {
    let (servers, tasks) = (Servers::new(), Tasks::new());
    let door = Door::open(&servers, &tasks).await;
    let mut settings = settings(&door, "web", application(&tasks).await);
    settings.login_token = Proof::Secret("something else".into());
    let web = Sidecar::start(settings, parts()).await.unwrap();
    assert!(probe(web.addresses().health.unwrap(), "/started").await.contains("logging in"));
    let refused = TcpStream::connect(web.addresses().inbound[0]).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    timeout(LIMIT, web.stop(Duration::from_secs(2))).await.expect("it stops");
    assert!(servers.registered().is_empty() && servers.operations().is_empty());
    assert!(tasks.stop(LIMIT).await);
}

#[tokio::test]
async fn a_server_with_a_certificate_of_another_authority_gets_no_proof() {
    let (servers, tasks) = (Servers::new(), Tasks::new());
    let (door, other) = (Door::open(&servers, &tasks).await, Door::open(&servers, &tasks).await);
    let wrong = Door { address: door.address, ca_pem: other.ca_pem };
    let web = Sidecar::start(settings(&wrong, "web", 1), parts()).await.unwrap();
    let started = timeout(Duration::from_millis(500), web.started()).await;
    assert!(started.is_err(), "it does not start");
    assert!(servers.operations().is_empty());
    web.stop(Duration::from_secs(1)).await;
    assert!(tasks.stop(LIMIT).await);
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_at_once() {
    let (servers, tasks) = (Servers::new(), Tasks::new());
    let door = Door::open(&servers, &tasks).await;
    let taken = TcpListener::bind(any_port()).await.unwrap();
    let mut settings = settings(&door, "web", 1);
    settings.services[0].inbound_address = taken.local_addr().unwrap();
    let error = Sidecar::start(settings, parts()).await.err().unwrap();
    assert!(matches!(&error, StartError::Bind { .. }) && error.to_string().contains("the service web"), "{error}");
    assert!(tasks.stop(LIMIT).await);
}
