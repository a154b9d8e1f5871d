//! `sample`: the workloads that tests and `lictor dev` put behind sidecars. One static program, three behaviours:
//!
//! ```text
//! sample api PORT [--listen IP]
//! sample web PORT [--listen IP] --api IP:PORT
//! sample writer PORT [--listen IP] --agent http://IP:PORT [--token-env NAME] [--prefix KEY/] [--writers N]
//! ```
//!
//! They know nothing of Lictor: `web` calls `api` at a loopback address in plain HTTP, and whoever listens there carries
//! it on.
//! Addresses only, no names are looked up, so that the programs run in an empty image. They end at SIGTERM and SIGINT:
//! the first process of a container has no default for either.

mod http;
mod writer;

use std::{
    env, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use http::{Body, Reply, Request};
use tokio::signal::unix::{SignalKind, signal};

/// Connections served at once; further ones are closed, so that a flood cannot use up memory.
const MAXIMUM_CONNECTIONS: usize = 512;
/// How often `/stream` sends a line.
const STREAM_INTERVAL: Duration = Duration::from_millis(50);
const USAGE: &str = "usage: sample api PORT [--listen IP]
       sample web PORT [--listen IP] --api IP:PORT
       sample writer PORT [--listen IP] --agent http://IP:PORT [--token-env NAME] [--prefix KEY/] [--writers N]";

/// What the command line asks for.
struct Arguments {
    behaviour: String,
    listen: SocketAddr,
    flags: Vec<(String, String)>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let behaviour = words.next().ok_or("no behaviour is named")?;
        let port = words.next().ok_or("no port is given")?;
        let port: u16 = port.parse().map_err(|_| format!("PORT is a number from 0 to 65535, not {port:?}"))?;
        let mut flags = Vec::new();
        while let Some(flag) = words.next() {
            if !["--listen", "--api", "--agent", "--token-env", "--prefix", "--writers"].contains(&flag.as_str()) {
                return Err(format!("there is no flag {flag}"));
            }
            let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
            flags.push((flag, value));
        }
        let mut arguments = Self { behaviour, listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port), flags };
        if let Some(ip) = arguments.flag("--listen") {
            arguments.listen.set_ip(ip.parse().map_err(|_| format!("--listen takes an IP address, not {ip:?}"))?);
        }
        Ok(arguments)
    }

    fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| flag == name).map(|(_, value)| value.as_str())
    }

    fn address(&self, name: &str) -> Result<SocketAddr, String> {
        let value = self.flag(name).ok_or_else(|| format!("{name} is missing"))?;
        let bare = value.strip_prefix("http://").unwrap_or(value).trim_end_matches('/');
        bare.parse().map_err(|_| format!("{name} takes IP:PORT, not {value:?}"))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("sample: {message}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), String> {
    let arguments = Arguments::parse(env::args().skip(1))?;
    let serve = |handler: Handler| {
        let listen = arguments.listen;
        let listener = TcpListener::bind(listen).map_err(|error| format!("cannot listen on {listen}: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        println!("{} listens on {address}", arguments.behaviour);
        thread::spawn(move || serve(&listener, &handler));
        wait_for_the_end().map_err(|error| format!("cannot watch for signals: {error}"))
    };
    match arguments.behaviour.as_str() {
        "api" => serve(Arc::new(api)),
        "web" => {
            let upstream = arguments.address("--api")?;
            serve(Arc::new(move |request| web(&request, upstream)))
        }
        "writer" => {
            let token = match arguments.flag("--token-env") {
                Some(name) => Some(env::var(name).map_err(|_| format!("the environment has no {name}"))?),
                None => None,
            };
            let writers = arguments.flag("--writers").unwrap_or("4");
            let settings = writer::Settings {
                agent: arguments.address("--agent")?,
                token,
                prefix: arguments.flag("--prefix").unwrap_or("sample/").to_owned(),
                writers: writers.parse().map_err(|_| format!("--writers takes a number, not {writers:?}"))?,
            };
            writer::start(settings);
            serve(Arc::new(|_| Reply::text(200, format!("writer on {}\n", pod()))))
        }
        other => Err(format!("there is no behaviour {other:?}")),
    }
}

/// Until SIGTERM or SIGINT; what is open then is cut.
fn wait_for_the_end() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

/// Where this runs: the pod's name where the environment gives it, else the host name as the kernel knows it.
fn pod() -> String {
    env::var("POD_NAME").or_else(|_| env::var("HOSTNAME")).unwrap_or_else(|_| "this machine".to_owned())
}

/// `api`: says who it is, and gives back what it was sent.
fn api(request: Request) -> Reply {
    match (request.method.as_str(), request.path.as_str()) {
        (_, "/stream") => Reply::stream(|out| {
            for line in 0_u64.. {
                http::send(out, format!("{line}\n").as_bytes())?;
                thread::sleep(STREAM_INTERVAL);
            }
            Ok(())
        }),
        ("POST", _) => Reply { status: 200, body: Body::Bytes(request.body) },
        ("GET", "/") => Reply::text(200, format!("api on {}\n", pod())),
        (method, path) => Reply::text(404, format!("api has no {method} {path}\n")),
    }
}

/// `web`: says who it is, and hands everything below `/api` to its upstream.
fn web(request: &Request, upstream: SocketAddr) -> Reply {
    if let Some(rest) = request.path.strip_prefix("/api") {
        let path = if rest.is_empty() { "/" } else { rest };
        return relay(request, path, upstream).unwrap_or_else(|error| {
            Reply::text(502, format!("web could not reach api through {upstream}: {error}\n"))
        });
    }
    match request.path.as_str() {
        "/" => Reply::text(200, format!("web on {}\n", pod())),
        path => Reply::text(404, format!("web has no {path}\n")),
    }
}

/// One request on a connection of its own, so that each shows what the network allows at that moment.
fn relay(request: &Request, path: &str, upstream: SocketAddr) -> io::Result<Reply> {
    let connection = http::connect(upstream)?;
    if path == "/stream" {
        let mut answer = http::begin(connection, &request.method, path, &[], &request.body)?;
        let status = answer.status;
        return Ok(Reply { status, ..Reply::stream(move |out| io::copy(&mut answer.rest, out).map(drop)) });
    }
    let answer = http::begin(connection, &request.method, path, &[("connection", "close")], &request.body)?;
    Ok(Reply { status: answer.status, body: Body::Bytes(answer.into_body()?) })
}

/// How a behaviour answers.
type Handler = Arc<dyn Fn(Request) -> Reply + Send + Sync>;

/// Answers connections for ever, one thread each; `/healthz` is answered for every behaviour.
fn serve(listener: &TcpListener, handler: &Handler) {
    let open = Arc::new(AtomicUsize::new(0));
    for connection in listener.incoming() {
        let Ok(connection) = connection else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= MAXIMUM_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (handler, open) = (Arc::clone(handler), Arc::clone(&open));
        thread::spawn(move || {
            // An error is the peer's end of the connection, which is nothing to report.
            let _ = answer_all(&connection, &handler);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer_all(connection: &TcpStream, handler: &Handler) -> io::Result<()> {
    http::serve(connection, |request| {
        if request.path == "/healthz" { Reply::text(200, "ok\n".to_owned()) } else { handler(request) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(handler: Handler) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        thread::spawn(move || serve(&listener, &handler));
        address
    }

    fn ask(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let connection = http::connect(address).expect("the sample accepts");
        let answer = http::begin(connection, method, path, &[("connection", "close")], body).expect("it answers");
        (answer.status, String::from_utf8(answer.into_body().expect("a whole body")).expect("text"))
    }

    #[test]
    fn web_hands_its_upstreams_status_and_body_on() {
        let api_address = start(Arc::new(api));
        let web_address = start(Arc::new(move |request| web(&request, api_address)));
        assert!(ask(web_address, "GET", "/", b"").1.starts_with("web on "));
        assert!(ask(web_address, "GET", "/api", b"").1.starts_with("api on "));
        assert_eq!(ask(web_address, "POST", "/api", b"marker"), (200, "marker".to_owned()));
        assert_eq!(ask(web_address, "GET", "/api/nothing", b"").0, 404);
        assert_eq!(ask(web_address, "GET", "/healthz", b""), (200, "ok\n".to_owned()));
    }

    #[test]
    fn web_answers_502_with_the_address_when_its_upstream_is_away() {
        let nobody =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port").local_addr().expect("its address");
        let web_address = start(Arc::new(move |request| web(&request, nobody)));
        let (status, text) = ask(web_address, "GET", "/api", b"");
        assert_eq!(status, 502);
        assert!(text.contains(&nobody.to_string()), "{text}");
    }

    #[test]
    fn an_unknown_flag_and_a_bad_address_are_refused() {
        let parse = |line: &str| Arguments::parse(line.split(' ').map(str::to_owned));
        assert_eq!(parse("api 80 --color red").err().as_deref(), Some("there is no flag --color"));
        let arguments = parse("web 80 --api somewhere:90").expect("known flags");
        assert!(arguments.address("--api").is_err_and(|message| message.contains("IP:PORT")));
    }
}
