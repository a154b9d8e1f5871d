//! A new configuration for an agent that runs: what can change changes, and what cannot is named.
//!
//! Invariants
//! - A configuration that cannot be used changes nothing.
//! - [`Agent::config`] is what is in force: what needs a restart stays there as it was at the start.
//! - A service or check whose definition is the same goes on as it is, its status too.

use std::sync::Arc;

use lictor_types::Refusal;

use crate::agent::Agent;
use crate::config::{Config, Flags, GossipEncryption, Host};
use crate::local::NodeFacts;

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The level of the log from now on, which the owner of the log sets.
    pub log_level: String,
    /// Keys whose new values need a restart.
    pub need_restart: Vec<&'static str>,
}

/// What of a configuration is fixed at the start, by key, as text to compare.
type Fixed = (&'static str, fn(&Config) -> String);

/// Everything of [`Config`] but what [`taken_over`] takes over.
const FIXED: [Fixed; 34] = [
    ("server", |it| it.server.to_string()),
    ("bootstrap_expect", |it| it.bootstrap_expect.to_string()),
    ("datacenter", |it| it.datacenter.clone()),
    ("node_name", |it| it.node_name.to_string()),
    ("node_id", |it| format!("{:?}", it.node_id)),
    ("data_dir", |it| format!("{:?}", it.data_dir)),
    ("bind_addr, client_addr, advertise_addr or addresses", |it| format!("{:?}", it.addresses)),
    ("ports", |it| format!("{:?}", it.ports)),
    ("retry_join or server_addresses", |it| format!("{:?}", it.join)),
    ("gossip_lan or another key of gossip", |it| format!("{:?}", it.gossip)),
    ("encrypt (`lictor keyring` changes keys at every member)", |it| match &it.gossip.encryption {
        GossipEncryption::Key(key) => key.expose().to_owned(),
        GossipEncryption::ByDefault | GossipEncryption::Off => String::new(),
    }),
    ("tls.internal_rpc", |it| format!("{:?}", it.rpc_tls)),
    ("tls.https", |it| format!("{:?}", it.https_tls)),
    ("acl.enabled", |it| it.acl.enabled.to_string()),
    ("acl.default_policy", |it| it.acl.default_allow.to_string()),
    ("default_intention_policy", |it| it.default_intention_allow.to_string()),
    ("domain", |it| it.dns.domain.clone()),
    ("alt_domain", |it| format!("{:?}", it.dns.alt_domain)),
    ("check_update_interval or another setting of all checks", |it| format!("{:?}", it.check_settings)),
    ("log_json", |it| it.log.json.to_string()),
    ("performance", |it| format!("{:?}", it.performance)),
    ("telemetry", |it| format!("{:?}", it.telemetry)),
    ("leave_on_terminate", |it| it.leave_on_terminate.to_string()),
    ("skip_leave_on_interrupt", |it| it.skip_leave_on_interrupt.to_string()),
    ("autopilot", |it| format!("{:?}", it.autopilot)),
    ("session_ttl_min", |it| format!("{:?}", it.session_ttl_min)),
    ("disable_coordinates", |it| it.disable_coordinates.to_string()),
    ("raft_snapshot_threshold or raft_trailing_logs", |it| format!("{:?}", it.raft)),
    ("pid_file", |it| format!("{:?}", it.pid_file)),
    ("seal_key_file", |it| format!("{:?}", it.seal_key_file)),
    ("login.kubernetes.config_file", |it| format!("{:?}", it.kubernetes_login_file)),
    ("login_token_file", |it| format!("{:?}", it.login_token_file)),
    ("dev", |it| it.dev.to_string()),
    ("acl.tokens.initial_management", |it| {
        it.acl.initial_management.as_ref().map(|token| token.secret.clone()).unwrap_or_default()
    }),
];

/// The configuration in force after `new` was read: of `old`, with what can change.
fn taken_over(old: &Config, new: Config) -> Config {
    let mut config = old.clone();
    config.node_meta = new.node_meta;
    config.locality = new.locality;
    config.services = new.services;
    config.checks = new.checks;
    config.watches = new.watches;
    config.log.level = new.log.level;
    config.acl.default_token = new.acl.default_token;
    config.acl.agent_token = new.acl.agent_token;
    config.acl.dns_token = new.acl.dns_token;
    config.acl.registration_token = new.acl.registration_token;
    let fixed = old.dns.clone();
    config.dns = new.dns;
    config.dns.domain = fixed.domain;
    config.dns.alt_domain = fixed.alt_domain;
    config.limits = new.limits;
    config.http = new.http;
    config.warnings = new.warnings;
    config
}

/// Reads the sources of `flags` again and puts into force what can change.
///
/// # Errors
/// 500 with everything that is wrong; nothing has changed.
pub async fn reload(agent: &Agent, flags: Flags, host: Host) -> Result<Reloaded, Refusal> {
    let read = tokio::task::spawn_blocking(move || Config::load(&flags, &host)).await;
    let read = read.map_err(|error| Refusal::failed(format!("the configuration was not read: {error}")))?;
    let new = read.map_err(|errors| Refusal::failed(errors.to_string()))?;
    agent.take(new).await
}

impl Agent {
    /// Puts into force what can change of this configuration.
    ///
    /// # Errors
    /// A definition in it cannot be taken; nothing has changed.
    pub async fn take(&self, new: Config) -> Result<Reloaded, Refusal> {
        let old = self.config.load_full();
        let need_restart = FIXED.iter().filter(|(_, text)| text(&old) != text(&new)).map(|(key, _)| *key).collect();
        let config = taken_over(&old, new);
        self.local.take_files(&config.services, &config.checks).await?;
        self.tokens.set(&config);
        self.local.set_node(NodeFacts::new(&config));
        let log_level = config.log.level.clone();
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        self.config.store(Arc::new(config));
        Ok(Reloaded { log_level, need_restart })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::double::{Double, agent, at};
    use lictor_types::{Answer, Credential};

    const BASE: &str = "bind_addr = \"127.0.0.1\"\ndata_dir = \"/data\"\nnode_name = \"n1\"\n";

    fn read(fragment: &str) -> Result<Config, Refusal> {
        let flags = Flags { fragments: vec![BASE.into(), fragment.into()], ..Flags::default() };
        let host = Host { name: "n1".into(), ..Host::default() };
        Config::load(&flags, &host).map_err(|errors| Refusal::failed(errors.to_string()))
    }

    fn running(fragment: &str) -> Arc<Agent> {
        agent(&Double::answering(at(1, Answer::Keys(Vec::new()))), fragment)
    }

    #[tokio::test]
    async fn what_can_change_changes_and_what_cannot_is_named_and_stays() {
        let agent = running("acl { tokens { default = \"one\" } }\nservices { name = \"web\" port = 80 }");
        let new = "acl { tokens { default = \"two\" agent = \"three\" } }\nlog_level = \"debug\"\n\
                   dns_config { node_ttl = \"7s\" }\ndomain = \"other\"\nports { http = 9500 }\n\
                   services { name = \"api\" port = 81 }";
        let reloaded = agent.take(read(new).unwrap()).await.unwrap();
        assert_eq!(reloaded.log_level.to_ascii_lowercase(), "debug");
        assert_eq!(reloaded.need_restart, ["bind_addr, client_addr, advertise_addr or addresses", "ports", "domain"]);
        assert_eq!(agent.tokens.default(), Credential::new("two"));
        assert_eq!(agent.tokens.agent(), Credential::new("three"));
        assert_eq!(agent.tokens.dns(), Credential::new("two"));
        let config = agent.config.load();
        assert_eq!((config.dns.node_ttl.as_secs(), config.dns.domain.as_str()), (7, "consul."));
        assert_eq!(config.ports.http, Some(8500));
        let names: Vec<String> = agent.local.services().into_keys().map(|id| id.to_string()).collect();
        assert_eq!(names, ["api"]);
    }

    #[tokio::test]
    async fn limits_and_what_http_adds_change_without_a_restart() {
        let agent = running("");
        let new = "limits { kv_max_value_size = 8 http_max_conns_per_client = 3 rpc_rate = 5 }\nmax_query_time = \"20s\"\n\
                   recursors = [\"10.0.0.53\"]\nhttp_config { block_endpoints = [\"/v1/kv\"] }";
        let reloaded = agent.take(read(new).unwrap()).await.unwrap();
        assert!(reloaded.need_restart.is_empty(), "{:?}", reloaded.need_restart);
        let config = agent.config.load();
        assert_eq!((config.limits.http_max_conns_per_client, config.limits.rpc_rate), (3, Some(5.0)));
        assert_eq!(config.dns.recursors.len(), 1);
        let door = crate::http::router(Arc::clone(&agent));
        let asked = http::Request::get("/v1/kv/a").body(axum::body::Body::empty()).unwrap();
        let got = tower::ServiceExt::oneshot(door, asked).await.unwrap();
        assert_eq!(got.status(), 403, "a blocked endpoint");
    }

    #[tokio::test]
    async fn what_is_told_of_the_node_changes_without_a_restart() {
        let agent = running("node_meta { rack = \"a\" }");
        assert_eq!(agent.local.node().meta["rack"], "a");
        let new = "node_meta { rack = \"b\" }\nlocality { region = \"eu\" zone = \"eu-1\" }";
        let reloaded = agent.take(read(new).unwrap()).await.unwrap();
        assert!(reloaded.need_restart.is_empty(), "{:?}", reloaded.need_restart);
        let node = agent.local.node();
        assert_eq!(node.meta["rack"], "b");
        assert!(node.meta.contains_key("consul-version"), "{:?}", node.meta);
        assert_eq!(node.locality.map(|it| (it.region, it.zone)), Some(("eu".into(), "eu-1".into())));
    }

    #[tokio::test]
    async fn a_bad_configuration_changes_nothing_and_says_why() {
        let agent = running("services { name = \"web\" port = 80 }");
        let flags = Flags { fragments: vec![BASE.into(), "no_such_key = 1".into()], ..Flags::default() };
        let host = Host { name: "n1".into(), ..Host::default() };
        let refusal = reload(&agent, flags, host).await.unwrap_err();
        assert!(refusal.text.contains("no_such_key"), "{refusal}");
        let lost = "acl { tokens { default = \"two\" } }\n\
                    checks { name = \"c\" ttl = \"10s\" service_id = \"gone\" }\nservices { name = \"api\" }";
        let refusal = agent.take(read(lost).unwrap()).await.unwrap_err();
        assert_eq!(refusal.text, "ServiceID \"gone\" does not exist");
        assert!(agent.tokens.default().is_anonymous());
        let names: Vec<String> = agent.local.services().into_keys().map(|id| id.to_string()).collect();
        assert_eq!(names, ["web"]);
    }
}
