//! Transactions on `index.json`.

use plyfold_core::cache::check_names;
use plyfold_core::layout_index::{ENTRIES, INDEX_LIMIT, LayoutIndex};
use plyfold_core::manifest::limits;
use plyfold_core::{Descriptor, Error, NameChange, Result};

use super::queue::NAMES;
use crate::durable;
use crate::root::Root;

/// One transaction on `index.json`: all of it or nothing, and none at all when nothing changes.
pub(super) fn change_index<T>(root: &Root, change: impl FnOnce(&mut LayoutIndex) -> Result<T>) -> Result<T> {
    let _lock = durable::lock(root, NAMES)?;
    change_locked(root, change)
}

/// As [`change_index`], for callers that hold the lock.
pub(super) fn change_locked<T>(root: &Root, change: impl FnOnce(&mut LayoutIndex) -> Result<T>) -> Result<T> {
    let before = root.index()?;
    let mut index = before.0.clone();
    let outcome = change(&mut index)?;
    let bytes = index.to_bytes();
    if bytes.len() as u64 > INDEX_LIMIT || index.entries().count() > ENTRIES {
        let error = Error::limit("index.json would become larger than readers accept");
        return Err(error.with_hint("remove names that are no longer needed"));
    }
    if bytes != before.1 {
        // Another process may have renamed a blob that this name needs, and not have synced its folder yet.
        durable::sync_folders(&root.path().join("blobs"))?;
        let path = root.path().join("index.json");
        durable::replace_document(root, "index.json", &path, 0o644, (&before.1, &bytes))?;
    }
    Ok(outcome)
}

/// Whether everything is here that names need which are about to be set; for callers that hold the lock for names.
pub(super) fn check_present(root: &Root, changes: &[NameChange]) -> Result<()> {
    let document = |blob: &Descriptor| {
        let content = root.read_blob(blob.digest(), limits::MANIFEST)?;
        content.ok_or_else(|| Error::not_found(format!("no blob {}", blob.digest())))
    };
    check_names(changes, |digest| root.blob_size(digest), document)
}
