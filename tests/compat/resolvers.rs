//! Names as programs ask for them that know nothing of us: through glibc's resolver, Go's and Node's.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lictor_tests::process::{Agent, next_address};
use lictor_tests::tools;
use rustix::process::geteuid;

use crate::clients::{GoSuite, NodeSuite, sources};
use crate::dns::{put, wait_until_ready};

/// How long the questions of one resolver may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The port that a C library asks, and no other.
const DOMAIN_PORT: u16 = 53;
/// Where everybody may listen.
const USUAL_PORT: u16 = 8600;

fn fill(agent: &Agent) {
    let register = |id: &str, name: &str, address: &str| {
        let body = format!(r#"{{"ID":"{id}","Name":"{name}","Address":"{address}","Port":80}}"#);
        put(agent, "/v1/agent/service/register", &body);
    };
    for (name, count, net) in [("few", 3, 3), ("many", 100, 4)] {
        for number in 1..=count {
            register(&format!("{name}-{number}"), name, &format!("10.{net}.0.{number}"));
        }
    }
    register("six", "six", "fd00::6");
    put(agent, "/v1/catalog/register", r#"{"Node":"ext","Address":"10.9.9.9","NodeMeta":{"rack":"r1"}}"#);
}

/// Runs the questions of `program` where `/etc/resolv.conf` is this text.
fn with_resolv_conf(directory: &Path, text: &str, program: &[&str]) -> Result<String, String> {
    let file = directory.join("resolv.conf");
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let mut command = Command::new("unshare");
    command.current_dir(sources("python")).args(["--mount", "sh", "-c"]);
    // A name cache of the machine would answer in our place.
    command.arg("set -e; mount --bind \"$0\" /etc/resolv.conf; exec \"$@\"").arg(file).args(program);
    tools::captured(&mut command, LIMIT)
}

/// Asks; what was asked, in words.
pub(crate) fn run(cache: &Path, directory: &Path) -> Result<String, String> {
    let is_root = geteuid().is_root();
    let port = if is_root { DOMAIN_PORT } else { USUAL_PORT };
    let settings = "dns_config { enable_truncate = true }".to_owned();
    let more = ["-dev".to_owned(), format!("-dns-port={port}"), "-hcl".to_owned(), settings];
    let mut agent = Agent::new(directory, "n1", next_address(), &more);
    agent.start();
    wait_until_ready(&agent);
    fill(&agent);
    let address = format!("{}:{port}", agent.address);
    let go = GoSuite::build(directory)?.ask(&address)?;
    let node = NodeSuite::prepare(cache)?.ask(&address)?;
    let glibc = if is_root {
        let search = "search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:10\n";
        let text = format!("nameserver {}\n{search}", agent.address);
        let output = with_resolv_conf(directory, &text, &["python3", "-B", "names.py"])?;
        crate::clients::ran(&output)?
    } else {
        0
    };
    let of_glibc = if is_root { format!("{glibc} of glibc") } else { "none of glibc, which needs root".to_owned() };
    Ok(format!("names of 3 and 100 instances: {go} tests of Go's resolver, {node} of Node's, {of_glibc}"))
}
