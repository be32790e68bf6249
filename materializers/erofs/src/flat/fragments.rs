//! The parts of files that are compressed together, as one file without a name.

use std::collections::HashMap;
use std::iter;

use plyfold_core::Result;
use plyfold_core::tree::{MergedTree, NodeId};

use super::bodies::Bodies;
use crate::compress::algorithm::Compression;
use crate::compress::segment::Fragment;

/// One file.
#[derive(Clone, Copy)]
pub(super) struct Source {
    /// The number of its inode.
    pub(super) at: usize,
    pub(super) id: NodeId,
    pub(super) size: u64,
    /// Whether it may end in a fragment.
    pub(super) fragments: bool,
}

/// How many bytes of fragments there may still be: an index says where one stands in 32 bits.
pub(super) struct Room(u64);

impl Room {
    pub(super) fn new(compression: &Compression) -> Self {
        Self(if compression.fragments { u32::MAX.into() } else { 0 })
    }

    /// Whether a file of so many bytes, which are not none, may end in a fragment.
    pub(super) fn take(&mut self, compression: &Compression, size: u64) -> bool {
        let left = self.0.checked_sub(size.min(compression.fragment_max().into()));
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// Files that are compressed in pieces, by their sizes: one that has the bytes of another is found before it is compressed.
#[derive(Default)]
pub(super) struct Large {
    files: HashMap<u64, Vec<Source>>,
    count: usize,
}

impl Large {
    /// So many are remembered.
    const FILES: usize = 1 << 16;
    /// So many of one size.
    const OF_ONE_SIZE: usize = 4;

    /// The file before it that has its bytes.
    pub(super) fn equal(&mut self, image: &MergedTree, source: Source) -> Result<Option<Source>> {
        let files = self.files.entry(source.size).or_default();
        for other in &*files {
            if are_equal(image, source, *other)? {
                return Ok(Some(*other));
            }
        }
        if files.len() < Self::OF_ONE_SIZE && self.count < Self::FILES {
            files.push(source);
            self.count += 1;
        }
        Ok(None)
    }
}

/// Bytes of two files that are compared at once.
const PIECE: u64 = 256 << 10;

/// Whether two files of one size have the same bytes.
fn are_equal(image: &MergedTree, one: Source, other: Source) -> Result<bool> {
    let mut buffers = [vec![0; PIECE as usize], vec![0; PIECE as usize]];
    for at in (0..one.size).step_by(PIECE as usize) {
        let count = (one.size - at).min(PIECE) as usize;
        for (buffer, source) in buffers.iter_mut().zip([one, other]) {
            image.read_at(source.id, at, &mut buffer[..count])?;
        }
        if buffers[0][..count] != buffers[1][..count] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The fragments of an image, in the order of its files.
#[derive(Default)]
pub(super) struct Fragments {
    /// The files, from which byte on, and how many bytes.
    parts: Vec<(NodeId, u64, u32)>,
    /// Where each stands.
    places: HashMap<[u8; 32], u32>,
    /// Larger files that came at once, of which equal ones have the same clusters.
    files: HashMap<[u8; 32], NodeId>,
    /// The bytes of all.
    size: u32,
}

/// Neighbours among them, for one thread.
pub(super) struct Piece {
    pub(super) parts: Vec<(NodeId, u64, u32)>,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
    /// The bytes of all fragments.
    pub(super) size: u64,
}

impl Fragments {
    /// Where a fragment stands, which is what a file has from a byte on.
    pub(super) fn place(
        &mut self,
        bodies: &mut Bodies<'_>,
        id: NodeId,
        start: u64,
        fragment: Fragment,
    ) -> Result<u32> {
        if let Some(at) = self.places.get(&fragment.sha256) {
            return Ok(*at);
        }
        // A table has up to twice the room that it needs, and while it grows half of that once more.
        bodies.charge(size_of::<(NodeId, u64, u32)>() * 2 + size_of::<([u8; 32], u32)>() * 3)?;
        let at = self.size;
        self.size += fragment.length;
        self.parts.push((id, start, fragment.length));
        self.places.insert(fragment.sha256, at);
        Ok(at)
    }

    /// A file with the same bytes.
    pub(super) fn equal(&self, sha256: &[u8; 32]) -> Option<NodeId> {
        self.files.get(sha256).copied()
    }

    /// A file that equal ones may share the clusters of.
    pub(super) fn add_file(&mut self, bodies: &mut Bodies<'_>, sha256: [u8; 32], id: NodeId) -> Result<()> {
        if bodies.can_be_shared(id) {
            bodies.charge(size_of::<([u8; 32], NodeId)>() * 3)?;
            self.files.insert(sha256, id);
        }
        Ok(())
    }

    /// All of them, cut in the same way on every machine.
    pub(super) fn pieces(&mut self, length: u32) -> impl Iterator<Item = Piece> + use<> {
        (self.places, self.files) = (HashMap::new(), HashMap::new());
        let size = self.size.into();
        let mut parts = std::mem::take(&mut self.parts).into_iter().peekable();
        let mut is_first = true;
        iter::from_fn(move || {
            let (mut piece, mut left) = (Vec::new(), length);
            while left > 0
                && let Some((id, start, count)) = parts.peek_mut()
            {
                let taken = left.min(*count);
                piece.push((*id, *start, taken));
                (*start, *count, left) = (*start + u64::from(taken), *count - taken, left - taken);
                if *count == 0 {
                    parts.next();
                }
            }
            let is_last = parts.peek().is_none();
            let piece = Piece { parts: piece, is_first, is_last, size };
            is_first = false;
            (!piece.parts.is_empty()).then_some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Compression, Room};

    #[test]
    fn all_fragments_have_less_than_4_gib() {
        let compression = Compression::new("zstd".parse().unwrap()).unwrap();
        assert!(!Room::new(&compression).take(&compression, 1));
        let compression = compression.with_fragments();
        let mut room = Room::new(&compression);
        // At most 256 KiB of each file.
        let count = (0..100_000).filter(|_| room.take(&compression, 1 << 30)).count();
        assert_eq!(count, (4 << 30) / (256 << 10) - 1);
        assert!(!room.take(&compression, 1));
    }
}
