//! `lictor config`: config entries.

use clap::{Args, Subcommand};
use lictor_client::encode_path;
use serde_json::Value;

use crate::api::{Api, ApiFlags};
use crate::input::{self, text_field};
use crate::output::{Failure, Output};

/// What to do with config entries.
#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Removes an entry
    Delete(DeleteFlags),
    /// Lists the names of a kind's entries
    List(ListFlags),
    /// Shows an entry
    Read(ReadFlags),
    /// Writes an entry
    Write(WriteFlags),
}

/// Which entry, and when.
#[derive(Args, Default)]
pub(crate) struct DeleteFlags {
    /// Kind of the entry, for example service-intentions.
    #[arg(long, default_value = "")]
    kind: String,
    /// Name of the entry.
    #[arg(long, default_value = "")]
    name: String,
    /// File with the entry in HCL or JSON, instead of its kind and name; `-` for the standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "name"])]
    filename: Option<String>,
    /// Only if the entry is still at -modify-index.
    #[arg(long)]
    cas: bool,
    /// The index for -cas.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    modify_index: u64,
    #[command(flatten)]
    api: ApiFlags,
}

/// Of which kind.
#[derive(Args, Default)]
pub(crate) struct ListFlags {
    /// Kind of the entries, for example service-intentions.
    #[arg(long)]
    kind: String,
    /// Only the entries that satisfy this expression.
    #[arg(long, default_value = "")]
    filter: String,
    #[command(flatten)]
    api: ApiFlags,
}

/// Which entry.
#[derive(Args)]
pub(crate) struct ReadFlags {
    /// Kind of the entry, for example service-intentions.
    #[arg(long)]
    kind: String,
    /// Name of the entry.
    #[arg(long)]
    name: String,
    #[command(flatten)]
    api: ApiFlags,
}

/// What to write, and when.
#[derive(Args, Default)]
pub(crate) struct WriteFlags {
    /// File with the entry in HCL or JSON, `-` for the standard input.
    #[arg(value_name = "FILE")]
    source: String,
    /// Only if the entry is still at -modify-index; 0 is an entry that is not there.
    #[arg(long)]
    cas: bool,
    /// The index for -cas.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    modify_index: u64,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn run(command: ConfigCommand) -> Result<Output, Failure> {
    match command {
        ConfigCommand::Delete(flags) => delete(&Api::connect(&flags.api)?, &flags).await,
        ConfigCommand::List(flags) => list(&Api::connect(&flags.api)?, &flags).await,
        ConfigCommand::Read(flags) => read(&Api::connect(&flags.api)?, &flags.kind, &flags.name).await,
        ConfigCommand::Write(flags) => write(&Api::connect(&flags.api)?, &flags).await,
    }
}

/// The name of an entry; of these two kinds there is one, which need not be said.
fn name_of(entry: &Value) -> &str {
    match (text_field(entry, "Name"), text_field(entry, "Kind")) {
        ("", "proxy-defaults") => "global",
        ("", "mesh") => "mesh",
        (name, _) => name,
    }
}

fn path_of(kind: &str, name: &str) -> String {
    format!("/v1/config/{}/{}", encode_path(kind), encode_path(name))
}

async fn read(api: &Api, kind: &str, name: &str) -> Result<Output, Failure> {
    let failed = Failure::because(format!("Error reading config entry {kind}/{name}"));
    let (entry, _): (Value, _) = api.get(&path_of(kind, name), &[]).await.map_err(failed)?;
    Output::json(&entry, 4)
}

async fn list(api: &Api, flags: &ListFlags) -> Result<Output, Failure> {
    let kind = &flags.kind;
    let failed = Failure::because(format!("Error listing config entries for kind {kind:?}"));
    let query = [("filter", flags.filter.as_str())];
    let query = if flags.filter.is_empty() { &[] } else { &query[..] };
    let (entries, _): (Vec<Value>, _) =
        api.get(&format!("/v1/config/{}", encode_path(kind)), query).await.map_err(failed)?;
    Ok(Output::lines(entries.iter().map(name_of)))
}

async fn write(api: &Api, flags: &WriteFlags) -> Result<Output, Failure> {
    let entry = input::structured(&flags.source).map_err(Failure::because("Failed to load data"))?;
    let (kind, name) = (text_field(&entry, "Kind"), name_of(&entry));
    if kind.is_empty() {
        return Err(Failure::new(
            "Failed to decode config entry input: Payload does not contain a kind/Kind key at the top level",
        ));
    }
    let index = flags.modify_index.to_string();
    let query = [("cas", index.as_str())];
    let query = if flags.cas { &query[..] } else { &[] };
    let failed = Failure::because(format!("Error writing config entry {kind}/{name}"));
    let written: bool = api.client().put_json("/v1/config", query, &entry).await.map_err(failed)?;
    if !written {
        return Err(Failure::new(format!("Config entry not updated: {kind}/{name}")));
    }
    Ok(Output::line(format!("Config entry written: {kind}/{name}")))
}

async fn delete(api: &Api, flags: &DeleteFlags) -> Result<Output, Failure> {
    let entry = flags.filename.as_deref().map(input::structured).transpose();
    let (kind, name) = match &entry.map_err(Failure::because("Failed to load data"))? {
        Some(entry) => (text_field(entry, "Kind").to_owned(), name_of(entry).to_owned()),
        None => (flags.kind.clone(), flags.name.clone()),
    };
    if kind.is_empty() || name.is_empty() {
        return Err(Failure::new("Must specify the -kind and -name of the entry, or a -filename that holds them"));
    }
    let index = flags.modify_index.to_string();
    let query = [("cas", index.as_str())];
    let query = if flags.cas { &query[..] } else { &[] };
    let failed = Failure::because(format!("Error deleting config entry {kind}/{name}"));
    let reply = api.client().delete(&path_of(&kind, &name), query).await.map_err(failed)?;
    if flags.cas && reply.trim_ascii() != b"true" {
        return Err(Failure::new(format!("Config entry not deleted: {kind}/{name}")));
    }
    Ok(Output::line(format!("Config entry deleted: {kind}/{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    fn text(output: Output) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    fn of_kind(kind: &str, filter: &str) -> ListFlags {
        ListFlags { kind: kind.into(), filter: filter.into(), ..ListFlags::default() }
    }

    #[tokio::test]
    async fn an_entry_of_which_there_is_one_has_its_name_without_saying_it() {
        let fake = Fake::answering(&[
            ("PUT /v1/config", 200, "true"),
            ("GET /v1/config/mesh", 200, r#"[{"Kind":"mesh","TransparentProxy":{}}]"#),
        ])
        .await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mesh.hcl");
        std::fs::write(&file, "Kind = \"mesh\"\n").unwrap();
        let flags = WriteFlags { source: file.to_str().unwrap().into(), ..WriteFlags::default() };
        assert_eq!(text(write(&fake.api(), &flags).await.unwrap()), "Config entry written: mesh/mesh\n");
        assert_eq!(text(list(&fake.api(), &of_kind("mesh", "")).await.unwrap()), "mesh\n");
    }

    #[tokio::test]
    async fn an_entry_is_written_shown_listed_and_removed() {
        let fake = Fake::answering(&[
            ("PUT /v1/config", 200, "true"),
            ("PUT /v1/config?cas=4", 200, "false"),
            ("GET /v1/config/service-intentions/api", 200, r#"{"Kind":"service-intentions","Name":"api"}"#),
            ("GET /v1/config/service-intentions", 200, r#"[{"Name":"api"},{"Name":"web"}]"#),
            ("GET /v1/config/service-defaults?filter=Protocol%20%3D%3D%20tcp", 200, r#"[{"Name":"db"}]"#),
            ("DELETE /v1/config/service-intentions/api", 200, "{}"),
            ("DELETE /v1/config/service-intentions/api?cas=4", 200, "false"),
        ])
        .await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("api.hcl");
        std::fs::write(&file, "Kind = \"service-intentions\"\nName = \"api\"\n").unwrap();
        let mut flags = WriteFlags { source: file.to_str().unwrap().into(), ..WriteFlags::default() };
        let written = text(write(&fake.api(), &flags).await.unwrap());
        assert_eq!(written, "Config entry written: service-intentions/api\n");
        (flags.cas, flags.modify_index) = (true, 4);
        let late = write(&fake.api(), &flags).await.unwrap_err().to_string();
        assert_eq!(late, "Config entry not updated: service-intentions/api");

        let shown = text(read(&fake.api(), "service-intentions", "api").await.unwrap());
        assert_eq!(shown, "{\n    \"Kind\": \"service-intentions\",\n    \"Name\": \"api\"\n}\n");
        assert_eq!(text(list(&fake.api(), &of_kind("service-intentions", "")).await.unwrap()), "api\nweb\n");
        let chosen = list(&fake.api(), &of_kind("service-defaults", "Protocol == tcp")).await.unwrap();
        assert_eq!(text(chosen), "db\n");

        let mut flags = DeleteFlags { kind: "service-intentions".into(), name: "api".into(), ..DeleteFlags::default() };
        let removed = text(delete(&fake.api(), &flags).await.unwrap());
        assert_eq!(removed, "Config entry deleted: service-intentions/api\n");
        (flags.cas, flags.modify_index) = (true, 4);
        let late = delete(&fake.api(), &flags).await.unwrap_err().to_string();
        assert_eq!(late, "Config entry not deleted: service-intentions/api");
        let of_file = DeleteFlags { filename: Some(file.to_str().unwrap().into()), ..DeleteFlags::default() };
        let removed = text(delete(&fake.api(), &of_file).await.unwrap());
        assert_eq!(removed, "Config entry deleted: service-intentions/api\n");
        assert!(delete(&fake.api(), &DeleteFlags::default()).await.is_err());
    }
}
