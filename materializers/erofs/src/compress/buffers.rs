//! Large buffers that go round: a new one costs a page fault for each page.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

/// Buffers grow by so many bytes.
const STEP: usize = 256 << 10;

/// Buffers that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Buffer>>);

impl Buffers {
    /// An empty buffer.
    pub(crate) fn take(&self) -> Buffer {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    pub(crate) fn give_back(&self, buffer: Buffer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// Bytes that are appended without being zeroed before.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    used: usize,
}

impl Buffer {
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    /// Room for so many bytes behind those that are used. They may be any.
    pub(crate) fn room(&mut self, size: usize) -> &mut [u8] {
        let end = self.used + size;
        if self.bytes.len() < end {
            let grown = end.next_multiple_of(STEP);
            self.bytes.reserve_exact(grown - self.bytes.len());
            self.bytes.resize(grown, 0);
        }
        &mut self.bytes[self.used..end]
    }

    /// Uses the first `count` bytes of the room.
    pub(crate) fn filled(&mut self, count: usize) {
        self.used = (self.used + count).min(self.bytes.len());
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.filled(bytes.len());
    }

    pub(crate) fn zeros(&mut self, count: usize) {
        self.room(count).fill(0);
        self.filled(count);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

#[cfg(test)]
mod tests {
    use super::Buffers;

    #[test]
    fn a_buffer_comes_back_empty() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.append(b"abc");
        buffer.room(4).copy_from_slice(b"defg");
        buffer.filled(2);
        buffer.zeros(1);
        assert_eq!(*buffer, *b"abcde\0");
        buffers.give_back(buffer);
        let mut buffer = buffers.take();
        assert!(buffer.is_empty());
        buffer.zeros(7);
        assert_eq!(*buffer, [0; 7]);
    }
}
