//! Questions read in place, without a message being built of them: what nearly every packet is. Pure.
//!
//! Invariants
//! - What is read here is read as the codec would; whatever is unusual is not read here but left to the codec.

/// Bytes of the head of every message.
pub(super) const HEADER_BYTES: usize = 12;
/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of the longest label. A larger length is a pointer or a form that is not in use.
const LABEL_BYTES_MAX: u8 = 63;
/// Bytes of type and class behind a name.
const KIND_BYTES: usize = 4;
/// The class of the internet.
const CLASS_IN: u16 = 1;
/// The type of the record that EDNS is in.
const TYPE_OPT: u16 = 41;
/// Bytes of that record without its options: the root's name, type, class, time to live and length.
const OPT_BYTES: usize = 11;
/// The option that tells the client's subnet; its answer is of another form.
const OPTION_SUBNET: u16 = 8;
/// The least that EDNS can say of the client's room.
const PAYLOAD_MIN: u16 = 512;
/// Bits of the third byte of a head that a question we read here has not set: answer, kind of operation, truncated.
const UNUSUAL: u8 = 0b1111_1010;
/// The bit of the third byte that asks for recursion, which an answer repeats.
pub(super) const RECURSION_DESIRED: u8 = 1;
/// The bit of the fourth byte that an answer repeats: signatures are not to be checked.
const CHECKING_DISABLED: u8 = 0b1_0000;

/// A question in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked<'p> {
    /// The number that the answer repeats.
    pub(super) id: [u8; 2],
    /// Bits of the third byte of the head that the answer repeats.
    pub(super) flags: u8,
    /// Bits of the fourth byte of the head that the answer repeats.
    pub(super) more_flags: u8,
    /// Name, type and class as they were written.
    pub(super) question: &'p [u8],
    /// The type.
    pub(super) kind: u16,
    /// How many bytes the asker can take, if it speaks EDNS.
    pub(super) payload: Option<u16>,
}

/// What questions are the same by: name in lower case, type, class.
pub(super) struct Key {
    bytes: [u8; NAME_BYTES_MAX + KIND_BYTES],
    length: usize,
}

impl Key {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Asked<'_> {
    /// What is the same for everybody who asks this.
    pub(super) fn key(&self) -> Key {
        let mut bytes = [0; NAME_BYTES_MAX + KIND_BYTES];
        let length = self.question.len();
        let name = length - KIND_BYTES;
        bytes[..length].copy_from_slice(self.question);
        // Lengths of labels are below every letter.
        bytes[..name].make_ascii_lowercase();
        Key { bytes, length }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The question in `packet`, if it is one of the usual form.
pub(super) fn read(packet: &[u8]) -> Option<Asked<'_>> {
    let head = packet.get(..HEADER_BYTES)?;
    let additional = number(head, 10)?;
    let is_usual = head[2] & UNUSUAL == 0
        && head[4..10] == [0, 1, 0, 0, 0, 0]
        // What the codec reads as a code of an answer.
        && head[3] & 0b1111 == 0
        && additional <= 1;
    if !is_usual {
        return None;
    }
    let end = HEADER_BYTES + name_length(&packet[HEADER_BYTES..])? + KIND_BYTES;
    let question = packet.get(HEADER_BYTES..end)?;
    let kind = number(packet, end - 4)?;
    if number(packet, end - 2)? != CLASS_IN {
        return None;
    }
    let payload = match (additional, packet.get(end..)?) {
        (0, []) => None,
        (1, rest) => Some(payload(rest)?),
        _ => return None,
    };
    Some(Asked {
        id: [head[0], head[1]],
        flags: head[2] & RECURSION_DESIRED,
        more_flags: head[3] & CHECKING_DISABLED,
        question,
        kind,
        payload,
    })
}

/// Bytes of the name at the beginning, its end included.
fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = *bytes.get(at)?;
        at += 1;
        match length {
            0 => return (at <= NAME_BYTES_MAX).then_some(at),
            1..=LABEL_BYTES_MAX => at += usize::from(length),
            _ => return None,
        }
        if at >= NAME_BYTES_MAX {
            return None;
        }
    }
}

/// What an EDNS record of version 0 says of the client's room; none when there is anything in it that the answer depends on.
fn payload(record: &[u8]) -> Option<u16> {
    let options = record.get(OPT_BYTES..)?;
    let is_plain = record[0] == 0 && number(record, 1)? == TYPE_OPT && record[6] == 0;
    if !is_plain || usize::from(number(record, 9)?) != options.len() {
        return None;
    }
    let mut rest = options;
    while !rest.is_empty() {
        let (code, length) = (number(rest, 0)?, usize::from(number(rest, 2)?));
        if code == OPTION_SUBNET {
            return None;
        }
        rest = rest.get(4 + length..)?;
    }
    Some(number(record, 3)?.max(PAYLOAD_MIN))
}

/// Adds the EDNS record of an answer.
pub(super) fn write_edns(payload: u16, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&TYPE_OPT.to_be_bytes());
    out.extend_from_slice(&payload.to_be_bytes());
    out.extend_from_slice(&[0; 6]);
}

/// Bytes that [`write_edns`] adds.
pub(super) const EDNS_BYTES: usize = OPT_BYTES;

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;
    use crate::testing::{random_bytes, random_cases};

    fn request(name: &str) -> Message {
        let mut request = Message::new(0x1234, MessageType::Query, OpCode::Query);
        request.metadata.recursion_desired = true;
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::SRV));
        request
    }

    #[test]
    fn a_usual_question_is_read_in_place() {
        let mut request = request("Web.Service.consul.");
        let packet = request.to_vec().unwrap();
        let asked = read(&packet).unwrap();
        assert_eq!((asked.id, asked.flags, asked.more_flags, asked.payload), ([0x12, 0x34], 1, 0, None));
        assert_eq!((asked.kind, asked.question), (33, &packet[12..]));
        assert_eq!(asked.key().bytes(), b"\x03web\x07service\x06consul\0\0\x21\0\x01");
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        edns.options_mut().insert(EdnsOption::Unknown(10, vec![1, 2, 3, 4, 5, 6, 7, 8]));
        request.set_edns(edns.clone());
        request.metadata.checking_disabled = true;
        let packet = request.to_vec().unwrap();
        let asked = read(&packet).unwrap();
        assert_eq!((asked.payload, asked.more_flags), (Some(1232), 0b1_0000));
        edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new([198, 51, 100, 0].into(), 24, 0)));
        request.set_edns(edns);
        assert_eq!(read(&request.to_vec().unwrap()), None, "a subnet");
    }

    #[test]
    fn what_is_unusual_is_left_to_the_codec() {
        let plain = request("web.service.consul.").to_vec().unwrap();
        assert!(read(&plain).is_some());
        for (at, value, what) in [
            (2, 0x81, "an answer"),
            (2, 0x29, "another operation"),
            (2, 0x03, "truncated"),
            (3, 0x01, "a code"),
            (5, 2, "two questions"),
            (7, 1, "an answer in a question"),
            (11, 1, "additional records that are not there"),
            (12, 0xc0, "a pointer"),
            (plain.len() - 1, 255, "another class"),
        ] {
            let mut packet = plain.clone();
            packet[at] = value;
            assert_eq!(read(&packet), None, "{what}");
        }
        assert_eq!(read(&[&plain[..], b"x"].concat()), None, "something behind it");
        for length in 0..plain.len() {
            assert_eq!(read(&plain[..length]), None);
        }
    }

    /// Everything that is read here the codec reads too, and the same.
    #[test]
    fn nothing_is_read_that_the_codec_does_not_read_so() {
        let mut both = 0;
        random_cases(20_000, |rng| {
            let mut packet = request("web.service.consul.").to_vec().unwrap();
            if rng.below(2) == 0 {
                packet[11] = 1;
                packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0]);
                let options = random_bytes(rng, 12);
                packet.extend_from_slice(&(options.len() as u16).to_be_bytes());
                packet.extend_from_slice(&options);
            }
            for _ in 0..rng.below(3) {
                let at = rng.below(packet.len() as u64) as usize;
                packet[at] = rng.next_u64() as u8;
            }
            let Some(asked) = read(&packet) else { return };
            both += 1;
            let Ok(message) = Message::from_vec(&packet) else { panic!("read here only: {packet:?}") };
            let query = &message.queries[0];
            assert_eq!((message.queries.len(), u16::from(query.query_type)), (1, asked.kind), "{packet:?}");
            assert_eq!(message.edns.as_ref().map(Edns::max_payload), asked.payload, "{packet:?}");
            assert_eq!(message.metadata.id.to_be_bytes(), asked.id);
            assert_eq!(message.metadata.recursion_desired, asked.flags == 1);
            let name: Vec<u8> = query.name.iter().flat_map(|label| [&[label.len() as u8], label].concat()).collect();
            assert_eq!(name, asked.question[..asked.question.len() - 5], "{packet:?}");
        });
        assert!(both > 2_000, "only {both} were read");
    }
}
