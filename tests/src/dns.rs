//! A question to a DNS door, in bytes written by hand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The type of SRV records.
const SRV: u16 = 33;

/// The ports in the SRV records of `name`, asked over TCP, which carries all of them.
///
/// # Errors
/// There is no answer.
pub fn srv_ports(server: SocketAddr, name: &str) -> io::Result<Vec<u16>> {
    let mut question = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).map_err(io::Error::other)?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 33, 0, 1]);
    let mut stream = TcpStream::connect_timeout(&server, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    ports(&question, &answer).ok_or_else(|| io::Error::other("the answer is no DNS message"))
}

fn ports(question: &[u8], answer: &[u8]) -> Option<Vec<u16>> {
    let number = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let (mut at, mut ports) = (question.len(), Vec::new());
    for _ in 0..number(6)? {
        // A name is labels, or ends early in a pointer of two bytes.
        while !matches!(answer.get(at)?, 0 | 0xc0..) {
            at += 1 + usize::from(answer[at]);
        }
        at += if answer[at] == 0 { 1 } else { 2 };
        let (kind, data_length) = (number(at)?, usize::from(number(at + 8)?));
        at += 10;
        if kind == SRV {
            ports.push(number(at + 4)?);
        }
        at += data_length;
    }
    Some(ports)
}
