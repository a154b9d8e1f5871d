//! Two answers to one request, field by field, and the list of the differences that are allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::http::Answer;

/// Headers that tell about the connection and the moment, not about the answer.
const IGNORED_HEADERS: [&str; 5] = ["date", "content-length", "transfer-encoding", "connection", "vary"];
/// Fields that hold an index. Numbers differ (ours counts commands, Consul's raft entries); which of them are the same does not.
const INDEX_FIELDS: [&str; 3] = ["CreateIndex", "ModifyIndex", "x-consul-index"];

/// Requests whose answers hold rows in no order: a real Consul's checks change theirs from one answer to the next, and
/// prepared queries come in the order of their ids, which are drawn.
const UNORDERED: [&str; 2] = ["/v1/agent/health/service/", "/v1/query"];

fn sort_rows(value: &mut Value) {
    match value {
        Value::Array(array) => {
            array.iter_mut().for_each(sort_rows);
            let key = |it: &Value| it.get("CheckID").or(it.get("Template").and(it.get("Name"))).cloned();
            array.sort_by_key(|it| key(it).and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default());
        }
        Value::Object(object) => object.values_mut().for_each(sort_rows),
        _ => {}
    }
}

/// In which way two answers differ at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Consul says it, ours does not.
    Missing,
    /// Ours says it, Consul does not.
    Extra,
    /// Both say something, not the same.
    Value,
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "missing" => Some(Self::Missing),
            "extra" => Some(Self::Extra),
            "value" => Some(Self::Value),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Value => "value",
        })
    }
}

/// One difference.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    pub(crate) kind: Kind,
    pub(crate) request: String,
    pub(crate) field: String,
    /// What each side has there.
    pub(crate) detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} | {} | {} | {}", self.kind, self.request, self.field, self.detail)
    }
}

/// The differences, and how many fields were looked at.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) fields: usize,
    pub(crate) differences: Vec<Difference>,
}

/// Names the indexes of one side by where each was first seen, so that two sides with other numbers can be compared.
#[derive(Default)]
pub(crate) struct IndexNames(BTreeMap<u64, String>);

impl IndexNames {
    fn name(&mut self, index: u64, place: &str) -> String {
        if index == 0 {
            return "0".into();
        }
        self.0.entry(index).or_insert_with(|| format!("the index first seen at {place}")).clone()
    }

    /// The answer's fields as a flat map: path to value.
    fn fields(&mut self, number: usize, request: &str, answer: &Answer) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::from([("status".to_owned(), answer.status.to_string())]);
        match serde_json::from_slice::<Value>(&answer.body) {
            Ok(mut value) => {
                if UNORDERED.iter().any(|it| request.contains(it)) {
                    sort_rows(&mut value);
                }
                self.flatten(&format!("step {number} {request}"), "", &value, &mut fields);
            }
            Err(_) => {
                fields.insert("text".into(), answer.text());
            }
        }
        for (name, value) in answer.headers.iter().filter(|(name, _)| !IGNORED_HEADERS.contains(&name.as_str())) {
            let index = INDEX_FIELDS.contains(&name.as_str()).then(|| value.parse().ok()).flatten();
            let shown = match index {
                Some(index) => self.name(index, &format!("step {number} {request} {name}")),
                None => value.clone(),
            };
            fields.insert(format!("header {name}"), shown);
        }
        fields
    }

    fn flatten(&mut self, step: &str, path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(object) => {
                fields.insert(format!("{path}{{}}"), "an object".into());
                for (name, inner) in object {
                    let place = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    match inner.as_u64().filter(|_| INDEX_FIELDS.contains(&name.as_str())) {
                        Some(index) => {
                            let shown = self.name(index, &format!("{step} {place}"));
                            fields.insert(place, shown);
                        }
                        None => self.flatten(step, &place, inner, fields),
                    }
                }
            }
            Value::Array(array) => {
                fields.insert(format!("{path}[]"), "an array".into());
                for (number, inner) in array.iter().enumerate() {
                    self.flatten(step, &format!("{path}[{number}]"), inner, fields);
                }
            }
            plain => {
                fields.insert(if path.is_empty() { "body".into() } else { path.to_owned() }, plain.to_string());
            }
        }
    }
}

/// Compares two answers to one request.
pub(crate) fn compare(
    (number, request): (usize, &str),
    (consul, consul_names): (&Answer, &mut IndexNames),
    (ours, our_names): (&Answer, &mut IndexNames),
    report: &mut Report,
) {
    let theirs = consul_names.fields(number, request, consul);
    let ours = our_names.fields(number, request, ours);
    let places: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    report.fields += places.len();
    for place in places {
        let (kind, detail) = match (theirs.get(place), ours.get(place)) {
            (Some(theirs), Some(ours)) if theirs == ours || are_one_number(theirs, ours) => continue,
            (Some(theirs), Some(ours)) => (Kind::Value, format!("Consul: {theirs}; ours: {ours}")),
            (Some(theirs), None) => (Kind::Missing, format!("Consul: {theirs}")),
            (None, ours) => (Kind::Extra, format!("ours: {}", ours.map_or("", String::as_str))),
        };
        report.differences.push(Difference { kind, request: request.to_owned(), field: place.clone(), detail });
    }
}

/// Whether both are numbers, and one as large as the other: JSON does not tell `0` from `0.0`.
fn are_one_number(one: &str, other: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    number(one).is_some_and(|one| Some(one) == number(other))
}

/// A line of the list: a difference that is meant, and why.
#[derive(Debug)]
pub(crate) struct Allowed {
    kind: Kind,
    request: String,
    field: String,
    pub(crate) line: usize,
    /// It depends on the moment, so a run without it is fine.
    pub(crate) sometimes: bool,
}

impl Allowed {
    /// The lines of a file: `kind | request pattern | field pattern | reason`, where `*` stands for anything. A reason that
    /// begins with `sometimes:` tells of a difference that not every run shows.
    pub(crate) fn parse(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
        lines
            .filter(|(_, text)| !text.is_empty() && !text.starts_with('#'))
            .map(|(line, text)| {
                let parts: Vec<_> = text.splitn(4, '|').map(str::trim).collect();
                let [kind, request, field, reason] = parts[..] else {
                    return Err(format!("line {line}: want `kind | request | field | reason`"));
                };
                let kind = Kind::parse(kind)
                    .ok_or_else(|| format!("line {line}: {kind:?} is none of missing, extra, value"))?;
                if reason.is_empty() {
                    return Err(format!("line {line}: no reason"));
                }
                let sometimes = reason.starts_with("sometimes:");
                Ok(Self { kind, request: request.into(), field: field.into(), line, sometimes })
            })
            .collect()
    }

    /// Whether this line allows that difference.
    pub(crate) fn allows(&self, difference: &Difference) -> bool {
        self.kind == difference.kind
            && matches(&self.request, &difference.request)
            && matches(&self.field, &difference.field)
    }
}

/// Whether a pattern fits a text; `*` stands for anything, nothing included.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(place) => rest = &rest[place + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer { status: 200, headers: BTreeMap::new(), body: body.as_bytes().to_vec() }
    }

    fn differences(consul: &str, ours: &str) -> Vec<String> {
        let mut report = Report::default();
        let (mut first, mut second) = (IndexNames::default(), IndexNames::default());
        compare((1, "GET /"), (&answer(consul), &mut first), (&answer(ours), &mut second), &mut report);
        report.differences.iter().map(|it| format!("{} {}", it.kind, it.field)).collect()
    }

    #[test]
    fn a_missing_an_extra_and_another_value_are_told_apart() {
        assert_eq!(differences(r#"{"A":1,"B":[2]}"#, r#"{"B":[3],"C":4}"#), ["missing A", "value B[0]", "extra C"]);
        assert_eq!(differences("[]", "null"), ["missing []", "extra body"]);
    }

    #[test]
    fn indexes_are_compared_by_which_are_the_same() {
        let consul = r#"[{"CreateIndex":10,"ModifyIndex":10}]"#;
        assert!(differences(consul, r#"[{"CreateIndex":3,"ModifyIndex":3}]"#).is_empty());
        assert_eq!(differences(consul, r#"[{"CreateIndex":3,"ModifyIndex":4}]"#), ["value [0].ModifyIndex"]);
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("GET /v1/*", "GET /v1/kv/a") && matches("[*].Node", "[0].Node") && matches("*", ""));
        assert!(!matches("[*].Node", "[0].NodeMeta") && !matches("status", "status2") && !matches("ab*ba", "aba"));
    }

    #[test]
    fn a_line_without_a_reason_is_refused() {
        assert!(Allowed::parse("extra | * | a |").is_err());
        assert!(Allowed::parse("more | * | a | because").is_err());
        assert_eq!(Allowed::parse("# why\n\nextra | * | a | because").expect("one line").len(), 1);
    }
}
