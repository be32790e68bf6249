//! The file beside the archive that it is written to.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plyfold_core::blocking::Stop;
use plyfold_core::digest::Hasher;
use plyfold_core::durable::{parent, sync_folder};
use plyfold_core::layout_index::blob_name;
use plyfold_core::save::{file_header, folder_header};
use plyfold_core::{Descriptor, Error, Mismatch, RangeWrite as _, RawManifest, Result};
use rustix::fs::OFlags;
use tempfile::NamedTempFile;

use super::left::{BLOCK, Left};
use super::pushed::Pushed;
use crate::members::Member;
use crate::spool;

/// How long another writer of the archive is waited for, and how long one wait takes.
const WAIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that are written at a time.
pub(super) const STEP: usize = 1 << 20;

/// An archive that is being written. It is locked (`flock`), so each has one writer. Dropped, it stays for the next writer when it
/// has any blob.
#[derive(Debug)]
pub(crate) struct Part {
    file: Arc<File>,
    /// Its path.
    place: PathBuf,
    /// The archive's.
    pub(super) target: PathBuf,
    /// Bytes that are complete members.
    end: u64,
    /// The folders that have a member.
    folders: BTreeSet<String>,
    pub(super) pushed: Pushed,
    /// What a writer before has left.
    left: Left,
    /// Its file is the archive by now.
    pub(super) is_published: bool,
}

impl Part {
    /// # Errors
    /// `Unavailable` while another writer has it, `Config` where no archive can be, `Unsupported` for one that is compressed.
    pub(super) fn begin(target: &Path, pushed: Pushed, stop: &Stop) -> Result<Self> {
        check_target(target)?;
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".plyfold-part");
        let place = parent(target).join(name);
        let began = Instant::now();
        let file = loop {
            stop.check()?;
            if let Some(file) = locked(&place, target)? {
                break file;
            }
            if began.elapsed() > WAIT {
                let error =
                    Error::new(plyfold_core::ErrorKind::Unavailable, "another writer has the archive");
                return Err(error.with_context("path", place.display()));
            }
            std::thread::sleep(PAUSE);
        };
        let file = Arc::new(file);
        // All of it is known before there is a part, which cuts off the rest when it is dropped.
        let mut left = Left::read(&file, stop).map_err(|e| e.with_context("path", place.display()))?;
        let mut part = Self {
            file,
            place,
            target: target.to_owned(),
            end: left.end,
            folders: std::mem::take(&mut left.folders),
            pushed,
            left,
            is_published: false,
        };
        part.file.set_len(part.end).map_err(|e| part.failed(e))?;
        part.folder("blobs")?;
        Ok(part)
    }

    /// Takes a blob that a writer before has left; whether there is one.
    pub(super) fn take_left(&mut self, blob: &Descriptor) -> bool {
        let Some(member) = self.left.take(blob) else { return false };
        self.pushed.add(blob.digest().clone(), member);
        true
    }

    /// Writes the header of a member behind those that are complete; where its content begins.
    pub(super) fn head(&mut self, name: &str, size: u64) -> Result<u64> {
        if let Some((folder, _)) = name.rsplit_once('/') {
            self.folder(folder)?;
        }
        let header = file_header(name, size)?;
        self.write(&header, self.end)?;
        Ok(self.end + header.len() as u64)
    }

    fn folder(&mut self, name: &str) -> Result<()> {
        if self.folders.insert(name.to_owned()) {
            let header = folder_header(name)?;
            self.write(&header, self.end)?;
            self.end += header.len() as u64;
        }
        Ok(())
    }

    pub(super) fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|e| self.failed(e))
    }

    /// Ends the member of a blob whose content begins at `start`, and was verified.
    pub(super) fn end(&mut self, blob: &Descriptor, start: u64) -> Result<()> {
        self.end = self.pad(start + blob.size())?;
        let member = Member::new(self.file.clone(), start, blob.size());
        self.pushed.add(blob.digest().clone(), member);
        Ok(())
    }

    /// Fills the last block of a member that ends at `end`; where the next one begins.
    fn pad(&self, end: u64) -> Result<u64> {
        let next = end.next_multiple_of(BLOCK);
        self.write(&vec![0; (next - end) as usize], end)?;
        Ok(next)
    }

    /// Appends a document, if it is not there.
    pub(super) fn document(&mut self, raw: &RawManifest) -> Result<()> {
        self.blob(raw.descriptor(), &raw.bytes()[..])
    }

    /// Appends a blob that is verified on the way, if it is not there.
    pub(super) fn blob(&mut self, blob: &Descriptor, mut content: impl io::Read) -> Result<()> {
        if self.pushed.get(blob.digest()).is_some() || self.take_left(blob) {
            return Ok(());
        }
        let start = self.head(&blob_name(blob.digest()), blob.size())?;
        let (mut hasher, mut size) = (Hasher::like(blob.digest())?, 0_u64);
        let mut buffer = Vec::with_capacity(STEP.min(blob.size() as usize + 1));
        loop {
            buffer.clear();
            let read = content.by_ref().take(STEP as u64).read_to_end(&mut buffer);
            if read.map_err(|e| Error::io("reading the archive", e))? == 0 {
                break;
            }
            hasher.update(&buffer);
            self.write(&buffer, start + size)?;
            size += buffer.len() as u64;
        }
        let actual = hasher.finish();
        if size != blob.size() || actual != *blob.digest() {
            return Err(Mismatch::of(blob, Some(actual), size).into());
        }
        self.end(blob, start)
    }

    /// Begins what stands behind the blobs: it goes with the next attempt if this one fails. Where something is left that
    /// was not asked for, the blobs are copied into another file first.
    pub(super) fn tail(&mut self) -> Result<Tail<'_>> {
        if self.left.is_empty() {
            return Ok(Tail { at: self.end, file: self.file.clone(), other: None, part: self });
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".plyfold-tmp-").permissions(Permissions::from_mode(0o666));
        let other = builder.tempfile_in(parent(&self.target)).map_err(|e| self.failed(e))?;
        let file = Arc::new(other.as_file().try_clone().map_err(|e| self.failed(e))?);
        let mut tail = Tail { part: self, at: 0, file, other: Some(other) };
        for folder in tail.part.folders.clone() {
            tail.raw(&folder_header(&folder)?)?;
        }
        for (digest, member) in tail.part.pushed.in_order() {
            tail.member(&blob_name(&digest), &member)?;
        }
        Ok(tail)
    }

    fn failed(&self, e: io::Error) -> Error {
        Error::io("writing the archive", e).with_context("path", self.place.display())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_published {
            return;
        }
        // Nothing in it has a name. The lock is held until it is gone.
        let _ = if self.left.is_empty() && self.pushed.is_empty() {
            std::fs::remove_file(&self.place)
        } else {
            self.file.set_len(self.end)
        };
    }
}

/// The end of an archive.
pub(super) struct Tail<'a> {
    part: &'a mut Part,
    at: u64,
    file: Arc<File>,
    /// The file, where it is not that of the part.
    other: Option<NamedTempFile>,
}

impl Tail<'_> {
    /// Writes a member from the archive that is there.
    pub(super) fn member(&mut self, name: &str, member: &Member) -> Result<()> {
        self.raw(&file_header(name, member.size)?)?;
        let (source, offset) = member.place();
        // `copy_range` writes at the position of its own descriptor.
        let copied = self.file.try_clone().and_then(|mut file| {
            io::Seek::seek(&mut file, io::SeekFrom::Start(self.at))?;
            file.copy_range(source, offset, member.size)
        });
        copied.map_err(|e| self.part.failed(e))?;
        self.at += member.size;
        self.pad()
    }

    pub(super) fn bytes(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.raw(&file_header(name, content.len() as u64)?)?;
        self.raw(content)?;
        self.pad()
    }

    fn pad(&mut self) -> Result<()> {
        let rest = self.at.next_multiple_of(BLOCK) - self.at;
        self.raw(&vec![0; rest as usize])
    }

    /// Writes whole blocks.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.at).map_err(|e| self.part.failed(e))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Ends the archive, and puts it in the place of the one that was `there`.
    pub(super) fn publish(mut self, there: Option<&Metadata>) -> Result<()> {
        self.raw(&[0; 2 * BLOCK as usize])?;
        let Self { part, at, file, other } = self;
        let mode = there.map(|there| Permissions::from_mode(there.mode() & 0o777));
        let synced = file
            .set_len(at)
            .and_then(|()| mode.map_or(Ok(()), |mode| file.set_permissions(mode)))
            .and_then(|()| file.sync_data());
        synced.map_err(|e| part.failed(e))?;
        let now = there_is(&part.target)?;
        let identity =
            |there: &Metadata| (there.dev(), there.ino(), there.len(), there.mtime(), there.mtime_nsec());
        if now.as_ref().map(identity) != there.map(identity) {
            let error = Error::new(plyfold_core::ErrorKind::Unavailable, "the archive was changed meanwhile");
            return Err(error.with_context("path", part.target.display()));
        }
        let is_copy = other.is_some();
        let renamed = match other {
            Some(other) => other.persist(&part.target).map(drop).map_err(|e| e.error),
            None => std::fs::rename(&part.place, &part.target),
        };
        renamed.map_err(|e| part.failed(e))?;
        part.is_published = true;
        if is_copy {
            // Where it stays, the next writer takes or removes it.
            let _ = std::fs::remove_file(&part.place);
        }
        sync_folder(parent(&part.target))
    }
}

/// What is at the archive's path.
///
/// # Errors
/// `Config` for what is no regular file.
pub(super) fn there_is(path: &Path) -> Result<Option<Metadata>> {
    let at = |e: Error| e.with_context("path", path.display());
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => Ok(Some(there)),
        Ok(_) => Err(at(Error::config("the archive to write to is not a regular file")
            .with_hint("choose the name of a file; devices and links are never written through"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(Error::io("looking at the archive", e))),
    }
}

fn check_target(path: &Path) -> Result<()> {
    if there_is(path)?.is_some() && spool::is_packed(path)? {
        let error = Error::unsupported("an archive that is compressed as a whole is not written to");
        return Err(error.with_context("path", path.display()).with_hint("decompress it first"));
    }
    Ok(())
}

/// Opens and locks the file; `None` while another writer has it.
fn locked(place: &Path, target: &Path) -> Result<Option<File>> {
    let failed = |e: io::Error| Error::io("writing the archive", e).with_context("path", place.display());
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new().read(true).write(true).create(true).custom_flags(flags).open(place);
    let file = match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let error = Error::not_found("the archive's folder does not exist");
            return Err(error.with_context("path", target.display()).with_hint("make the folder first"));
        }
        opened => opened.map_err(failed)?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
        Err(std::fs::TryLockError::Error(e)) => return Err(failed(e)),
    }
    let own = file.metadata().map_err(failed)?;
    // Its writer may have made it the archive, or removed it, between the two calls.
    let named = match std::fs::symlink_metadata(place) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        named => named.map_err(failed)?,
    };
    if (own.dev(), own.ino()) != (named.dev(), named.ino()) {
        return Ok(None);
    }
    let is_own = own.is_file() && own.nlink() == 1 && own.uid() == rustix::process::geteuid().as_raw();
    if !is_own {
        let error = Error::new(
            plyfold_core::ErrorKind::Denied,
            "the file that the archive is written to is another user's",
        );
        return Err(error.with_context("path", place.display()).with_hint("remove it"));
    }
    Ok(Some(file))
}
