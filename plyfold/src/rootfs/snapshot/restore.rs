//! From a stored snapshot to disks, and to nothing but a verdict.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use plyfold_core::block_sums::Checksum;
use plyfold_core::durable::temporary_file;
use plyfold_core::snapshot::delta;
use plyfold_core::snapshot::{Content, Delta, RECORD, SetFile, Snapshot, SnapshotFault, SnapshotFile};
use plyfold_core::{Digest, Error, Output as _, Result};

use super::super::disks::{Disk, Disks};
use super::super::own_vmdk;
use super::super::set::Set;
use super::disk::{FileDisk, FileReader, WrittenDisk};
use super::empty;
use super::stored::{self, Hashing, Stored};
use crate::atomic_file::{AtomicFile, FileOptions};
use crate::blocking::Stop;

/// A snapshot that is read from a place.
pub(super) struct Restore<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) from: &'a dyn Stored,
    pub(super) stop: &'a Stop,
}

impl Restore<'_> {
    /// Writes the disks to a folder, where they appear together, once all of them are verified.
    pub(super) fn write_to(&self, out: &Path, options: FileOptions) -> Result<Disks> {
        let files = &self.snapshot.files;
        for file in files.iter().filter(|file| file.file.writable) {
            let target = out.join(&file.file.name);
            if fs::symlink_metadata(&target).is_ok() {
                let error = Error::config("there is a disk already that a guest may have written to");
                let error = error.with_context("path", target.display());
                return Err(
                    error.with_hint("remove it if it is no longer needed, or choose another directory")
                );
            }
        }
        let mut set = Set::new(out, options, self.stop)?;
        set.declare(files.iter().map(|file| &*file.file.name))?;
        let mut disks = Disks { kernel: self.snapshot.kernel, ..Disks::default() };
        let mut recorded = Vec::new();
        for file in files {
            let (name, refers) = (&file.file.name, file.file.format != files[0].file.format);
            if refers && !file.file.writable {
                set.refers(name);
            }
            let mut of = file.file.clone();
            let (path, size) = match &file.content {
                Content::Delta(delta) => {
                    set.add_writable(name, |disk| self.disk(file, delta, disk).map_err(|e| self.at(file, e)))?
                }
                Content::Whole(digest) => {
                    let mut checksum = None;
                    let added = set.add(name, |out| {
                        checksum = Some(self.whole(file, digest, out).map_err(|e| self.at(file, e))?);
                        Ok(())
                    })?;
                    of = checksum.into_iter().fold(of, |of, checksum| of.of_checksum(checksum, file.size));
                    added
                }
                _ => return Err(Error::unsupported("this content of a snapshot is not known")),
            };
            disks.add(Disk::of(&of, path, size));
            recorded.push(of);
        }
        // As `materialize` writes it.
        let mut record = self.snapshot.record();
        record.files = recorded;
        set.add(RECORD, |file| Ok(io::Write::write_all(file, &record.to_json())?))?;
        disks.notes.extend(set.publish()?);
        Ok(disks)
    }

    /// What is wrong with the snapshot is said of the file that is stored, and the rest of the output.
    fn at(&self, file: &SnapshotFile, e: Error) -> Error {
        match self.from.path(file).filter(|_| e.detail::<SnapshotFault>().is_some()) {
            Some(path) => e.with_context("path", path.display()),
            None => e,
        }
    }

    /// Reads everything; `scratch` is for the disks that guests wrote to, one at a time.
    pub(super) fn verify(&self, scratch: &Path) -> Result<()> {
        let each = |file| self.verify_file(file, scratch).map_err(|e| self.at(file, e));
        self.snapshot.files.iter().try_for_each(each)
    }

    fn verify_file(&self, file: &SnapshotFile, scratch: &Path) -> Result<()> {
        let (digest, size) = file.stored();
        let mut content = Hashing::like(digest, self.stop.reader(self.from.open(file)?))?;
        let Content::Delta(delta) = &file.content else {
            if !own_vmdk::is_one(&file.file) {
                return content.check(file).map(drop);
            }
            let bytes = own_vmdk::read(&file.file, &mut content, size, own_vmdk::read_over)?;
            content.check(file)?;
            return own_vmdk::check(&file.file, &bytes, self.files());
        };
        let (mut made, name) = (temporary_file(scratch)?, &file.file.name);
        let digest = |disk: &File| digest_of(&FileDisk { file: disk, stop: self.stop });
        if let Some(base) = &delta.base
            && (!empty::write(&base.empty, &mut made)? || digest(&made)? != base.digest)
        {
            return Err(SnapshotFault::Base(name.clone()).into());
        }
        made.set_len(file.size).map_err(|e| Error::io("writing a disk", e))?;
        let delta_bytes = BufReader::new((&mut content).take(size));
        let applied = delta::apply(delta_bytes, file.size, &mut WrittenDisk(&made));
        checked(file, content, applied)?;
        if digest(&made)? != delta.disk {
            return Err(SnapshotFault::Altered(name.clone()).into());
        }
        Ok(())
    }

    /// The checksum of what was written.
    fn whole(&self, file: &SnapshotFile, digest: &Digest, out: &mut AtomicFile) -> Result<Checksum> {
        let content = self.from.open(file)?;
        let checksum = if matches!(&content, stored::Content::File(content) if out.share(content)) {
            // The clone is what gets the name.
            Hashing::like(digest, self.stop.reader(FileReader { file: out.file(), at: 0 }))?.check(file)?
        } else {
            let mut content = Hashing::like(digest, content)?;
            out.copy_of((&mut content).take(file.size), file.size)?;
            content.check(file)?
        };
        if own_vmdk::is_one(&file.file) {
            own_vmdk::check_file(&file.file, out.file(), self.files())?;
        }
        Ok(checksum)
    }

    fn files(&self) -> impl Iterator<Item = &SetFile> {
        self.snapshot.files.iter().map(|file| &file.file)
    }

    /// Makes the empty disk again, and applies the delta.
    fn disk(&self, file: &SnapshotFile, delta: &Delta, out: &mut AtomicFile) -> Result<()> {
        let name = &file.file.name;
        if let Some(base) = &delta.base
            && (!empty::write(&base.empty, out)? || self.digest(out)? != base.digest)
        {
            return Err(SnapshotFault::Base(name.clone()).into());
        }
        out.set_len(file.size)?;
        let mut content = Hashing::like(&delta.digest, self.stop.reader(self.from.open(file)?))?;
        let applied = delta::apply(
            BufReader::new((&mut content).take(delta.size)),
            file.size,
            &mut WrittenDisk(out.file()),
        );
        checked(file, content, applied)?;
        if self.digest(out)? != delta.disk {
            return Err(SnapshotFault::Altered(name.clone()).into());
        }
        Ok(())
    }

    fn digest(&self, out: &AtomicFile) -> Result<Digest> {
        digest_of(&FileDisk { file: out.file(), stop: self.stop })
    }
}

fn digest_of(disk: &FileDisk<'_>) -> Result<Digest> {
    delta::digest_of(disk).map_err(|e| Error::io("reading a disk", e))
}

/// Of a delta that cannot be applied it is said that it was altered, if it was.
fn checked<R: Read>(file: &SnapshotFile, content: Hashing<R>, applied: Result<()>) -> Result<()> {
    match applied {
        Err(e) if matches!(e.detail(), Some(SnapshotFault::Delta(_))) => content.check(file).and(Err(e)),
        Err(e) => Err(e),
        Ok(()) => content.check(file).map(drop),
    }
}
