//! What was decoded last.

use super::header::FileMap;

/// What was decoded last of a file, and how its clusters are found.
#[derive(Debug, Default)]
pub(in crate::reader) struct Decoded {
    /// With the number of the file's inode.
    pub(super) map: Option<(u64, FileMap)>,
    /// From this byte of that file on.
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
    /// The cluster, to be kept as room for the next one.
    pub(super) cluster: Vec<u8>,
}

impl Decoded {
    /// Whether a byte of the file is among them.
    pub(super) fn has(&self, offset: u64) -> bool {
        offset.checked_sub(self.start).is_some_and(|at| at < self.bytes.len() as u64)
    }

    /// Copies from a byte that is among them on; how many.
    pub(super) fn copy(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let bytes = &self.bytes[(offset - self.start) as usize..];
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        count
    }
}
