//! Two members with one name: most of the others decide whose it is.

use std::net::SocketAddr;

use super::queries::{INTERNAL, Purpose, Question};
use super::{Core, QueryOptions};
use crate::event::Event;
use crate::wire::serf::{decode_conflict_response, encode_conflict_response, kind};

/// What others said about the holder of this member's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Votes {
    all: usize,
    mine: usize,
}

impl Votes {
    pub(super) fn count(&mut self, payload: &[u8], me: SocketAddr) {
        if let Some((&kind::CONFLICT_RESPONSE, body)) = payload.split_first()
            && let Ok(holder) = decode_conflict_response(body)
        {
            self.all += 1;
            self.mine += usize::from(holder == me);
        }
    }
}

impl Core {
    pub(super) fn ask_who_owns_my_name(&mut self) {
        if self.conflict_query {
            return;
        }
        let name = self.config.name.clone();
        let query = format!("{INTERNAL}conflict");
        let asked = self.ask(&query, name.as_bytes(), &QueryOptions::default(), Purpose::Conflict(Votes::default()));
        match asked {
            Ok(_) => self.conflict_query = true,
            Err(error) => tracing::warn!(%error, "cannot ask who owns my name"),
        }
    }

    pub(super) fn hear_conflict_query(&mut self, question: &Question) {
        let name = String::from_utf8_lossy(&question.payload).into_owned();
        // Both claimants would vote for themselves.
        if name == self.config.name {
            return;
        }
        let mut payload = Vec::new();
        match self.members.place(&name).and_then(|place| self.members.get(place)) {
            Some(slot) => {
                let (record, status) = (&slot.record, slot.status.number());
                let (address, versions) = (record.address(), record.versions());
                encode_conflict_response(record.name(), address, &record.tags(), status, versions, &mut payload);
            }
            None => return,
        }
        self.answer(question, 0, &payload);
    }

    pub(super) fn conflict_decided(&mut self, votes: Votes) {
        self.conflict_query = false;
        if votes.mine > votes.all / 2 || votes.all == 0 {
            tracing::info!(mine = votes.mine, all = votes.all, "most members know me by my name: it stays mine");
            return;
        }
        tracing::warn!(mine = votes.mine, all = votes.all, "most members know another by my name");
        self.emit(Event::NameLost);
    }
}
