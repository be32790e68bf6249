//! `backends`, `formats` and `stores`: what is linked into the program, and the values of `--as`.

use clap::builder::{PossibleValue, PossibleValuesParser, ValueParser};
use serde_json::{Value, json};

use super::terminal::{Terminal, table};
use super::{context, one_layer, store_place};
use crate::{
    Backend, CacheEntry, Error, FormatEntry, HashTreeFault, Input, Materializer, Materializers, Options,
    OutputSpec, Result,
};

/// Lists the backends.
pub(crate) fn backends(terminal: Terminal) -> Result<()> {
    let backends = context::backends()?;
    let document = |backend: &Backend| {
        json!({
            "schemes": backend.schemes,
            "syntax": backend.syntax,
            "summary": backend.summary,
            "options": backend.options,
            "package": backend.package,
            "capabilities": backend.capabilities,
        })
    };
    terminal.show(&backends.iter().map(document).collect::<Vec<_>>(), || {
        let row = |backend: &Backend| {
            [&backend.schemes.join(", "), backend.syntax, backend.summary, backend.options].map(str::to_owned)
        };
        table(["SCHEMES", "IMAGE", "WHAT", "OPTIONS"], &backends.iter().map(row).collect::<Vec<_>>())
    })
}

/// Lists the formats.
pub(crate) fn formats(terminal: Terminal) -> Result<()> {
    let formats = Materializers::linked()?;
    // One that cannot be opened without options still has a name.
    let formats: Vec<(&FormatEntry, Option<Box<dyn Materializer>>)> =
        formats.iter().map(|entry| (entry, formats.open(entry.name, &Options::default()).ok())).collect();
    let documents: Vec<Value> =
        formats.iter().map(|(entry, format)| document(entry, format.as_deref())).collect();
    terminal.show(&documents, || {
        let rows: Vec<[String; 4]> = formats
            .iter()
            .map(|(entry, format)| {
                let input = format.as_ref().map_or_else(String::new, |format| input(&format.input()));
                [entry.name.to_owned(), input, entry.options.to_owned(), entry.summary.to_owned()]
            })
            .collect();
        table(["FORMAT", "MADE FROM", "OPTIONS", "WHAT"], &rows)
    })
}

/// Lists what `--store` and `--fleet` open by a URI.
pub(crate) fn stores(terminal: Terminal) -> Result<()> {
    let caches = store_place::caches()?;
    let document = |entry: &CacheEntry| {
        json!({
            "schemes": entry.schemes,
            "syntax": entry.syntax,
            "summary": entry.summary,
            "options": entry.options,
            "package": entry.package,
        })
    };
    terminal.show(&caches.iter().map(document).collect::<Vec<_>>(), || {
        let row = |entry: &CacheEntry| {
            [&entry.schemes.join(", "), entry.syntax, entry.summary, entry.options].map(str::to_owned)
        };
        table(["SCHEMES", "STORE", "WHAT", "OPTIONS"], &caches.iter().map(row).collect::<Vec<_>>())
    })
}

fn document(entry: &FormatEntry, format: Option<&dyn Materializer>) -> Value {
    let file = |file: &OutputSpec| json!({ "role": file.role, "extension": file.extension });
    json!({
        "name": entry.name,
        "package": entry.package,
        "summary": entry.summary,
        "options": entry.options,
        "version": format.map(|format| format.format().version),
        "input": format.map(|format| input(&format.input())),
        "outputs": format.map(|format| format.outputs().iter().map(file).collect::<Vec<_>>()),
    })
}

/// The options of a format, out of the `KEY=VALUE` that `-m` was given.
pub(crate) fn options_of(format: &str, given: &[String]) -> Result<Options> {
    let options = Options::parse(given.iter().map(String::as_str));
    options.map_err(|e| e.with_context("format", format))
}

fn input(input: &Input) -> String {
    match input {
        Input::Artifacts { format, .. } => (*format).to_owned(),
        Input::Image => "image".to_owned(),
        Input::Layer => "layer".to_owned(),
        Input::Nothing => "nothing".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What `--as` takes. When two crates have a format of one name, opening the images says so.
pub(crate) fn formats_named() -> ValueParser {
    named(|_, _| true)
}

/// What `layer --as` takes: it shows the formats that are made of a layer, and says why the others are not.
pub(crate) fn formats_of_layers() -> ValueParser {
    let is_made = |format: Box<dyn Materializer>| one_layer::check(&*format).is_ok();
    named(|formats, entry| formats.open(entry.name, &Options::default()).is_ok_and(is_made))
}

fn named(is_shown: impl Fn(&Materializers, &FormatEntry) -> bool) -> ValueParser {
    let Ok(formats) = Materializers::linked() else { return ValueParser::string() };
    let value = |entry: &FormatEntry| {
        PossibleValue::new(entry.name).help(entry.summary).hide(!is_shown(&formats, entry))
    };
    PossibleValuesParser::new(formats.iter().map(value).collect::<Vec<_>>()).into()
}

/// The option of formats that make hash trees.
pub(crate) const HASH_TREE: &str = "verity";

/// An error for a format that makes no hash tree, with the names of those that do.
pub(crate) fn with_hashed_formats(error: Error, formats: &Materializers) -> Error {
    if !matches!(error.detail(), Some(HashTreeFault::Missing(_))) {
        return error;
    }
    let has_option = |entry: &&FormatEntry| entry.options.contains(HASH_TREE);
    let names: Vec<&str> = formats.iter().filter(has_option).map(|entry| entry.name).collect();
    error.with_better_hint(format!("-m {HASH_TREE}=append makes one, in the formats {}", names.join(", ")))
}
