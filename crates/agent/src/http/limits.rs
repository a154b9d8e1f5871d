//! The limits of the HTTP door.

use std::time::Duration;

use crate::config::Limits;

/// Bytes in the largest JSON body.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// How much one request may ask of the HTTP door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpLimits {
    /// Bytes in the largest value of a key (`limits.kv_max_value_size`).
    pub(super) value_bytes: usize,
    /// Bytes in the body of the largest transaction (`limits.txn_max_req_len`).
    pub(super) transaction_bytes: usize,
    /// Bytes in the largest JSON body.
    pub(super) body_bytes: usize,
    /// How long a blocking query waits that does not say.
    pub(super) default_query_time: Duration,
    /// How long a blocking query may wait.
    pub(super) max_query_time: Duration,
}

#[cfg(test)]
impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            value_bytes: BODY_BYTES_MAX,
            transaction_bytes: BODY_BYTES_MAX,
            body_bytes: BODY_BYTES_MAX,
            default_query_time: Duration::from_secs(300),
            max_query_time: Duration::from_secs(600),
        }
    }
}

impl From<&Limits> for HttpLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            value_bytes: limits.kv_max_value_size,
            transaction_bytes: limits.txn_max_req_len,
            body_bytes: BODY_BYTES_MAX,
            default_query_time: limits.default_query_time,
            max_query_time: limits.max_query_time,
        }
    }
}
