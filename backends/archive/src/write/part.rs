//! The file beside the archive that it is written to.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
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
use tempfile::TempPath;

use super::left::{BLOCK, Left};
use super::pushed::Pushed;
use crate::members::Member;
use crate::spool;

/// How long another writer of the archive is waited for, and how long one wait takes.
const WAIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that are written at a time.
pub(super) const STEP: usize = 1 << 20;
/// Bytes that the kernel copies between two looks at whether the work is cancelled.
const COPIED: u64 = 64 << 20;
/// The mode of a file before it is the archive, which may hold what other users may not read.
const SECRET: u32 = 0o600;

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
        // What a killed writer has left of a copy.
        let _ = fs::remove_file(part.second());
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
    pub(super) fn tail<'a>(&'a mut self, stop: &'a Stop) -> Result<Tail<'a>> {
        if self.left.is_empty() {
            // An attempt before may have given it the mode of the archive that was there.
            hide(&self.file);
            return Ok(Tail { at: self.end, file: self.file.clone(), second: None, part: self, stop });
        }
        // No other writer has a file of this name: each has locked the part before.
        let place = self.second();
        let file = OpenOptions::new().write(true).create_new(true).mode(SECRET).open(&place);
        let file = Arc::new(file.map_err(|e| self.failed(e))?);
        let second = TempPath::try_from_path(place).map_err(|e| self.failed(e))?;
        let mut tail = Tail { part: self, at: 0, file, second: Some(second), stop };
        for folder in tail.part.folders.clone() {
            tail.raw(&folder_header(&folder)?)?;
        }
        for (digest, member) in tail.part.pushed.in_order() {
            tail.member(&blob_name(&digest), &member)?;
        }
        Ok(tail)
    }

    /// Where it is copied to.
    fn second(&self) -> PathBuf {
        let mut place = self.place.clone().into_os_string();
        place.push("-2");
        place.into()
    }

    /// Gives a file the mode of the archive that is there, or that of a new file, which the umask decides.
    fn make_visible(&self, file: &File, there: Option<&Metadata>) -> io::Result<()> {
        let mode = match there {
            Some(there) => there.mode(),
            None => {
                let mut builder = tempfile::Builder::new();
                builder.prefix(".plyfold-tmp-").permissions(Permissions::from_mode(0o666));
                builder.tempfile_in(parent(&self.target))?.as_file().metadata()?.mode()
            }
        };
        // A file system that has no modes refuses other ones.
        if (file.metadata()?.mode() ^ mode) & 0o777 == 0 {
            return Ok(());
        }
        file.set_permissions(Permissions::from_mode(mode & 0o777))
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
            fs::remove_file(&self.place)
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
    /// The file's path, where it is not that of the part.
    second: Option<TempPath>,
    stop: &'a Stop,
}

impl Tail<'_> {
    /// Writes a member from the archive that is there.
    pub(super) fn member(&mut self, name: &str, member: &Member) -> Result<()> {
        self.raw(&file_header(name, member.size)?)?;
        let (source, offset) = member.place();
        // Its position, at which `copy_range` writes, is that of `file`: no other call here writes at a position.
        let mut file = self.file.try_clone().map_err(|e| self.part.failed(e))?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(self.at)).map_err(|e| self.part.failed(e))?;
        let mut done = 0;
        while done < member.size {
            self.stop.check()?;
            let step = COPIED.min(member.size - done);
            file.copy_range(source, offset + done, step).map_err(|e| self.part.failed(e))?;
            done += step;
        }
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
        let Self { part, at, file, second, stop } = self;
        // With its mode, which fdatasync(2) may leave out.
        let synced =
            file.set_len(at).and_then(|()| part.make_visible(&file, there)).and_then(|()| file.sync_all());
        synced.map_err(|e| part.failed(e))?;
        let now = there_is(&part.target)?;
        let identity =
            |there: &Metadata| (there.dev(), there.ino(), there.len(), there.mtime(), there.mtime_nsec());
        if now.as_ref().map(identity) != there.map(identity) {
            let error = Error::new(plyfold_core::ErrorKind::Unavailable, "the archive was changed meanwhile");
            return Err(error.with_context("path", part.target.display()));
        }
        stop.check()?;
        let is_copy = second.is_some();
        let renamed = match second {
            Some(second) => second.persist(&part.target).map_err(|e| e.error),
            None => fs::rename(&part.place, &part.target),
        };
        renamed.map_err(|e| part.failed(e))?;
        part.is_published = true;
        if is_copy {
            // Where it stays, the next writer takes or removes it.
            let _ = fs::remove_file(&part.place);
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
    match fs::symlink_metadata(path) {
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
    let opened =
        OpenOptions::new().read(true).write(true).create(true).mode(SECRET).custom_flags(flags).open(place);
    let file = match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let error = Error::not_found("the archive's folder does not exist");
            return Err(error.with_context("path", target.display()).with_hint("make the folder first"));
        }
        opened => opened.map_err(failed)?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(e)) => return Err(failed(e)),
    }
    let own = file.metadata().map_err(failed)?;
    // Its writer may have made it the archive, or removed it, between the two calls.
    let named = match fs::symlink_metadata(place) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        named => named.map_err(failed)?,
    };
    if (own.dev(), own.ino()) != (named.dev(), named.ino()) {
        return Ok(None);
    }
    let refused = if !own.is_file() || own.nlink() != 1 {
        "is no regular file, or has a second name"
    } else if own.uid() != rustix::process::geteuid().as_raw() {
        "is another user's"
    } else {
        hide(&file);
        return Ok(Some(file));
    };
    let error = Error::new(
        plyfold_core::ErrorKind::Denied,
        format!("the file that the archive is written to {refused}"),
    );
    Err(error.with_context("path", place.display()).with_hint("remove it"))
}

/// Lets no other user read a file. Best effort: a file system may have no modes.
fn hide(file: &File) {
    if file.metadata().is_ok_and(|there| there.mode() & 0o777 & !SECRET != 0) {
        let _ = file.set_permissions(Permissions::from_mode(SECRET));
    }
}
