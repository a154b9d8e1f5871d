//! `lictor debug`: what helps to find out what is wrong with an agent, in one archive.
//!
//! Only what the API tells is captured, and the API tells no token and no key; the log is the agent's own, which names no
//! secret either. What could not be captured is named in the archive's `index.json`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use lictor_runtime::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{Api, ApiFlags};
use crate::arguments::go_bool;
use crate::output::{Failure, Output};

/// The most of a log that is kept.
const LOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The shortest time between two looks at the figures.
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// What is asked once: what it is of, the file, and where it is asked.
const ONCE: [(&str, &str, &str); 7] = [
    ("agent", "agent.json", "/v1/agent/self"),
    ("host", "host.json", "/v1/agent/host"),
    ("members", "members.json", "/v1/agent/members"),
    ("raft", "raft.json", "/v1/operator/raft/configuration"),
    ("raft", "autopilot-configuration.json", "/v1/operator/autopilot/configuration"),
    ("raft", "autopilot-state.json", "/v1/operator/autopilot/state"),
    ("usage", "usage.json", "/v1/operator/usage"),
];
/// What may be captured.
const TARGETS: [&str; 7] = ["agent", "host", "members", "raft", "usage", "metrics", "logs"];

/// What to capture, and for how long.
#[derive(Args)]
pub(crate) struct DebugFlags {
    /// How long to follow log and figures.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = lictor_types::duration::parse)]
    duration: Duration,
    /// Time between two looks at the figures, 5s at least.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = lictor_types::duration::parse)]
    interval: Duration,
    /// Path of the archive without its `.tar.gz`; `consul-debug-` and the time without one.
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// What to capture: agent, host, members, raft, usage, metrics or logs; may be given several times. All of it without one.
    #[arg(long, value_name = "TARGET")]
    capture: Vec<String>,
    /// Make one archive; `false` leaves a directory.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    archive: Option<bool>,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn run(flags: DebugFlags) -> Result<Output, Failure> {
    if flags.interval < INTERVAL_MIN {
        return Err(Failure::new("interval must be 5s or more"));
    }
    let api = Api::connect(&flags.api)?;
    let begin = SystemClock.unix_millis() / 1000;
    let path = flags.output.unwrap_or_else(|| format!("consul-debug-{begin}").into());
    let targets = targets(&flags.capture)?;
    let mut captured = Capture::default();
    captured.once(&api, &targets).await;
    captured.follow(&api, &targets, flags.duration, flags.interval).await;
    if flags.archive == Some(false) {
        captured.write_directory(&path, begin).map_err(Failure::because("cannot write the directory"))?;
        return Ok(Output::line(format!("Saved debug directory: {}", path.display())));
    }
    let archive = path.with_added_extension("tar.gz");
    let name = path.file_name().map_or_else(|| "consul-debug".into(), |name| name.to_string_lossy().into_owned());
    captured.write(&archive, &name, begin).map_err(Failure::because("cannot write the archive"))?;
    Ok(Output::line(format!("Saved debug archive: {}", archive.display())))
}

/// What these words of Consul's mean, each once; everything for none.
fn targets(words: &[String]) -> Result<Vec<&'static str>, Failure> {
    if words.is_empty() {
        return Ok(TARGETS.to_vec());
    }
    let mut targets = Vec::new();
    for word in words {
        let word = match word.as_str() {
            "cluster" => "members",
            "log" => "logs",
            other => other,
        };
        match TARGETS.into_iter().find(|target| *target == word) {
            Some(target) => targets.push(target),
            None => {
                let known = TARGETS.join(", ");
                return Err(Failure::new(format!("-capture {word:?} cannot be captured; what can is {known}")));
            }
        }
    }
    Ok(targets)
}

/// What was captured, by file, and what was not, by file with the reason.
#[derive(Default)]
struct Capture {
    files: Vec<(String, Vec<u8>)>,
    missing: Vec<(String, String)>,
}

impl Capture {
    async fn take(&mut self, api: &Api, file: String, path: &str) {
        match api.client().get_bytes(path, &[]).await {
            Ok((bytes, _)) => self.files.push((file, bytes.to_vec())),
            Err(error) => self.missing.push((file, error.to_string())),
        }
    }

    async fn once(&mut self, api: &Api, targets: &[&str]) {
        for (_, file, path) in ONCE.into_iter().filter(|(target, ..)| targets.contains(target)) {
            self.take(api, file.to_owned(), path).await;
        }
    }

    /// Follows log and figures for this long.
    async fn follow(&mut self, api: &Api, targets: &[&str], duration: Duration, interval: Duration) {
        let (logs, metrics) = (targets.contains(&"logs"), targets.contains(&"metrics"));
        if !logs && !metrics {
            return;
        }
        let end = Instant::now() + duration;
        let mut log = Vec::new();
        let following = async {
            if logs {
                follow_log(api, &mut log).await;
            }
        };
        let figures = async {
            if !metrics {
                return;
            }
            let mut number = 0;
            loop {
                self.take(api, format!("{number}/metrics.json"), "/v1/agent/metrics").await;
                number += 1;
                tokio::time::sleep(interval).await;
            }
        };
        let ended = tokio::time::timeout_at(end, async {
            tokio::join!(following, figures);
        });
        // It ends by the limit only.
        let _ = ended.await;
        if logs {
            self.files.push(("consul.log".into(), log));
        }
    }

    fn index(&self, begin: u64) -> (String, Vec<u8>) {
        let missing: Vec<Value> =
            self.missing.iter().map(|(file, reason)| json!({"File": file, "Reason": reason})).collect();
        let index = json!({"Begin": begin, "Version": env!("CARGO_PKG_VERSION"), "Missing": missing}).to_string();
        ("index.json".to_owned(), index.into_bytes())
    }

    /// Writes everything into a new directory. Only who runs this may read it.
    fn write_directory(&self, path: &Path, begin: u64) -> io::Result<()> {
        let mut private = DirBuilder::new();
        private.mode(0o700).create(path)?;
        for (name, bytes) in self.files.iter().chain(&[self.index(begin)]) {
            let file = path.join(name);
            if let Some(parent) = file.parent().filter(|parent| !parent.exists()) {
                private.create(parent)?;
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
            file.write_all(bytes)?;
        }
        Ok(())
    }

    /// Writes everything below the directory `name`. Only who runs this may read it.
    fn write(&self, archive: &Path, name: &str, begin: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(archive)?;
        let mut builder = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        for (path, bytes) in self.files.iter().chain(&[self.index(begin)]) {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(begin);
            builder.append_data(&mut header, format!("{name}/{path}"), bytes.as_slice())?;
        }
        let mut file: File = builder.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()
    }
}

/// Appends the log to `log` for as long as it is polled.
async fn follow_log(api: &Api, log: &mut Vec<u8>) {
    let mut reply = match api.client().get_stream("/v1/agent/monitor", &[("loglevel", "DEBUG")]).await {
        Ok(reply) => reply,
        Err(error) => return log.extend_from_slice(format!("the log could not be followed: {error}\n").as_bytes()),
    };
    while let Ok(Some(bytes)) = reply.next().await {
        let room = LOG_BYTES_MAX.saturating_sub(log.len());
        log.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn the_archive_holds_what_was_told_and_names_what_was_not() {
        let fake = Fake::answering(&[
            ("GET /v1/agent/self", 200, "{\"Config\":{}}"),
            ("GET /v1/agent/members", 200, "[]"),
            ("GET /v1/agent/host", 403, "Permission denied"),
            ("GET /v1/agent/metrics", 200, "{\"Gauges\":[]}"),
        ])
        .await;
        let mut captured = Capture::default();
        let wanted = ["agent", "host", "cluster", "metrics", "log"].map(str::to_owned);
        let targets = targets(&wanted).unwrap();
        captured.once(&fake.api(), &targets).await;
        captured.follow(&fake.api(), &targets, Duration::from_millis(200), INTERVAL_MIN).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("found.tar.gz");
        captured.write(&path, "found", 1_795_367_100).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&path).unwrap()));
        let mut files = std::collections::BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(entry.path().unwrap().to_string_lossy().into_owned(), text);
        }
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["found/0/metrics.json", "found/agent.json", "found/consul.log", "found/index.json", "found/members.json"]
        );
        let index: Value = serde_json::from_str(&files["found/index.json"]).unwrap();
        assert_eq!(index["Missing"][0]["File"], "host.json");
        let place = directory.path().join("found");
        captured.write_directory(&place, 1_795_367_100).unwrap();
        assert_eq!(std::fs::read(place.join("agent.json")).unwrap(), b"{\"Config\":{}}");
        assert!(place.join("0/metrics.json").exists() && captured.write_directory(&place, 0).is_err());
        assert!(super::targets(&["pprof".to_owned()]).unwrap_err().to_string().contains("what can is agent, host"));
        assert!(captured.write(&path, "found", 0).is_err(), "a file that is there is never replaced");
    }
}
