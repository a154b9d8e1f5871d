//! What the sockets share: the prepared answers, and how one comes to be.
//!
//! ```text
//! packet ─> kept? ─yes─> written at once
//!             └─no─> made: rows through the waist ─> records ─> prepared ─> kept where the state is here ─> written for the asker
//! ```
//!
//! Where the state is in this process, an answer is kept as long as the state is the same, and is looked at anew when it is not:
//! if the rows are the same ones the records stay. Where it is not, every answer is read anew, once for all who ask at that time;
//! while no server answers, the last one is given again, no older than `dns_config.max_stale`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hickory_proto::op::{Query as Asked, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use lictor_types::refusal::RefusalKind;
use lictor_types::{Refusal, RowsMark};

use super::alias;
use super::answer::{Sections, Subject};
use super::flights::Flights;
use super::kept::{KeptAnswer, KeptAnswers, Terms};
use super::name::Wanted;
use super::packet;
use super::prepared::{Manner, Prepared, Scratch};
use super::recurse::UnderWay;
use super::resolve::{Asking, Transport, Zones, instances, resolved, wanted, with_limit};
use super::size::Style;
use crate::agent::Agent;

/// How long servers may take before the answer that they gave last is given again.
const SERVERS_PATIENCE: Duration = Duration::from_secs(1);

/// What all sockets of an agent's DNS door share.
pub(super) struct Door {
    pub(super) agent: Arc<Agent>,
    pub(super) zones: Zones,
    kept: KeptAnswers,
    flights: Flights<Made>,
    /// What servers answered last, for the time when none does.
    last: KeptAnswers,
    /// The questions about other domains that are passed on now.
    pub(super) passed_on: UnderWay,
}

/// What was made for all who ask the same.
#[derive(Clone)]
enum Made {
    /// Bytes.
    Prepared(Arc<KeptAnswer>),
    /// Records that are not the same for all, or that lead elsewhere.
    Records(Arc<Sections>),
    /// Nothing, and why.
    Failed(ResponseCode),
}

/// An answer that others may have got as well.
pub(super) enum Shared {
    /// A message, whole.
    Written(Vec<u8>),
    /// What a message is to be made of.
    Sections(Sections),
}

impl Door {
    /// The door of `agent`. `resolv_conf` is the text of this machine's file.
    pub(super) fn of(agent: &Arc<Agent>, resolv_conf: &str) -> Arc<Self> {
        let zones = Zones::of(agent, resolv_conf);
        Arc::new(Self {
            agent: Arc::clone(agent),
            zones,
            kept: KeptAnswers::default(),
            flights: Flights::default(),
            last: KeptAnswers::default(),
            passed_on: UnderWay::default(),
        })
    }

    /// What a kept answer must have been made under to be given now; none where every answer must be read.
    pub(super) fn terms(&self) -> Option<Terms> {
        let config = self.agent.config.load_full();
        if !config.dns.allow_stale {
            return None;
        }
        let token = self.agent.tokens.dns();
        let standing = self.agent.datacenter.standing(&token)?;
        let version = standing.version;
        (standing.last_contact <= config.dns.max_stale).then_some(Terms { config, token, version })
    }

    /// Writes the answer to `asked` if it is there and right under `terms`, which were taken after the question came.
    pub(super) fn at_once(
        &self,
        asked: &packet::Asked<'_>,
        terms: &Terms,
        transport: Transport,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> bool {
        let room = transport.room(asked.payload, &terms.config.dns);
        let write = |prepared: &Prepared| {
            prepared.write(asked, room, self.serial(), &*self.agent.rng, scratch, out);
        };
        self.kept.get(asked.key().bytes(), terms, write).is_some()
    }

    /// Bytes that are kept, about.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// The number of the zone: seconds since the epoch, which wrap around by definition (RFC 1982).
    fn serial(&self) -> u32 {
        (self.agent.clock.unix_millis() / 1000) as u32
    }

    /// The answer to `asked` if it is one that may be the same for others: about nodes and services of ours.
    pub(super) async fn shared(self: &Arc<Self>, asked: &packet::Asked<'_>, transport: Transport) -> Option<Shared> {
        let mut out = Vec::new();
        let terms = self.terms();
        if let Some(terms) = &terms
            && self.at_once(asked, terms, transport, &mut Scratch::default(), &mut out)
        {
            return Some(Shared::Written(out));
        }
        let key = asked.key();
        let question = Asked::read(&mut BinDecoder::new(key.bytes())).ok()?;
        let domain = self.zones.holding(&question.name)?.clone();
        let is_about_rows = {
            let asking = Asking::of(&self.agent);
            let wanted = wanted(&asking.subject(&question, &domain));
            let is_of_the_zone =
                matches!(question.query_type, RecordType::SOA | RecordType::NS | RecordType::AXFR | RecordType::IXFR);
            !is_of_the_zone && matches!(wanted, Some(it) if !matches!(it, Wanted::Address(_) | Wanted::Query(_)))
        };
        if !is_about_rows {
            return None;
        }
        let name = question.name.clone();
        let made = match terms {
            Some(terms) => self.make_for_all(key.bytes(), question, domain, &terms).await,
            None => self.read_for_all(key.bytes(), question, domain).await,
        };
        Some(match made {
            Made::Prepared(answer) => {
                let settings = &self.agent.config.load_full().dns;
                let room = transport.room(asked.payload, settings);
                let rng = &*self.agent.rng;
                answer.prepared.write(asked, room, self.serial(), rng, &mut Scratch::default(), &mut out);
                Shared::Written(out)
            }
            Made::Records(sections) => Shared::Sections(self.for_asker(asked, &name, &sections)),
            Made::Failed(code) => Shared::Sections(Sections { code: Some(code), ..Sections::default() }),
        })
    }

    /// Makes the answer and keeps it.
    async fn make_for_all(&self, key: &[u8], question: Asked, domain: Name, terms: &Terms) -> Made {
        let asking = Asking::under(&self.agent, terms);
        let older = self.kept.older(key, terms);
        match with_limit(&question.name, self.make(&asking, &question, &domain, terms.version, older)).await {
            Ok(Made::Prepared(answer)) => {
                self.kept.keep(key, terms, Arc::clone(&answer));
                Made::Prepared(answer)
            }
            Ok(made) => made,
            Err(code) => Made::Failed(code),
        }
    }

    /// The answer as a server has it; as it was last where no server says so in time.
    async fn read_for_all(self: &Arc<Self>, key: &[u8], question: Asked, domain: Name) -> Made {
        let name = question.name.clone();
        let (door, kept_under) = (Arc::clone(self), Box::<[u8]>::from(key));
        let read = || async move { door.make_once(&kept_under, question, domain).await }.boxed();
        let flight = self.flights.join(key, read);
        // Whoever waits has a limit of its own: the read that is shared may have begun for others.
        let answered = with_limit(&name, flight.map(Ok)).map(|answered| answered.unwrap_or_else(Made::Failed));
        let Some(last) = self.last_answer(key) else { return answered.await };
        match tokio::time::timeout(SERVERS_PATIENCE, answered).await {
            Ok(Made::Failed(ResponseCode::ServFail)) | Err(_) => Made::Prepared(last),
            Ok(made) => made,
        }
    }

    /// What a server answered last, if that is not too old.
    fn last_answer(&self, key: &[u8]) -> Option<Arc<KeptAnswer>> {
        let terms = self.terms_of_now()?;
        let last = self.last.older(key, &terms)?;
        let age = Duration::from_millis(terms.version.saturating_sub(last.version()));
        (age <= terms.config.dns.max_stale).then_some(last)
    }

    /// What an answer of a server is kept under: its version is the time. None where every answer must be read.
    fn terms_of_now(&self) -> Option<Terms> {
        let config = self.agent.config.load_full();
        let version = self.agent.clock.unix_millis();
        config.dns.allow_stale.then(|| Terms { config, token: self.agent.tokens.dns(), version })
    }

    /// Makes the answer for those who wait for it.
    async fn make_once(&self, key: &[u8], question: Asked, domain: Name) -> Made {
        let asking = Asking::of(&self.agent);
        match with_limit(&question.name, self.make(&asking, &question, &domain, 0, None)).await {
            Ok(Made::Prepared(answer)) => {
                if let Some(terms) = self.terms_of_now() {
                    self.last.keep(key, &terms, Arc::clone(&answer));
                }
                Made::Prepared(answer)
            }
            Ok(made) => made,
            Err(code) => Made::Failed(code),
        }
    }

    async fn make(
        &self,
        asking: &Asking<'_>,
        question: &Asked,
        domain: &Name,
        version: u64,
        older: Option<Arc<KeptAnswer>>,
    ) -> Result<Made, Refusal> {
        let subject = asking.subject(question, domain);
        let (mut sections, rows) = match records(asking, &subject, older.as_deref()).await {
            Ok(Found::Same) => return Ok(older.map_or(Made::Failed(ResponseCode::ServFail), Made::Prepared)),
            Ok(Found::Other(sections, rows)) => (sections, rows),
            // Who may not see a name is told that there is none.
            Err(refusal) if refusal.kind == RefusalKind::Forbidden => (subject.absent(), None),
            Err(refusal) => return Err(refusal),
        };
        if alias::leads_elsewhere(asking, &sections) {
            alias::follow(asking, &self.zones, question.query_type, &mut sections).await?;
            return Ok(Made::Records(Arc::new(sections)));
        }
        let manner = Manner {
            style: Style::of(asking.settings()),
            recursion_available: !asking.settings().recursors.is_empty(),
            shuffled: rows.is_some(),
            most: subject.most(),
        };
        match Prepared::of(&sections, &question.name, domain, manner) {
            Ok(Some(prepared)) => Ok(Made::Prepared(Arc::new(KeptAnswer::new(prepared, rows, version)))),
            Ok(None) => Ok(Made::Records(Arc::new(sections))),
            Err(error) => {
                tracing::warn!(%error, name = %question.name, "a DNS answer cannot be encoded");
                Ok(Made::Failed(ResponseCode::ServFail))
            }
        }
    }

    /// `sections` about `name` for one of those who asked: in its spelling, and in an order of its own where order means nothing.
    fn for_asker(&self, asked: &packet::Asked<'_>, name: &Name, sections: &Sections) -> Sections {
        let own = Asked::read(&mut BinDecoder::new(asked.question)).map_or_else(|_| name.clone(), |own| own.name);
        let spelled = |records: &[Record]| -> Vec<Record> {
            let spelled = |record: &Record| {
                let mut record = record.clone();
                if record.name == *name {
                    record.name = own.clone();
                }
                record
            };
            records.iter().map(spelled).collect()
        };
        let mut answers = spelled(&sections.answers);
        if asked.kind == u16::from(RecordType::SRV) {
            for last in (1..answers.len()).rev() {
                answers.swap(last, self.agent.rng.below(last as u64 + 1) as usize);
            }
        }
        Sections {
            code: sections.code,
            answers,
            authorities: spelled(&sections.authorities),
            additionals: spelled(&sections.additionals),
            for_client: sections.for_client,
        }
    }
}

/// What the catalog has for an answer.
enum Found {
    /// The rows that the older answer was made of.
    Same,
    /// These records, made of rows where their order means nothing.
    Other(Sections, Option<RowsMark<lictor_types::CheckServiceNode>>),
}

async fn records(asking: &Asking<'_>, subject: &Subject<'_>, older: Option<&KeptAnswer>) -> Result<Found, Refusal> {
    let Some(wanted @ (Wanted::Service(_) | Wanted::Ingress(_))) = wanted(subject) else {
        return Ok(Found::Other(resolved(asking, subject).await?, None));
    };
    let Some((service, rows)) = instances(asking, &wanted).await? else {
        return Ok(Found::Other(subject.absent(), None));
    };
    if older.and_then(|older| older.rows.as_ref()).is_some_and(|mark| rows.has(mark)) {
        return Ok(Found::Same);
    }
    Ok(Found::Other(subject.whole_service(service.as_str(), &rows), Some(rows.mark())))
}
