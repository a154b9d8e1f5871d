//! Request bodies as Go reads them: field names without regard to case, snake_case where Consul takes it, null as absent.
//!
//! The bytes become a `serde_json::Value` first (bodies are bounded before they come here), then a type of ours through a
//! deserializer that knows each struct's field names. A field that the struct does not know is an error, except those that
//! Consul's own clients send and that mean nothing to us.

use std::fmt;

use lictor_types::Refusal;
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

/// Which spellings of a field name are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// `ServiceID` without regard to case.
    AnyCase,
    /// Also `service_id`.
    SnakeToo,
}

/// Structs of which unknown fields are skipped: their types say what we keep of something larger.
const LENIENT: &[&str] = &["CheckDefinition", "ServiceConnect", "ConnectProxy", "Upstream"];

/// Fields that Consul's clients send back as they got them, and that we do not keep.
const UNUSED: &[(&str, &[&str])] = &[
    ("Registration", &["PeerName"]),
    ("NodeService", &["ContentHash", "Datacenter"]),
    ("HealthCheck", &["PeerName"]),
    ("ServiceIntentions", &["Hash"]),
    ("PreparedService", &["SamenessGroup"]),
    ("IntentionBody", &["ID", "Precedence", "CreatedAt", "UpdatedAt", "Hash", "CreateIndex", "ModifyIndex"]),
];

/// The `T` that a request body says.
///
/// # Errors
/// 400 `Request decode failed: …`: it is not JSON, has an unknown field, or a value of the wrong kind.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8], names: Names) -> Result<T, Refusal> {
    from_value(parse(body)?, names)
}

/// The JSON of a request body.
///
/// # Errors
/// 400: it is not JSON.
pub(super) fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| refused(&error))
}

/// The `T` that `value` says.
///
/// # Errors
/// As [`decode`].
pub(super) fn from_value<T: DeserializeOwned>(value: Value, names: Names) -> Result<T, Refusal> {
    T::deserialize(Loose { value, names }).map_err(|error| refused(&error))
}

/// The text in the field `name` of the object `value`, empty when there is none.
pub(super) fn text_field<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).and_then(Value::as_str).unwrap_or_default()
}

/// The field `name` of the object `value` in any case.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn refused(error: &dyn fmt::Display) -> Refusal {
    Refusal::bad_request(format!("Request decode failed: {error}"))
}

/// What is wrong with a body.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct DecodeError(String);

impl DecodeError {
    /// The same, with the field it is about before it.
    fn inside(self, field: &str) -> Self {
        if self.0.starts_with("json: ") { self } else { Self(format!("{field}: {}", self.0)) }
    }
}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        let hint = enterprise(field).map(|feature| format!(" - {feature}")).unwrap_or_default();
        Self(format!("json: unknown field {field:?}{hint}"))
    }
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// What Consul Enterprise has where a field has this name.
fn enterprise(field: &str) -> Option<&'static str> {
    match field.to_ascii_lowercase().as_str() {
        "namespace" => Some("Namespaces are a Consul Enterprise feature"),
        "partition" => Some("Partitions are a Consul Enterprise feature"),
        _ => None,
    }
}

struct Loose {
    value: Value,
    names: Names,
}

macro_rules! plain {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            Ok(self.value.$method(visitor)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Loose {
    type Error = DecodeError;

    plain! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_identifier
        deserialize_ignored_any
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), names: self.names, at: 0 }),
            other => Ok(other.deserialize_seq(visitor)?),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Object(entries) => visitor.visit_map(Entries::new(entries.into_iter().collect(), self.names)),
            other => Ok(other.deserialize_map(visitor)?),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Object(entries) => {
                visitor.visit_map(Entries::new(known_entries(entries, name, fields, self.names)?, self.names))
            }
            other => Ok(other.deserialize_map(visitor)?),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::String(word) => visitor.visit_enum(word.into_deserializer()),
            other => Err(DecodeError(format!("a word is needed, not {other}"))),
        }
    }
}

/// The entries of a struct under the names that the struct itself uses; nulls are left out, as Go reads them.
fn known_entries(
    entries: Map<String, Value>,
    name: &str,
    fields: &'static [&'static str],
    names: Names,
) -> Result<Vec<(String, Value)>, DecodeError> {
    let mut known = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        if let Some(field) = spelled(&key, fields, names) {
            if !value.is_null() {
                known.push((field.to_owned(), value));
            }
            continue;
        }
        // What means nothing where it is known means nothing here.
        if enterprise(&key).is_some() && matches!(value, Value::Null) | matches!(value.as_str(), Some("" | "default")) {
            continue;
        }
        let unused = UNUSED.iter().find(|(owner, _)| *owner == name).map_or(&[][..], |(_, unused)| unused);
        if !LENIENT.contains(&name) && spelled(&key, unused, names).is_none() {
            return Err(DecodeError::unknown_field(&key, fields));
        }
    }
    Ok(known)
}

/// The field that `key` spells.
fn spelled(key: &str, fields: &[&'static str], names: Names) -> Option<&'static str> {
    let same = |field: &&&'static str| {
        field.eq_ignore_ascii_case(key)
            || (names == Names::SnakeToo && key.contains('_') && field.eq_ignore_ascii_case(&key.replace('_', "")))
    };
    fields.iter().find(|field| **field == key).or_else(|| fields.iter().find(same)).copied()
}

struct Items {
    items: std::vec::IntoIter<Value>,
    names: Names,
    at: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        seed.deserialize(Loose { value, names: self.names }).map(Some).map_err(|error| error.inside(&format!("[{at}]")))
    }
}

struct Entries {
    entries: std::vec::IntoIter<(String, Value)>,
    names: Names,
    value: Option<(String, Value)>,
}

impl Entries {
    fn new(entries: Vec<(String, Value)>, names: Names) -> Self {
        Self { entries: entries.into_iter(), names, value: None }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key.clone(), value));
        let key: StringDeserializer<DecodeError> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some((key, value)) = self.value.take() else { return Err(DecodeError::custom("a value without its key")) };
        seed.deserialize(Loose { value, names: self.names }).map_err(|error| error.inside(&key))
    }
}

#[cfg(test)]
mod tests {
    use lictor_types::Registration;

    use super::*;

    fn refusal(body: &str) -> String {
        decode::<Registration>(body.as_bytes(), Names::AnyCase).unwrap_err().text
    }

    #[test]
    fn field_names_are_read_in_any_case_and_nulls_are_absent() {
        let body =
            br#"{"node":"n1","ADDRESS":"10.0.0.1","Service":{"service":"web","Tags":null,"PORT":80},"Checks":null}"#;
        let registration: Registration = decode(body, Names::AnyCase).unwrap();
        assert_eq!(registration.address, "10.0.0.1");
        let service = registration.service.unwrap();
        assert_eq!((service.name.as_str(), service.port), ("web", 80));
        assert!(registration.checks.is_empty());
    }

    #[test]
    fn snake_case_is_read_where_it_is_taken() {
        let body = br#"{"node":"n1","address":"a","skip_node_update":true}"#;
        assert!(decode::<Registration>(body, Names::SnakeToo).unwrap().skip_node_update);
        assert!(decode::<Registration>(body, Names::AnyCase).is_err());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        assert_eq!(refusal(r#"{"Node":"n","Adress":"x"}"#), "Request decode failed: json: unknown field \"Adress\"");
        assert_eq!(
            refusal(r#"{"Node":"n","Namespace":"x"}"#),
            "Request decode failed: json: unknown field \"Namespace\" - Namespaces are a Consul Enterprise feature"
        );
        assert_eq!(
            refusal(r#"{"Node":"n","Service":{"Service":"web","Port":"80"}}"#),
            "Request decode failed: Service: Port: invalid type: string \"80\", expected u16"
        );
        assert_eq!(
            refusal(r#"{"Node":"n","Checks":[{"Name":"x","Status":"good"}]}"#),
            "Request decode failed: Checks: [0]: Status: Invalid check status: 'good'"
        );
        assert!(refusal("{").starts_with("Request decode failed: EOF while parsing"));
        assert!(refusal("[1]").starts_with("Request decode failed: invalid type: sequence"));
    }

    #[test]
    fn the_default_namespace_and_partition_are_no_feature() {
        let body = br#"{"Node":"n","Partition":"default","Service":{"Service":"web","Namespace":""}}"#;
        assert!(decode::<Registration>(body, Names::AnyCase).is_ok());
        assert_eq!(
            refusal(r#"{"Node":"n","Service":{"Service":"web","Partition":"x"}}"#),
            "Request decode failed: json: unknown field \"Partition\" - Partitions are a Consul Enterprise feature"
        );
    }

    #[test]
    fn fields_that_clients_send_back_are_skipped() {
        let body = br#"{"Node":"n","Service":{"Service":"web","ContentHash":"x","Proxy":{"AccessLogs":{}}}}"#;
        assert!(decode::<Registration>(body, Names::AnyCase).is_ok());
    }
}
