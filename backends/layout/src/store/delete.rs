//! Deletion by name and by digest.

use std::collections::HashSet;
use std::fs;
use std::io;

use plyfold_core::durable::{parent, sync_folder};
use plyfold_core::layout_index::LayoutIndex;
use plyfold_core::manifest::{Document, RawManifest, is_index, limits};
use plyfold_core::{Advice, Descriptor, Digest, Error, Reference, Result, reference};

use super::handle::Store;
use super::holdings;
use super::index::{change_index, change_locked};
use super::lease::Alone;
use crate::root::Root;

impl Store {
    /// Removes a name, or with a digest all names of a manifest in the repository and the manifest itself, unless an
    /// index or a lease leads to it.
    pub(crate) async fn delete(&self, name: &Reference) -> Result<()> {
        let wanted = reference::digest_of(name)?;
        let image = name.clone();
        let Some(digest) = wanted else {
            let remove = move |index: &mut LayoutIndex| {
                if index.remove(&image) { Ok(()) } else { Err(Error::not_found("no such name")) }
            };
            return self.work(move |root| change_index(root, remove)).await;
        };
        self.work(|root| root.index().map(drop)).await?;
        // No lease is taken and no name changes while this lock is held.
        let alone = Alone::with(self).await?;
        let deleted = self.work(move |root| {
            let deleted = delete_digest(root, &image, &digest);
            drop(alone);
            deleted
        });
        deleted.await
    }
}

/// Removes the names of a digest in the repository, and the manifest itself when nothing else leads to it.
fn delete_digest(root: &Root, name: &Reference, digest: &Digest) -> Result<()> {
    let repository = reference::repository_of(name);
    let is_leased = is_leased(root, digest)?;
    let (removed, is_needed) = change_locked(root, |index| {
        let removed = index.remove_digest(&repository, digest);
        Ok((removed, is_leased || reaches(root, index.entries().cloned().collect(), digest)?))
    })?;
    let refused = |why: &str| Error::unsupported(format!("{digest} {why}"));
    match (removed, is_leased, is_needed) {
        (true, _, true) => return Ok(()),
        (_, true, _) => {
            return Err(refused("is in use by a running pull or push").with_advice(Advice::CollectLater));
        }
        (_, _, true) => {
            let error = refused("is needed by another image");
            return Err(error.with_hint("delete the index by its own name or digest"));
        }
        _ => {}
    }
    let path = root.blob_path(digest);
    match fs::remove_file(&path) {
        Ok(()) => sync_folder(parent(&path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && removed => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Error::not_found(format!("no manifest {digest}")))
        }
        Err(e) => Err(Error::io(format!("removing {}", path.display()), e)),
    }
}

/// Whether a lease has this digest, or an index over it at any depth. Of leased blobs only the digests are known.
fn is_leased(root: &Root, digest: &Digest) -> Result<bool> {
    let leased = holdings::leased(root)?;
    let mut documents = Vec::new();
    for digest in &leased {
        let Some(content) = holdings::document(root, digest)? else { continue };
        // Content that is not a document, or is damaged, has no references.
        if let Ok(raw) = RawManifest::verified(content, None, digest) {
            documents.push(raw.descriptor().clone());
        }
    }
    Ok(leased.contains(digest) || reaches(root, documents, digest)?)
}

/// Whether one of the descriptors has this digest, or is an index over it at any depth.
fn reaches(root: &Root, mut level: Vec<Descriptor>, digest: &Digest) -> Result<bool> {
    let mut read = HashSet::new();
    for _ in 0..=limits::NESTING {
        if level.iter().any(|entry| entry.digest() == digest) {
            return Ok(true);
        }
        let mut below = Vec::new();
        for entry in level.iter().filter(|entry| is_index(entry.media_type())) {
            if !read.insert(entry.digest().clone()) {
                continue;
            }
            let Some(bytes) = root.read_blob(entry.digest(), limits::MANIFEST)? else { continue };
            if let Document::Index(inner) = RawManifest::described(bytes, entry)?.document() {
                below.extend(inner.manifests().iter().cloned());
            }
        }
        level = below;
    }
    Ok(false)
}
