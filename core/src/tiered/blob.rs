//! Blobs: read from one tier, and stored in both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use crate::cache::{BlobWriter, CacheProvider, Ingest, content};
use crate::{Blob, BlobRange, Descriptor, Digest, ErrorKind, MediaType, Result};

use super::tiers::{Tiered, is_missing};

/// So long a reader waits for the right to store what it reads: another one may store it, or wait for this reader.
const WAIT: Duration = Duration::from_millis(50);

impl Tiered {
    /// Opens a blob in the tier that has it. One that is read as a whole from the far tier is stored in the near one.
    pub(super) async fn read(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let missing = match self.near.open(blob, range).await {
            Err(e) if is_missing(&e) => e,
            opened => return opened,
        };
        let Some(far) = self.far.asked().await? else { return Err(missing) };
        let opened = match far.open(blob, range).await {
            Err(e) if is_missing(&e) => return Err(missing),
            opened => self.far.answer(opened)?,
        };
        let Some(found) = opened else { return Err(missing) };
        let found = found.with_endpoint(&self.far);
        if !range.is_full() || self.near.is_read_only() {
            return Ok(found);
        }
        match tokio::time::timeout(WAIT, self.near.ingest(blob)).await {
            Ok(Ok(Ingest::Vacant(writer))) => storing(found, writer),
            _ => Ok(found),
        }
    }

    /// The right to store a blob in the near tier, and in the far one if that lacks it.
    pub(super) async fn write(&self, blob: &Descriptor) -> Result<Ingest> {
        let Ingest::Vacant(near) = self.near.ingest(blob).await? else { return Ok(Ingest::Present) };
        let there = self.there(blob).await?;
        Ok(Ingest::Vacant(Box::new(TierWriter {
            near,
            there,
            read: Arc::default(),
            blob: blob.clone(),
            tiers: self.clone(),
        })))
    }

    /// Replaces what is damaged in the far tier, if the near one has it by now.
    async fn replace_damaged(&self, blob: &Descriptor, is_here: bool) -> Result<()> {
        let Some(far) = self.far.writable().await? else { return Ok(()) };
        drop_damaged(far, blob.digest()).await?;
        if is_here { publish(&*self.near, far, blob).await } else { Ok(()) }
    }

    /// What the far tier has of a blob that is to be stored here.
    async fn there(&self, blob: &Descriptor) -> Result<There> {
        let Some(far) = self.far.asked().await? else { return Ok(There::Unknown) };
        match self.far.answer(far.stat(blob.digest()).await)? {
            Some(Some(size)) if size == blob.size() => return Ok(There::Held),
            None => return Ok(There::Unknown),
            Some(_) => {}
        }
        if far.is_read_only() {
            return Ok(There::Unknown);
        }
        // Another machine may be storing it: what it has stored is taken then.
        Ok(match self.far.answer(far.ingest(blob).await)? {
            Some(Ingest::Present) => There::Held,
            Some(Ingest::Vacant(writer)) => There::Vacant(writer),
            None => There::Unknown,
        })
    }
}

/// What came of reading a blob of the far tier.
#[derive(Debug, Default)]
struct FarRead {
    has_begun: AtomicBool,
    is_damaged: AtomicBool,
}

impl FarRead {
    fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// The same blob; what is noticed while it is read is kept here.
    fn noticing(self: &Arc<Self>, blob: Blob) -> Result<Blob> {
        self.has_begun.store(true, Ordering::Relaxed);
        let (descriptor, start) = (blob.descriptor().clone(), blob.offset());
        let endpoint = blob.endpoint().map(str::to_owned);
        let seen = self.clone();
        // The size is checked by both.
        let noticed = blob.unverified().inspect_err(move |e| {
            seen.is_damaged.fetch_or(*e.kind() == ErrorKind::Corrupt, Ordering::Relaxed);
        });
        let noticed = Blob::ranged(&descriptor, start..descriptor.size(), noticed)?;
        Ok(endpoint.into_iter().fold(noticed, Blob::with_endpoint))
    }
}

/// What the far tier has of a blob.
#[derive(Debug)]
enum There {
    /// All of it.
    Held,
    /// Nothing yet: it is stored there when it is here.
    Vacant(Box<dyn BlobWriter>),
    /// It is not asked.
    Unknown,
}

/// Stores a blob in the near tier, and from there in the far one.
#[derive(Debug)]
struct TierWriter {
    near: Box<dyn BlobWriter>,
    there: There,
    /// What came of reading the far tier's.
    read: Arc<FarRead>,
    blob: Descriptor,
    tiers: Tiered,
}

/// Quarantines a blob of a tier if it is damaged there: the next writer gets it from where the image comes from.
pub(super) async fn drop_damaged(tier: &dyn CacheProvider, digest: &Digest) -> Result<()> {
    let Some(size) = tier.stat(digest).await? else { return Ok(()) };
    let media_type = MediaType::Other("application/octet-stream".to_owned());
    // A caller may have the right to look into this damage already, in all tiers.
    match content::verify(tier, &Descriptor::new(media_type, size, digest.clone())).await {
        Err(e) if *e.kind() == ErrorKind::Corrupt => tier.quarantine(digest).await,
        Err(e) if is_missing(&e) => Ok(()),
        sound => sound,
    }
}

#[async_trait]
impl BlobWriter for TierWriter {
    fn offset(&self) -> u64 {
        self.near.offset()
    }

    async fn held_elsewhere(&mut self) -> Result<Option<Blob>> {
        if !matches!(self.there, There::Held) {
            return Ok(None);
        }
        let (tier, rest) = (&self.tiers.far, BlobRange::from_start(self.near.offset()));
        let Some(far) = tier.asked().await? else { return Ok(None) };
        let opened = match far.open(&self.blob, rest).await {
            // It was removed since.
            Err(e) if is_missing(&e) => None,
            opened => tier.answer(opened)?,
        };
        opened.map(|blob| self.read.noticing(blob.with_endpoint(tier))).transpose()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.near.write(bytes).await
    }

    async fn restart(&mut self) -> Result<()> {
        self.near.restart().await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { near, there, read, blob, tiers } = *self;
        let committed = near.commit().await;
        let is_wrong = committed.as_ref().is_err_and(|e| *e.kind() == ErrorKind::Corrupt);
        let told = match there {
            There::Held if read.is_damaged() || read.has_begun() && is_wrong => {
                tiers.replace_damaged(&blob, committed.is_ok()).await
            }
            There::Vacant(writer) if committed.is_ok() => send(&*tiers.near, &blob, writer).await,
            _ => Ok(()),
        };
        if let Err(e) = told {
            tiers.far.unpublished(blob.digest(), e);
        }
        committed
    }

    async fn discard(self: Box<Self>) {
        let Self { near, there, .. } = *self;
        if let There::Vacant(writer) = there {
            writer.discard().await;
        }
        near.discard().await;
    }

    fn set_resumable(&mut self, resumable: bool) {
        self.near.set_resumable(resumable);
    }

    async fn suspend(self: Box<Self>) -> Result<()> {
        let Self { near, there, .. } = *self;
        if let There::Vacant(writer) = there {
            writer.discard().await;
        }
        near.suspend().await
    }
}

/// Sends a blob of one tier to another one that may lack it.
pub(super) async fn publish(
    near: &dyn CacheProvider,
    far: &dyn CacheProvider,
    blob: &Descriptor,
) -> Result<()> {
    match far.ingest(blob).await? {
        Ingest::Present => Ok(()),
        Ingest::Vacant(writer) => send(near, blob, writer).await,
    }
}

/// Sends a blob of the near tier. Its writer verifies it.
async fn send(near: &dyn CacheProvider, blob: &Descriptor, mut writer: Box<dyn BlobWriter>) -> Result<()> {
    if writer.offset() > 0 {
        writer.restart().await?;
    }
    let mut bytes = near.open(blob, BlobRange::FULL).await?.unverified();
    while let Some(chunk) = bytes.chunk().await? {
        writer.write(chunk).await?;
    }
    writer.commit().await
}

/// A blob that is stored while it is read. That it cannot be stored is no error of the reader.
fn storing(blob: Blob, writer: Box<dyn BlobWriter>) -> Result<Blob> {
    let descriptor = blob.descriptor().clone();
    let endpoint = blob.endpoint().map(str::to_owned);
    // What an earlier writer has left is kept for who goes on from there.
    let writer = Some(writer).filter(|writer| writer.offset() == 0);
    let read = stream::try_unfold((blob.unverified(), writer), |(mut blob, mut writer)| async move {
        let Some(chunk) = blob.chunk().await? else {
            if let Some(writer) = writer
                && let Err(e) = writer.commit().await
            {
                tracing::debug!("{} is read, and not stored: {e}", blob.descriptor().digest());
            }
            return Ok(None);
        };
        if let Some(mut open) = writer.take() {
            match open.write(chunk.clone()).await {
                Ok(()) => writer = Some(open),
                Err(e) => tracing::debug!("{} is read, and not stored: {e}", blob.descriptor().digest()),
            }
        }
        Ok(Some((chunk, (blob, writer))))
    });
    Ok(endpoint.into_iter().fold(Blob::new(&descriptor, read)?, Blob::with_endpoint))
}
