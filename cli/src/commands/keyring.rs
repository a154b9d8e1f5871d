//! `lictor keyring`: the keys that gossip is encrypted with.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};

const PATH: &str = "/v1/operator/keyring";

/// What to do with the keys; one thing at a time.
#[derive(Args, Default)]
pub(crate) struct KeyringFlags {
    /// List the keys that are installed.
    #[arg(long)]
    list: bool,
    /// Install another key, on every member.
    #[arg(long, value_name = "KEY")]
    install: Option<String>,
    /// Encrypt with this key, which must be installed.
    #[arg(long = "use", value_name = "KEY")]
    use_key: Option<String>,
    /// Remove a key that is not the one in use.
    #[arg(long, value_name = "KEY")]
    remove: Option<String>,
    /// Members that each answer is relayed through, 5 at most.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    relay_factor: u8,
    /// With -list: ask this agent alone.
    #[arg(long)]
    local_only: bool,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// What goes over the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Key<'a> {
    key: &'a str,
}

/// The keys of one pool.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pool {
    #[serde(rename = "WAN", default)]
    wan: bool,
    datacenter: String,
    keys: BTreeMap<String, u64>,
    num_nodes: u64,
}

pub(super) async fn run(flags: KeyringFlags) -> Result<Output, Failure> {
    change(&Api::connect(&flags.api)?, &flags).await
}

async fn change(api: &Api, flags: &KeyringFlags) -> Result<Output, Failure> {
    let given = [&flags.install, &flags.use_key, &flags.remove].into_iter().flatten().count() + usize::from(flags.list);
    if given > 1 {
        return Err(Failure::new("Only a single action is allowed"));
    }
    if flags.relay_factor > 5 {
        return Err(Failure::new("Error parsing relay factor: relay factor must be in range: [0, 5]"));
    }
    if flags.local_only && !flags.list {
        return Err(Failure::new("Error validating local-only: local-only can only be set for list requests"));
    }
    let relay_factor = flags.relay_factor.to_string();
    let mut query = Vec::new();
    if flags.relay_factor > 0 {
        query.push(("relay-factor", relay_factor.as_str()));
    }
    if flags.local_only {
        query.push(("local-only", "true"));
    }
    let failed = Failure::because("error");
    let client = api.client();
    let (words, done) = match (&flags.install, &flags.use_key, &flags.remove) {
        (Some(key), ..) => {
            ("Installing new gossip encryption key...", client.post_json(PATH, &query, &Key { key }).await)
        }
        (_, Some(key), _) => {
            let done = client.put_json::<_, Value>(PATH, &query, &Key { key }).await;
            ("Changing primary gossip encryption key...", done.map(|_| bytes::Bytes::new()))
        }
        (_, _, Some(key)) => {
            ("Removing gossip encryption key...", client.delete_json(PATH, &query, &Key { key }).await)
        }
        (None, None, None) if flags.list => {
            let (answer, _): (Value, _) = api.get(PATH, &query).await.map_err(failed)?;
            if flags.format == Format::Json {
                return Output::json(&answer, 2);
            }
            let pools: Vec<Pool> = Deserialize::deserialize(answer).map_err(Failure::because("error"))?;
            return Ok(listed(&pools));
        }
        (None, None, None) => return Err(Failure::new("Say what to do: -list, -install, -use or -remove")),
    };
    done.map_err(failed)?;
    Ok(Output::line(format!("==> {words}")))
}

fn listed(pools: &[Pool]) -> Output {
    let mut output = Output::line("==> Gathering installed encryption keys...");
    for pool in pools {
        let name = if pool.wan { "WAN".to_owned() } else { format!("{} (LAN)", pool.datacenter) };
        output.push_line(b"");
        output.push_line(format!("{name}:").as_bytes());
        for (key, members) in &pool.keys {
            output.push_line(format!("  {key} [{members}/{}]", pool.num_nodes).as_bytes());
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn keys_are_listed_by_pool_and_changed_one_at_a_time() {
        let pools = r#"[{"WAN":true,"Datacenter":"dc1","Keys":{"k1":3},"NumNodes":3},
            {"WAN":false,"Datacenter":"dc1","Keys":{"k1":5,"k2":4},"NumNodes":5}]"#;
        let refusal = "1 error occurred:\n\t* dc1 (LAN) error: Keyring is empty (encryption not enabled)\n\n";
        let fake = Fake::answering(&[
            ("GET /v1/operator/keyring?local-only=true", 200, pools),
            ("POST /v1/operator/keyring?relay-factor=2", 200, ""),
            ("PUT /v1/operator/keyring", 200, ""),
            ("DELETE /v1/operator/keyring", 200, ""),
            ("GET /v1/operator/keyring", 500, refusal),
        ])
        .await;
        let key = || Some("k2".to_owned());
        let list = KeyringFlags { list: true, local_only: true, ..KeyringFlags::default() };
        let shown = change(&fake.api(), &list).await.unwrap();
        assert_eq!(
            String::from_utf8(shown.bytes).unwrap(),
            "==> Gathering installed encryption keys...\n\nWAN:\n  k1 [3/3]\n\ndc1 (LAN):\n  k1 [5/5]\n  k2 [4/5]\n"
        );
        for flags in [
            KeyringFlags { install: key(), relay_factor: 2, ..KeyringFlags::default() },
            KeyringFlags { use_key: key(), ..KeyringFlags::default() },
            KeyringFlags { remove: key(), ..KeyringFlags::default() },
        ] {
            assert!(change(&fake.api(), &flags).await.unwrap().bytes.starts_with(b"==> "));
            assert_eq!(fake.last_body(), r#"{"Key":"k2"}"#);
        }
        let api = fake.api();
        let refused = async |flags: KeyringFlags| change(&api, &flags).await.unwrap_err().to_string();
        let two = KeyringFlags { list: true, install: key(), ..KeyringFlags::default() };
        assert_eq!(refused(two).await, "Only a single action is allowed");
        let far = KeyringFlags { list: true, relay_factor: 6, ..KeyringFlags::default() };
        assert!(refused(far).await.starts_with("Error parsing relay factor"));
        let empty = refused(KeyringFlags { list: true, ..KeyringFlags::default() }).await;
        assert!(
            empty.starts_with("error: Unexpected response code: 500") && empty.contains("Keyring is empty"),
            "{empty}"
        );
    }
}
