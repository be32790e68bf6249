//! Repair of a damaged `oci-layout` file.
//!
//! A file that a tool did not sync may be empty, or full of zeros, after a power cut. A store whose other files
//! are complete can be repaired.

use std::fs;

use plyfold_core::layout_index::{INDEX_LIMIT, LAYOUT, LAYOUT_LIMIT, LayoutIndex};
use plyfold_core::{Error, Result};
use serde::de::IgnoredAny;

use super::quarantine;
use super::queue::NAMES;
use crate::durable;
use crate::root::Root;

/// Sets a damaged `oci-layout` aside, and writes one in its place; `damage` where that is not safe: where it may have
/// had another version, where it cannot be written, and where nothing else shows that this is a store.
pub(super) fn replace(root: &Root, damage: Error) -> Result<()> {
    let refused = |damage: Error| {
        let hint = format!("if this is a layout of version 1, its file oci-layout must say {LAYOUT}");
        Err(damage.with_hint(hint))
    };
    if root.is_read_only() || !is_blank(root)? || !is_store(root) {
        return refused(damage);
    }
    let _lock = durable::lock(root, NAMES)?;
    // Another process may have repaired it meanwhile.
    if root.is_layout().is_ok_and(|is_layout| is_layout) {
        return Ok(());
    }
    if !is_blank(root)? {
        return refused(damage);
    }
    let path = root.path().join("oci-layout");
    if let Some(aside) = quarantine::keep(root, &path, "oci-layout")? {
        tracing::warn!("{} is damaged and was moved to {}", path.display(), aside.display());
    }
    durable::write_document(root, "oci-layout", &path, 0o644, LAYOUT.as_bytes())
}

/// Whether the file is no JSON, as all its versions are, and has no number in it that another version begins with.
fn is_blank(root: &Root) -> Result<bool> {
    let Some(bytes) = root.document("oci-layout", LAYOUT_LIMIT)? else { return Ok(true) };
    let mut numbers = bytes.split(|c| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    Ok(serde_json::from_slice::<IgnoredAny>(&bytes).is_err()
        && numbers.next().is_none_or(|first| first == b"1"))
}

/// Whether there is content, and beside it names, or what only a store has.
fn is_store(root: &Root) -> bool {
    let is_folder = |name| fs::symlink_metadata(root.path().join(name)).is_ok_and(|found| found.is_dir());
    let has_names = || {
        let bytes = root.document("index.json", INDEX_LIMIT).ok().flatten();
        bytes.is_some_and(|bytes| LayoutIndex::parse(&bytes, root.path()).is_ok())
    };
    is_folder("blobs") && (is_folder("locks") || has_names())
}
