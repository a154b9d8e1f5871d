//! Prepared answers, held against what the codec makes of the same records.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use lictor_runtime::{Rng, SeededRng};

use super::answer::Sections;
use super::packet;
use super::prepared::{Manner, Prepared, Scratch};
use super::resolve::Transport;
use super::size::{Room, Style, fit};
use crate::config::DnsConfig;
use crate::testing::random_cases;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn manner(shuffled: bool) -> Manner {
    let style = Style { announce: true, compress: true };
    Manner { style, recursion_available: false, shuffled, most: usize::MAX }
}

fn request(text: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut request = Message::new(0xbeef, MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(Asked::query(name(text), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        request.set_edns(edns);
    }
    request
}

fn addresses(count: u16) -> Sections {
    let record = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Record::from_rdata(name("web.service.consul."), 7, RData::A(A::new(10, 0, high, low)))
    };
    Sections { answers: (0..count).map(record).collect(), ..Sections::default() }
}

fn locations(count: u16, longest: u64, rng: &dyn Rng) -> Sections {
    let mut sections = Sections::default();
    for number in 0..count {
        let filling = "x".repeat(rng.below(longest) as usize + 1);
        let target = name(&format!("{filling}-{:04}.node.dc1.consul.", number / 2));
        let location = SRV::new(1, 1, 80 + number, target.clone());
        sections.answers.push(Record::from_rdata(name("web.service.consul."), 0, RData::SRV(location)));
        let address = Record::from_rdata(target, 0, RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, number / 2)));
        if !sections.additionals.iter().any(|it| it.name == address.name) {
            sections.additionals.push(address);
        }
    }
    sections
}

fn write(prepared: &Prepared, packet: &[u8], room: Room, rng: &dyn Rng) -> Vec<u8> {
    let mut out = vec![9; 3];
    prepared.write(&packet::read(packet).unwrap(), room, 77, rng, &mut Scratch::default(), &mut out);
    out
}

/// What the codec makes of it.
fn by_the_codec(request: &Message, sections: &Sections, room: Room, style: Style) -> Message {
    let mut response = Message::response(request.metadata.id, OpCode::Query);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.authoritative = true;
    response.metadata.response_code = sections.code.unwrap_or(ResponseCode::NoError);
    response.queries.clone_from(&request.queries);
    response.edns.clone_from(&request.edns);
    response.answers.clone_from(&sections.answers);
    response.authorities.clone_from(&sections.authorities);
    response.additionals.clone_from(&sections.additionals);
    Message::from_vec(&fit(response, room, style).unwrap()).unwrap()
}

#[test]
fn a_prepared_answer_is_what_the_codec_would_have_made() {
    random_cases(3_000, |rng| {
        let kind = if rng.below(2) == 0 { RecordType::A } else { RecordType::SRV };
        let count = 1 + rng.below(140) as u16;
        // Names of one length: then as many fit, whichever were chosen.
        let sections = if kind == RecordType::A { addresses(count) } else { locations(count, 1, rng) };
        let payload = (rng.below(3) > 0).then(|| 512 + rng.below(9_000) as u16);
        let request = request("wEb.Service.consul.", kind, payload);
        let packet = request.to_vec().unwrap();
        let transport = if rng.below(4) == 0 { Transport::Tcp } else { Transport::Udp };
        let room = transport.room(payload, &DnsConfig::default());
        let style = Style { announce: rng.below(2) == 0, compress: rng.below(2) == 0 };
        let manner = Manner { style, shuffled: rng.below(2) == 0, ..manner(true) };
        let prepared = Prepared::of(&sections, &name("web.service.consul."), &name("consul."), manner);
        let bytes = write(&prepared.unwrap().unwrap(), &packet, room, rng);
        let (got, mut expected) = (Message::from_vec(&bytes).unwrap(), by_the_codec(&request, &sections, room, style));
        assert!(bytes.len() <= room.bytes, "{} bytes in room for {}", bytes.len(), room.bytes);
        assert_eq!(got.metadata.truncation, style.announce && got.answers.len() < sections.answers.len());
        expected.metadata.truncation = got.metadata.truncation;
        assert_eq!(got.metadata, expected.metadata);
        assert_eq!(got.queries[0].name.to_string(), "wEb.Service.consul.", "the asker's spelling");
        assert_eq!(got.edns, expected.edns);
        let (count, least) = (got.answers.len(), expected.answers.len());
        // The codec points at names in the first few records only, so fewer may fit there.
        if !manner.shuffled {
            assert!(got.answers[..least.min(count)] == expected.answers[..least.min(count)], "other answers");
        }
        if !manner.shuffled || kind == RecordType::A {
            assert!(count >= least && (style.compress || count == least), "{count} answers, not {least}");
        }
        let known: BTreeSet<String> = sections.answers.iter().map(ToString::to_string).collect();
        let chosen: BTreeSet<String> = got.answers.iter().map(ToString::to_string).collect();
        assert_eq!(chosen.len(), got.answers.len(), "one twice");
        assert!(chosen.iter().all(|it| known.contains(&it.to_string().replace("wEb.Service", "web.service"))));
        let targets: BTreeSet<String> = got.answers.iter().filter_map(target).collect();
        let owners: BTreeSet<String> = got.additionals.iter().map(|record| record.name.to_string()).collect();
        assert_eq!(targets, owners, "each location with its address, and no other");
    });
}

fn target(record: &Record) -> Option<String> {
    match &record.data {
        RData::SRV(location) => Some(location.target.to_string()),
        _ => None,
    }
}

#[test]
fn locations_of_any_length_fit_and_one_always_stays() {
    random_cases(2_000, |rng| {
        let sections = locations(1 + rng.below(400) as u16, 58, rng);
        let payload = (rng.below(2) == 0).then(|| 512 + rng.below(40_000) as u16);
        let request = request("web.service.consul.", RecordType::SRV, payload);
        let room = Transport::Udp.room(payload, &DnsConfig::default());
        let manner = Manner { style: Style { announce: true, compress: rng.below(2) == 0 }, ..manner(true) };
        let prepared = Prepared::of(&sections, &name("web.service.consul."), &name("consul."), manner);
        let bytes = write(&prepared.unwrap().unwrap(), &request.to_vec().unwrap(), room, rng);
        let got = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= room.bytes && !got.answers.is_empty());
        assert_eq!(got.metadata.truncation, got.answers.len() < sections.answers.len());
        for address in &got.additionals {
            let of_it = sections.additionals.iter().find(|it| it.name == address.name).unwrap();
            assert_eq!(of_it.data, address.data, "another's address");
        }
    });
}

#[test]
fn nothing_and_no_such_name_come_with_the_zone() {
    let domain = name("consul.");
    let soa = |serial| {
        let soa = SOA::new(name("ns.consul."), name("hostmaster.consul."), serial, 3600, 600, 86400, 5);
        Record::from_rdata(domain.clone(), 0, RData::SOA(soa))
    };
    for (code, compress) in [(None, true), (Some(ResponseCode::NXDomain), true), (None, false)] {
        let sections = Sections { code, authorities: vec![soa(1)], ..Sections::default() };
        let request = request("no.Service.Consul.", RecordType::AAAA, Some(1232));
        let style = Style { announce: true, compress };
        let manner = Manner { style, recursion_available: true, ..manner(false) };
        let prepared = Prepared::of(&sections, &name("no.service.consul."), &domain, manner).unwrap().unwrap();
        assert!(prepared.is_empty());
        let room = Transport::Udp.room(Some(1232), &DnsConfig::default());
        let got = Message::from_vec(&write(&prepared, &request.to_vec().unwrap(), room, &SeededRng::new(1))).unwrap();
        assert_eq!(got.metadata.response_code, code.unwrap_or(ResponseCode::NoError));
        assert!(got.metadata.recursion_available && got.metadata.authoritative);
        // The serial number is that of the moment in which it is given.
        assert_eq!(got.authorities, [soa(77)]);
        assert_eq!(got.edns.unwrap().max_payload(), 1232);
    }
}

#[test]
fn text_of_a_node_goes_along_whole_or_not_at_all() {
    let owner = name("n.node.consul.");
    let text = |length: usize| {
        Record::from_rdata(owner.clone(), 0, RData::TXT(TXT::new(vec!["k=".to_owned() + &"v".repeat(length)])))
    };
    let address = Record::from_rdata(owner.clone(), 0, RData::A(A::new(10, 0, 0, 1)));
    for (length, goes_along) in [(100, true), (240, false)] {
        let additionals = vec![text(length), text(length)];
        let sections = Sections { answers: vec![address.clone()], additionals, ..Sections::default() };
        let prepared = Prepared::of(&sections, &owner, &name("consul."), manner(false)).unwrap().unwrap();
        let request = request("n.node.consul.", RecordType::A, None);
        let room = Transport::Udp.room(None, &DnsConfig::default());
        let got = Message::from_vec(&write(&prepared, &request.to_vec().unwrap(), room, &SeededRng::new(1))).unwrap();
        assert_eq!(got.answers, std::slice::from_ref(&address));
        assert_eq!(got.additionals.len(), if goes_along { 2 } else { 0 });
        assert!(!got.metadata.truncation);
    }
}

#[test]
fn every_instance_is_as_likely_as_any_other_in_every_place() {
    const TIMES: u32 = 20_000;
    let sections = addresses(20);
    let prepared = Prepared::of(&sections, &name("web.service.consul."), &name("consul."), manner(true));
    let prepared = prepared.unwrap().unwrap();
    let packet = request("web.service.consul.", RecordType::A, None).to_vec().unwrap();
    let room = Transport::Udp.room(None, &DnsConfig::default());
    let (rng, mut scratch, mut out) = (SeededRng::new(5), Scratch::default(), Vec::new());
    let mut counts = BTreeMap::<(usize, String), u32>::new();
    for _ in 0..TIMES {
        prepared.write(&packet::read(&packet).unwrap(), room, 0, &rng, &mut scratch, &mut out);
        for (place, record) in Message::from_vec(&out).unwrap().answers.iter().enumerate() {
            *counts.entry((place, record.data.to_string())).or_default() += 1;
        }
    }
    assert_eq!(counts.len(), 3 * 20, "three places of a plain answer, twenty instances each");
    let (expected, spread) = (f64::from(TIMES) / 20.0, (f64::from(TIMES) / 20.0).sqrt());
    for (what, count) in counts {
        assert!(
            (f64::from(count) - expected).abs() < 5.0 * spread,
            "{what:?}: {count} times, about {expected} expected"
        );
    }
}

#[test]
fn what_leads_elsewhere_is_not_prepared() {
    use hickory_proto::rr::rdata::CNAME;
    let owner = name("db.service.consul.");
    let alias = Record::from_rdata(owner.clone(), 0, RData::CNAME(CNAME(name("db.example.com."))));
    let sections = Sections { answers: vec![alias], ..Sections::default() };
    assert_eq!(Prepared::of(&sections, &owner, &name("consul."), manner(false)).unwrap(), None);
}
