//! `lictor snapshot`: saves the state of the servers to a file, restores it, and says what is in such a file.

mod decode;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures_util::stream;
use lictor_server::archive::container::{self, Contents};
use serde_json::{Value, json};

use super::Format;
use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};
use crate::table::{DETAIL_GAP, columns};

/// Bytes that are read and sent at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Between two figures on the screen.
const FIGURE_EVERY_BYTES: u64 = 4 * 1024 * 1024;
/// What a file is called until it was verified.
const UNVERIFIED: &str = "unverified";

/// What to do with snapshots.
#[derive(Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Saves the state of the servers to a file
    Save(SaveFlags),
    /// Replaces the state of the servers by that of a file
    Restore(RestoreFlags),
    /// Says what is in a file
    Inspect(InspectFlags),
    /// Prints the rows of a file as JSON, secrets excepted
    Decode(DecodeFlags),
}

/// Where to.
#[derive(Args)]
pub(crate) struct SaveFlags {
    /// The file to write.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What of the agent to put into the file's name, before its extension: version, dc, node, status, with commas between.
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    append_filename: Vec<Appended>,
    #[command(flatten)]
    api: ApiFlags,
}

/// What of an agent may stand in the name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Appended {
    /// The version of Consul that it speaks as.
    Version,
    /// Its datacenter.
    Dc,
    /// Its node.
    Node,
    /// Whether it leads: `leader` or `follower`.
    Status,
}

/// Where from.
#[derive(Args)]
pub(crate) struct RestoreFlags {
    /// The file to read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    api: ApiFlags,
}

/// Which file.
#[derive(Args)]
pub(crate) struct InspectFlags {
    /// The file to read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Also how much room keys of the store take, by what they begin with.
    #[arg(long)]
    kvdetails: bool,
    /// With -kvdetails: so many parts of a key count as its beginning.
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    kvdepth: usize,
    /// With -kvdetails: only keys that begin so.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    kvfilter: String,
}

/// Which file.
#[derive(Args)]
pub(crate) struct DecodeFlags {
    /// The file to read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn run(command: SnapshotCommand) -> Result<Output, Failure> {
    match command {
        SnapshotCommand::Save(flags) => {
            let api = Api::connect(&flags.api)?;
            let file = named(&api, flags.file, &flags.append_filename).await?;
            save(&api, &file).await
        }
        SnapshotCommand::Restore(flags) => restore(&Api::connect(&flags.api)?, &flags.file).await,
        SnapshotCommand::Inspect(flags) => inspect(&flags),
        SnapshotCommand::Decode(flags) => decode::decode(&flags.file),
    }
}

/// How far it is, on the screen only.
struct Progress {
    verb: &'static str,
    total: Option<u64>,
    done: u64,
    shown: u64,
    screen: bool,
}

impl Progress {
    fn new(verb: &'static str, total: Option<u64>) -> Self {
        Self { verb, total, done: 0, shown: 0, screen: io::stderr().is_terminal() }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.screen && self.done - self.shown >= FIGURE_EVERY_BYTES {
            self.shown = self.done;
            let total = self.total.map_or_else(String::new, |total| format!(" of {}", byte_size(total)));
            eprint!("\r{} {}{total} ", self.verb, byte_size(self.done));
        }
    }

    fn end(&self) {
        if self.shown > 0 {
            eprint!("\r\x1b[K");
        }
    }
}

/// The name of the file with what the agent says of itself.
async fn named(api: &Api, file: PathBuf, appended: &[Appended]) -> Result<PathBuf, Failure> {
    if appended.is_empty() {
        return Ok(file);
    }
    let (agent, _): (Value, _) =
        api.get("/v1/agent/self", &[]).await.map_err(Failure::because("Error querying agent"))?;
    let text = |pointer: &str| agent.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    for what in appended {
        name.push("-");
        name.push(match what {
            Appended::Version => text("/Config/Version"),
            Appended::Dc => text("/Config/Datacenter"),
            Appended::Node => text("/Config/NodeName"),
            Appended::Status if text("/Stats/consul/leader") == "true" => "leader",
            Appended::Status => "follower",
        });
    }
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    Ok(file.with_file_name(name))
}

async fn save(api: &Api, file: &Path) -> Result<Output, Failure> {
    let mut unverified = file.as_os_str().to_owned();
    unverified.push(".");
    unverified.push(UNVERIFIED);
    let unverified = PathBuf::from(unverified);
    let saved = download(api, &unverified).await;
    if saved.is_err() {
        // What is there is no snapshot; that it cannot be removed is no news beside the error.
        let _ = std::fs::remove_file(&unverified);
    }
    let contents = saved?;
    std::fs::rename(&unverified, file).map_err(Failure::because("Error renaming snapshot file"))?;
    Ok(Output::line(format!("Saved and verified snapshot to index {}", contents.meta.index)))
}

async fn download(api: &Api, to: &Path) -> Result<Contents, Failure> {
    let query: &[(&str, &str)] = if api.is_stale() { &[("stale", "")] } else { &[] };
    let mut reply =
        api.client().get_stream("/v1/snapshot", query).await.map_err(Failure::because("Error saving snapshot"))?;
    let mut file = private(to).map_err(Failure::because("Error creating snapshot file"))?;
    let mut progress = Progress::new("Saved", None);
    while let Some(bytes) = reply.next().await.map_err(Failure::because("Error writing snapshot file"))? {
        file.write_all(&bytes).map_err(Failure::because("Error writing snapshot file"))?;
        progress.add(bytes.len());
    }
    progress.end();
    file.sync_all().map_err(Failure::because("Error closing snapshot file"))?;
    drop(file);
    let written = File::open(to).map_err(Failure::because("Error opening snapshot file for verify"))?;
    container::verify(written).map_err(Failure::because("Error verifying snapshot file"))
}

/// A new file that only its owner may read: it holds every secret of the cluster, though sealed.
fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

async fn restore(api: &Api, path: &Path) -> Result<Output, Failure> {
    let opened = || File::open(path).map_err(Failure::because("Error opening snapshot file"));
    let file = opened()?;
    let total = file.metadata().map_err(Failure::because("Error opening snapshot file"))?.len();
    let begin = (file, Progress::new("Sent", Some(total)));
    let pieces = stream::try_unfold(begin, |(mut file, mut progress)| async move {
        let mut bytes = vec![0; CHUNK_BYTES];
        let read = file.read(&mut bytes)?;
        bytes.truncate(read);
        progress.add(read);
        if read == 0 {
            progress.end();
            return Ok(None);
        }
        Ok::<_, io::Error>(Some((Bytes::from(bytes), (file, progress))))
    });
    let body = lictor_client::stream::body(pieces);
    api.client().put_stream("/v1/snapshot", &[], body).await.map_err(Failure::because("Error restoring snapshot"))?;
    Ok(Output::line("Restored snapshot"))
}

fn inspect(flags: &InspectFlags) -> Result<Output, Failure> {
    let file = File::open(&flags.file).map_err(Failure::because("Error opening snapshot file"))?;
    let contents = container::verify(file).map_err(Failure::because("Error reading snapshot"))?;
    let mut sections: Vec<_> = contents.named().filter(|(_, size)| size.rows > 0).collect();
    sections.sort_by(|(one, a), (other, b)| b.bytes.cmp(&a.bytes).then_with(|| one.cmp(other)));
    let total: u64 = sections.iter().map(|(_, size)| size.bytes).sum();
    let meta = &contents.meta;
    let keys =
        if flags.kvdetails { decode::key_sizes(&flags.file, flags.kvdepth, &flags.kvfilter)? } else { Vec::new() };
    let keys_total: u64 = keys.iter().map(|(_, _, bytes)| bytes).sum();
    if flags.format == Format::Json {
        let stats: Vec<_> = sections
            .iter()
            .map(|(name, size)| json!({ "Name": name, "Sum": size.bytes, "Count": size.rows }))
            .collect();
        let meta_json = json!({
            "ID": meta.id, "Size": meta.size, "Index": meta.index, "Term": meta.term, "Version": meta.version,
        });
        let mut answer = json!({ "Meta": meta_json, "Stats": stats, "TotalSize": total });
        if flags.kvdetails {
            let stats = keys.iter().map(|(name, rows, bytes)| json!({ "Name": name, "Sum": bytes, "Count": rows }));
            answer["StatsKV"] = stats.collect();
            answer["TotalSizeKV"] = keys_total.into();
        }
        return Output::json(&answer, 3);
    }
    let pair = |name: &str, value: String| [format!(" {name}"), value];
    let mut lines = columns(
        &[
            pair("ID", meta.id.clone()),
            pair("Size", meta.size.to_string()),
            pair("Index", meta.index.to_string()),
            pair("Term", meta.term.to_string()),
            pair("Version", meta.version.to_string()),
        ],
        DETAIL_GAP,
    );
    lines.push(String::new());
    let row = |name: &str, count: &str, size: &str| [format!(" {name}"), count.to_owned(), size.to_owned()];
    let mut rows = vec![row("Type", "Count", "Size"), row("----", "----", "----")];
    rows.extend(sections.iter().map(|(name, size)| row(name, &size.rows.to_string(), &byte_size(size.bytes))));
    rows.extend([row("----", "----", "----"), row("Total", "", &byte_size(total))]);
    lines.extend(columns(&rows, DETAIL_GAP));
    if flags.kvdetails {
        let mut rows = vec![row("Key Name", "Count", "Size"), row("----", "----", "----")];
        rows.extend(keys.iter().map(|(name, count, bytes)| row(name, &count.to_string(), &byte_size(*bytes))));
        rows.extend([row("----", "----", "----"), row("Total", "", &byte_size(keys_total))]);
        lines.push(String::new());
        lines.extend(columns(&rows, DETAIL_GAP));
    }
    Ok(Output::lines(lines))
}

/// Bytes as Consul shows them: `1.5KB`.
fn byte_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let text = format!("{size:.1}");
    format!("{}{}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use lictor_server::archive::container::{Meta, Origin};

    use super::*;

    #[test]
    fn sizes_are_shown_as_consul_shows_them() {
        for (bytes, shown) in [(0, "0B"), (1023, "1023B"), (1536, "1.5KB"), (2048, "2KB"), (5 << 20, "5MB")] {
            assert_eq!(byte_size(bytes), shown);
        }
    }

    fn flags(file: PathBuf) -> InspectFlags {
        InspectFlags { file, format: Format::Pretty, kvdetails: false, kvdepth: 2, kvfilter: String::new() }
    }

    #[tokio::test]
    async fn what_the_agent_is_may_stand_in_the_name_of_the_file() {
        let answer = r#"{"Config":{"Version":"1.21.4","Datacenter":"dc1","NodeName":"s1"},"Stats":{"consul":{"leader":"true"}}}"#;
        let fake = crate::commands::fake::Fake::answering(&[("GET /v1/agent/self", 200, answer)]).await;
        let all = [Appended::Version, Appended::Dc, Appended::Node, Appended::Status];
        let name = named(&fake.api(), "/x/backup.snap".into(), &all).await.unwrap();
        assert_eq!(name, PathBuf::from("/x/backup-1.21.4-dc1-s1-leader.snap"));
        assert_eq!(named(&fake.api(), "backup".into(), &all[1..2]).await.unwrap(), PathBuf::from("backup-dc1"));
    }

    #[test]
    fn a_damaged_file_is_no_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("broken");
        std::fs::write(&file, b"not a snapshot").unwrap();
        let error = inspect(&flags(file)).unwrap_err();
        assert!(error.to_string().starts_with("Error reading snapshot: failed to read snapshot file:"), "{error}");
        let missing = directory.path().join("missing");
        assert!(inspect(&flags(missing)).unwrap_err().to_string().starts_with("Error opening snapshot file:"));
    }

    /// The columns of an archive's description, which scripts cut at.
    #[test]
    fn the_description_of_an_archive_stands_in_consuls_columns() {
        let meta = Meta { version: 1, id: "2-9-1".into(), index: 9, term: 2, size: 0, lictor: Some(Origin::default()) };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("s");
        container::write(&Default::default(), meta, File::create(&file).unwrap()).unwrap();
        let shown = inspect(&flags(file)).unwrap().bytes;
        let shown = String::from_utf8(shown).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], " ID           2-9-1");
        assert_eq!(lines[2], " Index        9");
        assert!(lines[6].starts_with(" Type "), "{shown}");
        assert!(lines.last().unwrap().starts_with(" Total "), "{shown}");
    }
}
