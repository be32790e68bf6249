//! The files of the directory of one image.

use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use plyfold_core::blocking::Stop;
use plyfold_core::cache::MissingBlob;
use plyfold_core::digest::Hasher;
use plyfold_core::manifest::limits;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Digest, Error, Mismatch, RawManifest, Result, digest, printable,
};

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
}

impl Folder {
    pub(super) fn new(path: PathBuf, follow: bool) -> Self {
        Self { root: Root::new(path, false, follow) }
    }

    pub(super) fn path(&self) -> &Path {
        self.root.path()
    }

    /// The bytes of `manifest.json`; `None` when there is none.
    pub(super) fn top(&self) -> Result<Option<Bytes>> {
        if self.path().is_file() {
            let error = Error::corrupt("it is a file, and not the directory of an image");
            return Err(
                error.with_hint("images in tar files open as oci-archive:FILE or docker-archive:FILE")
            );
        }
        self.check_version()?;
        self.root.document(TOP, limits::MANIFEST)
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

    pub(super) fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let found = self.root.open(blob_name(blob.digest()).as_ref())?;
        Ok(found.is_some_and(|(_, size)| size == blob.size()))
    }

    /// Makes the directory when there is none.
    ///
    /// # Errors
    /// `Config` for one with files of other programs, `Unsupported` for one of another version.
    pub(super) fn prepare(&self, stop: &Stop) -> Result<()> {
        durable::create_dirs(self.path(), false)?;
        if self.check_version()? {
            return Ok(());
        }
        let mut is_foreign = false;
        files::for_each(self.path(), |entry, _| {
            let name = entry.file_name();
            is_foreign |= name != "lost+found" && !is_part(&name.to_string_lossy());
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
        let path = self.path().join(format!(".{name}{PART}"));
        let mut temp = loop {
            stop.check()?;
            match Temp::claim_at(&path)? {
                Some(temp) => break temp,
                // Its owner writes the same.
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let writing = |e| Error::io(format!("writing {}", path.display()), e);
        temp.file().set_len(0).map_err(writing)?;
        std::io::copy(&mut stop.reader(content), temp.file()).map_err(writing)?;
        temp.publish(&self.path().join(name), MODE)
    }

    fn no_image(&self) -> Error {
        let error = Error::not_found(format!("there is no image in the directory: it has no {TOP}"));
        if self.path().join("oci-layout").exists() {
            return error.with_hint("it is a layout directory, which opens as oci:DIRECTORY");
        }
        error
    }
}

/// Whether a file is one that is being written, or was by a process that was killed.
pub(super) fn is_part(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(PART)
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
