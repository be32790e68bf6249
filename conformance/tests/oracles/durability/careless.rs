//! Stores with one fault, which shows only when something goes wrong.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_conformance::durability::{DurabilityFixture, Role};
use plyfold_core::layout_index::LayoutIndex;
use plyfold_core::{
    BlobWriter, CacheProvider, Collect, Collected, Descriptor, Digest, Error, ErrorKind, Ingest, NameChange,
    Result,
};
use plyfold_layout::Store;

use crate::broken_store::{BrokenStore, StoreFault};

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// A blob gets its name before its content is synced.
    BlobUnsynced,
    /// It does not collect, and the fixture does not list what is not judged therefore.
    CollectsNothing,
    /// A collection removes blobs first and names second.
    ContentBeforeNames,
    /// The folder is not synced in which `index.json` is replaced.
    FolderUnsynced,
    /// None; the fixture lists a test that is judged.
    ListsWhatIsJudged,
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
        Ok(Box::new(BrokenStore { inner: Store::open(directory)?, fault: self.0 }))
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

    fn not_judged(&self) -> &'static [&'static str] {
        match self.0 {
            Fault::ListsWhatIsJudged => &["a_name_waits_for_content_that_was_here_before"],
            _ => &[],
        }
    }
}

impl Fault {
    /// Does all that the store does, but what the fault leaves out.
    fn set_names(self, store: &Store, changes: &[NameChange]) -> Result<()> {
        let index = store.path().join("index.json");
        let mut names = LayoutIndex::parse(&fs::read(&index)?, store.path())?;
        for change in changes {
            match change {
                NameChange::Pin(name) => _ = names.pin(name, true),
                NameChange::Unpin(name) => _ = names.pin(name, false),
                NameChange::Remove(name) => _ = names.remove(name),
                NameChange::Require(_) => {}
                NameChange::Set(name, descriptor) => names.set(name, descriptor, true),
            }
        }
        if self == Fault::NamesInPlace {
            return Ok(fs::write(index, names.to_bytes())?);
        }
        if self != Fault::NamesDoNotWait {
            sync(&store.path().join("blobs/sha256"))?;
        }
        let temporary = temporary(store, "index.json");
        let mut file = File::create(&temporary)?;
        file.write_all(&names.to_bytes())?;
        file.sync_data()?;
        fs::rename(temporary, index)?;
        if self == Fault::FolderUnsynced { Ok(()) } else { sync(store.path()) }
    }
}

fn place(store: &Store, blob: &Digest) -> PathBuf {
    store.path().join("blobs").join(blob.algorithm().to_string()).join(blob.digest())
}

fn temporary(store: &Store, name: &str) -> PathBuf {
    store.path().join("ingest").join(name)
}

/// The blobs that a collection would remove.
async fn doomed(store: &Store, policy: &Collect) -> Result<Vec<Digest>> {
    let look = Collect { dry_run: true, ..policy.clone() };
    Ok(store.collect(&look).await?.blobs)
}

fn sync(folder: &Path) -> Result<()> {
    Ok(File::open(folder)?.sync_all()?)
}

#[async_trait]
impl StoreFault for Fault {
    async fn ingest(self, store: &Store, blob: &Descriptor) -> Result<Ingest> {
        let writes = [Fault::BlobUnsynced, Fault::TempLeft, Fault::WritesUnchecked].contains(&self);
        if !writes || store.stat(blob.digest()).await?.is_some() {
            return store.ingest(blob).await;
        }
        let target = place(store, blob.digest());
        let folder = target.parent().expect("a blob has a folder");
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            sync(&store.path().join("blobs"))?;
        }
        let temporary =
            temporary(store, &format!("{}-{}", blob.digest().algorithm(), blob.digest().digest()));
        let file = File::create(&temporary)?;
        Ok(Ingest::Vacant(Box::new(CarelessWriter { file, temporary, target, written: 0, fault: self })))
    }

    async fn update(self, store: &Store, changes: &[NameChange]) -> Result<()> {
        match self {
            Fault::FolderUnsynced | Fault::NamesDoNotWait | Fault::NamesInPlace => {
                self.set_names(store, changes)
            }
            Fault::RefusalsSwallowed => match store.update(changes).await {
                Err(e) if *e.kind() == ErrorKind::Io => Ok(()),
                outcome => outcome,
            },
            _ => store.update(changes).await,
        }
    }

    async fn collect(self, store: &Store, policy: &Collect) -> Result<Collected> {
        if self == Fault::CollectsNothing {
            return Err(Error::unsupported("it keeps everything"));
        }
        if ![Fault::ContentBeforeNames, Fault::TrashKept].contains(&self) {
            return store.collect(policy).await;
        }
        let trash = store.path().join("trash");
        fs::create_dir_all(&trash)?;
        let doomed = doomed(store, policy).await?;
        for blob in &doomed {
            match self {
                Fault::TrashKept => _ = fs::hard_link(place(store, blob), trash.join(blob.digest())),
                _ => fs::remove_file(place(store, blob))?,
            }
        }
        let collected = store.collect(policy).await?;
        for blob in &doomed {
            let _ = fs::remove_file(trash.join(blob.digest()));
        }
        Ok(collected)
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
            outcome.map_err(|e| Error::io("writing a blob", e))?;
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
