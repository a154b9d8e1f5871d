//! Making a message fit. Pure: what does not fit is left out in Consul's order.

use std::collections::BTreeSet;

use hickory_proto::ProtoError;
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use crate::config::DnsConfig;

/// Bytes of a UDP message to a client that says nothing of its size.
const PLAIN_UDP_BYTES: usize = 512;
/// Bytes of the largest UDP message, whatever the client says.
const UDP_BYTES_MAX: usize = 65_467;
/// Answers in a UDP message to a client that says nothing of its size, whatever is configured.
const PLAIN_UDP_ANSWERS_MAX: usize = 8;
/// Bytes of the largest message over TCP, where two bytes tell the length.
pub(super) const TCP_BYTES_MAX: usize = 65_535;

/// How much of a message may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes of the message.
    pub(super) bytes: usize,
    /// Answers in it.
    pub(super) answers: usize,
}

impl Room {
    /// Over TCP.
    pub(super) const TCP: Self = Self { bytes: TCP_BYTES_MAX, answers: usize::MAX };

    /// Over UDP to a client that can take `payload` bytes, if it said so.
    pub(super) fn udp(payload: Option<u16>, answer_limit: usize) -> Self {
        let bytes =
            payload.map_or(PLAIN_UDP_BYTES, |payload| usize::from(payload).clamp(PLAIN_UDP_BYTES, UDP_BYTES_MAX));
        let plain = bytes == PLAIN_UDP_BYTES;
        Self { bytes, answers: if plain { answer_limit.clamp(1, PLAIN_UDP_ANSWERS_MAX) } else { usize::MAX } }
    }
}

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// A cut answer says so.
    pub(super) announce: bool,
    /// A name that was written before is pointed at.
    pub(super) compress: bool,
}

impl Style {
    /// As the configuration says.
    pub(super) fn of(settings: &DnsConfig) -> Self {
        Self { announce: settings.enable_truncate, compress: !settings.disable_compression }
    }
}

/// The bytes of a message.
pub(super) fn encode(message: &Message, compress: bool) -> Result<Vec<u8>, ProtoError> {
    if compress {
        return message.to_vec();
    }
    let mut bytes = Vec::with_capacity(PLAIN_UDP_BYTES);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    message.emit(&mut encoder)?;
    Ok(bytes)
}

/// The bytes of `message` within `room`. First the authority section goes, then answers from the end, together with the
/// additional records that are of no use without them; one answer always stays. `announce` sets the truncation bit when
/// answers are missing.
///
/// # Errors
/// The message cannot be encoded.
pub(super) fn fit(mut message: Message, room: Room, style: Style) -> Result<Vec<u8>, ProtoError> {
    let Style { announce, compress } = style;
    let all = message.answers.len();
    keep_answers(&mut message, room.answers);
    message.metadata.truncation = announce && message.answers.len() < all;
    let bytes = encode(&message, compress)?;
    if bytes.len() <= room.bytes {
        return Ok(bytes);
    }
    message.authorities.clear();
    let fits = |kept: usize| -> Result<Option<Vec<u8>>, ProtoError> {
        let mut message = message.clone();
        keep_answers(&mut message, kept);
        message.metadata.truncation = announce && kept < all;
        let bytes = encode(&message, compress)?;
        Ok((bytes.len() <= room.bytes).then_some(bytes))
    };
    // The most answers that fit, by halving: each try encodes the whole message.
    let (mut low, mut high, mut best) = (1, message.answers.len(), None);
    while low <= high {
        let middle = low.midpoint(high);
        match fits(middle)? {
            Some(bytes) => {
                best = Some(bytes);
                low = middle + 1;
            }
            None => high = middle - 1,
        }
    }
    if let Some(bytes) = best {
        return Ok(bytes);
    }
    message.answers.truncate(1);
    message.additionals.clear();
    message.metadata.truncation = announce;
    encode(&message, compress)
}

fn keep_answers(message: &mut Message, kept: usize) {
    if message.answers.len() <= kept {
        return;
    }
    message.answers.truncate(kept);
    let targets: BTreeSet<&Name> = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(location) => Some(&location.target),
            RData::CNAME(alias) => Some(&alias.0),
            _ => None,
        })
        .collect();
    message.additionals.retain(|record| targets.contains(&record.name));
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, SRV};

    use super::*;

    fn message(answers: u8) -> Message {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let mut message = Message::response(1, OpCode::Query);
        for number in 0..answers {
            let target = name(&format!("node-number-{number}.node.dc1.consul."));
            let location = SRV::new(1, 1, 80, target.clone());
            message.add_answer(Record::from_rdata(name("web.service.consul."), 0, RData::SRV(location)));
            message.add_additional(Record::from_rdata(target, 0, RData::A(A::new(10, 0, 0, number))));
        }
        message.add_authority(Record::from_rdata(name("consul."), 0, RData::A(A::new(1, 1, 1, 1))));
        message
    }

    fn fitted(answers: u8, room: Room) -> Message {
        let bytes = fit(message(answers), room, Style { announce: true, compress: true }).unwrap();
        assert!(bytes.len() <= room.bytes, "{} bytes in room for {}", bytes.len(), room.bytes);
        Message::from_vec(&bytes).unwrap()
    }

    #[test]
    fn a_plain_udp_client_gets_a_few_answers_with_their_addresses() {
        let got = fitted(20, Room::udp(None, 3));
        assert_eq!((got.answers.len(), got.additionals.len(), got.metadata.truncation), (3, 3, true));
        assert!(!fitted(2, Room::udp(None, 3)).metadata.truncation);
    }

    #[test]
    fn a_client_with_a_larger_buffer_gets_what_fits() {
        let got = fitted(100, Room::udp(Some(1232), 3));
        assert!(got.answers.len() > 3 && got.answers.len() < 100, "{}", got.answers.len());
        assert_eq!(got.answers.len(), got.additionals.len());
        assert!(got.authorities.is_empty() && got.metadata.truncation);
        let all = fitted(100, Room::TCP);
        assert_eq!((all.answers.len(), all.authorities.len(), all.metadata.truncation), (100, 1, false));
    }

    #[test]
    fn names_are_written_in_full_where_that_is_wanted() {
        let (short, long) = (encode(&message(5), true).unwrap(), encode(&message(5), false).unwrap());
        assert!(long.len() > short.len() + 100, "{} and {}", short.len(), long.len());
        assert_eq!(Message::from_vec(&long).unwrap().answers, Message::from_vec(&short).unwrap().answers);
    }

    #[test]
    fn one_answer_stays_even_when_its_addresses_do_not_fit() {
        let bytes = fit(message(5), Room { bytes: 60, answers: 3 }, Style { announce: false, compress: true }).unwrap();
        let got = Message::from_vec(&bytes).unwrap();
        assert_eq!((got.answers.len(), got.additionals.len(), got.metadata.truncation), (1, 0, false));
    }
}
