//! Many packets in one call: a socket's questions as they wait in the kernel, and the answers to them.
//!
//! Invariants
//! - A call takes at most [`PACKETS_MAX`] packets, each of [`QUESTION_BYTES_MAX`] bytes; a longer one is left out.
//! - A packet that cannot be sent keeps no other one from being sent.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Packets in one call.
pub(super) const PACKETS_MAX: usize = 32;
/// Bytes of the largest question over UDP.
pub(super) const QUESTION_BYTES_MAX: usize = 4096;
/// Bytes of room that an answer's place keeps for the next one.
const KEPT_BYTES_MAX: usize = 4096;

/// Packets that came.
pub(super) struct Questions {
    buffer: Vec<u8>,
    packets: Vec<(usize, usize, SockaddrStorage)>,
}

impl Questions {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; PACKETS_MAX * QUESTION_BYTES_MAX], packets: Vec::with_capacity(PACKETS_MAX) }
    }

    /// Waits for packets and takes what there is.
    pub(super) async fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        loop {
            socket.readable().await?;
            match socket.try_io(Interest::READABLE, || self.take(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    fn take(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.packets.clear();
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(PACKETS_MAX, None);
        let places = self.buffer.chunks_exact_mut(QUESTION_BYTES_MAX).map(|place| [IoSliceMut::new(place)]);
        let mut places: Vec<[IoSliceMut<'_>; 1]> = places.collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let came = recvmmsg(socket.as_raw_fd(), &mut headers, places.iter_mut(), flags, None)?;
        for (place, packet) in came.enumerate() {
            if let Some(from) = packet.address
                && !packet.flags.contains(MsgFlags::MSG_TRUNC)
            {
                self.packets.push((place * QUESTION_BYTES_MAX, packet.bytes, from));
            }
        }
        Ok(())
    }

    /// What came, and from whom.
    pub(super) fn packets(&self) -> impl Iterator<Item = (&[u8], SockaddrStorage)> {
        self.packets.iter().map(|(begin, length, from)| (&self.buffer[*begin..begin + length], *from))
    }
}

/// The address without its port.
pub(super) fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let four = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    four.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// Packets that are to go out.
#[derive(Default)]
pub(super) struct Answers {
    /// Places for packets, of which the first ones are in use.
    places: Vec<Vec<u8>>,
    addresses: Vec<Option<SockaddrStorage>>,
}

impl Answers {
    /// A place for the next packet, which counts once [`Answers::add`] has said whom it is for.
    pub(super) fn place(&mut self) -> &mut Vec<u8> {
        let next = self.addresses.len();
        if self.places.len() == next {
            self.places.push(Vec::new());
        }
        &mut self.places[next]
    }

    /// What was written to the place is for `address`.
    pub(super) fn add(&mut self, address: SockaddrStorage) {
        self.addresses.push(Some(address));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// One more packet.
    pub(super) fn push(&mut self, bytes: Vec<u8>, address: SockaddrStorage) {
        *self.place() = bytes;
        self.add(address);
    }

    /// Sends all of them.
    pub(super) async fn send(&mut self, socket: &UdpSocket) {
        let mut sent = 0;
        while sent < self.addresses.len() {
            match socket.try_io(Interest::WRITABLE, || self.give(socket, sent)) {
                Ok(count) => sent += count.max(1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if socket.writable().await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    // The first of those that were left cannot be sent; the others may.
                    tracing::debug!(%error, "cannot send a DNS answer");
                    sent += 1;
                }
            }
        }
        self.addresses.clear();
        self.places.truncate(PACKETS_MAX);
        self.places.iter_mut().for_each(|place| {
            place.clear();
            place.shrink_to(KEPT_BYTES_MAX);
        });
    }

    fn give(&self, socket: &UdpSocket, from: usize) -> io::Result<usize> {
        let to = self.addresses.len().min(from + PACKETS_MAX);
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(to - from, None);
        let packets: Vec<[IoSlice<'_>; 1]> = self.places[from..to].iter().map(|place| [IoSlice::new(place)]).collect();
        let nothing_beside: [ControlMessage<'_>; 0] = [];
        let (addresses, flags) = (&self.addresses[from..to], MsgFlags::MSG_DONTWAIT);
        let went = sendmmsg(socket.as_raw_fd(), &mut headers, packets.iter(), addresses, nothing_beside, flags)?;
        Ok(went.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (UdpSocket, UdpSocket) {
        let [one, two] = [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        one.connect(two.local_addr().unwrap()).await.unwrap();
        (one, two)
    }

    #[tokio::test]
    async fn packets_come_and_go_many_at_once_each_with_its_address() {
        let (asker, door) = pair().await;
        let mut questions = Questions::new();
        let mut answers = Answers::default();
        for round in 0..3_u8 {
            for number in 0..PACKETS_MAX as u8 {
                asker.send(&[round, number, 7]).await.unwrap();
            }
            let mut came = 0;
            while came < PACKETS_MAX {
                questions.receive(&door).await.unwrap();
                for (packet, from) in questions.packets() {
                    assert_eq!(ip_of(&from), Some([127, 0, 0, 1].into()));
                    answers.place().extend_from_slice(packet);
                    answers.add(from);
                    came += 1;
                }
            }
            answers.push(b"one more".to_vec(), "127.0.0.1:9".parse::<std::net::SocketAddrV4>().unwrap().into());
            answers.send(&door).await;
            let mut buffer = [0; 16];
            for number in 0..PACKETS_MAX as u8 {
                let length = asker.recv(&mut buffer).await.unwrap();
                assert_eq!(buffer[..length], [round, number, 7]);
            }
        }
    }

    #[tokio::test]
    async fn a_packet_that_is_too_long_is_left_out_and_one_that_cannot_go_stops_none() {
        let (asker, door) = pair().await;
        asker.send(&[1; QUESTION_BYTES_MAX + 1]).await.unwrap();
        asker.send(&[2; QUESTION_BYTES_MAX]).await.unwrap();
        let (mut questions, mut lengths) = (Questions::new(), Vec::new());
        let mut answers = Answers::default();
        while lengths.is_empty() {
            questions.receive(&door).await.unwrap();
            for (packet, from) in questions.packets() {
                lengths.push(packet.len());
                // Longer than any packet can be.
                answers.push(vec![0; 70_000], from);
                answers.push(vec![3], from);
            }
        }
        assert_eq!(lengths, [QUESTION_BYTES_MAX]);
        answers.send(&door).await;
        let mut buffer = [0; 16];
        assert_eq!(asker.recv(&mut buffer).await.unwrap(), 1);
    }
}
