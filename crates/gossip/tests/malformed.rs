//! Damaged, cut, spliced and invented packets and streams: a member refuses them, holds on to its limits, and lives.
//!
//! `LICTOR_MALFORMED=1000000 cargo test --workspace --test malformed` tries as many; the seed is in `LICTOR_SEED`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lictor_gossip::wire::stream::Assembler;
use lictor_gossip::{Config, Core, Keyring, Output, RecordPool, Tags};
use lictor_runtime::{Rng, SeededRng};

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|it| it.parse().ok()).unwrap_or(otherwise)
}

fn golden() -> Vec<Vec<u8>> {
    include_str!("golden/packets.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(_, hex)| {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
        })
        .collect()
}

/// Bytes that matter to the formats: kinds, heads of texts, lists and maps of every width, and extremes.
const TELLING: &[u8] = &[
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 244, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc4, 0xc6,
    0xcf, 0xd3, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xe0, 0xff,
];

struct Mutator {
    rng: Arc<SeededRng>,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    fn pick(&self) -> &[u8] {
        &self.corpus[self.rng.below(self.corpus.len() as u64) as usize]
    }

    fn at(&self, bytes: &[u8]) -> usize {
        self.rng.below(bytes.len().max(1) as u64) as usize
    }

    fn packet(&self) -> Vec<u8> {
        let mut bytes = self.pick().to_vec();
        // Serf's messages travel inside memberlist's.
        if self.rng.below(2) == 0 {
            bytes.insert(0, 8);
        }
        for _ in 0..self.rng.below(4) {
            let at = self.at(&bytes);
            match self.rng.below(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.rng.below(8),
                1 if !bytes.is_empty() => bytes[at] = TELLING[self.rng.below(TELLING.len() as u64) as usize],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, TELLING[self.rng.below(TELLING.len() as u64) as usize]),
                4 => {
                    let other = self.pick();
                    let from = self.rng.below(other.len() as u64) as usize;
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                5 => {
                    // A compound of what there is.
                    let mut compound = vec![7, 2];
                    compound.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
                    compound.extend_from_slice(&(self.rng.below(70_000) as u16).to_be_bytes());
                    compound.extend_from_slice(&bytes);
                    compound.extend_from_slice(self.pick());
                    bytes = compound;
                }
                _ => {
                    let mut noise = [0; 8];
                    self.rng.fill(&mut noise);
                    bytes.splice(at..at, noise);
                }
            }
        }
        bytes
    }
}

fn core(rng: &Arc<SeededRng>, keyring: Option<Keyring>) -> Core {
    let mut config = Config::new("b", "10.0.0.9:8301".parse().expect("an address"));
    config.tags = Tags::from([("role".into(), "web".into())]);
    config.max_members = 64;
    config.keyring = keyring;
    Core::new(config, rng.clone(), RecordPool::new(), Duration::ZERO).expect("a sound configuration")
}

#[test]
fn a_member_lives_through_any_packet_and_any_stream() {
    let seed = number("LICTOR_SEED", 1);
    let rng = Arc::new(SeededRng::new(seed));
    let mutator = Mutator { rng: rng.clone(), corpus: golden() };
    let from: SocketAddr = "10.0.0.77:8301".parse().expect("an address");
    let (mut core, mut now) = (core(&rng, None), Duration::ZERO);
    for round in 0..number("LICTOR_MALFORMED", 60_000) {
        let packet = mutator.packet();
        now += Duration::from_millis(rng.below(50));
        core.handle_packet(now, from, &packet);
        let mut assembler = Assembler::default();
        if matches!(assembler.push(&packet), Ok(true)) {
            core.serve_stream(now, from, &packet);
        }
        core.handle_timers(now);
        let mut outputs = 0;
        while let Some(output) = core.poll() {
            outputs += 1;
            match output {
                Output::Packet { bytes, .. } => assert!(bytes.len() <= 2048, "seed {seed}, round {round}"),
                Output::Exchange { id, .. } => {
                    let result = if rng.below(2) == 0 { Ok(packet.clone()) } else { Err("gone".into()) };
                    core.exchange_ended(now, id, result);
                }
                Output::Event(_) => {}
            }
        }
        assert!(outputs < 1_000, "seed {seed}, round {round}: {outputs} outputs for one packet");
        assert!(core.member_count() <= 64, "seed {seed}, round {round}");
    }
    assert!(core.member("b").is_some(), "it still knows itself");
}

#[test]
fn an_encrypted_member_takes_nothing_that_its_keys_did_not_seal() {
    let rng = Arc::new(SeededRng::new(number("LICTOR_SEED", 1)));
    let mutator = Mutator { rng: rng.clone(), corpus: golden() };
    let from: SocketAddr = "10.0.0.77:8301".parse().expect("an address");
    let mut core = core(&rng, Some(Keyring::new(&[[9; 32]]).expect("a key")));
    for _ in 0..20_000 {
        let packet = mutator.packet();
        core.handle_packet(Duration::ZERO, from, &packet);
        if let Some(answer) = core.serve_stream(Duration::ZERO, from, &packet) {
            assert_eq!(answer[0], 10, "what is answered is encrypted");
        }
        assert!(core.poll().is_none(), "nothing is said to a stranger");
    }
    assert_eq!(core.member_count(), 1);
}
