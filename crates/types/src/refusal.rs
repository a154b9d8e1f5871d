//! Why a request was not served: one form for state, RPC and HTTP.

use minicbor::{Decode, Encode};

/// The kind of a refusal; it decides the HTTP status and whether a retry is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RefusalKind {
    /// The request is wrong: 400.
    #[n(0)]
    BadRequest,
    /// ACLs are off, so nobody can say who asks: 401.
    #[n(1)]
    Unauthorized,
    /// The asker may not: 403.
    #[n(2)]
    Forbidden,
    /// There is no such thing: 404.
    #[n(3)]
    NotFound,
    /// Larger than a limit: 413.
    #[n(4)]
    TooLarge,
    /// Too many at once: 429.
    #[n(5)]
    TooMany,
    /// It cannot be done; Consul answers these with 500.
    #[n(6)]
    Failed,
    /// Nothing was done because no leader could be reached: 500, and a retry is safe.
    #[n(7)]
    NoLeader,
    /// It may or may not have been done: 500. The same request id may be tried again.
    #[n(8)]
    Uncertain,
    /// This server cannot now; nothing was done: 503, and a retry is safe.
    #[n(9)]
    Unavailable,
    /// A conflict with what is there: 409.
    #[n(10)]
    Conflict,
}

/// A refusal: what was wrong, in words for people. Consul's own text where clients match on one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(map)]
#[error("{text}")]
pub struct Refusal {
    /// What kind it is.
    #[n(0)]
    pub kind: RefusalKind,
    /// The words.
    #[n(1)]
    pub text: String,
}

impl Refusal {
    /// A refusal of `kind` that says `text`.
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// 400.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(RefusalKind::BadRequest, text)
    }

    /// 403; the text gets Consul's prefix.
    pub fn permission_denied(text: impl std::fmt::Display) -> Self {
        Self::new(RefusalKind::Forbidden, format!("Permission denied: {text}"))
    }

    /// 403 for a token that nobody knows.
    pub fn acl_not_found() -> Self {
        Self::new(RefusalKind::Forbidden, "ACL not found")
    }

    /// 404.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotFound, text)
    }

    /// 500.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(RefusalKind::Failed, text)
    }

    /// 500 with Consul's text.
    pub fn no_leader() -> Self {
        Self::new(RefusalKind::NoLeader, "No cluster leader")
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self.kind {
            RefusalKind::BadRequest => 400,
            RefusalKind::Unauthorized => 401,
            RefusalKind::Forbidden => 403,
            RefusalKind::NotFound => 404,
            RefusalKind::Conflict => 409,
            RefusalKind::TooLarge => 413,
            RefusalKind::TooMany => 429,
            RefusalKind::Failed | RefusalKind::NoLeader | RefusalKind::Uncertain => 500,
            RefusalKind::Unavailable => 503,
        }
    }

    /// Whether the same request with the same request id may be tried at another server.
    pub fn may_retry(&self) -> bool {
        matches!(self.kind, RefusalKind::NoLeader | RefusalKind::Uncertain | RefusalKind::Unavailable)
    }
}
