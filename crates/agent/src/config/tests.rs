//! Whole configurations, from files and flags to the result or to everything that is wrong.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::*;

fn host() -> Host {
    Host { name: "machine".into(), private_addresses: vec![Ipv4Addr::new(10, 0, 0, 7)], ..Host::default() }
}

fn load(fragments: &[&str]) -> Result<Config, ConfigErrors> {
    let fragments = fragments.iter().map(|&fragment| fragment.to_owned()).collect();
    Config::load(&Flags { fragments, ..Flags::default() }, &host())
}

fn complaints(fragments: &[&str]) -> String {
    load(fragments).expect_err("this configuration has mistakes").to_string()
}

const LOOPBACK: &str = r#"bind_addr = "127.0.0.1" data_dir = "/data""#;

#[test]
fn on_loopback_absent_keys_mean_what_they_mean_in_consul() {
    let config = load(&["bind_addr = \"127.0.0.1\"\ndata_dir = \"/data\""]).unwrap();
    assert!(!config.acl.enabled && config.acl.default_allow && config.default_intention_allow);
    assert_eq!(config.node_name.as_str(), "machine");
    assert_eq!(config.addresses.http, ["127.0.0.1:8500".parse().unwrap()]);
    assert!(config.addresses.https.is_empty());
    assert_eq!((config.ports.server, config.ports.dns), (8300, Some(8600)));
    assert!(config.leave_on_terminate && !config.skip_leave_on_interrupt);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn beyond_loopback_absent_keys_mean_the_safe_choice() {
    let config = load(&[r#"
        data_dir = "/data"
        login_token_file = "/token"
        retry_join = ["server-0:8301"]
        tls { defaults { ca_file = "/ca.crt" } }
    "#])
    .unwrap();
    assert!(config.acl.enabled && !config.acl.default_allow && !config.default_intention_allow);
    assert_eq!(config.addresses.advertise.to_string(), "10.0.0.7");
    assert_eq!(config.join.servers, ["server-0:8300"]);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_server_beyond_loopback_without_its_material_is_told_how_to_make_it() {
    let text = complaints(&["data_dir = \"/data\"\nserver = true\nbootstrap_expect = 3"]);
    assert!(text.contains("lictor tls ca create") && text.contains("seal_key_file"), "{text}");
}

#[test]
fn what_is_less_safe_must_be_written_and_is_warned_about() {
    let config = load(&[r#"
        data_dir = "/data"
        client_addr = "0.0.0.0"
        acl { enabled = true, default_policy = "allow" }
        login_token_file = "/token"
        retry_join = ["s"]
        tls { defaults { ca_file = "/ca.crt" } }
    "#])
    .unwrap();
    assert!(config.warnings.iter().any(|warning| warning.contains("plain HTTP")), "{:?}", config.warnings);
    assert!(config.warnings.iter().any(|warning| warning.contains("default_policy")), "{:?}", config.warnings);
    let text = complaints(&["bind_addr = \"127.0.0.1\"\ndata_dir = \"/data\"\nclient_addr = \"0.0.0.0\""]);
    assert!(text.contains("acl.enabled = true"), "{text}");
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let text = complaints(&[
        "bind_addr = \"127.0.0.1\"\ndatacentre = \"x\"\nports { htpp = 1 }",
        "server = \"maybe\"\ndns_config { node_ttl = \"5\" }\nlog_level = \"loud\"",
    ]);
    for part in [
        "-hcl fragment 1: invalid config key datacentre; the nearest known key is datacenter",
        "-hcl fragment 1: invalid config key ports.htpp; the nearest known key is ports.http",
        "-hcl fragment 2: server must be true or false, not \"maybe\"",
        "-hcl fragment 2: dns_config.node_ttl must be a duration",
        "log_level \"LOUD\" must be one of",
        "data_dir cannot be empty",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn a_source_that_cannot_be_read_is_not_followed_by_what_is_missing_without_it() {
    let text = complaints(&["bind_addr = \"127.0.0.1\"\ndata_dir = [", "datacentre = \"x\""]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("-hcl fragment 1: line 2: "), "{text}");
    assert!(lines[1].starts_with("-hcl fragment 2: invalid config key datacentre"), "{text}");
}

#[test]
fn later_sources_replace_scalars_append_lists_and_merge_maps() {
    let flags = Flags {
        fragments: vec![
            "bind_addr = \"127.0.0.1\"\ndata_dir = \"/a\"\nretry_join = [\"a\"]\nnode_meta { x = \"1\", y = \"1\" }" .into(),
            "data_dir = \"/b\"\nretry_join = [\"b\"]\nnode_meta { y = \"2\" }\nservice { name = \"one\" }\nservice { name = \"two\" }".into(),
            "service { name = \"three\" }\nservices = [{ name = \"four\" }]".into(),
        ],
        data_dir: Some("/flag".into()),
        http_port: Some(-1),
        ..Flags::default()
    };
    let config = Config::load(&flags, &host()).unwrap();
    assert_eq!(config.data_dir, Some(PathBuf::from("/flag")));
    assert_eq!(config.join.servers, ["a:8300", "b:8300"]);
    assert_eq!((config.node_meta["x"].as_str(), config.node_meta["y"].as_str()), ("1", "2"));
    let mut names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["four", "one", "three", "two"]);
    assert!(config.addresses.http.is_empty());
}

#[test]
fn files_are_read_in_lexical_order_by_their_extension() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("20-b.json", r#"{"datacenter": "dc2", "tls": [{"defaults": [{"ca_file": "/ca"}]}]}"#);
    write("10-a.hcl", "bind_addr = \"127.0.0.1\"\ndatacenter = \"dc1\"\ndata_dir = \"/data\"");
    write("30.txt", "not a configuration");
    std::fs::create_dir(directory.path().join("sub.json")).unwrap();
    let flags = Flags { config_paths: vec![directory.path().into()], ..Flags::default() };
    let config = Config::load(&flags, &host()).unwrap();
    assert_eq!(config.datacenter, "dc2");
    assert_eq!(config.rpc_tls.ca_file, Some(PathBuf::from("/ca")));
    let flags = Flags { config_paths: vec![directory.path().join("30.txt")], ..Flags::default() };
    let errors = Config::load(&flags, &host()).unwrap_err().to_string();
    assert!(errors.contains("Missing or invalid file extension"), "{errors}");
}

#[test]
fn the_agent_of_dev_is_a_server_on_loopback_that_keeps_nothing() {
    let flags = Flags {
        dev: true,
        client: Some("0.0.0.0".into()),
        bind: Some("10.0.0.7".into()),
        data_dir: Some("/x".into()),
        ..Flags::default()
    };
    let config = Config::load(&flags, &host()).unwrap();
    assert!(config.server && config.on_loopback() && config.data_dir.is_none());
    assert_eq!((config.bootstrap_expect, config.log.level.as_str()), (1, "DEBUG"));
    assert_eq!(config.addresses.http, ["0.0.0.0:8500".parse().unwrap()]);
    assert!(config.warnings.iter().any(|warning| warning.contains("always binds loopback")), "{:?}", config.warnings);
}

#[test]
fn old_names_work_and_are_warned_about() {
    let config = load(&[
        LOOPBACK,
        "start_join = [\"a\"]\nca_file = \"/ca\"\nacl_master_token = \"root\"\nverify_incoming = true\nenable_syslog = true",
    ])
    .unwrap();
    assert_eq!(config.join.servers, ["a:8300"]);
    assert_eq!(config.rpc_tls.ca_file, Some(PathBuf::from("/ca")));
    assert!(config.https_tls.verify_incoming);
    assert_eq!(config.acl.initial_management.unwrap().secret, "root");
    assert!(config.warnings.iter().any(|warning| warning.contains("start_join is an old name, write retry_join")));
    assert!(
        config.warnings.iter().any(|warning| warning.contains("enable_syslog has no effect")),
        "{:?}",
        config.warnings
    );
}

#[test]
fn programs_are_run_only_where_the_configuration_says_so() {
    let script = "check { name = \"a\"\nargs = [\"/bin/true\"]\ninterval = \"1s\" }";
    let text = complaints(&[LOOPBACK, script]);
    assert!(text.contains("Scripts are disabled on this agent"), "{text}");
    let config = load(&[LOOPBACK, script, "enable_local_script_checks = true"]).unwrap();
    assert!(config.check_settings.scripts_of_files && !config.check_settings.scripts_of_api);
    let config = load(&[LOOPBACK, "enable_script_checks = true"]).unwrap();
    assert!(config.check_settings.scripts_of_api);
    assert!(config.warnings.iter().any(|warning| warning.contains("enable_script_checks")), "{:?}", config.warnings);
    let text = complaints(&[
        LOOPBACK,
        "enable_script_checks = true\naddresses { https = \"0.0.0.0\" }\nports { https = 8501 }",
    ]);
    assert!(text.contains("enable_local_script_checks"), "{text}");
}

#[test]
fn what_is_not_served_is_refused_plainly() {
    for (fragment, part) in [
        ("retry_join = [\"provider=aws tag_key=x\"]", "cloud auto-join is not served"),
        ("addresses { dns = \"unix:///run/x\" }", "only addresses.http takes unix:///PATH"),
        ("unix_sockets { mode = \"999\" }", "must be octal"),
        ("bind_addr = \"{{ GetAllInterfaces | attr \\\"address\\\" }}\"", "of templates GetPrivateIP"),
        ("advertise_addr = \"{{ GetInterfaceIP \\\"none0\\\" }}\"", "this machine has no such IPv4 address"),
        (
            "service { name = \"a\"\nconnect { sidecar_service { id = \"b\" } } }",
            "A SidecarService cannot specify an ID",
        ),
        ("ports { sidecar_min_port = 5 sidecar_max_port = 4 }", "sidecar_min_port must be less than sidecar_max_port"),
        ("server_addresses = [\"server-0\"]", "must be host:port"),
    ] {
        let text = complaints(&[LOOPBACK, fragment]);
        assert!(text.contains(part), "{fragment}: {text}");
    }
}

#[test]
fn the_files_of_a_server_pod_are_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let server = r#"{"server":true,"datacenter":"dc1","bootstrap_expect":3,"bind_addr":"0.0.0.0","client_addr":"127.0.0.1",
        "addresses":{"https":"0.0.0.0"},"ports":{"http":8500,"https":8501,"dns":8600,"server":8300},
        "server_addresses":["n-server-0.n-server.ns.svc.cluster.local:8300"],
        "tls":{"defaults":{"ca_file":"/t/ca.crt","cert_file":"/t/tls.crt","key_file":"/t/tls.key"}},
        "seal_key_file":"/lictor/seal/seal.key","acl":{"enabled":true,"default_policy":"deny"},
        "login":{"kubernetes":{"config_file":"/lictor/login/kubernetes-login.json"}},
        "autopilot":{"cleanup_dead_servers":false},"leave_on_terminate":false}"#;
    std::fs::write(directory.path().join("server.json"), server).unwrap();
    std::fs::write(directory.path().join("acl.json"), r#"{"acl":{"tokens":{"initial_management":"u"}}}"#).unwrap();
    std::fs::write(directory.path().join("token"), "u").unwrap();
    let flags = Flags {
        config_paths: vec![directory.path().into()],
        data_dir: Some("/lictor/data".into()),
        node: Some("n-server-0".into()),
        advertise: Some("10.1.2.3".into()),
        advertise_server_address: Some("n-server-0.n-server.ns.svc.cluster.local:8300".into()),
        ..Flags::default()
    };
    let config = Config::load(&flags, &Host::default()).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.addresses.https, ["0.0.0.0:8501".parse().unwrap()]);
    assert!(config.acl.enabled && !config.autopilot.cleanup_dead_servers && !config.leave_on_terminate);
    assert_eq!(config.kubernetes_login_file, Some(PathBuf::from("/lictor/login/kubernetes-login.json")));
}

#[test]
fn http_may_be_on_a_unix_socket_beside_an_address() {
    let config = load(&[
        LOOPBACK,
        "addresses { http = \"127.0.0.1 unix:///run/lictor.sock\" }\nunix_sockets { mode = \"0660\" user = \"root\" group = \"7\" }",
    ])
    .unwrap();
    assert_eq!(config.addresses.http, ["127.0.0.1:8500".parse().unwrap()]);
    assert_eq!(config.addresses.http_sockets, [PathBuf::from("/run/lictor.sock")]);
    let expected = UnixSockets { mode: Some(0o660), user: Some(0), group: Some(7) };
    assert_eq!(config.unix_sockets, expected);
}

#[test]
fn every_key_that_changes_nothing_is_told_with_its_reason() {
    let config = load(&[LOOPBACK, "raft_protocol = 3\nperformance { grpc_keepalive_timeout = \"1s\" }"]).unwrap();
    let keys: Vec<&str> = config.ignored.iter().map(|ignored| ignored.key.as_str()).collect();
    assert_eq!(keys, ["performance.grpc_keepalive_timeout", "raft_protocol"]);
    assert_eq!(
        (config.ignored[1].file.as_str(), config.ignored[1].reason),
        ("-hcl fragment 2", "there is one version")
    );
}

/// Whether a key, with the keys above it, is among those that are read.
fn has_effect(path: &str, known: &[(&str, keys::Kind)]) -> bool {
    let (name, below) = path.split_once('.').map_or((path, None), |(name, below)| (name, Some(below)));
    let found = known.iter().find(|(key, _)| *key == name);
    found.is_some_and(|(_, kind)| match (kind, below) {
        (_, None) => true,
        (keys::Kind::Object(inner), Some(below)) => has_effect(below, inner),
        (_, Some(_)) => false,
    })
}

#[test]
fn no_key_is_both_taken_and_without_effect() {
    let mut seen = std::collections::BTreeSet::new();
    for entry in WITHOUT_EFFECT {
        assert!(seen.insert(entry.key), "{} is there twice", entry.key);
        assert!(!has_effect(entry.key, keys::KEYS), "{} has an effect", entry.key);
        assert!(!entry.reason.is_empty());
    }
}

/// The paths of all keys that are no object of other keys.
fn leaves(above: &str, known: &[(&str, keys::Kind)], found: &mut Vec<String>) {
    for (name, kind) in known {
        let path = if above.is_empty() { (*name).to_owned() } else { format!("{above}.{name}") };
        match kind {
            keys::Kind::Object(below) => leaves(&path, below, found),
            _ => found.push(path),
        }
    }
}

#[test]
fn every_key_that_is_taken_is_read_by_somebody() {
    merged::ASKED.with_borrow_mut(std::collections::BTreeSet::clear);
    load(&[LOOPBACK]).unwrap();
    load(&[LOOPBACK, "server = true"]).unwrap();
    let mut taken = Vec::new();
    leaves("", keys::KEYS, &mut taken);
    let asked = merged::ASKED.with_borrow(Clone::clone);
    let unread: Vec<&String> = taken.iter().filter(|key| !asked.contains(*key)).collect();
    assert!(unread.is_empty(), "nobody reads {unread:?}: list them in WITHOUT_EFFECT, or read them");
    // And nobody asks for what no file can say.
    let known = |path: &str| has_effect(path, keys::KEYS);
    let unknown: Vec<&String> = asked.iter().filter(|key| !known(key)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are read and refused as unknown");
}

#[test]
fn consuls_keys_without_a_meaning_here_are_taken() {
    let keys = [
        "license_path = \"/x\"",
        "segment = \"a\"",
        "partition = \"a\"",
        "audit { enabled = true }",
        "acl_replication_token = \"a\"",
        "acl_agent_master_token = \"a\"",
        "acl_enable_key_list_policy = true",
        "acl { tokens { agent_master = \"a\" } }",
        "ui_dir = \"/x\"",
        "ui_content_path = \"/x\"",
        "tls { defaults { use_auto_cert = true verify_outgoing = true } internal_rpc { verify_incoming = true } }",
        "verify_incoming_rpc = true",
        "advertise_addr_ipv4 = \"10.0.0.1\"",
        "server_name = \"x\"",
        "primary_gateways = [\"a\"]",
        "autopilot { redundancy_zone_tag = \"zone\" }",
        "telemetry { circonus_submission_url = \"x\" }",
        "ui_config { metrics_provider_files = [\"x\"] }",
        "raft_prevote_disabled = true",
        "raft_snapshot_interval = \"30s\"",
        "ports { grpc = 8502 grpc_tls = 8503 }",
    ];
    for key in keys {
        let config = load(&[LOOPBACK, key]).unwrap_or_else(|error| panic!("{key}: {error}"));
        assert!(!config.ignored.is_empty() || key.contains("verify_incoming"), "{key} is not told of");
    }
}

#[test]
fn a_key_that_says_what_happens_anyway_needs_no_word() {
    let told = |fragment: &str| {
        let config = load(&[LOOPBACK, fragment]).unwrap();
        (config.ignored.len(), config.warnings.iter().filter(|it| it.contains("has no effect")).count())
    };
    assert_eq!((told("connect { enabled = true }"), told("connect { enabled = false }")), ((0, 0), (1, 1)));
    assert_eq!((told("ports { grpc = -1 }"), told("ports { grpc = 8502 }")), ((0, 0), (1, 1)));
    let verified = told("tls { internal_rpc { verify_incoming = true verify_server_hostname = true } }");
    assert_eq!((verified, told("tls { internal_rpc { verify_outgoing = false } }")), ((0, 0), (1, 0)));
}

#[test]
fn gossip_takes_templates_and_blocks_of_addresses() {
    let config = load(&[
        LOOPBACK,
        "server = true\nserf_lan = \"{{ GetPrivateIP }}\"\nadvertise_addr_wan = \"{{ GetPrivateIP }}\"\n\
         serf_lan_allowed_cidrs = [\"10.0.0.0/8\"]\nserf_wan_allowed_cidrs = [\"10.0.0.0/8\", \"fd00::/8\"]\n\
         raft_snapshot_threshold = 100\nraft_trailing_logs = 7",
    ])
    .unwrap();
    let (lan, wan) = (config.gossip.lan.unwrap(), config.gossip.wan.unwrap());
    assert_eq!((lan.bind.to_string(), wan.advertise.to_string()), ("10.0.0.7:8301".into(), "10.0.0.7:8302".into()));
    assert_eq!((config.gossip.allowed_lan.len(), config.gossip.allowed_wan.len()), (1, 2));
    assert_eq!(config.raft, RaftLog { snapshot_threshold: Some(100), trailing_logs: Some(7) });
    let client = load(&[LOOPBACK, "advertise_reconnect_timeout = \"15m\""]).unwrap();
    assert_eq!(client.gossip.advertised_reconnect_timeout, Some(Duration::from_secs(900)));
    for (fragment, part) in [
        ("serf_lan_allowed_cidrs = [\"10.0.0.0\"]", "serf_lan_allowed_cidrs: \"10.0.0.0\" is no block of addresses"),
        ("server = true\nadvertise_reconnect_timeout = \"15m\"", "can only be used on a client"),
        ("raft_snapshot_threshold = 1", "must be at least 16 entries"),
        ("serf_wan = \"{{ GetPrivateIP\"", "a template has no end"),
    ] {
        let text = complaints(&[LOOPBACK, fragment]);
        assert!(text.contains(part), "{fragment}: {text}");
    }
}

#[test]
fn node_meta_is_what_the_catalog_takes() {
    for (fragment, part) in [
        ("node_meta { \"a b\" = \"c\" }", "node_meta invalid: Couldn't load metadata pair ('a b', 'c')"),
        ("node_meta { \"consul-x\" = \"c\" }", "Key prefix 'consul-' is reserved for internal use"),
        (&format!("node_meta {{ a = \"{}\" }}", "x".repeat(513)), "Value is too long (limit: 512 characters)"),
    ] {
        let text = complaints(&[LOOPBACK, fragment]);
        assert!(text.contains(part), "{fragment}: {text}");
    }
}

#[test]
fn no_text_ends_the_reader_of_configurations() {
    use crate::testing::{one_of, random_cases};
    const PIECES: [&str; 34] = [
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "=",
        ":",
        ",",
        "\n",
        "\"",
        "\\",
        "a",
        "ports",
        "service",
        "check",
        "\"x\"",
        "\"${x}\"",
        "\"\\u00e9\"",
        "1",
        "-1",
        "1e9",
        "0x10",
        "true",
        "<<EOT\n",
        "EOT\n",
        "<<-E\n",
        "E",
        "# c\n",
        "// c\n",
        "/*",
        "*/",
        "\u{feff}",
        "ü",
    ];
    let (mut taken, mut refused) = (0, 0);
    random_cases(20_000, |rng| {
        let text: String = (0..rng.below(40)).map(|_| format!("{} ", one_of(rng, &PIECES))).collect();
        match hcl::parse(&text) {
            Ok(_) => taken += 1,
            Err(problem) => {
                assert!(!problem.is_empty(), "{text:?}");
                refused += 1;
            }
        }
        // Deep nesting costs no stack.
        let deep = one_of(rng, &["{a=", "[", "(", "a {"]).repeat(rng.below(3000) as usize);
        assert!(deep.is_empty() || hcl::parse(&deep).is_err(), "{}", deep.len());
    });
    assert!(taken > 100 && refused > 1000, "{taken} and {refused}");
}

#[test]
fn limits_watches_and_what_http_adds_are_read_and_checked() {
    let config = load(&[
        LOOPBACK,
        r#"
        limits { rpc_rate = 0.5 rpc_max_burst = 7 }
        default_query_time = "20s"
        max_query_time = "40s"
        http_config {
            response_headers { X-Own = "yes" }
            block_endpoints = ["/v1/agent/self"]
            allow_write_http_from = ["10.0.0.0/8"]
            use_cache = true
        }
        watches = [{ type = "nodes" args = ["/bin/true"] }]
        "#,
    ])
    .unwrap();
    assert_eq!((config.limits.rpc_rate, config.limits.rpc_max_burst), (Some(0.5), 7));
    assert_eq!((config.limits.default_query_time.as_secs(), config.limits.max_query_time.as_secs()), (20, 40));
    assert_eq!((config.http.response_headers.len(), config.http.allow_write_from.len()), (1, 1));
    assert_eq!(config.watches[0].args, ["/bin/true"]);
    let others = r#"session_ttl_min = "5s"
        reconnect_timeout = "9h"
        disable_coordinates = true
        discovery_max_stale = "3s"
        locality { region = "eu" zone = "eu-1" }"#;
    let others = load(&[LOOPBACK, others]).unwrap();
    assert_eq!((others.session_ttl_min.as_secs(), others.gossip.reconnect_timeout.as_secs()), (5, 9 * 3600));
    assert!(others.disable_coordinates && others.ignored.is_empty(), "{:?}", others.ignored);
    assert_eq!(others.limits.discovery_max_stale.as_secs(), 3);
    assert_eq!(others.locality.map(|it| (it.region, it.zone)), Some(("eu".into(), "eu-1".into())));
    let unlimited = load(&[LOOPBACK, "limits { rpc_rate = -1 }"]).unwrap();
    assert_eq!(unlimited.limits.rpc_rate, None);
    for (fragment, words) in [
        (r#"watches = [{ type = "foo" args = ["x"] }]"#, "Unsupported watch type: foo"),
        (r#"max_query_time = "24h""#, "max_query_time 24h0m0s must be between 1s and 1h0m0s"),
        (r#"http_config { allow_write_http_from = ["10.0.0.0"] }"#, "is no block of addresses"),
        (r#"http_config { response_headers { "a b" = "c" } }"#, "cannot be a header"),
        (r#"limits { rpc_rate = "fast" }"#, "a number, or -1 for no limit"),
        (r#"session_ttl_min = "1ms""#, "session_ttl_min 1ms must be between 1s and 24h0m0s"),
        (r#"locality { zone = "eu-1" }"#, "zone cannot be set without region"),
    ] {
        let text = complaints(&[LOOPBACK, fragment]);
        assert!(text.contains(words), "{fragment}: {text}");
    }
}

#[test]
fn gossip_is_on_and_encrypted_where_nothing_is_said() {
    let config = load(&[LOOPBACK]).unwrap();
    assert_eq!(config.gossip.lan.map(|pool| pool.bind.to_string()).as_deref(), Some("127.0.0.1:8301"));
    assert!(config.gossip.wan.is_none() && !config.gossip.is_encrypted());
    let server = load(&[LOOPBACK, "server = true bootstrap = true"]).unwrap();
    assert_eq!(server.gossip.wan.map(|pool| pool.advertise.to_string()).as_deref(), Some("127.0.0.1:8302"));
    let beyond = r#"data_dir = "/data" login_token_file = "/token" tls { defaults { ca_file = "/ca.crt" } }"#;
    assert!(load(&[beyond]).unwrap().gossip.is_encrypted());
    let off = load(&[beyond, "encrypt = \"off\""]).unwrap();
    assert!(!off.gossip.is_encrypted());
    assert!(off.warnings.iter().any(|it| it.contains("reads and forges gossip")), "{:?}", off.warnings);
    assert!(load(&[LOOPBACK, "ports { serf_lan = -1 }"]).unwrap().gossip.lan.is_none());
}

#[test]
fn the_keys_of_gossip_have_their_effect_and_mistakes_in_them_are_named() {
    let config = load(&[
        LOOPBACK,
        r#"
        server = true
        bootstrap = true
        encrypt = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="
        encrypt_verify_incoming = false
        serf_lan = "127.0.0.2"
        advertise_addr_wan = "127.0.0.3"
        gossip_lan { probe_interval = "2s" gossip_nodes = 5 }
        reconnect_timeout = "9h"
        retry_join_wan = ["other"]
        rejoin_after_leave = true
        "#,
    ])
    .unwrap();
    let (lan, wan) = (config.gossip.lan.unwrap(), config.gossip.wan.unwrap());
    assert_eq!(
        (lan.bind.to_string().as_str(), wan.advertise.to_string().as_str()),
        ("127.0.0.2:8301", "127.0.0.3:8302")
    );
    assert_eq!((lan.timing.probe_interval, lan.timing.gossip_nodes), (Duration::from_secs(2), 5));
    assert_eq!(lan.timing.reconnect_timeout, Duration::from_secs(9 * 3600));
    assert!(config.gossip.is_encrypted() && !config.gossip.verify_incoming && config.gossip.rejoin_after_leave);
    assert!(!format!("{config:?}").contains("pUqJ"), "a key shows itself to nobody");

    let text = complaints(&[
        LOOPBACK,
        r#"
        encrypt = "c2hvcnQ="
        serf_wan = "here"
        gossip_lan { gossip_nodes = 0 }
        reconnect_timeout = "1h"
        retry_join_wan = ["provider=aws"]
        "#,
    ]);
    for words in [
        "encrypt is no gossip key",
        "serf_wan \"here\"",
        "gossip_lan.gossip_nodes",
        "at least 8 hours",
        "cloud auto-join",
        "only they take part in WAN gossip",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("c2hvcnQ="), "{text}");
}
