//! Mutants of collection and of what is read beside it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream;
use plyfold_conformance::samples;
use plyfold_core::{
    Blob, CacheProvider, CacheProviderExt, Collect, Collected, Descriptor, Error, NameChange, Result,
};

use super::{BrokenCache, CacheFault};

impl BrokenCache {
    pub(super) async fn collect_wrongly(&self, policy: &Collect) -> Result<Collected> {
        if !policy.dry_run {
            self.shared.collections.fetch_add(1, Ordering::SeqCst);
        }
        match (self.fault, policy.budget) {
            (CacheFault::EvictsNewest, Some(budget)) => return self.evict_newest(budget, policy).await,
            (CacheFault::EvictsPinned, Some(_)) => {
                for pin in self.inner.pins().await? {
                    self.inner.update(&[NameChange::Unpin(pin)]).await?;
                }
            }
            (CacheFault::CollectsReferrers, _) if !policy.dry_run => {
                let referrer = samples::subject().top;
                self.inner.quarantine(referrer.digest()).await?;
            }
            _ => {}
        }
        if self.fault == CacheFault::PartialsKept {
            let week = Duration::from_secs(7 * 24 * 3600);
            return self.inner.collect(&Collect { resumable: week, ..policy.clone() }).await;
        }
        self.inner.collect(policy).await
    }

    /// The last come is the first to go.
    async fn evict_newest(&self, budget: u64, policy: &Collect) -> Result<Collected> {
        let usage = self.inner.usage().await?;
        let mut newest = usage.images;
        newest.retain(|image| !image.pinned);
        newest.sort_by_key(|image| image.used);
        let evicted: Vec<_> = match newest.pop() {
            Some(image) if usage.blobs > budget => vec![image.reference],
            _ => Vec::new(),
        };
        for name in evicted.iter().filter(|_| !policy.dry_run) {
            self.inner.remove(name).await?;
        }
        let collected = self.inner.collect(&Collect { budget: None, ..policy.clone() }).await?;
        Ok(Collected { evicted, ..collected })
    }

    /// Looks the content up again for each piece.
    pub(super) fn read_in_pieces(self, blob: &Descriptor, honest: Blob) -> Result<Blob> {
        let (wanted, range) = (blob.clone(), honest.offset()..blob.size());
        let pieces = stream::try_unfold((self, honest), move |(cache, mut honest)| {
            let wanted = wanted.clone();
            async move {
                if cache.inner.stat(wanted.digest()).await?.is_none() {
                    return Err(Error::not_found("it is gone"));
                }
                Ok(honest.chunk().await?.map(|chunk| (chunk, (cache, honest))))
            }
        });
        Blob::ranged(blob, range, pieces)
    }
}
