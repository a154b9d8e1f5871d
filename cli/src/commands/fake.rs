//! A stand-in for an agent: answers known requests with fixed texts, all others with 404.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::api::{Api, ApiFlags};

/// An agent that says what it is told to say. It stops with the test's runtime.
pub(crate) struct Fake {
    address: String,
    last_body: Arc<Mutex<String>>,
}

impl Fake {
    /// Answers `METHOD /path?query`.
    pub(crate) async fn answering(answers: &[(&'static str, u16, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers = answers.to_vec();
        let last_body = Arc::new(Mutex::new(String::new()));
        let bodies = last_body.clone();
        lictor_runtime::Tasks::new().spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = Vec::new();
                let (head, length) = loop {
                    let mut bytes = [0; 4096];
                    let count = stream.read(&mut bytes).await.unwrap();
                    assert!(count > 0, "the request ended early");
                    read.extend_from_slice(&bytes[..count]);
                    let text = String::from_utf8(read.clone()).unwrap();
                    if let Some((head, _)) = text.split_once("\r\n\r\n") {
                        let length = head.to_lowercase();
                        let length = length
                            .split("content-length: ")
                            .nth(1)
                            .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
                        break (head.to_owned(), length);
                    }
                };
                while read.len() < head.len() + 4 + length {
                    let mut bytes = [0; 4096];
                    let count = stream.read(&mut bytes).await.unwrap();
                    assert!(count > 0, "the body ended early");
                    read.extend_from_slice(&bytes[..count]);
                }
                *bodies.lock().unwrap() = String::from_utf8(read[head.len() + 4..].to_vec()).unwrap();
                let asked = head.split(" HTTP/").next().unwrap();
                let (status, body) = answers.iter().find(|it| it.0 == asked).map_or((404, ""), |it| (it.1, it.2));
                let reply =
                    format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        Self { address, last_body }
    }

    /// A way to it.
    pub(crate) fn api(&self) -> Api {
        Api::connect(&self.flags()).unwrap()
    }

    /// The flags that name it.
    pub(crate) fn flags(&self) -> ApiFlags {
        ApiFlags::at(&self.address)
    }

    /// The body of the last request.
    pub(crate) fn last_body(&self) -> String {
        self.last_body.lock().unwrap().clone()
    }
}
