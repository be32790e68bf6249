//! Mutants of a cache that is an OCI layout directory.

mod foreign;
mod pushes;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_conformance::LayoutFixture;
use plyfold_core::{
    Blob, BlobRange, BlobWriter, CacheProvider, Collect, Collected, Descriptor, Error, ErrorKind,
    ImageRegistry, Ingest, NameChange, Reference, Result,
};
use plyfold_layout::{Config, Layout, Store};
use serde_json::{Value, json};

use crate::broken_store::{BrokenStore, StoreFault};

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LayoutFault {
    BlobsInUpperCase,
    CollectsNothing,
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
pub(crate) struct BrokenLayouts(pub(crate) LayoutFault);

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
        Ok(Box::new(BrokenStore { inner, fault: self.0 }))
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

fn index_of(store: &Store) -> PathBuf {
    store.path().join("index.json")
}

/// Writes only what the specification knows.
fn lose_fields(store: &Store) {
    let index: Value = serde_json::from_slice(&fs::read(index_of(store)).unwrap()).unwrap();
    let known = |entry: &Value| {
        let (media_type, digest, size) = (&entry["mediaType"], &entry["digest"], &entry["size"]);
        let annotations = &entry["annotations"];
        json!({ "mediaType": media_type, "digest": digest, "size": size, "annotations": annotations })
    };
    let entries: Vec<_> = index["manifests"].as_array().unwrap().iter().map(known).collect();
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs::write(index_of(store), index.to_string()).unwrap();
}

/// Writes the file where it stands, and leaves a reader the time to look, on a machine that is busy too.
async fn write_in_place(store: &Store) {
    let content = fs::read(index_of(store)).unwrap();
    fs::write(index_of(store), &content[..content.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    fs::write(index_of(store), content).unwrap();
}

#[async_trait]
impl StoreFault for LayoutFault {
    async fn open(self, store: &Store, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        if self == LayoutFault::NotesReading {
            foreign::note_use(store.path(), blob.digest());
        }
        store.open(blob, range).await
    }

    async fn ingest(self, store: &Store, blob: &Descriptor) -> Result<Ingest> {
        let lock = store.path().join("locks").join(blob.digest().digest());
        if self == LayoutFault::LockIsAFile {
            while fs::File::create_new(&lock).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(match store.ingest(blob).await? {
            Ingest::Vacant(inner) if self == LayoutFault::BlobsInUpperCase => {
                let path = foreign::blob_path(store.path(), blob.digest());
                Ingest::Vacant(Box::new(foreign::RenamingWriter { inner, path }))
            }
            Ingest::Vacant(inner) if self == LayoutFault::LockIsAFile => {
                Ingest::Vacant(Box::new(LockedWriter { inner: Some(inner), lock }))
            }
            outcome => {
                let _ = fs::remove_file(lock);
                outcome
            }
        })
    }

    async fn find_descriptor(self, store: &Store, name: &Reference) -> Result<Option<Descriptor>> {
        if let Some(misread) = foreign::misread(self, store.path(), name) {
            return misread;
        }
        store.find_descriptor(name).await
    }

    async fn update(self, store: &Store, changes: &[NameChange]) -> Result<()> {
        match store.update(changes).await {
            Err(e) if self == LayoutFault::OverwritesCorruptIndex && *e.kind() == ErrorKind::Corrupt => {
                fs::write(index_of(store), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
                store.update(changes).await?;
            }
            outcome => outcome?,
        }
        match self {
            LayoutFault::FieldsLost => lose_fields(store),
            LayoutFault::WritesInPlace => write_in_place(store).await,
            fault => foreign::after_naming(fault, store.path()),
        }
        Ok(())
    }

    async fn collect(self, store: &Store, policy: &Collect) -> Result<Collected> {
        if self == LayoutFault::CollectsNothing {
            return Err(Error::unsupported("it keeps everything"));
        }
        store.collect(policy).await
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
