//! What has to be here before a name is set.

use std::collections::HashSet;

use bytes::Bytes;

use super::NameChange;
use super::content::MissingBlob;
use crate::manifest::{RawManifest, is_document};
use crate::{Descriptor, Digest, Error, Result};

/// Refuses names for content that is incomplete: for authors of caches, in [`update`](super::CacheProvider::update)
/// while nothing can be collected. `size` tells how large a blob is that is here, `document` reads one.
///
/// What a name needs is what it stands for and, of a manifest, its [requirements](RawManifest::requirements). An index
/// may list images that are not here: the writer of the index [requires](NameChange::Require) those that have to be.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) with the digests and the first one as context `blob`;
/// [`Corrupt`](crate::ErrorKind::Corrupt) for a document that is damaged; those of the two functions.
pub fn check_names(
    changes: &[NameChange],
    size: impl Fn(&Digest) -> Result<Option<u64>>,
    document: impl Fn(&Descriptor) -> Result<Bytes>,
) -> Result<()> {
    let mut checked: HashSet<(&Digest, u64)> = HashSet::new();
    for change in changes {
        let (NameChange::Set(_, top) | NameChange::Require(top)) = change else { continue };
        let at = |e: Error| match change {
            NameChange::Set(name, _) => e.with_image(name),
            _ => e,
        };
        if !checked.insert((top.digest(), top.size())) {
            continue;
        }
        let missing = missing(top, &size, &document).map_err(at)?;
        if !missing.is_empty() {
            return Err(at(not_here(&missing)));
        }
    }
    Ok(())
}

fn missing(
    top: &Descriptor,
    size: &impl Fn(&Digest) -> Result<Option<u64>>,
    document: &impl Fn(&Descriptor) -> Result<Bytes>,
) -> Result<Vec<Digest>> {
    if size(top.digest())? != Some(top.size()) {
        return Ok(vec![top.digest().clone()]);
    }
    let mut missing = Vec::new();
    if is_document(top.media_type()) {
        for blob in RawManifest::described(document(top)?, top)?.requirements() {
            if size(blob.digest())? != Some(blob.size()) && !missing.contains(blob.digest()) {
                missing.push(blob.digest().clone());
            }
        }
    }
    Ok(missing)
}

/// The error for content that a name needs and that is not here.
pub(super) fn not_here(missing: &[Digest]) -> Error {
    lacking("content is not in the store", missing)
}

/// The error that these blobs are not there: what that means, and their list.
pub fn lacking(what: &str, missing: &[Digest]) -> Error {
    let list: Vec<&str> = missing.iter().map(AsRef::as_ref).take(20).collect();
    let error = Error::not_found(format!("{what}: {}", list.join(", ")));
    match missing.first() {
        Some(first) => error.with_context("blob", first).with_detail(MissingBlob(first.clone())),
        None => error,
    }
}
