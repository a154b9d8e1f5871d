//! A check that has a program run in a container, by the API of Docker's daemon on its Unix socket.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use lictor_types::CheckStatus;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::process::Tail;
use super::{Finding, script};

/// Where the daemon listens, unless the environment says otherwise.
const SOCKET: &str = "/var/run/docker.sock";
/// The version of the API: older than any daemon that still runs.
const VERSION: &str = "v1.24";
/// The shell that a command is run with when the definition names one without a path to it.
const SHELL: &str = "/bin/sh";
/// Bytes of an answer about a run that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a chunk's head in the stream of outputs: which one it is, and how long.
const HEAD_BYTES: usize = 8;

/// What is run for these arguments: by themselves, or by a shell.
pub(super) fn command(shell: &str, arguments: &[String]) -> Vec<String> {
    if shell.is_empty() {
        return arguments.to_vec();
    }
    let shell = if shell.starts_with('/') { shell } else { SHELL };
    vec![shell.to_owned(), "-c".into(), arguments.join(" ")]
}

pub(super) async fn run(container: &str, command: &[String], kept: usize) -> Result<Finding, String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = match host.strip_prefix("unix://") {
        Some(path) => path,
        None if host.is_empty() => SOCKET,
        None => return Err(format!("DOCKER_HOST {host:?}: only unix:// sockets are dialled")),
    };
    run_at(Path::new(socket), container, command, kept).await
}

async fn run_at(socket: &Path, container: &str, command: &[String], kept: usize) -> Result<Finding, String> {
    let created = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": command });
    let path = format!("/containers/{container}/exec");
    let created = json_of(call(socket, &path, Some(&created), collect).await?)?;
    let exec = created["Id"].as_str().ok_or("Docker names no id of the run")?.to_owned();
    let start = json!({ "Detach": false, "Tty": false });
    let output =
        call(socket, &format!("/exec/{exec}/start"), Some(&start), async |body| outputs(body, kept).await).await?;
    let ended = json_of(call(socket, &format!("/exec/{exec}/json"), None, collect).await?)?;
    let output = output.text();
    match ended["ExitCode"].as_i64() {
        Some(code) => Ok((script::health_of(code), output)),
        None => Ok((CheckStatus::Critical, format!("Docker knows no exit code of the run: {output}"))),
    }
}

/// Asks the daemon: a POST with a body, else a GET. `read` reads an answer that is a good one.
async fn call<T>(
    socket: &Path,
    path: &str,
    body: Option<&Value>,
    read: impl AsyncFnOnce(Incoming) -> Result<T, String>,
) -> Result<T, String> {
    let failed = |problem: &dyn std::fmt::Display| format!("Docker at {}: {problem}", socket.display());
    let stream = UnixStream::connect(socket).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let exchange = async {
        let response = send(&mut sender, path, body).await?;
        let status = response.status();
        if status.is_success() {
            return read(response.into_body()).await;
        }
        let problem = collect(response.into_body()).await.unwrap_or_default();
        let message = json_of(problem).ok().and_then(|it| it["message"].as_str().map(str::to_owned));
        Err(message.unwrap_or_else(|| status.to_string()))
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    let done = tokio::select! {
        done = &mut exchange => done,
        _ = &mut connection => exchange.await,
    };
    done.map_err(|problem| failed(&problem))
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    path: &str,
    body: Option<&Value>,
) -> Result<http::Response<Incoming>, String> {
    let method = if body.is_some() { http::Method::POST } else { http::Method::GET };
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(format!("/{VERSION}{path}"))
        .header(header::HOST, HeaderValue::from_static("docker"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Full::new(bytes))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err("the daemon wants another protocol".into());
    }
    Ok(response)
}

async fn collect(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(format!("an answer has more than {ANSWER_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}

fn json_of(bytes: Vec<u8>) -> Result<Value, String> {
    serde_json::from_slice(&bytes).map_err(|error| format!("the answer is no JSON: {error}"))
}

/// Both outputs of a run, as they came.
async fn outputs(mut body: Incoming, kept: usize) -> Result<Tail, String> {
    let mut chunks = Chunks { head: Vec::new(), left: 0, output: Tail::new(kept) };
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(|error| error.to_string())?.data_ref() {
            chunks.push(data);
        }
    }
    Ok(chunks.output)
}

/// Takes the heads of chunks out of a stream of outputs.
struct Chunks {
    head: Vec<u8>,
    left: usize,
    output: Tail,
}

impl Chunks {
    fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left > 0 {
                let (chunk, rest) = data.split_at(self.left.min(data.len()));
                self.output.push(chunk);
                self.left -= chunk.len();
                data = rest;
                continue;
            }
            let (more, rest) = data.split_at((HEAD_BYTES - self.head.len()).min(data.len()));
            self.head.extend_from_slice(more);
            data = rest;
            if let [_, _, _, _, length @ ..] = self.head.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length) as usize;
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Json;
    use axum::extract::Path as InPath;
    use axum::routing::{get, post};
    use lictor_runtime::Tasks;
    use parking_lot::Mutex;

    use super::*;

    /// A daemon that says what it is told, in pieces of the stream's own form.
    fn daemon(directory: &Path, code: i64, asked: Arc<Mutex<Vec<Value>>>, tasks: &Tasks) -> std::path::PathBuf {
        let socket = directory.join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let create = async move |InPath(name): InPath<String>, Json(body): Json<Value>| {
            asked.lock().push(body);
            match name.as_str() {
                "web" => Ok(Json(json!({ "Id": "run1" }))),
                _ => Err((StatusCode::NOT_FOUND, Json(json!({ "message": "No such container" })))),
            }
        };
        let start = async || [&[1, 0, 0, 0, 0, 0, 0, 4][..], b"fine", &[2, 0, 0, 0, 0, 0, 0, 1], b"!"].concat();
        let app = axum::Router::new()
            .route("/v1.24/containers/{name}/exec", post(create))
            .route("/v1.24/exec/run1/start", post(start))
            .route("/v1.24/exec/run1/json", get(async move || Json(json!({ "ExitCode": code }))));
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        socket
    }

    #[tokio::test]
    async fn a_program_in_a_container_decides_by_its_exit_code() {
        let directory = tempfile::tempdir().unwrap();
        let (tasks, asked) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let socket = daemon(directory.path(), 1, Arc::clone(&asked), &tasks);
        let command = command("/bin/bash", &["curl".into(), "-s".into(), "localhost".into()]);
        let found = run_at(&socket, "web", &command, 100).await;
        assert_eq!(found, Ok((CheckStatus::Warning, "fine!".into())));
        assert_eq!(asked.lock()[0]["Cmd"], json!(["/bin/bash", "-c", "curl -s localhost"]));
        let problem = run_at(&socket, "other", &command, 100).await.unwrap_err();
        assert!(problem.contains("No such container"), "{problem}");
        tasks.cancel();
        let problem = run_at(&directory.path().join("none"), "web", &command, 100).await.unwrap_err();
        assert!(problem.contains("none"), "{problem}");
    }

    #[test]
    fn a_stream_of_outputs_may_be_cut_anywhere() {
        let stream = [&[1, 0, 0, 0, 0, 0, 0, 3][..], b"one", &[2, 0, 0, 0, 0, 0, 0, 3], b"two"].concat();
        for size in 1..stream.len() {
            let mut chunks = Chunks { head: Vec::new(), left: 0, output: Tail::new(100) };
            stream.chunks(size).for_each(|piece| chunks.push(piece));
            assert_eq!(chunks.output.text(), "onetwo", "in pieces of {size}");
        }
    }
}
