//! What is shown: where everything is, and five things to try, each a command that works as it stands.

use std::fmt::Write;
use std::time::Duration;

use super::datacenter::Found;
use super::home::Home;
use super::plan::{Plan, SERVERS};

/// Before anything runs.
pub(super) fn starting() -> String {
    format!("Starting {SERVERS} servers, a client agent, and the services web and api with a sidecar each ...\n")
}

/// When everything is ready.
pub(super) fn ready(plan: &Plan, home: &Home, found: &Found, took: Duration) -> String {
    let Plan { servers, http, dns, web, api, upstream, web_inbound, api_inbound } = plan;
    let servers: Vec<String> = servers
        .iter()
        .map(|port| {
            let address = format!("127.0.0.1:{port}");
            if address == found.leader { format!("{address} (leader)") } else { address }
        })
        .collect();
    let kept = if home.is_temporary() { "removed at the end" } else { "kept" };
    let mut text = format!(
        "Ready in {:.2} s. Ctrl-C stops everything.\n\n\
         \x20 HTTP API  http://127.0.0.1:{http}\n\
         \x20 DNS       127.0.0.1:{dns}\n\
         \x20 servers   {}\n\
         \x20 web       http://127.0.0.1:{web}  sidecar 127.0.0.1:{web_inbound}, calls api at 127.0.0.1:{upstream}\n\
         \x20 api       http://127.0.0.1:{api}  sidecar 127.0.0.1:{api_inbound}\n\
         \x20 data      {} ({kept})\n\n\
         ACLs are on, with default deny. The HTTP API uses a management token for requests that bring none\n\
         (its acl.tokens.default, from the file management-token there), so these commands need none.\n\n\
         Try, in another terminal:\n",
        took.as_secs_f64(),
        servers.join(", "),
        home.path().display(),
    );
    for (at, (what, commands)) in (1..).zip(things_to_try(plan)) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {at}. {what}\n     {}\n", commands.join("\n     "));
    }
    let _ = writeln!(text, "     (allow it again: the same with \"allow\")");
    if !found.allowed {
        text.push_str(
            "\nAn intention kept in this data directory denies web -> api: it is refused until you allow it.\n",
        );
    }
    text
}

/// What each is, and its commands.
fn things_to_try(plan: &Plan) -> [(&'static str, Vec<String>); 5] {
    let Plan { http, dns, web, .. } = plan;
    let api = format!("http://127.0.0.1:{http}/v1");
    let call = format!("curl http://127.0.0.1:{web}/api");
    // URLs with a query stand in quotes: shells have their own ideas of `?` and `&`. Answers without a line's end get one.
    [
        ("Who is in the catalog?", vec![format!("curl '{api}/catalog/services?pretty'")]),
        ("Where is web, by DNS?", vec![format!("dig @127.0.0.1 -p {dns} web.service.consul SRV")]),
        (
            "Write a key and read it back.",
            vec![
                format!("curl -X PUT -d hello {api}/kv/greeting; echo"),
                format!("curl '{api}/kv/greeting?raw'; echo"),
            ],
        ),
        ("Let web call api: through both sidecars, over mutual TLS.", vec![call.clone()]),
        (
            "Deny that call, and see it refused.",
            vec![
                format!(
                    "curl -X PUT -d '{{\"Action\":\"deny\"}}' \
                     '{api}/connect/intentions/exact?source=web&destination=api'; echo"
                ),
                call,
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use lictor_runtime::SystemRng;

    use super::*;

    #[test]
    fn every_address_follows_the_plan_and_the_leader_is_marked() {
        let home = Home::open(None, 0, &SystemRng).unwrap();
        let plan = Plan::new(1000, None, None);
        let found = Found { leader: "127.0.0.1:9310".into(), allowed: true };
        let text = ready(&plan, &home, &found, Duration::from_millis(1234));
        for shown in [
            "Ready in 1.23 s.",
            "http://127.0.0.1:9500\n",
            "127.0.0.1:9300, 127.0.0.1:9310 (leader), 127.0.0.1:9320",
            "curl 'http://127.0.0.1:9500/v1/catalog/services?pretty'\n",
            "dig @127.0.0.1 -p 9600 web.service.consul SRV\n",
            "curl http://127.0.0.1:10090/api\n",
            "curl -X PUT -d '{\"Action\":\"deny\"}' \
             'http://127.0.0.1:9500/v1/connect/intentions/exact?source=web&destination=api'; echo\n",
            "(removed at the end)",
        ] {
            assert!(text.contains(shown), "{shown:?} is not in:\n{text}");
        }
        assert!(!text.contains(home.token()) && !text.contains("denies web"), "{text}");
        let denied = Found { allowed: false, ..found };
        assert!(ready(&plan, &home, &denied, Duration::ZERO).contains("denies web -> api"));
        home.leave().unwrap();
    }
}
