//! Serde adapters for the shapes of Consul's JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes as base64 text; empty bytes are `null`, as Go writes a nil slice.
pub mod base64_or_null {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes base64.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if bytes.is_empty() { serializer.serialize_none() } else { serializer.serialize_str(&STANDARD.encode(bytes)) }
    }

    /// Reads base64 or null.
    ///
    /// # Errors
    /// The text is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

/// Reads null as the default, as Go does.
///
/// # Errors
/// Those of the value.
pub fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a text; an empty one and null are none.
///
/// # Errors
/// It is no text.
pub fn filled_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// Reads a list; an empty one and null are none.
///
/// # Errors
/// Those of its items.
pub fn filled_list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.filter(|list| !list.is_empty()))
}

/// A text that is absent when empty.
pub mod optional_text {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the text, `""` for none.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer, T: AsRef<str>>(text: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text.as_ref().map_or("", AsRef::as_ref))
    }

    /// Reads a text; `""` and null are none.
    ///
    /// # Errors
    /// The text is not a `T`.
    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<String>,
        T::Error: std::fmt::Display,
    {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => T::try_from(text).map(Some).map_err(serde::de::Error::custom),
        }
    }
}

/// A JSON object that we keep and give back without looking into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opaque(serde_json::Map<String, serde_json::Value>);

impl Opaque {
    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it.
    pub fn to_map(&self) -> serde_json::Map<String, serde_json::Value> {
        self.0.clone()
    }

    /// Its keys with what is under them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &serde_json::Value)> {
        self.0.iter()
    }

    /// Keeps `value` under `name`, whatever was there.
    pub fn set(&mut self, name: &str, value: serde_json::Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Forgets what is under `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// What is kept under `name`.
    pub fn get(&self, name: &str) -> Option<&serde_json::Value> {
        self.0.get(name)
    }

    /// The text under `name`; empty when there is none.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
    }
}

impl From<serde_json::Map<String, serde_json::Value>> for Opaque {
    fn from(map: serde_json::Map<String, serde_json::Value>) -> Self {
        Self(map)
    }
}

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::deserialize(deserializer)?.unwrap_or_default()))
    }
}

impl<C> minicbor::Encode<C> for Opaque {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.str(&serde_json::Value::Object(self.0.clone()).to_string())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Opaque {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        serde_json::from_str(decoder.str()?)
            .map(Self)
            .map_err(|_| minicbor::decode::Error::message("not a JSON object"))
    }
}

/// A list of JSON values that we keep and give back without looking into them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpaqueList(pub Vec<serde_json::Value>);

impl<C> minicbor::Encode<C> for OpaqueList {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.str(&serde_json::Value::Array(self.0.clone()).to_string())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for OpaqueList {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        serde_json::from_str(decoder.str()?)
            .map(Self)
            .map_err(|_| minicbor::decode::Error::message("not a list of JSON values"))
    }
}
