//! The `watches` of an agent's configuration: programs that run, URLs that are told, and a reload that changes them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use lictor_runtime::Tasks;
use lictor_tests::process::next_address;
use lictor_tests::{Agent, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// For an agent to see a change and run what it was told, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Takes requests, and passes each on as text.
async fn listener(tasks: &Tasks) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (heard, hearing) = mpsc::channel(64);
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !String::from_utf8_lossy(&request).contains("\"Key\"") {
                let mut bytes = [0; 4096];
                match stream.read(&mut bytes).await {
                    Ok(count) if count > 0 => request.extend_from_slice(&bytes[..count]),
                    _ => break,
                }
            }
            // The agent may be gone by now.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            let _ = heard.send(String::from_utf8_lossy(&request).into_owned()).await;
        }
    });
    (address, hearing)
}

fn file_holds(path: &Path, words: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    if text.contains(words) { Ok(()) } else { Err(format!("{words:?} is not in {text:?}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_the_configuration_run_programs_and_tell_urls_and_follow_a_reload() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tasks = Tasks::new();
    let (url, mut heard) = listener(&tasks).await;
    let (file, config) = (directory.path().join("seen"), directory.path().join("agent.hcl"));
    let watches = |key: &str| {
        format!(
            "watches = [\n{{ type = \"key\" key = \"{key}\" args = [\"sh\", \"-c\", \"echo index $CONSUL_INDEX >> {file}; cat \
             >> {file}\"] }},\n{{ type = \"key\" key = \"{key}\" handler_type = \"http\" http_handler_config {{ path = \
             \"http://{url}/told\" method = \"PUT\" header {{ X-Own = [\"yes\"] }} }} }}\n]\n",
            file = file.display()
        )
    };
    std::fs::write(&config, watches("first")).expect("a file");
    let arguments = [
        "-server".to_owned(),
        "-bootstrap-expect=1".to_owned(),
        format!("-data-dir={}", directory.path().join("data").display()),
        format!("-config-file={}", config.display()),
    ];
    let mut agent = Agent::new(directory.path(), "s1", next_address(), &arguments);
    agent.start();
    eventually("it leads", LIMIT, || agent.leader()).await;
    let put = |key: &'static str, value: &'static str| {
        let client = agent.client();
        async move {
            client.put_bytes(&format!("/v1/kv/{key}"), &[], Bytes::from_static(value.as_bytes())).await.expect(key)
        }
    };
    put("first", "one").await;
    // "one" in base64.
    eventually("the program saw the key", LIMIT, || async { file_holds(&file, "b25l") }).await;
    file_holds(&file, "index ").expect("the index");
    let told = tokio::time::timeout(LIMIT, async {
        loop {
            let request = heard.recv().await.expect("a request");
            if request.contains("b25l") {
                return request;
            }
        }
    });
    let told = told.await.expect("the URL is told");
    let head = told.to_ascii_lowercase();
    assert!(told.starts_with("PUT /told HTTP/1.1\r\n") && head.contains("x-own: yes"), "{told}");
    assert!(head.contains("x-consul-index: ") && head.contains("content-type: application/json"), "{told}");
    std::fs::write(&config, watches("second")).expect("a file");
    let sent = Command::new("kill").arg("-HUP").arg(agent.process_id().to_string()).status().expect("kill");
    assert!(sent.success());
    eventually("the configuration was read again", LIMIT, || async {
        if agent.log().contains("the configuration was reloaded") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    put("second", "two").await;
    eventually("the program saw the other key", LIMIT, || async { file_holds(&file, "dHdv") }).await;
    put("first", "three").await;
    put("second", "four").await;
    eventually("the other key alone is followed", LIMIT, || async { file_holds(&file, "Zm91cg==") }).await;
    file_holds(&file, "dGhyZWU=").expect_err("the watch that was taken away");
    assert!(tasks.stop(Duration::from_secs(5)).await);
}
