//! What must survive the death of a leader, and what must not survive the death of a pod.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    Scene,
    harness::{Harness, Outcome, Pod},
    install,
    manifests::{APPS, DATACENTER, SYSTEM, Workload},
    mesh, seconds,
};

/// Acknowledged writes before the leader is killed, and again afterwards.
const ENOUGH_WRITES: usize = 300;
/// The longest time without an acknowledged write around the kill.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const PREFIX: &str = "e2e/";

/// A write that the writer was told is done: its key, and when, since the writer's start.
type Acknowledged = (String, Duration);

fn acknowledged(harness: &Harness) -> Outcome<Vec<Acknowledged>> {
    let log = harness.kubectl(&["logs", "-n", APPS, "deployment/writer", "-c", "writer"])?;
    let rows = log.lines().filter_map(|line| {
        let mut words = line.strip_prefix("acknowledged ")?.split(' ');
        Some((words.next()?.to_owned(), Duration::from_millis(words.next()?.parse().ok()?)))
    });
    Ok(rows.collect())
}

/// Until the writer has this many acknowledged writes.
fn wait_for_writes(harness: &Harness, count: usize) -> Outcome<Vec<Acknowledged>> {
    harness.eventually(&format!("{count} acknowledged writes"), seconds(40), || {
        let rows = acknowledged(harness)?;
        if rows.len() >= count { Ok(rows) } else { Err(format!("there are {}", rows.len())) }
    })
}

pub(crate) fn no_acknowledged_write_is_lost_with_the_leader(scene: &mut Scene) -> Outcome {
    let token = scene.token()?;
    let harness = &scene.harness;
    harness.kubectl(&[
        "create",
        "secret",
        "generic",
        "writer-token",
        "-n",
        APPS,
        &format!("--from-literal=token={token}"),
    ])?;
    let agent = "http://127.0.0.1:8500";
    let arguments = &["writer", "8080", "--agent", agent, "--token-env", "LICTOR_TOKEN", "--prefix", PREFIX];
    harness.apply(&Workload { token: Some("writer-token"), ..Workload::injected("writer", arguments) }.deployment())?;
    harness.kubectl(&["rollout", "status", "-n", APPS, "deployment/writer", "--timeout=25s"])?;
    let before = wait_for_writes(harness, ENOUGH_WRITES)?.len();

    let leader = leader(scene)?;
    scene.harness.containerd(&["tasks", "kill", "-s", "SIGKILL", &leader.container])?;
    let at_kill = acknowledged(&scene.harness)?.len();
    let rows = wait_for_writes(&scene.harness, at_kill + ENOUGH_WRITES)?;

    let mut times: Vec<Duration> = rows.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let pause = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default();
    let keys = scene.ask(&format!("/v1/kv/{PREFIX}?keys&consistent"))?;
    let present: BTreeSet<&str> = keys.as_array().into_iter().flatten().filter_map(|key| key.as_str()).collect();
    let lost: Vec<&str> = rows.iter().map(|(key, _)| key.as_str()).filter(|key| !present.contains(key)).collect();
    scene.harness.say(&format!(
        "summary: leader {} killed: {before} acknowledged before, {} after, {} lost, longest pause {} ms",
        leader.name,
        rows.len() - at_kill,
        lost.len(),
        pause.as_millis()
    ));
    if !lost.is_empty() {
        return Err(format!(
            "{} acknowledged writes are missing, of them {:?}",
            lost.len(),
            &lost[..lost.len().min(10)]
        ));
    }
    if pause > LONGEST_PAUSE {
        return Err(format!("writers stood still for {pause:?}; {LONGEST_PAUSE:?} is the limit"));
    }
    for (key, _) in rows.iter().rev().take(3) {
        let answer = scene.consul("GET", &format!("/v1/kv/{key}?raw"), None)?;
        if answer.body != *key {
            return Err(format!("{key} should hold its own name; status {}: {}", answer.status, answer.body));
        }
    }
    scene.harness.kubectl(&["delete", "deployment", "writer", "-n", APPS, "--timeout=20s"])?;
    install::wait_for_datacenter(scene)?;
    mesh::wait_for_call(&scene.harness, seconds(10))
}

/// The pod of the server that leads.
fn leader(scene: &mut Scene) -> Outcome<Pod> {
    let address = scene.ask("/v1/status/leader")?;
    let address = address.as_str().unwrap_or_default().to_owned();
    let list = scene.harness.kubectl_json(&["get", "pods", "-n", SYSTEM])?;
    let pods = list["items"].as_array().into_iter().flatten().filter_map(|item| Pod::read(item).ok());
    pods.filter(|pod| pod.name.starts_with(&format!("{DATACENTER}-server-")))
        .find(|pod| address.starts_with(&format!("{}.", pod.name)) || address.starts_with(&format!("{}:", pod.address)))
        .ok_or_else(|| format!("/v1/status/leader says {address:?}, which is no server's pod"))
}

/// Once with a drain, once by force: gone from the catalog and from DNS, and the successor takes its place.
pub(crate) fn a_deleted_pod_is_forgotten(scene: &mut Scene) -> Outcome {
    let web = scene.harness.pod(APPS, "web")?;
    let process = scene.harness.process(&web)?;

    let api = scene.harness.pod(APPS, "api")?;
    scene.harness.kubectl(&["scale", "deployment/api", "-n", APPS, "--replicas=0", "--timeout=20s"])?;
    wait_until_forgotten(scene, &api)?;
    let (status, addresses) = scene.dns_in_pod(&process, "api")?;
    if status != "NXDOMAIN" || !addresses.is_empty() {
        return Err(format!("without an instance DNS should say NXDOMAIN, not {status} {addresses:?}"));
    }
    scene.harness.kubectl(&["scale", "deployment/api", "-n", APPS, "--replicas=1"])?;
    scene.harness.kubectl(&["rollout", "status", "-n", APPS, "deployment/api", "--timeout=25s"])?;
    mesh::wait_for_call(&scene.harness, seconds(15))?;

    let api = scene.harness.pod(APPS, "api")?;
    scene.harness.kubectl(&["delete", "pod", &api.name, "-n", APPS, "--grace-period=0", "--force"])?;
    wait_until_forgotten(scene, &api)?;
    scene.harness.kubectl(&["rollout", "status", "-n", APPS, "deployment/api", "--timeout=25s"])?;
    scene.wait_for_instance("api")?;
    let successor = scene.harness.pod(APPS, "api")?;
    let (status, addresses) = scene.dns_in_pod(&process, "api")?;
    if addresses != [successor.address.as_str()] {
        return Err(format!("DNS should give {} alone, not {status} {addresses:?}", successor.address));
    }
    mesh::wait_for_call(&scene.harness, seconds(15))
}

fn wait_until_forgotten(scene: &mut Scene, pod: &Pod) -> Outcome {
    let node = format!("{}.{APPS}", pod.name);
    let deadline = std::time::Instant::now() + seconds(30);
    loop {
        let nodes = scene.ask("/v1/catalog/nodes")?;
        let instances = scene.ask("/v1/catalog/service/api")?;
        if !mesh::names_node(&nodes, &node) && !mesh::names_node(&instances, &node) {
            return Ok(());
        }
        if std::time::Instant::now() >= deadline {
            return Err(format!("30 s after its end pod {} is still in the catalog: {nodes} {instances}", pod.name));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
