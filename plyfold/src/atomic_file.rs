//! Files that are published atomically.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use plyfold_core::page_buffer::PageBuffer;
use plyfold_core::{
    Advice, ArtifactHandle, ArtifactReader, Error, ErrorKind, Output, RangeWrite, Result, Size, is_zero,
};
use tempfile::NamedTempFile;

use crate::blocking::Stop;
use crate::durable::{parent, sync_folder};
use crate::in_use::DiskUser;
use crate::shell;

pub(crate) mod left;
mod options;
#[cfg(test)]
mod tests;

pub use options::{FileOptions, Owner};

/// The mode of artifacts in a store, and of every link to one.
pub(crate) const SHARED: u32 = 0o444;

/// A file written under a temporary name in the target's folder. Dropping it removes it.
#[derive(Debug)]
pub struct AtomicFile {
    file: NamedTempFile,
    target: PathBuf,
    options: FileOptions,
    /// It is a link to a finished file, whose mode and owner must not change.
    is_link: bool,
    /// It takes the place of no file.
    is_new: bool,
    stop: Stop,
}

impl AtomicFile {
    /// Begins a file that will appear at `target`, in place of a file that may be there.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) when `target` is something else than a file, such as a
    /// directory or a device; [`NotFound`](plyfold_core::ErrorKind::NotFound) when its directory does not exist;
    /// [`Io`](plyfold_core::ErrorKind::Io).
    pub fn create(target: &Path, options: FileOptions, stop: &Stop) -> Result<Self> {
        let directory = parent(target);
        let created = Self::create_in(directory, target, options, stop)?;
        left::clear(directory, created.file());
        Ok(created)
    }

    /// As [`AtomicFile::create`], for content of the user's that is written again: a file that is replaced gives its mode to
    /// the new one, unless the options say another.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn replace(target: &Path, options: FileOptions, stop: &Stop) -> Result<Self> {
        let before = std::fs::symlink_metadata(target).ok().filter(std::fs::Metadata::is_file);
        let before = before.map(|before| before.permissions().mode() & 0o777);
        let created = Self::create(target, FileOptions { mode: options.mode.or(before), ..options }, stop)?;
        if created.options.mode.is_some_and(|mode| mode | 0o700 == 0o700) {
            // From the beginning, and not only at the end.
            let given = created.file().set_permissions(Permissions::from_mode(0o600));
            given.map_err(|e| created.failed("giving the output its mode", e))?;
        }
        Ok(created)
    }

    /// As [`AtomicFile::create`], where nothing is at `target`: a file that comes there meanwhile is not replaced either.
    ///
    /// # Errors
    /// As [`create`](Self::create); [`Config`](plyfold_core::ErrorKind::Config) when there is something, here and from
    /// [`publish`](Self::publish).
    pub fn create_new(target: &Path, options: FileOptions, stop: &Stop) -> Result<Self> {
        if std::fs::symlink_metadata(target).is_ok() {
            return Err(taken(target));
        }
        Ok(Self { is_new: true, ..Self::create(target, options, stop)? })
    }

    /// Refuses a target that is there, as [`create_new`](Self::create_new), before any work.
    #[cfg(feature = "command")]
    pub(crate) fn check_new(target: &Path) -> Result<()> {
        if std::fs::symlink_metadata(target).is_ok() { Err(taken(target)) } else { Ok(()) }
    }

    /// As [`AtomicFile::create`], for a file that is written in another folder of the same file system.
    pub(crate) fn create_in(
        directory: &Path,
        target: &Path,
        options: FileOptions,
        stop: &Stop,
    ) -> Result<Self> {
        let at = |e: Error| e.with_context("path", target.display());
        if target.as_os_str().as_bytes().ends_with(b"/") {
            let hint = "write the name of a file, without a slash at its end";
            return Err(at(Error::config("the output is a directory by its name").with_hint(hint)));
        }
        if std::fs::symlink_metadata(target).is_ok_and(|there| !there.is_file()) {
            let hint = "choose the name of a file; devices and links are never written through";
            return Err(at(Error::config("the output is not a regular file").with_hint(hint)));
        }
        let mut builder = tempfile::Builder::new();
        // As any new file: the user's umask decides.
        builder.prefix(left::PREFIX).permissions(Permissions::from_mode(0o666));
        let file = left::create(directory, &builder).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => at(Error::not_found("the output's directory does not exist")
                .with_hint(format!("`mkdir -p {}` makes it", shell::quoted(directory)))),
            _ => at(Error::io("creating the output", e)),
        })?;
        Ok(Self {
            file,
            target: target.to_owned(),
            options,
            is_link: false,
            is_new: false,
            stop: stop.clone(),
        })
    }

    /// Where the file will appear.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The file itself, for calls that need a descriptor.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Takes the content of a finished file: as a clone that shares its blocks, else as a hard link to it, unless the
    /// options ask for a [copy](FileOptions::copy), else as a copy. A file that has no path on this machine, and a part of one, is copied.
    /// Whole blocks of zeros are holes in a copy. Nothing may be written afterwards.
    ///
    /// A link has the mode 0444, which the finished file is given if it has another one; where that is refused, it is
    /// copied.
    ///
    /// # Errors
    /// [`Io`](plyfold_core::ErrorKind::Io); [`Corrupt`](plyfold_core::ErrorKind::Corrupt) when the finished file has
    /// fewer bytes than it says; [`Cancelled`](plyfold_core::ErrorKind::Cancelled).
    pub fn fill_from(&mut self, artifact: &dyn ArtifactHandle) -> Result<()> {
        let Some(source) = artifact.path() else {
            return match artifact.part_of() {
                // The kernel copies it, and shares blocks where the file system can.
                Some(_) => {
                    let path = self.target.display().to_string();
                    let copied = ArtifactReader::open(artifact)?.copy_to(self);
                    copied.map_err(|e| e.with_context("path", path))
                }
                None => self.copy_from(artifact),
            };
        };
        let content =
            File::open(source).map_err(|e| Error::io(format!("opening {}", source.display()), e))?;
        if self.share(&content) {
            return Ok(());
        }
        match self.link_to(source, &content) {
            Some(link) => (self.file, self.is_link) = (link, true),
            None => self.copy_from(artifact)?,
        }
        Ok(())
    }

    /// Copies a finished file, but for its blocks of zeros.
    fn copy_from(&mut self, artifact: &dyn ArtifactHandle) -> Result<()> {
        let path = self.target.display().to_string();
        let content = ArtifactReader::open(artifact).map_err(|e| e.with_context("path", path))?;
        self.copy_of(content, artifact.size())
    }

    /// Takes the content of another file as a clone that shares its blocks; whether the file system could.
    pub(crate) fn share(&mut self, content: &File) -> bool {
        rustix::fs::ioctl_ficlone(self.file.as_file(), content).is_ok()
    }

    /// Copies all of a reader, which yields `size` bytes, but for its blocks of zeros.
    pub(crate) fn copy_of(&mut self, content: impl Read, size: u64) -> Result<()> {
        /// Bytes read at once: whole blocks.
        const STEP: usize = 1 << 20;
        /// The unit of holes, in bytes.
        const BLOCK: usize = 4096;
        let path = self.target.display().to_string();
        let at = |e| Error::io("copying into the output", e).with_context("path", &path);
        let mut content = self.stop.reader(content);
        self.set_len(size).map_err(at)?;
        let (mut buffer, mut offset) = (PageBuffer::new(STEP), 0);
        loop {
            let count = content.read(&mut buffer).map_err(at)?;
            if count == 0 {
                return Ok(());
            }
            let blocks: Vec<&[u8]> = buffer[..count].chunks(BLOCK).collect();
            for run in blocks.chunk_by(|one, next| is_zero(one) == is_zero(next)) {
                if !run.first().is_some_and(|block| is_zero(block)) {
                    self.seek(SeekFrom::Start(offset))
                        .and_then(|_| self.write_all(&run.concat()))
                        .map_err(at)?;
                }
                offset += run.iter().map(|block| block.len() as u64).sum::<u64>();
            }
        }
    }

    /// Whether it is a hard link to the finished file that it was [filled from](Self::fill_from).
    pub(crate) fn is_link(&self) -> bool {
        self.is_link
    }

    /// Another name of a file, which all may read; `None` where linking fails or is not wanted.
    fn link_to(&self, source: &Path, content: &File) -> Option<NamedTempFile> {
        if self.options.copy {
            return None;
        }
        share_mode(content).ok()?;
        let beside = parent(self.file.path());
        // `make_in` tries other names while one is taken.
        let link = tempfile::Builder::new().prefix(left::PREFIX).make_in(beside, |path| {
            std::fs::hard_link(source, path)?;
            File::open(path)
        });
        link.ok()
    }

    /// Its size in bytes so far.
    ///
    /// # Errors
    /// [`Io`](plyfold_core::ErrorKind::Io).
    pub fn size(&self) -> Result<u64> {
        let metadata = self.file().metadata().map_err(|e| self.failed("looking at the output", e));
        Ok(metadata?.len())
    }

    /// Refuses to take the place of a disk that may hold what a guest has written: of one that differs from this one in
    /// length or in its first block, whose superblock changes with the first mount of an ext4 (`s_mtime`,
    /// `s_mnt_count`, offsets 44 and 52). And of one that a machine has locked or a loop device has, whose guest would write to
    /// a file without a name.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config).
    pub fn replaces_no_used_disk(&self) -> Result<()> {
        let there = match File::open(&self.target) {
            Ok(there) => there,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(self.failed("looking at the disk that is there", e)),
        };
        let head = |file: &File| {
            let mut head = [0; 4096];
            file.read_exact_at(&mut head, 0).and_then(|()| Ok((file.metadata()?.len(), head)))
        };
        let size = |file: &File| file.metadata().ok().map(|found| found.len());
        let message = match (head(self.file()), head(&there)) {
            (Ok(new), Ok(before)) if new == before => {
                return match DiskUser::of_read(&there) {
                    None => Ok(()),
                    Some(user) => Err(user.refusal().with_context("path", self.target.display())),
                };
            }
            _ => match size(&there).filter(|there| size(self.file()) != Some(*there)) {
                Some(size) => format!("there is a disk of another size, {}", Size(size)),
                None => "there is another disk of this size, or one that has been written to".to_owned(),
            },
        };
        Err(Error::config(message)
            .with_context("path", self.target.display())
            .with_advice(Advice::KeepWritten))
    }

    /// Makes the file visible, and durable if the [options](FileOptions::sync) say so; yields its size in bytes.
    ///
    /// # Errors
    /// [`Io`](plyfold_core::ErrorKind::Io), [`Cancelled`](plyfold_core::ErrorKind::Cancelled): what was there before is
    /// still there, except when its folder cannot be synced after the file got its name.
    pub fn publish(self) -> Result<u64> {
        let (target, sync) = (self.target.clone(), self.options.sync);
        let size = self.settle(&target)?;
        if sync {
            sync_folder(parent(&target))?;
        }
        Ok(size)
    }

    /// Makes the content durable and gives it the name `path`, which is not durable yet.
    pub(crate) fn settle(self, path: &Path) -> Result<u64> {
        self.stop.check()?;
        let size = self.size()?;
        self.belong()?;
        // A link, too: not every cache has synced what it has.
        if self.options.sync {
            self.file().sync_all().map_err(|e| self.failed("syncing the output", e))?;
        }
        let temporary = self.file.path().to_owned();
        let persisted = if self.is_new { self.file.persist_noclobber(path) } else { self.file.persist(path) };
        persisted.map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists if self.is_new => taken(&self.target),
            _ => Error::io("publishing the output", e.error).with_context("path", self.target.display()),
        })?;
        // rename(2) does nothing when both names are links to one file already.
        let _ = std::fs::remove_file(temporary);
        Ok(size)
    }

    /// Gives the file its owner and its mode.
    fn belong(&self) -> Result<()> {
        if self.is_link {
            return Ok(());
        }
        // The owner first: chown(2) may clear bits of the mode.
        if let Some(owner) = self.options.owner {
            fchown(self.file.as_file(), owner.user, owner.group).map_err(|e| {
                let denied = e.kind() == io::ErrorKind::PermissionDenied;
                let error = self.failed("giving the output its owner", e);
                if denied { error.with_hint("only root may give files to other users") } else { error }
            })?;
        }
        if let Some(mode) = self.options.mode {
            let given = self.file().set_permissions(Permissions::from_mode(mode));
            given.map_err(|e| self.failed("giving the output its mode", e))?;
        }
        Ok(())
    }

    fn failed(&self, action: &str, e: io::Error) -> Error {
        Error::io(action, e).with_context("path", self.target.display())
    }

    /// The error for a file that is larger than the file system, or a limit of the process, allows.
    fn too_large(&self, e: io::Error, size: u64) -> io::Error {
        /// `statfs(2)`: ext2, ext3 and ext4.
        const EXT: u64 = 0xef53;
        let of_process = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        let (message, hint) = match (of_process, rustix::fs::statfs(parent(&self.target))) {
            (Some(limit), _) if size > limit => (
                format!("this process may write no file of {}", Size(size).beyond(Size(limit))),
                "`ulimit -f` shows the limit of the shell, in blocks, and changes it".to_owned(),
            ),
            // A file's blocks have numbers of 32 bits ("Inode and extent limits", ext4.rst).
            #[expect(clippy::cast_sign_loss, reason = "both are positive")]
            (_, Ok(found)) if found.f_type as u64 == EXT => {
                let limit = (u64::from(u32::MAX)).saturating_mul(found.f_bsize as u64);
                let size = Size(size).beyond(Size(limit));
                (
                    format!("the ext4 that it is written to holds no file of {size}"),
                    format!("choose at most {limit} bytes, or a place on another file system, such as XFS"),
                )
            }
            _ => (
                format!("the file system that it is written to allows no file of {}", Size(size)),
                "choose a smaller size or another file system".to_owned(),
            ),
        };
        let error = Error::new(ErrorKind::Limit, message).with_source(e);
        error.with_context("path", self.target.display()).with_hint(hint).into()
    }
}

/// Makes a hard link to a finished file, which all may read; its size.
pub(crate) fn link(source: &Path, link: &Path) -> io::Result<u64> {
    let content = File::open(source)?;
    share_mode(&content)?;
    std::fs::hard_link(source, link)?;
    Ok(content.metadata()?.len())
}

/// Gives a finished file the mode of those that have several names.
fn share_mode(content: &File) -> io::Result<()> {
    if content.metadata()?.permissions().mode() & 0o7777 == SHARED {
        return Ok(());
    }
    content.set_permissions(Permissions::from_mode(SHARED))
}

/// The error for a new file at a path that is taken.
fn taken(target: &Path) -> Error {
    let error = Error::config("there is a file already").with_context("path", target.display());
    error.with_hint("choose another path, or remove it if it is no longer needed")
}

impl Read for AtomicFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.as_file_mut().read(buf)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        let written = self.file.as_file_mut().write(buf);
        // Errors of the reader are passed on as they are; errors of the writer get their own action. EINTR is retried.
        written.map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            io::ErrorKind::FileTooLarge => {
                self.too_large(e, self.size().unwrap_or_default().saturating_add(buf.len() as u64))
            }
            _ => self.failed("writing the output", e).into(),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.as_file_mut().seek(to)
    }
}

impl Output for AtomicFile {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        let set = self.file.as_file().set_len(length);
        set.map_err(|e| match e.kind() {
            io::ErrorKind::FileTooLarge => self.too_large(e, length),
            _ => e,
        })
    }
}

impl RangeWrite for AtomicFile {
    fn copy_range(&mut self, source: &File, from: u64, length: u64) -> io::Result<()> {
        /// Bytes between two looks at whether the work is cancelled.
        const STEP: u64 = 64 << 20;
        let mut done = 0;
        while done < length {
            self.stop.check()?;
            let step = STEP.min(length - done);
            let copied = self.file.as_file_mut().copy_range(source, from.saturating_add(done), step);
            copied.map_err(|e| match e.kind() {
                io::ErrorKind::FileTooLarge => {
                    self.too_large(e, self.size().unwrap_or_default().saturating_add(step))
                }
                io::ErrorKind::UnexpectedEof => e,
                _ => self.failed("writing the output", e).into(),
            })?;
            done += step;
        }
        Ok(())
    }
}
