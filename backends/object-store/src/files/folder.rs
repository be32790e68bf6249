//! A folder of objects, by blocking calls.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path as FilePath, PathBuf};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ListResult, ObjectMeta, PutMode, PutResult, Result};
use plyfold_core::durable::{parent, sync_folder};
use plyfold_core::xxh3::Xxh3;
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

/// The name of the store in its errors.
pub(crate) const NAME: &str = "folder";
/// Files whose names begin so are no objects: temporary files, and those to lock.
const HIDDEN: &str = ".plyfold-";
/// Objects that are changed on conditions are smaller. The tag of a larger one is not of its content.
const TAGGED: u64 = 1 << 20;
/// Files to lock: objects that share one wait for each other.
const LOCKS: u64 = 64;

/// A folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

/// Runs blocking calls on a thread of the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// The error of a call.
pub(super) fn failed(what: &str, error: io::Error) -> Error {
    // The text is in the chain of sources, where the kind of the error is looked for.
    tracing::debug!("{what}: {error}");
    Error::Generic { store: NAME, source: Box::new(error) }
}

impl Folder {
    pub(super) fn new(root: &FilePath) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where an object is.
    pub(super) fn file(&self, location: &Path) -> PathBuf {
        self.root.join(location.as_ref())
    }

    /// The entries of a folder, by their names in the paths of objects: those of folders end in `/`. Sorted.
    pub(super) fn entries(&self, folder: &Path) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.file(folder)) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            entries => entries.map_err(|e| failed("listing a folder", e))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed("listing a folder", e))?;
            // What has another name than an object can have is not one.
            let Ok(mut name) = entry.file_name().into_string() else { continue };
            if name.starts_with(HIDDEN) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                name.push('/');
            }
            names.push(name);
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The size and the time of an object; `None` for one that is gone.
    pub(super) fn stat(&self, location: Path) -> Result<Option<ObjectMeta>> {
        match fs::metadata(self.file(&location)) {
            Ok(found) if found.is_file() => Ok(Some(meta(location, &found, None)?)),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("looking at a file", e)),
            _ => Ok(None),
        }
    }

    /// Opens an object.
    pub(super) fn open(&self, location: &Path) -> Result<(File, ObjectMeta)> {
        let absent = |e| Error::NotFound { path: location.to_string(), source: Box::new(e) };
        let file = File::open(self.file(location)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => absent(e),
            _ => failed("opening a file", e),
        })?;
        let found = file.metadata().map_err(|e| failed("looking at a file", e))?;
        if !found.is_file() {
            return Err(absent(io::ErrorKind::IsADirectory.into()));
        }
        let tag = tag(&file, &found)?;
        Ok((file, meta(location.clone(), &found, Some(tag))?))
    }

    /// Writes an object, if it is as `mode` says.
    pub(super) fn put(&self, location: &Path, content: &[&[u8]], mode: &PutMode) -> Result<PutResult> {
        let mut file = self.temporary(location)?;
        for part in content {
            file.write_all(part).map_err(|e| failed("writing a file", e))?;
        }
        self.publish(file, location, mode)
    }

    /// A temporary file beside an object.
    pub(super) fn temporary(&self, location: &Path) -> Result<NamedTempFile> {
        let file = self.file(location);
        let folder = parent(&file);
        self.make(folder).map_err(|e| failed("making a folder", e))?;
        let made = tempfile::Builder::new().prefix(HIDDEN).tempfile_in(folder);
        made.map_err(|e| failed("making a temporary file", e))
    }

    /// Makes folders, and waits until their names are on the disk.
    fn make(&self, folder: &FilePath) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if folder == self.root {
            fs::create_dir_all(folder)?;
        } else {
            self.make(parent(folder))?;
            match fs::create_dir(folder) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        sync_folder(parent(folder)).map_err(io::Error::from)
    }

    /// Gives a temporary file the name of an object, if that is as `mode` says.
    pub(super) fn publish(&self, file: NamedTempFile, location: &Path, mode: &PutMode) -> Result<PutResult> {
        file.as_file().sync_data().map_err(|e| failed("syncing a file", e))?;
        let target = self.file(location);
        let _locked = self.lock(location)?;
        match mode {
            PutMode::Create if target.exists() => {
                let source = io::Error::from(io::ErrorKind::AlreadyExists).into();
                return Err(Error::AlreadyExists { path: location.to_string(), source });
            }
            PutMode::Create | PutMode::Overwrite => {}
            PutMode::Update(wanted) => {
                let (_, found) = self.open(location)?;
                if wanted.e_tag.is_none() || wanted.e_tag != found.e_tag {
                    let source = "the file has another version".into();
                    return Err(Error::Precondition { path: location.to_string(), source });
                }
            }
        }
        let file = file.persist(&target).map_err(|e| failed("naming a file", e.error))?;
        sync_folder(parent(&target)).map_err(|e| failed("syncing a folder", e.into()))?;
        let found = file.metadata().map_err(|e| failed("looking at a file", e))?;
        let e_tag = Some(tag(&file, &found)?);
        Ok(PutResult { e_tag, version: None, extensions: object_store::Extensions::default() })
    }

    /// Removes an object.
    pub(super) fn remove(&self, location: &Path) -> Result<()> {
        let _locked = self.lock(location)?;
        fs::remove_file(self.file(location)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::NotFound { path: location.to_string(), source: Box::new(e) },
            _ => failed("removing a file", e),
        })
    }

    /// Objects and folders of a folder.
    pub(super) fn list(&self, prefix: &Path) -> Result<ListResult> {
        let (mut common_prefixes, mut objects) = (Vec::new(), Vec::new());
        for name in self.entries(prefix)? {
            let location = below(prefix, name.trim_end_matches('/'))?;
            if name.ends_with('/') {
                common_prefixes.push(location);
            } else {
                objects.extend(self.stat(location)?);
            }
        }
        Ok(ListResult { common_prefixes, objects, extensions: object_store::Extensions::default() })
    }

    /// Copies an object.
    pub(super) fn copy(&self, from: &Path, to: &Path, mode: &PutMode) -> Result<()> {
        let (mut source, _) = self.open(from)?;
        let mut file = self.temporary(to)?;
        io::copy(&mut source, &mut file).map_err(|e| failed("copying a file", e))?;
        self.publish(file, to, mode).map(drop)
    }

    /// Waits until no other process changes this object.
    fn lock(&self, location: &Path) -> Result<File> {
        let number = Xxh3::of(location.as_ref().as_bytes()) % LOCKS;
        let path = self.root.join(format!("{HIDDEN}lock-{number}"));
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|e| failed("opening a file to lock", e))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                locked => return locked.map(|()| file).map_err(|e| failed("locking a file", e.into())),
            }
        }
    }
}

/// The path of an entry of a folder.
pub(super) fn below(folder: &Path, name: &str) -> Result<Path> {
    let whole = if folder.as_ref().is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    Ok(Path::parse(whole)?)
}

/// Some bytes of a file, at least one.
pub(super) fn chunk(file: &File, at: u64, length: u64) -> Result<Bytes> {
    let mut chunk = vec![0; length as usize];
    file.read_exact_at(&mut chunk, at).map_err(|e| failed("reading a file", e))?;
    Ok(chunk.into())
}

fn meta(location: Path, found: &fs::Metadata, e_tag: Option<String>) -> Result<ObjectMeta> {
    let modified = found.modified().map_err(|e| failed("looking at a file", e))?;
    Ok(ObjectMeta { location, last_modified: modified.into(), size: found.len(), e_tag, version: None })
}

/// What tells one version of an object from another: each body of an object that changes has a token.
fn tag(file: &File, found: &fs::Metadata) -> Result<String> {
    if found.len() > TAGGED {
        return Ok(format!(
            "{:x}-{:x}-{:x}-{:x}",
            found.ino(),
            found.mtime(),
            found.mtime_nsec(),
            found.len()
        ));
    }
    let mut content = vec![0; found.len() as usize];
    file.read_exact_at(&mut content, 0).map_err(|e| failed("reading a file", e))?;
    Ok(format!("{:x}-{:016x}", content.len(), Xxh3::of(&content)))
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file://{}", self.root.display())
    }
}
