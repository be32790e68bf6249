//! Checks that the document of a snapshot and the record of a set share.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::{SnapshotFault, invalid};
use super::image::SnapshotImage;
use crate::manifest::{canonical_json, limits};
use crate::{Format, KernelVersion, Result, Size};

/// The name of the document in a directory.
pub const DOCUMENT: &str = "snapshot.json";
/// The most files that a snapshot has: as an artifact each is a layer.
pub const MAX_FILES: usize = limits::LAYERS;
/// The version of both documents.
const VERSION: u64 = 1;
/// Bytes of a file name.
pub(super) const NAME_BYTES: usize = 100;
/// Bytes of the key of a format: name, version and options.
const KEY_BYTES: usize = Format::NAME_BYTES + Format::OPTIONS_BYTES + 16;

/// What both documents have, each with files of its own.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Form<F> {
    schema_version: u64,
    pub(super) image: SnapshotImage,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) kernel: Option<KernelVersion>,
    pub(super) files: Vec<F>,
}

impl<F> Form<F> {
    pub(super) fn new(image: SnapshotImage, kernel: Option<KernelVersion>, files: Vec<F>) -> Self {
        Self { schema_version: VERSION, image, kernel, files }
    }
}

/// Parses a document of at most 4 MiB, of this version.
pub(super) fn parse<F: DeserializeOwned>(bytes: &[u8]) -> Result<Form<F>> {
    if bytes.len() as u64 > limits::CONFIG {
        let sizes = Size(bytes.len() as u64).beyond(Size(limits::CONFIG));
        return Err(SnapshotFault::Long(format!("the document of a snapshot has {sizes}")).into());
    }
    // Another version may have other fields: it is looked at first.
    let any: Value = serde_json::from_slice(bytes).map_err(invalid)?;
    match any.get("schemaVersion").map(Value::as_u64) {
        Some(Some(VERSION)) => {}
        Some(Some(other)) => return Err(SnapshotFault::Version(other).into()),
        _ => return Err(invalid("it has no schemaVersion")),
    }
    // From the bytes: a value has each key once.
    serde_json::from_slice(bytes).map_err(invalid)
}

/// Checks the number of the files and their names: of each the name, and another one that it may have elsewhere.
pub(super) fn names<'a>(files: impl ExactSizeIterator<Item = [&'a str; 2]>) -> Result<()> {
    if files.len() == 0 {
        return Err(invalid("it has no files"));
    }
    if files.len() > MAX_FILES {
        let message = format!("{} files, and a snapshot has at most {MAX_FILES}", files.len());
        return Err(SnapshotFault::Long(message).into());
    }
    let mut known = HashSet::new();
    for names in files {
        let distinct = if names[0] == names[1] { &names[..1] } else { &names };
        for name in distinct {
            if !is_name(name) {
                return Err(invalid(format!("{name:?} is not the name of a file of a set")));
            }
            if !known.insert(name.to_string()) {
                return Err(invalid(format!("two files are called {name}")));
            }
        }
    }
    Ok(())
}

/// Whether it is `STEM.EXTENSION` of lower-case letters, digits and `-`, as sets name their files, or that with
/// `.dmverity` behind it. So no name is a path, hidden, or an option of a command.
pub(super) fn is_name(name: &str) -> bool {
    let mut parts = name.strip_suffix(".dmverity").unwrap_or(name).splitn(2, '.');
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_plain);
    name.len() <= NAME_BYTES
        && !name.starts_with('-')
        && name.strip_suffix(".dmverity").unwrap_or(name).contains('.')
        && name != DOCUMENT
        && parts.all(is_part)
}

/// Checks the format of a file: its name, and its key, which begins with the name.
pub(super) fn format(name: &str, key: &str) -> Result<()> {
    let is_text = |text: &str, most| !text.is_empty() && text.len() <= most && text.bytes().all(is_plain);
    if !is_text(name, Format::NAME_BYTES) || !is_text(key, KEY_BYTES) || !key.starts_with(name) {
        return Err(invalid(format!("{name:?} of the key {key:?} is not a format")));
    }
    Ok(())
}

pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

/// JSON with sorted keys. Serde's errors are those of maps whose keys are no text, which these forms do not have.
pub(super) fn json(form: &impl Serialize) -> Vec<u8> {
    canonical_json(&serde_json::to_value(form).unwrap_or(Value::Null))
}
