//! `lictor kv export` and `import`: entries as JSON, in the form of Consul's commands of these names.

use std::path::Path;

use bytes::Bytes;
use clap::Args;
use lictor_types::KvEntry;
use lictor_types::json::base64_or_null;
use serde::{Deserialize, Serialize};

use super::{path_of, without_slash};
use crate::api::{Api, ApiFlags};
use crate::input;
use crate::output::{Failure, Output};

/// What to export.
#[derive(Args, Default)]
pub(crate) struct ExportFlags {
    /// Prefix of the keys; all without one.
    #[arg(default_value = "")]
    prefix: String,
    #[command(flatten)]
    api: ApiFlags,
}

/// What to import.
#[derive(Args, Default)]
pub(crate) struct ImportFlags {
    /// The entries as `kv export` writes them; `-` for the standard input, `@FILE` for a file.
    data: String,
    /// Put every key under this prefix.
    #[arg(long, default_value = "")]
    prefix: String,
    #[command(flatten)]
    api: ApiFlags,
}

#[derive(Deserialize, Serialize)]
struct Exported {
    key: String,
    #[serde(default)]
    flags: u64,
    #[serde(default, serialize_with = "text", deserialize_with = "base64_or_null::deserialize")]
    value: Vec<u8>,
}

/// An empty value is an empty text here, not null as in the API.
fn text<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if bytes.is_empty() { serializer.serialize_str("") } else { base64_or_null::serialize(bytes, serializer) }
}

pub(super) async fn export(flags: &ExportFlags) -> Result<Output, Failure> {
    let api = Api::connect(&flags.api)?;
    let path = path_of(without_slash(&flags.prefix));
    let entries: Option<Vec<KvEntry>> =
        api.find(&path, &[("recurse", "")]).await.map_err(Failure::because("Error querying Consul agent"))?;
    let exported: Vec<Exported> = entries
        .unwrap_or_default()
        .into_iter()
        .map(|KvEntry { key, flags, value, .. }| Exported { key, flags, value })
        .collect();
    Output::json(&exported, 4)
}

pub(super) async fn import(flags: &ImportFlags) -> Result<Output, Failure> {
    let data = match flags.data.as_str() {
        "-" => input::standard_input().map_err(Failure::because("Error!"))?,
        data => match data.strip_prefix('@') {
            Some(path) => input::file(Path::new(path)).map_err(Failure::because("Error!"))?,
            None => data.as_bytes().to_vec(),
        },
    };
    let entries: Vec<Exported> = serde_json::from_slice(&data).map_err(Failure::because("Cannot unmarshal data"))?;
    let api = Api::connect(&flags.api)?;
    let mut output = Output::default();
    for Exported { key, flags: number, value } in entries {
        let key = if flags.prefix.is_empty() {
            key
        } else {
            format!("{}/{}", without_slash(&flags.prefix).trim_end_matches('/'), without_slash(&key))
        };
        let number = number.to_string();
        let reply = api.client().put_bytes(&path_of(&key), &[("flags", &number)], Bytes::from(value)).await;
        match reply.map_err(Failure::because(format!("Error! Failed writing data for key {key}")))? {
            reply if reply.trim_ascii() == b"true" => output.push_line(format!("Imported: {key}").as_bytes()),
            _ => return Err(Failure::new(format!("Error! Failed writing data for key {key}"))),
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[test]
    fn what_is_exported_is_what_consul_exports() {
        let rows = [
            Exported { key: "a/b".into(), flags: 7, value: b"x".to_vec() },
            Exported { key: "c".into(), flags: 0, value: Vec::new() },
        ];
        let text = serde_json::to_string(&rows).unwrap();
        assert_eq!(text, r#"[{"key":"a/b","flags":7,"value":"eA=="},{"key":"c","flags":0,"value":""}]"#);
        let read: Vec<Exported> = serde_json::from_str(&text).unwrap();
        assert_eq!((read[0].value.as_slice(), read[1].value.as_slice()), (&b"x"[..], &b""[..]));
    }

    #[tokio::test]
    async fn an_import_says_each_key_and_stops_at_the_first_that_is_not_taken() {
        let fake = Fake::answering(&[("PUT /v1/kv/p/a?flags=7", 200, "true")]).await;
        let flags = |data: &str| ImportFlags { data: data.into(), prefix: "p/".into(), api: fake.flags() };
        let done = import(&flags(r#"[{"key":"a","flags":7,"value":"eA=="}]"#)).await.unwrap();
        assert_eq!((done.bytes, fake.last_body()), (b"Imported: p/a\n".to_vec(), "x".to_owned()));
        let failed = import(&flags(r#"[{"key":"b","flags":0,"value":""}]"#)).await.unwrap_err();
        assert!(failed.to_string().starts_with("Error! Failed writing data for key p/b"), "{failed}");
        assert!(import(&flags("x")).await.unwrap_err().to_string().starts_with("Cannot unmarshal data"));
    }
}
