//! The wires between the processes: a relay before the server port of each, which knows who dials and can be cut.
//!
//! A cut is silent: bytes wait, as on a network that drops packets, until it is mended.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Who is not heard by whom.
type Cuts = BTreeSet<(usize, usize)>;

/// All relays of a cluster. Members are counted: servers first.
pub(crate) struct Wires {
    cuts: watch::Sender<Cuts>,
    processes: Arc<Mutex<Vec<Option<u32>>>>,
    strangers: Arc<Mutex<(u64, u64)>>,
    _tasks: JoinSet<()>,
}

impl Wires {
    /// Listens at `doors` for who wants to reach `servers`.
    pub(crate) async fn lay(doors: &[String], servers: &[String]) -> Self {
        let (cuts, _) = watch::channel(Cuts::new());
        let (processes, strangers) = (Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        for (to, door) in doors.iter().enumerate() {
            let listener = TcpListener::bind(format!("{door}:8300")).await.expect("a door on loopback");
            let end = format!("{}:8300", servers[to]);
            let relay = Relay {
                to,
                end,
                cuts: cuts.subscribe(),
                processes: Arc::clone(&processes),
                strangers: Arc::clone(&strangers),
            };
            tasks.spawn(relay.listen(listener));
        }
        Self { cuts, processes, strangers, _tasks: tasks }
    }

    /// Tells which process each member is now.
    pub(crate) fn members(&self, processes: Vec<Option<u32>>) {
        *self.processes.lock().expect("nobody panicked") = processes;
    }

    /// Nothing goes from one to the other.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        self.cuts.send_modify(|cuts| {
            cuts.insert((from, to));
        });
    }

    /// All is well.
    pub(crate) fn mend(&self) {
        self.cuts.send_modify(Cuts::clear);
    }

    /// Connections whose process nobody knew, which no cut would have held, and all connections. The process may have
    /// ended meanwhile, so there are always a few.
    pub(crate) fn strangers(&self) -> (u64, u64) {
        *self.strangers.lock().expect("nobody panicked")
    }
}

struct Relay {
    to: usize,
    end: String,
    cuts: watch::Receiver<Cuts>,
    processes: Arc<Mutex<Vec<Option<u32>>>>,
    strangers: Arc<Mutex<(u64, u64)>>,
}

impl Relay {
    async fn listen(self, listener: TcpListener) {
        let mut streams = JoinSet::new();
        loop {
            while streams.try_join_next().is_some() {}
            let Ok((near, peer)) = listener.accept().await else { continue };
            let processes = self.processes.lock().expect("nobody panicked").clone();
            let from = dialler(peer, &processes);
            if processes.iter().any(Option::is_some) {
                let mut strangers = self.strangers.lock().expect("nobody panicked");
                strangers.0 += u64::from(from.is_none());
                strangers.1 += 1;
            }
            let from = from.unwrap_or(usize::MAX);
            let (end, to, cuts) = (self.end.clone(), self.to, self.cuts.clone());
            streams.spawn(async move {
                let mut open = cuts.clone();
                if open.wait_for(|cuts| !cuts.contains(&(from, to)) && !cuts.contains(&(to, from))).await.is_err() {
                    return;
                }
                let Ok(far) = TcpStream::connect(end).await else { return };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                // Either end that closes ends both: half-open connections are not what is looked for here.
                tokio::select! {
                    () = pump(near_read, far_write, (from, to), cuts.clone()) => {}
                    () = pump(far_read, near_write, (to, from), cuts.clone()) => {}
                }
            });
        }
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: (usize, usize), mut cuts: watch::Receiver<Cuts>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if cuts.wait_for(|cuts| !cuts.contains(&way)).await.is_err() || read == 0 {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// The member whose process has the socket that dialled from `peer`.
fn dialler(peer: SocketAddr, processes: &[Option<u32>]) -> Option<usize> {
    let SocketAddr::V4(peer) = peer else { return None };
    let wanted = format!("{:08X}:{:04X}", u32::from_le_bytes(peer.ip().octets()), peer.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let line = sockets.lines().find(|line| line.split_whitespace().nth(1) == Some(&wanted))?;
    let wanted = format!("socket:[{}]", line.split_whitespace().nth(9)?);
    processes.iter().position(|process| {
        let Some(process) = process else { return false };
        let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        open.filter_map(|it| std::fs::read_link(it.path()).ok()).any(|link| link == Path::new(&wanted))
    })
}
