//! Damaged gossip: packets plain, in compounds, compressed and encrypted, and the streams of push/pull. `malformed.rs` beside it does
//! the same to a whole pool's worth of state; here each form is tried by itself, led by what a member says of it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lictor_fuzz::{Target, of_hex, outcome};
use lictor_gossip::wire::envelope::{Envelope, unfold};
use lictor_gossip::wire::stream::Assembler;
use lictor_gossip::{Config, Core, Keyring, Output, RecordPool, Tags};
use lictor_runtime::SeededRng;

/// What real members sent.
fn golden() -> Vec<Vec<u8>> {
    let lines = include_str!("golden/packets.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).filter_map(|(_, hex)| of_hex(hex.as_bytes())).collect()
}

/// Kinds of messages and the heads of texts, lists and maps.
const WORDS: &[&[u8]] = &[
    &[0],
    &[1],
    &[2],
    &[3],
    &[4],
    &[5],
    &[6],
    &[7, 2],
    &[8],
    &[9],
    &[10],
    &[11],
    &[12],
    &[13],
    &[244, 4],
    &[0x80],
    &[0x8f],
    &[0x90],
    &[0x9f],
    &[0xa0],
    &[0xbf],
    &[0xc0],
    &[0xc4, 255],
    &[0xc6, 255, 255, 255, 255],
    &[0xcf],
    &[0xd3],
    &[0xda, 255, 255],
    &[0xdb],
    &[0xdc, 255, 255],
    &[0xdd, 255, 255, 255, 255],
    &[0xde, 255, 255],
    &[0xdf, 255, 255, 255, 255],
    b"\xa4Node",
    b"\xa4Addr",
    b"\xa5SeqNo",
    b"\xa4Port",
    b"\xabIncarnation",
    b"\xa4Meta",
    b"\xa3Vsn",
    b"\xa5LTime",
];

fn keyring() -> Keyring {
    Keyring::new(&[[9; 32]]).expect("a key")
}

fn envelope(keyring: Option<&Keyring>) -> Envelope<'_> {
    Envelope { label: "", keyring, verify_incoming: keyring.is_some(), verify_outgoing: keyring.is_some() }
}

fn member(keyring: Option<Keyring>) -> Core {
    let mut config = Config::new("b", "10.0.0.9:8301".parse().expect("an address"));
    config.tags = Tags::from([("role".into(), "web".into())]);
    config.max_members = 64;
    config.keyring = keyring;
    Core::new(config, Arc::new(SeededRng::new(1)), RecordPool::new(), Duration::ZERO).expect("a sound configuration")
}

/// What a new member makes of a packet, and of the same as a stream.
fn taken(keyring: Option<Keyring>, packet: Option<&[u8]>, stream: Option<&[u8]>) -> u64 {
    let from: SocketAddr = "10.0.0.77:8301".parse().expect("an address");
    let mut core = member(keyring);
    if let Some(packet) = packet {
        core.handle_packet(Duration::ZERO, from, packet);
    }
    let answer = stream.and_then(|stream| {
        let mut assembler = Assembler::default();
        let is_whole = matches!(assembler.push(stream), Ok(true));
        is_whole.then(|| core.serve_stream(Duration::ZERO, from, stream)).flatten()
    });
    core.handle_timers(Duration::from_secs(1));
    let (mut packets, mut exchanges, mut events) = (0_usize, 0_usize, 0_usize);
    while let Some(output) = core.poll() {
        match output {
            Output::Packet { bytes, .. } => {
                assert!(bytes.len() <= 2048, "a packet of {} bytes", bytes.len());
                packets += 1;
            }
            Output::Exchange { .. } => exchanges += 1,
            Output::Event(_) => events += 1,
        }
        assert!(packets + exchanges + events < 1_000, "a thousand outputs for one input");
    }
    assert!(core.member_count() <= 64 && core.member("b").is_some());
    outcome((
        packets.min(8),
        exchanges.min(4),
        events.min(8),
        core.member_count().min(8),
        answer.map(|it| it.len().min(4)),
    ))
}

/// Letters only: a place or a number in a text would make every outcome a new one.
fn words_of(error: &dyn std::fmt::Display) -> String {
    error.to_string().chars().filter(|it| it.is_ascii_alphabetic() || *it == ' ').collect()
}

/// What is in a packet that was opened: the kinds of the first messages, and what is wrong with it.
fn told(packet: &[u8]) -> (Vec<u8>, Option<String>) {
    let mut kinds = Vec::new();
    let unfolded = unfold(packet, |kind, message| {
        if kinds.len() < 4 {
            kinds.extend([kind, message.len().min(2) as u8]);
        }
    });
    (kinds, unfolded.err().map(|error| words_of(&error)))
}

fn target(name: &str) -> Target<'_> {
    let mut seeds = golden();
    // Serf's messages travel inside memberlist's.
    seeds.extend(golden().into_iter().map(|message| [&[8], &message[..]].concat()));
    Target { name, seeds, words: WORDS, cases: 5_000 }
}

#[test]
fn fuzz_packets() {
    target("gossip-packets").run(|packet| outcome((taken(None, Some(packet), None), told(packet))));
}

/// Two messages in a compound, the lengths as they should be: what is damaged is inside.
#[test]
fn fuzz_compounds() {
    target("gossip-compounds").run(|message| {
        let (first, second) = message.split_at(message.len() / 2);
        let mut compound = vec![7, 2];
        for part in [first, second] {
            compound.extend_from_slice(&(part.len().min(65_535) as u16).to_be_bytes());
        }
        compound.extend_from_slice(message);
        outcome((taken(None, Some(&compound), None), told(&compound)))
    });
}

#[test]
fn fuzz_compressed() {
    let rng = SeededRng::new(2);
    target("gossip-compressed").run(|message| {
        let (mut packet, mut stream) = (Vec::new(), Vec::new());
        envelope(None).seal_packet(message, false, true, &rng, &mut packet);
        envelope(None).seal_stream(message, true, &rng, &mut stream);
        // And damaged once it was compressed.
        let mut damaged = packet.clone();
        if let [first, .., last] = message {
            let at = usize::from(u16::from_be_bytes([*first, *last])) % damaged.len();
            damaged[at] ^= 1 << (last % 8);
        }
        let said = (told(&packet), told(&damaged));
        outcome((taken(None, Some(&packet), Some(&stream)), taken(None, Some(&damaged), None), said))
    });
}

#[test]
fn fuzz_encrypted() {
    let (keys, rng) = (keyring(), SeededRng::new(3));
    target("gossip-encrypted").run(|message| {
        let (mut packet, mut stream) = (Vec::new(), Vec::new());
        envelope(Some(&keys)).seal_packet(message, true, false, &rng, &mut packet);
        envelope(Some(&keys)).seal_stream(message, false, &rng, &mut stream);
        let opened = envelope(Some(&keys)).open_packet(&packet).map(Cow::into_owned);
        assert!(opened.is_ok() || message.is_empty(), "what was sealed does not open");
        // What the keys did not seal is nothing to a member, whatever it holds.
        let stranger = taken(Some(keyring()), Some(message), None);
        let silence = taken(Some(keyring()), None, None);
        assert_eq!(stranger, silence, "a member took what its keys did not seal");
        outcome((taken(Some(keyring()), Some(&packet), Some(&stream)), opened.ok().map(|message| told(&message))))
    });
}

#[test]
fn fuzz_streams() {
    target("gossip-streams").run(|stream| {
        let opened = envelope(None).open_stream(stream).err().map(|error| words_of(&error));
        let (mut whole, mut pieces) = (Assembler::default(), Assembler::default());
        let at_once = whole.push(stream).map_err(|error| words_of(&error));
        let mut in_pieces = Ok(false);
        for piece in stream.chunks(7) {
            in_pieces = pieces.push(piece).map_err(|error| words_of(&error));
            if in_pieces != Ok(false) {
                break;
            }
        }
        assert!(in_pieces == at_once || in_pieces == Ok(true) || at_once.is_err(), "{at_once:?} and {in_pieces:?}");
        outcome((taken(None, None, Some(stream)), opened, at_once))
    });
}
