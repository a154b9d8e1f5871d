//! DNS as `dig` sees it: every form of question that Consul answers, against `lictor agent -dev`.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lictor_tests::debian::DIG;
use lictor_tests::process::{Agent, START_LIMIT, next_address};
use lictor_tests::tools;

use crate::http;

/// How long one question may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(20);

/// What `dig` saw.
#[derive(Debug, Default)]
struct Seen {
    status: String,
    flags: String,
    /// Records as `name type data`, sorted, by section.
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
    /// Of the first answer.
    ttl: String,
    text: String,
}

struct Dig<'a> {
    cache: &'a Path,
    address: &'a str,
}

impl Dig<'_> {
    fn ask(&self, words: &str) -> Result<Seen, String> {
        let mut command: Command = DIG.command(self.cache)?;
        command.args([&format!("@{}", self.address), "-p", "8600", "+tries=1", "+time=10", "+nocookie"]);
        let text = tools::captured(command.args(words.split(' ')), QUESTION_LIMIT)?;
        let mut seen = Seen { text: text.clone(), ..Seen::default() };
        let mut section = "";
        for line in text.lines() {
            if let Some(rest) = line.split("status: ").nth(1) {
                rest.split(',').next().unwrap_or_default().clone_into(&mut seen.status);
            } else if let Some(rest) = line.strip_prefix(";; flags: ") {
                rest.split(';').next().unwrap_or_default().clone_into(&mut seen.flags);
            } else if let Some(name) = line.strip_prefix(";; ").and_then(|line| line.strip_suffix(" SECTION:")) {
                section = name;
            } else if !line.starts_with(';') {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let [name, ttl, _, kind, data @ ..] = fields.as_slice() else { continue };
                let record = format!("{name} {kind} {}", data.join(" "));
                match section {
                    "ANSWER" => {
                        if seen.answers.is_empty() {
                            (*ttl).clone_into(&mut seen.ttl);
                        }
                        seen.answers.push(record);
                    }
                    "AUTHORITY" => seen.authorities.push(record),
                    _ => seen.additionals.push(record),
                }
            }
        }
        for records in [&mut seen.answers, &mut seen.authorities, &mut seen.additionals] {
            records.sort();
        }
        Ok(seen)
    }

    /// The answers to a question that has some.
    #[track_caller]
    fn answers(&self, words: &str, expected: &[&str]) {
        let seen = self.ask(words).unwrap_or_else(|error| panic!("dig {words}: {error}"));
        assert_eq!((seen.status.as_str(), &seen.answers[..]), ("NOERROR", &texts(expected)[..]), "{}", seen.text);
    }

    /// The code of a question that has no answers.
    #[track_caller]
    fn nothing(&self, words: &str, status: &str) -> Seen {
        let seen = self.ask(words).unwrap_or_else(|error| panic!("dig {words}: {error}"));
        assert_eq!((seen.status.as_str(), seen.answers.len()), (status, 0), "{words}: {}", seen.text);
        seen
    }
}

fn texts(expected: &[&str]) -> Vec<String> {
    expected.iter().map(|&text| text.to_owned()).collect()
}

/// Answers every question with 192.0.2.7, as a recursor far away would.
fn recursor() -> std::io::Result<String> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?.to_string();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[12..length];
            // Its name, type and class; what follows is EDNS.
            let end = 12 + question.iter().position(|byte| *byte == 0).unwrap_or_default() + 5;
            let mut answer = buffer[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            if socket.send_to(&answer, from).is_err() {
                return;
            }
        }
    });
    Ok(address)
}

pub(crate) fn put(agent: &Agent, target: &str, body: &str) {
    let address = format!("{}:8500", agent.address).parse().expect("an address");
    let answer = http::send(address, if target == "/v1/query" { "POST" } else { "PUT" }, target, Some(body));
    let answer = answer.unwrap_or_else(|error| panic!("{target}: {error}"));
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
}

pub(crate) fn wait_until_ready(agent: &Agent) {
    let address = format!("{}:8500", agent.address).parse().expect("an address");
    let end = Instant::now() + START_LIMIT;
    let ready = || http::send(address, "GET", "/v1/health/service/consul?passing", None);
    while !ready().is_ok_and(|answer| answer.status == 200 && answer.text().contains("serfHealth")) {
        assert!(Instant::now() < end, "not ready:\n{}", agent.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn fill(agent: &Agent) {
    for (id, address, tag) in [("web1", "10.1.0.1", "v1"), ("web2", "10.1.0.2", "v2.x"), ("web3", "fd00::3", "v1")] {
        let body = format!(
            r#"{{"ID":"{id}","Name":"web","Address":"{address}","Port":80,"Tags":["{tag}"],"Check":{{"TTL":"1h","Status":"passing"}}}}"#
        );
        put(agent, "/v1/agent/service/register", &body);
    }
    put(agent, "/v1/agent/service/register", r#"{"Name":"here","Port":81,"Weights":{"Passing":7,"Warning":2}}"#);
    put(agent, "/v1/agent/service/register", r#"{"Name":"down","Address":"10.1.0.9","Check":{"TTL":"1h"}}"#);
    put(agent, "/v1/agent/service/register", r#"{"Name":"far","Address":"db.example.com","Port":5432}"#);
    put(agent, "/v1/agent/service/register", r#"{"Name":"alias","Address":"ext.node.consul","Port":1}"#);
    for number in 1..=40 {
        let body = format!(r#"{{"ID":"many{number}","Name":"many","Address":"10.2.0.{number}","Port":80}}"#);
        put(agent, "/v1/agent/service/register", &body);
    }
    put(
        agent,
        "/v1/catalog/register",
        r#"{"Node":"ext","Address":"10.9.9.9","NodeMeta":{"rack":"r1","rfc1035-x":"bare"}}"#,
    );
    put(agent, "/v1/catalog/register", r#"{"Node":"named","Address":"host.example.com"}"#);
    put(agent, "/v1/query", r#"{"Name":"geo.web","Service":{"Service":"web","Tags":["v2.x"]},"DNS":{"TTL":"11s"}}"#);
}

/// Nodes, addresses, the zone, and what is not there.
fn nodes_and_zone(dig: &Dig<'_>, agent: &Agent) {
    let own = format!("n1.node.consul. A {}", agent.address);
    dig.answers("n1.node.consul A", &[&own]);
    let seen = dig.ask("ext.node.consul A").expect("an answer");
    assert_eq!(
        seen.additionals,
        ["ext.node.consul. TXT \"bare\"", "ext.node.consul. TXT \"rack=r1\""],
        "{}",
        seen.text
    );
    assert!(seen.flags.contains("aa") && seen.flags.contains("ra"), "{}", seen.text);
    dig.answers(
        "ext.node.dc1.consul TXT",
        &["ext.node.dc1.consul. TXT \"bare\"", "ext.node.dc1.consul. TXT \"rack=r1\""],
    );
    dig.answers(
        "ext.node.dc1.dc.consul ANY +notcp",
        &[
            "ext.node.dc1.dc.consul. A 10.9.9.9",
            "ext.node.dc1.dc.consul. TXT \"bare\"",
            "ext.node.dc1.dc.consul. TXT \"rack=r1\"",
        ],
    );
    dig.answers(
        "named.node.consul A",
        &["host.example.com. A 192.0.2.7", "named.node.consul. CNAME host.example.com."],
    );
    dig.answers("0a010001.addr.consul A", &["0a010001.addr.consul. A 10.1.0.1"]);
    dig.answers(
        "fd000000000000000000000000000003.addr.dc1.consul AAAA",
        &["fd000000000000000000000000000003.addr.dc1.consul. AAAA fd00::3"],
    );
    dig.answers("-x 10.9.9.9", &["9.9.9.10.in-addr.arpa. PTR ext.node.dc1.consul."]);
    let soa = dig.ask("consul SOA").expect("an answer");
    assert!(soa.answers[0].starts_with("consul. SOA ns.consul. hostmaster.consul. "), "{}", soa.text);
    assert!(soa.answers[0].ends_with(" 3600 600 86400 0"), "{}", soa.text);
    dig.answers("whatever.consul NS", &["consul. NS n1.node.dc1.consul."]);
    for (words, status) in [
        ("nobody.node.consul A", "NXDOMAIN"),
        ("nobody.service.consul A", "NXDOMAIN"),
        ("n1.node.dc9.consul A", "NXDOMAIN"),
        ("web.service.x.peer.consul A", "NXDOMAIN"),
        ("down.service.consul A", "NXDOMAIN"),
        ("nobody.query.consul A", "NXDOMAIN"),
        ("consul A", "NXDOMAIN"),
        ("ext.node.consul AAAA", "NOERROR"),
    ] {
        dig.nothing(words, status);
    }
    // Of a refused transfer dig tells no code.
    let seen = dig.ask("consul AXFR").unwrap_or_else(|error| panic!("dig AXFR: {error}"));
    assert!(seen.answers.is_empty() && seen.text.contains("Transfer failed."), "{}", seen.text);
    let seen = dig.nothing("nobody.service.consul A", "NXDOMAIN");
    assert!(seen.authorities[0].starts_with("consul. SOA "), "{}", seen.text);
}

/// Services in every form, and how answers are cut.
fn services(dig: &Dig<'_>, agent: &Agent) {
    dig.answers("web.service.consul A", &["web.service.consul. A 10.1.0.1", "web.service.consul. A 10.1.0.2"]);
    dig.answers("WEB.Service.Consul AAAA", &["WEB.Service.Consul. AAAA fd00::3"]);
    dig.answers("v2.x.web.service.dc1.consul A", &["v2.x.web.service.dc1.consul. A 10.1.0.2"]);
    dig.answers(
        "_web._v1.service.consul SRV",
        &[
            "_web._v1.service.consul. SRV 1 1 80 0a010001.addr.dc1.consul.",
            "_web._v1.service.consul. SRV 1 1 80 fd000000000000000000000000000003.addr.dc1.consul.",
        ],
    );
    let seen = dig.ask("_here._tcp.consul SRV").expect("an answer");
    assert_eq!(seen.answers, ["_here._tcp.consul. SRV 1 7 81 n1.node.dc1.consul."], "{}", seen.text);
    assert_eq!(seen.additionals, [format!("n1.node.dc1.consul. A {}", agent.address)], "{}", seen.text);
    let seen = dig.ask("far.service.consul SRV").expect("an answer");
    assert_eq!(seen.answers, ["far.service.consul. SRV 1 1 5432 db.example.com."], "{}", seen.text);
    assert_eq!(seen.additionals, ["db.example.com. A 192.0.2.7"], "{}", seen.text);
    dig.answers("far.service.consul A", &["db.example.com. A 192.0.2.7", "far.service.consul. CNAME db.example.com."]);
    dig.answers(
        "alias.service.consul A",
        &["alias.service.consul. CNAME ext.node.consul.", "ext.node.consul. A 10.9.9.9"],
    );
    let seen = dig.ask("geo.web.query.consul A").expect("an answer");
    assert_eq!((seen.answers.as_slice(), seen.ttl.as_str()), (&texts(&["geo.web.query.consul. A 10.1.0.2"])[..], "11"));
    dig.answers("web.service.here.test A", &["web.service.here.test. A 10.1.0.1", "web.service.here.test. A 10.1.0.2"]);
    for (words, range, flags) in [
        ("many.service.consul A +noedns", 3..=3, "tc"),
        ("many.service.consul A +bufsize=4096", 40..=40, "aa"),
        ("many.service.consul SRV +bufsize=600", 2..=39, "tc"),
        ("many.service.consul A +tcp", 40..=40, "aa"),
    ] {
        let seen = dig.ask(&format!("{words} +ignore")).expect("an answer");
        assert!(range.contains(&seen.answers.len()) && seen.flags.contains(flags), "{words}: {}", seen.text);
    }
    let seen = dig.ask("web.service.consul A +subnet=198.51.100.0/24").expect("an answer");
    assert!(seen.text.contains("CLIENT-SUBNET: 198.51.100.0/24/0"), "{}", seen.text);
}

/// Other domains, and our own with what a pod's resolver appends.
fn others(dig: &Dig<'_>) {
    dig.answers("www.example.com A", &["www.example.com. A 192.0.2.7"]);
    let seen = dig.ask("www.example.com A").expect("an answer");
    assert!(seen.flags.contains("ra") && !seen.flags.contains("aa"), "{}", seen.text);
}

pub(crate) fn run(cache: &Path, directory: &Path) -> Result<(), String> {
    let recursor = recursor().map_err(|error| error.to_string())?;
    let settings = "dns_config { enable_truncate = true }";
    let more = ["-dev", "-alt-domain=here.test", &format!("-recursor={recursor}"), "-hcl", settings];
    let more = more.map(str::to_owned);
    let mut agent = Agent::new(directory, "n1", next_address(), &more);
    agent.start();
    wait_until_ready(&agent);
    fill(&agent);
    let dig = Dig { cache, address: &agent.address };
    nodes_and_zone(&dig, &agent);
    services(&dig, &agent);
    others(&dig);
    drop(agent);
    let mut alone = Agent::new(directory, "n2", next_address(), &["-dev".to_owned()]);
    alone.start();
    wait_until_ready(&alone);
    let dig = Dig { cache, address: &alone.address };
    dig.nothing("www.example.com A", "REFUSED");
    // What a resolver that counts five dots asks first.
    let begin = Instant::now();
    dig.nothing("web.service.consul.shop.svc.cluster.local A", "NXDOMAIN");
    assert!(begin.elapsed() < Duration::from_secs(5), "it was not answered at once");
    Ok(())
}
