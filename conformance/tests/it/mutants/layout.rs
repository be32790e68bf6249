//! Mutants of a cache that is an OCI layout directory.

mod foreign;
mod pushes;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_conformance::LayoutFixture;
use plyfold_core::cache::CachedNames;
use plyfold_core::{
    Artifact, ArtifactKey, Blob, BlobRange, BlobWriter, CacheProvider, Collect, Collected, Descriptor,
    Digest, ErrorKind, ImageRegistry, Ingest, Lease, NameChange, Page, Reference, Result, Usage, Verified,
    Verify,
};
use plyfold_layout::{Config, Layout, Store};
use serde_json::{Value, json};

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LayoutFault {
    BlobsInUpperCase,
    DeletesLeased,
    FieldsLost,
    ForeignFilesSwept,
    LockIsAFile,
    NamelessUnknown,
    NamesUnchecked,
    None,
    NotesOpening,
    NotesReading,
    NotesRegistry,
    NullRefused,
    OverwritesCorruptIndex,
    OverwritesCorruptVersion,
    PortsCutOff,
    PushesUnleased,
    RefNamesUnwritten,
    SizesUnknown,
    SweepsAll,
    TagsAlone,
    TempsAmongBlobs,
    UntypedRefused,
    VersionIgnored,
    VersionOfItsOwn,
    WritesInPlace,
}

/// Stores with one fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct BrokenLayouts(pub(super) LayoutFault);

#[async_trait]
impl LayoutFixture for BrokenLayouts {
    async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>> {
        if let Some(refused) = foreign::refuse(self.0, directory) {
            return Err(refused);
        }
        foreign::before_opening(self.0, directory);
        let inner = match Store::open(directory) {
            Err(e) if self.0 == LayoutFault::VersionIgnored && *e.kind() == ErrorKind::Unsupported => {
                fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
                Store::open(directory)?
            }
            outcome => outcome?,
        };
        if self.0 == LayoutFault::SweepsAll {
            for entry in fs::read_dir(directory.join("ingest")).into_iter().flatten() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
        foreign::after_opening(self.0, directory);
        Ok(Box::new(BrokenLayout { inner, fault: self.0 }))
    }

    async fn registry(&self, directory: &Path) -> Option<Box<dyn ImageRegistry>> {
        if self.0 == LayoutFault::NotesRegistry {
            fs::write(directory.join("last-read"), "now").unwrap();
        }
        Some(pushes::broken(self.0, directory, Layout::new(directory, Config::default())))
    }

    fn patience(&self) -> Duration {
        if self.0 == LayoutFault::None { Duration::from_secs(30) } else { Duration::from_secs(2) }
    }
}

#[derive(Clone, Debug)]
struct BrokenLayout {
    inner: Store,
    fault: LayoutFault,
}

impl BrokenLayout {
    fn index(&self) -> PathBuf {
        self.inner.path().join("index.json")
    }

    /// Writes only what the specification knows.
    fn lose_fields(&self) {
        let index: Value = serde_json::from_slice(&fs::read(self.index()).unwrap()).unwrap();
        let known = |entry: &Value| {
            let (media_type, digest, size) = (&entry["mediaType"], &entry["digest"], &entry["size"]);
            let annotations = &entry["annotations"];
            json!({ "mediaType": media_type, "digest": digest, "size": size, "annotations": annotations })
        };
        let entries: Vec<_> = index["manifests"].as_array().unwrap().iter().map(known).collect();
        let index = json!({ "schemaVersion": 2, "manifests": entries });
        fs::write(self.index(), index.to_string()).unwrap();
    }

    /// Writes the file where it stands.
    async fn write_in_place(&self) {
        let content = fs::read(self.index()).unwrap();
        fs::write(self.index(), &content[..content.len() / 2]).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        fs::write(self.index(), content).unwrap();
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl CacheProvider for BrokenLayout {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.stat(digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        if self.fault == LayoutFault::NotesReading {
            foreign::note_use(self.inner.path(), blob.digest());
        }
        self.inner.open(blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        let lock = self.inner.path().join("locks").join(blob.digest().digest());
        if self.fault == LayoutFault::LockIsAFile {
            while fs::File::create_new(&lock).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(match self.inner.ingest(blob).await? {
            Ingest::Vacant(inner) if self.fault == LayoutFault::BlobsInUpperCase => {
                let path = foreign::blob_path(self.inner.path(), blob.digest());
                Ingest::Vacant(Box::new(foreign::RenamingWriter { inner, path }))
            }
            Ingest::Vacant(inner) if self.fault == LayoutFault::LockIsAFile => {
                Ingest::Vacant(Box::new(LockedWriter { inner: Some(inner), lock }))
            }
            outcome => {
                let _ = fs::remove_file(lock);
                outcome
            }
        })
    }

    async fn partial(&self, digest: &Digest) -> Result<u64> {
        self.inner.partial(digest).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        self.inner.quarantine(digest).await
    }

    async fn find_descriptor(&self, name: &Reference) -> Result<Option<Descriptor>> {
        if let Some(misread) = foreign::misread(self.fault, self.inner.path(), name) {
            return misread;
        }
        self.inner.find_descriptor(name).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.inner.list().await
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        match self.inner.update(changes).await {
            Err(e)
                if self.fault == LayoutFault::OverwritesCorruptIndex && *e.kind() == ErrorKind::Corrupt =>
            {
                fs::write(self.index(), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
                self.inner.update(changes).await?;
            }
            outcome => outcome?,
        }
        match self.fault {
            LayoutFault::FieldsLost => self.lose_fields(),
            LayoutFault::WritesInPlace => self.write_in_place().await,
            fault => foreign::after_naming(fault, self.inner.path()),
        }
        Ok(())
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        self.inner.artifact(key).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.inner.lease(content).await
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        self.inner.single_flight(work).await
    }

    async fn free(&self) -> Result<Option<u64>> {
        self.inner.free().await
    }

    async fn pins(&self) -> Result<Vec<Reference>> {
        self.inner.pins().await
    }

    async fn usage(&self) -> Result<Usage> {
        self.inner.usage().await
    }

    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        self.inner.collect(policy).await
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        self.inner.verify(what).await
    }

    async fn list_page(&self, page: &Page) -> Result<CachedNames> {
        self.inner.list_page(page).await
    }

    fn layout(&self) -> Option<&Path> {
        self.inner.layout()
    }

    fn scratch(&self) -> Option<PathBuf> {
        self.inner.scratch()
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }
}

impl fmt::Display for BrokenLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant {:?}", self.fault)
    }
}

/// A writer whose lock is the existence of a file.
#[derive(Debug)]
struct LockedWriter {
    inner: Option<Box<dyn BlobWriter>>,
    lock: PathBuf,
}

#[async_trait]
impl BlobWriter for LockedWriter {
    fn offset(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.offset())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.inner.as_mut().expect("it has not ended").write(bytes).await
    }

    async fn restart(&mut self) -> Result<()> {
        self.inner.as_mut().expect("it has not ended").restart().await
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.inner.take().expect("it has not ended").commit().await
    }

    async fn suspend(mut self: Box<Self>) -> Result<()> {
        self.inner.take().expect("it has not ended").suspend().await
    }
}

impl Drop for LockedWriter {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.lock);
    }
}
