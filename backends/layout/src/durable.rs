//! Writes that survive a power cut, and temporary files that have an owner.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use plyfold_core::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::root::Root;

/// Makes a directory and its parents, each synced into its parent.
pub(crate) fn create_dirs(path: &Path, private: bool) -> Result<()> {
    let create = || DirBuilder::new().mode(if private { 0o700 } else { 0o777 }).create(path);
    let created = match create() {
        Err(e) if e.kind() == io::ErrorKind::NotFound && parent(path) != path => {
            create_dirs(parent(path), false)?;
            // Try once: in /proc a directory cannot be made and stays missing.
            create()
        }
        created => created,
    };
    match created {
        Ok(()) => sync_dir(parent(path)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(refused(format!("making the directory {}", path.display()), e)),
    }
}

/// A folder inside the layout, made if it is missing. Symbolic links do not count: they could lead outside.
pub(crate) fn folder(root: &Root, components: &[&str], private: bool) -> Result<PathBuf> {
    let mut path = root.path().to_owned();
    for component in components {
        path.push(component);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Error::corrupt(format!("{} is not a directory", path.display()))),
            // Do not create a part of a layout that was removed.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !root.path().is_dir() => {
                return Err(Error::not_found(format!("there is no directory {}", root.path().display())));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => create_dirs(&path, private)?,
            Err(e) => return Err(Error::io(format!("looking at {}", path.display()), e)),
        }
    }
    Ok(path)
}

/// Syncs the directories in a directory.
pub(crate) fn sync_folders(path: &Path) -> Result<()> {
    let at = |e| Error::io(format!("reading the directory {}", path.display()), e);
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at)?,
    };
    for entry in entries {
        let entry = entry.map_err(at)?;
        if entry.file_type().map_err(at)?.is_dir() {
            sync_dir(&entry.path())?;
        }
    }
    Ok(())
}

/// Syncs a directory, so that what was renamed into it stays.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|e| Error::io(format!("syncing the directory {}", path.display()), e))
}

/// An error of a write to the layout.
fn refused(action: String, e: io::Error) -> Error {
    let denied = e.kind() == io::ErrorKind::PermissionDenied;
    let error = Error::io(action, e);
    if denied {
        return error
            .with_hint("this user may read here but not write: become its owner, or use another store");
    }
    error
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// A temporary file in `ingest/` with an exclusive lock. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Temp {
    file: File,
    path: PathBuf,
    private: bool,
    armed: bool,
}

impl Temp {
    /// Opens or makes the temporary file `name`; `None` while another process owns it. It keeps the bytes of an
    /// owner that was killed.
    pub(crate) fn claim(root: &Root, name: &str) -> Result<Option<Self>> {
        let path = folder(root, &["ingest"], true)?.join(name);
        let at = |e: io::Error| refused(format!("opening {}", path.display()), e);
        // Only a regular file of this user is accepted; the folder is writable by its owner alone.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut reopened = false;
        loop {
            let file = match rustix::fs::openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => File::from(file),
                Err(Errno::ACCESS) if !reopened => {
                    reopened = true;
                    if !make_writable(&path).map_err(at)? {
                        return Ok(None);
                    }
                    continue;
                }
                Err(e) => return Err(at(e.into())),
            };
            let ours = file.metadata().map_err(at)?;
            if !ours.is_file() || ours.nlink() > 1 {
                return Err(Error::corrupt(format!("{} is not a file of its own", path.display())));
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(at(e)),
            }
            match fs::symlink_metadata(&path) {
                Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {
                    return Ok(Some(Self { file, path, private: root.private, armed: true }));
                }
                // Its owner has removed or published it since it was opened.
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(at(e)),
            }
        }
    }

    /// As [`Temp::claim`], for files that are written in a moment: waits for the other owner, and truncates the
    /// file.
    pub(crate) fn claim_empty(root: &Root, name: &str) -> Result<Self> {
        loop {
            if let Some(temp) = Self::claim(root, name)? {
                temp.file.set_len(0).map_err(|e| Error::io(format!("emptying {name}"), e))?;
                return Ok(temp);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The same file from its start, with a position of its own.
    pub(crate) fn reader(&self) -> Result<File> {
        File::open(&self.path).map_err(|e| Error::io(format!("opening {}", self.path.display()), e))
    }

    /// The lock on the file, for as long as the returned handle lives as well.
    pub(crate) fn share(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| Error::io(format!("keeping {} locked", self.path.display()), e))
    }

    /// Leaves the file where it is, for a later owner.
    pub(crate) fn keep(mut self) {
        self.armed = false;
    }

    /// Removes the file, where it matters that it is gone.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.armed = false;
        fs::remove_file(&self.path).map_err(|e| refused(format!("removing {}", self.path.display()), e))
    }

    /// The file is for all to read, in whatever folder: outputs are links to it, and other users read those.
    pub(crate) fn for_all(mut self) -> Self {
        self.private = false;
        self
    }

    /// Makes the content durable, then visible as `target`, whose directory must exist. After a failure nothing
    /// is visible and the file is gone.
    pub(crate) fn publish(self, target: &Path, mode: u32) -> Result<()> {
        self.settle(target, mode)?;
        sync_dir(parent(target)).inspect_err(|_| {
            // What may not outlive a power cut must not be taken for stored.
            let _ = fs::remove_file(target);
        })
    }

    /// Makes the content durable and gives it its name, which is not durable yet.
    fn settle(mut self, target: &Path, mode: u32) -> Result<()> {
        let at = |e| refused(format!("storing {}", target.display()), e);
        let mode = if self.private { mode & 0o700 } else { mode };
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(at)?;
        self.file.sync_data().map_err(at)?;
        fs::rename(&self.path, target).map_err(at)?;
        self.armed = false;
        Ok(())
    }
}

/// Whether the lock on a file is free, without taking it; `false` when it is missing or not a file.
pub(crate) fn is_abandoned(path: &Path) -> Result<bool> {
    let at = |e: io::Error| Error::io(format!("checking the lock of {}", path.display()), e);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::PERM) => return Ok(false),
        Err(e) => return Err(at(e.into())),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(at(e)),
    }
}

/// Restores the mode of a temporary file whose owner was killed just before publishing; returns whether the file has no
/// owner.
fn make_writable(path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // It has been published since, or was never there.
        Err(Errno::NOENT) => return Ok(true),
        Err(e) => return Err(e.into()),
    };
    match file.try_lock() {
        Ok(()) => file.set_permissions(Permissions::from_mode(0o600)).map(|()| true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.armed
            && let Err(e) = fs::remove_file(&self.path)
        {
            tracing::warn!("removing {}: {e}", self.path.display());
        }
    }
}

/// Writes a small file as a whole.
pub(crate) fn write_document(root: &Root, name: &str, target: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    filled(root, name, bytes)?.publish(target, mode)
}

/// Replaces a small file as a whole. After a failure `before` is visible, which is what it has held.
pub(crate) fn replace_document(
    root: &Root,
    name: &str,
    target: &Path,
    mode: u32,
    (before, after): (&[u8], &[u8]),
) -> Result<()> {
    filled(root, name, after)?.settle(target, mode)?;
    sync_dir(parent(target)).inspect_err(|_| {
        // What may not outlive a power cut must not be taken for stored.
        if let Err(e) = filled(root, name, before).and_then(|temp| temp.settle(target, mode)) {
            tracing::warn!("putting {} back: {e}", target.display());
        }
    })
}

fn filled(root: &Root, name: &str, bytes: &[u8]) -> Result<Temp> {
    let mut temp = Temp::claim_empty(root, name)?;
    let written = temp.file().write_all(bytes);
    written.map_err(|e| Error::io(format!("writing {}", temp.path.display()), e))?;
    Ok(temp)
}

/// Waits for the exclusive lock `locks/<name>`; it ends when the file is dropped or the process ends.
pub(crate) fn lock(root: &Root, name: &str) -> Result<File> {
    let (file, path) = lock_file(root, name)?;
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            // A signal came while it waited.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(locking(&path, e)),
        }
    }
}

/// As [`lock`]; `None` while another owner has it.
pub(crate) fn try_lock(root: &Root, name: &str) -> Result<Option<File>> {
    let (file, path) = lock_file(root, name)?;
    tried(file.try_lock(), file, &path)
}

/// As [`try_lock`], for any number of holders at once.
pub(crate) fn try_lock_shared(root: &Root, name: &str) -> Result<Option<File>> {
    let (file, path) = lock_file(root, name)?;
    tried(file.try_lock_shared(), file, &path)
}

fn lock_file(root: &Root, name: &str) -> Result<(File, PathBuf)> {
    let path = folder(root, &["locks"], true)?.join(name);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match rustix::fs::openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok((File::from(file), path)),
        Err(e) => Err(locking(&path, e.into())),
    }
}

fn tried(outcome: Result<(), TryLockError>, file: File, path: &Path) -> Result<Option<File>> {
    match outcome {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(locking(path, e)),
    }
}

fn locking(path: &Path, e: io::Error) -> Error {
    refused(format!("locking {}", path.display()), e)
}
