//! `lictor event`: sends a user event.

use clap::Args;
use lictor_client::encode_path;
use serde::Deserialize;

use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};

/// What to send, and to whom.
#[derive(Args, Default)]
pub(crate) struct EventFlags {
    /// Name of the event.
    #[arg(long)]
    name: Option<String>,
    /// Only to agents whose node name this regular expression finds something in.
    #[arg(long, value_name = "REGEXP")]
    node: Option<String>,
    /// Only to agents with an instance whose id this finds something in.
    #[arg(long, value_name = "REGEXP")]
    service: Option<String>,
    /// Only to agents with such an instance that has a tag this finds something in.
    #[arg(long, value_name = "REGEXP")]
    tag: Option<String>,
    /// What to say with it, at most 300 bytes.
    #[arg(allow_hyphen_values = true)]
    payload: Vec<String>,
    #[command(flatten)]
    api: ApiFlags,
}

#[derive(Deserialize)]
struct Fired {
    #[serde(rename = "ID")]
    id: String,
}

pub(super) async fn run(flags: EventFlags) -> Result<Output, Failure> {
    fire(&Api::connect(&flags.api)?, &flags).await
}

async fn fire(api: &Api, flags: &EventFlags) -> Result<Output, Failure> {
    let Some(name) = flags.name.as_deref().filter(|name| !name.is_empty()) else {
        return Err(Failure::new("Event name must be specified"));
    };
    if flags.tag.is_some() && flags.service.is_none() {
        return Err(Failure::new("Cannot provide tag filter without service filter."));
    }
    let payload = match flags.payload.as_slice() {
        [] => String::new(),
        [payload] => payload.clone(),
        _ => return Err(Failure::new("Too many command line arguments.")),
    };
    let filters = [("node", &flags.node), ("service", &flags.service), ("tag", &flags.tag)];
    let query: Vec<(&str, &str)> =
        filters.iter().filter_map(|(name, filter)| Some((*name, filter.as_deref()?))).collect();
    let path = format!("/v1/event/fire/{}", encode_path(name));
    let reply = api.client().put_bytes(&path, &query, payload.into()).await;
    let reply = reply.map_err(Failure::because("Error firing event"))?;
    let fired: Fired = serde_json::from_slice(&reply).map_err(Failure::because("Error firing event"))?;
    Ok(Output::line(format!("Event ID: {}", fired.id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    #[tokio::test]
    async fn an_event_is_sent_with_its_filters_and_its_payload() {
        let fake =
            Fake::answering(&[("PUT /v1/event/fire/deploy?node=n1", 200, r#"{"ID":"7ea1","Name":"deploy"}"#)]).await;
        let flags = EventFlags {
            name: Some("deploy".into()),
            node: Some("n1".into()),
            payload: vec!["v2".into()],
            ..EventFlags::default()
        };
        assert_eq!(fire(&fake.api(), &flags).await.unwrap().bytes, b"Event ID: 7ea1\n");
        assert_eq!(fake.last_body(), "v2");
        let nameless = fire(&fake.api(), &EventFlags::default()).await.unwrap_err();
        assert_eq!(nameless.to_string(), "Event name must be specified");
    }
}
