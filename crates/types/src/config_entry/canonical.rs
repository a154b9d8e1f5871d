//! One spelling for what people write: CamelCase or snake_case, a lone block for a list of one, a number as text, a
//! duration as text or nanoseconds.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use crate::duration;

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// A text.
    Text,
    /// A text that is kept in lower case.
    Lower,
    /// A text that is kept in upper case.
    Upper,
    /// A whole number.
    Integer,
    /// A share of a hundred, in hundredths.
    Share,
    /// Yes or no.
    Boolean,
    /// A duration, told as Go writes it.
    Duration,
    /// A duration, told in nanoseconds.
    Nanoseconds,
    /// Texts.
    Texts,
    /// Texts that are kept in upper case.
    Uppers,
    /// Whole numbers.
    Integers,
    /// Texts by free names.
    TextMap,
    /// Anything: what it says is between its writer and its reader.
    Free,
    /// An object.
    Object(Fields),
    /// Objects.
    List(Fields),
    /// Objects by free names.
    Map(Fields),
    /// Taken and not kept: what a reader sends back as it got it, or another word for nothing.
    Dropped,
}

/// When a field is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// When it is not empty.
    Filled,
    /// When it was given, even if it is empty.
    Given,
    /// Always.
    Always,
}

/// A field of a kind of entry.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) presence: Presence,
}

/// The fields of an object.
pub(super) type Fields = &'static [Field];

/// A body that does not fit its kind.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// Consul's words for fields that nobody knows.
    #[error("{} error{} occurred:\n{}\n", .0.len(), if .0.len() == 1 { "" } else { "s" }, listed(.0))]
    Unknown(Vec<String>),
    /// A value of another shape.
    #[error("{path}: {expected} is expected, not {found}")]
    Shape { path: String, expected: &'static str, found: String },
}

fn listed(keys: &[String]) -> String {
    keys.iter().map(|key| format!("\t* {key}\n")).collect()
}

/// A name without its case and its word marks: what all its spellings have in common.
pub fn fold(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).collect()
}

/// The body of an entry in one spelling.
pub(super) fn body(written: &Map<String, Value>, fields: Fields) -> Result<Map<String, Value>, Problem> {
    let mut unknown = Vec::new();
    let canonical = object(written, fields, "", &mut unknown)?;
    if unknown.is_empty() { Ok(canonical) } else { Err(Problem::Unknown(unknown)) }
}

fn object(
    written: &Map<String, Value>,
    fields: Fields,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<Map<String, Value>, Problem> {
    let mut result = Map::new();
    for (key, value) in written {
        let folded = fold(key);
        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(field) = fields.iter().find(|field| fold(field.name) == folded) else {
            unknown.push(match folded.as_str() {
                "namespace" => format!("{place:?} - namespaces are a Consul Enterprise feature"),
                "partition" => format!("{place:?} - partitions are a Consul Enterprise feature"),
                _ => format!("invalid config key {place:?}"),
            });
            continue;
        };
        if value.is_null() || matches!(field.shape, Shape::Dropped) {
            continue;
        }
        let value = shaped(value, field.shape, &place, unknown)?;
        if field.presence != Presence::Filled || !is_empty(&value) {
            result.insert(field.name.into(), value);
        }
    }
    for field in fields.iter().filter(|field| field.presence == Presence::Always) {
        if !result.contains_key(field.name) {
            result.insert(field.name.into(), zero(field.shape)?);
        }
    }
    Ok(result)
}

fn shaped(value: &Value, shape: Shape, path: &str, unknown: &mut Vec<String>) -> Result<Value, Problem> {
    let wrong = |expected| Problem::Shape { path: path.to_owned(), expected, found: brief(value) };
    // HCL 1, and files made from it, put a lone block in a list.
    let lone = |value: &Value| match value {
        Value::Array(blocks) if blocks.len() == 1 => blocks[0].as_object().cloned(),
        Value::Object(object) => Some(object.clone()),
        _ => None,
    };
    Ok(match shape {
        Shape::Text => text(value).ok_or_else(|| wrong("a text"))?.into(),
        Shape::Lower => text(value).ok_or_else(|| wrong("a text"))?.to_lowercase().into(),
        Shape::Upper => text(value).ok_or_else(|| wrong("a text"))?.to_uppercase().into(),
        Shape::Integer => integer(value).ok_or_else(|| wrong("a whole number"))?,
        Shape::Share => share(value).ok_or_else(|| wrong("a number from 0 to 100"))?,
        Shape::Boolean => boolean(value).ok_or_else(|| wrong("true or false"))?.into(),
        Shape::Duration => duration_text(value).ok_or_else(|| wrong("a duration, as \"10s\""))?.into(),
        Shape::Nanoseconds => nanoseconds(value).ok_or_else(|| wrong("a duration, as \"10s\""))?,
        Shape::Texts => texts(value).ok_or_else(|| wrong("a list of texts"))?.into(),
        Shape::Uppers => {
            let texts = texts(value).ok_or_else(|| wrong("a list of texts"))?;
            texts.into_iter().map(|text| text.to_uppercase()).collect::<Vec<_>>().into()
        }
        Shape::Integers => {
            let numbers = value.as_array().ok_or_else(|| wrong("a list of whole numbers"))?;
            let numbers: Option<Vec<Value>> = numbers.iter().map(integer).collect();
            numbers.ok_or_else(|| wrong("a list of whole numbers"))?.into()
        }
        Shape::TextMap => {
            let map = text_map(value).ok_or_else(|| wrong("an object of texts"))?;
            Value::Object(map.into_iter().map(|(key, text)| (key, Value::from(text))).collect())
        }
        Shape::Free => free(value),
        Shape::Object(fields) => {
            let written = lone(value).ok_or_else(|| wrong("an object"))?;
            Value::Object(object(&written, fields, path, unknown)?)
        }
        Shape::List(fields) => {
            let items = match value {
                Value::Array(items) => items.clone(),
                Value::Object(_) => vec![value.clone()],
                _ => return Err(wrong("a list")),
            };
            let mut rows = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                let place = format!("{path}[{at}]");
                let Some(written) = item.as_object() else {
                    return Err(Problem::Shape { path: place, expected: "an object", found: brief(item) });
                };
                rows.push(Value::Object(object(written, fields, &place, unknown)?));
            }
            Value::Array(rows)
        }
        Shape::Map(fields) => {
            let entries = lone(value).ok_or_else(|| wrong("an object"))?;
            let mut rows = Map::new();
            for (key, entry) in entries {
                let place = format!("{path}[{key}]");
                let Some(written) = lone(&entry) else {
                    return Err(Problem::Shape { path: place, expected: "an object", found: brief(&entry) });
                };
                rows.insert(key, Value::Object(object(&written, fields, &place, unknown)?));
            }
            Value::Object(rows)
        }
        Shape::Dropped => Value::Null,
    })
}

/// What stands for a field that nobody gave, as Go writes it.
fn zero(shape: Shape) -> Result<Value, Problem> {
    Ok(match shape {
        Shape::Text | Shape::Lower | Shape::Upper | Shape::Duration => "".into(),
        Shape::Integer | Shape::Share | Shape::Nanoseconds => 0.into(),
        Shape::Boolean => false.into(),
        Shape::Object(fields) => Value::Object(object(&Map::new(), fields, "", &mut Vec::new())?),
        _ => Value::Null,
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(it) => !it,
        Value::Number(it) => it.as_f64() == Some(0.0),
        Value::String(it) => it.is_empty(),
        Value::Array(it) => it.is_empty(),
        // An object that was given is there, as a pointer is in Go.
        Value::Object(_) => false,
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Number(it) => format!("the number {it}"),
        Value::String(it) if it.len() <= 64 => format!("the text {it:?}"),
        Value::String(_) => "a long text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// A text; a number or a boolean is one when it is written down.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(it) => Some(if *it { "1" } else { "0" }.into()),
        Value::Null => Some(String::new()),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::String(_) => Some(vec![text(value)?]),
        _ => None,
    }
}

/// Texts by name.
pub(super) fn text_map(value: &Value) -> Option<BTreeMap<String, String>> {
    match value {
        Value::Null => Some(BTreeMap::new()),
        Value::Array(blocks) if blocks.len() == 1 => text_map(&blocks[0]),
        Value::Object(entries) => entries.iter().map(|(key, value)| Some((key.clone(), text(value)?))).collect(),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<Value> {
    let number = match value {
        Value::Number(number) => number.clone(),
        Value::String(text) => text.parse::<Number>().ok()?,
        Value::Bool(it) => u64::from(*it).into(),
        _ => return None,
    };
    if number.is_i64() || number.is_u64() {
        return Some(Value::Number(number));
    }
    let float = number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < 9e15)?;
    Some((float as i64).into())
}

fn share(value: &Value) -> Option<Value> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    let hundredths = (number * 100.0).round();
    if !hundredths.is_finite() || hundredths.abs() > 1e9 {
        return None;
    }
    if hundredths % 100.0 == 0.0 {
        return Some(((hundredths / 100.0) as i64).into());
    }
    Number::from_f64(hundredths / 100.0).map(Value::Number)
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(it) => Some(*it),
        Value::Number(number) => Some(number.as_f64() != Some(0.0)),
        Value::String(text) => match text.as_str() {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            _ => None,
        },
        _ => None,
    }
}

/// Nanoseconds, negative ones too: that they make no sense is said with the name of the field.
fn nanoseconds(value: &Value) -> Option<Value> {
    match value {
        Value::Number(_) => integer(value),
        Value::String(text) if text.is_empty() => Some(0.into()),
        Value::String(text) => {
            let (sign, rest) = text.strip_prefix('-').map_or((1, text.as_str()), |rest| (-1, rest));
            let nanos = i64::try_from(duration::parse(rest).ok()?.as_nanos()).ok()?;
            Some((sign * nanos).into())
        }
        _ => None,
    }
}

fn duration_text(value: &Value) -> Option<String> {
    let nanos = nanoseconds(value)?.as_i64()?;
    let text = duration::format(std::time::Duration::from_nanos(nanos.unsigned_abs()));
    Some(match nanos {
        0 => String::new(),
        1.. => text,
        _ => format!("-{text}"),
    })
}

/// A whole number is one, however it was written, so that equal settings are equal.
fn free(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => integer(value).unwrap_or_else(|| value.clone()),
        Value::Array(items) => items.iter().map(free).collect(),
        Value::Object(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.clone(), free(value))).collect())
        }
        other => other.clone(),
    }
}
