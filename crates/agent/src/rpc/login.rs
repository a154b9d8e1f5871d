//! The login of an agent that has no certificate yet, on `login/1`: the server's hello, the request, the reply.
//!
//! A frame is its length as four bytes, the most significant first, and that many bytes of CBOR.

use std::io;
use std::time::Duration;

use lictor_runtime::Transport;
use lictor_runtime::transport::ALPN_LOGIN;
use lictor_types::rpc::{Login, LoginGrant, LoginHello, LoginReply};
use lictor_types::{Refusal, encoding};
use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::invalid;

/// Bytes of the largest frame: it comes from somebody who has proven nothing yet.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// A login takes no longer, the server's question to Kubernetes included.
pub const LOGIN_LIMIT: Duration = Duration::from_secs(15);

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server was not reached, or broke off.
    #[error("cannot log in at {address}: {source}")]
    Connection {
        /// Of the server.
        address: String,
        /// What happened.
        source: io::Error,
    },
    /// The servers have no cluster yet; try again.
    #[error("{address} is not part of a cluster yet; it takes logins once the servers have elected a leader")]
    NotReady {
        /// Of the server.
        address: String,
    },
    /// We cannot word the request.
    #[error("cannot make the login request: {0}")]
    Request(String),
    /// The server said no.
    #[error("{address} refuses the login: {refusal}")]
    Refused {
        /// Of the server.
        address: String,
        /// What it said.
        refusal: Refusal,
    },
}

/// Logs in at the server at `address`. `ask` words the request: the certificate that it asks for must name the trust
/// domain of the server's hello.
///
/// # Errors
/// The server was not reached in time, it has no cluster yet, or it refuses.
pub async fn login<A>(transport: &dyn Transport, address: &str, ask: A) -> Result<LoginGrant, LoginError>
where
    A: FnOnce(&LoginHello) -> Result<Login, String> + Send,
{
    let broken = |source: io::Error| LoginError::Connection { address: address.into(), source };
    let exchange = async {
        let mut stream = transport.dial(address, ALPN_LOGIN).await.map_err(broken)?;
        let hello: LoginHello = read_frame(&mut stream).await.map_err(broken)?;
        if hello.trust_domain.is_empty() {
            return Err(LoginError::NotReady { address: address.into() });
        }
        let request = ask(&hello).map_err(LoginError::Request)?;
        write_frame(&mut stream, &request).await.map_err(broken)?;
        match read_frame(&mut stream).await.map_err(broken)? {
            LoginReply::Granted(grant) => Ok(grant),
            LoginReply::Refused(refusal) => Err(LoginError::Refused { address: address.into(), refusal }),
        }
    };
    tokio::time::timeout(LOGIN_LIMIT, exchange).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", LOGIN_LIMIT.as_secs());
        Err(broken(io::Error::new(io::ErrorKind::TimedOut, text)))
    })
}

/// Reads one frame.
///
/// # Errors
/// The stream ends, the frame is too large, or its bytes are not a `T`.
pub async fn read_frame<T, R>(stream: &mut R) -> io::Result<T>
where
    T: for<'b> Decode<'b, ()>,
    R: AsyncRead + Unpin,
{
    let length = stream.read_u32().await? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!("a frame of {length} bytes, at most {FRAME_BYTES_MAX} are allowed")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    encoding::decode(&bytes).map_err(invalid)
}

/// Writes one frame.
///
/// # Errors
/// The frame is too large, or the stream is broken.
pub async fn write_frame<T, W>(stream: &mut W, message: &T) -> io::Result<()>
where
    T: Encode<()>,
    W: AsyncWrite + Unpin,
{
    let bytes = encoding::encode(message);
    if bytes.len() > FRAME_BYTES_MAX {
        let length = bytes.len();
        return Err(invalid(format!("a frame of {length} bytes, at most {FRAME_BYTES_MAX} are allowed")));
    }
    let mut frame = (bytes.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&bytes);
    stream.write_all(&frame).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lictor_runtime::Tasks;

    use super::*;
    use crate::testing::Network;

    #[tokio::test]
    async fn a_frame_arrives_as_it_was_sent_and_a_huge_one_is_not_even_read() {
        let (mut left, mut right) = tokio::io::duplex(256);
        write_frame(&mut left, &"hello".to_owned()).await.unwrap();
        assert_eq!(read_frame::<String, _>(&mut right).await.unwrap(), "hello");
        left.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let error = read_frame::<String, _>(&mut right).await.unwrap_err();
        assert!(error.to_string().contains("at most 65536"), "{error}");
        let error = write_frame(&mut left, &"x".repeat(FRAME_BYTES_MAX)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    fn request() -> Login {
        Login { proof: "p".into(), node: "n1".parse().unwrap(), services: Vec::new(), csr: Vec::new(), node_id: None }
    }

    /// A server that greets with this trust domain and refuses with the text of the node name.
    fn network(trust_domain: &'static str, tasks: &Tasks) -> Network {
        let (network, owner) = (Network::default(), tasks.clone());
        let listener = move |mut stream| {
            owner.spawn(async move {
                let hello = LoginHello { trust_domain: trust_domain.into(), datacenter: "dc1".into() };
                write_frame(&mut stream, &hello).await.unwrap();
                if let Ok(request) = read_frame::<Login, _>(&mut stream).await {
                    let refusal = Refusal::permission_denied(format!("no {}", request.node));
                    write_frame(&mut stream, &LoginReply::Refused(refusal)).await.unwrap();
                }
            });
        };
        network.listen("server:1", Arc::new(listener));
        network
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_is_worded_after_the_hello_and_a_refusal_is_told() {
        let tasks = Tasks::new();
        let network = network("t.consul", &tasks);
        let mut heard = String::new();
        let ask = |hello: &LoginHello| {
            heard.clone_from(&hello.trust_domain);
            Ok(request())
        };
        let error = login(&network, "server:1", ask).await.err().unwrap();
        assert_eq!(error.to_string(), "server:1 refuses the login: Permission denied: no n1");
        assert_eq!(heard, "t.consul");
    }

    #[tokio::test(start_paused = true)]
    async fn no_proof_is_sent_to_a_server_without_a_cluster() {
        let tasks = Tasks::new();
        let network = network("", &tasks);
        let error = login(&network, "server:1", |_| panic!("nothing may be asked")).await.err().unwrap();
        assert!(matches!(error, LoginError::NotReady { .. }), "{error}");
    }
}
