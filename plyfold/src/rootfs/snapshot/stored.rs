//! Where the files of a snapshot are read from.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use plyfold_core::block_sums::{Checksum, SumsInOrder};
use plyfold_core::digest::{Hasher, read_all};
use plyfold_core::snapshot::{SnapshotFault, SnapshotFile};
use plyfold_core::{BlobRange, Descriptor, Digest, Error, ImageSource, RegistrySource, Result};
use tokio::runtime::Handle;

/// A place with the files of a snapshot.
pub(super) trait Stored {
    /// Opens what is stored of a file. It is not verified.
    ///
    /// # Errors
    /// [`NotFound`](plyfold_core::ErrorKind::NotFound) when it is missing.
    fn open(&self, file: &SnapshotFile) -> Result<Content>;

    /// The path of what is stored of a file, if it has one.
    fn path(&self, file: &SnapshotFile) -> Option<PathBuf> {
        let _ = file;
        None
    }
}

/// What is stored of a file.
pub(super) enum Content {
    /// In a file of its own, whose blocks may be shared.
    File(File),
    /// As a stream.
    Stream(Box<dyn Read>),
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Stream(stream) => stream.read(buffer),
        }
    }
}

/// A snapshot in a cache. For threads that may wait.
pub(super) struct Cached {
    pub(super) source: RegistrySource,
    pub(super) runtime: Handle,
}

impl Stored for Cached {
    fn open(&self, file: &SnapshotFile) -> Result<Content> {
        let layers = self.source.raw().image()?.layers();
        let (digest, size) = file.stored();
        let is_it = |layer: &&Descriptor| layer.digest() == digest && layer.size() == size;
        let layer = layers.iter().find(is_it);
        let layer = layer.ok_or_else(|| SnapshotFault::Missing(file.file.stored_name()))?;
        let blob = async {
            let blob = self.source.blob(layer, BlobRange::FULL).await?;
            Ok::<_, Error>(blob.into_reader())
        };
        Ok(Content::Stream(Box::new(self.runtime.block_on(blob)?)))
    }
}

/// A reader that hashes what it reads, and counts it.
pub(super) struct Hashing<R> {
    reader: R,
    hasher: Hasher,
    sums: SumsInOrder,
    count: u64,
}

impl<R: Read> Hashing<R> {
    /// Hashes as a digest was made.
    pub(super) fn like(digest: &Digest, reader: R) -> Result<Self> {
        Ok(Self { reader, hasher: Hasher::like(digest)?, sums: SumsInOrder::default(), count: 0 })
    }

    /// Reads the rest, and checks that all of it is what is stored of a file. One byte more than that is read at most. The
    /// checksum of what was read.
    pub(super) fn check(mut self, file: &SnapshotFile) -> Result<Checksum> {
        let (digest, size) = file.stored();
        let left = size.saturating_sub(self.count).saturating_add(1);
        let rest = read_all(self.reader.take(left), |bytes| {
            self.hasher.update(bytes);
            self.sums.update(bytes);
        });
        let count = self.count + rest.map_err(reading)?;
        if (&self.hasher.finish(), count) == (digest, size) {
            return Ok(self.sums.finish().checksum());
        }
        Err(SnapshotFault::Altered(file.file.stored_name()).into())
    }
}

/// The error of a reader. A cache says itself when content is damaged.
pub(super) fn reading(e: io::Error) -> Error {
    Error::io("reading a snapshot", e)
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.sums.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

/// A writer that hashes what it writes.
pub(super) struct HashingWriter<W> {
    pub(super) writer: W,
    pub(super) hasher: Hasher,
    pub(super) count: u64,
}

impl<W: io::Write> io::Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
