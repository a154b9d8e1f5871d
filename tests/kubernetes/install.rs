//! The node, the images, the chart, the datacenter; and at the end their removal.

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Scene,
    harness::{Answer, Outcome, parse, repository, tail},
    manifests::{self, DATACENTER, LICTOR_IMAGE, SAMPLE_IMAGE, SYSTEM, Workload},
    seconds,
};

/// The release's name, and by it the operator's.
const RELEASE: &str = "lictor";
/// A namespace for the one workload that has nothing to do with Lictor.
const PLAIN: &str = "plain";

impl Scene {
    /// A request to the servers' HTTPS port with the bootstrap token.
    pub(crate) fn consul(&mut self, method: &str, path: &str, body: Option<&str>) -> Outcome<Answer> {
        let (ca, header) = self.credentials()?;
        let url = format!("https://{DATACENTER}-server.{SYSTEM}.svc.cluster.local:8501{path}");
        let mut words = vec!["--cacert", &ca, "-H", &header, "-X", method];
        if let Some(body) = body {
            words.extend(["--data-binary", body]);
        }
        words.push(&url);
        self.harness.curl(&words)
    }

    /// A question that must be answered with 200 and JSON.
    pub(crate) fn ask(&mut self, path: &str) -> Outcome<Value> {
        let answer = self.consul("GET", path, None)?;
        if answer.status != 200 {
            return Err(format!("GET {path}: status {}: {}", answer.status, answer.body));
        }
        parse(&answer.body)
    }

    /// The server CA's file and the header's file for curl, as it takes them.
    fn credentials(&mut self) -> Outcome<(String, String)> {
        if self.token.is_none() {
            let ca = self.secret(&format!("{DATACENTER}-server-ca"), "ca.crt")?;
            let token = self.secret(&format!("{DATACENTER}-bootstrap-token"), "token")?.trim().to_owned();
            self.harness.write("server-ca.crt", &ca)?;
            self.harness.write("token.header", &format!("X-Consul-Token: {token}\n"))?;
            self.token = Some(token);
        }
        let path = |name: &str| self.harness.scratch(name).map(|path| path.display().to_string());
        Ok((path("server-ca.crt")?, format!("@{}", path("token.header")?)))
    }

    /// The bootstrap token.
    pub(crate) fn token(&mut self) -> Outcome<String> {
        self.credentials()?;
        self.token.clone().ok_or_else(|| "there is no bootstrap token".to_owned())
    }

    fn secret(&self, name: &str, key: &str) -> Outcome<String> {
        let template = format!("{{{{index .data {key:?} | base64decode}}}}");
        self.harness.kubectl(&["get", "secret", name, "-n", SYSTEM, "-o", &format!("go-template={template}")])
    }
}

/// Makes the two images; the node loads them when it starts.
pub(crate) fn images(scene: &mut Scene) -> Outcome {
    // A cluster that a killed run has left behind would be taken for this one's.
    scene.harness.script(seconds(30), &["stop"])?;
    scene.harness.clear_scratch()?;
    for (variable, image, path) in [
        ("LICTOR_BINARY", format!("{}:{}", LICTOR_IMAGE.0, LICTOR_IMAGE.1), "/lictor"),
        ("SAMPLE_BINARY", SAMPLE_IMAGE.to_owned(), "/sample"),
    ] {
        let binary = env::var(variable)
            .map_err(|_| format!("{variable} is not set: it names the static program for the image {image}"))?;
        let slim = scene.harness.scratch(path.trim_start_matches('/'))?.display().to_string();
        // Without debug information the image is a fifth of the size, and backtraces still have names.
        let strip = Command::new("strip").args(["--strip-debug", "-o", &slim, &binary]).status();
        if !strip.is_ok_and(|status| status.success()) {
            return Err(format!("strip could not read {binary}: is binutils there, and {variable} a program?"));
        }
        let file = format!("{slim}={path}");
        let arguments = ["image", &image, "--user", "65532", "--entrypoint", path, &file];
        scene.harness.say(scene.harness.script(seconds(30), &arguments)?.trim());
    }
    Ok(())
}

pub(crate) fn node(scene: &mut Scene) -> Outcome {
    let said = scene.harness.script(seconds(110), &["start"])?;
    scene.harness.say(said.trim().lines().last().unwrap_or_default());
    let images = scene.harness.script(seconds(10), &["images"])?;
    for image in [&format!("{}:{}", LICTOR_IMAGE.0, LICTOR_IMAGE.1), SAMPLE_IMAGE] {
        if !images.contains(image) {
            return Err(format!("the node has not loaded {image}; it has:\n{images}"));
        }
    }
    Ok(())
}

/// A pod without Lictor: what fails here is the node's or the image's fault.
pub(crate) fn sample(scene: &mut Scene) -> Outcome {
    let harness = &scene.harness;
    harness.apply(&manifests::namespace(PLAIN))?;
    harness.apply(&manifests::service_account(PLAIN, "api"))?;
    let workload = Workload { namespace: PLAIN, annotations: &[], ..Workload::injected("api", &["api", "8080"]) };
    harness.apply(&workload.deployment())?;
    harness.kubectl(&["rollout", "status", "-n", PLAIN, "deployment/api", "--timeout=45s"])?;
    let pod = harness.pod(PLAIN, "api")?;
    let answer = harness.curl(&[&format!("http://{}:8080/", pod.address)])?;
    if answer.body.trim() != format!("api on {}", pod.name) {
        return Err(format!("the sample answered {}: {}", answer.status, answer.body));
    }
    let process = harness.process(&pod)?;
    let answer = harness.curl_in_pod(&process, &["--data-binary", "echo", "http://127.0.0.1:8080/"])?;
    if answer.body != "echo" {
        return Err(format!("from within its network it answered {}: {}", answer.status, answer.body));
    }
    harness.kubectl(&["delete", "namespace", PLAIN, "--wait=false"]).map(drop)
}

pub(crate) fn custom_resources(scene: &mut Scene) -> Outcome {
    let folder = repository().join("crds").display().to_string();
    let harness = &scene.harness;
    let said = harness.kubectl(&["apply", "--server-side", "-f", &folder])?;
    harness.say(said.trim());
    let name = "crd/consuldatacenters.lictor.dev";
    harness.kubectl(&["wait", "--for=condition=Established", name, "--timeout=20s"]).map(drop)
}

pub(crate) fn chart(scene: &mut Scene) -> Outcome {
    let harness = &scene.harness;
    harness.apply(&manifests::namespace(SYSTEM))?;
    let chart = repository().join("charts/lictor").display().to_string();
    let image = format!("image.repository={},image.tag={}", LICTOR_IMAGE.0, LICTOR_IMAGE.1);
    let install = ["helm", "install", RELEASE, &chart, "-n", SYSTEM, "--create-namespace", "--set", &image];
    harness.run(seconds(100), &[&install[..], &["--wait", "--timeout", "90s"]].concat())?;
    let webhooks = harness.kubectl(&["get", "mutatingwebhookconfigurations", "-o", "name"])?;
    if webhooks.trim().is_empty() { Err("the chart installed no webhook".to_owned()) } else { Ok(()) }
}

pub(crate) fn datacenter(scene: &mut Scene) -> Outcome {
    scene.harness.apply(&manifests::datacenter())?;
    wait_for_datacenter(scene)?;
    let table = scene.harness.kubectl(&["get", "consuldatacenters", "-n", SYSTEM])?;
    scene.harness.say(&format!("\n{}", table.trim()));
    let peers = scene.ask("/v1/status/peers")?;
    if peers.as_array().map(Vec::len) != Some(3) {
        return Err(format!("three servers were asked for; /v1/status/peers says {peers}"));
    }
    wait_for_encrypted_gossip(scene)
}

/// Until the three servers gossip, encrypted though nobody configured a key.
fn wait_for_encrypted_gossip(scene: &mut Scene) -> Outcome {
    let begun = Instant::now();
    loop {
        let pool = scene.ask("/v1/agent/self")?["Stats"]["serf_lan"].take();
        if pool["members"] == "3" && pool["encrypted"] == "true" {
            return Ok(());
        }
        if begun.elapsed() > seconds(20) {
            return Err(format!("three servers in an encrypted gossip pool were wanted; /v1/agent/self says {pool}"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Until the operator calls the datacenter ready, with all of its servers.
pub(crate) fn wait_for_datacenter(scene: &Scene) -> Outcome {
    let name = format!("consuldatacenter/{DATACENTER}");
    scene.harness.eventually("a datacenter with three ready servers", seconds(100), || {
        let resource = scene.harness.kubectl_json(&["get", &name, "-n", SYSTEM])?;
        let conditions = resource["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().any(|row| row["type"] == "Ready" && row["status"] == "True");
        if ready && resource["status"]["readyReplicas"] == 3 {
            return Ok(());
        }
        Err(format!("its status is {}", tail(&resource["status"].to_string(), 1500)))
    })
}

pub(crate) fn uninstall(scene: &mut Scene) -> Outcome {
    let harness = &scene.harness;
    harness.kubectl(&["delete", "consuldatacenter", DATACENTER, "-n", SYSTEM, "--timeout=25s"])?;
    harness.eventually("the servers to be gone with their datacenter", seconds(60), || {
        let left = harness.kubectl(&["get", "statefulsets,pods", "-n", SYSTEM, "-o", "name"])?;
        let servers = left.lines().filter(|name| name.contains(&format!("{DATACENTER}-server"))).collect::<Vec<_>>();
        if servers.is_empty() { Ok(()) } else { Err(format!("there still are {servers:?}")) }
    })?;
    harness.run(seconds(60), &["helm", "uninstall", RELEASE, "-n", SYSTEM, "--wait", "--timeout", "50s"])?;
    let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations";
    let left = harness.kubectl(&["get", kinds, "-o", "name"])?;
    if !left.trim().is_empty() {
        return Err(format!("helm uninstall left webhooks behind: {left}"));
    }
    let roles = harness.kubectl(&["get", "clusterroles,clusterrolebindings", "-o", "name"])?;
    let ours: Vec<&str> = roles.lines().filter(|name| name.contains("lictor")).collect();
    if !ours.is_empty() {
        return Err(format!("helm uninstall left roles behind: {ours:?}"));
    }
    let file = harness.write("manifest.yaml", &Workload::injected("api", &["api", "8080"]).pod())?;
    harness.kubectl(&["create", "--dry-run=server", "-f", &file]).map(drop)
}
