//! The views that can be watched, and what was seen of one.

use lictor_agent::config::{WatchDefinition, WatchTarget};
use lictor_client::{ClientError, encode_path};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{WatchFlags, layout};
use crate::api::Api;
use crate::arguments::go_bool;
use crate::output::Failure;

/// How long an agent is asked to wait for a change: less than the client waits for an answer.
const WAIT: &str = "50s";

/// What is watched.
pub(super) struct View {
    /// Its type.
    pub(super) kind: String,
    path: String,
    query: Vec<(&'static str, String)>,
}

/// A view as it is now.
pub(super) struct Looked {
    /// What to wait from; 0 when it cannot be waited for.
    pub(super) index: u64,
    /// As JSON on one line.
    pub(super) json: String,
}

/// What was seen last.
#[derive(Default)]
pub(super) struct Seen {
    /// What to wait from; 0 to look at once.
    pub(super) index: u64,
    /// The index of what was shown last.
    pub(super) shown_index: u64,
    json: Option<String>,
}

impl View {
    /// The view that the flags name.
    ///
    /// # Errors
    /// Consul's words for what is missing or too much.
    pub(super) fn of(flags: &WatchFlags) -> Result<Self, Failure> {
        let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
        let definition = WatchDefinition {
            kind: text(&flags.kind),
            key: text(&flags.key),
            prefix: text(&flags.prefix),
            service: text(&flags.service),
            tag: flags.tag.clone(),
            passing_only: passing_only(flags)?,
            state: text(&flags.state),
            name: text(&flags.name),
            service_id: text(&flags.service_id),
            ..WatchDefinition::default()
        };
        Self::of_definition(&definition)
    }

    /// The view of a watch.
    ///
    /// # Errors
    /// Consul's words for what is missing or too much.
    pub(super) fn of_definition(definition: &WatchDefinition) -> Result<Self, Failure> {
        let WatchTarget { endpoint, name, query } = definition.target().map_err(Failure::new)?;
        Ok(Self { kind: definition.kind.clone(), path: format!("{endpoint}{}", encode_path(&name)), query })
    }

    /// Looks, waiting for a change since `index`.
    pub(super) async fn look(&self, api: &Api, index: u64) -> Result<Looked, ClientError> {
        let index_text = index.to_string();
        let mut query: Vec<(&str, &str)> = self.query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if index > 0 {
            query.push(("index", &index_text));
        }
        query.push(("wait", WAIT));
        let (found, meta) = api.find_raw(&self.path, &query).await?;
        let json = match found {
            None => "null".to_owned(),
            Some(raw) if self.kind == "key" => first(&raw)?,
            Some(raw) => layout::compact(&raw),
        };
        Ok(Looked { index: meta.index, json })
    }
}

/// A key is asked for by itself and answered as a list of one.
fn first(list: &RawValue) -> Result<String, ClientError> {
    let rows: Vec<Box<RawValue>> = serde_json::from_str(list.get())
        .map_err(|error| ClientError::Reply { path: "/v1/kv".into(), reason: error.to_string() })?;
    Ok(rows.first().map_or_else(|| "null".to_owned(), |row| layout::compact(row)))
}

fn passing_only(flags: &WatchFlags) -> Result<bool, Failure> {
    let Some(text) = &flags.passingonly else { return Ok(false) };
    go_bool(text).map_err(|_| {
        Failure::new(format!("Failed to parse passingonly flag: strconv.ParseBool: parsing {text:?}: invalid syntax"))
    })
}

impl Seen {
    /// What there is to show of a look: nothing if it is as it was.
    pub(super) fn take(&mut self, view: &View, looked: Looked) -> Option<String> {
        let Looked { index, json } = looked;
        if index > 0 && index == self.index {
            return None;
        }
        let before = self.index;
        // The index of events is no order; of all others one that goes back means that the state began anew.
        self.index = if index < before && view.kind != "event" { 0 } else { index };
        self.shown_index = index;
        let shown = if view.kind == "event" { newer(&json, before) } else { json.clone() };
        if self.json.as_ref() == Some(&json) {
            return None;
        }
        self.json = Some(json);
        Some(shown)
    }
}

/// The events after the one with this index; all if it is not among them.
fn newer(json: &str, index: u64) -> String {
    #[derive(Deserialize)]
    struct Id {
        #[serde(rename = "ID")]
        id: String,
    }
    let Ok(events) = serde_json::from_str::<Vec<Box<RawValue>>>(json) else { return json.to_owned() };
    let is_last = |event: &RawValue| {
        serde_json::from_str::<Id>(event.get()).is_ok_and(|event| lictor_types::event::index_of(&event.id) == index)
    };
    let from = events.iter().position(|event| is_last(event)).map_or(0, |at| at + 1);
    let rest: Vec<String> = events[from..].iter().map(|event| layout::compact(event)).collect();
    format!("[{}]", rest.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(index: u64, json: &str) -> Looked {
        Looked { index, json: json.into() }
    }

    fn view(kind: &str) -> View {
        View { kind: kind.into(), path: String::new(), query: Vec::new() }
    }

    #[test]
    fn what_is_as_it_was_is_not_shown_and_an_index_that_goes_back_begins_anew() {
        let (view, mut seen) = (view("nodes"), Seen::default());
        assert_eq!(seen.take(&view, look(5, "[1]")).as_deref(), Some("[1]"));
        assert_eq!(seen.take(&view, look(5, "[2]")), None);
        assert_eq!(seen.take(&view, look(6, "[1]")), None);
        assert_eq!((seen.take(&view, look(7, "[2]")).as_deref(), seen.index), (Some("[2]"), 7));
        assert_eq!((seen.take(&view, look(3, "[3]")).as_deref(), seen.index), (Some("[3]"), 0));
    }

    #[test]
    fn of_events_only_the_new_ones_are_shown() {
        let event = |id: u32| format!("{{\"ID\":\"00000000-0000-0000-0000-{id:012x}\"}}");
        let (view, mut seen) = (view("event"), Seen::default());
        let list = |ids: &[u32]| format!("[{}]", ids.iter().map(|id| event(*id)).collect::<Vec<_>>().join(","));
        assert_eq!(seen.take(&view, look(9, &list(&[8, 9]))), Some(list(&[8, 9])));
        assert_eq!(seen.take(&view, look(2, &list(&[8, 9, 1, 2]))), Some(list(&[1, 2])));
        assert_eq!(seen.index, 2);
    }
}
