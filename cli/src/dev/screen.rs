//! What is shown: where everything is, and five things to try, each a command that works as it stands.

use std::fmt::Write;
use std::time::Duration;

use super::datacenter::Found;
use super::home::Home;
use super::plan::{Plan, SERVERS};

/// Before anything runs.
pub(super) fn starting(plan: &Plan) -> String {
    format!(
        "Starting {SERVERS} servers, a client agent, and web and api with a sidecar each ... (HTTP port {})\n",
        plan.http
    )
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
         ACLs are on and deny by default. The HTTP API uses a management token for requests without one\n\
         (acl.tokens.default, in the file management-token there), so you need none. Keep it on this machine.\n\n\
         Try, in another terminal:\n",
        took.as_secs_f64(),
        servers.join(", "),
        home.path().display(),
    );
    for (at, (what, command)) in (1..).zip(things_to_try(plan)) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {at}. {what}\n     {command}\n");
    }
    let _ = write!(text, "\n     Allow it again:\n     {}\n", set_intention(plan, "allow"));
    if !found.allowed {
        text.push_str(
            "\nAn intention kept in this data directory denies web -> api: call 4 is refused until you allow it.\n",
        );
    }
    text
}

/// What each is, and the command.
fn things_to_try(plan: &Plan) -> [(&'static str, String); 5] {
    let Plan { http, dns, web, .. } = plan;
    let key = format!("http://127.0.0.1:{http}/v1/kv/greeting");
    let call = format!("curl http://127.0.0.1:{web}/api");
    [
        ("Who is in the catalog?", format!("curl http://127.0.0.1:{http}/v1/catalog/services?pretty")),
        ("Where is web, by DNS?", format!("dig @127.0.0.1 -p {dns} web.service.consul SRV")),
        ("Write a key and read it back", format!("curl -X PUT -d hello {key} && echo && curl {key}?raw")),
        ("Call api from web, through both sidecars, over mutual TLS", call.clone()),
        ("Deny that call, and see it refused", format!("{} && echo && sleep 1 && {call}", set_intention(plan, "deny"))),
    ]
    .map(|(what, command)| (what, quote_queries(&command)))
}

/// The command that makes the intention from `web` to `api`.
fn set_intention(plan: &Plan, action: &str) -> String {
    let url = format!("http://127.0.0.1:{}/v1/connect/intentions/exact?source=web&destination=api", plan.http);
    quote_queries(&format!("curl -X PUT -d '{{\"Action\":\"{action}\"}}' {url}"))
}

/// Puts URLs with a query into quotes: shells have their own ideas of `?` and `&`.
fn quote_queries(command: &str) -> String {
    let words = command.split(' ').map(|word| match word.contains('?') && !word.starts_with('\'') {
        true => format!("'{word}'"),
        false => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
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
            "curl -X PUT -d '{\"Action\":\"deny\"}' 'http://127.0.0.1:9500/v1/connect/intentions/exact?source=web&destination=api' && echo && sleep 1 && curl http://127.0.0.1:10090/api\n",
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
