//! From a cache to a registry.

use async_trait::async_trait;

use super::registry::as_registry;
use super::{CacheProvider, Lease, Needs, content, with_platforms_here};
use crate::copy::rewrite::{Child, Entries, Rewrite, rewrite};
use crate::copy::subset::{SUBJECT, annotation, without_attestations_of_others};
use crate::copy::{Copied, CopyOptions, Platforms, Sparse, copy_without};
use crate::manifest::{RawManifest, is_document, limits};
use crate::registry::ImageRegistry;
use crate::{Advice, Descriptor, Error, ErrorKind, Platform, Reference, Result, select};

/// The body of `push`.
pub(super) async fn push(
    cache: &dyn CacheProvider,
    name: &Reference,
    registry: &dyn ImageRegistry,
    target: &Reference,
    options: &CopyOptions,
) -> Result<Copied> {
    let operation = options.progress.operation();
    let copying = CopyOptions { progress: operation.progress().clone(), ..options.clone() };
    let pushed = async {
        let (root, _lease) = in_hand(cache, name).await?;
        // The name may move from now on: the content that it pointed to is pushed.
        let source = as_registry(cache).fixed(name.clone(), root.clone());
        if copying.platforms != Platforms::All {
            return copy_without(&source, name, registry, target, &copying, Vec::new()).await;
        }
        let mut subset = Subset { cache, absent: Vec::new() };
        let (kept, made) = rewrite(&mut subset, &root).await.map_err(|e| e.with_image(name))?;
        let source = match (subset.absent.first(), kept) {
            (None, _) => source,
            (_, Some(_)) if options.sparse == Sparse::Keep => {
                let absent = subset.absent.iter().map(|absent| absent.digest().clone()).collect();
                return copy_without(&source, name, registry, target, &copying, absent).await;
            }
            (_, Some(kept)) if options.sparse == Sparse::Rewrite && name.digest().is_none() => {
                let made = made.into_iter().map(|raw| (raw.digest().clone(), raw)).collect();
                source.fixed(name.clone(), kept).with_documents(made)
            }
            (Some(first), _) => {
                let list: Vec<String> = subset.absent.iter().take(20).map(described).collect();
                let message = format!("not all of the image is in the store; missing: {}", list.join(", "));
                return Err(Error::not_found(message)
                    .with_image(name)
                    .with_endpoint(cache)
                    .with_context("blob", first.digest())
                    .with_advice(Advice::PushPart));
            }
        };
        let copied = copy_without(&source, name, registry, target, &copying, Vec::new()).await?;
        Ok(Copied { original: root.descriptor().clone(), ..copied })
    };
    let outcome = match pushed.await {
        Err(e) => Err(with_platforms_here(cache, name, e).await),
        pushed => pushed,
    };
    operation.end(outcome)
}

/// What a name stands for, and the lease of all that it leads to.
pub(super) async fn in_hand(cache: &dyn CacheProvider, name: &Reference) -> Result<(RawManifest, Lease)> {
    /// How often the name may move, and its old content be removed, before a lease is taken.
    const MOVES: u32 = 16;
    let mut moves = 0;
    loop {
        let root = match select::raw(&as_registry(cache), name).await {
            // It was found, then collected before it was read.
            Err(e) if *e.kind() == ErrorKind::NotFound && moves < MOVES => {
                moves += 1;
                if cache.find_descriptor(name).await?.is_none() {
                    return Err(e);
                }
                continue;
            }
            root => root?,
        };
        let needs = Needs::of(cache, root.descriptor()).await?;
        let lease = cache.lease(&needs.digests().collect::<Vec<_>>()).await?;
        // Content may have been removed before the lease was taken. Check again now that the lease is held.
        let is_here = cache.stat(root.digest()).await?.is_some();
        if is_here || moves == MOVES {
            return Ok((root, lease));
        }
        moves += 1;
    }
}

/// `linux/arm64 (sha256:…)`.
fn described(descriptor: &Descriptor) -> String {
    let digest = descriptor.digest();
    match descriptor.platform().as_ref().map(Platform::from) {
        _ if annotation(descriptor, SUBJECT).is_some() => format!("an attestation ({digest})"),
        Some(platform) if !platform.is_unknown() => format!("{platform} ({digest})"),
        _ => digest.to_string(),
    }
}

/// What of an index is here.
struct Subset<'a> {
    cache: &'a dyn CacheProvider,
    absent: Vec<Descriptor>,
}

#[async_trait]
impl Rewrite for Subset<'_> {
    async fn child(&mut self, entry: &Descriptor) -> Result<Child> {
        if self.cache.stat(entry.digest()).await? != Some(entry.size()) {
            self.absent.push(entry.clone());
            return Ok(Child::LeftOut);
        }
        if !is_document(entry.media_type()) {
            return Ok(Child::Kept);
        }
        let found = content::read(self.cache, entry, limits::MANIFEST).await?;
        Ok(Child::Document(Box::new(RawManifest::described(found, entry)?)))
    }

    async fn manifest(
        &mut self,
        raw: &RawManifest,
        entry: Option<&Descriptor>,
    ) -> Result<Option<RawManifest>> {
        let is_complete = content::absent(self.cache, raw.requirements()).await?.is_empty();
        if !is_complete {
            self.absent.push(entry.unwrap_or(raw.descriptor()).clone());
        }
        Ok(is_complete.then(|| raw.clone()))
    }

    fn index(&mut self, raw: &RawManifest, entries: Entries<'_>) -> Result<Option<RawManifest>> {
        without_attestations_of_others(raw, entries)
    }
}
