//! Damaged questions, thrown at the door whole: with the state here and elsewhere, over both transports.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use lictor_fuzz::{Target, outcome};
use lictor_types::{Answer, CheckStatus};

use super::door::Door;
use super::resolve::{Transport, reply};
use super::tests::row;
use crate::Standing;
use crate::http::double::{Double, agent, at};

fn seeds() -> Vec<Vec<u8>> {
    let kinds = [RecordType::A, RecordType::SRV, RecordType::PTR, RecordType::ANY, RecordType::SOA, RecordType::TXT];
    let names = [
        "web.service.consul.",
        "_web._tcp.service.dc1.consul.",
        "v1.web.service.dc1.dc.consul.",
        "n1.node.consul.",
        "0a000001.addr.consul.",
        "1.0.0.10.in-addr.arpa.",
        "web.query.consul.",
        "web.virtual.consul.",
        "web.service.consul.ns.svc.cluster.local.",
    ];
    let mut seeds = Vec::new();
    for (at, name) in names.into_iter().enumerate() {
        let mut request = Message::new(at as u16, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), kinds[at % kinds.len()]));
        if at % 2 == 0 {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            if at % 4 == 0 {
                let subnet = ClientSubnet::new([198, 51, 100, 0].into(), 24, 0);
                edns.options_mut().insert(EdnsOption::Subnet(subnet));
            }
            request.set_edns(edns);
        }
        seeds.push(request.to_vec().unwrap());
    }
    seeds
}

const WORDS: &[&[u8]] = &[
    b"\x03web",
    b"\x07service",
    b"\x06consul\0",
    b"\x04node",
    b"\x05query",
    b"\x04addr",
    b"\x07connect",
    b"\x07virtual",
    b"\x03dc1",
    b"\x04_tcp",
    b"\x04_web",
    b"\x080a000001",
    b"\xc0\x0c",
    b"\0\x01\0\x01",
    b"\0\x21\0\x01",
    b"\0\0\x29\x04\xd0\0\0\0\0",
    b"\0\x08\0\x07\0\x01\x18\0\xc6\x33\x64",
    b"\x07in-addr\x04arpa\0",
];

#[test]
fn fuzz_questions() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let rows = (1..=60).map(|n| row(&format!("n{n}"), &format!("10.0.0.{n}"), "", CheckStatus::Passing));
    let double = Double::answering(at(5, Answer::CheckServiceNodes(rows.collect::<Vec<_>>().into())));
    let agent = agent(&double, "");
    let door = Door::of(&agent, "search ns.svc.cluster.local");
    let target = Target { name: "dns-questions", seeds: seeds(), words: WORDS, cases: 10_000 };
    target.run(|packet| {
        let mut said = Vec::new();
        for (is_here, transport) in [(false, Transport::Udp), (true, Transport::Udp), (true, Transport::Tcp)] {
            let standing = Standing { version: 2, last_contact: Duration::ZERO };
            *double.standing.lock() = is_here.then_some(standing);
            double.asked.lock().reads.clear();
            let mut reply = std::pin::pin!(reply(&door, packet, transport, Some([10, 1, 1, 1].into())));
            // The double answers at once.
            let Poll::Ready(bytes) = reply.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("not answered at once")
            };
            let Some(bytes) = bytes else {
                said.push((0, 0, 0, 0));
                continue;
            };
            let answer = Message::from_vec(&bytes).expect("an answer that its asker can read");
            let payload =
                Message::from_vec(packet).ok().and_then(|request| request.edns).map(|edns| edns.max_payload());
            let room =
                if transport == Transport::Tcp { usize::from(u16::MAX) } else { usize::from(payload.unwrap_or(512)) };
            assert!(bytes.len() <= room.max(512), "{} bytes in room for {room}", bytes.len());
            assert!(bytes[2] & 0x80 != 0 && bytes[..2] == packet[..2], "no answer to what was asked");
            let codes = (u16::from(answer.metadata.response_code), answer.answers.len().min(4));
            said.push((codes.0, codes.1, answer.authorities.len(), answer.additionals.len().min(2)));
        }
        outcome(said)
    });
}
