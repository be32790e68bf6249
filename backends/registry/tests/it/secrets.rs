//! Nothing is logged that proves who we are, whatever the level and whichever crate logs.

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, Once, PoisonError};

use log::{LevelFilter, Log, Record};
use plyfold_conformance::rules;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber, span};

use crate::fixture::Http;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Rule R 35 `errors_and_debug_never_contain_secrets`, for logs: all rules about credentials run while every line
/// of `log` and of `tracing` is kept.
#[test]
fn no_log_line_shows_a_secret() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Everything).unwrap();
        log::set_max_level(LevelFilter::Trace);
        tracing::subscriber::set_global_default(Everything).unwrap();
    });
    for rule in rules::http().filter(|rule| (30..=35).any(|number| rule.id == format!("R {number}"))) {
        rule.judge(&Http);
    }
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(lines.len() > 100, "connections are logged: {} lines", lines.len());
    for line in lines.iter() {
        for secret in rules::SECRETS.into_iter().chain(["Bearer token-", "s3cret-word"]) {
            assert!(!line.contains(secret), "{secret} is logged: {line}");
        }
    }
}

struct Everything;

impl Everything {
    fn keep(line: String) {
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        Self::keep(format!("{} {}", record.target(), record.args()));
    }

    fn flush(&self) {}
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line(attributes.metadata().name().to_owned());
        attributes.record(&mut line);
        Self::keep(line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &span::Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        Self::keep(line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        Self::keep(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A String takes whatever is written to it.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
