//! What the parts weigh when nothing happens.

use std::path::Path;
use std::time::Duration;

use crate::Common;
use crate::agents::{Cluster, Process, address, agent, eventually, get};
use crate::connection;
use crate::report::heading;

/// What starts a program is over by then.
const REST: Duration = Duration::from_secs(5);

/// Measures and prints.
pub(crate) fn run(common: &Common) -> anyhow::Result<()> {
    let lictor = common.lictor()?;
    let directory = common.directory()?;
    heading(&lictor);
    let cluster = Cluster::start(&lictor, directory.path())?;
    let leader = cluster.leader()?;
    let client = start_client(&lictor, &cluster)?;
    let sidecar = start_sidecar(&lictor, &cluster)?;
    std::thread::sleep(REST);
    println!("{REST:?} after the last of them was ready, in KiB of /proc/PID/status:");
    println!();
    println!("| what | VmRSS | of it RssAnon | of it RssFile | threads |");
    println!("|---|---|---|---|---|");
    let follower = (leader + 1) % cluster.servers.len();
    let parts = [
        ("server that leads", &cluster.servers[leader]),
        ("server that follows", &cluster.servers[follower]),
        ("client agent", &client),
        ("sidecar, logged in, with one service", &sidecar),
    ];
    for (what, process) in parts {
        println!(
            "| {what} | {} | {} | {} | {} |",
            process.status_kib("VmRSS")?,
            process.status_kib("RssAnon")?,
            process.status_kib("RssFile")?,
            process.status_kib("Threads")?
        );
    }
    Ok(())
}

fn start_client(lictor: &Path, cluster: &Cluster) -> anyhow::Result<Process> {
    let (name, address) = ("client-1", address(4));
    let mut arguments = agent(name, &address, &cluster.directory);
    arguments.extend_from_slice(&cluster.join);
    let client = Process::start(lictor, &cluster.directory, name, &address, &arguments)?;
    eventually("the client agent answers", || get(&client.http(), "/v1/catalog/nodes"))?;
    Ok(client)
}

/// A sidecar that logs in as one does outside Kubernetes: with a join token.
fn start_sidecar(lictor: &Path, cluster: &Cluster) -> anyhow::Result<Process> {
    let server = cluster.servers[0].http();
    let made =
        connection::once(&server, "PUT", "/v1/operator/join-token", br#"{"Services":["web"],"TTL":"10m"}"#.to_vec())?;
    let made: serde_json::Value = serde_json::from_slice(&made)?;
    let token = cluster.directory.join("login.token");
    std::fs::write(&token, made["SecretID"].as_str().unwrap_or_default())?;
    let (name, address) = ("sidecar-1", address(5));
    let ca = cluster.directory.join("state/lictor/loopback/dc1/ca.crt");
    let mut arguments = vec![
        "sidecar".to_owned(),
        format!("-node={name}"),
        format!("-advertise={address}"),
        "-service=web:9090".to_owned(),
        format!("-login-token-file={}", token.display()),
        format!("-ca-file={}", ca.display()),
        format!("-inbound-address={address}:20000"),
        format!("-health-address={address}:20001"),
        format!("-http-address={address}:8500"),
        format!("-dns-address={address}:8600"),
    ];
    arguments.extend_from_slice(&cluster.join);
    let sidecar = Process::start(lictor, &cluster.directory, name, &address, &arguments)?;
    eventually("the sidecar has started", || get(&format!("{address}:20001"), "/started"))?;
    Ok(sidecar)
}
