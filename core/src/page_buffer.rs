//! Buffers for large reads of files.

use std::ops::{Deref, DerefMut};

/// What the first byte of a buffer is aligned to.
const PAGE: usize = 4096;

/// A buffer that begins with a page of memory.
///
/// A read copies whole pages of the kernel's cache. Where the buffer begins a few bytes behind a page, as large buffers of the
/// C library's allocator do, by 16 bytes, each store of that copy looks to the CPU as if the next load depended on it. On AMD
/// Zen 3 a read of 256 KiB then takes five times as long.
#[derive(Clone, Debug, Default)]
pub struct PageBuffer {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl PageBuffer {
    /// So many bytes, all zeros.
    pub fn new(size: usize) -> Self {
        let bytes = vec![0; size + PAGE - 1];
        // There is no promise that the distance is known: any place will do then.
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE - 1);
        Self { bytes, start, size }
    }

    /// The first `size` bytes, of a new buffer when this one has fewer.
    pub fn first(&mut self, size: usize) -> &mut [u8] {
        if self.size < size {
            *self = Self::new(size);
        }
        &mut self[..size]
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.size]
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.size]
    }
}

impl AsRef<[u8]> for PageBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_with_a_page() {
        for size in [0, 1, 4095, 4096, 100_000, 256 << 10] {
            let mut buffer = PageBuffer::new(size);
            assert_eq!((buffer.len(), buffer.as_ptr().addr() % PAGE), (size, 0));
            buffer.fill(1);
            assert!(buffer.iter().all(|byte| *byte == 1));
        }
        let mut grown = PageBuffer::default();
        assert!(grown.is_empty());
        let place = grown.first(5000).as_ptr();
        assert_eq!((grown.first(100).len(), grown.first(100).as_ptr(), grown.len()), (100, place, 5000));
    }
}
