//! Any layout directory as a registry.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::layout_index::LayoutIndex;
use plyfold_core::manifest::{Document, RawManifest, is_index, limits};
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt, Capabilities, Descriptor, Digest, Error, ImageRegistry,
    NameChange, Names, Page, Reference, Result, reference,
};

use crate::config::{CAPABILITIES, Config};
use crate::durable;
use crate::root::{Root, blocking};
use crate::store::{Store, change_index};

/// An OCI layout directory of whatever origin. Clones share a handle.
///
/// A layout has one pool of content for all its names: a digest is found under every repository.
/// Blobs are pushed as the [`Store`] writes them; the layout is made by the first push when there is none.
#[derive(Clone, Debug)]
pub struct Layout {
    store: Store,
}

impl Layout {
    /// The layout at `path`, which is looked at only when it is used.
    pub fn new(path: impl Into<PathBuf>, config: Config) -> Self {
        Self { store: Store::on(Root::new(path.into(), false, config.follow_symlinks)) }
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Root) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = self.store.root().clone();
        blocking(move || work(&root)).await.map_err(|e| e.with_endpoint(self))
    }

    async fn prepare(&self) -> Result<()> {
        let store = self.store.clone();
        blocking(move || store.prepare()).await.map_err(|e| e.with_endpoint(self))
    }

    async fn names(&self) -> Result<Vec<Reference>> {
        self.work(|root| Ok(root.index()?.0.references())).await
    }
}

#[async_trait]
impl ImageRegistry for Layout {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        let wanted = reference::digest_of(name)?;
        let image = name.clone();
        self.work(move |root| manifest(root, &image, wanted.as_ref())).await.map_err(|e| e.with_image(name))
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.store.open(blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        let names = self.names().await?;
        let here: Vec<_> = names.iter().filter(|name| reference::repository_of(name) == repository).collect();
        if here.is_empty() {
            return Err(Error::not_found(format!("no such repository {repository}")).with_endpoint(self));
        }
        let mut tags: Vec<&str> = here.into_iter().filter_map(Reference::tag).collect();
        tags.sort_unstable();
        tags.dedup();
        Ok(page.of(tags))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        let mut repositories: Vec<String> =
            self.names().await?.iter().map(reference::repository_of).collect();
        repositories.sort();
        repositories.dedup();
        Ok(page.of(repositories))
    }

    async fn push_blob(&self, _: &Reference, blob: Blob) -> Result<()> {
        self.prepare().await?;
        self.store.put(blob).await
    }

    async fn has_blob(&self, _: &Reference, blob: &Descriptor) -> Result<bool> {
        // What is wrong with the directory is for the push to say, which may also make one.
        Ok(self.store.stat(blob.digest()).await.is_ok_and(|found| found == Some(blob.size())))
    }

    async fn mount_blob(&self, name: &Reference, blob: &Descriptor, _: &Reference) -> Result<bool> {
        self.prepare().await?;
        self.has_blob(name, blob).await
    }

    async fn push_manifest(&self, name: &Reference, manifest: &RawManifest) -> Result<()> {
        let digest = reference::digest_of(name)?.unwrap_or_else(|| manifest.digest().clone());
        let media_type = manifest.descriptor().media_type();
        let named = RawManifest::verified(manifest.bytes().clone(), Some(media_type), &digest)?;
        self.prepare().await?;
        self.store.put(Blob::from_bytes(named.descriptor(), BlobRange::FULL, named.bytes())?).await?;
        // Without a tag it is content alone, such as the child of an index that gets its name last.
        let Some(tag) = name.tag() else { return Ok(()) };
        let name = reference::parse(&format!("{}:{tag}", reference::repository_of(name)))?;
        self.store.update(&[NameChange::Set(name, named.descriptor().clone())]).await
    }

    async fn delete(&self, name: &Reference) -> Result<()> {
        let wanted = reference::digest_of(name)?;
        let image = name.clone();
        let deleted = self.work(move |root| match wanted {
            Some(digest) => delete_digest(root, &image, &digest),
            None => change_index(root, |index| {
                if index.remove(&image) { Ok(()) } else { Err(Error::not_found("no such name")) }
            }),
        });
        deleted.await.map_err(|e| e.with_image(name))
    }
}

fn manifest(root: &Root, name: &Reference, wanted: Option<&Digest>) -> Result<RawManifest> {
    let names = root.index()?;
    let (index, bytes) = (&names.0, &names.1);
    let content = |digest: &Digest| -> Result<Bytes> {
        let found = root.read_blob(digest, limits::MANIFEST)?;
        found.ok_or_else(|| Error::not_found(format!("no manifest {digest}")).with_context("blob", digest))
    };
    if let Some(digest) = wanted {
        let declared = index.entry(digest).map(Descriptor::media_type);
        let itself = index.as_image(digest, bytes);
        return itself.unwrap_or_else(|| RawManifest::verified(content(digest)?, declared, digest));
    }
    let Some(found) = index.find(name)? else {
        let names: Vec<String> = index.names().iter().take(20).map(|(name, _)| name.whole()).collect();
        let error = Error::not_found("no such name in the layout");
        return Err(match names.as_slice() {
            [] => error.with_hint("no image in it has a name: choose one by DIRECTORY@DIGEST"),
            names => error.with_hint(format!("it holds {}", names.join(", "))),
        });
    };
    let itself = index.as_image(found.digest(), bytes);
    itself.unwrap_or_else(|| RawManifest::described(content(found.digest())?, &found))
}

/// Removes the names of a digest in the repository, and the manifest itself when nothing else leads to it.
fn delete_digest(root: &Root, name: &Reference, digest: &Digest) -> Result<()> {
    let repository = reference::repository_of(name);
    let (removed, needed) = change_index(root, |index| {
        let removed = index.remove_digest(&repository, digest);
        Ok((removed, leads_to(root, index, digest)?))
    })?;
    if needed {
        let hint = "delete the index by its own name or digest";
        let refusal = Error::unsupported(format!("{digest} is needed by another image")).with_hint(hint);
        return if removed { Ok(()) } else { Err(refusal) };
    }
    let path = root.blob_path(digest);
    match fs::remove_file(&path) {
        Ok(()) => path.parent().map_or(Ok(()), durable::sync_dir),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && removed => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::not_found(format!("no manifest {digest}")))
        }
        Err(e) => Err(Error::io(format!("removing {}", path.display()), e)),
    }
}

/// Whether any entry is this digest, or an index over it at any depth.
fn leads_to(root: &Root, index: &LayoutIndex, digest: &Digest) -> Result<bool> {
    let mut level: Vec<Descriptor> = index.entries().cloned().collect();
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

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}
