//! Public structs of public fields and public enums can grow: they are `#[non_exhaustive]`, or named here with why not.

use std::collections::BTreeSet;
use std::fs;

use super::baseline;
use super::no_flags::{product, rust_files};

/// Options: callers write those that they set, and `..Default::default()`. A new one has a default.
const OPTIONS: &[&str] = &[
    "Collect",
    "Config",
    "ConfigChange",
    "Conversion",
    "CopyJob",
    "CopyOptions",
    "DaemonConfig",
    "Edit",
    "FileOptions",
    "FlatOptions",
    "LayerLimits",
    "LayerOptions",
    "LoadOptions",
    "PullOptions",
    "Reading",
    "Retry",
    "SaveOptions",
    "SyncOptions",
    "TreeLimits",
    "Verify",
];
/// What an implementer of a trait, or a table of the host configuration, is made of: a new field is owed by all.
const MADE_ELSEWHERE: &[&str] = &[
    "ArtifactKey",
    "Backend",
    "CacheEntry",
    "Capabilities",
    "ClientCertificate",
    "Collected",
    "Damage",
    "DataExtent",
    "Entry",
    "Format",
    "FormatEntry",
    "LayerForm",
    "Held",
    "HeldArtifact",
    "Holdings",
    "Host",
    "Hosts",
    "KeptArtifact",
    "KernelVersion",
    "LayerReader",
    "LayerRun",
    "LayerTree",
    "Location",
    "LowerLink",
    "Metadata",
    "Mismatch",
    "Names",
    "Opened",
    "Owner",
    "Page",
    "PartialBlob",
    "Remains",
    "Timestamp",
];
/// What has to be matched to the last variant: another one is new work for each who matches.
const CLOSED: &[&str] =
    &["Artifact", "Change", "Compression", "Document", "EntryKind", "FileKind", "Ingest", "NameChange"];
/// The conformance suite: what fixtures take and give, and rules.
const CONFORMANCE: &[&str] = &[
    "Auth",
    "CacheUnderTest",
    "Check",
    "Condition",
    "Fault",
    "Fidelity",
    "FixtureImage",
    "Form",
    "HttpSetup",
    "LayerEntry",
    "Login",
    "Mirror",
    "Options",
    "Outcome",
    "RetryAfter",
    "Role",
    "Rule",
    "Sample",
    "SampleBlob",
    "SampleImage",
    "SampleLayer",
    "Served",
    "TreeLine",
    "Verdict",
];

#[test]
fn what_plyfold_returns_can_grow() {
    let mut files = product();
    files.extend(rust_files(&baseline::root().join("conformance/src")));
    let open: BTreeSet<String> =
        files.iter().flat_map(|file| open(&fs::read_to_string(file).unwrap())).collect();
    let reviewed = [OPTIONS, MADE_ELSEWHERE, CLOSED, CONFORMANCE].concat();
    let reviewed: BTreeSet<String> = reviewed.into_iter().map(str::to_owned).collect();
    let new: Vec<_> = open.difference(&reviewed).collect();
    assert!(new.is_empty(), "make them #[non_exhaustive], or say here why not: {new:?}");
    let gone: Vec<_> = reviewed.difference(&open).collect();
    assert!(gone.is_empty(), "they are not open any more: {gone:?}");
}

/// The public enums, and structs whose every field is public, without the attribute.
fn open(source: &str) -> Vec<String> {
    let mut open = Vec::new();
    let mut attributes = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("#[") || line.starts_with("//") {
            attributes.push_str(line);
            continue;
        }
        let is_marked = std::mem::take(&mut attributes).contains("#[non_exhaustive]");
        let item = line.strip_prefix("pub enum ").or(line.strip_prefix("pub struct "));
        let Some(item) = item.filter(|item| item.ends_with('{') && !is_marked) else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
        let is_field = |line: &&&str| {
            let name = line.trim_start_matches("    ");
            line.len() - name.len() == 4 && name.contains(": ") && !name.starts_with(['#', '/'])
        };
        let is_public = |line: &&str| line.starts_with("    pub ");
        let is_open = line.starts_with("pub enum ") || body.iter().filter(is_field).all(is_public);
        if is_open && !body.is_empty() {
            let end = item.find(|c: char| !c.is_alphanumeric()).unwrap_or(item.len());
            open.push(item[..end].to_owned());
        }
    }
    open
}

#[test]
fn open_types_are_found() {
    let source = "
        pub struct One {
            pub a: u8,
            /// A: b.
            pub b: u8,
        }
        #[derive(Debug)]
        #[non_exhaustive]
        pub struct Two {
            pub a: u8,
        }
        pub struct Three<'a> {
            pub a: u8,
            b: u8,
        }
        pub enum Four {
            A,
            B { c: u8 },
        }
        pub(crate) struct Five {
            pub(crate) a: u8,
        }
    "
    .replace("\n        ", "\n");
    assert_eq!(open(&source), ["One", "Four"]);
}
