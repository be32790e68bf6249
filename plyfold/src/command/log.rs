//! What libraries warn about, as lines for the user.

use std::fmt::{Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::terminal::{Loudness, Terminal};

/// Shows the warnings of plyfold's crates, and with `-v` all their messages.
pub(crate) fn listen(terminal: Terminal) {
    let level = if terminal.loudness == Loudness::Verbose { Level::DEBUG } else { Level::WARN };
    // Only a second subscriber in one process could fail.
    let _ = tracing::subscriber::set_global_default(Log { terminal, level });
}

struct Log {
    terminal: Terminal,
    level: Level,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level && metadata.target().starts_with("plyfold")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "note",
        };
        self.terminal.say(level, &line.0);
    }

    // Spans are not enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message, which is recorded first, and the fields.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, ", {name} {value:?}"),
        };
    }
}
