//! Blobs of a cache: read, stored, verified and quarantined.

use std::collections::HashSet;

use bytes::Bytes;
use oci_spec::image::ImageManifest;

use super::{BlobWriter, CacheProvider, Ingest};
use crate::manifest::{RawConfig, check_is_image, is_artifact, limits};
use crate::{
    Advice, Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, Fault, MediaType, Mismatch, Result, Size,
};

/// The blob that is not there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no blob {0}")]
pub struct MissingBlob(pub Digest);

impl Fault for MissingBlob {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NotFound
    }
}

/// Says which blob an error of a cache is about.
pub(super) fn of_blob(error: Error, digest: &Digest) -> Error {
    let error = error.with_context("blob", digest);
    match error.kind() {
        ErrorKind::NotFound => error.with_detail(MissingBlob(digest.clone())),
        _ => error,
    }
}

/// The verified content of a stored document of at most `limit` bytes.
pub(crate) async fn read(cache: &dyn CacheProvider, blob: &Descriptor, limit: u64) -> Result<Bytes> {
    cache.open(blob, BlobRange::FULL).await?.bytes(limit).await
}

/// The config of an image; `None` for artifacts, which have none.
pub(super) async fn config(cache: &dyn CacheProvider, manifest: &ImageManifest) -> Result<Option<RawConfig>> {
    if check_is_image(manifest).is_err() {
        return Ok(None);
    }
    match RawConfig::new(manifest, read(cache, manifest.config(), limits::CONFIG).await?) {
        Err(e) if is_artifact(&e) => Ok(None),
        config => config.map(Some),
    }
}

/// As [`read`], by the digest alone.
pub(crate) async fn read_digest(cache: &dyn CacheProvider, digest: &Digest, limit: u64) -> Result<Bytes> {
    let size = cache.stat(digest).await.map_err(|e| e.with_endpoint(cache))?;
    let Some(size) = size else {
        let error = Error::from(MissingBlob(digest.clone())).with_endpoint(cache);
        return Err(error.with_context("blob", digest));
    };
    let media_type = MediaType::Other("application/octet-stream".to_owned());
    read(cache, &Descriptor::new(media_type, size, digest.clone()), limit).await
}

/// How often content that is found here, and is damaged or gone when it is read, is looked for again.
const LOOKS: u32 = 8;

/// Stores a whole blob; damaged content in its place is replaced.
pub(crate) async fn put(cache: &dyn CacheProvider, blob: Blob) -> Result<()> {
    stored(cache, blob, false).await
}

/// As [`put`]. What has arrived is kept when the transfer breaks, and a blob with an offset continues it.
pub(crate) async fn put_resumable(cache: &dyn CacheProvider, blob: Blob) -> Result<()> {
    stored(cache, blob, true).await
}

async fn stored(cache: &dyn CacheProvider, blob: Blob, is_resumable: bool) -> Result<()> {
    let (descriptor, from) = (blob.descriptor().clone(), blob.offset());
    let mut looks = 0;
    let mut writer = loop {
        if let Ingest::Vacant(writer) = cache.ingest(&descriptor).await? {
            break writer;
        }
        looks += 1;
        match verify(cache, &descriptor).await {
            Ok(()) => return Ok(()),
            Err(e) if looks == LOOKS => return Err(e),
            Err(e) if *e.kind() == ErrorKind::Corrupt => drop(quarantine_damaged(cache, &descriptor).await?),
            // Another process has quarantined it since it was found.
            Err(e) if *e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    };
    writer.set_resumable(is_resumable);
    if from == 0 && writer.offset() > 0 {
        writer.restart().await?;
    }
    // The writer hashes what it stores; hashing the stream as well would only cost time.
    let mut blob = match blob.continuing(writer.offset()) {
        Ok(rest) => rest.unverified(),
        Err(e) => {
            suspend(writer, &descriptor).await;
            return Err(e);
        }
    };
    loop {
        let written = match blob.chunk().await {
            Ok(Some(chunk)) => writer.write(chunk).await,
            Ok(None) => return writer.commit().await,
            Err(e) => Err(e),
        };
        if let Err(e) = written {
            if !is_resumable || *e.kind() == ErrorKind::Corrupt {
                writer.set_resumable(false);
                writer.discard().await;
            } else {
                suspend(writer, &descriptor).await;
            }
            return Err(e);
        }
    }
}

/// Keeps what has arrived of a blob.
async fn suspend(writer: Box<dyn BlobWriter>, blob: &Descriptor) {
    if let Err(lost) = writer.suspend().await {
        tracing::debug!("the part of {} is not kept: {lost}", blob.digest());
    }
}

/// Reads a stored blob to its end, to verify it.
pub(crate) async fn verify(cache: &dyn CacheProvider, blob: &Descriptor) -> Result<()> {
    let mut blob = cache.open(blob, BlobRange::FULL).await?;
    while blob.chunk().await?.is_some() {}
    Ok(())
}

/// Why reading the content of a stored blob has failed whose digest was not checked: damage of the blob, if there is any.
pub(crate) async fn verify_after(cache: &dyn CacheProvider, blob: &Descriptor, error: Error) -> Error {
    use ErrorKind::{Cancelled, Config, Internal, Io};
    if matches!(error.kind(), Cancelled | Config | Internal | Io) {
        return error;
    }
    match verify(cache, blob).await {
        Err(damage) if *damage.kind() == ErrorKind::Corrupt => damage,
        _ => error,
    }
}

/// Quarantines a blob in which damage was found; returns whether it was still damaged. Content that has been stored in
/// its place since stays, and so does content with the right digest and another size than `blob` says.
pub(crate) async fn quarantine_damaged(cache: &dyn CacheProvider, blob: &Descriptor) -> Result<bool> {
    // Of several tasks that found the damage, one at a time reads the blob again.
    let _turn = cache.single_flight(&format!("quarantine {}", blob.digest())).await?;
    let Some(held) = as_held(cache, blob).await? else { return Ok(false) };
    match verify(cache, &held).await {
        Err(e) if *e.kind() == ErrorKind::Corrupt => {
            cache.quarantine(blob.digest()).await?;
            Ok(true)
        }
        Err(e) if *e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(false),
    }
}

/// Whether an error says that a blob is damaged.
pub(crate) fn is_damage_of(blob: &Digest, error: &Error) -> bool {
    error.detail::<Mismatch>().is_some_and(|mismatch| mismatch.expected == *blob)
}

/// Those of these blobs that are not here with the right size, each once.
pub(super) async fn absent(
    cache: &dyn CacheProvider,
    blobs: impl IntoIterator<Item = Descriptor, IntoIter: Send>,
) -> Result<Vec<Digest>> {
    let (mut absent, mut seen) = (Vec::new(), HashSet::new());
    for blob in blobs {
        if cache.stat(blob.digest()).await? != Some(blob.size()) && seen.insert(blob.digest().clone()) {
            absent.push(blob.digest().clone());
        }
    }
    Ok(absent)
}

/// Refuses content that needs more bytes than the cache says that it has room for.
pub(crate) async fn check_room(cache: &dyn CacheProvider, needed: u64, what: &str) -> Result<()> {
    let Some(free) = cache.free().await?.filter(|free| needed > *free) else { return Ok(()) };
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    // In bytes as well: the two may be alike in larger units.
    let message =
        format!("{what} {} more ({needed} bytes), and {} are free ({free} bytes)", Size(needed), Size(free));
    let error = Error::new(ErrorKind::Io, message).with_source(full);
    Err(error.with_endpoint(cache).with_advice(Advice::Collect))
}

/// The descriptor of a blob with the size that it has here; `None` when it is not here.
pub(super) async fn as_held(cache: &dyn CacheProvider, blob: &Descriptor) -> Result<Option<Descriptor>> {
    let size = cache.stat(blob.digest()).await?;
    Ok(size.map(|size| Descriptor::new(blob.media_type().clone(), size, blob.digest().clone())))
}
