//! Failures: what the user reads, and the exit code that scripts see.

use std::error::Error as _;
use std::process::ExitCode;

use crate::{Error, ErrorKind, printable};
use serde_json::{Value, json};

use super::terminal::{tell, written};
use super::{grammar, hints, verbs};

/// Reports a failure on standard error.
pub(crate) fn report(error: &Error, as_json: bool) -> ExitCode {
    tell(&if as_json { format!("{}\n", document(error)) } else { text(error) });
    ExitCode::from(code(error.kind()))
}

/// Reports an invalid command line; also where `--help` and `--version` come through.
pub(crate) fn usage(usage: &clap::Error) -> ExitCode {
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    if !usage.use_stderr() {
        // Help and the version are results.
        let printed = written(usage.print());
        return printed.map_or_else(|error| report(&error, is_json), |()| ExitCode::SUCCESS);
    }
    let error = verbs::other(usage).or_else(|| is_json.then(|| as_error(usage)));
    if let Some(error) = error {
        return report(&error, is_json);
    }
    // A failed write to standard error cannot be reported.
    let _ = usage.print();
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}

/// The first paragraph of what clap says is the message, its tip the hint. The usage is for readers of text.
fn as_error(usage: &clap::Error) -> Error {
    let rendered = usage.render().to_string();
    let mut paragraphs = rendered.trim_start_matches("error: ").split("\n\n").map(on_one_line);
    let error = Error::config(paragraphs.next().unwrap_or_default());
    if let Some(tip) = paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: ").map(str::to_owned)) {
        return error.with_hint(tip);
    }
    let grammar = grammar::grammar();
    let mut words = std::env::args_os().skip(1);
    let verb = words.find_map(|word| Some(format!(" {}", grammar.find_subcommand(word)?.get_name())));
    error.with_hint(format!("`plyfold{} --help` shows the options", verb.unwrap_or_default()))
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
    json!({
        "kind": error.kind().name(),
        "message": error.message(),
        "context": error.contexts().collect::<Value>(),
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
