//! What a writer that was ended has left beside an archive.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::sync::Arc;

use plyfold_core::blocking::Stop;
use plyfold_core::digest::{self, Hasher};
use plyfold_core::{Descriptor, Digest, Error, ErrorKind, Result};
use tar::EntryType;

use super::gap;
use crate::members::{Headers, Member};

/// Bytes of a tar's blocks.
pub(super) const BLOCK: u64 = 512;

/// The blobs that are complete, and where the last of them ends.
#[derive(Debug, Default)]
pub(super) struct Left {
    blobs: HashMap<Digest, Member>,
    pub(super) folders: BTreeSet<String>,
    pub(super) end: u64,
    /// The blob behind it that was being written.
    pub(super) cut: Option<Appending>,
    /// Blobs that have come in part, with members behind them.
    pub(super) parts: Vec<Appending>,
    /// Whether a member is neither complete nor a part.
    pub(super) has_gaps: bool,
}

/// A blob on its way into the file.
#[derive(Debug)]
pub(super) struct Appending {
    pub(super) digest: Digest,
    /// Bytes that it is to have.
    pub(super) wanted: u64,
    /// Of all bytes that are written.
    pub(super) hasher: Hasher,
    /// Where its content begins.
    pub(super) start: u64,
    /// Bytes that are written.
    pub(super) size: u64,
}

impl Appending {
    pub(super) fn is_of(&self, blob: &Descriptor) -> bool {
        (&self.digest, self.wanted) == (blob.digest(), blob.size())
    }

    /// Where its content is to be.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.start, self.wanted)
    }

    /// Where the next member begins.
    pub(super) fn next(&self) -> u64 {
        (self.start + self.wanted).next_multiple_of(BLOCK)
    }

    /// The first bytes of a blob that are in the file, in place of all that are.
    pub(super) fn shortened(self, file: &Arc<File>, size: u64) -> Result<Self> {
        let mut hasher = Hasher::like(&self.digest)?;
        let read = hasher.read_all(Member::new(file.clone(), self.start, size).reader(0));
        read.map_err(|e| Error::io("reading what was written of the archive", e))?;
        Ok(Self { hasher, size, ..self })
    }
}

impl Left {
    /// Reads members up to the first one that is damaged or cut off, is no blob, or does not match the digest in its name.
    ///
    /// # Errors
    /// Those of reading the file, `Cancelled`.
    pub(super) fn read(file: &Arc<File>, stop: &Stop) -> Result<Self> {
        let failed = |e| Error::io("reading what a writer of the archive has left", e);
        let length = file.metadata().map_err(failed)?.len();
        let mut left = Self::default();
        let headers = Headers::new(file);
        io::Seek::rewind(&mut &headers).map_err(failed)?;
        let mut tar = tar::Archive::new(&headers);
        for entry in tar.entries_with_seek().map_err(failed)? {
            stop.check()?;
            let entry = match entry.map_err(|e| headers.verdict(e)) {
                Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Limit) => break,
                entry => entry?,
            };
            headers.ended();
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (offset, size) = (entry.raw_file_position(), entry.size());
            let next = offset.checked_add(size).and_then(|end| end.checked_next_multiple_of(BLOCK));
            let is_blob = entry.header().entry_type() == EntryType::Regular && left.folders.contains("blobs");
            if is_blob
                && let Some(next) = next
                && let Some(there) = gap::noted(file, (offset, size)).map_err(failed)?
            {
                match part(file, &path, (offset, size), there, stop)? {
                    Some(part) if there > 0 => left.parts.push(part),
                    _ => left.has_gaps = true,
                }
                left.end = next;
                continue;
            }
            let Some(next) = next.filter(|next| *next <= length) else {
                if is_blob {
                    left.cut = part(file, &path, (offset, size), size, stop)?;
                }
                break;
            };
            match entry.header().entry_type() {
                EntryType::Directory => _ = left.folders.insert(path.trim_end_matches('/').to_owned()),
                EntryType::Regular => {
                    let Some(digest) = digest_of(&path) else { break };
                    let member = Member::new(file.clone(), offset, size);
                    let mut hasher = Hasher::like(&digest)?;
                    hasher.read_all(stop.reader(member.reader(0))).map_err(failed)?;
                    if hasher.finish() != digest {
                        break;
                    }
                    left.blobs.insert(digest, member);
                }
                _ => break,
            }
            left.end = next;
        }
        Ok(left)
    }

    /// Takes a blob of it.
    pub(super) fn take(&mut self, blob: &Descriptor) -> Option<Member> {
        let is_it = self.blobs.get(blob.digest()).is_some_and(|member| member.size == blob.size());
        if is_it { self.blobs.remove(blob.digest()) } else { None }
    }

    /// Whether all of it was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }
}

/// The beginning of a blob whose content is to be at a place of so many bytes: so many of them, or all to the end of the file.
fn part(
    file: &Arc<File>,
    path: &str,
    (start, wanted): (u64, u64),
    there: u64,
    stop: &Stop,
) -> Result<Option<Appending>> {
    let failed = |e| Error::io("reading what a writer of the archive has left", e);
    let Some(digest) = digest_of(path) else { return Ok(None) };
    let mut hasher = Hasher::like(&digest)?;
    // Where the padding alone is missing all of it is there.
    let there = Member::new(file.clone(), start, there).reader(0);
    let size = hasher.read_all(stop.reader(there)).map_err(failed)?;
    Ok(Some(Appending { digest, wanted, hasher, start, size }))
}

/// The digest that a member is named by.
fn digest_of(path: &str) -> Option<Digest> {
    let digest = digest::parse(&path.strip_prefix("blobs/")?.replacen('/', ":", 1)).ok()?;
    digest::supported(&digest).ok().map(|()| digest)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_error_of_reading_is_no_end() {
        let folder = tempfile::tempdir().unwrap();
        // It is open for writing alone.
        let mut file = File::create(folder.path().join("part")).unwrap();
        file.write_all(&[0; 2 * BLOCK as usize]).unwrap();
        Left::read(&Arc::new(file), &Stop::default()).unwrap_err();
    }
}
