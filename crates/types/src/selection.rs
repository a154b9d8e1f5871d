//! A question with a choice among its rows: `?filter`, `?near` and `?merge-central-config`.
//!
//! The server that answers chooses, so that rows which nobody wants are not sent. The index and what wakes a reader are
//! those of the question alone, and those of what is merged into its rows.

use minicbor::{Decode, Encode};

use crate::Query;

/// What to do with the rows of an answer, in this order: merge, filter, sort. The number 3 is used up.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Selection {
    /// The question; never a selection itself.
    #[cbor(n(0), decode_with = "decode_plain")]
    pub query: Query,
    /// An expression that a row must satisfy; empty for every row.
    #[n(1)]
    pub filter: String,
    /// Nearest rows first.
    #[n(2)]
    pub near: Option<Near>,
    /// What the rows are completed by before the filter.
    #[n(80)]
    pub merge: Option<Merge>,
}

/// What rows are completed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Merge {
    /// The config entries of proxies and services.
    #[n(0)]
    CentralConfig,
}

/// The node that others are near to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Near {
    /// By name.
    #[n(0)]
    Node(#[n(0)] String),
    /// The one with this address: that of the client that asks.
    #[n(1)]
    Address(#[n(0)] String),
}

/// The number of `Query::Selected`.
const SELECTED: u32 = 30;

/// Takes any question but a selection: within one another they could be as deep as a message is long.
fn decode_plain<C>(decoder: &mut minicbor::Decoder<'_>, context: &mut C) -> Result<Query, minicbor::decode::Error> {
    let mut ahead = decoder.probe();
    ahead.array()?;
    if ahead.u32()? == SELECTED {
        return Err(minicbor::decode::Error::message("a selection within a selection"));
    }
    decoder.decode_with(context)
}
