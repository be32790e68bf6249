//! Pulls that go wrong in one way.

use std::time::Duration;

use async_trait::async_trait;
use plyfold_conformance::{Client, CoreClient};
use plyfold_core::{
    BlobRange, CacheProvider, Descriptor, ImageRegistry, ImageRegistryExt as _, Ingest, PullOptions,
    PullResult, Reference, Result,
};

use super::HttpFault;

#[derive(Clone, Copy, Debug)]
pub(super) struct BrokenPull(pub(super) HttpFault);

#[async_trait]
impl Client for BrokenPull {
    async fn pull(
        &self,
        registry: &dyn ImageRegistry,
        name: &Reference,
        cache: &dyn CacheProvider,
        options: &PullOptions,
    ) -> Result<PullResult> {
        let mut options = options.clone();
        match self.0 {
            HttpFault::AttemptsGrow => options.retry.attempts += 1,
            HttpFault::ConcurrencyIgnored => options.concurrency = 100,
            HttpFault::DelaysIgnored => options.retry.cap = Duration::from_millis(1),
            HttpFault::DuplicatesFetched => read_duplicates(registry, name).await?,
            HttpFault::NothingRetried => options.retry.attempts = 1,
            HttpFault::OneLayerAtATime => options.concurrency = 1,
            HttpFault::PartialsDropped => drop_partials(registry, name, cache).await?,
            HttpFault::PartialsTrusted => complete_partials(registry, name, cache).await?,
            _ => {}
        }
        match CoreClient.pull(registry, name, cache, &options).await {
            Err(e) if self.0 == HttpFault::PermanentRetried && !e.is_retryable() => {
                CoreClient.pull(registry, name, cache, &options).await
            }
            outcome => outcome,
        }
    }
}

async fn layers(registry: &dyn ImageRegistry, name: &Reference) -> Result<Vec<Descriptor>> {
    Ok(registry.fetch_raw(name).await?.image()?.layers().clone())
}

/// Reads a layer for every place that it has in the image but the first.
async fn read_duplicates(registry: &dyn ImageRegistry, name: &Reference) -> Result<()> {
    let layers = layers(registry, name).await?;
    for (index, layer) in layers.iter().enumerate() {
        if layers[..index].contains(layer) {
            registry.blob(name, layer, BlobRange::FULL).await?.bytes(u64::MAX).await?;
        }
    }
    Ok(())
}

/// Forgets what earlier pulls have left.
async fn drop_partials(
    registry: &dyn ImageRegistry,
    name: &Reference,
    cache: &dyn CacheProvider,
) -> Result<()> {
    for layer in layers(registry, name).await? {
        if let Ingest::Vacant(mut writer) = cache.ingest(&layer).await? {
            writer.set_resumable(false);
        }
    }
    Ok(())
}

/// Fetches what is missing behind what earlier pulls have left, and takes the two together for the blob.
async fn complete_partials(
    registry: &dyn ImageRegistry,
    name: &Reference,
    cache: &dyn CacheProvider,
) -> Result<()> {
    for layer in layers(registry, name).await? {
        let Ingest::Vacant(mut writer) = cache.ingest(&layer).await? else { continue };
        if writer.offset() == 0 {
            continue;
        }
        let rest = registry.blob(name, &layer, BlobRange::from_start(writer.offset())).await?;
        writer.write(rest.bytes(u64::MAX).await?).await?;
        writer.commit().await?;
    }
    Ok(())
}
