//! Mutants of what is derived from a cache.

use async_trait::async_trait;
use plyfold_conformance::{Client, CoreClient};
use plyfold_core::{
    CacheProvider, CacheProviderExt, ImageRegistry, ImageSource, NameChange, Platform, PullOptions,
    PullPolicy, PullResult, Reference, Result,
};

use super::CacheFault;

#[derive(Clone, Copy, Debug)]
pub(super) struct BrokenPull(pub(super) CacheFault);

#[async_trait]
impl Client for BrokenPull {
    async fn pull(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        cache: &dyn CacheProvider,
        options: &PullOptions,
    ) -> Result<PullResult> {
        let mut options = options.clone();
        match self.0 {
            CacheFault::AlwaysAsks => options.policy = PullPolicy::Always,
            CacheFault::FetchesAll => drop_all(cache, reference, &options.platform).await?,
            CacheFault::NeverRefreshes if options.policy == PullPolicy::Always => {
                options.policy = PullPolicy::IfMissing;
            }
            CacheFault::PlatformIgnored => options.platform = Platform::new("linux", "amd64", None),
            _ => {}
        }
        let result = CoreClient.pull(registry, reference, cache, &options).await?;
        if self.0 == CacheFault::NamesTheManifest {
            let manifest = result.manifest.descriptor().clone();
            cache.update(&[NameChange::Set(reference.clone(), manifest)]).await?;
        }
        Ok(result)
    }
}

/// Forgets what is here of an image, so that all of it is fetched.
async fn drop_all(cache: &dyn CacheProvider, reference: &Reference, platform: &Platform) -> Result<()> {
    let cache = dyn_clone::clone_box(cache);
    if let Ok(source) = cache.new_source(reference, platform).await {
        for blob in source.raw().references() {
            cache.quarantine(blob.digest()).await?;
        }
    }
    Ok(())
}
