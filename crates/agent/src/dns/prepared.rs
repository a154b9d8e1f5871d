//! Answers that are written once and sent to many: the records are bytes already, and for each asker only put in another order, cut
//! to its room and given its number and its spelling of the name. Pure.
//!
//! Invariants
//! - What an asker gets is what [`super::size::fit`] would have made for it of the same records: the same codes and flags, as many
//!   answers as fit, each with what belongs to it, and at least one.
//! - Instances are in another order for every asker, each order as likely as any other.
//! - Nothing of one asker is in the answer to another.

use std::collections::BTreeMap;
use std::ops::Range;

use hickory_proto::ProtoError;
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use lictor_runtime::Rng;

use super::answer::Sections;
use super::packet::{Asked, EDNS_BYTES, HEADER_BYTES, write_edns};
use super::size::{Room, Style};

/// A name that is written as a place in the message is there in these bits.
const POINTER: u16 = 0xc000;
/// Places from here on cannot be pointed at.
const POINTED_END: usize = 0x4000;
/// Bytes of a pointer.
const POINTER_BYTES: usize = 2;
/// Bytes of a record between its owner and its data.
const FIXED_BYTES: usize = 10;
/// Bytes of a location before its target.
const LOCATION_BYTES: usize = 6;
/// Numbers at the end of SOA data, of which the first is the serial number.
const SOA_NUMBERS_BYTES: usize = 20;
/// Bits of a random number that stay unused, so that no order is noticeably likelier than another.
const SPARE_BITS: u32 = 24;
const ANSWER: u8 = 0b1000_0000;
const AUTHORITATIVE: u8 = 0b0000_0100;
const TRUNCATED: u8 = 0b0000_0010;
const RECURSION_AVAILABLE: u8 = 0b1000_0000;

/// One answer, for everybody who asks the same.
#[derive(Debug, PartialEq)]
pub(super) struct Prepared {
    code: u8,
    recursion_available: bool,
    style: Style,
    /// What the answers are written as behind their owner, which is the name that is asked for.
    bytes: Vec<u8>,
    answers: Vec<Piece>,
    /// The order of the answers means nothing.
    shuffled: bool,
    /// The most answers, whatever the room.
    most: usize,
    /// Records that go along with the answers that name them, each once.
    companions: Vec<Companion>,
    /// Records of the asked name that go along with all answers.
    along: Vec<Piece>,
    /// The domain's SOA, for an answer that there is nothing.
    soa: Option<Soa>,
}

#[derive(Clone, Debug, PartialEq)]
struct Piece {
    at: Range<usize>,
    companion: Option<usize>,
}

#[derive(Debug, PartialEq)]
struct Companion {
    owner: Vec<u8>,
    at: Range<usize>,
}

#[derive(Debug, PartialEq)]
struct Soa {
    /// Bytes of the asked name before the domain's.
    before: usize,
    time_to_live: u32,
    numbers: [u8; SOA_NUMBERS_BYTES],
}

/// What is the same for all answers of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    /// How messages are written.
    pub(super) style: Style,
    /// Other domains are asked for elsewhere.
    pub(super) recursion_available: bool,
    /// The order of the answers means nothing.
    pub(super) shuffled: bool,
    /// The most answers, whatever the room.
    pub(super) most: usize,
}

/// What is kept between two answers, so that none needs memory of its own.
#[derive(Default)]
pub(super) struct Scratch {
    /// Some order of the first numbers.
    order: Vec<u32>,
    /// Where in the message the owner of each companion stands; 0 while it is not in.
    owners: Vec<u32>,
}

impl Prepared {
    /// `sections` about `name`, a name of `domain`; none when they hold what is not the same for all: names that lead elsewhere.
    ///
    /// # Errors
    /// A record cannot be written.
    pub(super) fn of(
        sections: &Sections,
        name: &Name,
        domain: &Name,
        manner: Manner,
    ) -> Result<Option<Self>, ProtoError> {
        let mut prepared = Self {
            code: sections.code.map_or(0, |code| code.low()),
            recursion_available: manner.recursion_available,
            style: manner.style,
            bytes: Vec::new(),
            answers: Vec::with_capacity(sections.answers.len()),
            shuffled: manner.shuffled,
            most: manner.most,
            companions: Vec::new(),
            along: Vec::new(),
            soa: None,
        };
        let mut companions = BTreeMap::new();
        for record in &sections.additionals {
            let at = prepared.write_record(record)?;
            if record.name == *name {
                prepared.along.push(Piece { at, companion: None });
            } else if companions.insert(record.name.clone(), prepared.companions.len()).is_some() {
                return Ok(None);
            } else {
                prepared.companions.push(Companion { owner: wire(&record.name)?, at });
            }
        }
        for record in &sections.answers {
            let companion = match &record.data {
                RData::SRV(location) => companions.get(&location.target).copied(),
                RData::CNAME(_) | RData::PTR(_) => return Ok(None),
                _ => None,
            };
            if record.name != *name {
                return Ok(None);
            }
            let at = prepared.write_record(record)?;
            prepared.answers.push(Piece { at, companion });
        }
        for record in &sections.authorities {
            let RData::SOA(soa) = &record.data else { return Ok(None) };
            let data = data_of(record)?;
            let mut numbers = [0; SOA_NUMBERS_BYTES];
            numbers.copy_from_slice(&data[data.len() - SOA_NUMBERS_BYTES..]);
            let is_usual = record.name == *domain
                && soa.mname == Name::from_ascii("ns")?.append_domain(domain)?
                && soa.rname == Name::from_ascii("hostmaster")?.append_domain(domain)?;
            if !is_usual {
                return Ok(None);
            }
            let before = wire(name)?.len().saturating_sub(wire(domain)?.len());
            prepared.soa = Some(Soa { before, time_to_live: record.ttl, numbers });
        }
        prepared.bytes.shrink_to_fit();
        Ok(Some(prepared))
    }

    /// Whether it says that there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Bytes that it takes in memory, about.
    pub(super) fn size(&self) -> usize {
        let companions: usize =
            self.companions.iter().map(|companion| size_of::<Companion>() + companion.owner.len()).sum();
        let pieces = (self.answers.len() + self.along.len()) * size_of::<Piece>();
        size_of::<Self>() + self.bytes.len() + pieces + companions
    }

    fn write_record(&mut self, record: &Record) -> Result<Range<usize>, ProtoError> {
        let begin = self.bytes.len();
        let data = data_of(record)?;
        self.bytes.extend_from_slice(&u16::from(record.record_type()).to_be_bytes());
        self.bytes.extend_from_slice(&u16::from(record.dns_class).to_be_bytes());
        self.bytes.extend_from_slice(&record.ttl.to_be_bytes());
        let length = u16::try_from(data.len()).map_err(|_| ProtoError::from("the data of a record is too long"))?;
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(&data);
        Ok(begin..self.bytes.len())
    }

    /// Writes the answer to `asked` over what is in `out`. `serial` is the number of the zone at this moment.
    pub(super) fn write(
        &self,
        asked: &Asked<'_>,
        room: Room,
        serial: u32,
        rng: &dyn Rng,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        out.extend_from_slice(&asked.id);
        out.extend_from_slice(&[0; HEADER_BYTES - 2]);
        out.extend_from_slice(asked.question);
        let edns = asked.payload.map_or(0, |_| EDNS_BYTES);
        let budget = room.bytes.saturating_sub(edns);
        let (answers, mut additional) = self.write_answers(asked, budget, room.answers, rng, scratch, out);
        let mut authorities = 0;
        let name = &asked.question[..asked.question.len() - 4];
        if let Some(soa) = &self.soa {
            let before = out.len();
            self.write_soa(soa, name, serial, out);
            authorities = 1;
            if out.len() > budget {
                out.truncate(before);
                authorities = 0;
            }
        }
        if !self.along.is_empty() && answers == self.answers.len() {
            let before = out.len();
            for piece in &self.along {
                self.write_owner(name, out);
                out.extend_from_slice(&self.bytes[piece.at.clone()]);
            }
            additional += self.along.len();
            if out.len() > budget {
                out.truncate(before);
                additional -= self.along.len();
            }
        }
        if let Some(payload) = asked.payload {
            write_edns(payload, out);
            additional += 1;
        }
        let cut = self.style.announce && answers < self.answers.len();
        out[2] = ANSWER | AUTHORITATIVE | asked.flags | if cut { TRUNCATED } else { 0 };
        out[3] = self.code | asked.more_flags | if self.recursion_available { RECURSION_AVAILABLE } else { 0 };
        for (at, count) in [(4, 1), (6, answers), (8, authorities), (10, additional)] {
            // A message of 64 KiB has fewer records than two bytes can tell.
            out[at..at + 2].copy_from_slice(&(count as u16).to_be_bytes());
        }
    }

    /// Writes as many answers as fit, then what goes along with them; how many of both.
    fn write_answers(
        &self,
        asked: &Asked<'_>,
        budget: usize,
        answers_max: usize,
        rng: &dyn Rng,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> (usize, usize) {
        let name = &asked.question[..asked.question.len() - 4];
        let wanted = self.answers.len().min(self.most).min(answers_max);
        if self.shuffled && self.answers.len() > 1 {
            scratch.shuffle(self.answers.len(), wanted, rng);
        }
        scratch.owners.clear();
        scratch.owners.resize(self.companions.len(), 0);
        let (mut answers, mut beside) = (0, 0);
        for turn in 0..wanted {
            let chosen = if self.shuffled && self.answers.len() > 1 { scratch.order[turn] as usize } else { turn };
            let Piece { at, companion } = &self.answers[chosen];
            let target = out.len() + self.owner_bytes(name) + FIXED_BYTES + LOCATION_BYTES;
            let new = companion.filter(|companion| scratch.owners[*companion] == 0);
            let bytes = self.owner_bytes(name) + at.len();
            let brings = new.map_or(0, |companion| {
                let Companion { owner, at } = &self.companions[companion];
                self.pointer_bytes(target).unwrap_or(owner.len()) + at.len()
            });
            let is_first = answers == 0;
            let fits = out.len() + bytes + beside + brings <= budget;
            if !fits && !is_first {
                break;
            }
            self.write_owner(name, out);
            out.extend_from_slice(&self.bytes[at.clone()]);
            answers += 1;
            if let (Some(companion), true) = (new, fits) {
                beside += brings;
                scratch.owners[companion] = target as u32;
            }
            if !fits {
                break;
            }
        }
        let mut additional = 0;
        for (companion, target) in self.companions.iter().zip(&scratch.owners).filter(|(_, target)| **target > 0) {
            match self.pointer_bytes(*target as usize) {
                Some(_) => out.extend_from_slice(&(POINTER | *target as u16).to_be_bytes()),
                None => out.extend_from_slice(&companion.owner),
            }
            out.extend_from_slice(&self.bytes[companion.at.clone()]);
            additional += 1;
        }
        (answers, additional)
    }

    /// Bytes of a name that stands at `place` already, if it may be pointed at.
    fn pointer_bytes(&self, place: usize) -> Option<usize> {
        (self.style.compress && place < POINTED_END).then_some(POINTER_BYTES)
    }

    fn owner_bytes(&self, name: &[u8]) -> usize {
        if self.style.compress { POINTER_BYTES } else { name.len() }
    }

    /// Writes the name that is asked for.
    fn write_owner(&self, name: &[u8], out: &mut Vec<u8>) {
        self.write_name(HEADER_BYTES, name, out);
    }

    fn write_name(&self, place: usize, name: &[u8], out: &mut Vec<u8>) {
        if self.style.compress {
            out.extend_from_slice(&(POINTER | place as u16).to_be_bytes());
        } else {
            out.extend_from_slice(name);
        }
    }

    fn write_soa(&self, soa: &Soa, name: &[u8], serial: u32, out: &mut Vec<u8>) {
        const TYPE_AND_CLASS: [u8; 4] = [0, 6, 0, 1];
        let (place, domain) = (HEADER_BYTES + soa.before, &name[soa.before..]);
        self.write_name(place, domain, out);
        out.extend_from_slice(&TYPE_AND_CLASS);
        out.extend_from_slice(&soa.time_to_live.to_be_bytes());
        let length_at = out.len();
        out.extend_from_slice(&[0; 2]);
        for label in ["ns", "hostmaster"] {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
            self.write_name(place, domain, out);
        }
        out.extend_from_slice(&serial.to_be_bytes());
        out.extend_from_slice(&soa.numbers[4..]);
        let length = (out.len() - length_at - 2) as u16;
        out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }
}

impl Scratch {
    /// Puts `wanted` of the numbers below `count` to the front of the order, any of them with the same likelihood.
    fn shuffle(&mut self, count: usize, wanted: usize, rng: &dyn Rng) {
        // Any order is as good as another to begin with: the one of the answer before will do.
        if self.order.len() != count {
            self.order.clear();
            self.order.extend(0..count as u32);
        }
        // One random number is good for several draws: each takes as many bits as it has choices for.
        let (mut random, mut bits) = (0, 0);
        for place in 0..wanted.min(count.saturating_sub(1)) {
            let choices = (count - place) as u64;
            let taken = u64::BITS - choices.leading_zeros();
            if bits < taken + SPARE_BITS {
                (random, bits) = (rng.next_u64(), u64::BITS);
            }
            let product = u128::from(random) * u128::from(choices);
            random = product as u64;
            bits -= taken;
            self.order.swap(place, place + (product >> u64::BITS) as usize);
        }
    }
}

/// The data of a record, names in it in full.
fn data_of(record: &Record) -> Result<Vec<u8>, ProtoError> {
    written(&record.data)
}

/// A name in full.
fn wire(name: &Name) -> Result<Vec<u8>, ProtoError> {
    written(name)
}

fn written(value: &impl BinEncodable) -> Result<Vec<u8>, ProtoError> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    value.emit(&mut encoder)?;
    Ok(bytes)
}
