//! `http_config`: headers of every answer, paths that are not served, and who may write.

use http::{HeaderName, HeaderValue};
pub use lictor_runtime::Block;

/// What the HTTP API adds and refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpConfig {
    /// Headers of every answer.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// What the paths begin with that are not served.
    pub block_endpoints: Vec<String>,
    /// The addresses that may do more than look; empty for all.
    pub allow_write_from: Vec<Block>,
}
