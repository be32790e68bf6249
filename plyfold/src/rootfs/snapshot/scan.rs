//! Reading the disks of a folder.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use plyfold_core::block_sums::SumsInOrder;
use plyfold_core::digest::{Hasher, read_all};
use plyfold_core::durable::temporary_file;
use plyfold_core::snapshot::delta::{self, Disk};
use plyfold_core::snapshot::{
    Base, Content, Delta, SetFile, SetRecord, Snapshot, SnapshotFault, SnapshotFile,
};
use plyfold_core::{Error, Result};

use super::super::own_vmdk;
use super::super::set::names::left_in;
use super::disk::{FileDisk, FileReader};
use super::stored::HashingWriter;
#[cfg(feature = "ext4")]
use super::writable;
use super::{empty, folder};
use crate::blocking::Stop;
use crate::regular_file;

/// Bytes gathered before they are written.
const GATHER: usize = 1 << 20;

/// A folder with disks of an image.
pub(super) struct DiskFolder<'a> {
    folder: PathBuf,
    pub(super) record: SetRecord,
    stop: &'a Stop,
}

/// One of the disks, opened.
pub(super) struct OpenDisk<'a> {
    of: &'a SetFile,
    pub(super) file: File,
    path: PathBuf,
    before: State,
}

/// What changes when a file is written to: its size, and the time of the last write.
type State = (u64, Option<SystemTime>);

impl<'a> DiskFolder<'a> {
    /// Opens the folder, which says which image its disks are of. A disk of an older set that guests may have written to
    /// is refused: it would be missing from the snapshot.
    pub(super) fn open(folder: &Path, stop: &'a Stop) -> Result<Self> {
        let record = folder::record(folder)?;
        let is_of_set = |name: &str| record.files.iter().any(|file| file.name == name);
        if let Some(path) = left_in(folder, is_of_set).next() {
            let message = "a disk is here that guests may have written to, and it is no part of the set";
            let hint =
                "move it to another directory: it is of older disks, and the snapshot would not have it";
            return Err(Error::config(message).with_context("path", path.display()).with_hint(hint));
        }
        Ok(Self { folder: folder.to_owned(), record, stop })
    }

    /// Looks at the disks that guests write to, before anything is read. What their user has to know.
    #[cfg(feature = "ext4")]
    pub(super) fn judged(&self, live: bool) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for of in self.record.files.iter().filter(|file| file.writable) {
            let disk = self.disk(of)?;
            notes.extend(writable::judged(&disk.file, of, live).map_err(|e| disk.at(e))?);
        }
        Ok(notes)
    }

    #[cfg(not(feature = "ext4"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the signature of the other one")]
    pub(super) fn judged(&self, _: bool) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Opens one of the disks.
    pub(super) fn disk<'f>(&self, of: &'f SetFile) -> Result<OpenDisk<'f>> {
        self.stop.check()?;
        let path = self.folder.join(&of.name);
        let file = regular_file::open(&self.folder, &of.name)?.ok_or_else(|| folder::missing_disk(&path))?;
        let before = state(&file).map_err(|e| e.with_context("path", path.display()))?;
        Ok(OpenDisk { of, file, path, before })
    }

    /// Hashes a disk that no guest writes to, as `content`: the disk itself, or a copy of it. It has to be the one that was
    /// made: what is said of it, such as its layer, holds for that one.
    pub(super) fn whole(&self, disk: &OpenDisk<'_>, content: &File) -> Result<SnapshotFile> {
        let (made, checksum) = (disk.of.digest.as_ref(), disk.of.checksum);
        let mut hasher = made.map_or_else(|| Ok(Hasher::sha256()), Hasher::like)?;
        let mut sums = SumsInOrder::default();
        let read = read_all(self.stop.reader(FileReader { file: content, at: 0 }), |bytes| {
            hasher.update(bytes);
            sums.update(bytes);
        });
        let size = read.map_err(|e| disk.at(Error::io("reading a disk", e)))?;
        let digest = hasher.finish();
        let is_made = made == Some(&digest) || checksum == Some(sums.finish().checksum());
        let found = disk.unchanged(SnapshotFile::new(disk.of.clone(), size, Content::Whole(digest)))?;
        if is_made && own_vmdk::is_one(disk.of) {
            own_vmdk::check_file(disk.of, content, self.record.files.iter()).map_err(|e| disk.at(e))?;
        }
        if is_made { Ok(found) } else { Err(disk.at(SnapshotFault::Modified(disk.of.name.clone()).into())) }
    }

    /// Writes the delta of a disk that guests write to; other files go to `scratch`.
    pub(super) fn delta(
        &self,
        disk: &OpenDisk<'_>,
        scratch: &Path,
        out: &mut dyn Write,
    ) -> Result<SnapshotFile> {
        let base = self.base(disk, scratch).map_err(|e| disk.at(e))?;
        let old = base.as_ref().map(|(_, file)| FileDisk { file, stop: self.stop });
        let hashing = HashingWriter { writer: out, hasher: Hasher::sha256(), count: 0 };
        let mut out = BufWriter::with_capacity(GATHER, hashing);
        let of_disk = FileDisk { file: &disk.file, stop: self.stop };
        let writing = |e| disk.at(Error::io("writing a delta", e));
        let own = delta::write(&of_disk, old.as_ref().map(|old| old as &dyn Disk), &mut out);
        let own = own.map_err(|e| match e.kind() {
            // It became shorter.
            io::ErrorKind::UnexpectedEof => disk.changed(),
            _ => writing(e),
        })?;
        let written = out.into_inner().map_err(|e| writing(e.into_error()))?;
        let delta = Delta::new(written.hasher.finish(), written.count, own, base.map(|(base, _)| base));
        disk.unchanged(SnapshotFile::new(disk.of.clone(), disk.before.0, Content::Delta(delta)))
    }

    /// The snapshot of what was read.
    pub(super) fn snapshot(&self, files: Vec<SnapshotFile>) -> Result<Snapshot> {
        Snapshot::new(self.record.image.clone(), self.record.kernel, files)
    }

    /// The empty disk that a disk was made from, if it was made from one.
    fn base(&self, disk: &OpenDisk<'_>, scratch: &Path) -> Result<Option<(Base, File)>> {
        let Some(empty) = &disk.of.empty else { return Ok(None) };
        let mut made = temporary_file(scratch)?;
        if !empty::write(empty, &mut made)? || !empty::is_made_from(&disk.file, &made) {
            return Ok(None);
        }
        let digest = delta::digest_of(&FileDisk { file: &made, stop: self.stop });
        let digest = digest.map_err(|e| Error::io("reading an empty disk", e))?;
        Ok(Some((Base::new(empty.clone(), digest), made)))
    }
}

impl OpenDisk<'_> {
    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.before.0
    }

    /// What was read, unless the disk has changed meanwhile.
    fn unchanged(&self, read: SnapshotFile) -> Result<SnapshotFile> {
        let after = state(&self.file).map_err(|e| self.at(e))?;
        if after == self.before && read.size == self.before.0 { Ok(read) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Error {
        self.at(SnapshotFault::Changed(self.of.name.clone()).into())
    }

    fn at(&self, e: Error) -> Error {
        e.with_context("path", self.path.display())
    }
}

fn state(file: &File) -> Result<State> {
    let found = file.metadata().map_err(|e| Error::io("looking at a disk", e))?;
    Ok((found.len(), found.modified().ok()))
}
