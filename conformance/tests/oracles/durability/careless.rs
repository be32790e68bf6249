//! Stores with one fault, which shows only when something goes wrong.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_conformance::durability::{DurabilityFixture, Role};
use plyfold_core::cache::CachedNames;
use plyfold_core::layout_index::LayoutIndex;
use plyfold_core::{
    Artifact, ArtifactKey, Blob, BlobRange, BlobWriter, CacheProvider, Collect, Collected, Descriptor,
    Digest, ErrorKind, Ingest, Lease, NameChange, Page, Reference, Result, Usage, Verified, Verify,
};
use plyfold_layout::Store;

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// A blob gets its name before its content is synced.
    BlobUnsynced,
    /// A collection removes blobs first and names second.
    ContentBeforeNames,
    /// The folder is not synced in which `index.json` is replaced.
    FolderUnsynced,
    /// A name is set before the folder of its content is synced.
    NamesDoNotWait,
    /// `index.json` is written where it stands.
    NamesInPlace,
    /// Names that could not be changed are said to be.
    RefusalsSwallowed,
    /// A blob that could not be stored leaves its temporary file.
    TempLeft,
    /// A collection keeps a copy until it is done, and does not care whether it goes.
    TrashKept,
    /// It does not check how much of a blob was written.
    WritesUnchecked,
}

/// Opens stores with one fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Careless(pub(super) Fault);

#[async_trait]
impl DurabilityFixture for Careless {
    async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>> {
        Ok(Box::new(CarelessStore { inner: Store::open(directory)?, fault: self.0 }))
    }

    fn role(&self, path: &Path) -> Role {
        match path.extension() {
            _ if path == Path::new("locks/boot") => Role::Note,
            _ if path.starts_with("locks") => Role::Lock,
            _ if path.starts_with("ingest") => Role::Temporary,
            Some(checksum) if checksum == "checksum" => Role::Checksum(path.with_extension("")),
            _ => Role::Content,
        }
    }

    fn name(&self) -> String {
        format!("{:?}", self.0)
    }

    fn blocking_threads(&self) -> usize {
        1
    }
}

#[derive(Clone, Debug)]
struct CarelessStore {
    inner: Store,
    fault: Fault,
}

impl CarelessStore {
    fn place(&self, blob: &Digest) -> PathBuf {
        self.inner.path().join("blobs").join(blob.algorithm().to_string()).join(blob.digest())
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.inner.path().join("ingest").join(name)
    }

    /// Does all that the store does, but what the fault leaves out.
    fn set_names(&self, changes: &[NameChange]) -> Result<()> {
        let index = self.inner.path().join("index.json");
        let mut names = LayoutIndex::parse(&fs::read(&index)?, self.inner.path())?;
        for change in changes {
            match change {
                NameChange::Pin(name) => _ = names.pin(name, true),
                NameChange::Unpin(name) => _ = names.pin(name, false),
                NameChange::Remove(name) => _ = names.remove(name),
                NameChange::Set(name, descriptor) => names.set(name, descriptor, true),
            }
        }
        if self.fault == Fault::NamesInPlace {
            return Ok(fs::write(index, names.to_bytes())?);
        }
        if self.fault != Fault::NamesDoNotWait {
            sync(&self.inner.path().join("blobs/sha256"))?;
        }
        let temporary = self.temporary("index.json");
        let mut file = File::create(&temporary)?;
        file.write_all(&names.to_bytes())?;
        file.sync_data()?;
        fs::rename(temporary, index)?;
        if self.fault == Fault::FolderUnsynced { Ok(()) } else { sync(self.inner.path()) }
    }

    /// The blobs that a collection would remove.
    async fn doomed(&self, policy: &Collect) -> Result<Vec<Digest>> {
        let look = Collect { dry_run: true, ..policy.clone() };
        Ok(self.inner.collect(&look).await?.blobs)
    }
}

fn sync(folder: &Path) -> Result<()> {
    Ok(File::open(folder)?.sync_all()?)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl CacheProvider for CarelessStore {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.stat(digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.inner.open(blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        let writes = [Fault::BlobUnsynced, Fault::TempLeft, Fault::WritesUnchecked].contains(&self.fault);
        if !writes || self.inner.stat(blob.digest()).await?.is_some() {
            return self.inner.ingest(blob).await;
        }
        let target = self.place(blob.digest());
        let folder = target.parent().expect("a blob has a folder");
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            sync(&self.inner.path().join("blobs"))?;
        }
        let temporary = self.temporary(&format!("{}-{}", blob.digest().algorithm(), blob.digest().digest()));
        let file = File::create(&temporary)?;
        Ok(Ingest::Vacant(Box::new(CarelessWriter {
            file,
            temporary,
            target,
            written: 0,
            fault: self.fault,
        })))
    }

    async fn partial(&self, digest: &Digest) -> Result<u64> {
        self.inner.partial(digest).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        self.inner.quarantine(digest).await
    }

    async fn find_descriptor(&self, name: &Reference) -> Result<Option<Descriptor>> {
        self.inner.find_descriptor(name).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.inner.list().await
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        match self.fault {
            Fault::FolderUnsynced | Fault::NamesDoNotWait | Fault::NamesInPlace => self.set_names(changes),
            Fault::RefusalsSwallowed => match self.inner.update(changes).await {
                Err(e) if *e.kind() == ErrorKind::Io => Ok(()),
                outcome => outcome,
            },
            _ => self.inner.update(changes).await,
        }
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
        if ![Fault::ContentBeforeNames, Fault::TrashKept].contains(&self.fault) {
            return self.inner.collect(policy).await;
        }
        let trash = self.inner.path().join("trash");
        fs::create_dir_all(&trash)?;
        let doomed = self.doomed(policy).await?;
        for blob in &doomed {
            match self.fault {
                Fault::TrashKept => _ = fs::hard_link(self.place(blob), trash.join(blob.digest())),
                _ => fs::remove_file(self.place(blob))?,
            }
        }
        let collected = self.inner.collect(policy).await?;
        for blob in &doomed {
            let _ = fs::remove_file(trash.join(blob.digest()));
        }
        Ok(collected)
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

impl fmt::Display for CarelessStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant {:?}", self.fault)
    }
}

/// A writer that believes every digest.
#[derive(Debug)]
struct CarelessWriter {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    written: u64,
    fault: Fault,
}

#[async_trait]
impl BlobWriter for CarelessWriter {
    fn offset(&self) -> u64 {
        self.written
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let outcome = self.file.write_all(&bytes);
        if self.fault != Fault::WritesUnchecked {
            outcome.map_err(|e| plyfold_core::Error::io("writing a blob", e))?;
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.file = File::create(&self.temporary)?;
        self.written = 0;
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        if self.fault != Fault::BlobUnsynced {
            self.file.sync_data()?;
        }
        fs::rename(&self.temporary, &self.target)?;
        sync(self.target.parent().expect("a blob has a folder"))
    }

    async fn suspend(mut self: Box<Self>) -> Result<()> {
        self.temporary = PathBuf::new();
        Ok(())
    }
}

impl Drop for CarelessWriter {
    fn drop(&mut self) {
        if self.fault != Fault::TempLeft {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
