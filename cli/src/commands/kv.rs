//! `lictor kv`: the key/value store.

mod transfer;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, Subcommand};
use lictor_client::encode_path;
use lictor_types::KvEntry;

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::input;
use crate::output::{Failure, Output};
use crate::table::{DETAIL_GAP, columns};

/// What to do with the store.
#[derive(Subcommand)]
pub(crate) enum KvCommand {
    /// Reads an entry, or everything under a prefix
    Get(GetFlags),
    /// Writes an entry
    Put(PutFlags),
    /// Removes an entry, or everything under a prefix
    Delete(DeleteFlags),
    /// Writes entries as JSON
    Export(transfer::ExportFlags),
    /// Stores entries of such JSON
    Import(transfer::ImportFlags),
}

/// What to read.
#[derive(Args, Default)]
pub(crate) struct GetFlags {
    /// Key or prefix; without one the root, with -recurse or -keys.
    #[arg(value_name = "KEY_OR_PREFIX", default_value = "")]
    key: String,
    /// Everything that begins with the prefix.
    #[arg(long)]
    recurse: bool,
    /// Only the keys that begin with the prefix.
    #[arg(long)]
    keys: bool,
    /// Also flags, indexes and session.
    #[arg(long)]
    detailed: bool,
    /// The value as base64.
    #[arg(long)]
    base64: bool,
    /// The value and nothing else, not even a new line.
    #[arg(long, conflicts_with_all = ["recurse", "keys", "detailed", "base64"])]
    raw: bool,
    /// With -keys: a key is cut after this.
    #[arg(long, default_value = "/")]
    separator: String,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    api: ApiFlags,
}

/// What to write.
#[derive(Args, Default)]
pub(crate) struct PutFlags {
    /// The key.
    key: String,
    /// The value; `-` for the standard input, `@FILE` for a file; empty without one.
    #[arg(allow_hyphen_values = true)]
    data: Option<String>,
    /// Only if the entry is still at -modify-index.
    #[arg(long)]
    cas: bool,
    /// The index for -cas.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    modify_index: u64,
    /// Take the lock of the key for -session.
    #[arg(long, requires = "session", conflicts_with_all = ["release", "cas"])]
    acquire: bool,
    /// Give the lock of the key back for -session.
    #[arg(long, requires = "session", conflicts_with = "cas")]
    release: bool,
    /// The session for -acquire and -release.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// A number for your own use, kept with the entry.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    flags: u64,
    /// The value is given as base64.
    #[arg(long)]
    base64: bool,
    #[command(flatten)]
    api: ApiFlags,
}

/// What to remove.
#[derive(Args, Default)]
pub(crate) struct DeleteFlags {
    /// Key or prefix.
    #[arg(value_name = "KEY_OR_PREFIX", default_value = "")]
    key: String,
    /// Everything that begins with the prefix.
    #[arg(long)]
    recurse: bool,
    /// Only if the entry is still at -modify-index.
    #[arg(long)]
    cas: bool,
    /// The index for -cas.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    modify_index: u64,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn run(command: KvCommand) -> Result<Output, Failure> {
    match command {
        KvCommand::Get(flags) => get(&Api::connect(&flags.api)?, &flags).await,
        KvCommand::Put(flags) => put(&Api::connect(&flags.api)?, &flags).await,
        KvCommand::Delete(flags) => delete(&Api::connect(&flags.api)?, &flags).await,
        KvCommand::Export(flags) => transfer::export(&flags).await,
        KvCommand::Import(flags) => transfer::import(&flags).await,
    }
}

/// Keys do not begin with a slash, people's do.
fn without_slash(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

fn path_of(key: &str) -> String {
    format!("/v1/kv/{}", encode_path(key))
}

async fn get(api: &Api, flags: &GetFlags) -> Result<Output, Failure> {
    let key = without_slash(&flags.key);
    if key.is_empty() && !flags.recurse && !flags.keys {
        return Err(Failure::new("Error! Missing KEY argument"));
    }
    let failed = || Failure::because("Error querying Consul agent");
    if flags.keys {
        let query = [("keys", ""), ("separator", flags.separator.as_str())];
        let keys: Option<Vec<String>> = api.find(&path_of(key), &query).await.map_err(failed())?;
        if flags.format == Format::Json {
            return Output::json(&keys.unwrap_or_default(), 2);
        }
        return Ok(Output::lines(keys.unwrap_or_default()));
    }
    if flags.recurse {
        let entries: Option<Vec<KvEntry>> = api.find(&path_of(key), &[("recurse", "")]).await.map_err(failed())?;
        let entries = entries.unwrap_or_default();
        return if flags.format == Format::Json { Output::json(&entries, 2) } else { Ok(tree(&entries, flags)) };
    }
    let entries: Option<Vec<KvEntry>> = api.find(&path_of(key), &[]).await.map_err(failed())?;
    let Some(entry) = entries.unwrap_or_default().pop() else {
        return Err(Failure::new(format!("Error! No key exists at: {key}")));
    };
    if flags.format == Format::Json {
        return Output::json(&entry, 2);
    }
    let mut output = Output::default();
    if flags.raw {
        output.bytes = entry.value;
    } else if flags.detailed {
        details(&mut output, &entry, flags.base64);
    } else {
        output.push_line(&shown(&entry, flags.base64));
    }
    Ok(output)
}

fn tree(entries: &[KvEntry], flags: &GetFlags) -> Output {
    let mut output = Output::default();
    for (position, entry) in entries.iter().enumerate() {
        if flags.detailed {
            if position > 0 {
                output.push_line(b"");
            }
            details(&mut output, entry, flags.base64);
        } else {
            output.push_line(&[entry.key.as_bytes(), b":", &shown(entry, flags.base64)].concat());
        }
    }
    output
}

fn shown(entry: &KvEntry, base64: bool) -> Vec<u8> {
    if base64 { STANDARD.encode(&entry.value).into_bytes() } else { entry.value.clone() }
}

fn details(output: &mut Output, entry: &KvEntry, base64: bool) {
    let session = entry.session.clone().unwrap_or_else(|| "-".into());
    let rows = [
        ("CreateIndex", entry.create_index.0.to_string()),
        ("Flags", entry.flags.to_string()),
        ("Key", entry.key.clone()),
        ("LockIndex", entry.lock_index.to_string()),
        ("ModifyIndex", entry.modify_index.0.to_string()),
        ("Session", session),
    ];
    for line in columns(&rows.map(|(name, value)| [name.to_owned(), value]), DETAIL_GAP) {
        output.push_line(line.as_bytes());
    }
    // The value may be any bytes, so it stands beside the table, as wide as it: under "ModifyIndex".
    let name = format!("{:width$}", "Value", width = "ModifyIndex".len() + DETAIL_GAP);
    output.push_line(&[name.as_bytes(), &shown(entry, base64)].concat());
}

async fn put(api: &Api, flags: &PutFlags) -> Result<Output, Failure> {
    let key = without_slash(&flags.key);
    if key.is_empty() {
        return Err(Failure::new("Error! Missing KEY argument"));
    }
    if flags.cas && flags.modify_index == 0 {
        return Err(Failure::new("Must specify -modify-index with -cas!"));
    }
    let mut value = match flags.data.as_deref() {
        None => Vec::new(),
        Some("-") => input::standard_input().map_err(Failure::because("Error!"))?,
        Some(data) => match data.strip_prefix('@') {
            Some(path) => input::file(Path::new(path)).map_err(Failure::because("Error!"))?,
            None => data.as_bytes().to_vec(),
        },
    };
    if flags.base64 {
        value = STANDARD.decode(value.trim_ascii()).map_err(Failure::because("Error! Cannot base 64 decode data"))?;
    }
    let (index, number) = (flags.modify_index.to_string(), flags.flags.to_string());
    let mut query = Vec::new();
    if flags.cas {
        query.push(("cas", index.as_str()));
    }
    if flags.flags != 0 {
        query.push(("flags", number.as_str()));
    }
    let session = flags.session.as_deref().unwrap_or_default();
    for (name, _) in [("acquire", flags.acquire), ("release", flags.release)].iter().filter(|it| it.1) {
        query.push((*name, session));
    }
    let failed = format!("Error! Did not write to {key}");
    let reply = api.client().put_bytes(&path_of(key), &query, Bytes::from(value)).await.map_err(|error| {
        if flags.cas { Failure::because(&failed)(error) } else { Failure::because("Error! Failed writing data")(error) }
    })?;
    if reply.trim_ascii() == b"true" {
        Ok(Output::line(match (flags.acquire, flags.release) {
            (true, _) => format!("Success! Lock acquired on: {key}"),
            (_, true) => format!("Success! Lock released on: {key}"),
            _ => format!("Success! Data written to: {key}"),
        }))
    } else if flags.acquire {
        Err(Failure::new("Error! Did not acquire lock"))
    } else if flags.release {
        Err(Failure::new("Error! Did not release lock"))
    } else {
        Err(Failure::new(format!("{failed}: CAS failed")))
    }
}

async fn delete(api: &Api, flags: &DeleteFlags) -> Result<Output, Failure> {
    let key = without_slash(&flags.key);
    if key.is_empty() && !flags.recurse {
        return Err(Failure::new("Error! Missing KEY argument"));
    }
    if flags.cas && flags.modify_index == 0 {
        return Err(Failure::new(
            "Cannot delete a key that does not exist. Provide a -modify-index greater than than 0.",
        ));
    }
    if flags.modify_index != 0 && !flags.cas {
        return Err(Failure::new("Cannot specify -modify-index without -cas!"));
    }
    if flags.recurse && flags.cas {
        return Err(Failure::new("Cannot specify both -cas and -recurse!"));
    }
    let index = flags.modify_index.to_string();
    let mut query = Vec::new();
    if flags.cas {
        query.push(("cas", index.as_str()));
    }
    if flags.recurse {
        query.push(("recurse", ""));
    }
    let what = if flags.recurse { "prefix" } else { "key" };
    let failed = format!("Error! Did not delete {what} {key}");
    let reply = api.client().delete(&path_of(key), &query).await.map_err(Failure::because(&failed))?;
    if reply.trim_ascii() != b"true" {
        return Err(Failure::new(format!("{failed}: CAS failed")));
    }
    Ok(Output::line(if flags.recurse {
        format!("Success! Deleted keys with prefix: {key}")
    } else {
        format!("Success! Deleted key: {key}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    const ENTRY: &str = r#"[{"LockIndex":0,"Key":"a","Flags":7,"Value":"YjpjCg==","CreateIndex":3,"ModifyIndex":14}]"#;

    fn text(output: Output) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    #[tokio::test]
    async fn a_value_is_shown_in_each_form() {
        let fake = Fake::answering(&[("GET /v1/kv/a", 200, ENTRY)]).await;
        let flags = |change: fn(&mut GetFlags)| {
            let mut flags = GetFlags { key: "/a".into(), ..GetFlags::default() };
            change(&mut flags);
            flags
        };
        for (flags, shown) in [
            (flags(|_| {}), "b:c\n\n"),
            (flags(|it| it.raw = true), "b:c\n"),
            (flags(|it| it.base64 = true), "YjpjCg==\n"),
            (
                flags(|it| (it.detailed, it.base64) = (true, true)),
                "CreateIndex      3\nFlags            7\nKey              a\nLockIndex        0\nModifyIndex      14\n\
                 Session          -\nValue            YjpjCg==\n",
            ),
        ] {
            assert_eq!(text(get(&fake.api(), &flags).await.unwrap()), shown);
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_an_error_for_a_key_and_nothing_for_a_prefix() {
        let fake = Fake::answering(&[]).await;
        let one = GetFlags { key: "no".into(), ..GetFlags::default() };
        assert_eq!(get(&fake.api(), &one).await.unwrap_err().to_string(), "Error! No key exists at: no");
        let under = GetFlags { key: "no".into(), recurse: true, ..GetFlags::default() };
        assert_eq!(get(&fake.api(), &under).await.unwrap(), Output::default());
        assert_eq!(
            get(&fake.api(), &GetFlags::default()).await.unwrap_err().to_string(),
            "Error! Missing KEY argument"
        );
    }

    #[tokio::test]
    async fn a_put_says_what_it_did_or_that_another_was_first() {
        let fake =
            Fake::answering(&[("PUT /v1/kv/a/b%20c?flags=7", 200, "true"), ("PUT /v1/kv/a?cas=3", 200, "false")]).await;
        let set = PutFlags { key: "/a/b c".into(), data: Some("-5".into()), flags: 7, ..PutFlags::default() };
        assert_eq!(text(put(&fake.api(), &set).await.unwrap()), "Success! Data written to: a/b c\n");
        assert_eq!(fake.last_body(), "-5");
        let mut cas = PutFlags { key: "a".into(), cas: true, ..PutFlags::default() };
        assert_eq!(put(&fake.api(), &cas).await.unwrap_err().to_string(), "Must specify -modify-index with -cas!");
        cas.modify_index = 3;
        assert_eq!(put(&fake.api(), &cas).await.unwrap_err().to_string(), "Error! Did not write to a: CAS failed");
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_status_and_without_the_token() {
        let fake = Fake::answering(&[("DELETE /v1/kv/a", 403, "Permission denied")]).await;
        let flags = DeleteFlags { key: "a".into(), ..DeleteFlags::default() };
        assert_eq!(
            delete(&fake.api(), &flags).await.unwrap_err().to_string(),
            "Error! Did not delete key a: Unexpected response code: 403 (Permission denied)"
        );
    }
}
