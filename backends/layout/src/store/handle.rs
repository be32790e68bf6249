//! A store's handle: opening it, and what everything that works in it shares.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plyfold_core::blocking::blocking;
use plyfold_core::layout_index::{self, LayoutIndex};
use plyfold_core::{Error, ErrorKind, Result};

use super::queue::{NAMES, Queues};
use super::{boot, marker, paths};
use crate::durable::{self, Temp};
use crate::files;
use crate::root::Root;
use crate::watch;

/// An OCI layout as the place where images are kept; see the [crate's documentation](crate) for how.
///
/// Any number of processes may use one directory at once. Clones share a handle.
///
/// # Contract
/// Beside that of [`CacheProvider`](plyfold_core::CacheProvider): C 69, C 70 `…layout…readable`, C 71
/// `unknown_files_and_fields_preserved`, C 72 `unsupported_layout_version_refused`, C 73 `read_only_directory_usable`, C 74
/// `corrupt_index_quarantined_not_destroyed`, and D 127 to D 132 on crashes, power cuts, full disks and leftovers of
/// killed processes.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) root: Arc<Root>,
    pub(super) queues: Arc<Queues>,
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
            return Err(error.with_hint("choose a directory for the store alone"));
        }
        store.prepare().map_err(|e| e.with_endpoint(&store))?;
        store.sweep();
        boot::check(&store.root);
        Ok(store)
    }

    /// The handle of a directory that is looked at only when it is used.
    pub(crate) fn on(root: Root) -> Self {
        let queues = Queues::of(root.path());
        Self { root: Arc::new(root), queues }
    }

    /// The store's directory: an OCI layout that any tool reads.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Looks whether the layout can be written, or made when there is none; nothing is.
    pub(crate) fn check(&self) -> Result<()> {
        let root = &*self.root;
        if let Some(other) = other_than_directory(root.path()) {
            let error = Error::config(format!("a layout cannot be at {}: {other}", root.path().display()));
            return Err(error.with_hint("choose a directory for the layout alone"));
        }
        if files::look(root.path())?.is_some() && !root.is_layout()? {
            self.refuse_foreign_content()?;
        }
        let there = root.path().ancestors().find(|ancestor| ancestor.exists());
        durable::check_folder(there.unwrap_or_else(|| Path::new(".")))
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
        let _lock = durable::lock(root, NAMES)?;
        if root.is_layout()? {
            return Ok(());
        }
        durable::folder(root, &["blobs"], root.private)?;
        // `oci-layout` is written last: a layout with it is complete. An existing `index.json` is kept, even without
        // `oci-layout`.
        let index = root.path().join("index.json");
        if files::look(&index)?.is_none() {
            let empty = LayoutIndex::new(root.path()).to_bytes();
            durable::write_document(root, "index.json", &index, 0o644, &empty)?;
        }
        let marker = root.path().join("oci-layout");
        durable::write_document(root, "oci-layout", &marker, 0o644, layout_index::LAYOUT.as_bytes())
    }

    /// A directory with files of other programs is not turned into a layout.
    fn refuse_foreign_content(&self) -> Result<()> {
        if self.root.foreign()?.is_some() {
            let message = format!("{} is not empty and not an OCI layout", self.root.path().display());
            let what = if self.root.private { "store" } else { "layout" };
            return Err(Error::config(message).with_hint(format!("choose a directory for the {what} alone")));
        }
        Ok(())
    }

    /// Removes temporary files whose owner is gone. Best effort: they do no harm.
    fn sweep(&self) {
        let _ = files::for_each(&self.root.path().join("ingest"), |entry, found| {
            let name = entry.file_name();
            let is_left = |name: &&str| {
                !(paths::is_foreign(name) || paths::digest_in(name).is_some() && found.len() > 0)
            };
            if let Some(name) = name.to_str().filter(is_left) {
                drop(Temp::claim(&self.root, name));
            }
            Ok(())
        });
    }

    /// Where the temporary file of this name is.
    pub(super) fn in_progress(&self, name: &str) -> PathBuf {
        self.root.path().join("ingest").join(name)
    }

    /// Runs file work off the async runtime.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Root>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = self.root.clone();
        blocking(move |_| work(&root)).await.map_err(|e| e.with_endpoint(self))
    }

    /// Waits until `attempt` yields something: until the owner of the file at `path`, in any process, is done or
    /// has ended.
    pub(super) async fn poll<T: Send + 'static>(
        &self,
        path: &Path,
        attempt: impl Fn(&Arc<Root>) -> Result<Option<T>> + Clone + Send + 'static,
    ) -> Result<T> {
        loop {
            let attempt = attempt.clone();
            if let Some(outcome) = self.work(move |root| attempt(root)).await? {
                return Ok(outcome);
            }
            // No thread blocks on a lock here: a caller that is cancelled while waiting ends at once.
            watch::released(path).await;
        }
    }
}

/// What is at this path in place of a directory, if anything.
fn other_than_directory(path: &Path) -> Option<String> {
    let in_the_way =
        path.ancestors().find(|ancestor| ancestor.exists()).filter(|ancestor| !ancestor.is_dir())?;
    Some(format!("{} is not a directory", in_the_way.display()))
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.root.path().display())
    }
}
