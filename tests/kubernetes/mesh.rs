//! Mutual TLS between the workloads: intentions, certificates, strangers, and what can be read on the wire.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Scene,
    harness::{Harness, Outcome, Pod, parse, tail},
    manifests::APPS,
    seconds,
};

/// Where sidecars accept mutual TLS.
const INBOUND_PORT: u16 = 20000;
/// What a change of an intention may take to reach every connection.
const DENY_LIMIT: Duration = Duration::from_secs(1);
const INTENTION: &str = "/v1/connect/intentions/exact?source=web&destination=api";
/// Sent in bodies; must never be readable between pods.
const MARKER: &str = "marker-3f7b1c52-not-to-be-read-on-the-wire";
/// How often the marker is in a body, so that no packet boundary hides them all.
const MARKER_COUNT: usize = 200;

impl Scene {
    pub(crate) fn intention(&mut self, action: &str) -> Outcome {
        let answer = self.consul("PUT", INTENTION, Some(&format!("{{\"Action\":\"{action}\"}}")))?;
        if answer.status == 200 && answer.body.trim() == "true" {
            return Ok(());
        }
        Err(format!("PUT {INTENTION} {action}: status {}: {}", answer.status, answer.body))
    }
}

/// Whether `web` reaches `api` at this moment; the error is what it said instead.
fn call(harness: &Harness, web: &Pod) -> Outcome {
    let answer = harness.curl(&["--max-time", "5", &format!("http://{}:8080/api", web.address)])?;
    if answer.status == 200 && answer.body.starts_with("api on ") {
        return Ok(());
    }
    Err(format!("status {}: {}", answer.status, answer.body.trim()))
}

/// Until `web` reaches `api`.
pub(crate) fn wait_for_call(harness: &Harness, limit: Duration) -> Outcome {
    harness.eventually("web to reach api through its sidecar", limit, || call(harness, &harness.pod(APPS, "web")?))
}

pub(crate) fn a_call_needs_an_intention(scene: &mut Scene) -> Outcome {
    let web = scene.harness.pod(APPS, "web")?;
    let url = format!("http://{}:8080/", web.address);
    scene.harness.eventually("web itself to answer", seconds(10), || scene.harness.curl(&[&url]).map(drop))?;
    match call(&scene.harness, &web) {
        Ok(()) => return Err("without an intention web reached api, though the default is to deny".to_owned()),
        Err(reason) => scene.harness.say(&format!("before the intention: {reason}")),
    }
    scene.intention("allow")?;
    wait_for_call(&scene.harness, seconds(5))?;
    let answer = scene.harness.curl(&["--data-binary", "carried", &format!("{url}api")])?;
    if answer.body != "carried" {
        return Err(format!("a body sent through web should come back from api; {}: {}", answer.status, answer.body));
    }
    Ok(())
}

pub(crate) fn certificates_carry_the_right_identities(scene: &mut Scene) -> Outcome {
    let roots = scene.ask("/v1/connect/ca/roots")?;
    let trust_domain = roots["TrustDomain"].as_str().ok_or("/v1/connect/ca/roots has no TrustDomain")?.to_owned();
    let texts = roots["Roots"].as_array().into_iter().flatten().filter_map(|root| root["RootCert"].as_str());
    let bundle = scene.harness.write("mesh-roots.crt", &texts.map(|text| format!("{text}\n")).collect::<String>())?;
    for service in ["web", "api"] {
        let pod = scene.harness.pod(APPS, service)?;
        let shown = handshake(&scene.harness, &pod, &["-showcerts".to_owned(), "-CAfile".to_owned(), bundle.clone()])?;
        if !shown.contains("Verify return code: 0 (ok)") {
            return Err(format!("the chain of {service} does not verify against the roots: {}", tail(&shown, 1500)));
        }
        let file = scene.harness.write("leaf.crt", first_certificate(&shown)?)?;
        let names = ["openssl", "x509", "-in", &file, "-noout", "-ext", "subjectAltName"];
        let names = scene.harness.run(seconds(10), &names)?;
        let wanted = format!("URI:spiffe://{trust_domain}/ns/default/dc/dc1/svc/{service}");
        let found: Vec<&str> =
            names.split([',', '\n']).map(str::trim).filter(|name| name.starts_with("URI:")).collect();
        if found != [wanted.as_str()] {
            return Err(format!("the certificate of {service} should carry {wanted} alone, not {found:?}"));
        }
        scene.harness.say(&wanted);
    }
    Ok(())
}

/// What openssl shows of a connection to a pod's inbound port; the other side may end it, which is no error here.
fn handshake(harness: &Harness, pod: &Pod, arguments: &[String]) -> Outcome<String> {
    let address = format!("{}:{INBOUND_PORT}", pod.address);
    let client = ["timeout", "4", "openssl", "s_client", "-connect", &address, "-noservername"];
    // One shell word per argument: none of them holds a space.
    let line = format!(
        "printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' | {} {} -ign_eof 2>&1",
        client.join(" "),
        arguments.join(" ")
    );
    Ok(harness.try_run(seconds(10), &["sh", "-c", &line])?.out)
}

fn first_certificate(text: &str) -> Outcome<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    let from = text.find("-----BEGIN CERTIFICATE-----");
    let to = text.find(END).map(|at| at + END.len());
    match (from, to) {
        (Some(from), Some(to)) if from < to => Ok(&text[from..to]),
        _ => Err(format!("the other side showed no certificate: {}", tail(text, 1000))),
    }
}

/// Only a leaf of `web`, from the mesh's own CA, is let in to `api`; all else is refused, and the control shows that
/// the question can be answered otherwise.
pub(crate) fn strangers_are_refused(scene: &mut Scene) -> Outcome {
    let api = scene.harness.pod(APPS, "api")?;
    let url = format!("http://{}:{INBOUND_PORT}/healthz", api.address);
    if let Ok(answer) = scene.harness.curl(&["--max-time", "4", &url]) {
        return Err(format!("a plain connection was answered: {} {}", answer.status, answer.body));
    }
    let own = leaf(scene, "web")?;
    let said = handshake(&scene.harness, &api, &own)?;
    if !said.contains("HTTP/1.1 200") {
        return Err(format!("the control failed: a leaf of web should be let in; {}", tail(&said, 1500)));
    }
    let stranger = leaf(scene, "stranger")?;
    let forged = forge(scene)?;
    for (what, arguments) in [
        ("without a certificate", &Vec::new()),
        ("with a leaf of another service", &stranger),
        ("of another CA", &forged),
    ] {
        let said = handshake(&scene.harness, &api, arguments)?;
        if said.contains("HTTP/1.") {
            return Err(format!("a connection {what} was answered: {}", tail(&said, 1500)));
        }
        if !said.contains("CONNECTED") {
            return Err(format!("a connection {what} could not even be opened: {}", tail(&said, 1500)));
        }
    }
    Ok(())
}

/// Files of a leaf that the datacenter issues for a service, as arguments for openssl.
fn leaf(scene: &mut Scene, service: &str) -> Outcome<Vec<String>> {
    let web = scene.harness.pod(APPS, "web")?;
    let process = scene.harness.process(&web)?;
    let header = format!("X-Consul-Token: {}", scene.token()?);
    let url = format!("http://127.0.0.1:8500/v1/agent/connect/ca/leaf/{service}");
    let answer = scene.harness.curl_in_pod(&process, &["-H", &header, &url])?;
    if answer.status != 200 {
        return Err(format!("GET {url}: status {}: {}", answer.status, answer.body));
    }
    let leaf = parse(&answer.body)?;
    let text = |key: &str| leaf[key].as_str().map(str::to_owned).ok_or_else(|| format!("a leaf without {key}: {leaf}"));
    files(scene, service, &text("CertPEM")?, &text("PrivateKeyPEM")?)
}

/// The same identity as `web`, from a CA that nobody knows.
fn forge(scene: &mut Scene) -> Outcome<Vec<String>> {
    let roots = scene.ask("/v1/connect/ca/roots")?;
    let domain = roots["TrustDomain"].as_str().unwrap_or_default();
    let folder = scene.harness.scratch("")?.display().to_string();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let script = format!(
        "set -e; cd {folder}
openssl req -x509 {key} -days 2 -subj /CN=stranger-ca -keyout forged-ca.key -out forged-ca.crt
openssl req -new {key} -subj /CN=web -keyout forged.key -out forged.csr
echo 'subjectAltName=critical,URI:spiffe://{domain}/ns/default/dc/dc1/svc/web' >forged.ext
echo 'extendedKeyUsage=clientAuth,serverAuth' >>forged.ext
openssl x509 -req -in forged.csr -CA forged-ca.crt -CAkey forged-ca.key -CAcreateserial -days 2 \\
  -extfile forged.ext -out forged.crt
cat forged-ca.crt >>forged.crt"
    );
    scene.harness.run(seconds(15), &["sh", "-c", &script])?;
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).map_err(|error| format!("{name}: {error}"));
    files(scene, "forged", &read("forged.crt")?, &read("forged.key")?)
}

/// Writes certificate, rest of its chain and key where openssl finds them, and gives the arguments that name them.
fn files(scene: &Scene, name: &str, certificates: &str, key: &str) -> Outcome<Vec<String>> {
    let leaf = first_certificate(certificates)?;
    let rest = certificates.replacen(leaf, "", 1);
    let certificate = scene.harness.write(&format!("{name}-leaf.crt"), leaf)?;
    let key = scene.harness.write(&format!("{name}-leaf.key"), key)?;
    let mut words = vec!["-cert".to_owned(), certificate, "-key".to_owned(), key];
    if rest.contains("BEGIN CERTIFICATE") {
        words.extend(["-cert_chain".to_owned(), scene.harness.write(&format!("{name}-chain.crt"), &rest)?]);
    }
    Ok(words)
}

pub(crate) fn a_deny_stops_calls_within_a_second(scene: &mut Scene) -> Outcome {
    let web = scene.harness.pod(APPS, "web")?;
    let received = scene.harness.scratch("stream.txt")?;
    let (path, url) = (received.display().to_string(), format!("http://{}:8080/api/stream", web.address));
    fs::write(&received, "").map_err(|error| error.to_string())?;
    let mut stream = scene.harness.start(seconds(40), &["curl", "-sN", "-o", &path, &url])?;
    scene.harness.eventually("lines of the open connection", seconds(10), || {
        let length = fs::metadata(&received).map_err(|error| error.to_string())?.len();
        if length > 20 { Ok(()) } else { Err(format!("{length} bytes")) }
    })?;
    scene.intention("deny")?;
    let denied = Instant::now();
    let refused = loop {
        match call(&scene.harness, &web) {
            Err(reason) => break reason,
            Ok(()) if denied.elapsed() > DENY_LIMIT * 3 => return Err("denied, web still reaches api".to_owned()),
            Ok(()) => thread::sleep(Duration::from_millis(20)),
        }
    };
    let new_connections = denied.elapsed();
    stream.finish(DENY_LIMIT * 3).map_err(|error| format!("the connection that was open at the deny: {error}"))?;
    let open_connection = denied.elapsed();
    scene.harness.say(&format!(
        "summary: denied: calls refused after {} ms, the open connection cut after {} ms; {refused}",
        new_connections.as_millis(),
        open_connection.as_millis()
    ));
    if new_connections > DENY_LIMIT || open_connection > DENY_LIMIT {
        return Err("a deny must reach new and open connections within a second".to_owned());
    }
    scene.intention("allow")?;
    wait_for_call(&scene.harness, seconds(5))?;
    let deleted = scene.consul("DELETE", INTENTION, None)?;
    if deleted.status != 200 {
        return Err(format!("DELETE {INTENTION}: status {}: {}", deleted.status, deleted.body));
    }
    scene.harness.eventually("the default to deny again", seconds(3), || match call(&scene.harness, &web) {
        Ok(()) => Err("web still reaches api".to_owned()),
        Err(_) => Ok(()),
    })?;
    scene.intention("allow")?;
    wait_for_call(&scene.harness, seconds(5))
}

/// Captures what leaves and enters `api`'s pod while a body full of markers goes through the mesh; then once more
/// while it goes around the mesh, to show that the capture would have seen it.
pub(crate) fn nothing_readable_is_on_the_wire(scene: &mut Scene) -> Outcome {
    let (web, api) = (scene.harness.pod(APPS, "web")?, scene.harness.pod(APPS, "api")?);
    let meshed = capture(scene, &api, &format!("http://{}:8080/api", web.address))?;
    let plain = capture(scene, &api, &format!("http://{}:8080/", api.address))?;
    let count = |bytes: &[u8]| bytes.windows(MARKER.len()).filter(|window| *window == MARKER.as_bytes()).count();
    let (in_mesh, in_plain) = (count(&meshed), count(&plain));
    scene.harness.say(&format!(
        "summary: through the mesh: {} bytes captured, {in_mesh} markers; around it: {} bytes, {in_plain} markers",
        meshed.len(),
        plain.len()
    ));
    if in_plain < MARKER_COUNT {
        return Err("the control failed: the capture does not see a marker that is sent in the clear".to_owned());
    }
    if meshed.len() < 2 * MARKER.len() * MARKER_COUNT {
        return Err("the capture is smaller than what was sent and echoed: it has missed the traffic".to_owned());
    }
    if in_mesh > 0 { Err("a marker could be read between the pods".to_owned()) } else { Ok(()) }
}

fn capture(scene: &Scene, api: &Pod, url: &str) -> Outcome<Vec<u8>> {
    let harness = &scene.harness;
    let file = harness.scratch("capture.pcap")?;
    let path = file.display().to_string();
    // A file that is not there yet is as good as one removed.
    let _ = fs::remove_file(&file);
    let process = harness.process(api)?;
    let tcpdump = ["tcpdump", "-i", "eth0", "-s", "0", "-U", "--immediate-mode", "-Z", "root", "-w", &path, "tcp"];
    let mut running = harness.start(seconds(4), &[&["nsenter", "-t", &process, "-n"], &tcpdump[..]].concat())?;
    harness.eventually("tcpdump to begin (is it installed?)", seconds(4), || {
        fs::metadata(&file).map(drop).map_err(|error| error.to_string())
    })?;
    let body = harness.write("body.txt", &MARKER.repeat(MARKER_COUNT))?;
    let answer = harness.curl(&["--data-binary", &format!("@{body}"), url])?;
    if answer.status != 200 || answer.body.len() != MARKER.len() * MARKER_COUNT {
        return Err(format!("{url} should echo the body; status {}, {} bytes", answer.status, answer.body.len()));
    }
    running.finish(seconds(8))?;
    fs::read(&file).map_err(|error| format!("cannot read {path}: {error}"))
}

/// Whether a JSON list of rows names a node.
pub(crate) fn names_node(rows: &Value, node: &str) -> bool {
    rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["Node"] == node))
}
