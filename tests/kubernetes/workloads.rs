//! Workloads by annotation alone: they become ready, they are in the catalog, and wrong ones are refused.

use serde_json::Value;

use crate::{
    Scene,
    harness::Outcome,
    manifests::{self, APPS, OUTSIDE, Workload},
    seconds,
};

const WEB_ARGUMENTS: &[&str] = &["web", "8080", "--api", "127.0.0.1:9090"];
const API_ARGUMENTS: &[&str] = &["api", "8080"];

pub(crate) fn become_ready(scene: &mut Scene) -> Outcome {
    let harness = &scene.harness;
    harness.apply(&manifests::namespace(APPS))?;
    for name in ["web", "api", "writer", "legacy"] {
        harness.apply(&manifests::service_account(APPS, name))?;
    }
    harness.apply(&Workload::injected("api", API_ARGUMENTS).deployment())?;
    let annotations = &["lictor.dev/inject: \"true\"", "lictor.dev/upstreams: \"api:9090\""];
    harness.apply(&Workload { annotations, ..Workload::injected("web", WEB_ARGUMENTS) }.deployment())?;
    for name in ["deployment/api", "deployment/web"] {
        harness.run(seconds(75), &["kubectl", "rollout", "status", "-n", APPS, name, "--timeout=70s"])?;
    }
    Ok(())
}

impl Scene {
    /// The one healthy instance of a service, as the catalog has it.
    pub(crate) fn healthy_instance(&mut self, service: &str) -> Outcome<Value> {
        let rows = self.ask(&format!("/v1/health/service/{service}?passing"))?;
        match rows.as_array().map(Vec::as_slice) {
            Some([row]) => Ok(row.clone()),
            _ => Err(format!("not one healthy instance of {service} but {rows}")),
        }
    }

    /// Until the catalog's one healthy instance of a service is the one running pod of that name.
    pub(crate) fn wait_for_instance(&mut self, service: &str) -> Outcome {
        let deadline = std::time::Instant::now() + seconds(30);
        loop {
            let reason = match self.check_instance(service) {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            };
            if std::time::Instant::now() >= deadline {
                return Err(reason);
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    fn check_instance(&mut self, service: &str) -> Outcome {
        let pod = self.harness.pod(APPS, service)?;
        let row = self.healthy_instance(service)?;
        let checks = row["Checks"].as_array().map_or(0, Vec::len);
        let found = (&row["Node"]["Node"], &row["Service"]["Address"], &row["Service"]["Port"], checks > 0);
        let node = format!("{}.{APPS}", pod.name);
        if *found.0 == node && *found.1 == pod.address && *found.2 == 8080 && found.3 {
            return Ok(());
        }
        Err(format!("{service} should be on node {node} at {}:8080 with checks; the catalog has {row}", pod.address))
    }

    /// The addresses that a pod's own DNS gives for a service, and the status of the answer.
    pub(crate) fn dns_in_pod(&self, process: &str, service: &str) -> Outcome<(String, Vec<String>)> {
        let name = format!("{service}.service.consul");
        let query = ["dig", "@127.0.0.1", "-p", "8600", "+tries=1", "+time=3", &name, "A"];
        let text = self.harness.run(seconds(10), &[&["nsenter", "-t", process, "-n"], &query[..]].concat())?;
        let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("none");
        let addresses = text.lines().filter(|line| !line.starts_with(';')).filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words.get(3) == Some(&"A")).then(|| words.last().map(|word| (*word).to_owned())).flatten()
        });
        Ok((status.to_owned(), addresses.collect()))
    }
}

pub(crate) fn appear_in_the_catalog(scene: &mut Scene) -> Outcome {
    for service in ["web", "api"] {
        scene.wait_for_instance(service)?;
        let rows = scene.ask(&format!("/v1/catalog/service/{service}-sidecar-proxy"))?;
        if rows[0]["ServicePort"] != 20000 {
            return Err(format!("the sidecar of {service} should be in the catalog with port 20000, not {rows}"));
        }
    }
    let (web, api) = (scene.harness.pod(APPS, "web")?, scene.harness.pod(APPS, "api")?);
    let process = scene.harness.process(&web)?;
    let url = "http://127.0.0.1:8500/v1/catalog/service/api";
    let answer = scene.harness.curl_in_pod(&process, &[url])?;
    if answer.status != 200 || !answer.body.contains(&api.address) {
        return Err(format!("the sidecar's own HTTP API answered {}: {}", answer.status, answer.body));
    }
    let (status, addresses) = scene.dns_in_pod(&process, "api")?;
    if addresses != [api.address.as_str()] {
        return Err(format!("DNS in the pod should give {}; it gives {status} {addresses:?}", api.address));
    }
    Ok(())
}

/// A manifest written for Consul on Kubernetes.
pub(crate) fn consul_annotations_work(scene: &mut Scene) -> Outcome {
    let annotations = &[
        "consul.hashicorp.com/connect-inject: \"true\"",
        "consul.hashicorp.com/connect-service: \"legacy\"",
        "consul.hashicorp.com/connect-service-port: \"8080\"",
        "consul.hashicorp.com/connect-service-upstreams: \"api:9090\"",
    ];
    let workload = Workload { annotations, with_port: false, ..Workload::injected("legacy", WEB_ARGUMENTS) };
    scene.harness.apply(&workload.pod())?;
    scene.harness.kubectl(&["wait", "-n", APPS, "--for=condition=Ready", "pod/legacy", "--timeout=25s"])?;
    scene.wait_for_instance("legacy")?;
    scene.harness.kubectl(&["delete", "pod", "legacy", "-n", APPS, "--timeout=25s"]).map(drop)
}

/// Pods that ask for what they may not have, and what the refusal must name as the way out.
pub(crate) fn wrong_pods_are_refused(scene: &mut Scene) -> Outcome {
    let harness = &scene.harness;
    harness.apply(&manifests::namespace(OUTSIDE))?;
    harness.apply(&manifests::service_account(OUTSIDE, "api"))?;
    harness.apply(&manifests::service_account(OUTSIDE, "web"))?;
    let asked = "lictor.dev/inject: \"true\"";
    let base = || Workload { name: "wrong", ..Workload::injected("web", WEB_ARGUMENTS) };
    let cases = [
        (
            "a service of another ServiceAccount",
            Workload { annotations: &["lictor.dev/inject: \"true\"", "lictor.dev/services: \"api:8080\""], ..base() },
            &["api", "bindings"][..],
        ),
        (
            "the same name in another namespace",
            Workload { namespace: OUTSIDE, service_account: "api", annotations: &[asked], ..base() },
            &[OUTSIDE, "namespaces"],
        ),
        (
            "the ServiceAccount default",
            Workload { service_account: "default", annotations: &[asked], ..base() },
            &["default", "serviceAccountName"],
        ),
        ("no port", Workload { with_port: false, annotations: &[asked], ..base() }, &["lictor.dev/services"]),
    ];
    for (what, workload, words) in cases {
        let file = harness.write("manifest.yaml", &workload.pod())?;
        let said = harness.try_run(seconds(20), &["kubectl", "create", "-f", &file])?;
        if said.success {
            return Err(format!("a pod with {what} was admitted"));
        }
        if let Some(word) = words.iter().find(|word| !said.err.contains(**word)) {
            return Err(format!("a pod with {what} was refused, but without a word of {word:?}: {}", said.err));
        }
        harness.say(&format!("{what}: {}", said.err.trim()));
    }
    // Who does not ask is none of the webhook's business.
    let file = harness.write("manifest.yaml", &Workload { annotations: &[], namespace: OUTSIDE, ..base() }.pod())?;
    harness.kubectl(&["create", "--dry-run=server", "-f", &file]).map(drop)
}
