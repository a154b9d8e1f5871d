//! Questions about other domains, passed on to the recursors that the configuration names.
//!
//! Invariants
//! - Every question goes out under a fresh random id from a socket, and so a port, of its own; an answer to another question, or
//!   from another address, is no answer.
//! - A recursor has `recursor_timeout`; there is one try with each.
//! - A question of ours that comes back to us ends here: an agent that is its own recursor does not ask itself for ever.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use lictor_runtime::Rng;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::resolve::Transport;
use crate::config::DnsConfig;

/// Bytes of the largest answer over UDP.
const ANSWER_BYTES_MAX: usize = 65_535;
/// Bytes that we take over UDP when we ask on our own behalf.
const PAYLOAD_BYTES: u16 = 1232;

/// How recursors are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// In the order they are written.
    #[default]
    Sequential,
    /// In another order for every question.
    Random,
}

/// The questions that are with recursors now.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<HashSet<(u16, Vec<Query>)>>);

/// One of them, for as long as this lives.
struct Asked<'a> {
    under_way: &'a UnderWay,
    key: (u16, Vec<Query>),
}

impl UnderWay {
    fn ask(&self, id: u16, queries: &[Query]) -> Asked<'_> {
        let key = (id, queries.to_vec());
        self.0.lock().insert(key.clone());
        Asked { under_way: self, key }
    }

    /// Whether this is one of them, come back. Another one is taken for it once in 65,536 times that the same is asked at the same
    /// time.
    fn holds(&self, request: &Message) -> bool {
        self.0.lock().contains(&(request.metadata.id, request.queries.clone()))
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.under_way.0.lock().remove(&self.key);
    }
}

/// Passes `request` on. The first answer that is one, or that says that there is none, is the client's; none when no recursor
/// gave one.
pub(super) async fn forward(
    settings: &DnsConfig,
    rng: &dyn Rng,
    request: &Message,
    transport: Transport,
    under_way: &UnderWay,
) -> Option<Message> {
    if under_way.holds(request) {
        tracing::warn!(question = ?request.queries, "a question that went to a recursor came back here: recursors must not name this agent");
        return None;
    }
    let mut recursors = settings.recursors.clone();
    if settings.recursor_strategy == Strategy::Random {
        for last in (1..recursors.len()).rev() {
            recursors.swap(last, rng.below(last as u64 + 1) as usize);
        }
    }
    for recursor in recursors {
        let id = rng.next_u64() as u16;
        let _asked = under_way.ask(id, &request.queries);
        match ask(recursor, id, request, transport, settings.recursor_timeout).await {
            Ok(mut answer) => {
                let code = answer.metadata.response_code;
                if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
                    answer.metadata.id = request.metadata.id;
                    answer.metadata.recursion_available = true;
                    return Some(answer);
                }
                tracing::debug!(%recursor, %code, "a recursor has no answer");
            }
            Err(error) => tracing::debug!(%recursor, %error, "a recursor does not answer"),
        }
    }
    None
}

/// The records of `name` by the recursors, for an answer of ours that leads there.
pub(super) async fn lookup(settings: &DnsConfig, rng: &dyn Rng, name: &Name, kind: RecordType) -> Vec<Record> {
    if settings.recursors.is_empty() {
        return Vec::new();
    }
    let mut request = Message::new(0, MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_BYTES);
    request.set_edns(edns);
    let answer = forward(settings, rng, &request, Transport::Udp, &UnderWay::default()).await;
    let wanted = |record: &Record| {
        matches!(record.record_type(), RecordType::A | RecordType::AAAA | RecordType::CNAME)
            || record.record_type() == kind
    };
    answer.map(|answer| answer.answers.into_iter().filter(wanted).collect()).unwrap_or_default()
}

async fn ask(
    recursor: SocketAddr,
    id: u16,
    request: &Message,
    transport: Transport,
    limit: Duration,
) -> io::Result<Message> {
    let mut question = request.clone();
    question.metadata.id = id;
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let exchange = async {
        match transport {
            Transport::Udp => over_udp(recursor, &bytes, &question).await,
            Transport::Tcp => over_tcp(recursor, &bytes, &question).await,
        }
    };
    tokio::time::timeout(limit, exchange).await.map_err(io::Error::from)?
}

async fn over_udp(recursor: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let any = if recursor.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From now on the kernel drops what comes from elsewhere.
    socket.connect(recursor).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not answer this question may be forged: the right one may still come.
        if let Some(answer) = answering(&buffer[..length], question) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(recursor: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(recursor).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    answering(&buffer, question).ok_or_else(|| io::Error::other("it answers another question"))
}

/// The answer to `question` in these bytes, if they are one.
fn answering(bytes: &[u8], question: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let is_it = answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && answer.queries == question.queries;
    is_it.then_some(answer)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hickory_proto::rr::RData;
    use hickory_proto::rr::rdata::A;
    use lictor_runtime::{SeededRng, Tasks};

    use super::*;

    /// A recursor that answers with `code`, and first sends something forged. It writes down whom it heard of.
    pub(crate) async fn recursor(code: ResponseCode, heard: Arc<Mutex<Vec<(u16, u16)>>>, tasks: &Tasks) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let request = Message::from_vec(&buffer[..length]).unwrap();
                heard.lock().push((request.metadata.id, from.port()));
                let mut answer = Message::response(request.metadata.id, OpCode::Query);
                answer.metadata.response_code = code;
                answer.queries.clone_from(&request.queries);
                let name = request.queries[0].name.clone();
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
                let mut forged = answer.clone();
                forged.metadata.id = forged.metadata.id.wrapping_add(1);
                forged.answers.clear();
                for message in [forged, answer] {
                    socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        address
    }

    fn settings(recursors: Vec<SocketAddr>, recursor_strategy: Strategy) -> DnsConfig {
        DnsConfig { recursors, recursor_strategy, recursor_timeout: Duration::from_secs(2), ..DnsConfig::default() }
    }

    #[tokio::test]
    async fn the_first_recursor_with_an_answer_counts_and_every_id_and_port_is_new() {
        let (tasks, rng) = (Tasks::new(), SeededRng::new(3));
        let [bad, good] = [Arc::default(), Arc::<Mutex<Vec<(u16, u16)>>>::default()];
        let recursors = vec![
            recursor(ResponseCode::ServFail, Arc::clone(&bad), &tasks).await,
            recursor(ResponseCode::NoError, Arc::clone(&good), &tasks).await,
        ];
        let settings = settings(recursors, Strategy::Sequential);
        let name = Name::from_ascii("www.example.com.").unwrap();
        for _ in 0..3 {
            assert_eq!(lookup(&settings, &rng, &name, RecordType::A).await.len(), 1);
        }
        assert_eq!(bad.lock().len(), 3);
        let good = good.lock();
        let distinct: std::collections::BTreeSet<_> = good.iter().collect();
        assert_eq!(distinct.len(), 3, "{good:?}");
        assert!(good.iter().all(|(id, _)| *id != 0), "{good:?}");
        tasks.cancel();
    }

    #[tokio::test]
    async fn a_question_that_comes_back_is_not_passed_on_again() {
        let (tasks, rng, under_way) = (Tasks::new(), SeededRng::new(3), UnderWay::default());
        let heard = Arc::<Mutex<Vec<(u16, u16)>>>::default();
        let settings =
            settings(vec![recursor(ResponseCode::NoError, Arc::clone(&heard), &tasks).await], Strategy::Sequential);
        let mut request = Message::new(7, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(Name::from_ascii("www.example.com.").unwrap(), RecordType::A));
        let pass_on = async || forward(&settings, &rng, &request, Transport::Udp, &under_way).await.is_some();
        {
            let _asked = under_way.ask(7, &request.queries);
            assert!(!pass_on().await, "it went round");
        }
        assert!(heard.lock().is_empty());
        assert!(pass_on().await, "a question of somebody else");
        assert!(under_way.0.lock().is_empty());
        tasks.cancel();
    }

    #[tokio::test]
    async fn a_random_order_asks_all_of_them_first_at_some_time() {
        let (tasks, rng) = (Tasks::new(), SeededRng::new(3));
        let [one, two] = [Arc::default(), Arc::<Mutex<Vec<(u16, u16)>>>::default()];
        let recursors = vec![
            recursor(ResponseCode::NoError, Arc::clone(&one), &tasks).await,
            recursor(ResponseCode::NoError, Arc::clone(&two), &tasks).await,
        ];
        let settings = settings(recursors, Strategy::Random);
        for _ in 0..20 {
            lookup(&settings, &rng, &Name::from_ascii("x.example.").unwrap(), RecordType::A).await;
        }
        assert!(one.lock().len() > 3 && two.lock().len() > 3);
        tasks.cancel();
    }
}
