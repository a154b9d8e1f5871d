//! Consul's own record of how it read, which some answers hold beside what was read.

use lictor_types::Index;
use serde::Serialize;

use super::caller::Meta;

/// What Consul adds to answers that it does not filter: its own record of how it read.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ReadRecord {
    index: u64,
    last_contact: u64,
    known_leader: bool,
    consistency_level: &'static str,
    not_modified: bool,
    backend: u8,
    #[serde(rename = "ResultsFilteredByACLs")]
    results_filtered_by_acls: bool,
}

impl ReadRecord {
    /// Of a read that nobody can wait on.
    pub(super) fn of(meta: &Meta) -> Self {
        Self {
            index: 0,
            last_contact: meta.last_contact_millis,
            known_leader: meta.known_leader,
            consistency_level: meta.consistency_word(),
            not_modified: false,
            backend: 0,
            results_filtered_by_acls: meta.filtered,
        }
    }

    /// Of what the leader told at `index`.
    pub(super) fn of_leader(index: Index) -> Self {
        Self {
            index: index.0,
            last_contact: 0,
            known_leader: true,
            consistency_level: "leader",
            not_modified: false,
            backend: 0,
            results_filtered_by_acls: false,
        }
    }
}
