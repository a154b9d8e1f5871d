//! The keys of one source: old names, unknown names, kinds of values, and merging.

use serde_json::{Map, Value};

use super::keys::{KEYS, Kind, RENAMED, SINGULAR};
use super::source::Source;
use super::without_effect::{Notice, WITHOUT_EFFECT};
use super::{ConfigProblem, IgnoredKey};

/// A name this close, of 1, is worth naming in a message.
const NEAR: f64 = 0.7;

/// Moves keys under old names to where they live now, and singular keys into their lists.
pub(super) fn rename(source: &mut Source, warnings: &mut Vec<String>) {
    for (old, new) in RENAMED {
        if let Some(value) = take(&mut source.root, old) {
            warnings.push(format!("{}: {old} is an old name, write {new}", source.name));
            put(&mut source.root, new, value);
        }
    }
    for (singular, plural) in SINGULAR {
        if let Some(value) = source.root.remove(*singular) {
            put(&mut source.root, plural, value);
        }
    }
}

fn take(root: &mut Map<String, Value>, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => root.remove(path),
        Some((head, rest)) => take(root.get_mut(head)?.as_object_mut()?, rest),
    }
}

/// Sets `path` unless it is there; lists become longer.
pub(super) fn put(root: &mut Map<String, Value>, path: &str, value: Value) {
    if let Some((head, rest)) = path.split_once('.') {
        let below = root.entry(head).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(below) = below {
            put(below, rest, value);
        }
        return;
    }
    let is_list = matches!(path, "services" | "checks" | "retry_join" | "retry_join_wan");
    match root.get_mut(path) {
        None if is_list => {
            root.insert(path.into(), as_list(value));
        }
        None => {
            root.insert(path.into(), value);
        }
        Some(Value::Array(there)) if is_list => {
            if let Value::Array(more) = as_list(value) {
                there.extend(more);
            }
        }
        Some(_) => {}
    }
}

fn as_list(value: Value) -> Value {
    if value.is_array() { value } else { Value::Array(vec![value]) }
}

/// Finds unknown keys and values of the wrong kind; takes both out, and keys without effect too.
pub(super) fn check(
    source: &mut Source,
    warnings: &mut Vec<String>,
    ignored: &mut Vec<IgnoredKey>,
    problems: &mut Vec<ConfigProblem>,
) {
    let mut checker = Checker { file: &source.name, warnings, ignored, problems };
    checker.object("", &mut source.root, KEYS);
}

struct Checker<'a> {
    file: &'a str,
    warnings: &'a mut Vec<String>,
    ignored: &'a mut Vec<IgnoredKey>,
    problems: &'a mut Vec<ConfigProblem>,
}

impl Checker<'_> {
    fn object(&mut self, above: &str, object: &mut Map<String, Value>, known: &'static [(&'static str, Kind)]) {
        object.retain(|key, value| {
            let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
            if let Some((_, kind)) = known.iter().find(|(name, _)| name == key) {
                return !value.is_null() && self.value(&path, value, *kind);
            }
            if let Some(entry) = WITHOUT_EFFECT.iter().find(|entry| entry.key == path) {
                let written = value.to_string();
                if value.is_null() || written == entry.anyway {
                    return false;
                }
                self.ignored.push(IgnoredKey { file: self.file.into(), key: path.clone(), reason: entry.reason });
                if entry.notice == Notice::Warn {
                    self.warnings.push(format!("{}: {path} has no effect: {}", self.file, entry.reason));
                }
                return false;
            }
            self.problems.push(ConfigProblem::UnknownKey {
                file: self.file.into(),
                nearest: nearest(above, key, known),
                key: path,
            });
            false
        });
    }

    /// Brings `value` into the form of its kind. False when it cannot be.
    fn value(&mut self, path: &str, value: &mut Value, kind: Kind) -> bool {
        // HCL 1 makes a list with one object of every block, and many files were generated that way.
        if let (Kind::Object(_) | Kind::TextMap | Kind::DurationMap, Value::Array(blocks)) = (kind, &mut *value) {
            let mut merged = Map::new();
            for block in std::mem::take(blocks) {
                let Value::Object(block) = block else {
                    return self.wrong(path, "an object", &block);
                };
                merge(&mut merged, block);
            }
            *value = Value::Object(merged);
        }
        match (kind, &mut *value) {
            (Kind::Text, Value::String(_)) | (Kind::Flag, Value::Bool(_)) => true,
            (Kind::Flag, Value::String(text)) if text == "true" || text == "false" => {
                *value = Value::Bool(text == "true");
                true
            }
            (Kind::Count, Value::Number(number)) if number.as_u64().is_some_and(|number| number <= u32::MAX.into()) => {
                true
            }
            (Kind::Number, Value::Number(_)) => true,
            (Kind::Port, Value::Number(number))
                if number.as_i64().is_some_and(|port| (-1..=i64::from(u16::MAX)).contains(&port)) =>
            {
                true
            }
            (Kind::Duration, Value::String(text)) => match lictor_types::duration::parse(text) {
                Ok(_) => true,
                Err(_) => self.wrong(path, "a duration with a unit, for example \"10s\"", value),
            },
            (Kind::Texts, Value::String(_)) => {
                *value = as_list(value.take());
                true
            }
            (Kind::Texts, Value::Array(texts)) if texts.iter().all(Value::is_string) => true,
            (Kind::TextMap, Value::Object(texts)) if texts.values().all(Value::is_string) => true,
            (Kind::DurationMap, Value::Object(durations)) => {
                let file = self.file;
                let problems = &mut *self.problems;
                durations.retain(|name, duration| {
                    let valid = duration.as_str().is_some_and(|text| lictor_types::duration::parse(text).is_ok());
                    if !valid {
                        problems.push(ConfigProblem::WrongKind {
                            file: file.into(),
                            key: format!("{path}.{name}"),
                            expected: "a duration with a unit, for example \"10s\"".into(),
                            found: duration.to_string(),
                        });
                    }
                    valid
                });
                true
            }
            (Kind::Object(known), Value::Object(object)) => {
                self.object(path, object, known);
                true
            }
            (Kind::Definitions, Value::Object(_)) => {
                *value = as_list(value.take());
                true
            }
            (Kind::Definitions, Value::Array(definitions)) if definitions.iter().all(Value::is_object) => true,
            (kind, _) => self.wrong(path, expected(kind), value),
        }
    }

    fn wrong(&mut self, path: &str, expected: &str, found: &Value) -> bool {
        self.problems.push(ConfigProblem::WrongKind {
            file: self.file.into(),
            key: path.into(),
            expected: expected.into(),
            // A secret in a wrong shape must not end up in a log.
            found: match found {
                Value::Array(_) => "a list".into(),
                Value::Object(_) => "an object".into(),
                Value::String(_) if path.contains("token") => "a text".into(),
                other => other.to_string(),
            },
        });
        false
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a text",
        Kind::Flag => "true or false",
        Kind::Count => "a whole number from 0",
        Kind::Number => "a number, or -1 for no limit",
        Kind::Port => "a port from 0 to 65535, or -1 for off",
        Kind::Duration => "a duration with a unit, for example \"10s\"",
        Kind::Texts => "a list of texts",
        Kind::TextMap => "an object of texts",
        Kind::DurationMap => "an object of durations",
        Kind::Object(_) => "an object",
        Kind::Definitions => "a list of objects",
    }
}

/// The known key beside `key` that looks most like it, with the keys above it.
fn nearest(above: &str, key: &str, known: &[(&str, Kind)]) -> Option<String> {
    let accepted = WITHOUT_EFFECT.iter().filter_map(|entry| match entry.key.rsplit_once('.') {
        Some((parent, name)) => (parent == above).then_some(name),
        None => above.is_empty().then_some(entry.key),
    });
    known
        .iter()
        .map(|(name, _)| *name)
        .chain(accepted)
        .chain(SINGULAR.iter().map(|(name, _)| *name).filter(|_| above.is_empty()))
        .map(|name| (strsim::normalized_damerau_levenshtein(name, key), name))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, name)| if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") })
}

/// Lays `later` over `root`: scalars are replaced, lists appended, objects merged.
pub(super) fn merge(root: &mut Map<String, Value>, later: Map<String, Value>) {
    for (key, value) in later {
        match (root.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(more)) => merge(there, more),
            (Some(Value::Array(there)), Value::Array(more)) => there.extend(more),
            (_, value) => {
                root.insert(key, value);
            }
        }
    }
}
