//! Many clients that wait for one key, each on a connection of its own: a blocking query, or a watch stream of etcd.
//!
//! The clients are as cheap as can be, since all of them wake at once: a socket, one write, and what comes back.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use lictor_runtime::Tasks;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::compare::systems::{Group, System};
use crate::connection::{Connection, Door, GRPC_PREFIX, grpc_frame, grpc_request, runtime};
use crate::etcd::{Watch, WatchAnswer, WatchCreate};
use crate::load::shares;

/// All of them must be parked, and later answered, within this.
const LIMIT: Duration = Duration::from_secs(60);
/// Between the last question and the write.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections that one thread opens at a time.
const AT_ONCE: usize = 32;
const KEY: &str = "watched";

/// What came of it.
pub(crate) struct Woken {
    /// From the start of the write to the last answer.
    pub(crate) last: Duration,
    /// Watchers with no answer, a wrong one, or one that came before the write.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

/// Parks `count` watchers at a server, calls `parked`, writes, and waits for all of them.
pub(crate) fn run<T>(
    group: &Group,
    place: usize,
    count: usize,
    parked: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(Woken, T)> {
    group.write(place, KEY)?;
    let address = group.address(place);
    let question = if group.system == System::Etcd { None } else { Some(question(&address)?) };
    std::thread::scope(|scope| {
        let (told, all_parked) = channel();
        let threads: Vec<_> = shares(count)
            .map(|share| {
                let (told, address, question) = (told.clone(), address.as_str(), question.as_deref());
                scope.spawn(move || runtime()?.block_on(watch(address, question, share, &told)))
            })
            .collect();
        drop(told);
        for _ in &threads {
            // A thread that failed says so below.
            if all_parked.recv_timeout(LIMIT).is_err() {
                break;
            }
        }
        std::thread::sleep(SETTLE);
        let looked = parked();
        let begun = Instant::now();
        group.write(place, KEY)?;
        let (mut times, mut first_error) = (Vec::new(), None);
        for thread in threads {
            let (some, error) = thread.join().map_err(|_| anyhow::anyhow!("a thread of watchers panicked"))??;
            times.extend(some);
            first_error = first_error.or(error);
        }
        let good: Vec<_> = times.iter().filter_map(|it| it.checked_duration_since(begun)).collect();
        let Some(last) = good.iter().max().copied() else {
            bail!("no watcher was answered: {}", first_error.unwrap_or_default());
        };
        Ok((Woken { last, errors: (count - good.len()) as u64, first_error }, looked?))
    })
}

/// A blocking query for what comes after now.
fn question(address: &str) -> anyhow::Result<String> {
    let answer = runtime()?.block_on(async {
        let mut stream = TcpStream::connect(address.parse::<SocketAddr>()?).await?;
        stream.write_all(format!("GET /v1/kv/{KEY} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        tokio::time::timeout(LIMIT, answer(&mut stream)).await?
    })?;
    let index = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-consul-index").then(|| value.trim().to_owned())
    });
    let index = index.context("an answer without X-Consul-Index")?;
    Ok(format!("GET /v1/kv/{KEY}?index={index}&wait=120s HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

type Answers = (Vec<Instant>, Option<String>);

async fn watch(address: &str, question: Option<&str>, count: usize, told: &Sender<()>) -> anyhow::Result<Answers> {
    let tasks = Tasks::new();
    let opened = stream::iter(0..count).map(|_| Parked::open(address, question, &tasks)).buffer_unordered(AT_ONCE);
    let opened: Vec<_> = tokio::time::timeout(LIMIT, opened.collect()).await.context("not all could be parked")?;
    let parked = opened.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    told.send(()).context("nobody waits for the watchers")?;
    let answers: RefCell<Answers> = RefCell::default();
    let wait = async |mut parked: Parked| match parked.answer().await {
        Ok(at) => answers.borrow_mut().0.push(at),
        Err(error) => drop(answers.borrow_mut().1.get_or_insert_with(|| format!("{error:#}")).len()),
    };
    let all = join_all(parked.into_iter().map(wait));
    if tokio::time::timeout(LIMIT, all).await.is_err() {
        answers.borrow_mut().1.get_or_insert_with(|| format!("not all were answered within {LIMIT:?}"));
    }
    tasks.cancel();
    Ok(answers.into_inner())
}

/// One watcher that waits.
enum Parked {
    Http(TcpStream),
    Grpc { body: Incoming, _connection: Connection },
}

impl Parked {
    async fn open(address: &str, question: Option<&str>, tasks: &Tasks) -> anyhow::Result<Self> {
        let Some(question) = question else { return Self::open_stream(address, tasks).await };
        let mut stream = TcpStream::connect(address.parse::<SocketAddr>()?).await?;
        stream.write_all(question.as_bytes()).await?;
        Ok(Self::Http(stream))
    }

    async fn open_stream(address: &str, tasks: &Tasks) -> anyhow::Result<Self> {
        let mut connection = Connection::open(Door::Grpc, address, tasks).await?;
        let Connection::Grpc(sender) = &mut connection else { bail!("it was opened for gRPC") };
        let create = Watch { create: Some(WatchCreate { key: Bytes::from_static(KEY.as_bytes()) }) };
        let first = Ok(Frame::data(grpc_frame(&create)));
        // The stream of questions stays open as long as the watch.
        let body = StreamBody::new(stream::iter([first]).chain(stream::pending()));
        sender.ready().await?;
        let request = grpc_request(address, "etcdserverpb.Watch/Watch", body.boxed_unsync())?;
        let mut body = sender.send_request(request).await?.into_body();
        if !message(&mut body).await?.created {
            bail!("the watch was not created");
        }
        Ok(Self::Grpc { body, _connection: connection })
    }

    /// Waits for the change; when it came.
    async fn answer(&mut self) -> anyhow::Result<Instant> {
        match self {
            Self::Http(stream) => {
                // No memory is taken while it waits.
                stream.readable().await?;
                let answer = answer(stream).await?;
                if !answer.starts_with("HTTP/1.1 200") {
                    bail!("{}", answer.lines().next().unwrap_or_default());
                }
            }
            Self::Grpc { body, .. } => while message(body).await?.events.is_empty() {},
        }
        Ok(Instant::now())
    }
}

/// One message of a stream of answers.
async fn message(body: &mut Incoming) -> anyhow::Result<WatchAnswer> {
    let mut read = BytesMut::new();
    loop {
        if let Some(length) = read.get(1..GRPC_PREFIX).and_then(|it| it.try_into().ok()).map(u32::from_be_bytes)
            && read.len() >= GRPC_PREFIX + length as usize
        {
            read.advance(GRPC_PREFIX);
            return Ok(WatchAnswer::decode(read.split_to(length as usize))?);
        }
        let frame = body.frame().await.context("the watch ended")??;
        read.extend_from_slice(&frame.into_data().map_err(|_| anyhow::anyhow!("the watch ended with trailers"))?);
    }
}

/// One whole answer with its length in the head.
async fn answer(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut read = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            bail!("the connection was closed");
        }
        if is_whole(&read) {
            return Ok(String::from_utf8_lossy(&read).into_owned());
        }
    }
}

fn is_whole(read: &[u8]) -> bool {
    let Some(head) = read.windows(4).position(|it| it == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&read[..head]);
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    length.is_some_and(|length| read.len() >= head + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntru"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"));
    }
}
