//! `writer`: puts numbered keys through an agent, for ever, and prints each key whose write was acknowledged.
//!
//! Whoever reads the lines can ask later whether every acknowledged write is there. A write without an answer is never
//! tried again under its number, for it may have been applied: the next number is taken.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::http;

/// The pause after a write that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// Where and what to write.
pub(crate) struct Settings {
    pub(crate) agent: SocketAddr,
    pub(crate) token: Option<String>,
    pub(crate) prefix: String,
    pub(crate) writers: usize,
}

/// Starts the writing threads. Lines on standard output:
/// `acknowledged KEY MILLISECONDS-SINCE-START` and `failed KEY MILLISECONDS-SINCE-START REASON`.
pub(crate) fn start(settings: Settings) {
    let (settings, next, begun) = (Arc::new(settings), Arc::new(AtomicU64::new(1)), Instant::now());
    for _ in 0..settings.writers {
        let (settings, next) = (Arc::clone(&settings), Arc::clone(&next));
        thread::spawn(move || write_for_ever(&settings, &next, begun));
    }
}

fn write_for_ever(settings: &Settings, next: &AtomicU64, begun: Instant) {
    let mut connection = None;
    loop {
        let key = format!("{}{:08}", settings.prefix, next.fetch_add(1, Ordering::Relaxed));
        match put(settings, connection.take(), &key) {
            Ok(kept) => {
                println!("acknowledged {key} {}", begun.elapsed().as_millis());
                connection = Some(kept);
            }
            Err(error) => {
                println!("failed {key} {} {error}", begun.elapsed().as_millis());
                thread::sleep(PAUSE);
            }
        }
    }
}

/// One write, the key being its own value; gives back the connection for the next.
fn put(settings: &Settings, connection: Option<TcpStream>, key: &str) -> io::Result<TcpStream> {
    let connection = connection.map_or_else(|| http::connect(settings.agent), Ok)?;
    let token = settings.token.as_deref().map(|token| ("x-consul-token", token));
    let headers: Vec<(&str, &str)> = token.into_iter().collect();
    let answer = http::begin(connection, "PUT", &format!("/v1/kv/{key}"), &headers, key.as_bytes())?;
    let status = answer.status;
    let (body, connection) = answer.into_parts()?;
    let text = String::from_utf8_lossy(&body);
    if status == 200 && text.trim() == "true" {
        return Ok(connection);
    }
    Err(io::Error::other(format!("status {status}: {}", text.trim())))
}
