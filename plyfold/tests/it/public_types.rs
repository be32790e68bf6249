//! The public API of the libraries has no type of another crate but those that CONTRIBUTING lists: a new version of a
//! client or of a runtime is then no new version of plyfold.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::baseline;
use super::no_flags::libraries;

/// The crates whose types may stand in the public API.
const ALLOWED: [&str; 8] =
    ["async_trait", "bytes", "dyn_clone", "futures_util", "inventory", "oci_spec", "serde", "serde_json"];
/// Types beside these that are reviewed.
const REVIEWED: [(&str, &str); 2] = [
    // The trait of every service, for a program that has made a client by itself.
    ("backends/object-store/src/cache.rs", "dyn ObjectStore"),
    // The trait that every reader of the ecosystem implements.
    ("plyfold/src/images/load.rs", "AsyncRead"),
];

#[test]
fn the_public_api_has_no_type_of_a_client_or_a_runtime() {
    let root = baseline::root();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[workspace.dependencies]\n").unwrap();
    let (dependencies, _) = dependencies.split_once("\n[").unwrap();
    let names = dependencies
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.replace('-', "_"));
    let foreign: BTreeSet<String> =
        names.filter(|name| !name.starts_with("plyfold") && !ALLOWED.contains(&name.as_str())).collect();
    assert!(foreign.contains("tokio") && foreign.contains("reqwest"), "{foreign:?}");
    let guide = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let unlisted: Vec<_> =
        ALLOWED.iter().filter(|name| !guide.contains(&format!("`{}`", name.replace('_', "-")))).collect();
    assert!(unlisted.is_empty(), "CONTRIBUTING.md does not list {unlisted:?}");
    let mut found = Vec::new();
    // The one crate whose purpose is a client of the program's own.
    let is_about_a_client = |file: &PathBuf| file.starts_with(root.join("backends/oci-client"));
    for file in libraries().into_iter().filter(|file| !is_about_a_client(file)) {
        for shown in shown(&fs::read_to_string(&file).unwrap(), &foreign) {
            let name = file.strip_prefix(root).unwrap();
            if !REVIEWED.iter().any(|(at, what)| name.ends_with(at) && shown.contains(what)) {
                found.push(format!("{}: {shown}", name.display()));
            }
        }
    }
    assert!(found.is_empty(), "types of other crates in the public API:\n{}", found.join("\n"));
}

/// The public items of a file that name a type of a foreign crate.
fn shown(source: &str, foreign: &BTreeSet<String>) -> Vec<String> {
    let code = source.split_once("#[cfg(test)]\nmod tests {").map_or(source, |(code, _)| code);
    let lines = code.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with('#'));
    let code = lines.collect::<Vec<_>>().join("\n");
    let imported: BTreeSet<&str> =
        code.split("\nuse ").skip(1).flat_map(|import| names(import, foreign)).collect();
    let is_foreign = |item: &&str| {
        let is_root = |name: &str| item.contains(&format!("{name}::")) || *item == format!("use {name}");
        words(item).any(|word| imported.contains(word) || foreign.contains(word) && is_root(word))
    };
    let items = code.split("\npub ").skip(1).map(item);
    items.filter(is_foreign).map(|item| item.replace('\n', " ")).collect()
}

/// What an import of a foreign crate names; what is imported as `_` has no name.
fn names<'a>(import: &'a str, foreign: &BTreeSet<String>) -> Vec<&'a str> {
    let import = import.split(';').next().unwrap_or_default();
    let is_foreign = words(import).next().is_some_and(|first| foreign.contains(first));
    let parts = import.split([',', '{']).filter(|part| is_foreign && !part.contains(" as _"));
    parts.flat_map(words).filter(|word| !["self", "as"].contains(word) && !foreign.contains(*word)).collect()
}

/// A field ends with its line, a function where its body begins.
fn item(code: &str) -> &str {
    let name = code.split([':', '(', '<', ' ']).next().unwrap_or_default();
    let is_of_a_line = code[name.len()..].starts_with(": ") || ["struct", "enum"].contains(&name);
    let end = if is_of_a_line { &['\n'][..] } else { &['{', ';'][..] };
    code.split(end).next().unwrap_or_default()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[test]
fn foreign_types_are_found() {
    let foreign = BTreeSet::from(["tokio".to_owned(), "oci_client".to_owned()]);
    let source = "
        use tokio::sync::mpsc;
        use oci_client::{Reference, secrets::RegistryAuth as Auth};
        use bytes::Bytes;
        impl A {
            pub fn one(receiver: mpsc::Receiver<Bytes>) -> Self {
                tokio::spawn(());
            }
            pub fn two(
                auth: Auth,
            ) -> Self {}
            pub fn three(bytes: Bytes) {}
            pub(crate) fn four(auth: Auth) {}
        }
        pub use oci_client;
        pub struct B {
            pub five: tokio::runtime::Handle,
            six: mpsc::Sender<()>,
        }
    ";
    let shown = shown(source, &foreign);
    assert_eq!(
        shown,
        [
            "fn one(receiver: mpsc::Receiver<Bytes>) -> Self ",
            "fn two( auth: Auth, ) -> Self ",
            "use oci_client",
            "five: tokio::runtime::Handle,"
        ]
    );
}
