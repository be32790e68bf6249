//! What an archive says that it lacks.

use std::collections::HashSet;

use plyfold_core::layout_index::blob_name;
use plyfold_core::manifest::{canonical_json, limits};
use plyfold_core::save::DELTA;
use plyfold_core::{Error, Result, digest};
use serde_json::Value;

use crate::images::Images;

/// What becomes of [`DELTA`].
pub(super) enum Delta {
    /// It stays, or there is none.
    Kept,
    /// The archive has all that it lacked.
    Removed,
    Rewritten(Vec<u8>),
}

impl Delta {
    /// When these members come to an archive: what is among them is no longer lacking.
    pub(super) fn of(old: &Images, known: &HashSet<String>) -> Result<Self> {
        let Some(bytes) = old.members().document(DELTA, limits::MANIFEST)? else { return Ok(Self::Kept) };
        let invalid = |e| Error::corrupt("invalid document").with_source(e).with_context("document", DELTA);
        let mut document: Value = serde_json::from_slice(&bytes).map_err(invalid)?;
        let Some(absent) = document.get_mut("absent").and_then(Value::as_array_mut) else {
            return Ok(Self::Kept);
        };
        let before = absent.len();
        absent.retain(|entry| {
            let digest =
                entry.get("digest").and_then(Value::as_str).and_then(|text| digest::parse(text).ok());
            digest.is_none_or(|digest| !known.contains(&blob_name(&digest)))
        });
        Ok(match absent.len() {
            after if after == before => Self::Kept,
            0 => Self::Removed,
            _ => Self::Rewritten(canonical_json(&document)),
        })
    }
}
