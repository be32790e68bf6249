//! The store: a layout that keeps what has been pulled.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::cache::{Needs, check_names, find_among};
use plyfold_core::layout_index::{self, ENTRIES, INDEX_LIMIT, LayoutIndex};
use plyfold_core::manifest::{is_index, limits};
use plyfold_core::{
    Artifact, ArtifactKey, Blob, BlobRange, CacheProvider, Collect, Collected, Descriptor, Digest, Error,
    ErrorKind, Ingest, Lease, NameChange, Reference, Result, Usage, Verified, Verify, digest, reference,
};

use crate::durable::{self, Temp};
use crate::root::{Found, Root, blocking};
use crate::watch;

mod artifact;
mod boot;
mod collect;
mod contents;
mod delete;
mod folder;
mod ingest;
mod inventory;
mod lease;
mod marker;
mod quarantine;
mod reading;
mod remains;
mod seal;
mod verify;

/// An OCI layout as the place where images are kept; see the [crate's documentation](crate) for how.
///
/// Any number of processes may use one directory at once. Clones share a handle.
///
/// # Contract
/// Beside that of [`CacheProvider`]: C 69, C 70 `…layout…readable`, C 71 `unknown_files_and_fields_preserved`, C 72
/// `unsupported_layout_version_refused`, C 73 `read_only_directory_usable`, C 74
/// `corrupt_index_quarantined_not_destroyed`, and D 127 to D 132 on crashes, power cuts, full disks and leftovers of
/// killed processes.
#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Root>,
    turns: Arc<lease::Turns>,
}

impl Store {
    /// Opens the store at `path`, and makes it when there is none: a directory for its owner alone.
    ///
    /// Leftovers of killed processes are removed, except partial downloads, which the next pull resumes.
    /// A store that cannot be written, such as one on a read-only file system, can be read. An `oci-layout` file that a
    /// power cut has emptied goes to `quarantine/`, and one is written in its place.
    ///
    /// The first open after a boot reads again what was stored shortly before the machine went down, because other
    /// tools do not sync what they write; the manual's page `store` says how much that is.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) when the directory has other content,
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) when the version of the layout cannot be read,
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for a layout of another version,
    /// [`Io`](plyfold_core::ErrorKind::Io).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let absolute = std::path::absolute(path);
        let absolute = absolute.map_err(|e| Error::io(format!("finding {}", path.display()), e))?;
        let store = Self::on(Root::new(absolute, true, false));
        if let Some(other) = other_than_directory(store.path()) {
            let error = Error::config(format!("the store cannot be at {}: {other}", path.display()));
            return Err(error.with_hint("choose a directory of its own"));
        }
        store.prepare().map_err(|e| e.with_endpoint(&store))?;
        store.sweep();
        boot::check(&store.root);
        Ok(store)
    }

    /// The handle of a directory that is looked at only when it is used.
    pub(crate) fn on(root: Root) -> Self {
        let turns = lease::Turns::of(root.path());
        Self { root: Arc::new(root), turns }
    }

    /// The store's directory: an OCI layout that any tool reads.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Whether this user cannot write here: images can be read, and nothing else.
    pub fn is_read_only(&self) -> bool {
        self.root.is_read_only()
    }

    pub(crate) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Makes the layout when there is none.
    pub(crate) fn prepare(&self) -> Result<()> {
        let root = &*self.root;
        match root.is_layout() {
            Ok(true) => return Ok(()),
            Err(e) if *e.kind() == ErrorKind::Corrupt && root.private => return marker::replace(root, e),
            Err(e) if *e.kind() != ErrorKind::NotFound => return Err(e),
            _ => durable::create_dirs(root.path(), root.private)?,
        }
        self.refuse_foreign_content()?;
        let _lock = durable::lock(root, lease::NAMES)?;
        if root.is_layout()? {
            return Ok(());
        }
        durable::folder(root, &["blobs"], root.private)?;
        // `oci-layout` is written last: a layout with it is complete. An existing `index.json` is kept, even without
        // `oci-layout`.
        let index = root.path().join("index.json");
        let found = match fs::symlink_metadata(&index) {
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(Error::io(format!("looking at {}", index.display()), e)),
        };
        if !found {
            let empty = LayoutIndex::new(root.path()).to_bytes();
            durable::write_document(root, "index.json", &index, 0o644, &empty)?;
        }
        let marker = root.path().join("oci-layout");
        durable::write_document(root, "oci-layout", &marker, 0o644, layout_index::LAYOUT.as_bytes())
    }

    /// A directory with files of other programs is not turned into a layout.
    fn refuse_foreign_content(&self) -> Result<()> {
        // The marker too: another process may have made the layout since we looked.
        const OWN: [&str; 8] =
            ["artifacts", "blobs", "index.json", "ingest", "locks", "lost+found", "oci-layout", "quarantine"];
        let path = self.root.path();
        let at = |e| Error::io(format!("reading the directory {}", path.display()), e);
        for entry in fs::read_dir(path).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            if !OWN.iter().any(|own| *own == name) {
                let message = format!("{} is not empty and no OCI layout", path.display());
                return Err(Error::config(message).with_hint("choose a directory of its own"));
            }
        }
        Ok(())
    }

    /// Removes temporary files whose owner is gone. Best effort: they do no harm.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.root.path().join("ingest")) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let resumable = ingest::digest_in(name).is_some() && entry.metadata().is_ok_and(|m| m.len() > 0);
            if !resumable && !ingest::is_foreign(name) {
                drop(Temp::claim(&self.root, name));
            }
        }
    }

    /// Where the temporary file of this name is.
    fn in_progress(&self, name: &str) -> PathBuf {
        self.root.path().join("ingest").join(name)
    }

    /// Waits until `attempt` yields something: until the owner of the file at `path`, in any process, is done or
    /// has ended.
    async fn poll<T: Send + 'static>(
        &self,
        path: &Path,
        attempt: impl Fn(&Arc<Root>) -> Result<Option<T>> + Clone + Send + 'static,
    ) -> Result<T> {
        loop {
            let (root, attempt) = (self.root.clone(), attempt.clone());
            if let Some(outcome) = blocking(move || attempt(&root)).await? {
                return Ok(outcome);
            }
            // No thread blocks on a lock here: a caller that is cancelled while waiting ends at once.
            watch::released(path).await;
        }
    }
}

#[async_trait]
impl CacheProvider for Store {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let (root, digest) = (self.root.clone(), digest.clone());
        let found = blocking(move || root.stat_blob(&digest)).await.map_err(|e| e.with_endpoint(self))?;
        // Anything but a regular file is not a blob: the next pull replaces it.
        Ok(if let Found::File(size) = found { Some(size) } else { None })
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let start = range.resolve(blob.size())?.start;
        let (root, wanted) = (self.root.clone(), blob.clone());
        let opened = blocking(move || {
            let mut file = match root.open_blob(&wanted) {
                // Layouts without names may be one image themselves, as the OCI image spec allows.
                Err(e) if *e.kind() == ErrorKind::NotFound && is_index(wanted.media_type()) => {
                    return Ok(Content::Index(root.index_as_image(wanted.digest())?.ok_or(e)?));
                }
                opened => opened?,
            };
            file.seek(SeekFrom::Start(start)).map_err(|e| Error::io("seeking in a blob", e))?;
            Ok(Content::File(file))
        });
        match opened.await.map_err(|e| e.with_endpoint(self))? {
            Content::File(file) => Blob::from_reader(blob, range, file),
            Content::Index(bytes) => Blob::from_bytes(blob, range, &bytes),
        }
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        digest::supported(blob.digest())?;
        let (wanted, name) = (blob.clone(), ingest::name_of(blob.digest()));
        let queued = Arc::new(self.turns.queue(&name).await);
        let path = self.in_progress(&name);
        let begun = self.poll(&path, move |root| ingest::begin(root, &wanted, &queued));
        begun.await.map_err(|e| e.with_endpoint(self))
    }

    async fn partial(&self, digest: &Digest) -> Result<u64> {
        digest::supported(digest)?;
        let path = self.in_progress(&ingest::name_of(digest));
        let held = blocking(move || match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(Error::io(format!("looking at {}", path.display()), e)),
        });
        held.await.map_err(|e| e.with_endpoint(self))
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        digest::supported(digest)?;
        let (root, digest) = (self.root.clone(), digest.clone());
        blocking(move || quarantine::quarantine(&root, &digest)).await.map_err(|e| e.with_endpoint(self))
    }

    async fn find_descriptor(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let by_digest = reference::digest_of(name)?.is_some();
        let root = self.root.clone();
        let names = blocking(move || root.index()).await.map_err(|e| e.with_endpoint(self))?;
        if by_digest {
            let known = [names.0.names(), names.0.by_digest()].concat();
            return find_among(self, &known, name).await;
        }
        names.0.find(name).map_err(|e| e.with_endpoint(self))
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        let root = self.root.clone();
        let listed = blocking(move || Ok(root.index()?.0.names()));
        listed.await.map_err(|e| e.with_endpoint(self))
    }

    async fn pins(&self) -> Result<Vec<Reference>> {
        let root = self.root.clone();
        let pins = blocking(move || {
            let mut pins: Vec<Reference> = root.index()?.0.pins().cloned().collect();
            pins.sort_by_cached_key(Reference::whole);
            Ok(pins)
        });
        pins.await.map_err(|e| e.with_endpoint(self))
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        let (root, changes) = (self.root.clone(), changes.to_vec());
        // At most one thread waits for the lock: its holder may need the other threads.
        let turn = self.turns.queue(lease::NAMES).await;
        let waiting = Arc::new(());
        let caller = Arc::downgrade(&waiting);
        let updated = blocking(move || {
            let _turn = turn;
            let _lock = durable::lock(&root, lease::NAMES)?;
            if caller.strong_count() == 0 {
                // Its lease was dropped with it, so the content may have been removed.
                return Err(Error::new(ErrorKind::Cancelled, "the change of names was cancelled"));
            }
            change_locked(&root, |index| {
                check_here(&root, &changes)?;
                for change in &changes {
                    match change {
                        NameChange::Pin(name) if !index.pin(name, true) => {
                            return Err(Error::not_found("not in the store").with_image(name));
                        }
                        NameChange::Pin(_) => {}
                        NameChange::Unpin(name) => _ = index.pin(name, false),
                        NameChange::Remove(name) => drop(index.remove(name)),
                        NameChange::Set(name, descriptor) => index.set(name, descriptor, root.private),
                    }
                }
                Ok(())
            })
        });
        let updated = updated.await.map_err(|e| e.with_endpoint(self));
        drop(waiting);
        updated
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        let wanted = artifact::Place::of(key)?;
        let name = wanted.temp();
        let queued = Arc::new(self.turns.queue(&name).await);
        let path = self.in_progress(&name);
        let begun = self.poll(&path, move |root| artifact::begin(root, &wanted, &queued));
        begun.await.map_err(|e| e.with_endpoint(self))
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.take_lease(content).await.map_err(|e| e.with_endpoint(self))
    }

    async fn turn(&self, work: &str) -> Result<Lease> {
        self.take_turn(work).await.map_err(|e| e.with_endpoint(self))
    }

    async fn usage(&self) -> Result<Usage> {
        collect::usage(self).await.map_err(|e| e.with_endpoint(self))
    }

    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        collect::run(self, policy).await.map_err(|e| e.with_endpoint(self))
    }

    async fn free(&self) -> Result<Option<u64>> {
        let root = self.root.clone();
        blocking(move || root.free()).await.map_err(|e| e.with_endpoint(self))
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        let operation = what.progress.operation();
        let what = Verify { progress: operation.progress().clone(), ..what.clone() };
        operation.end(verify::verify(self, &what).await.map_err(|e| e.with_endpoint(self)))
    }
}

/// What is at this path in place of a directory, if anything.
fn other_than_directory(path: &Path) -> Option<String> {
    let in_the_way =
        path.ancestors().find(|ancestor| ancestor.exists()).filter(|ancestor| !ancestor.is_dir())?;
    Some(format!("{} is not a directory", in_the_way.display()))
}

impl Store {
    /// Lets a name stand for an image, all platforms of it, that is here whole. It stays complete meanwhile: a
    /// collection sees first the lease and then the name.
    pub(crate) async fn name_whole(&self, name: &Reference, top: &Descriptor) -> Result<()> {
        let needs = Needs::of(self, top).await?;
        let _lease = self.lease(&needs.digests().collect::<Vec<_>>()).await?;
        // Content may have been removed before the lease was taken. Check again now that the lease is held.
        if let Some(damaged) = needs.damaged.iter().next() {
            return Err(Error::corrupt(format!("{damaged} is damaged")).with_context("blob", damaged));
        }
        let missing = needs.missing_of_all(self).await?;
        if let Some(first) = missing.first() {
            let list: Vec<&str> = missing.iter().map(AsRef::as_ref).take(20).collect();
            let error = Error::not_found(format!("content is not in the layout: {}", list.join(", ")));
            let error = error.with_context("blob", first).with_endpoint(self);
            return Err(error.with_hint("push blobs before manifests, and manifests before their index"));
        }
        self.update(&[NameChange::Set(name.clone(), top.clone())]).await
    }
}

/// Whether everything is here that names need which are about to be set; for callers that hold the lock for names.
fn check_here(root: &Root, changes: &[NameChange]) -> Result<()> {
    let size = |digest: &Digest| {
        let found = root.stat_blob(digest)?;
        Ok(if let Found::File(size) = found { Some(size) } else { None })
    };
    let document = |blob: &Descriptor| {
        let content = root.read_blob(blob.digest(), limits::MANIFEST)?;
        content.ok_or_else(|| Error::not_found(format!("no blob {}", blob.digest())))
    };
    check_names(changes, size, document)
}

/// What a blob is read from.
enum Content {
    File(File),
    Index(Bytes),
}

/// One transaction on `index.json`: all of it or nothing, and none at all when nothing changes.
pub(crate) fn change_index<T>(root: &Root, change: impl FnOnce(&mut LayoutIndex) -> Result<T>) -> Result<T> {
    let _lock = durable::lock(root, lease::NAMES)?;
    change_locked(root, change)
}

/// As [`change_index`], for callers that hold the lock.
fn change_locked<T>(root: &Root, change: impl FnOnce(&mut LayoutIndex) -> Result<T>) -> Result<T> {
    let before = root.index()?;
    let mut index = before.0.clone();
    let outcome = change(&mut index)?;
    let bytes = index.to_bytes();
    if bytes.len() as u64 > INDEX_LIMIT || index.entries().count() > ENTRIES {
        let error = Error::limit("index.json would become larger than readers accept");
        return Err(error.with_hint("remove names that are no longer needed"));
    }
    if bytes != before.1 {
        // Another process may have renamed a blob that this name needs, and not have synced its folder yet.
        durable::sync_folders(&root.path().join("blobs"))?;
        let path = root.path().join("index.json");
        durable::replace_document(root, "index.json", &path, 0o644, (&before.1, &bytes))?;
    }
    Ok(outcome)
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.root.path().display())
    }
}
