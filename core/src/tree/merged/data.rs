//! Where the bytes of an image's files lie.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use crate::digest::Hasher;
use crate::page_buffer::PageBuffer;
use crate::tree::{HeapSize, TreeFault};
use crate::{Digest, Error, Result};

/// The number of the spool among the files.
pub(super) const SPOOL: u16 = 0;

/// Bits of an offset in a file.
const OFFSET_BITS: u32 = 48;

/// Where the bytes of a file lie. Read them by [`MergedTree::read_at`](super::MergedTree::read_at).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileData {
    /// Where those of a file without holes begin.
    pub(super) at: Place,
    /// The runs of data of a file with holes, or of one in several pieces.
    pub(super) runs: Option<Box<Runs>>,
}

/// Ascending, disjoint, not empty.
pub(super) type Runs = Box<[Run]>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Run {
    pub(super) at: Place,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl HeapSize for FileData {
    fn heap_bytes(&self) -> usize {
        self.runs.as_ref().map_or(0, |runs| size_of::<Runs>() + size_of_val(&***runs))
    }
}

/// The number of a file of the tree, and an offset in it: as small as the offset alone, as there is one for each file
/// of an image.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Place(u64);

impl Place {
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) from 2^48 bytes on.
    pub(super) fn new(file: u16, offset: u64) -> Result<Self> {
        if offset >> OFFSET_BITS != 0 {
            return Err(TreeFault::Offset(offset).into());
        }
        Ok(Self(u64::from(file) << OFFSET_BITS | offset))
    }

    pub(super) fn file(self) -> u16 {
        (self.0 >> OFFSET_BITS) as u16
    }

    pub(super) fn offset(self) -> u64 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }
}

/// The files that an image's content lies in.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Made when the first bytes come that lie in no file yet.
    pub(super) spool: Option<File>,
    /// The files from number 1 on.
    pub(super) files: Vec<Watched>,
}

impl Contents {
    /// The file of that number.
    pub(super) fn file(&self, number: u16) -> Result<&File> {
        let file = match usize::from(number).checked_sub(1) {
            None => self.spool.as_ref(),
            Some(index) => self.files.get(index).map(|watched| &watched.file),
        };
        file.ok_or_else(|| Error::new(crate::ErrorKind::Internal, "content lies in a file that is not open"))
    }
}

/// A file that others may write to.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) file: File,
    before: Seen,
    /// The digest of its first bytes, and how many: all that content lies in.
    content: Option<(Digest, u64)>,
}

/// What of a file changes when it is written to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Seen {
    size: u64,
    modified: (i64, i64),
}

impl Watched {
    /// The file as it is now.
    pub(crate) fn new(file: File) -> Result<Self> {
        let before = Seen::of(&metadata(&file)?);
        Ok(Self { file, before, content: None })
    }

    /// The same with the digest that its first bytes had when they were read.
    pub(crate) fn with_content(self, digest: Option<Digest>, size: u64) -> Self {
        Self { content: digest.map(|digest| (digest, size)), ..self }
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.before.size
    }

    /// A time of the last write that is another says nothing where the content is the same: caches set it to note that a
    /// blob is used.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when it was written to since.
    pub(crate) fn check(&self) -> Result<()> {
        let now = Seen::of(&metadata(&self.file)?);
        if now == self.before || (now.size == self.before.size && self.has_its_content()?) {
            Ok(())
        } else {
            Err(TreeFault::Changed.into())
        }
    }

    fn has_its_content(&self) -> Result<bool> {
        let Some((digest, size)) = &self.content else { return Ok(false) };
        let mut hasher = Hasher::like(digest)?;
        let (mut at, mut buffer) = (0, PageBuffer::new(1 << 17));
        while at < *size {
            let part = &mut buffer[..(size - at).min(1 << 17) as usize];
            let read = self.file.read_exact_at(part, at);
            read.map_err(|e| Error::io("reading a file with an image's content again", e))?;
            hasher.update(part);
            at += part.len() as u64;
        }
        Ok(hasher.finish() == *digest)
    }
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

fn metadata(file: &File) -> Result<Metadata> {
    file.metadata().map_err(|e| Error::io("looking at a file with an image's content", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn a_file_takes_no_more_for_the_number_of_its_file() {
        let run = Run { at: Place::default(), offset: 0, length: 1 };
        let data = FileData { runs: Some(Box::new(vec![run; 100].into())), ..FileData::default() };
        assert_eq!(data.heap_bytes(), 16 + 100 * 24);
        assert_eq!(FileData::default().heap_bytes(), 0);
        assert_eq!(size_of::<Node<FileData>>(), 72);
    }

    #[test]
    fn a_place_has_a_file_and_an_offset() {
        for (file, offset) in [(0, 0), (1, 0), (u16::MAX, (1 << 48) - 1), (7, 4096)] {
            let place = Place::new(file, offset).unwrap();
            assert_eq!((place.file(), place.offset()), (file, offset));
        }
        assert!(matches!(Place::new(0, 1 << 48).unwrap_err().detail(), Some(TreeFault::Offset(_))));
    }
}
