//! Reading sources: HCL and JSON files, directories of them, and fragments.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{ConfigProblem, Flags};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One source, not yet looked at.
pub(super) struct Source {
    /// Its path, for messages.
    pub(super) name: String,
    /// Its keys.
    pub(super) root: Map<String, Value>,
}

#[derive(Clone, Copy)]
enum Format {
    Hcl,
    Json,
}

/// Every file, directory and fragment that `flags` names, in order.
pub(super) fn read_all(flags: &Flags, problems: &mut Vec<ConfigProblem>) -> Vec<Source> {
    let forced = match flags.config_format.as_deref() {
        None => None,
        Some("hcl") => Some(Format::Hcl),
        Some("json") => Some(Format::Json),
        Some(other) => {
            problems.push(ConfigProblem::Invalid(format!("-config-format {other:?} must be \"hcl\" or \"json\"")));
            None
        }
    };
    let mut sources = Vec::new();
    for path in &flags.config_paths {
        match files_at(path, forced.is_some()) {
            Ok(files) => sources.extend(files.iter().filter_map(|file| read(file, forced, problems))),
            Err(error) => problems.push(unreadable(path, &error)),
        }
    }
    for (position, fragment) in flags.fragments.iter().enumerate() {
        sources.extend(parse(format!("-hcl fragment {}", position + 1), fragment, Format::Hcl, problems));
    }
    sources
}

/// The file itself, or the files of a directory in lexical order; not of the directories in it. A directory's files
/// that are neither HCL nor JSON by name are passed over unless the format is forced, as are hidden ones.
fn files_at(path: &Path, all: bool) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        // Followed on purpose: the files of a mounted ConfigMap are links.
        let is_file = std::fs::metadata(&file).is_ok_and(|metadata| metadata.is_file());
        if is_file && !hidden && (all || format_of(&file).is_some()) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "hcl" => Some(Format::Hcl),
        "json" => Some(Format::Json),
        _ => None,
    }
}

fn read(path: &Path, forced: Option<Format>, problems: &mut Vec<ConfigProblem>) -> Option<Source> {
    let file = path.display().to_string();
    let Some(format) = forced.or_else(|| format_of(path)) else {
        problems.push(ConfigProblem::Extension { file });
        return None;
    };
    let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if length > FILE_BYTES_MAX {
        let reason = format!("it has {length} bytes, at most {FILE_BYTES_MAX} are read");
        problems.push(ConfigProblem::Unreadable { file, reason });
        return None;
    }
    match std::fs::read_to_string(path) {
        Ok(text) => parse(file, &text, format, problems),
        Err(error) => {
            problems.push(unreadable(path, &error));
            None
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigProblem {
    ConfigProblem::Unreadable { file: path.display().to_string(), reason: error.to_string() }
}

fn parse(name: String, text: &str, format: Format, problems: &mut Vec<ConfigProblem>) -> Option<Source> {
    let parsed = match format {
        Format::Hcl => super::hcl::parse(text),
        // An empty file is an empty configuration in both formats.
        Format::Json if text.trim().is_empty() => Ok(Value::Object(Map::new())),
        Format::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
    };
    match parsed {
        Ok(Value::Object(root)) => Some(Source { name, root }),
        Ok(_) => {
            problems.push(ConfigProblem::Syntax { file: name, reason: "the top level must be an object".into() });
            None
        }
        Err(reason) => {
            problems.push(ConfigProblem::Syntax { file: name, reason });
            None
        }
    }
}
