//! The few messages of etcd's gRPC that are needed to measure it by its own protocol and not by its JSON gateway.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use prost::Message;

use crate::connection::{Door, alone, grpc_frame, grpc_request};

/// `etcdserverpb.PutRequest`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// `etcdserverpb.RangeRequest`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Range {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bool, tag = "7")]
    pub(crate) serializable: bool,
}

/// `etcdserverpb.WatchRequest` with a create request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Watch {
    #[prost(message, optional, tag = "1")]
    pub(crate) create: Option<WatchCreate>,
}

/// `etcdserverpb.WatchCreateRequest`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchCreate {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
}

/// `etcdserverpb.WatchResponse`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchAnswer {
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub(crate) events: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

/// `etcdserverpb.StatusResponse`
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// A put of this value.
pub(crate) fn put(address: &str, key: String, value: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
    let message = Put { key: key.into(), value };
    grpc_request(address, "etcdserverpb.KV/Put", Full::new(grpc_frame(&message)))
}

/// A read of one key; one that is not serializable is linearizable.
pub(crate) fn range(address: &str, key: String, serializable: bool) -> anyhow::Result<Request<Full<Bytes>>> {
    let message = Range { key: key.into(), serializable };
    grpc_request(address, "etcdserverpb.KV/Range", Full::new(grpc_frame(&message)))
}

/// Whether this server says that it leads.
pub(crate) fn leads(address: &str) -> anyhow::Result<bool> {
    let body = Full::new(grpc_frame(&StatusRequest {}));
    let (_, answer) = alone(Door::Grpc, address, grpc_request(address, "etcdserverpb.Maintenance/Status", body)?)?;
    let status = Status::decode(answer)?;
    Ok(status.leader != 0 && status.leader == status.header.context("a status without a header")?.member_id)
}
