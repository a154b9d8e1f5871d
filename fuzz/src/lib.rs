//! Inputs that nobody would send: seeds, mutated, thrown at what reads from the network and from files.
//!
//! ```text
//! seeds of the target + corpus/NAME/* ─> mutate ─> target ─> an outcome that is new? ─> one more seed
//!                                                        └─> a panic? ─> made smaller, printed with its number, the test fails
//! ```
//!
//! This is not a fuzzer that watches which branches are taken: those need an unstable compiler. What it watches is what the target
//! says of an input, as a number: an input with an outcome that was not seen before becomes a seed. A target that tells its errors
//! apart leads it from one to the next.
//!
//! A target is a test named `fuzz_...` in the crate whose readers it tries, so it sees what is private there. As a test it tries a
//! fixed number of inputs, the same every time; `cargo xtask test fuzz --seconds N` tries for so long, others every time.
//! `LICTOR_FUZZ_SEED` begins at one number again. What was found belongs into the corpus, where it is tried first for ever.
//!
//! Invariants
//! - The inputs of a number are a function of it, of the seeds and of what the target said before.
//! - No input is longer than [`INPUT_BYTES_MAX`], no more than [`SEEDS_MAX`] are seeds.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lictor_runtime::{Rng, SeededRng, SystemRng};

/// Bytes of the longest input.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Inputs that others are made of.
pub const SEEDS_MAX: usize = 4096;
/// Changes to one input.
const CHANGES_MAX: u64 = 8;
/// Tries to make an input smaller that was found.
const SHRINKS_MAX: usize = 5_000;
/// An input that is under way for so long is as bad as one that ends the reader.
const INPUT_LIMIT: Duration = Duration::from_secs(20);
/// Numbers that lie at the edges of what fields hold.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xc0,
    0xff,
    0x100,
    0x3fff,
    0x7fff,
    0x8000,
    0xffff,
    0x10000,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];

/// What is tried.
pub struct Target<'a> {
    /// Its name, which is that of its folder in the corpus.
    pub name: &'a str,
    /// Well-formed inputs to begin with.
    pub seeds: Vec<Vec<u8>>,
    /// Words that mean something there.
    pub words: &'a [&'a [u8]],
    /// How many inputs a test tries.
    pub cases: u64,
}

/// An outcome as a number.
pub fn outcome(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl Target<'_> {
    /// Tries inputs. `case` panics when one breaks a promise, and otherwise says what became of it.
    ///
    /// # Panics
    /// As `case`, after the number of the input and the smallest input that still does it were printed.
    pub fn run(&self, case: impl Fn(&[u8]) -> u64) {
        let seconds = variable("LICTOR_FUZZ_SECONDS");
        let first =
            variable("LICTOR_FUZZ_SEED").unwrap_or(if seconds.is_some() { SystemRng.next_u64() >> 1 } else { 0 });
        println!("fuzz {}: from seed {first}", self.name);
        let watched = Arc::new(Watched::default());
        let (_running, ended) = channel();
        let (name, watching) = (self.name.to_owned(), Arc::clone(&watched));
        std::thread::spawn(move || watching.watch(&name, &ended));
        let case = |input: &[u8]| {
            watched.begins(input);
            case(input)
        };
        let mut seeds = self.seeds.clone();
        seeds.extend(corpus(self.name));
        let mut seen = HashSet::new();
        for (at, seed) in seeds.iter().enumerate() {
            seen.insert(self.attempt(&case, seed, &format!("seed {at} of the target and its corpus")));
        }
        let rng = SeededRng::new(first);
        let (begin, mut number, given) = (std::time::Instant::now(), 0, seeds.len());
        let limit = seconds.map(Duration::from_secs);
        while limit.map_or(number < self.cases, |limit| begin.elapsed() < limit) {
            let input = mutated(&rng, &seeds, self.words);
            let said = self.attempt(&case, &input, &format!("input {number} of LICTOR_FUZZ_SEED={first}"));
            if seeds.len() < SEEDS_MAX && seen.insert(said) {
                seeds.push(input);
            }
            number += 1;
        }
        println!(
            "summary: {}: {number} inputs from seed {first}, {} kinds of outcome beyond {given} seeds",
            self.name,
            seeds.len() - given
        );
    }

    fn attempt(&self, case: &impl Fn(&[u8]) -> u64, input: &[u8], what: &str) -> u64 {
        match catch_unwind(AssertUnwindSafe(|| case(input))) {
            Ok(said) => said,
            Err(panic) => {
                let smallest = shrunk(input, |input| catch_unwind(AssertUnwindSafe(|| case(input))).is_err());
                let bytes = smallest.len();
                eprintln!("fuzz {}: {what} breaks a promise, and so does this, of {bytes} bytes:", self.name);
                show(self.name, &smallest);
                std::panic::resume_unwind(panic)
            }
        }
    }
}

/// Shows an input that was found.
fn show(name: &str, input: &[u8]) {
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    eprintln!("{:?}", String::from_utf8_lossy(input));
    eprintln!("keep it: echo {hex} > fuzz/corpus/{name}/SAY-WHAT-IT-IS.hex");
}

/// The input that is under way, for who looks whether it ends.
#[derive(Default)]
struct Watched(Mutex<(u64, Vec<u8>)>);

impl Watched {
    fn begins(&self, input: &[u8]) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.0 += 1;
        watched.1.clear();
        watched.1.extend_from_slice(input);
    }

    /// Ends the process when an input takes too long: nothing else ends a reader that goes round for ever.
    fn watch(&self, name: &str, ended: &Receiver<()>) {
        let mut before = 0;
        while ended.recv_timeout(INPUT_LIMIT) == Err(RecvTimeoutError::Timeout) {
            let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if watched.0 == before {
                eprintln!("fuzz {name}: an input took longer than {} s:", INPUT_LIMIT.as_secs());
                show(name, &watched.1);
                std::process::exit(101);
            }
            before = watched.0;
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What was found before: files whose names end in `.hex` hold it in hexadecimal, others as it is.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let Ok(entries) = std::fs::read_dir(place) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).ok()?;
        if path.extension().is_some_and(|it| it == "hex") { of_hex(&bytes) } else { Some(bytes) }
    };
    files.into_iter().filter_map(read).collect()
}

/// The bytes that are written in hexadecimal.
pub fn of_hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn below(rng: &dyn Rng, limit: usize) -> usize {
    rng.below(limit.max(1) as u64) as usize
}

/// One of the seeds, changed.
pub fn mutated(rng: &dyn Rng, seeds: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let one = |rng: &dyn Rng| seeds.get(below(rng, seeds.len())).cloned().unwrap_or_default();
    let mut input = one(rng);
    for _ in 0..=rng.below(CHANGES_MAX) {
        let at = below(rng, input.len());
        let to = at + below(rng, input.len().saturating_sub(at).min(64) + 1);
        match rng.below(11) {
            0 if !input.is_empty() => input[at] ^= 1 << rng.below(8),
            1 if !input.is_empty() => input[at] = rng.next_u64() as u8,
            2 => drop(input.drain(at..to)),
            3 => input.truncate(at),
            4 => {
                let copy = input[at..to].to_vec();
                let place = below(rng, input.len() + 1);
                input.splice(place..place, copy);
            }
            5 if !words.is_empty() => {
                let word = words[below(rng, words.len())];
                let end = if rng.below(2) == 0 { at } else { (at + word.len()).min(input.len()) };
                input.splice(at..end, word.iter().copied());
            }
            6 => {
                let other = one(rng);
                let from = below(rng, other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            7 => {
                let other = one(rng);
                let from = below(rng, other.len());
                let until = from + below(rng, other.len() - from + 1);
                input.splice(at..to, other[from..until].iter().copied());
            }
            8 => number(rng, &mut input, at),
            9 => {
                // Many of the same: what is nested or counted.
                let piece = input[at..to].to_vec();
                let times = below(rng, 300);
                let many = piece.repeat(times.min(INPUT_BYTES_MAX / piece.len().max(1)));
                input.splice(at..at, many);
            }
            _ => {
                let mut noise = [0; 8];
                rng.fill(&mut noise);
                let length = below(rng, noise.len());
                input.splice(at..at, noise[..length].iter().copied());
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

/// Makes a number that may be a length or a count another one, in either order of bytes.
fn number(rng: &dyn Rng, input: &mut [u8], at: usize) {
    let width = [1, 2, 4, 8][below(rng, 4)];
    let Some(place) = input.get_mut(at..at + width) else { return };
    let mut wide = [0; 8];
    let is_big = rng.below(2) == 0;
    if is_big {
        wide[8 - width..].copy_from_slice(place);
    } else {
        place.iter().rev().enumerate().for_each(|(index, byte)| wide[8 - width + index] = *byte);
    }
    let old = u64::from_be_bytes(wide);
    let new = match rng.below(4) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old.wrapping_mul(2),
        _ => EDGES[below(rng, EDGES.len())],
    }
    .to_be_bytes();
    if is_big {
        place.copy_from_slice(&new[8 - width..]);
    } else {
        place.iter_mut().zip(new.iter().rev()).for_each(|(byte, new)| *byte = *new);
    }
}

/// The smallest input that is found to fail still, by leaving parts out and making bytes plain, which may make more of it needless.
fn shrunk(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut smallest = input.to_vec();
    let mut tries = 0..SHRINKS_MAX;
    loop {
        let before = smallest.clone();
        let mut part = smallest.len().div_ceil(2);
        while part > 0 {
            let mut at = 0;
            while at < smallest.len() && tries.next().is_some() {
                let mut smaller = smallest.clone();
                smaller.drain(at..(at + part).min(smallest.len()));
                if fails(&smaller) { smallest = smaller } else { at += part }
            }
            part /= 2;
        }
        for at in 0..smallest.len() {
            let mut plainer = smallest.clone();
            plainer[at] = 0;
            if plainer != smallest && tries.next().is_some() && fails(&plainer) {
                smallest = plainer;
            }
        }
        if smallest == before || tries.is_empty() {
            return smallest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader with a bug that no single change leads to: a list whose count is larger than what follows, inside a list of its
    /// own kind, behind a word.
    fn planted(input: &[u8]) -> u64 {
        let Some(rest) = input.strip_prefix(b"head") else { return 0 };
        let [7, count, rest @ ..] = rest else { return 1 };
        if usize::from(*count) > rest.len() {
            return 2;
        }
        let [7, inner, rest @ ..] = rest else { return 3 };
        // The bug: the inner count is believed.
        assert!(usize::from(*inner) <= rest.len() + 100, "read beyond the end");
        4 + u64::from(*inner > 3)
    }

    fn target(name: &str) -> Target<'_> {
        Target { name, seeds: vec![b"tail".to_vec()], words: &[b"head", &[7]], cases: 200_000 }
    }

    #[test]
    fn a_bug_behind_several_steps_is_found_and_made_small() {
        let found = catch_unwind(|| target("planted").run(planted)).unwrap_err();
        let said = found.downcast_ref::<&str>().copied().map(str::to_owned).or(found.downcast_ref::<String>().cloned());
        assert_eq!(said.as_deref(), Some("read beyond the end"));
        let large = [&b"head"[..], &[7, 3, 7, 250, 1, 2, 3, 4, 5]].concat();
        let small = shrunk(&large, |input| catch_unwind(|| planted(input)).is_err());
        assert_eq!(small, [&b"head"[..], &[7, 0, 7, 250]].concat());
    }

    #[test]
    fn a_target_that_tells_nothing_apart_is_not_led_there() {
        // The same bug, with outcomes that say nothing: mutation alone does not get there in as many tries.
        target("blind").run(|input| {
            planted(input);
            0
        });
    }

    #[test]
    fn the_same_number_makes_the_same_inputs_within_bounds() {
        let seeds = vec![b"one".to_vec(), vec![0; 50_000]];
        let made = || {
            let rng = SeededRng::new(9);
            (0..2_000).map(|_| mutated(&rng, &seeds, &[b"word"])).collect::<Vec<_>>()
        };
        let (first, again) = (made(), made());
        assert_eq!(first, again);
        assert!(first.iter().all(|input| input.len() <= INPUT_BYTES_MAX));
        assert!(first.iter().collect::<HashSet<_>>().len() > 1_500);
    }

    #[test]
    fn hexadecimal_is_read_whole_or_not() {
        assert_eq!(of_hex(b"00ff0a\n"), Some(vec![0, 255, 10]));
        assert_eq!(of_hex(b"0"), None);
        assert_eq!(of_hex(b"zz"), None);
    }
}
