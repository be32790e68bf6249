//! Writes that survive a power cut, and temporary files that have an owner.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use plyfold_core::durable::{parent, sync_folder};
use plyfold_core::{Error, Result};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use crate::files;
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
        Ok(()) => sync_folder(parent(path)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(refused(format!("making the directory {}", path.display()), e)),
    }
}

/// A folder inside the layout, made if it is missing. Symbolic links do not count: they could lead outside.
pub(crate) fn folder(root: &Root, components: &[&str], private: bool) -> Result<PathBuf> {
    let mut path = root.path().to_owned();
    for component in components {
        path.push(component);
        match files::look(&path)? {
            Some(found) if found.is_dir() => {}
            Some(_) => return Err(Error::corrupt(format!("{} is not a directory", path.display()))),
            // Do not create a part of a layout that was removed.
            None if !root.path().is_dir() => {
                return Err(Error::not_found(format!("there is no directory {}", root.path().display())));
            }
            None => create_dirs(&path, private)?,
        }
    }
    Ok(path)
}

/// Syncs the directories in a directory.
pub(crate) fn sync_folders(path: &Path) -> Result<()> {
    files::for_each(path, |entry, found| if found.is_dir() { sync_folder(&entry.path()) } else { Ok(()) })
}

/// Looks whether this user can write to a folder.
pub(crate) fn check_folder(path: &Path) -> Result<()> {
    match rustix::fs::accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        // Where the kernel does not say, a write does.
        Ok(()) | Err(Errno::INVAL | Errno::NOSYS) => Ok(()),
        Err(e) => Err(refused(format!("writing to {}", path.display()), e.into())),
    }
}

/// An error of a write to the layout.
fn refused(action: String, e: io::Error) -> Error {
    let hint = "this user may read here but not write: become its owner, or use another store";
    match e.kind() {
        io::ErrorKind::PermissionDenied => Error::io(action, e).with_hint(hint),
        _ => Error::io(action, e),
    }
}

/// A temporary file in `ingest/` with an exclusive lock. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Temp {
    file: File,
    path: PathBuf,
    armed: bool,
}

impl Temp {
    /// Opens or makes the temporary file `name`; `None` while another process owns it. It keeps the bytes of an
    /// owner that was killed.
    pub(crate) fn claim(root: &Root, name: &str) -> Result<Option<Self>> {
        Self::claim_at(&folder(root, &["ingest"], true)?.join(name))
    }

    /// As [`claim`](Self::claim), in any folder.
    pub(crate) fn claim_at(path: &Path) -> Result<Option<Self>> {
        let at = |e: io::Error| refused(format!("opening {}", path.display()), e);
        // Only a regular file of this user is accepted; the folder is writable by its owner alone.
        let mut reopened = false;
        loop {
            let file = match files::open_or_create(path) {
                Ok(file) => file,
                Err(Errno::ACCESS) if !reopened => {
                    reopened = true;
                    if !make_writable(path).map_err(at)? {
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
            if !files::is_locked(file.try_lock()).map_err(at)? {
                return Ok(None);
            }
            // Otherwise its owner has removed or published it since it was opened.
            if files::look(path)?.is_some_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino()))
            {
                return Ok(Some(Self { file, path: path.to_owned(), armed: true }));
            }
        }
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
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

    /// Makes the content durable, then visible as `target`, whose directory must exist. After a failure nothing
    /// is visible and the file is gone.
    pub(crate) fn publish(self, target: &Path, mode: u32) -> Result<()> {
        self.settle(target, mode)?;
        sync_folder(parent(target)).inspect_err(|_| {
            // What may not outlive a power cut must not be taken for stored.
            let _ = fs::remove_file(target);
        })
    }

    /// Makes the content durable and gives it its name, which is not durable yet.
    fn settle(self, target: &Path, mode: u32) -> Result<()> {
        self.set_mode(target, mode)?;
        self.sync(target)?;
        self.rename(target)
    }

    /// The first step towards `target`: the mode that the file has there.
    pub(crate) fn set_mode(&self, target: &Path, mode: u32) -> Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(|e| storing(target, e))
    }

    /// The second step: the content is durable.
    pub(crate) fn sync(&self, target: &Path) -> Result<()> {
        self.file.sync_data().map_err(|e| storing(target, e))
    }

    /// The third step: the file has its name, which is not durable yet.
    pub(crate) fn rename(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(|e| storing(target, e))?;
        self.armed = false;
        Ok(())
    }
}

fn storing(target: &Path, e: io::Error) -> Error {
    refused(format!("storing {}", target.display()), e)
}

/// Whether the lock on a file is free, without taking it; `None` when there is no file that can be opened.
pub(crate) fn is_free(path: &Path) -> Result<Option<bool>> {
    let at = |e: io::Error| Error::io(format!("checking the lock of {}", path.display()), e);
    match files::open(path) {
        Ok(Some(file)) => files::is_locked(file.try_lock_shared()).map(Some).map_err(at),
        Ok(None) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(e) => Err(at(e)),
    }
}

/// Restores the mode of a temporary file whose owner was killed just before publishing; returns whether the file has no
/// owner.
fn make_writable(path: &Path) -> io::Result<bool> {
    // Otherwise it has been published since, or was never there.
    let Some(file) = files::open(path)? else { return Ok(true) };
    let is_free = files::is_locked(file.try_lock())?;
    if is_free {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(is_free)
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
    filled(root, name, bytes)?.publish(target, root.mode(mode))
}

/// Replaces a small file as a whole. After a failure `before` is visible, which is what it has held.
pub(crate) fn replace_document(
    root: &Root,
    name: &str,
    target: &Path,
    mode: u32,
    (before, after): (&[u8], &[u8]),
) -> Result<()> {
    let mode = root.mode(mode);
    filled(root, name, after)?.settle(target, mode)?;
    sync_folder(parent(target)).inspect_err(|_| {
        // What may not outlive a power cut must not be taken for stored.
        if let Err(e) = filled(root, name, before).and_then(|temp| temp.settle(target, mode)) {
            tracing::warn!("putting {} back: {e}", target.display());
        }
    })
}

/// A temporary file with these bytes, which are not durable yet.
pub(crate) fn filled(root: &Root, name: &str, bytes: &[u8]) -> Result<Temp> {
    let mut temp = loop {
        match Temp::claim(root, name)? {
            Some(temp) => break temp,
            // Its owner writes it in a moment.
            None => thread::sleep(Duration::from_millis(1)),
        }
    };
    let written = temp.file.set_len(0).and_then(|()| temp.file.write_all(bytes));
    written.map_err(|e| Error::io(format!("writing {}", temp.path.display()), e))?;
    Ok(temp)
}

/// Waits for the exclusive lock `locks/<name>`; it ends when the file is dropped or the process ends.
pub(crate) fn lock(root: &Root, name: &str) -> Result<File> {
    lock_at(&folder(root, &["locks"], true)?.join(name))
}

/// Waits for the exclusive lock on a file, which is made when there is none.
pub(crate) fn lock_at(path: &Path) -> Result<File> {
    let file = files::open_or_create(path).map_err(|e| locking(path, e.into()))?;
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            // A signal came while it waited.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(locking(path, e)),
        }
    }
}

/// As [`lock`], alone or shared with others as `how` says; `None` while another owner has it.
pub(crate) fn try_lock(
    root: &Root,
    name: &str,
    how: fn(&File) -> Result<(), TryLockError>,
) -> Result<Option<File>> {
    let path = folder(root, &["locks"], true)?.join(name);
    let file = files::open_or_create(&path).map_err(|e| locking(&path, e.into()))?;
    let is_locked = files::is_locked(how(&file)).map_err(|e| locking(&path, e))?;
    Ok(is_locked.then_some(file))
}

fn locking(path: &Path, e: io::Error) -> Error {
    refused(format!("locking {}", path.display()), e)
}
