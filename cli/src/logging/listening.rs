//! Log lines for those who follow an agent's log over HTTP.

use std::fmt::{Debug, Write};

use lictor_runtime::logs::{self, Line};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// Bytes of the longest line.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The layer that tells listeners; it costs nothing while there is none.
pub(super) fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    Telling.with_filter(Wanted)
}

/// Lets through what somebody wants just now: our own lines, and those of libraries when something is wrong.
struct Wanted;

impl Wanted {
    fn lets(metadata: &Metadata<'_>) -> bool {
        let most = logs::wanted();
        let most = if metadata.target().starts_with("lictor") { most } else { most.min(LevelFilter::WARN) };
        metadata.is_event() && *metadata.level() <= most
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::lets(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Asked again whenever somebody begins or ends to listen.
        if Self::lets(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(logs::wanted())
    }
}

struct Telling;

impl<S: Subscriber> Layer<S> for Telling {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let mut message = text.message + &text.fields;
        if message.len() > LINE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(LINE_BYTES_MAX));
        }
        let metadata = event.metadata();
        logs::tell(Line { level: *metadata.level(), target: metadata.target(), message: message.into() });
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
