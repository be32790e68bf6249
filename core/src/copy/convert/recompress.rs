//! A layer that is compressed anew, in one pass: its bytes, to its tar, to other bytes in a temporary file.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{GzBuilder, write::GzEncoder};

use super::asked::Recompression;
use crate::blocking::alone;
use crate::digest::Hasher;
use crate::durable::temporary_file;
use crate::layer::{Compression, LayerOptions, LayerTar};
use crate::progress::{Event, Progress};
use crate::pull::Row;
use crate::resumed::{BlobOpener, ResumedBlob};
use crate::{Descriptor, Digest, Error, ErrorKind, MediaType, Result};

/// What encoders are given at a time: their output may depend on it, and it is the same on every machine.
const BLOCK: usize = 128 << 10;
/// RFC 1952, section 2.3.1: the operating system is not known.
const UNKNOWN_OS: u8 = 255;

/// A layer, and what is made of it.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// The layer in the source.
    pub(crate) layer: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) how: Recompression,
}

/// The bytes that a layer has become.
pub(crate) struct Recompressed {
    pub(crate) blob: Descriptor,
    /// Without a name, at its beginning.
    pub(crate) file: File,
}

impl Recipe {
    /// Makes the layer: the same bytes from the same tar. `opener` makes what opens the layer in the source.
    pub(crate) async fn made(
        &self,
        folder: &Path,
        opener: impl FnOnce(crate::blocking::Stop) -> BlobOpener + Send + 'static,
    ) -> Result<Recompressed> {
        let (recipe, folder) = (self.clone(), folder.to_owned());
        let made = alone("recompress", move |stop| {
            let (opener, mut row) = (opener(stop.clone()), Row::default());
            let progress = opener.progress.clone();
            let blob = opener.open(&recipe.layer, 0, &mut row)?;
            let started = progress.start(&recipe.layer, 0);
            let endpoint = blob.endpoint().unwrap_or_default().to_owned();
            let digest = recipe.layer.digest().clone();
            progress.emit(Event::BlobOpened { digest, endpoint, attempt: row.failures() + 1 });
            let source =
                Watched { blob: opener.resumed(blob, row)?, layer: recipe.layer.digest().clone(), progress };
            let made = recompressed(source, &recipe.diff_id, recipe.how, temporary_file(&folder)?)?;
            started.became(made.blob.digest());
            Ok(made)
        });
        made.await.map_err(|e| e.with_context("layer", self.layer.digest()))
    }
}

/// Compresses a tar anew, which may be compressed, into a file. It has to be that of the `diff_id`.
pub(crate) fn recompressed(
    source: impl Read + Send + 'static,
    diff_id: &Digest,
    how: Recompression,
    file: File,
) -> Result<Recompressed> {
    let options = LayerOptions { diff_id: Some(diff_id.clone()), ..LayerOptions::default() };
    let encoder = Shared(Arc::new(Mutex::new(Some(Blocks::new(how, file)?))));
    let mut tar = LayerTar::new(source, options)?;
    tar.copy_to(encoder.clone())?;
    tar.finish()?;
    drop(tar);
    let ended = || Error::new(ErrorKind::Internal, "an encoder was ended twice");
    let blocks = encoder.take().ok_or_else(ended)?;
    let writing = |e| Error::io("writing a compressed layer", e);
    let Hashed { mut file, hasher, size } = blocks.finish().map_err(writing)?;
    file.rewind().map_err(writing)?;
    let media_type = MediaType::Other("application/octet-stream".to_owned());
    Ok(Recompressed { blob: Descriptor::new(media_type, size, hasher.finish()), file })
}

/// Tells how much of a layer is read.
struct Watched {
    blob: ResumedBlob,
    layer: Digest,
    progress: Progress,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read(buffer)?;
        let received = self.blob.done();
        self.progress.emit(Event::BlobProgress { digest: self.layer.clone(), received });
        Ok(count)
    }
}

/// A file, and the digest of what is written to it.
struct Hashed {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Encoder {
    Gzip(GzEncoder<Hashed>),
    Zstd(zstd::stream::write::Encoder<'static, Hashed>),
}

/// An encoder that is given blocks of one size, whatever comes.
struct Blocks {
    encoder: Encoder,
    block: Vec<u8>,
}

impl Blocks {
    /// One thread, and nothing in the output but what follows from the input: no time, no name, no dictionary.
    fn new(how: Recompression, file: File) -> Result<Self> {
        let out = Hashed { file, hasher: Hasher::sha256(), size: 0 };
        let encoder = match how.compression() {
            Compression::Zstd => {
                let made = zstd::stream::write::Encoder::new(out, how.level().into());
                let made = made.and_then(|mut encoder| encoder.include_checksum(true).map(|()| encoder));
                Encoder::Zstd(made.map_err(|e| Error::io("making an encoder of zstd", e))?)
            }
            Compression::Gzip | Compression::None => {
                let level = flate2::Compression::new(how.level().into());
                Encoder::Gzip(GzBuilder::new().mtime(0).operating_system(UNKNOWN_OS).write(out, level))
            }
        };
        Ok(Self { encoder, block: Vec::with_capacity(BLOCK) })
    }

    fn drain(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.write_all(&self.block)?,
            Encoder::Zstd(encoder) => encoder.write_all(&self.block)?,
        }
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Hashed> {
        self.drain()?;
        match self.encoder {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
            self.drain()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An encoder that a [`LayerTar`] writes to, and that is ended when the tar has been read.
#[derive(Clone)]
struct Shared(Arc<Mutex<Option<Blocks>>>);

impl Shared {
    fn take(&self) -> Option<Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.as_mut().map_or_else(|| Err(io::ErrorKind::BrokenPipe.into()), |blocks| blocks.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;

    /// Bytes that compress, but not to nothing.
    fn tar() -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        let mut seed = 1_u32;
        let next = |_| {
            seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
            b'a' + (seed >> 16) as u8 % 16
        };
        let content: Vec<u8> = (0..700_000).map(next).collect();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header, "file", &*content).unwrap();
        tar.into_inner().unwrap()
    }

    /// Gives so many bytes at a time.
    struct Steps(io::Cursor<Vec<u8>>, usize);

    impl Read for Steps {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let step = self.1.min(buffer.len());
            self.0.read(&mut buffer[..step])
        }
    }

    fn made(how: &str, step: usize) -> (Digest, Vec<u8>) {
        let tar = tar();
        let layer = Descriptor::new(MediaType::ImageLayer, tar.len() as u64, digest::sha256(&tar));
        let recipe = Recipe { diff_id: layer.digest().clone(), layer, how: how.parse().unwrap() };
        let file = temporary_file(&std::env::temp_dir()).unwrap();
        let mut made =
            recompressed(Steps(io::Cursor::new(tar), step), &recipe.diff_id, recipe.how, file).unwrap();
        let mut bytes = Vec::new();
        made.file.read_to_end(&mut bytes).unwrap();
        assert_eq!((made.blob.digest(), made.blob.size()), (&digest::sha256(&bytes), bytes.len() as u64));
        (made.blob.digest().clone(), bytes)
    }

    /// Pinned: other bytes for the same layer are other digests for everyone who has converted it.
    #[test]
    fn the_same_layer_has_the_same_bytes_however_it_arrives() {
        let pinned = [
            ("gzip:6", "3d82173d45a48237a220ece6fd2fe7de8bb28383a90be2a8a3528310bdc0c40d"),
            ("gzip:1", "0664453dfcd74908506fac994d4289f8e126eaf678ecc64f7365820bde52e195"),
            ("zstd:3", "44367d036dce3f7e73dd6569d1e9b32564c8d6b3b75abf8a827fc0eb6af1b9cc"),
            ("zstd:19", "ba9684d8aaac09665999d4e4d2c2b4cca24193c52e20aee281c9db940ab3d42a"),
        ];
        for (how, wanted) in pinned {
            let (digest, bytes) = made(how, 1 << 20);
            assert_eq!(digest.digest(), wanted, "{how}");
            for step in [777, 65_537] {
                assert_eq!(made(how, step).0, digest, "{how} in steps of {step}");
            }
            let mut back = Vec::new();
            if how.starts_with("gzip") {
                assert_eq!(bytes[4..10].iter().rev().skip(2).collect::<Vec<_>>(), [&0; 4], "a time");
                assert_eq!(bytes[9], UNKNOWN_OS);
                flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut back).unwrap();
            } else {
                zstd::stream::copy_decode(&*bytes, &mut back).unwrap();
            }
            assert!(back == tar(), "{how}");
        }
    }

    #[test]
    fn another_tar_than_the_configuration_says_is_no_layer() {
        let tar = tar();
        let layer = Descriptor::new(MediaType::ImageLayer, tar.len() as u64, digest::sha256(&tar));
        let recipe = Recipe { layer, diff_id: digest::sha256(b"another"), how: "zstd".parse().unwrap() };
        let file = temporary_file(&std::env::temp_dir()).unwrap();
        let error = recompressed(io::Cursor::new(tar), &recipe.diff_id, recipe.how, file).err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::Corrupt);
    }
}
