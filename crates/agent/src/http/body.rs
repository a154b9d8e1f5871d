//! Request bodies: bounded before they are read.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lictor_types::Refusal;
use lictor_types::refusal::RefusalKind;
use std::sync::Arc;

use super::Door;
use super::failure::Failure;

/// The body of a JSON endpoint.
pub(super) struct JsonBody(pub(super) Bytes);

/// The body of a KV write: any bytes.
pub(super) struct ValueBody(pub(super) Bytes);

/// The body of a transaction.
pub(super) struct TransactionBody(pub(super) Bytes);

impl FromRequest<Arc<Door>> for TransactionBody {
    type Rejection = Failure;
    async fn from_request(request: Request, door: &Arc<Door>) -> Result<Self, Failure> {
        const HINT: &str = " See https://developer.hashicorp.com/docs/agent/config/config-files#txn_max_req_len.";
        Ok(Self(read(request.into_body(), door.limits().transaction_bytes, HINT).await?))
    }
}

impl FromRequest<Arc<Door>> for JsonBody {
    type Rejection = Failure;
    async fn from_request(request: Request, door: &Arc<Door>) -> Result<Self, Failure> {
        Ok(Self(read(request.into_body(), door.limits().body_bytes, "").await?))
    }
}

impl FromRequest<Arc<Door>> for ValueBody {
    type Rejection = Failure;
    async fn from_request(request: Request, door: &Arc<Door>) -> Result<Self, Failure> {
        const HINT: &str = " See https://developer.hashicorp.com/docs/agent/config/config-files#kv_max_value_size.";
        Ok(Self(read(request.into_body(), door.limits().value_bytes, HINT).await?))
    }
}

async fn read(body: Body, limit: usize, hint: &str) -> Result<Bytes, Refusal> {
    let too_large = |length: u64| {
        Refusal::new(
            RefusalKind::TooLarge,
            format!("Request body({length} bytes) too large, max size: {limit} bytes.{hint}"),
        )
    };
    // A body that names its length is refused before a byte of it is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(body.size_hint().lower()));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit as u64 + 1)),
        Err(error) => Err(Refusal::bad_request(format!("the request body cannot be read: {error}"))),
    }
}
