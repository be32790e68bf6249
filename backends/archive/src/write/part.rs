//! The file beside the archive that it is written to.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plyfold_core::blocking::Stop;
use plyfold_core::digest::Hasher;
use plyfold_core::durable::{parent, sync_folder};
use plyfold_core::layout_index::blob_name;
use plyfold_core::save::{file_header, folder_header};
use plyfold_core::{Descriptor, Error, ErrorKind, Mismatch, RangeWrite as _, RawManifest, Result};
use rustix::fs::{Mode, OFlags};
use tempfile::TempPath;

use super::left::{Appending, BLOCK, Left};
use super::parts::Parts;
use super::place::{self, SECRET, hide, there_is};
use super::pushed::Pushed;
use crate::members::Member;

/// Bytes that are written at a time.
pub(super) const STEP: usize = 1 << 20;
/// Bytes that the kernel copies between two looks at whether the work is cancelled.
const COPIED: u64 = 64 << 20;

/// An archive that is being written. It is locked (`flock`), so each has one writer. Dropped, it stays for the next writer when it
/// has any blob, or a part of one.
#[derive(Debug)]
pub(crate) struct Part {
    file: Arc<File>,
    /// Its path.
    place: PathBuf,
    /// The archive's.
    pub(super) target: PathBuf,
    /// Bytes that are complete members, and places of blobs that have come in part.
    end: u64,
    /// The folders that have a member.
    folders: BTreeSet<String>,
    pub(super) pushed: Pushed,
    /// What a writer before has left.
    left: Left,
    parts: Parts,
    /// Its file is the archive by now.
    pub(super) is_published: bool,
}

impl Part {
    /// Waits for other writers of the archive.
    ///
    /// # Errors
    /// Those of [`place::locked`], and of reading what a writer has left.
    pub(super) fn begin(target: &Path, pushed: Pushed, stop: &Stop) -> Result<Self> {
        let (place, file) = place::locked(target, stop)?;
        let file = Arc::new(file);
        // All of it is known before there is a part, which cuts off the rest when it is dropped.
        let mut left = Left::read(&file, stop).map_err(|e| e.with_context("path", place.display()))?;
        let parts = Parts::of(&file, &mut left);
        let mut part = Self {
            file,
            place,
            target: target.to_owned(),
            end: left.end,
            folders: std::mem::take(&mut left.folders),
            parts,
            pushed,
            left,
            is_published: false,
        };
        part.file.set_len(part.written()).map_err(|e| part.failed(e))?;
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

    /// Where the last byte ends that a writer may go on from.
    fn written(&self) -> u64 {
        self.parts.written(self.end)
    }

    /// How many bytes there are of a blob whose transfer broke.
    pub(super) fn partial(&self, blob: &Descriptor) -> u64 {
        self.parts.partial(blob)
    }

    /// Goes on with a blob whose transfer broke.
    pub(super) fn resume(&mut self, blob: &Descriptor) -> Result<()> {
        if self.parts.resume(blob, &mut self.end)? { Ok(()) } else { Err(not_begun()) }
    }

    /// Begins a blob behind the members that are complete, or in its place.
    pub(super) fn append(&mut self, blob: &Descriptor) -> Result<()> {
        if self.parts.restart(blob, &mut self.end)? {
            return Ok(());
        }
        self.parts.park(&mut self.end)?;
        let name = blob_name(blob.digest());
        if let Some((folder, _)) = name.rsplit_once('/') {
            self.folder(folder)?;
        }
        let (hasher, header) = (Hasher::like(blob.digest())?, file_header(&name, blob.size())?);
        self.write(&header, self.end)?;
        let (digest, wanted) = (blob.digest().clone(), blob.size());
        self.parts.begin(Appending {
            digest,
            wanted,
            hasher,
            start: self.end + header.len() as u64,
            size: 0,
        });
        Ok(())
    }

    /// Writes the next bytes of the blob that was begun.
    ///
    /// # Errors
    /// `Corrupt` for more than the blob has: behind it may be others.
    pub(super) fn extend(&mut self, bytes: &[u8], blob: &Descriptor) -> Result<()> {
        let part = self.parts.current().ok_or_else(not_begun)?;
        let size = part.size + bytes.len() as u64;
        if size > part.wanted {
            self.forget();
            return Err(Mismatch::of(blob, None, size).into());
        }
        self.write(bytes, part.start + part.size)?;
        self.parts.wrote(bytes, self.end)
    }

    /// Ends the blob: it is stored then, if it is what its digest says. If not, nothing of it is kept.
    pub(super) fn end(&mut self, blob: &Descriptor) -> Result<()> {
        let part = self.parts.end().ok_or_else(not_begun)?;
        let actual = part.hasher.clone().finish();
        if part.size != blob.size() || actual != *blob.digest() {
            let error = Mismatch::of(blob, Some(actual), part.size);
            self.parts.forget(Some(part), self.end);
            return Err(error.into());
        }
        // Fills the last block.
        let (end, next) = (part.start + part.size, part.next());
        self.write(&vec![0; (next - end) as usize], end)?;
        self.end = self.end.max(next);
        self.pushed.add(blob.digest().clone(), Member::new(self.file.clone(), part.start, part.size));
        Ok(())
    }

    /// Keeps nothing of the blob that was begun.
    pub(super) fn forget(&mut self) {
        let part = self.parts.end();
        self.parts.forget(part, self.end);
    }

    fn folder(&mut self, name: &str) -> Result<()> {
        if self.folders.insert(name.to_owned()) {
            let header = folder_header(name)?;
            self.write(&header, self.end)?;
            self.end += header.len() as u64;
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|e| self.failed(e))
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
        self.append(blob)?;
        let mut buffer = Vec::with_capacity(STEP.min(blob.size() as usize + 1));
        loop {
            buffer.clear();
            let read = content.by_ref().take(STEP as u64).read_to_end(&mut buffer);
            if read.map_err(|e| Error::io("reading the archive", e))? == 0 {
                return self.end(blob);
            }
            self.extend(&buffer, blob)?;
        }
    }

    /// Begins what stands behind the blobs: it goes with the next attempt if this one fails. Where something is left that
    /// was not asked for, complete or in part, the blobs are copied into another file first.
    pub(super) fn tail<'a>(&'a mut self, stop: &'a Stop) -> Result<Tail<'a>> {
        self.forget();
        if self.left.is_empty() && self.parts.is_clean() {
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
        let mode =
            if let Some(there) = there { there.mode() } else { mode_of_new(parent(&self.target))? } & 0o777;
        // A file system that has no modes refuses other ones.
        if file.metadata()?.mode() & 0o777 == mode {
            return Ok(());
        }
        file.set_permissions(Permissions::from_mode(mode))
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
        self.parts.leave(self.end);
        // Nothing in it has a name. The lock is held until it is gone.
        let _ = if self.left.is_empty() && self.pushed.is_empty() && self.parts.is_empty() {
            fs::remove_file(&self.place)
        } else {
            self.file.set_len(self.written())
        };
    }
}

/// The mode of a new file in a folder, by one without a name where the file system has such files.
fn mode_of_new(folder: &Path) -> io::Result<u32> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)) {
        return Ok(File::from(file).metadata()?.mode());
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".plyfold-tmp-").permissions(Permissions::from_mode(0o666));
    Ok(builder.tempfile_in(folder)?.as_file().metadata()?.mode())
}

pub(super) fn not_begun() -> Error {
    Error::new(ErrorKind::Internal, "the archive is not being written")
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
            let error = Error::new(ErrorKind::Unavailable, "the archive was changed meanwhile");
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
