//! Damaged configurations, read to their end or to everything that is wrong with them.

use lictor_fuzz::{Target, outcome};

use super::*;

const LOOPBACK: &str = r#"bind_addr = "127.0.0.1" data_dir = "/data""#;

#[test]
fn fuzz_configurations() {
    let seeds = [
        "server = true\nbootstrap_expect = 3\nports { http = 8500 dns = -1 }\n",
        "service { name = \"web\" port = 80 tags = [\"v1\", \"v2\"] check { ttl = \"10s\" } }\n",
        "services = [{ name = \"a\" }, { name = \"b\", checks = [{ http = \"http://127.0.0.1/\", interval = \"5s\" }] }]\n",
        "dns_config { service_ttl { \"*\" = \"5s\" } soa { min_ttl = 60 } } recursors = [\"10.0.0.1:53\"]\n",
        "acl = { enabled = true, tokens { agent = \"${x}\" } } # comment\n/* another */ encrypt = <<EOT\ntext\nEOT\n",
        "{\"node_meta\": {\"a\": \"\\u00e9\"}, \"limits\": {\"rpc_rate\": 0.5}}",
    ];
    let words: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b"=",
        b",",
        b"\n",
        b"\"",
        b"\\",
        b"${",
        b"<<-E\n",
        b"E\n",
        b"/*",
        b"*/",
        b"#",
        b"true",
        b"-1",
        b"1e9",
        b"0x10",
        b"service",
        b"check",
        b"ports",
        b"\xef\xbb\xbf",
        "\u{fc}".as_bytes(),
        b"\\u00e9",
    ];
    let target = Target {
        name: "configurations",
        seeds: seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect(),
        words,
        cases: 10_000,
    };
    target.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let parsed = hcl::parse(&text);
        if let Err(problem) = &parsed {
            assert!(!problem.is_empty(), "an error without a word");
        }
        let flags = Flags { fragments: vec![LOOPBACK.to_owned(), text.into_owned()], ..Flags::default() };
        // Letters only: places and numbers in a text would make every outcome a new one.
        let kind = |text: String| {
            text.chars().filter(|it| it.is_ascii_alphabetic() || *it == ' ').take(60).collect::<String>()
        };
        match Config::load(&flags, &Host { name: "n1".into(), ..Host::default() }) {
            Ok(config) => outcome((parsed.is_ok(), config.services.len(), config.server)),
            Err(errors) => outcome((parsed.is_ok(), kind(errors.to_string()))),
        }
    });
}
