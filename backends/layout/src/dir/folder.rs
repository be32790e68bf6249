//! The files of the directory of one image.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use plyfold_core::blocking::Stop;
use plyfold_core::cache::MissingBlob;
use plyfold_core::digest::Hasher;
use plyfold_core::manifest::limits;
use plyfold_core::page_buffer::PageBuffer;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, Mismatch, RawManifest, Result, digest, printable,
};

use super::record::{self, RECORD};
use crate::durable::{self, Temp};
use crate::files;
use crate::root::Root;

pub(super) const TOP: &str = "manifest.json";
pub(super) const VERSION: &str = "version";
/// What other tools write today, and all that they write over.
const WRITTEN: &str = "Directory Transport Version: 1.1\n";
/// How every version of the format that can be read begins.
const READ: &str = "Directory Transport Version: 1.";
/// Bytes of the file `version`.
const VERSION_LIMIT: u64 = 4096;
/// The mode of files, as other tools write them.
const MODE: u32 = 0o644;
/// Bytes of a blob that are written at once.
const STEP: usize = 256 << 10;
/// How the names of unfinished files end.
const PART: &str = ".plyfold-part";

/// The file of a blob.
pub(super) fn blob_name(digest: &Digest) -> String {
    digest.digest().to_owned()
}

/// The file of a manifest that an index lists.
pub(super) fn document_name(digest: &Digest) -> String {
    format!("{}.manifest.json", digest.digest())
}

#[derive(Debug)]
pub(super) struct Folder {
    root: Root,
    copying: Mutex<Option<Copying>>,
}

/// A copy into the directory.
#[derive(Debug)]
struct Copying {
    /// The directory, with a shared lock: blobs in it may be of an image that it does not have yet. `None` where it cannot be
    /// locked.
    lock: Option<File>,
    /// Blobs that were read, or written, by this copy.
    verified: HashSet<Digest>,
}

impl Folder {
    pub(super) fn new(path: PathBuf, follow: bool) -> Self {
        Self { root: Root::new(path, false, follow), copying: Mutex::default() }
    }

    fn copying(&self) -> MutexGuard<'_, Option<Copying>> {
        // Every change is one insertion or removal, so a poisoned lock is consistent.
        self.copying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a copy, where there is a directory: what counts as there is read from now on, and no other process removes what
    /// no image needs yet.
    pub(super) fn begin(&self, stop: &Stop) -> Result<()> {
        self.check_is_no_file()?;
        let mut copying = self.copying();
        if copying.is_some() || !self.path().is_dir() {
            return Ok(());
        }
        let lock = File::open(self.path());
        let lock = lock.map_err(|e| Error::io(format!("opening {}", self.path().display()), e))?;
        let lock = loop {
            stop.check()?;
            match files::is_locked(lock.try_lock_shared()) {
                Ok(true) => break Some(lock),
                // Another process cleans up, which takes a moment.
                Ok(false) => thread::sleep(Duration::from_millis(5)),
                Err(_) => break None,
            }
        };
        *copying = Some(Copying { lock, verified: HashSet::new() });
        Ok(())
    }

    /// Ends a copy with `clean`, which is asked to remove what no image needs where no other process copies.
    pub(super) fn end(&self, clean: impl FnOnce(bool)) {
        let lock = self.copying().take().and_then(|copying| copying.lock);
        // The shared lock becomes an exclusive one (flock(2)).
        clean(lock.is_some_and(|lock| files::is_locked(lock.try_lock()).unwrap_or(false)));
    }

    pub(super) fn path(&self) -> &Path {
        self.root.path()
    }

    /// The bytes of `manifest.json`; `None` when there is none.
    pub(super) fn top(&self) -> Result<Option<Bytes>> {
        self.check_is_no_file()?;
        self.check_version()?;
        self.root.document(TOP, limits::MANIFEST)
    }

    fn check_is_no_file(&self) -> Result<()> {
        if !self.path().is_file() {
            return Ok(());
        }
        let error = Error::corrupt("it is a file, and not the directory of an image");
        Err(error.with_hint("images in tar files open as oci-archive:FILE or docker-archive:FILE"))
    }

    /// The image, or with a digest a document of it.
    ///
    /// # Errors
    /// `Corrupt` for what is no document of an image.
    pub(super) fn manifest(&self, wanted: Option<&Digest>) -> Result<Option<RawManifest>> {
        let top = self.top()?;
        let Some(wanted) = wanted else {
            return match top {
                Some(bytes) => read_top(bytes).map(Some),
                None => Err(self.no_image()),
            };
        };
        digest::supported(wanted)?;
        if let Some(bytes) = self.root.document(&document_name(wanted), limits::MANIFEST)? {
            return RawManifest::verified(bytes, None, wanted).map(Some);
        }
        let Some(bytes) = top else { return Ok(None) };
        let mut hasher = Hasher::like(wanted)?;
        hasher.update(&bytes);
        if hasher.finish() != *wanted {
            return Ok(None);
        }
        RawManifest::verified(bytes, None, wanted).map(Some)
    }

    /// The document that an index lists.
    pub(super) fn document(&self, listed: &Descriptor) -> Result<Option<RawManifest>> {
        digest::supported(listed.digest())?;
        let bytes = self.root.document(&document_name(listed.digest()), limits::MANIFEST)?;
        bytes.map(|bytes| RawManifest::described(bytes, listed)).transpose()
    }

    pub(super) fn blob(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        digest::supported(blob.digest())?;
        let start = range.resolve(blob.size())?.start;
        let Some((mut file, size)) = self.root.open(blob_name(blob.digest()).as_ref())? else {
            let error = Error::not_found(format!("no blob {}", blob.digest()));
            return Err(error
                .with_context("blob", blob.digest())
                .with_detail(MissingBlob(blob.digest().clone())));
        };
        if size != blob.size() {
            return Err(Mismatch::of(blob, None, size).into());
        }
        file.seek(SeekFrom::Start(start)).map_err(|e| Error::io("seeking in a blob", e))?;
        let same = file.try_clone().map_err(|e| Error::io("opening a blob", e))?;
        Ok(Blob::from_reader(blob, range, file)?.with_file(same))
    }

    /// Whether a blob is there. A copy into the directory reads it once, because nothing else would find damage.
    pub(super) fn has_blob(&self, blob: &Descriptor, stop: &Stop) -> Result<bool> {
        let found = self.root.open(blob_name(blob.digest()).as_ref())?;
        let Some((file, _)) = found.filter(|(_, size)| *size == blob.size()) else { return Ok(false) };
        let known = self.copying().as_ref().map(|copying| copying.verified.contains(blob.digest()));
        if let None | Some(true) = known {
            return Ok(true);
        }
        let mut hasher = Hasher::like(blob.digest())?;
        let path = self.path().join(blob_name(blob.digest()));
        let read = hasher.read_all(stop.reader(file));
        read.map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
        if hasher.finish() != *blob.digest() {
            tracing::warn!("{} is damaged, and is copied again", path.display());
            return Ok(false);
        }
        self.is_verified(blob.digest());
        Ok(true)
    }

    fn is_verified(&self, digest: &Digest) {
        if let Some(copying) = &mut *self.copying() {
            copying.verified.insert(digest.clone());
        }
    }

    /// Makes the directory when there is none.
    ///
    /// # Errors
    /// `Config` for one with files of other programs, `Unsupported` for one of another version.
    pub(super) fn prepare(&self, stop: &Stop) -> Result<()> {
        durable::create_dirs(self.path(), false)?;
        self.begin(stop)?;
        if self.check_version()? {
            return Ok(());
        }
        let mut is_foreign = false;
        files::for_each(self.path(), |entry, _| {
            let name = entry.file_name();
            is_foreign |= name != "lost+found" && name != RECORD && !is_part(&name.to_string_lossy());
            Ok(())
        })?;
        // Another task may have made it since: the version comes first.
        if is_foreign && !self.check_version()? {
            let message =
                format!("{} is not empty, and not the directory of an image", self.path().display());
            return Err(Error::config(message).with_hint("choose a directory for the image alone"));
        }
        self.write(VERSION, WRITTEN.as_bytes(), stop)
    }

    /// Whether there is a version; a directory without one may be of an early version, and can be read.
    fn check_version(&self) -> Result<bool> {
        let Some(version) = self.root.document(VERSION, VERSION_LIMIT)? else { return Ok(false) };
        let text = String::from_utf8_lossy(&version);
        if text.starts_with(READ) {
            return Ok(true);
        }
        let first = printable(text.lines().next().unwrap_or_default());
        Err(Error::unsupported(format!("the directory has the version {first:?}"))
            .with_context("document", VERSION)
            .with_hint(format!("version 1 is known: {:?}", WRITTEN.trim_end())))
    }

    /// Writes a file atomically.
    ///
    /// # Errors
    /// Those of `content`: nothing is written then.
    pub(super) fn write(&self, name: &str, content: impl Read, stop: &Stop) -> Result<()> {
        let path = self.part(name);
        let mut temp = claim(&path, stop)?;
        let writing = |e| Error::io(format!("writing {}", path.display()), e);
        temp.file().set_len(0).map_err(writing)?;
        std::io::copy(&mut stop.reader(content), temp.file()).map_err(writing)?;
        self.publish(temp, name)
    }

    /// Bytes of a blob that a writer before has left.
    pub(super) fn partial(&self, blob: &Descriptor) -> Result<u64> {
        let found = files::look(&self.part(&blob_name(blob.digest())))?;
        Ok(found.map_or(0, |found| found.len()).min(blob.size()))
    }

    /// Writes a blob atomically, or goes on with what a writer before has left of it: `content` begins at the blob's byte `from`.
    ///
    /// # Errors
    /// Those of `content`: what has arrived is kept then. `Corrupt` when it is not what its digest says, and nothing is kept.
    pub(super) fn write_blob(
        &self,
        blob: &Descriptor,
        from: u64,
        content: impl Read,
        stop: &Stop,
    ) -> Result<()> {
        let name = blob_name(blob.digest());
        let path = self.part(&name);
        let writing = |e| Error::io(format!("writing {}", path.display()), e);
        let mut temp = claim(&path, stop)?;
        if from == 0 {
            temp.file().set_len(0).map_err(writing)?;
        }
        let mut hasher = Hasher::like(blob.digest())?;
        // It is read from its start, and written to at its end.
        let mut size = hasher.read_all(stop.reader(temp.file())).map_err(writing)?;
        let known = size.checked_sub(from).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the beginning of the blob is no longer there")
        });
        let mut content = stop.reader(content);
        let copied = known.and_then(|known| {
            // What is there already is passed over, and the digest decides.
            std::io::copy(&mut content.by_ref().take(known), &mut std::io::sink()).map_err(writing)?;
            let mut piece = PageBuffer::new(STEP);
            loop {
                match content.read(&mut piece) {
                    Ok(0) => return Ok(()),
                    Ok(count) => {
                        temp.file().write_all(&piece[..count]).map_err(writing)?;
                        hasher.update(&piece[..count]);
                        size += count as u64;
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(writing(e)),
                }
            }
        });
        match copied {
            Err(e) if *e.kind() == ErrorKind::Corrupt => return Err(e),
            Err(e) => {
                temp.keep();
                return Err(e);
            }
            Ok(()) => {}
        }
        let actual = hasher.finish();
        if size != blob.size() || actual != *blob.digest() {
            return Err(Mismatch::of(blob, Some(actual), size).into());
        }
        self.publish(temp, &name)?;
        self.is_verified(blob.digest());
        Ok(())
    }

    /// Gives a file its name. Content that the image may not need is recorded before, where a later copy can remove it.
    fn publish(&self, mut temp: Temp, name: &str) -> Result<()> {
        let is_locked = self.copying().as_ref().is_some_and(|copying| copying.lock.is_some());
        if is_locked && is_content(name) {
            record::add(self.path(), name, temp.file())?;
        }
        temp.publish(&self.path().join(name), MODE)
    }

    /// Where a file is written before it has its name.
    fn part(&self, name: &str) -> PathBuf {
        self.path().join(format!(".{name}{PART}"))
    }

    fn no_image(&self) -> Error {
        let error = Error::not_found(format!("there is no image in the directory: it has no {TOP}"));
        if self.path().join("oci-layout").exists() {
            return error.with_hint("it is a layout directory, which opens as oci:DIRECTORY");
        }
        error
    }
}

/// The file at a path that is not locked by another writer.
fn claim(path: &Path, stop: &Stop) -> Result<Temp> {
    loop {
        stop.check()?;
        match Temp::claim_at(path)? {
            Some(temp) => return Ok(temp),
            // Its owner writes the same.
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Whether a file is one that is being written, or was by a process that was killed.
pub(super) fn is_part(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(PART)
}

/// Whether a file has the name of a blob or a document.
pub(super) fn is_content(name: &str) -> bool {
    let hex = name.strip_suffix(".manifest.json").unwrap_or(name);
    matches!(hex.len(), 64 | 96 | 128) && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// The document on top.
pub(super) fn read_top(bytes: Bytes) -> Result<RawManifest> {
    let is_list = bytes.trim_ascii_start().first() == Some(&b'[');
    let read = RawManifest::new(bytes, None).map_err(|e| e.with_context("document", TOP));
    match read {
        Err(e) if is_list => Err(e.with_hint(
            "it is the list of an archive by `docker save` that was unpacked: read the archive itself",
        )),
        read => read,
    }
}
