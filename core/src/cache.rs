//! Where images are kept: verified content, names, and the files made from them.

use std::fmt::{Debug, Display};
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use dyn_clone::DynClone;

use crate::materializer::{Format, Output};
use crate::source::RegistrySource;
use crate::{Blob, BlobRange, Descriptor, Digest, ErrorKind, Platform, Reference, Result};

pub use find::find_among;
pub use registry::CacheRegistry;

mod find;
mod registry;

/// A name to set or to remove.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful exist at a time; boxing would burden every caller")]
pub enum NameChange {
    /// The name is gone; its absence already is a success (rule C 62).
    Remove(Reference),
    /// The name stands for this content from now on, whatever it stood for before.
    Set(Reference, Descriptor),
}

/// What [`CacheProvider::ingest`] found.
#[derive(Debug)]
pub enum Ingest {
    /// The blob is there, whole.
    Present,
    /// The blob is missing, and this caller alone may write it now.
    Vacant(Box<dyn BlobWriter>),
}

/// One blob being written. Dropping it without [`commit`](Self::commit) or [`suspend`](Self::suspend) leaves
/// nothing behind (rule C 45).
#[async_trait]
pub trait BlobWriter: Debug + Send {
    /// Bytes already held, in order from 0: more than 0 when an earlier attempt was suspended or died. They have
    /// been hashed again.
    fn offset(&self) -> u64;

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) beyond the declared size, [`Io`](crate::ErrorKind::Io).
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Forgets all bytes, to begin again at 0.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn restart(&mut self) -> Result<()>;

    /// Verifies size and digest, makes the content durable, then visible.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) with [`Error::as_mismatch`](crate::Error::as_mismatch): nothing
    /// becomes visible. [`Io`](crate::ErrorKind::Io): likewise, and the bytes are dropped.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Keeps the bytes for a later attempt to resume.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn suspend(self: Box<Self>) -> Result<()>;
}

/// The identity of a file made from a layer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ArtifactKey {
    /// How it was made.
    pub format: Format,
    /// What it was made from: the digest of the layer's uncompressed tar.
    pub diff_id: Digest,
}

/// What [`CacheProvider::artifact`] found.
#[derive(Debug)]
pub enum Artifact {
    /// The finished file and its size in bytes. Never written to.
    Present(PathBuf, u64),
    /// The file is missing, and this caller alone may make it now.
    Vacant(Box<dyn ArtifactWriter>),
}

/// One artifact being made. Dropping it without [`commit`](Self::commit) leaves nothing behind. Blocking: for
/// the thread that runs the materializer.
pub trait ArtifactWriter: Debug + Send {
    /// Where to write; empty at first.
    fn output(&mut self) -> &mut dyn Output;

    /// Makes the file durable, then visible, and yields its path and size.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io): nothing becomes visible.
    fn commit(self: Box<Self>) -> Result<(PathBuf, u64)>;
}

/// Verified content and names, on this machine or shared by a fleet.
///
/// Nothing is visible before it is whole, verified and durable. Clones are cheap and share state. `Display` is
/// where the cache lives, and goes into every error.
#[async_trait]
pub trait CacheProvider: DynClone + Debug + Display + Send + Sync + 'static {
    /// The size of a blob that is here; `None` when it is not (rule C 40 `absent_is_ok_none_not_error`).
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Unsupported`](crate::ErrorKind::Unsupported) for a digest that cannot be
    /// verified.
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>>;

    /// Reads a blob that is here.
    ///
    /// # Contract
    /// C 68 `get_content_is_verified_or_flagged_raw`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Corrupt`](crate::ErrorKind::Corrupt), also on the stream, when
    /// the stored content is damaged.
    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob>;

    /// Begins to store a blob. One writer for each digest at a time, across tasks and processes: others wait here
    /// until the writer ends, and take over when it fails.
    ///
    /// # Contract
    /// C 43, C 44, C 45 `put_…_publishes_nothing`, C 46 `put_existing_is_idempotent_and_repairs_corrupt_existing`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Unsupported`](crate::ErrorKind::Unsupported) for a digest that cannot be
    /// verified.
    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest>;

    /// Takes damaged content out of sight, so that the next [`ingest`](Self::ingest) finds it missing. Absence
    /// is a success.
    ///
    /// # Contract
    /// C 46 `put_existing_is_idempotent_and_repairs_corrupt_existing`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn quarantine(&self, digest: &Digest) -> Result<()>;

    /// What a name stands for: a tag, a digest under a name of the same repository, or the digest of a child of
    /// such an index. `None` when it stands for nothing.
    ///
    /// # Contract
    /// C 40, C 41 `find_by_tag_digest_and_child_digest`, C 42 `find_scoped_to_repository`.
    ///
    /// # Errors
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous) when the name stands twice,
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    async fn find_descriptor(&self, reference: &Reference) -> Result<Option<Descriptor>>;

    /// Every name and what it stands for, sorted by name (rule C 67 `list_sorted_and_stable`).
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>>;

    /// Changes names in one atomic, durable transaction, safe beside other processes.
    ///
    /// # Contract
    /// C 58 to C 62.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn update(&self, changes: &[NameChange]) -> Result<()>;

    /// The file made from a layer, or the right to make it.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact>;
}

dyn_clone::clone_trait_object!(CacheProvider);

/// A boxed cache is a cache: every method forwards.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl CacheProvider for Box<dyn CacheProvider> {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        (**self).stat(digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        (**self).open(blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        (**self).ingest(blob).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        (**self).quarantine(digest).await
    }

    async fn find_descriptor(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        (**self).find_descriptor(reference).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        (**self).list().await
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        (**self).update(changes).await
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        (**self).artifact(key).await
    }
}

/// What a cache lacks of an image for one platform.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Completeness {
    /// Manifest, config and every layer are here with the right sizes.
    Complete,
    /// The name is known, these are missing: config, layers, or the manifest of the platform itself.
    Incomplete(Vec<Digest>),
    /// The name is unknown.
    Unknown,
}

/// What follows from [`CacheProvider`]'s methods, the same for every cache.
#[async_trait]
pub trait CacheProviderExt: CacheProvider {
    /// Stores a whole blob. Content that is here already is read and verified; damaged content is replaced.
    ///
    /// # Contract
    /// C 43 to C 46.
    ///
    /// # Errors
    /// As [`CacheProvider::ingest`], [`BlobWriter::commit`] and the errors of `blob`'s stream: nothing is
    /// visible then, and nothing is left behind.
    async fn put(&self, blob: Blob) -> Result<()> {
        let descriptor = blob.descriptor().clone();
        let mut writer = match self.ingest(&descriptor).await? {
            Ingest::Vacant(writer) => writer,
            Ingest::Present => match self.verify_blob(&descriptor).await {
                Ok(()) => return Ok(()),
                Err(e) if *e.kind() == ErrorKind::Corrupt => {
                    self.quarantine(descriptor.digest()).await?;
                    match self.ingest(&descriptor).await? {
                        Ingest::Vacant(writer) => writer,
                        Ingest::Present => return Ok(()),
                    }
                }
                Err(e) => return Err(e),
            },
        };
        if writer.offset() > 0 {
            writer.restart().await?;
        }
        // The writer hashes what it stores; hashing the stream as well would only cost time.
        let mut blob = blob.unverified();
        while let Some(chunk) = blob.chunk().await? {
            writer.write(chunk).await?;
        }
        writer.commit().await
    }

    /// Reads a stored blob to its end, for the verdict alone.
    ///
    /// # Errors
    /// As [`CacheProvider::open`].
    async fn verify_blob(&self, blob: &Descriptor) -> Result<()> {
        let mut blob = self.open(blob, BlobRange::FULL).await?;
        while blob.chunk().await?.is_some() {}
        Ok(())
    }

    /// The verified content of a stored document of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`CacheProvider::open`] and [`Blob::bytes`].
    async fn content(&self, blob: &Descriptor, limit: u64) -> Result<Bytes> {
        self.open(blob, BlobRange::FULL).await?.bytes(limit).await
    }

    /// Whether an image is here whole for a platform: config and every layer, sizes checked (rules C 47
    /// `contains_means_complete_for_platform`, C 48 `missing_layer_reported_by_digest`).
    ///
    /// # Errors
    /// [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound) when the index is here and has no such image;
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    async fn completeness(&self, reference: &Reference, platform: &Platform) -> Result<Completeness>
    where
        Self: Sized + Clone,
    {
        if self.find_descriptor(reference).await?.is_none() {
            return Ok(Completeness::Unknown);
        }
        let source = match self.source(reference, platform).await {
            Ok(source) => source,
            // The index is here, what it chose is not.
            Err(e) if *e.kind() == ErrorKind::NotFound => {
                let missing = e.context("blob").map(crate::digest::parse).transpose()?;
                return Ok(Completeness::Incomplete(missing.into_iter().collect()));
            }
            Err(e) => return Err(e),
        };
        let mut missing = Vec::new();
        for blob in crate::ImageSource::raw(&source).references() {
            if self.stat(blob.digest()).await? != Some(blob.size()) && !missing.contains(blob.digest()) {
                missing.push(blob.digest().clone());
            }
        }
        Ok(if missing.is_empty() { Completeness::Complete } else { Completeness::Incomplete(missing) })
    }

    /// Whether an image is here whole for a platform.
    ///
    /// # Errors
    /// As [`CacheProviderExt::completeness`].
    async fn is_cached(&self, reference: &Reference, platform: &Platform) -> Result<bool>
    where
        Self: Sized + Clone,
    {
        Ok(self.completeness(reference, platform).await? == Completeness::Complete)
    }

    /// An image that is here, opened for reading. No network.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) with the missing digest as context `blob`;
    /// [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound), [`Corrupt`](crate::ErrorKind::Corrupt).
    async fn source(&self, reference: &Reference, platform: &Platform) -> Result<RegistrySource>
    where
        Self: Sized + Clone,
    {
        RegistrySource::open(Box::new(self.as_registry()), reference, platform).await
    }

    /// This cache seen as a registry of what it holds.
    fn as_registry(&self) -> CacheRegistry
    where
        Self: Sized + Clone,
    {
        CacheRegistry(Box::new(self.clone()))
    }

    /// Removes a name; content stays until it is collected (rules C 61, C 62).
    ///
    /// # Errors
    /// As [`CacheProvider::update`].
    async fn remove(&self, reference: &Reference) -> Result<()> {
        self.update(&[NameChange::Remove(reference.clone())]).await
    }
}

impl<T: CacheProvider + ?Sized> CacheProviderExt for T {}
