//! The script, sent to a real Consul and to ours, each an agent alone at the same address, one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::compare::{Allowed, IndexNames, Report, compare};
use crate::consul::{self, DevelopmentAgent};
use crate::http::{self, Answer};
use crate::script::{Step, script};

/// How long an agent may take to bring a change of its own to the catalog.
const SYNC_LIMIT: Duration = Duration::from_secs(15);

/// Characters of a UUID.
const UUID_LENGTH: usize = 36;

/// A name with the partition, and one without.
const WITH_PARTITION: &str = ".default.default";
const WITHOUT_PARTITION: &str = ".default";

/// Every answer to the script.
fn play(program: &Path, ip: &str, directory: &Path, steps: &[Step]) -> Result<Vec<(String, Answer)>, String> {
    let agent = DevelopmentAgent::start(program, ip, directory)?;
    let mut captured: BTreeMap<&str, String> = BTreeMap::new();
    let mut answers = Vec::new();
    for step in steps {
        let mut target = step.target.to_owned();
        for (name, value) in &captured {
            target = target.replace(&format!("${{{name}}}"), value);
        }
        let end = Instant::now() + SYNC_LIMIT;
        let answer = loop {
            let answer = http::send(agent.address, step.method, &target, step.body)
                .map_err(|error| format!("{} {target}: {error}\n{}", step.method, agent.log_tail()))?;
            match step.until {
                Some(text) if !answer.text().contains(text) && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => break answer,
            }
        };
        if let Some((name, pointer)) = step.capture {
            let body: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("{target}: {error}"))?;
            let value = body.pointer(pointer).ok_or_else(|| format!("{target} holds no {pointer}: {body}"))?;
            captured.insert(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        answers.push((format!("{} {}", step.method, step.target), answer));
    }
    hide_node_id(&mut answers)?;
    make_chains_comparable(&mut answers)?;
    // Ids are made by whoever answers.
    for (name, id) in captured.iter().filter(|(_, value)| value.len() == UUID_LENGTH) {
        for (_, answer) in &mut answers {
            answer.body = answer.text().replace(id, &format!("the id of {name}")).into_bytes();
        }
    }
    Ok(answers)
}

/// A server makes its node id by itself, so it is taken out of the answers before they are compared.
fn hide_node_id(answers: &mut [(String, Answer)]) -> Result<(), String> {
    let own =
        answers.iter().find(|(request, _)| request == "GET /v1/agent/self").ok_or("the script asks for agent/self")?;
    let own: Value = serde_json::from_slice(&own.1.body).map_err(|error| format!("agent/self: {error}"))?;
    let id = own.pointer("/Config/NodeID").and_then(Value::as_str).ok_or("agent/self tells no node id")?.to_owned();
    for (_, answer) in answers {
        answer.body = answer.text().replace(&id, "its node id").into_bytes();
    }
    Ok(())
}

/// The names within a chain hold the mesh's trust domain, and since Consul 1.11 the partition.
fn make_chains_comparable(answers: &mut [(String, Answer)]) -> Result<(), String> {
    let roots = answers.iter().find(|(request, _)| request == "GET /v1/connect/ca/roots");
    let roots = roots.ok_or("the script asks for connect/ca/roots")?;
    let roots: Value = serde_json::from_slice(&roots.1.body).map_err(|error| format!("connect/ca/roots: {error}"))?;
    let domain = roots["TrustDomain"].as_str().ok_or("connect/ca/roots tells no trust domain")?.to_owned();
    for (_, answer) in answers.iter_mut().filter(|(request, _)| request.contains("/v1/discovery-chain/")) {
        let text = answer.text().replace(&domain, "its trust domain");
        answer.body = text.replace(WITH_PARTITION, WITHOUT_PARTITION).into_bytes();
    }
    Ok(())
}

/// Plays, compares, prints; the number of differences that no line allows.
pub(crate) fn run(cache: &Path, directory: &Path) -> Result<(), String> {
    let allowed = Allowed::parse(include_str!("allowed_differences.txt"))?;
    let consul = match consul::program(cache) {
        Ok(consul) => consul,
        // Not a pass: the summary says it, and where nothing may be skipped it fails.
        Err(reason) if std::env::var_os("CI").is_none() => {
            println!("\nsummary: comparison with a real Consul skipped: {reason}");
            return Ok(());
        }
        Err(reason) => return Err(format!("no real Consul to compare with: {reason}")),
    };
    let steps = script();
    let ip = lictor_tests::process::next_address();
    let theirs = play(&consul, &ip, directory, &steps).map_err(|error| format!("Consul: {error}"))?;
    let ours =
        play(&lictor_tests::process::lictor(), &ip, directory, &steps).map_err(|error| format!("ours: {error}"))?;
    let (mut their_names, mut our_names) = (IndexNames::default(), IndexNames::default());
    let mut report = Report::default();
    for (number, ((request, consul), (_, ours))) in theirs.iter().zip(&ours).enumerate() {
        compare((number + 1, request), (consul, &mut their_names), (ours, &mut our_names), &mut report);
    }
    let mut used = vec![0usize; allowed.len()];
    let mut refused = Vec::new();
    for difference in &report.differences {
        match allowed.iter().position(|line| line.allows(difference)) {
            Some(place) => used[place] += 1,
            None => refused.push(difference.to_string()),
        }
    }
    let idle: Vec<_> = allowed
        .iter()
        .zip(&used)
        .filter(|(line, used)| **used == 0 && !line.sometimes)
        .map(|(line, _)| line.line)
        .collect();
    println!(
        "\nsummary: {} requests answered as Consul 1.8.7 answers them: {} fields compared, {} differ as {} lines allow, {} others",
        steps.len(),
        report.fields,
        used.iter().sum::<usize>(),
        allowed.len(),
        refused.len()
    );
    if !refused.is_empty() {
        return Err(format!(
            "{} differences that allowed_differences.txt does not list:\n{}",
            refused.len(),
            refused.join("\n")
        ));
    }
    if !idle.is_empty() {
        return Err(format!("lines of allowed_differences.txt that no difference needs any more: {idle:?}"));
    }
    Ok(())
}
