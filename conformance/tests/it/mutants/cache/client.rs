//! Mutants of what is derived from a cache.

use std::net::TcpStream;

use async_trait::async_trait;
use plyfold_conformance::{Client, CoreClient};
use plyfold_core::edit::Edit;
use plyfold_core::memory::MemoryCache;
use plyfold_core::progress::Event;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt, CopyOptions, Descriptor, ImageRegistry, ImageSource,
    LoadOptions, Loaded, NameChange, Opened, Platform, Platforms, Progress, PullOptions, PullPolicy,
    PullResult, RawManifest, Reference, Result, Sparse,
};
use serde_json::{Value, json};

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
        if self.0 == CacheFault::PullsOutlive {
            let (registry, cache) = (dyn_clone::clone_box(registry), dyn_clone::clone_box(cache));
            let reference = reference.clone();
            let pull = async move { CoreClient.pull(&*registry, &reference, &*cache, &options).await };
            return tokio::spawn(pull).await.unwrap();
        }
        match self.0 {
            CacheFault::AlwaysAsks => options.policy = PullPolicy::Always,
            CacheFault::FetchesAll => drop_all(cache, reference, &options.platform).await?,
            CacheFault::NeverRefreshes if options.policy == PullPolicy::Always => {
                options.policy = PullPolicy::IfMissing;
            }
            CacheFault::HitsUnconfirmed => options.confirm = Some(false),
            CacheFault::WarnsBeforeAsking => {
                if let Some(here) = cache.find_descriptor(reference).await? {
                    let message = format!("{} is looked at", here.digest());
                    options.progress.emit(Event::Warning { message });
                }
            }
            CacheFault::VerifyIgnored => (options.verify, options.force) = (false, false),
            CacheFault::EndUnsaid => options.progress = Progress::none(),
            CacheFault::PlatformIgnored => options.platform = Platform::new("linux", "amd64", None),
            _ => {}
        }
        let result = match (self.0, CoreClient.pull(registry, reference, cache, &options).await) {
            (CacheFault::FetchesOnAnyError, Err(_)) => {
                CoreClient.pull(registry, reference, &MemoryCache::new()?, &options).await?
            }
            (CacheFault::RefusalsTellDigests, Err(e)) => {
                let here = cache.find_descriptor(reference).await?;
                return Err(
                    e.with_context("here", here.map_or_else(String::new, |here| here.digest().to_string()))
                );
            }
            (_, result) => result?,
        };
        if self.0 == CacheFault::NameAskedAgain {
            options.policy = PullPolicy::Never;
            return CoreClient.pull(registry, reference, cache, &options).await;
        }
        if self.0 == CacheFault::NamesTheManifest {
            let manifest = result.manifest.descriptor().clone();
            cache.update(&[NameChange::Set(reference.clone(), manifest)]).await?;
        }
        Ok(result)
    }

    async fn load(
        &self,
        from: &Opened,
        cache: &dyn CacheProvider,
        options: &LoadOptions,
    ) -> Result<Vec<Loaded>> {
        let mut options = options.clone();
        match self.0 {
            CacheFault::DeltaBlobsForgotten => {
                CoreClient.load(from, &MemoryCache::new()?, &options).await?;
            }
            CacheFault::FollowsUrls => {
                for name in from.images().await? {
                    let raw = from.registry.manifest(&name).await?;
                    for url in raw.references().iter().filter_map(|blob| blob.urls().clone()).flatten() {
                        let host = url.split('/').nth(2).unwrap();
                        TcpStream::connect(host).unwrap();
                    }
                }
            }
            CacheFault::LoadsInPieces => {
                let mut loaded = Vec::new();
                for name in from.images().await? {
                    options.images = vec![name];
                    loaded.extend(CoreClient.load(from, cache, &options).await?);
                }
                return Ok(loaded);
            }
            CacheFault::OnePlatformLoaded => {
                options.platforms = Platforms::One(Platform::new("linux", "amd64", None));
            }
            CacheFault::ReplacesAll => options.keep_names = false,
            _ => {}
        }
        let mut loaded = CoreClient.load(from, cache, &options).await?;
        if self.0 == CacheFault::ReplacesSilently {
            for image in &mut loaded {
                image.replaced = None;
            }
        }
        Ok(loaded)
    }

    async fn edit(
        &self,
        cache: &dyn CacheProvider,
        image: &Reference,
        edit: &Edit,
        name: &Reference,
    ) -> Result<Descriptor> {
        let mut edit = edit.clone();
        if self.0 == CacheFault::EditStamped {
            edit.config.labels.push(("made".to_owned(), format!("{:?}", std::time::Instant::now())));
        }
        if let (CacheFault::EditNamesEarly, Some(top)) = (self.0, cache.find_descriptor(image).await?) {
            cache.update(&[NameChange::Set(name.clone(), top)]).await?;
        }
        let honest = CoreClient.edit(cache, image, &edit, name).await?;
        if self.0 != CacheFault::EditReserialises {
            return Ok(honest);
        }
        let bytes = cache.content(&honest, 4 << 20).await?;
        let document = RawManifest::described(bytes, &honest)?;
        let Ok(manifest) = document.image() else { return Ok(honest) };
        let raw = RawManifest::new(serde_json::to_vec(manifest).unwrap(), None)?;
        cache.put(Blob::from_bytes(raw.descriptor(), BlobRange::FULL, raw.bytes())?).await?;
        cache.update(&[NameChange::Set(name.clone(), raw.descriptor().clone())]).await?;
        Ok(raw.descriptor().clone())
    }

    async fn index_write(
        &self,
        cache: &dyn CacheProvider,
        name: &Reference,
        manifests: &[Descriptor],
    ) -> Result<Descriptor> {
        let before = match cache.find_descriptor(name).await? {
            Some(before) => entries(cache, &before).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let honest = CoreClient.index_write(cache, name, manifests).await?;
        let mut entries = entries(cache, &honest).await?;
        let given = |entry: &Value| manifests.iter().position(|m| entry["digest"] == m.digest().as_ref());
        match self.0 {
            CacheFault::DanglingKept => {
                let about = |entry: &&Value| entry["annotations"]["vnd.docker.reference.digest"].is_string();
                let lost: Vec<_> = before.iter().filter(about).filter(|old| !entries.contains(old)).collect();
                entries.extend(lost.into_iter().cloned());
            }
            CacheFault::IndexInOrder => entries.sort_by_key(given),
            CacheFault::VariantForgotten => {
                let place = |entry: &Value| {
                    let platform = &entry["platform"];
                    (platform["os"].to_string(), platform["architecture"].to_string())
                };
                let taken: Vec<_> = entries.iter().filter(|e| given(e).is_some()).map(place).collect();
                entries.retain(|entry| given(entry).is_some() || !taken.contains(&place(entry)));
            }
            _ => return Ok(honest),
        }
        let index = json!({ "schemaVersion": 2, "mediaType": honest.media_type(), "manifests": entries });
        let raw = RawManifest::new(index.to_string(), None)?;
        cache.put(Blob::from_bytes(raw.descriptor(), BlobRange::FULL, raw.bytes())?).await?;
        cache.update(&[NameChange::Set(name.clone(), raw.descriptor().clone())]).await?;
        Ok(raw.descriptor().clone())
    }

    async fn push(
        &self,
        cache: &dyn CacheProvider,
        name: &Reference,
        registry: &dyn ImageRegistry,
        target: &Reference,
        options: &CopyOptions,
    ) -> Result<Descriptor> {
        let sparse = match self.0 {
            CacheFault::PushRefuses => Sparse::Refuse,
            CacheFault::PushRewrites => Sparse::Rewrite,
            _ => options.sparse,
        };
        let options = CopyOptions { sparse, ..options.clone() };
        CoreClient.push(cache, name, registry, target, &options).await
    }
}

async fn entries(cache: &dyn CacheProvider, index: &Descriptor) -> Result<Vec<Value>> {
    let document: Value = serde_json::from_slice(&cache.content(index, 1 << 20).await?).unwrap();
    Ok(document["manifests"].as_array().cloned().unwrap_or_default())
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
