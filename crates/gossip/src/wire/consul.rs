//! Consul's user events, as they travel in Serf's: the name behind a prefix, everything else in the payload.

use super::WireError;
use super::msgpack::{Reader, Writer, fields};

/// What begins the name of a Serf event that carries one of Consul's.
const PREFIX: &str = "consul:event:";

/// A user event of Consul. The fields are those of its API.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ConsulEvent {
    /// A UUID.
    pub id: String,
    /// What.
    pub name: String,
    /// What about it.
    pub payload: Vec<u8>,
    /// A regular expression that finds nodes; empty for all.
    pub node_filter: String,
    /// One that finds services; empty for all.
    pub service_filter: String,
    /// One that finds tags of those services; empty for all.
    pub tag_filter: String,
    /// The version of this form.
    pub version: u32,
}

impl ConsulEvent {
    /// The name of the Serf event that carries it.
    pub fn serf_name(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// The name in the name of a Serf event, if that carries one of Consul's.
    pub fn name_in(serf_name: &str) -> Option<&str> {
        serf_name.strip_prefix(PREFIX)
    }

    /// The payload of the Serf event.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let texts = [("nf", &self.node_filter), ("sf", &self.service_filter), ("tf", &self.tag_filter)];
        let filled = texts.iter().filter(|(_, text)| !text.is_empty());
        let mut writer = Writer::new(&mut out);
        writer.map(3 + usize::from(!self.payload.is_empty()) + filled.clone().count());
        writer.text("ID").text(&self.id).text("n").text(&self.name).text("v").unsigned(self.version.into());
        if !self.payload.is_empty() {
            writer.text("p").bytes(&self.payload);
        }
        for (key, text) in filled {
            writer.text(key).text(text);
        }
        out
    }

    /// Reads the payload of a Serf event.
    ///
    /// # Errors
    /// The bytes are no such event.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut event = Self::default();
        fields(&mut Reader::new(bytes), |key, reader| {
            match key {
                b"ID" => event.id = reader.text()?.to_owned(),
                b"n" => event.name = reader.text()?.to_owned(),
                b"p" => event.payload = reader.bytes()?.to_vec(),
                b"nf" => event.node_filter = reader.text()?.to_owned(),
                b"sf" => event.service_filter = reader.text()?.to_owned(),
                b"tf" => event.tag_filter = reader.text()?.to_owned(),
                b"v" => event.version = reader.u32()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_written_and_what_is_none_is_refused() {
        let whole = ConsulEvent {
            id: "8f7a1b5e-0000-4000-8000-000000000001".into(),
            name: "deploy".into(),
            payload: vec![0, 255],
            node_filter: "web".into(),
            service_filter: "api".into(),
            tag_filter: "v1".into(),
            version: 1,
        };
        for event in [whole.clone(), ConsulEvent { payload: Vec::new(), node_filter: String::new(), ..whole }] {
            assert_eq!(ConsulEvent::decode(&event.encode()).as_ref(), Ok(&event));
        }
        assert_eq!(ConsulEvent::name_in("consul:event:deploy"), Some("deploy"));
        assert_eq!(ConsulEvent::name_in("deploy"), None);
        assert!(ConsulEvent::decode(b"\xc1").is_err() && ConsulEvent::decode(b"").is_err());
    }
}
