//! Blobs that come in pieces, for caches that store whole objects.

use std::fmt;

use bytes::Bytes;

use crate::{Descriptor, Digest, Error, Mismatch, Result, digest};

/// The bytes of a blob on their way into a cache that stores it in one piece: what a
/// [`BlobWriter`](super::BlobWriter) holds that has no other place for them. All of them are in memory.
///
/// ```
/// use plyfold_core::cache::BlobBuffer;
/// use plyfold_core::{Descriptor, MediaType, digest};
///
/// let blob = Descriptor::new(MediaType::ImageLayer, 5, digest::sha256(b"world"));
/// let mut buffer = BlobBuffer::new(&blob);
/// buffer.write(b"wor")?;
/// assert!(buffer.finish().unwrap_err().detail::<plyfold_core::Mismatch>().is_some());
/// buffer.write(b"world")?;
/// assert_eq!(buffer.finish()?, b"world"[..]);
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub struct BlobBuffer {
    blob: Descriptor,
    content: Vec<u8>,
}

impl BlobBuffer {
    /// No bytes yet of a blob.
    pub fn new(blob: &Descriptor) -> Self {
        Self { blob: blob.clone(), content: Vec::new() }
    }

    /// Goes on with bytes of an earlier attempt, from the first on.
    #[must_use]
    pub fn resumed(self, content: Vec<u8>) -> Self {
        Self { content, ..self }
    }

    /// The digest of the blob.
    pub fn digest(&self) -> &Digest {
        self.blob.digest()
    }

    /// How many bytes are here, in order from 0.
    pub fn offset(&self) -> u64 {
        self.content.len() as u64
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) beyond the size of the blob: none of them is taken then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let size = self.offset() + bytes.len() as u64;
        if size > self.blob.size() {
            return Err(self.mismatch(None, size));
        }
        self.content.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes the bytes out, verified or not; none are left.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.content)
    }

    /// Takes the content out, verified; none is left, whatever the outcome.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), with a [`Mismatch`], for another size or digest than the blob's.
    pub fn finish(&mut self) -> Result<Bytes> {
        let (size, content) = (self.offset(), self.take());
        let mut hasher = digest::Hasher::like(self.blob.digest())?;
        hasher.update(&content);
        let actual = hasher.finish();
        if size != self.blob.size() || actual != *self.blob.digest() {
            return Err(self.mismatch(Some(actual), size));
        }
        Ok(content.into())
    }

    fn mismatch(&self, actual: Option<Digest>, actual_size: u64) -> Error {
        Mismatch::of(&self.blob, actual, actual_size).into()
    }
}

impl fmt::Debug for BlobBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobBuffer({} of {})", self.content.len(), self.blob.digest())
    }
}
