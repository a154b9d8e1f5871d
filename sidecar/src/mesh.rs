//! Tests of both halves of the proxy against each other, over loopback, with certificates of a real mesh CA.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lictor_identity::{Credential, Credentials, CredentialsPublisher, MeshAuthority, SigningRequest, Tls};
use lictor_runtime::{Clock, Resolver, SeededRng, SystemClock, SystemRng, Tasks};
use lictor_types::{Action, Intention};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::connections::Connections;
use crate::counters::Counters;
use crate::double::{LIMIT, Servers, authority, certificate, instance, intention, spiffe_id, trust_domain};
use crate::drain::{Drain, Phase};
use crate::inbound::Inbound;
use crate::intention::{self as intentions, Intentions, IntentionsPublisher, Rules};
use crate::outbound::{self, Outbound};
use crate::socket::BoundPort;
use crate::upstream::Upstream;

/// Larger than every buffer on the way.
const BULK: usize = 8 * 1024 * 1024 + 3;

/// An application that sends back what it gets, and ends when its caller has ended.
struct Application {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
}

impl Application {
    async fn start(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let (counter, owner) = (Arc::clone(&taken), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                owner.spawn(async move {
                    let (mut reader, mut writer) = stream.into_split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    let _ = writer.shutdown().await;
                });
            }
        });
        Self { address, taken }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

/// The inbound side of `web`, listening.
struct Web {
    address: SocketAddr,
    counters: Arc<Counters>,
    drain: Drain,
    connections: Connections,
    credentials: CredentialsPublisher,
    intentions: IntentionsPublisher,
}

impl Web {
    /// With neither certificate nor intentions.
    fn closed(application: &Application, tasks: &Tasks) -> Self {
        let (credentials, credentials_read) = Credentials::closed();
        let (intentions, intentions_read) = Intentions::closed();
        let inbound = Inbound {
            service: "web".parse().unwrap(),
            application: application.address,
            tls: Tls::new(Arc::new(SystemClock)),
            credentials: credentials_read,
            intentions: intentions_read,
            handshakes: Connections::limited_to(10),
            connections: Connections::limited_to(10),
            counters: Arc::default(),
            drain: Drain::new(),
            tasks: tasks.clone(),
        };
        let listener = BoundPort::bind("127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
        let web = Self {
            address: listener.local_addr().unwrap(),
            counters: Arc::clone(&inbound.counters),
            drain: inbound.drain.clone(),
            connections: inbound.connections.clone(),
            credentials,
            intentions,
        };
        tasks.spawn(inbound.serve(listener));
        web
    }

    fn open(application: &Application, tasks: &Tasks, credential: Credential, intentions: Vec<Intention>) -> Self {
        let web = Self::closed(application, tasks);
        web.credentials.publish(credential);
        web.allow(intentions);
        web
    }

    fn allow(&self, intentions: Vec<Intention>) {
        self.intentions.publish(Rules { destination: "web".into(), intentions, default_allow: false });
    }
}

/// The outbound side of a caller of `web`.
struct Caller {
    local: SocketAddr,
    counters: Arc<Counters>,
    upstream: Arc<Upstream>,
    _credentials: CredentialsPublisher,
}

impl Caller {
    fn start(tasks: &Tasks, credential: Credential, instances: &[SocketAddr]) -> Self {
        let (publisher, credentials) = Credentials::closed();
        publisher.publish(credential);
        let upstream = Arc::new(Upstream::new("web".parse().unwrap(), spiffe_id("web")));
        let rows: Vec<_> = instances.iter().map(|address| instance("web", &address.to_string())).collect();
        upstream.update(&rows);
        let outbound = Outbound {
            upstream: Arc::clone(&upstream),
            tls: Tls::new(Arc::new(SystemClock)),
            credentials,
            resolver: Resolver::from_system(),
            rng: Arc::new(SeededRng::new(5)),
            connections: Connections::limited_to(outbound::MAX_CONNECTIONS),
            counters: Arc::default(),
            tasks: tasks.clone(),
        };
        let listener = BoundPort::bind("127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
        let local = listener.local_addr().unwrap();
        let counters = Arc::clone(&outbound.counters);
        tasks.spawn(outbound.serve(listener));
        Self { local, counters, upstream, _credentials: publisher }
    }

    /// One call that sends `bytes`, ends, and reads the answer to its end.
    async fn call(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let talk = async {
            let (mut reader, mut writer) = TcpStream::connect(self.local).await?.into_split();
            let sending = async {
                writer.write_all(bytes).await?;
                writer.shutdown().await
            };
            let mut answer = Vec::new();
            let (sent, read) = tokio::join!(sending, reader.read_to_end(&mut answer));
            sent.and(read).map(|_| answer)
        };
        timeout(LIMIT, talk).await.expect("a call ends")
    }
}

/// Becomes ready when `counter` has come to `value`: what it counts happens at the other end of a connection.
async fn counted(counter: &AtomicU64, value: u64) {
    let reached = async {
        while counter.load(Ordering::Relaxed) < value {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, reached).await.expect("it is counted");
    assert_eq!(counter.load(Ordering::Relaxed), value);
}

fn from_api() -> Vec<Intention> {
    vec![intention("api", "web", Action::Allow)]
}

async fn with_tasks<F: Future<Output = ()>>(test: impl FnOnce(Tasks) -> F) {
    let tasks = Tasks::new();
    test(tasks.clone()).await;
    assert!(tasks.stop(LIMIT).await, "every task ends when it is told to");
}

#[tokio::test]
async fn an_allowed_call_passes_whole_and_a_half_closed_one_is_answered() {
    with_tasks(|tasks| async move {
        let (authority, application) = (authority(), Application::start(&tasks).await);
        let web = Web::open(&application, &tasks, certificate(&authority, "web"), from_api());
        let api = Caller::start(&tasks, certificate(&authority, "api"), &[web.address]);
        assert_eq!(api.call(b"hello").await.unwrap(), b"hello");
        let bulk: Vec<u8> = (0..BULK).map(|at| (at % 251) as u8).collect();
        assert!(api.call(&bulk).await.unwrap() == bulk);
        assert_eq!(web.counters.traffic.forth.load(Ordering::Relaxed), BULK as u64 + 5);
        assert_eq!(web.counters.carried.load(Ordering::Relaxed), 2);
        timeout(LIMIT, web.connections.all_closed()).await.expect("nothing is left open");
    })
    .await;
}

#[tokio::test]
async fn a_plain_connection_never_reaches_the_application() {
    with_tasks(|tasks| async move {
        let application = Application::start(&tasks).await;
        let web = Web::open(&application, &tasks, certificate(&authority(), "web"), vec![]);
        let mut plain = TcpStream::connect(web.address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.unwrap();
        // Perhaps an alert in plain text, then the end or a reset.
        let mut answer = Vec::new();
        let _ = timeout(LIMIT, plain.read_to_end(&mut answer)).await.expect("it is closed");
        counted(&web.counters.handshake_failed, 1).await;
        assert_eq!(application.taken(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_caller_with_a_certificate_of_another_authority_is_refused() {
    with_tasks(|tasks| async move {
        let (ours, theirs) = (authority(), authority());
        let application = Application::start(&tasks).await;
        let web = Web::open(&application, &tasks, certificate(&ours, "web"), from_api());
        // Its chain is of another authority with the same names; it trusts ours, so only we can refuse.
        let api = Caller::start(&tasks, chained_to(&theirs, "api", ours.root_pem()), &[web.address]);
        assert!(api.call(b"hello").await.is_err());
        counted(&web.counters.handshake_failed, 1).await;
        assert_eq!(application.taken(), 0);
    })
    .await;
}

fn chained_to(authority: &MeshAuthority, service: &str, roots_pem: &str) -> Credential {
    let (id, now) = (spiffe_id(service), SystemClock.now());
    let request = SigningRequest::create(&id).unwrap();
    let hour = Duration::from_secs(3600);
    let leaf = authority.sign_leaf(&request.csr_pem, &id, hour, now, &SystemRng).unwrap();
    assert_eq!(*authority.trust_domain(), trust_domain());
    Credential::from_pem(&leaf.chain_pem, &request.key_pem, roots_pem, now).unwrap()
}

#[tokio::test]
async fn an_instance_with_the_certificate_of_another_service_gets_no_call() {
    with_tasks(|tasks| async move {
        let (authority, application) = (authority(), Application::start(&tasks).await);
        let impostor = Web::open(&application, &tasks, certificate(&authority, "other"), from_api());
        let api = Caller::start(&tasks, certificate(&authority, "api"), &[impostor.address]);
        assert!(api.call(b"secret").await.is_err());
        assert_eq!(api.counters.unreachable.load(Ordering::Relaxed), 1);
        counted(&impostor.counters.handshake_failed, 1).await;
        assert_eq!(application.taken(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_denied_service_is_refused() {
    with_tasks(|tasks| async move {
        let (authority, application) = (authority(), Application::start(&tasks).await);
        let web = Web::open(&application, &tasks, certificate(&authority, "web"), from_api());
        let other = Caller::start(&tasks, certificate(&authority, "other"), &[web.address]);
        assert!(other.call(b"hello").await.is_err());
        counted(&web.counters.denied, 1).await;
        assert_eq!(application.taken(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_denial_closes_an_open_connection_within_a_second_and_leaves_others_alone() {
    with_tasks(|tasks| async move {
        let (servers, application) = (Servers::new(), Application::start(&tasks).await);
        let authority = authority();
        let web = Web::closed(&application, &tasks);
        web.credentials.publish(certificate(&authority, "web"));
        servers.set_intentions(vec![intention("*", "web", Action::Allow)]);
        let (connections, address) = (web.connections.clone(), web.address);
        tasks.spawn(intentions::keep(servers.asker(), "web".into(), false, web.intentions));
        let api = Caller::start(&tasks, certificate(&authority, "api"), &[address]);
        let other = Caller::start(&tasks, certificate(&authority, "other"), &[address]);
        while api.call(b"ready?").await.is_err() {}
        timeout(LIMIT, connections.all_closed()).await.unwrap();

        let mut denied = TcpStream::connect(api.local).await.unwrap();
        let mut kept = TcpStream::connect(other.local).await.unwrap();
        for stream in [&mut denied, &mut kept] {
            stream.write_all(b"x").await.unwrap();
            assert_eq!(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap(), b'x');
        }
        servers.set_intentions(vec![intention("api", "web", Action::Deny), intention("*", "web", Action::Allow)]);
        let end = timeout(Duration::from_secs(1), denied.read_u8()).await.expect("it is closed within a second");
        assert!(end.is_err(), "a connection that is cut does not look like one that ended: {end:?}");
        kept.write_all(b"y").await.unwrap();
        assert_eq!(timeout(LIMIT, kept.read_u8()).await.unwrap().unwrap(), b'y');
    })
    .await;
}

#[tokio::test]
async fn nothing_is_accepted_without_a_certificate_or_without_intentions() {
    with_tasks(|tasks| async move {
        let (authority, application) = (authority(), Application::start(&tasks).await);
        let web = Web::closed(&application, &tasks);
        let api = Caller::start(&tasks, certificate(&authority, "api"), &[web.address]);
        assert!(api.call(b"hello").await.is_err());
        web.allow(from_api());
        assert!(api.call(b"hello").await.is_err(), "intentions alone do not open");
        web.credentials.publish(certificate(&authority, "web"));
        assert_eq!(api.call(b"hello").await.unwrap(), b"hello");
        web.credentials.withdraw();
        assert!(api.call(b"hello").await.is_err(), "a withdrawn certificate closes");
        assert_eq!(web.counters.closed.load(Ordering::Relaxed), 3);

        let second = Web::closed(&application, &tasks);
        second.credentials.publish(certificate(&authority, "web"));
        let api = Caller::start(&tasks, certificate(&authority, "api"), &[second.address]);
        assert!(api.call(b"hello").await.is_err(), "a certificate alone does not open");
        assert_eq!(second.counters.closed.load(Ordering::Relaxed), 1);
        assert_eq!(application.taken(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_call_goes_to_another_instance_when_the_first_refuses() {
    with_tasks(|tasks| async move {
        let (authority, application) = (authority(), Application::start(&tasks).await);
        let web = Web::open(&application, &tasks, certificate(&authority, "web"), from_api());
        let impostor = Web::open(&application, &tasks, certificate(&authority, "other"), from_api());
        // Bound, so that nobody else gets the port, and not listening: it refuses.
        let gone = BoundPort::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let instances = [gone.address(), impostor.address, web.address];
        for _ in 0..10 {
            let api = Caller::start(&tasks, certificate(&authority, "api"), &instances);
            assert_eq!(api.call(b"hello").await.unwrap(), b"hello");
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_to_a_service_without_instances_is_refused_at_once() {
    with_tasks(|tasks| async move {
        let api = Caller::start(&tasks, certificate(&authority(), "api"), &[]);
        let error = api.call(b"hello").await.unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
        assert_eq!(api.counters.unreachable.load(Ordering::Relaxed), 1);
    })
    .await;
}

#[tokio::test]
async fn losing_the_servers_changes_nothing_and_their_return_brings_what_was_missed() {
    with_tasks(|tasks| async move {
        let (servers, application) = (Servers::new(), Application::start(&tasks).await);
        let authority = authority();
        let web = Web::closed(&application, &tasks);
        web.credentials.publish(certificate(&authority, "web"));
        servers.set_intentions(from_api());
        servers.set_instances("web", &[web.address.to_string()]);
        let denied = Arc::clone(&web.counters);
        tasks.spawn(intentions::keep(servers.asker(), "web".into(), false, web.intentions));
        let api = Caller::start(&tasks, certificate(&authority, "api"), &[]);
        tasks.spawn(Arc::clone(&api.upstream).keep(servers.asker()));
        while api.call(b"ready?").await.is_err() {}

        servers.set_away(true);
        servers.set_intentions(vec![]);
        for _ in 0..3 {
            assert_eq!(api.call(b"hello").await.unwrap(), b"hello");
        }
        servers.set_away(false);
        let refused = async { while api.call(b"hello").await.is_ok() {} };
        timeout(LIMIT, refused).await.expect("the denial arrives");
        counted(&denied.denied, 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_leaving_sidecar_keeps_open_calls_and_refuses_new_ones() {
    with_tasks(|tasks| async move {
        let (authority, application) = (authority(), Application::start(&tasks).await);
        let web = Web::open(&application, &tasks, certificate(&authority, "web"), from_api());
        let api = Caller::start(&tasks, certificate(&authority, "api"), &[web.address]);
        let mut open = TcpStream::connect(api.local).await.unwrap();
        open.write_all(b"x").await.unwrap();
        assert_eq!(timeout(LIMIT, open.read_u8()).await.unwrap().unwrap(), b'x');
        tasks.spawn(web.drain.clone().run(std::future::ready(()), web.connections.clone(), LIMIT));
        web.drain.begin();
        // The catalog knows, but callers may not yet: they are still served.
        assert_eq!(api.call(b"late").await.unwrap(), b"late");
        web.drain.reached(Phase::Refusing).await;
        let refused = async { while TcpStream::connect(web.address).await.is_ok() {} };
        timeout(LIMIT, refused).await.expect("the port closes");
        open.write_all(b"y").await.unwrap();
        assert_eq!(timeout(LIMIT, open.read_u8()).await.unwrap().unwrap(), b'y');
        drop(open);
        timeout(LIMIT, web.drain.reached(Phase::Drained)).await.expect("the last call has ended");
    })
    .await;
}

#[tokio::test]
async fn what_is_open_when_the_leave_is_over_is_cut() {
    with_tasks(|tasks| async move {
        let (authority, application) = (authority(), Application::start(&tasks).await);
        let web = Web::open(&application, &tasks, certificate(&authority, "web"), from_api());
        let api = Caller::start(&tasks, certificate(&authority, "api"), &[web.address]);
        let mut open = TcpStream::connect(api.local).await.unwrap();
        open.write_all(b"x").await.unwrap();
        assert_eq!(timeout(LIMIT, open.read_u8()).await.unwrap().unwrap(), b'x');
        web.drain.begin();
        web.drain.clone().run(std::future::ready(()), web.connections.clone(), Duration::from_millis(1)).await;
        assert!(timeout(LIMIT, open.read_u8()).await.expect("it is closed").is_err());
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away() {
    with_tasks(|tasks| async move {
        let (authority, application) = (authority(), Application::start(&tasks).await);
        let web = Web::open(&application, &tasks, certificate(&authority, "web"), from_api());
        let api = Caller::start(&tasks, certificate(&authority, "api"), &[web.address]);
        let places: Vec<_> = std::iter::from_fn(|| web.connections.enter()).collect();
        assert!(api.call(b"hello").await.is_err());
        assert_eq!(web.counters.full.load(Ordering::Relaxed), 1);
        drop(places);
    })
    .await;
}
