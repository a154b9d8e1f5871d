//! Who may log in: a sidecar started by hand on the node, with proofs that are right, and with proofs that are not.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    Scene,
    harness::{Outcome, tail},
    manifests::{self, APPS, DATACENTER, OUTSIDE, SYSTEM, Workload},
    seconds,
};

/// The ServiceAccount and pod whose tokens are used.
const VISITOR: &str = "visitor";
const HEALTH: &str = "127.0.0.1:21001";
/// How long a login that must fail is watched.
const WATCHED: Duration = seconds(4);

/// A proof of identity, as the API server makes it.
struct Proof<'a> {
    namespace: &'a str,
    audience: &'a str,
}

impl Scene {
    fn proof(&self, proof: &Proof<'_>) -> Outcome<String> {
        let Proof { namespace, audience } = proof;
        let bound = ["--bound-object-kind=Pod", &format!("--bound-object-name={VISITOR}"), "--duration=10m"];
        let create = ["create", "token", VISITOR, "-n", namespace, &format!("--audience={audience}")];
        self.harness.kubectl(&[&create[..], &bound].concat())
    }

    /// Starts a sidecar with a proof and says whether it came to be started within the limit, and what it printed.
    fn log_in(&self, token: &str, namespace: &str, service: &str, limit: Duration) -> Outcome<(bool, String)> {
        let token = self.harness.write("login.token", token.trim())?;
        let path = |name: &str| self.harness.scratch(name).map(|path| path.display().to_string());
        let (program, ca, output) = (path("lictor")?, path("server-ca.crt")?, path("login.txt")?);
        let process = path("login.pid")?;
        let server = format!("{DATACENTER}-server.{SYSTEM}.svc.cluster.local:8300");
        let line = format!(
            "echo $$ >{process}; LICTOR_CA_PEM=\"$(cat {ca})\" \
             POD_NAME={VISITOR} POD_NAMESPACE={namespace} POD_IP=127.0.0.1 POD_UID=by-hand \
             NODE_NAME=n1 exec {program} sidecar -datacenter=dc1 -server-address={server} -login-token-file={token} \
             -service={service}:8080 -inbound-address=127.0.0.1:21000 -health-address={HEALTH} \
             -http-address=127.0.0.1:21500 -dns-address=127.0.0.1:21600 >{output} 2>&1"
        );
        let mut running = self.harness.start(limit + seconds(5), &["sh", "-c", &line])?;
        let begun = Instant::now();
        let mut started = false;
        while !started && begun.elapsed() < limit {
            let answer = self.harness.curl(&["--max-time", "1", &format!("http://{HEALTH}/started")]);
            started = answer.is_ok_and(|answer| answer.status == 200);
            thread::sleep(Duration::from_millis(200));
        }
        let stop = format!("kill -INT $(cat {process})");
        // Fails where the program has ended by itself, which is as good.
        self.harness.try_run(seconds(5), &["sh", "-c", &stop])?;
        running.finish(limit + seconds(10)).map_err(|error| format!("a sidecar told to end: {error}"))?;
        Ok((started, fs::read_to_string(output).unwrap_or_default()))
    }
}

pub(crate) fn only_right_proofs_log_in(scene: &mut Scene) -> Outcome {
    // Fetches the server CA's file.
    scene.token()?;
    let ours = format!("lictor://{SYSTEM}/{DATACENTER}");
    for namespace in [APPS, OUTSIDE] {
        scene.harness.apply(&manifests::namespace(namespace))?;
        scene.harness.apply(&manifests::service_account(namespace, VISITOR))?;
        let workload = Workload { namespace, annotations: &[], ..Workload::injected(VISITOR, &["api", "8080"]) };
        scene.harness.apply(&workload.pod())?;
        let wait = ["wait", "-n", namespace, "--for=condition=Ready", "pod/visitor", "--timeout=20s"];
        scene.harness.kubectl(&wait)?;
    }
    let right = scene.proof(&Proof { namespace: APPS, audience: &ours })?;
    let elsewhere = scene.proof(&Proof { namespace: OUTSIDE, audience: &ours })?;
    let for_others = scene.proof(&Proof { namespace: APPS, audience: "https://kubernetes.default.svc" })?;

    let (started, output) = scene.log_in(&right, APPS, VISITOR, seconds(12))?;
    if !started {
        return Err(format!("the control failed: a right proof should log in; it said: {}", tail(&output, 2500)));
    }
    must_fail(scene, "a service of another ServiceAccount", &right, APPS, "api")?;
    must_fail(scene, "the same name in another namespace", &elsewhere, OUTSIDE, VISITOR)?;
    must_fail(scene, "a token for another audience", &for_others, APPS, VISITOR)?;
    scene.harness.kubectl(&["delete", "pod", VISITOR, "-n", APPS, "--timeout=20s"])?;
    must_fail(scene, "the token of a deleted pod", &right, APPS, VISITOR)
}

fn must_fail(scene: &Scene, what: &str, token: &str, namespace: &str, service: &str) -> Outcome {
    let (started, output) = scene.log_in(token, namespace, service, WATCHED)?;
    if started {
        return Err(format!("{what} was let in; the sidecar said: {}", tail(&output, 2500)));
    }
    if output.trim().is_empty() {
        return Err(format!("{what} was refused, but the sidecar did not say so"));
    }
    scene.harness.say(&format!("{what}: {}", output.trim().lines().last().unwrap_or_default()));
    Ok(())
}
