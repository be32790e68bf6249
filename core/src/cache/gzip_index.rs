//! The indexes of gzip blobs that a cache keeps: artifacts that are made from blobs, by their digests.
//!
//! They are kept as long as an image needs the blob, and verified as other artifacts.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use super::CacheProvider;
use crate::blocking::{alone, blocking};
use crate::layer::gzip_index::{GzipIndex, IndexedGzip};
use crate::layer::{Compression, LayerLimits};
use crate::{Artifact, ArtifactKey, ArtifactReader, BlobRange, Descriptor, Error, Format, Made, Result};

fn key(blob: &Descriptor) -> ArtifactKey {
    let format = Format { name: "gzip-index", version: 1, options: String::new(), extension: "gzindex" };
    ArtifactKey { format, content: blob.digest().clone() }
}

/// The index of a blob, if it is here. One that is damaged is not: `verify` finds and removes it.
pub(super) async fn find(cache: &dyn CacheProvider, blob: &Descriptor) -> Result<Option<GzipIndex>> {
    let Some(kept) = cache.find_artifact(&key(blob)).await? else { return Ok(None) };
    let blob = blob.clone();
    blocking(move |_| {
        let mut bytes = Vec::new();
        let read =
            ArtifactReader::open(&*kept)?.take(GzipIndex::MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
        let index =
            read.map_err(|e| Error::io("reading an index", e)).and_then(|_| GzipIndex::parse(&bytes, &blob));
        Ok(index.inspect_err(|e| tracing::warn!("the index of {} is not used: {e}", blob.digest())).ok())
    })
    .await
}

/// Keeps an index with its blob, unless there is one.
pub(super) async fn keep(cache: &dyn CacheProvider, blob: &Descriptor, index: &GzipIndex) -> Result<()> {
    let Artifact::Vacant(mut writer) = cache.artifact(&key(blob)).await? else { return Ok(()) };
    let (bytes, made) = (index.to_bytes(blob), Made::default().with_source(Some(blob.digest().clone())));
    blocking(move |_| {
        writer.output().write_all(&bytes).map_err(|e| Error::io("writing an index", e))?;
        writer.commit(&made).map(drop)
    })
    .await
}

/// The index of a blob that is here, made and kept if there is none; `None` for one that is no gzip stream.
pub(super) async fn make(
    cache: &dyn CacheProvider,
    blob: &Descriptor,
    limits: &LayerLimits,
) -> Result<Option<GzipIndex>> {
    if Compression::by_media_type(blob.media_type()) != Some(Compression::Gzip) {
        return Ok(None);
    }
    if let Some(index) = find(cache, blob).await? {
        return Ok(Some(index));
    }
    let mut bytes = cache.open(blob, BlobRange::FULL).await?.into_reader();
    let limits = limits.clone();
    let made = alone("plyfold-index", move |stop| {
        let mut head = Vec::new();
        let read = (&mut bytes).take(2).read_to_end(&mut head);
        read.map_err(|e| Error::io("reading a layer", e))?;
        if Compression::by_magic(&head) != Compression::Gzip {
            return Ok(None);
        }
        GzipIndex::of(stop.reader(head.chain(bytes)), &limits).map(Some)
    });
    let made = made.await?;
    if let Some(index) = &made {
        keep(cache, blob, index).await?;
    }
    Ok(made)
}

/// What a blob in a file is decoded to by so many threads, if the cache has an index of it, or it has many members. `None`
/// for what is compressed again, which a reader of layers would decode once more, and for one thread.
pub(crate) async fn decoded(
    cache: &dyn CacheProvider,
    blob: &Descriptor,
    file: &File,
    limits: &LayerLimits,
    threads: usize,
) -> Result<Option<IndexedGzip>> {
    if threads < 2 || Compression::by_media_type(blob.media_type()) != Some(Compression::Gzip) {
        return Ok(None);
    }
    let file = file.try_clone().map_err(|e| Error::io("opening a layer once more", e))?;
    let (kept, limits) = (find(cache, blob).await?, limits.clone());
    blocking(move |_| {
        let index = kept.map_or_else(|| GzipIndex::of_members(&file), |index| Ok(Some(index)))?;
        let Some(index) = index.filter(|index| index.spans() > 1) else { return Ok(None) };
        let mut decoded = IndexedGzip::new(Arc::new(file), Arc::new(index), threads)?.limited(&limits);
        // An error is said by the reader that has no index.
        let is_plain = decoded.head().is_ok_and(|head| Compression::by_magic(head) == Compression::None);
        Ok(is_plain.then_some(decoded))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;

    use super::*;
    use crate::memory::MemoryCache;
    use crate::{Digest, ErrorKind, MediaType, digest};

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Text, which has many blocks.
    fn text() -> Vec<u8> {
        let words = (0..3_000_000_u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44).to_string());
        words.collect::<String>().into_bytes()
    }

    struct Scene {
        cache: MemoryCache,
        blob: Descriptor,
        file: File,
    }

    impl Scene {
        fn new(content: &[u8]) -> Self {
            let (cache, mut file) = (MemoryCache::new().unwrap(), tempfile::tempfile().unwrap());
            let digest: Digest = digest::sha256(content);
            file.write_all(content).unwrap();
            cache.insert_blob(digest.clone(), content.to_vec());
            let blob = Descriptor::new(MediaType::ImageLayerGzip, content.len() as u64, digest);
            Self { cache, blob, file }
        }

        async fn decoded(&self, threads: usize) -> Option<Vec<u8>> {
            let limits = LayerLimits::default();
            let found = decoded(&self.cache, &self.blob, &self.file, &limits, threads).await.unwrap();
            let mut content = Vec::new();
            found?.read_to_end(&mut content).unwrap();
            Some(content)
        }

        async fn index(&self) -> Option<GzipIndex> {
            make(&self.cache, &self.blob, &LayerLimits::default()).await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_blob_is_decoded_by_threads_once_it_has_an_index() {
        let text = text();
        let scene = Scene::new(&gzip(&text));
        assert_eq!(scene.decoded(2).await, None);
        assert!(scene.index().await.unwrap().spans() > 3);
        assert!(scene.decoded(2).await.unwrap() == text);
        assert_eq!(scene.decoded(1).await, None);
        // A reader of layers would decode it twice.
        let twice = Scene::new(&gzip(&[gzip(&[gzip(&text), text.clone()].concat()), text.clone()].concat()));
        assert!(twice.index().await.unwrap().spans() > 1);
        assert_eq!(twice.decoded(2).await, None);
        // Members need no index.
        let parts: Vec<u8> = text.chunks(1 << 20).flat_map(gzip).collect();
        assert!(Scene::new(&parts).decoded(2).await.unwrap() == text);
    }

    #[tokio::test]
    async fn an_index_is_made_of_sound_blobs_within_bounds() {
        let scene = Scene::new(&gzip(&vec![0; 1 << 20])[..500]);
        let made = make(&scene.cache, &scene.blob, &LayerLimits::default()).await;
        assert_eq!(*made.unwrap_err().kind(), ErrorKind::Corrupt);
        let scene = Scene::new(&gzip(&vec![0; 1 << 20]));
        let limits = LayerLimits { uncompressed: 1 << 19, ..LayerLimits::default() };
        let made = make(&scene.cache, &scene.blob, &limits).await;
        assert_eq!(*made.unwrap_err().kind(), ErrorKind::Limit);
        assert_eq!(find(&scene.cache, &scene.blob).await.unwrap(), None);
        assert_eq!(Scene::new(b"no gzip stream").index().await, None);
    }
}
