//! Control flow reads the kind, the details and the advice of an error, and never its text: a message may be reworded.

use std::fs;

use super::baseline;
use super::no_flags::{product, rust_files};

/// Calls that give the text of an error, or a part of it.
const TEXTS: [&str; 6] =
    [".message()", ".to_string()", ".hint()", ".contexts()", "format!(\"{", ".context(\""];
/// What decides something by a text, right behind such a call.
const READS: [&str; 12] = [
    ".contains(",
    ".ends_with(",
    ".find(",
    ".split(",
    ".split_once(",
    ".starts_with(",
    ".strip_prefix(",
    ".strip_suffix(",
    ".is_some_and(",
    ".is_none_or(",
    "==",
    "!=",
];
/// Texts that are read although they look as those of errors do.
const REVIEWED: [(&str, &str, &str); 7] = [
    ("backends/object-store/src/error.rs", "status code:", "no field of a foreign error has the status"),
    (
        "backends/object-store/src/error.rs",
        "<Code>",
        "no field of a foreign error has the document of the answer",
    ),
    ("core/src/copy/ends.rs", "self.from.to_string()==", "two registries are one when they are shown alike"),
    ("core/src/options.rs", "number.to_string()==", "a number, and the text that it was given as"),
    ("core/src/size.rs", "other.to_string()", "two sizes that are shown alike"),
    ("plyfold/src/command/context.rs", "from.registry.to_string()==", "as in copy.rs"),
    ("plyfold/src/command/failure.rs", "error.message().contains(", "what is shown is not shown twice"),
];

#[test]
fn control_flow_reads_no_text_of_an_error() {
    let root = baseline::root();
    let mut found = Vec::new();
    let mut files = product();
    files.extend(rust_files(&root.join("conformance/src")));
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        for read in reads(&fs::read_to_string(&file).unwrap()) {
            let is_reviewed = |(at, text, _): &(&str, &str, &str)| *at == name && read.contains(text);
            if !REVIEWED.iter().any(is_reviewed) {
                found.push(format!("{name}: {read}"));
            }
        }
    }
    assert!(found.is_empty(), "give the error a detail, and match on that:\n{}", found.join("\n"));
}

/// Names that errors have.
const ERRORS: [&str; 6] = ["cause", "e", "err", "error", "failure", "source"];

/// The statements that decide something by the text of an error. What is asserted, in a rule or in a test, may be a text.
fn reads(source: &str) -> Vec<String> {
    let code = source.split_once("#[cfg(test)]\nmod tests {").map_or(source, |(code, _)| code);
    let lines = code.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    // One space where a line ended, and none where a chain of calls goes on.
    let joined =
        lines.collect::<Vec<_>>().join(" ").replace(" .", ".").replace(" == ", "==").replace(" != ", "!=");
    let statements = joined.split([';', '{', '}']).collect::<Vec<_>>();
    // `format!("{e}")` has braces of its own.
    let whole = joined.split(';').filter(|statement| statement.contains("format!(\"{"));
    let reads_now = |statement: &&str| {
        let asserts = statement.trim_start().starts_with("assert") || statement.contains(" assert");
        !asserts && !statement.contains("prop_assert") && TEXTS.iter().any(|text| is_read(statement, text))
    };
    let held = held(&statements);
    let reads_later = |statement: &&str| held.iter().any(|name| is_read(statement, name));
    let later = statements.iter().copied().filter(reads_later);
    statements
        .iter()
        .copied()
        .chain(whole)
        .filter(reads_now)
        .chain(later)
        .map(|read| read.trim().to_owned())
        .collect()
}

/// Variables and fields that hold the text of an error.
fn held(statements: &[&str]) -> Vec<String> {
    let name = |statement: &&str| {
        let (place, text) = statement.split_once('=')?;
        let error = text.trim().strip_suffix(".to_string()").or(text.trim().strip_suffix(".message()"))?;
        let is_error = ERRORS.contains(&error) || ERRORS.iter().any(|e| error.ends_with(&format!(" {e}")));
        let name = place.trim().rsplit([' ', '.']).next()?;
        is_error.then(|| name.to_owned())
    };
    statements.iter().filter_map(name).collect()
}

fn is_read(statement: &str, text: &str) -> bool {
    statement.match_indices(text).any(|(at, _)| {
        let behind = &statement[at + text.len()..];
        match text {
            // Whatever reads a value of the context, decides by it.
            ".context(\"" => true,
            "format!(\"{" => behind
                .find(')')
                .is_some_and(|end| READS.iter().any(|read| behind[end + 1..].starts_with(read))),
            _ => READS.iter().any(|read| behind.starts_with(read)),
        }
    })
}

#[test]
fn reads_of_text_are_found() {
    for read in [
        "if e.to_string().contains(\"dns error\") {",
        "let is_unknown = error\n    .message()\n    .starts_with(\"unknown\");",
        "if error.context(\"range\").is_some() {",
        "if format!(\"{other:?}\").contains(\"CaUsedAsEndEntity\") {",
        "error.hint().is_some_and(|hint| hint.contains(\"full\"))",
        "if a.to_string() == b {",
        "let text = e.to_string(); match text.strip_prefix(MARK) {",
        "causes.last = error.to_string(); causes.is_dns |= causes.last.starts_with(\"dns error\");",
    ] {
        assert_eq!(reads(read).len(), 1, "{read}");
    }
    for other in [
        "let text = error.to_string();",
        "assert!(error.to_string().contains(\"sha256\"), \"{error}\");",
        "error.with_context(\"range\", stated)",
        "// e.to_string().contains(\"dns error\")",
    ] {
        assert_eq!(reads(other), [] as [&str; 0], "{other}");
    }
}
