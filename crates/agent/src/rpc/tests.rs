//! Both halves against each other over streams in memory.

use lictor_types::Command;
use lictor_types::command::KvCommand;
use lictor_types::rpc::WriteRequest;
use lictor_types::rpc::{Operation, Report, RequestBody};
use lictor_types::{Credential, KvVerb};

use super::*;
use crate::testing::Network;

/// Says whom it serves, and hangs when asked for members.
struct Echo;

impl Handler for Echo {
    fn handle(&self, peer: PeerIdentity, request: Request) -> Boxed<'_, Response> {
        Box::pin(async move {
            match request.body {
                RequestBody::Operate(Operation::Members) => std::future::pending().await,
                RequestBody::Operate(Operation::Probe) => Response::Refused(Refusal::failed(format!("{peer:?}"))),
                _ => Response::Report(Report::Done),
            }
        })
    }
}

fn operation(operation: Operation) -> Request {
    Request { credential: Credential::anonymous(), body: RequestBody::Operate(operation), forwarded: false }
}

async fn connected(network: &Network, tasks: &Tasks) -> RpcConnection {
    network.serve("server:1", PeerIdentity::Client { node: "n1".into() }, Arc::new(Echo), tasks);
    RpcConnection::connect(&network.transport(), "server:1", tasks).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_server_knows_the_peer_from_the_connection() {
    let (network, tasks) = (Network::default(), Tasks::new());
    let connection = connected(&network, &tasks).await;
    let answer = connection.call(operation(Operation::Probe), Duration::from_secs(1)).await.unwrap();
    let Response::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!(refusal.text, "Client { node: \"n1\" }");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_at_its_deadline_and_others_go_on() {
    let (network, tasks) = (Network::default(), Tasks::new());
    let connection = connected(&network, &tasks).await;
    let limit = Duration::from_secs(2);
    let (slow, quick) = tokio::join!(
        connection.call(operation(Operation::Members), limit),
        connection.call(operation(Operation::Status), limit)
    );
    assert_eq!(slow, Err(RpcError::Deadline { address: "server:1".into(), limit }));
    assert_eq!(quick, Ok(Response::Report(Report::Done)));
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_is_refused_and_the_connection_lives() {
    let (network, tasks) = (Network::default(), Tasks::new());
    let connection = connected(&network, &tasks).await;
    let value = vec![0; REQUEST_BYTES_MAX + 1];
    let command = Command::Kv(KvCommand { verb: KvVerb::Set, key: "k".into(), value, flags: 0 });
    let body = RequestBody::Write(Box::new(WriteRequest { request_id: [0; 16], command }));
    let request = Request { credential: Credential::anonymous(), body, forwarded: false };
    let error = connection.call(request, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, RpcError::Message { .. }), "{error:?}");
    let answer = connection.call(operation(Operation::Status), Duration::from_secs(1)).await;
    assert_eq!(answer, Ok(Response::Report(Report::Done)));
}

#[tokio::test(start_paused = true)]
async fn nobody_at_an_address_is_an_error_that_asked_nothing() {
    let (network, tasks) = (Network::default(), Tasks::new());
    let error = RpcConnection::connect(&network.transport(), "nobody:1", &tasks).await.err().unwrap();
    assert!(error.to_string().starts_with("rpc error getting client: failed to get conn: "), "{error}");
    assert_eq!(error.into_refusal().kind, RefusalKind::NoLeader);
}
