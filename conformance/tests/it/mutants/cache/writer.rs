//! Mutants of writers.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::{BlobWriter, Descriptor, Error, Result, digest};
use tokio::sync::OwnedMutexGuard;

use super::{BrokenCache, CacheFault};

#[derive(Debug)]
pub(super) struct BrokenWriter {
    /// `None` once it has ended.
    inner: Option<Box<dyn BlobWriter>>,
    cache: BrokenCache,
    blob: Descriptor,
    content: Vec<u8>,
    /// Collections before it began.
    collections: usize,
    /// Whether others may write the same blob.
    free: bool,
    _everything: Option<OwnedMutexGuard<()>>,
}

impl BrokenWriter {
    pub(super) fn new(
        cache: &BrokenCache,
        inner: Box<dyn BlobWriter>,
        blob: &Descriptor,
        everything: Option<OwnedMutexGuard<()>>,
    ) -> Self {
        cache.shared.open.fetch_add(1, Ordering::SeqCst);
        Self {
            inner: Some(inner),
            cache: cache.clone(),
            blob: blob.clone(),
            content: Vec::new(),
            collections: cache.shared.collections.load(Ordering::SeqCst),
            free: cache.writers_are_free(),
            _everything: everything,
        }
    }

    fn publish(&self) {
        self.cache.inner.insert_blob(self.blob.digest().clone(), self.content.clone());
    }

    fn inner(&mut self) -> &mut dyn BlobWriter {
        self.inner.as_deref_mut().expect("it has not ended")
    }
}

#[async_trait]
impl BlobWriter for BrokenWriter {
    fn offset(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.offset())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.content.extend_from_slice(&bytes);
        match self.cache.fault {
            CacheFault::VisibleBeforeCommit if self.content.len() as u64 >= self.blob.size() => {
                self.publish();
            }
            CacheFault::PublishesInPieces => {
                self.publish();
                self.cache.until_seen().await;
            }
            CacheFault::SizeUnchecked => return Ok(()),
            _ => {}
        }
        self.inner().write(bytes).await
    }

    async fn restart(&mut self) -> Result<()> {
        self.content.clear();
        self.inner().restart().await
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let inner = self.inner.take().expect("it has not ended");
        match self.cache.fault {
            CacheFault::DigestUnchecked => self.publish(),
            CacheFault::SizeUnchecked if digest::sha256(&self.content) == *self.blob.digest() => {
                self.publish();
            }
            CacheFault::CollectsInFlight
                if self.collections != self.cache.shared.collections.load(Ordering::SeqCst) =>
            {
                return Err(Error::not_found("the temporary file is gone"));
            }
            _ => {
                inner.commit().await?;
                if self.free {
                    self.publish();
                }
            }
        }
        Ok(())
    }

    async fn suspend(mut self: Box<Self>) -> Result<()> {
        self.inner.take().expect("it has not ended").suspend().await
    }
}

impl Drop for BrokenWriter {
    fn drop(&mut self) {
        if self.cache.shared.open.fetch_sub(1, Ordering::SeqCst) > 1 {
            self.cache.shared.nested.store(true, Ordering::SeqCst);
        }
        if let (CacheFault::DroppedWriterKeepsTurn, Some(inner)) = (self.cache.fault, self.inner.take()) {
            std::mem::forget(inner);
        }
    }
}
