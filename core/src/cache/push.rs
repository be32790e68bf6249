//! From a cache to a registry.

use std::collections::HashMap;

use futures_util::future::BoxFuture;

use super::registry::as_registry;
use super::{CacheProvider, Lease, Needs, content, with_platforms_here};
use crate::copy::subset::{SUBJECT, annotation, with_children};
use crate::copy::{Copied, CopyOptions, Platforms, Sparse, copy_without};
use crate::manifest::{Document, RawManifest, is_document, is_index, limits};
use crate::registry::ImageRegistry;
use crate::{Advice, Descriptor, Digest, Error, ErrorKind, Platform, Reference, Result, select};

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
        let mut subset =
            Subset { cache, absent: Vec::new(), rewritten: HashMap::new(), left: HashMap::new() };
        let kept = subset.of(&root, limits::NESTING).await.map_err(|e| e.with_image(name))?;
        let source = match (subset.absent.first(), kept) {
            (None, _) => source,
            (_, Some(_)) if options.sparse == Sparse::Keep => {
                let absent = subset.absent.iter().map(|absent| absent.digest().clone()).collect();
                return copy_without(&source, name, registry, target, &copying, absent).await;
            }
            (_, Some(kept)) if options.sparse == Sparse::Rewrite && name.digest().is_none() => {
                source.fixed(name.clone(), kept).with_documents(subset.rewritten)
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
    /// Indexes within the index, by their new digests.
    rewritten: HashMap<Digest, RawManifest>,
    /// Digest and size of what is left of each child that has been looked at, by its own.
    left: HashMap<(Digest, u64), Option<(Digest, u64)>>,
}

impl Subset<'_> {
    /// `raw` without what is not here: itself when all is, `None` when nothing is left.
    fn of<'s>(
        &'s mut self,
        raw: &'s RawManifest,
        depth: usize,
    ) -> BoxFuture<'s, Result<Option<RawManifest>>> {
        Box::pin(async move {
            let Document::Index(index) = raw.document() else {
                let whole = content::absent(self.cache, raw.requirements()).await?.is_empty();
                if !whole {
                    self.absent.push(raw.descriptor().clone());
                }
                return Ok(whole.then(|| raw.clone()));
            };
            if depth == 0 {
                return Err(Error::limit(format!("indexes are nested more than {} deep", limits::NESTING)));
            }
            let mut kept = Vec::with_capacity(index.manifests().len());
            for child in index.manifests() {
                kept.push(self.child(child, depth - 1).await?);
            }
            drop_dangling(index.manifests(), &mut kept);
            with_children(raw, index.manifests(), kept)
        })
    }

    /// What stands for a child: its own descriptor or that of what is left of it.
    async fn child(&mut self, child: &Descriptor, depth: usize) -> Result<Option<Descriptor>> {
        // Hostile input lists one document many times, and in each of those another.
        let place = (child.digest().clone(), child.size());
        let left = if let Some(left) = self.left.get(&place) {
            left.clone()
        } else {
            let left = self.left_of(child, depth).await?;
            self.left.insert(place, left.clone());
            left
        };
        Ok(left.map(|(digest, size)| {
            let mut descriptor = child.clone();
            descriptor.set_digest(digest);
            descriptor.set_size(size);
            descriptor
        }))
    }

    async fn left_of(&mut self, child: &Descriptor, depth: usize) -> Result<Option<(Digest, u64)>> {
        let own = (child.digest().clone(), child.size());
        if self.cache.stat(child.digest()).await? != Some(child.size()) {
            self.absent.push(child.clone());
            return Ok(None);
        }
        let media_type = child.media_type();
        if !is_document(media_type) {
            return Ok(Some(own));
        }
        let found = content::read(self.cache, child, limits::MANIFEST).await?;
        let raw = RawManifest::described(found, child)?;
        let before = self.absent.len();
        let Some(kept) = self.of(&raw, depth).await? else {
            if !is_index(media_type) {
                self.absent.truncate(before);
                self.absent.push(child.clone());
            }
            return Ok(None);
        };
        if kept.digest() == raw.digest() {
            return Ok(Some(own));
        }
        let left = (kept.digest().clone(), kept.descriptor().size());
        self.rewritten.insert(kept.digest().clone(), kept);
        Ok(Some(left))
    }
}

/// Drops attestations whose subject is dropped.
fn drop_dangling(children: &[Descriptor], kept: &mut [Option<Descriptor>]) {
    let here: Vec<String> = children
        .iter()
        .zip(&*kept)
        .filter(|(_, kept)| kept.is_some())
        .map(|(c, _)| c.digest().to_string())
        .collect();
    for (child, kept) in children.iter().zip(kept) {
        if annotation(child, SUBJECT).is_some_and(|subject| !here.iter().any(|digest| digest == subject)) {
            *kept = None;
        }
    }
}
