//! As much HTTP/1.1 as the samples need: bodies with a length, or that end with the connection.
//! Every head and body has a limit, every wait a timeout.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// The longest head of a request or an answer.
const MAXIMUM_HEAD: u64 = 64 * 1024;
/// The longest body.
const MAXIMUM_BODY: u64 = 16 * 1024 * 1024;
/// How long a peer may take to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a peer may be silent.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Bytes(Vec<u8>),
    /// Writes until it is done or the peer goes away; the connection ends with it.
    Stream(Box<Stream>),
}

/// What writes a body that has no known end.
type Stream = dyn FnOnce(&mut dyn Write) -> io::Result<()>;

impl Reply {
    pub(crate) fn text(status: u16, text: String) -> Self {
        Self { status, body: Body::Bytes(text.into_bytes()) }
    }

    pub(crate) fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'static) -> Self {
        Self { status: 200, body: Body::Stream(Box::new(write)) }
    }
}

/// The answer to a request of ours: its body is still to be read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) rest: BufReader<TcpStream>,
    length: Option<u64>,
}

impl Answer {
    /// Reads the body to its end.
    pub(crate) fn into_body(self) -> io::Result<Vec<u8>> {
        Ok(self.into_parts()?.0)
    }

    /// The body, and the connection for the next request.
    pub(crate) fn into_parts(mut self) -> io::Result<(Vec<u8>, TcpStream)> {
        let mut body = Vec::new();
        (&mut self.rest).take(self.length.unwrap_or(MAXIMUM_BODY).min(MAXIMUM_BODY)).read_to_end(&mut body)?;
        if self.length.is_some_and(|length| length != body.len() as u64) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended before its length"));
        }
        Ok((body, self.rest.into_inner()))
    }
}

/// A connection with timeouts set.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    prepare(TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?)
}

fn prepare(connection: TcpStream) -> io::Result<TcpStream> {
    connection.set_read_timeout(Some(SILENCE_TIMEOUT))?;
    connection.set_write_timeout(Some(SILENCE_TIMEOUT))?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// Sends a request in one write and reads the head of its answer.
pub(crate) fn begin(
    mut connection: TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut message = format!("{method} {path} HTTP/1.1\r\nhost: sample\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        message.push_str(&format!("{name}: {value}\r\n"));
    }
    message.push_str("\r\n");
    let mut message = message.into_bytes();
    message.extend_from_slice(body);
    connection.write_all(&message)?;
    let mut rest = BufReader::new(connection);
    let (line, length) = head(&mut rest)?.ok_or_else(|| malformed("the connection was closed without an answer"))?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| malformed("this is not an HTTP answer"))?;
    Ok(Answer { status, rest, length })
}

/// Answers the requests of one connection, one after the other, until the peer closes it.
pub(crate) fn serve(connection: &TcpStream, handler: impl Fn(Request) -> Reply) -> io::Result<()> {
    let mut out = prepare(connection.try_clone()?)?;
    let mut input = BufReader::new(connection);
    while let Some((line, length)) = head(&mut input)? {
        let mut words = line.split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Err(malformed("this is not an HTTP request"));
        };
        let length = length.unwrap_or(0);
        if length > MAXIMUM_BODY {
            return Err(malformed("the body is too long"));
        }
        let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        input.read_exact(&mut body)?;
        let path = path.split('?').next().unwrap_or(path).to_owned();
        let reply = handler(Request { method: method.to_owned(), path, body });
        match reply.body {
            Body::Bytes(body) => {
                let head = format!("HTTP/1.1 {} -\r\ncontent-length: {}\r\n\r\n", reply.status, body.len());
                let mut message = head.into_bytes();
                message.extend_from_slice(&body);
                send(&mut out, &message)?;
            }
            Body::Stream(write) => {
                send(&mut out, format!("HTTP/1.1 {} -\r\nconnection: close\r\n\r\n", reply.status).as_bytes())?;
                return write(&mut out);
            }
        }
    }
    Ok(())
}

/// Writes it all, at once.
pub(crate) fn send(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// The first line and the content length of a message; nothing when the peer has closed the connection instead.
fn head(input: &mut impl BufRead) -> io::Result<Option<(String, Option<u64>)>> {
    let mut limited = input.take(MAXIMUM_HEAD);
    let (mut first, mut line, mut length) = (String::new(), String::new(), None);
    if limited.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        if limited.read_line(&mut line)? == 0 {
            return Err(malformed("the head ended early or is too long"));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some((first.trim_end().to_owned(), length)));
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().map_err(|_| malformed("content-length is not a number"))?);
        }
    }
}

fn malformed(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
