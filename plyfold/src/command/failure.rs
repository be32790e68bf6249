//! Failures: what the user reads, and the exit code that scripts see.

use std::error::Error as _;
use std::process::ExitCode;

use crate::{Error, ErrorKind, printable};
use serde_json::{Map, Value, json};

use super::terminal::{Terminal, tell, written};
use super::{hints, verbs};

/// Reports a failure on standard error.
pub(crate) fn report(error: &Error, terminal: Terminal) -> ExitCode {
    tell(&if terminal.json() { format!("{}\n", document(error)) } else { text(error) });
    ExitCode::from(code(error.kind()))
}

/// Reports an invalid command line; also where `--help` and `--version` come through.
pub(crate) fn usage(usage: &clap::Error) -> ExitCode {
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    let other = verbs::other(usage);
    if let Some(error) = other.filter(|_| usage.use_stderr()) {
        tell(&if is_json { format!("{}\n", document(&error)) } else { text(&error) });
    } else if usage.use_stderr() && is_json {
        let message = usage.render().to_string();
        let message = message.trim_start_matches("error: ").trim_end();
        let error = Error::config(message);
        tell(&format!("{}\n", document(&error)));
    } else if usage.use_stderr() {
        // A failed write to standard error cannot be reported.
        let _ = usage.print();
    } else if let Err(error) = written(usage.print()) {
        // Help and the version are results.
        tell(&if is_json { format!("{}\n", document(&error)) } else { text(&error) });
        return ExitCode::from(code(error.kind()));
    }
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}

/// `error: …`, then context and causes, then after a blank line the hint. Control characters are escaped.
fn text(error: &Error) -> String {
    let line = |label: &str, value: &str| format!("{label}: {}\n", printable(value));
    let mut text = line("error", error.message());
    // The image comes first.
    let (image, others): (Vec<_>, Vec<_>) = error.contexts().partition(|(key, _)| *key == "image");
    text.extend(image.into_iter().chain(others).map(|(key, value)| line(&format!("  {key}"), value)));
    text.extend(causes(error).iter().map(|cause| line("  because", cause)));
    text.extend(hints::of(error).map(|hint| format!("\n{}", line("hint", &hint))));
    text
}

/// The same as a JSON document on one line, with the kind: the last line of standard error.
fn document(error: &Error) -> Value {
    let context: Map<String, Value> =
        error.contexts().map(|(key, value)| (key.to_owned(), value.into())).collect();
    json!({
        "kind": error.kind().name(),
        "message": error.message(),
        "context": context,
        "causes": causes(error),
        "hint": hints::of(error),
    })
}

fn causes(error: &Error) -> Vec<String> {
    let chain = std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string);
    let mut causes: Vec<String> = Vec::new();
    for cause in chain {
        // Many errors repeat their source in their own text.
        let above = causes.last().map_or("", String::as_str);
        if !above.contains(&cause) && !error.message().contains(&cause) {
            causes.push(cause);
        }
    }
    causes
}

fn code(kind: &ErrorKind) -> u8 {
    match kind {
        ErrorKind::Ambiguous | ErrorKind::Config => 2,
        ErrorKind::NotFound | ErrorKind::PlatformNotFound { .. } => 3,
        ErrorKind::Auth | ErrorKind::Denied => 4,
        ErrorKind::Corrupt => 5,
        _ => 1,
    }
}
