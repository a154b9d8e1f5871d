//! Every verb of the command line that speaks to an agent, as scripts run it: exit code and the words that they look for.

use std::path::Path;
use std::process::Command;

use lictor_tests::TestCluster;
use lictor_tests::process::lictor;

/// One line: what is run, how it ends, and what it says on either output.
type Line = (&'static str, i32, &'static [&'static str]);

/// In this order. `@` stands for the directory of the test.
const LINES: &[Line] = &[
    ("version", 0, &["Consul v1.21.4"]),
    ("version -format=json", 0, &["\"Version\""]),
    ("keygen", 0, &["="]),
    ("validate @/good.hcl", 0, &["Configuration is valid!"]),
    ("validate @/bad.hcl", 1, &["Config validation failed", "no_such_key"]),
    ("info", 0, &["agent:", "build:", "consul:"]),
    ("members", 0, &["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment", "alive"]),
    ("members -detailed", 0, &["Tags", "role=consul"]),
    ("members -status=left", 2, &[]),
    ("members -format=json", 0, &["\"Name\": \"s1\""]),
    ("catalog datacenters", 0, &["dc1"]),
    ("catalog nodes", 0, &["Node", "ID", "Address", "DC", "s1"]),
    ("catalog nodes -detailed", 0, &["TaggedAddresses", "Meta", "lan="]),
    ("catalog nodes -service=consul", 0, &["s1"]),
    ("catalog nodes -near=_agent", 0, &["s1"]),
    ("catalog services", 0, &["consul"]),
    ("catalog services -tags", 0, &["consul"]),
    ("kv put a/b one", 0, &["Success! Data written to: a/b"]),
    ("kv put -flags=7 a/c two", 0, &["Success! Data written to: a/c"]),
    ("kv get a/b", 0, &["one"]),
    ("kv get -detailed a/c", 0, &["Flags            7", "ModifyIndex"]),
    ("kv get -keys a/", 0, &["a/b", "a/c"]),
    ("kv get -recurse a/", 0, &["a/b:one", "a/c:two"]),
    ("kv get -base64 a/b", 0, &["b25l"]),
    ("kv get nothing", 1, &["Error! No key exists at: nothing"]),
    ("kv put -cas -modify-index=1 a/b x", 1, &["Error! Did not write to a/b: CAS failed"]),
    ("kv export a/", 0, &["\"key\": \"a/b\"", "\"flags\": 7"]),
    ("kv import -prefix=copy/ [{\"key\":\"d\",\"flags\":0,\"value\":\"eA==\"}]", 0, &["Imported: copy/d"]),
    ("kv delete a/b", 0, &["Success! Deleted key: a/b"]),
    ("kv delete -recurse a/", 0, &["Success! Deleted keys with prefix: a/"]),
    ("services register -name=web -port=80", 0, &["Registered service: web"]),
    ("catalog services", 0, &["web"]),
    ("services deregister -id=web", 0, &["Deregistered service: web"]),
    ("maint", 0, &[]),
    ("maint -enable -reason=work", 0, &["Node maintenance is now enabled"]),
    ("maint -disable", 0, &["Node maintenance is now disabled"]),
    ("event -name=deploy v2", 0, &["Event ID: "]),
    ("lock -child-exit-code locks/a exit 3", 2, &[]),
    ("lock locks/a exit 3", 0, &[]),
    ("session create -name=job -ttl=30s -lock-delay=1s", 0, &["-"]),
    ("session list", 0, &["ID", "Behavior", "LockDelay", "job", "s1", "release", "30s", "1s", "serfHealth"]),
    ("session node s1", 0, &["job"]),
    ("session list -format=json", 0, &["\"Name\": \"job\""]),
    ("session read adf4238a-882b-9ddc-4a9d-5b6758e4159e", 1, &["No session exists with id"]),
    ("session renew adf4238a-882b-9ddc-4a9d-5b6758e4159e", 1, &["No session exists with id"]),
    ("session destroy adf4238a-882b-9ddc-4a9d-5b6758e4159e", 0, &["destroyed"]),
    ("catalog nodes -format=json", 0, &["\"Node\": \"s1\""]),
    ("operator raft list-peers -format=json", 0, &["\"Leader\": true"]),
    ("info -format=json", 0, &["\"agent\""]),
    ("kv get -format=json locks/a", 1, &["No key exists"]),
    ("force-leave -wan nobody", 1, &["No node found with name 'nobody.dc1'"]),
    ("watch -type=services", 0, &["\"consul\""]),
    ("watch -type=foo", 1, &["Unsupported watch type: foo"]),
    ("rtt s1 s1", 1, &["Could not find a coordinate for node \"s1\""]),
    ("rtt -wan s1.dc1 s1.dc1", 0, &["rtt: ", "using WAN coordinates"]),
    ("keyring -list", 1, &["Keyring is empty (encryption not enabled)"]),
    ("keyring -list -install=x", 1, &["Only a single action is allowed"]),
    (
        "operator raft list-peers",
        0,
        &["Node", "ID", "State", "Voter", "RaftProtocol", "Commit Index", "Trails Leader By"],
    ),
    ("operator raft remove-peer", 1, &["an address or id is required"]),
    ("operator autopilot get-config", 0, &["CleanupDeadServers = true"]),
    ("operator autopilot set-config -max-trailing-logs=300", 0, &["Configuration updated!"]),
    ("operator autopilot state", 0, &["Healthy:", "Failure Tolerance:", "Voters:", "Servers:"]),
    ("operator usage instances", 0, &["Service instances", "Datacenter"]),
    ("operator usage instances -format=json", 0, &["\"ServiceInstances\""]),
    ("snapshot save @/backup.snap", 0, &["Saved and verified snapshot to index "]),
    ("snapshot inspect @/backup.snap", 0, &["ID", "Index", "Term"]),
    ("snapshot restore @/backup.snap", 0, &["Restored snapshot"]),
    ("connect ca get-config", 0, &["Provider"]),
    ("intention create -deny web db", 0, &["Created: web => db (deny)"]),
    ("intention check web db", 1, &["Denied"]),
    ("intention list", 0, &["web", "db"]),
    ("intention delete web db", 0, &["Intention deleted."]),
    ("debug -duration=1s -interval=5s -output=@/found", 0, &["Saved debug archive: "]),
    ("reload", 0, &["Configuration reload triggered"]),
    ("join 127.255.255.254", 1, &["Error"]),
    ("force-leave nobody", 1, &["No node found with name 'nobody'"]),
    ("completion bash", 0, &["_lictor"]),
    ("man @/man", 0, &["Wrote "]),
    ("no-such-verb", 1, &["no-such-verb"]),
    ("leave", 0, &["Graceful leave complete"]),
];

fn run(line: &str, directory: &Path, address: &str) -> (Option<i32>, String) {
    let directory = directory.display().to_string();
    let output = Command::new(lictor())
        .args(line.split(' ').map(|word| word.replace('@', &directory)))
        .env("CONSUL_HTTP_ADDR", format!("{address}:8500"))
        .output()
        .expect("the program under test starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_ends_and_says_what_scripts_look_for() {
    let cluster = TestCluster::start(1).await;
    let directory = cluster.directory.path();
    std::fs::write(directory.join("good.hcl"), "data_dir = \"/d\"\nbind_addr = \"127.0.0.1\"\n").expect("a file");
    std::fs::write(directory.join("bad.hcl"), "data_dir = \"/d\"\nno_such_key = 1\n").expect("a file");
    let address = cluster.servers[0].address.clone();
    let mut wrong = Vec::new();
    for (line, code, words) in LINES {
        let (ended, said) = run(line, directory, &address);
        let missing: Vec<&&str> = words.iter().filter(|word| !said.contains(**word)).collect();
        if ended != Some(*code) || !missing.is_empty() {
            wrong.push(format!("`{line}` ended with {ended:?} and not {code}, without {missing:?}:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
