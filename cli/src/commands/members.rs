//! `lictor members`: who is in the cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};
use crate::table::{LIST_GAP, columns};

const PATH: &str = "/v1/agent/members";
/// The exit code when nobody matches, as Consul's.
const NOBODY: u8 = 2;

/// Which members, and how to show them.
#[derive(Args, Default)]
pub(crate) struct MembersFlags {
    /// All tags instead of the usual columns.
    #[arg(long)]
    detailed: bool,
    /// The servers of all datacenters, as a server knows them.
    #[arg(long)]
    wan: bool,
    /// Only members that are so: alive, leaving, left, failed; several with `|` between them.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only members that this expression holds for, for example 'Tags.role == consul'.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    name: String,
    addr: String,
    port: u16,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    status: u8,
}

impl Row {
    fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }

    fn is_server(&self) -> bool {
        self.tag("role") == "consul"
    }

    fn address(&self) -> String {
        match self.addr.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, self.port).to_string(),
            Err(_) => format!("{}:{}", self.addr, self.port),
        }
    }

    fn status(&self) -> &'static str {
        match self.status {
            1 => "alive",
            2 => "leaving",
            3 => "left",
            4 => "failed",
            _ => "none",
        }
    }

    fn cells(&self) -> [String; 9] {
        let kind = match self.tag("role") {
            "consul" => "server",
            "node" => "client",
            _ => "unknown",
        };
        let segment = match self.tag("segment") {
            _ if self.is_server() => "<all>",
            "" => "<default>",
            segment => segment,
        };
        let partition = match self.tag("ap") {
            "" => "default",
            partition => partition,
        };
        let build = self.tag("build").split(':').next().unwrap_or_default();
        let (address, status) = (self.address(), self.status());
        [&self.name, &address, status, kind, build, self.tag("vsn"), self.tag("dc"), partition, segment]
            .map(str::to_owned)
    }
}

pub(super) async fn run(flags: MembersFlags) -> Result<Output, Failure> {
    list(&Api::connect(&flags.api)?, &flags).await
}

async fn list(api: &Api, flags: &MembersFlags) -> Result<Output, Failure> {
    let wanted = wanted(flags.status.as_deref().unwrap_or(".*"))?;
    let mut query = vec![("segment", "_all")];
    query.extend(flags.wan.then_some(("wan", "1")));
    query.extend(flags.filter.as_deref().map(|filter| ("filter", filter)));
    let (answer, _): (Value, _) = api.get(PATH, &query).await.map_err(Failure::because("Error retrieving members"))?;
    let mut members: Vec<(Row, Value)> = Vec::new();
    for member in answer.as_array().into_iter().flatten() {
        let row = Row::deserialize(member).map_err(Failure::because("Error retrieving members"))?;
        if wanted.as_ref().is_none_or(|wanted| wanted.contains(&row.status())) {
            members.push((row, member.clone()));
        }
    }
    if members.is_empty() {
        return Ok(Output::default().with_code(NOBODY));
    }
    // Servers first, then by name.
    members.sort_by(|(one, _), (other, _)| (!one.is_server(), &one.name).cmp(&(!other.is_server(), &other.name)));
    if flags.format == Format::Json {
        let members: Vec<_> = members.into_iter().map(|(_, member)| member).collect();
        return Output::json(&members, 2);
    }
    if flags.detailed {
        let mut rows = vec![["Node", "Address", "Status", "Tags"].map(str::to_owned)];
        rows.extend(members.iter().map(|(row, _)| {
            let tags: Vec<_> = row.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            [row.name.clone(), row.address(), row.status().to_owned(), tags.join(",")]
        }));
        return Ok(Output::lines(columns(&rows, LIST_GAP)));
    }
    let mut rows = vec![
        ["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment"].map(str::to_owned),
    ];
    rows.extend(members.iter().map(|(row, _)| row.cells()));
    Ok(Output::lines(columns(&rows, LIST_GAP)))
}

/// Consul takes a regular expression; its users write one word, or words with `|` between them.
fn wanted(status: &str) -> Result<Option<Vec<&'static str>>, Failure> {
    const WORDS: [&str; 5] = ["none", "alive", "leaving", "left", "failed"];
    if status == ".*" {
        return Ok(None);
    }
    let words = status.trim_start_matches('^').trim_end_matches('$').split('|');
    words
        .map(|word| {
            let known = WORDS.into_iter().find(|known| *known == word);
            known.ok_or_else(|| {
                Failure::new(format!("-status {word:?} must be one of alive, leaving, left, failed; several with |"))
            })
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    const ANSWER: &str = r#"[
        {"Name":"c1","Addr":"10.0.0.9","Port":8301,"Status":4,"Tags":{"role":"node","dc":"dc1","vsn":"2","build":"1.21.4:abc","segment":""}},
        {"Name":"s1","Addr":"::1","Port":8301,"Status":1,"Tags":{"role":"consul","dc":"dc1","vsn":"2","build":"1.21.4"}}]"#;

    async fn listed(flags: MembersFlags) -> Result<Output, Failure> {
        let fake = Fake::answering(&[("GET /v1/agent/members?segment=%5Fall", 200, ANSWER)]).await;
        list(&fake.api(), &flags).await
    }

    fn text(output: Output) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    #[tokio::test]
    async fn members_are_listed_in_consuls_columns_servers_first() {
        assert_eq!(
            text(listed(MembersFlags::default()).await.unwrap()),
            "Node  Address        Status  Type    Build   Protocol  DC   Partition  Segment\n\
             s1    [::1]:8301     alive   server  1.21.4  2         dc1  default    <all>\n\
             c1    10.0.0.9:8301  failed  client  1.21.4  2         dc1  default    <default>\n"
        );
    }

    #[tokio::test]
    async fn a_status_that_nobody_has_is_the_exit_code_2_and_an_unknown_one_an_error() {
        let status = |status: &str| MembersFlags { status: Some(status.into()), ..MembersFlags::default() };
        assert_eq!(listed(status("left")).await.unwrap(), Output::default().with_code(2));
        assert_eq!(text(listed(status("left|failed")).await.unwrap()).lines().count(), 2);
        assert!(listed(status("dead")).await.unwrap_err().to_string().contains("\"dead\" must be one of"));
    }

    #[tokio::test]
    async fn json_is_what_the_agent_said() {
        let flags = MembersFlags { format: Format::Json, ..MembersFlags::default() };
        let shown: Value = serde_json::from_str(&text(listed(flags).await.unwrap())).unwrap();
        assert_eq!(shown[0]["Name"], "s1");
        assert_eq!(shown[1]["Tags"]["build"], "1.21.4:abc");
    }
}
