//! Blobs: looked for, read, stored and quarantined.

use futures_util::future::BoxFuture;
use object_store::path::Path;
use plyfold_core::{Blob, BlobRange, Descriptor, Digest, Error, Ingest, Mismatch, Result, digest};

use crate::blob_writer::BlobUpload;
use crate::bucket::gone;
use crate::claim::{Claim, Claimed};
use crate::reading;
use crate::record::{self, Found, Record, Slot, State};
use crate::shared::Shared;

/// Attempts to open content that is replaced meanwhile.
const ATTEMPTS: u32 = 4;

/// The size of a blob that is here.
pub(crate) async fn stat(shared: &Shared, blob: &Digest) -> Result<Option<u64>> {
    digest::supported(blob)?;
    let path = record::of_blob(&shared.bucket, blob)?;
    match shared.used_slot(&path).await?.with_content() {
        Some(found) => stored_size(shared, &path, &found.record).await,
        None => Ok(None),
    }
}

/// The bytes that are there, which is not what the record says where they were damaged; `None` when there are none.
async fn stored_size(shared: &Shared, path: &Path, record: &Record) -> Result<Option<u64>> {
    let bucket = &shared.bucket;
    let Some(id) = &record.data else { return Ok(Some(record.inline.len() as u64)) };
    let data = record::data(bucket, path, id)?;
    Ok(bucket.look(&data).await?.map(|(_, size)| size))
}

/// Opens a blob that is here.
pub(crate) async fn open(shared: &Shared, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
    let path = record::of_blob(&shared.bucket, blob.digest())?;
    let mut attempts = 0;
    loop {
        let slot = shared.used_slot(&path).await?;
        if let Slot::Damaged(_) = slot {
            let error = shared.bucket.damaged(format!("the record of {} is damaged", blob.digest()));
            return Err(error.with_context("object", path));
        }
        let Some(found) = slot.with_content() else {
            let message = format!("no blob {}", blob.digest());
            return Err(Error::not_found(message).with_endpoint(&shared.bucket));
        };
        if let Some(opened) = opened(shared, blob, range, (&path, &found)).await? {
            return Ok(opened.with_endpoint(&shared.bucket));
        }
        attempts += 1;
        if attempts == ATTEMPTS {
            let error = Error::from(Mismatch::of(blob, None, 0));
            return Err(error.with_endpoint(&shared.bucket).with_context("object", path));
        }
    }
}

/// `None` when the content is not where the record says.
async fn opened(
    shared: &Shared,
    blob: &Descriptor,
    range: BlobRange,
    (path, found): (&Path, &Found),
) -> Result<Option<Blob>> {
    let wanted = range.resolve(blob.size())?;
    let is_whole = wanted == (0..blob.size());
    if !is_whole && found.record.size != blob.size() {
        return Err(Error::from(Mismatch::of(blob, None, found.record.size)).with_endpoint(&shared.bucket));
    }
    let Some(id) = &found.record.data else {
        return Blob::from_bytes(blob, range, &found.record.inline).map(Some);
    };
    let data = record::data(&shared.bucket, path, id)?;
    // Surplus bytes of a whole blob are seen and refused.
    let part = if is_whole { None } else { Some(wanted.clone()) };
    let Some((size, content)) = reading::read(&shared.bucket, &data, part).await? else { return Ok(None) };
    if !is_whole && size != blob.size() {
        return Err(Error::from(Mismatch::of(blob, None, size)).with_endpoint(&shared.bucket));
    }
    Blob::ranged(blob, wanted, content).map(Some)
}

/// Begins to store a blob.
pub(crate) async fn ingest(shared: &Shared, blob: &Descriptor) -> Result<Ingest> {
    digest::supported(blob.digest())?;
    shared.check_writable()?;
    let path = record::of_blob(&shared.bucket, blob.digest())?;
    // Without a wait where nothing is to be written.
    if let Some(found) = shared.used_slot(&path).await?.with_content()
        && is_sound(shared, &path, blob, &found.record).await?
    {
        return Ok(Ingest::Present);
    }
    let (of, place, wanted) = (shared.clone(), path.clone(), blob.clone());
    let sound = move |found: &Found| -> BoxFuture<'static, Result<bool>> {
        let (shared, path, blob, record) = (of.clone(), place.clone(), wanted.clone(), found.record.clone());
        Box::pin(async move { is_sound(&shared, &path, &blob, &record).await })
    };
    match Claim::take(shared, &path, &sound).await? {
        Claimed::Present(_) => Ok(Ingest::Present),
        Claimed::Granted(claim) => Ok(Ingest::Vacant(Box::new(BlobUpload::new(shared, blob, claim)?))),
    }
}

/// Whether all bytes of a blob are there. The size in a record was right when it was written: where it is another one, and that of
/// the bytes, the descriptor is wrong.
async fn is_sound(shared: &Shared, path: &Path, blob: &Descriptor, record: &Record) -> Result<bool> {
    let stored = stored_size(shared, path, record).await?;
    if record.size != blob.size() && stored == Some(record.size) {
        return Err(Error::from(Mismatch::of(blob, None, record.size)).with_endpoint(&shared.bucket));
    }
    Ok(record.size == blob.size() && stored == Some(blob.size()))
}

/// Takes damaged content out of use. Its object stays until the next collection.
pub(crate) async fn quarantine(shared: &Shared, blob: &Digest) -> Result<()> {
    shared.check_writable()?;
    let path = record::of_blob(&shared.bucket, blob)?;
    let version = match Slot::read(&shared.bucket, &path).await? {
        Slot::Held(found) if found.record.state != State::Writing => found.version,
        Slot::Damaged(version) => version,
        Slot::Empty(_) | Slot::Held(_) => return Ok(()),
    };
    // What was stored in its place since is not what was found damaged.
    shared.replace(&path, &version, gone()).await.map(drop)
}
