//! Finding by name and by digest, for caches that hold their names as a list.

use std::collections::HashSet;

use futures_util::future::BoxFuture;

use super::{CacheProvider, content};
use crate::manifest::{Document, RawManifest, is_index, limits};
use crate::{Descriptor, Digest, Error, Reference, Result, reference};

/// What `reference` stands for, given all of a cache's names: the body of [`CacheProvider::find_descriptor`] for
/// caches that hold their names as a list.
///
/// # Errors
/// As [`CacheProvider::find_descriptor`].
pub async fn find_among(
    cache: &dyn CacheProvider,
    names: &[(Reference, Descriptor)],
    reference: &Reference,
) -> Result<Option<Descriptor>> {
    let Some(digest) = reference::digest_of(reference)? else {
        let mut found = names.iter().filter(|(name, _)| name == reference).map(|(_, descriptor)| descriptor);
        let first = found.next();
        if found.any(|other| Some(other) != first) {
            return Err(Error::ambiguous("the name stands for several images").with_image(reference));
        }
        return Ok(first.cloned());
    };
    let repository = reference::repository_of(reference);
    let here = || names.iter().filter(|(name, _)| reference::repository_of(name) == repository);
    if let Some((_, descriptor)) = here().find(|(_, descriptor)| *descriptor.digest() == digest) {
        return Ok(Some(descriptor.clone()));
    }
    let mut seen = HashSet::new();
    for (_, descriptor) in here().filter(|(_, descriptor)| is_index(descriptor.media_type())) {
        if let Some(child) = find_child(cache, descriptor, &digest, limits::NESTING, &mut seen).await? {
            return Ok(Some(child));
        }
    }
    Ok(None)
}

/// A child, at any depth, of an index. Both are in the cache. An index that was `seen` with at least this depth left is
/// skipped.
fn find_child<'a>(
    cache: &'a dyn CacheProvider,
    index: &'a Descriptor,
    digest: &'a Digest,
    depth: usize,
    seen: &'a mut HashSet<(Digest, usize)>,
) -> BoxFuture<'a, Result<Option<Descriptor>>> {
    Box::pin(async move {
        if !seen.insert((index.digest().clone(), depth)) {
            return Ok(None);
        }
        let bytes = Error::found(content::read(cache, index, limits::MANIFEST).await)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let raw = RawManifest::described(bytes, index)?;
        let Document::Index(document) = raw.document() else { return Ok(None) };
        for child in document.manifests() {
            if child.digest() == digest {
                return Ok(cache.stat(digest).await?.is_some().then(|| child.clone()));
            }
        }
        for child in document.manifests().iter().filter(|child| is_index(child.media_type()) && depth > 0) {
            if let Some(found) = find_child(cache, child, digest, depth - 1, seen).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    })
}
