//! Storing an image: begin, put, finish.

use std::collections::{HashMap, HashSet};

use tokio::sync::Mutex;

use super::ImageRegistry;
use crate::cache::{Lease, lacking};
use crate::manifest::{RawManifest, is_foreign};
use crate::{Blob, Descriptor, Digest, Error, Reference, Result, reference};

/// An image on its way into a registry.
///
/// What it looks for or stores is [leased](ImageRegistry::lease) before that, so no concurrent collection removes any
/// of it until the session is dropped. A document goes in only after what it needs, and so a [name](Self::finish) is
/// set only when everything is there: blobs first, then manifests, then indexes, names last.
///
/// Works with every backend: one that removes nothing by itself grants leases of nothing.
#[derive(Debug)]
pub struct PushSession<'a> {
    registry: &'a dyn ImageRegistry,
    target: &'a Reference,
    state: Mutex<State>,
    /// What indexes list, and is neither there nor needed.
    absent: std::sync::Mutex<HashSet<Digest>>,
}

#[derive(Debug, Default)]
struct State {
    /// What is leased, and whether it is known to be there.
    content: HashMap<Digest, bool>,
    /// The same in the order in which it was leased.
    leased: Vec<Digest>,
    /// Each protects `leased` from a place on, up to the place of the next one.
    leases: Vec<(usize, Lease)>,
}

impl<'a> PushSession<'a> {
    /// Blobs and documents that one session handles: its memory, and the size of its leases.
    pub const LIMIT: usize = 100_000;

    /// Begins to store an image in the repository that `target` names. No I/O.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when the registry stores nothing.
    pub fn begin(registry: &'a dyn ImageRegistry, target: &'a Reference) -> Result<Self> {
        if !registry.capabilities().push {
            return Err(registry.unsupported("store images").with_image(target));
        }
        Ok(Self { registry, target, state: Mutex::default(), absent: std::sync::Mutex::default() })
    }

    /// Protects a document and what it refers to, here or not yet. The other methods do so for what they are given; to
    /// call this first saves a lease for each blob.
    ///
    /// # Errors
    /// Those of [`ImageRegistry::lease`]; [`Limit`](crate::ErrorKind::Limit) beyond [`LIMIT`](Self::LIMIT).
    pub async fn expect(&self, document: &RawManifest) -> Result<()> {
        let references = document.references();
        let digests = references.iter().map(Descriptor::digest);
        self.hold(std::iter::once(document.digest()).chain(digests).cloned().collect()).await
    }

    /// Protects content, here or not yet, with one lease.
    ///
    /// # Errors
    /// As [`Self::expect`].
    pub(crate) async fn protect(&self, content: Vec<Digest>) -> Result<()> {
        self.hold(content).await
    }

    /// Ends the session, and keeps what it protects.
    pub(crate) fn into_lease(self) -> Lease {
        Lease::new(self.state.into_inner().leases)
    }

    /// As [`ImageRegistry::has_blob`]; a blob that is there stays.
    ///
    /// # Errors
    /// As [`ImageRegistry::has_blob`] and [`Self::expect`].
    pub async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        self.noted(blob.digest(), self.registry.has_blob(self.target, blob)).await
    }

    /// As [`ImageRegistry::mount_blob`]; a blob that was mounted stays.
    ///
    /// # Errors
    /// As [`ImageRegistry::mount_blob`] and [`Self::expect`].
    pub async fn mount_blob(&self, blob: &Descriptor, from: &Reference) -> Result<bool> {
        self.noted(blob.digest(), self.registry.mount_blob(self.target, blob, from)).await
    }

    /// As [`ImageRegistry::partial_blob`].
    ///
    /// # Errors
    /// As [`ImageRegistry::partial_blob`].
    pub async fn partial_blob(&self, blob: &Descriptor) -> Result<u64> {
        self.registry.partial_blob(self.target, blob).await
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// As [`ImageRegistry::push_blob`] and [`Self::expect`].
    pub async fn put_blob(&self, blob: Blob) -> Result<()> {
        let digest = blob.descriptor().digest().clone();
        let pushed = async { self.registry.push_blob(self.target, blob).await.map(|()| true) };
        self.noted(&digest, pushed).await.map(drop)
    }

    /// Stores a manifest or an index by its digest, such as a child of an index, after what it needs.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub async fn put_manifest(&self, manifest: &RawManifest) -> Result<()> {
        self.finish(&reference::by_digest(self.target, manifest.digest()), manifest).await
    }

    /// Stores a manifest or an index under a name, after what it needs. What is there stays until the session is
    /// dropped, so one session may set several names.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) with the digests when this session has neither found nor stored what
    /// the document refers to, and the name is left alone; otherwise as [`ImageRegistry::push_manifest`]. Layers that
    /// may not be redistributed may be elsewhere.
    pub async fn finish(&self, name: &Reference, manifest: &RawManifest) -> Result<()> {
        self.complete(name, manifest).await?;
        let absent: Vec<Digest> = self.absent().iter().cloned().collect();
        if absent.is_empty() {
            self.registry.push_manifest(name, manifest).await?;
        } else {
            self.registry.push_sparse(&[(name.clone(), manifest.clone())], &absent).await?;
        }
        self.note(manifest.digest(), true).await;
        Ok(())
    }

    /// Stores manifests or indexes under names, each after what it needs, as [`ImageRegistry::push_names`].
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub async fn finish_all(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        for (name, manifest) in names {
            self.complete(name, manifest).await?;
        }
        self.registry.push_names(names).await?;
        for (_, manifest) in names {
            self.note(manifest.digest(), true).await;
        }
        Ok(())
    }

    /// Stores manifests that have a subject, by their digests, each after what it needs: as
    /// [`ImageRegistry::push_referrers`].
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub async fn put_referrers(&self, manifests: &[RawManifest]) -> Result<()> {
        for manifest in manifests {
            self.complete(&reference::by_digest(self.target, manifest.digest()), manifest).await?;
        }
        self.registry.push_referrers(self.target, manifests).await?;
        for manifest in manifests {
            self.note(manifest.digest(), true).await;
        }
        Ok(())
    }

    /// Notes a document that was stored under a name.
    pub(crate) async fn named(&self, manifest: &RawManifest) {
        self.note(manifest.digest(), true).await;
    }

    /// Takes indexes that list these documents, which are not there.
    pub(crate) fn leave_out(&self, absent: &[Digest]) {
        self.absent().extend(absent.iter().cloned());
    }

    fn absent(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        // Every change is one insertion, so a poisoned lock is consistent.
        self.absent.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Leases a document, and refuses it where something is missing that it needs.
    pub(crate) async fn complete(&self, name: &Reference, manifest: &RawManifest) -> Result<()> {
        self.hold(vec![manifest.digest().clone()]).await?;
        let missing = self.missing(manifest).await;
        if missing.is_empty() {
            return Ok(());
        }
        let error = lacking("content was not stored before its manifest", &missing);
        Err(error.with_image(name).with_endpoint(self.registry))
    }

    /// References of a document that this session has neither found nor stored.
    async fn missing(&self, document: &RawManifest) -> Vec<Digest> {
        let state = self.state.lock().await;
        let absent = self.absent();
        let is_missing = |blob: &Descriptor| {
            !is_foreign(blob.media_type())
                && !absent.contains(blob.digest())
                && state.content.get(blob.digest()) != Some(&true)
        };
        let references = document.references().into_iter();
        references.filter(is_missing).map(|blob| blob.digest().clone()).collect()
    }

    /// Leases a blob, then looks whether it is there or stores it.
    async fn noted(&self, digest: &Digest, outcome: impl Future<Output = Result<bool>>) -> Result<bool> {
        self.hold(vec![digest.clone()]).await?;
        let is_there = outcome.await?;
        self.note(digest, is_there).await;
        Ok(is_there)
    }

    async fn note(&self, digest: &Digest, is_there: bool) {
        if let Some(known) = self.state.lock().await.content.get_mut(digest) {
            *known |= is_there;
        }
    }

    /// Leases what is not leased yet.
    async fn hold(&self, digests: Vec<Digest>) -> Result<()> {
        let mut state = self.state.lock().await;
        let mut seen = HashSet::new();
        let is_fresh = |digest: &Digest| !state.content.contains_key(digest) && seen.insert(digest.clone());
        let fresh: Vec<Digest> = digests.into_iter().filter(is_fresh).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        if state.leased.len() + fresh.len() > Self::LIMIT {
            let message = format!("the image has more than {} blobs and manifests", Self::LIMIT);
            return Err(Error::limit(message).with_image(self.target));
        }
        // A lease is an open file. Together with those before it that are no larger it becomes one lease: so there are
        // few, and each digest is written a few times.
        let mut start = state.leased.len();
        let end = start + fresh.len();
        let mut kept = state.leases.len();
        while kept > 0 && start - state.leases[kept - 1].0 <= end - start {
            kept -= 1;
            start = state.leases[kept].0;
        }
        let all: Vec<Digest> = state.leased[start..].iter().chain(&fresh).cloned().collect();
        let lease = self.registry.lease(&all).await.map_err(|e| e.with_image(self.target))?;
        state.leases.truncate(kept);
        state.leases.push((start, lease));
        state.content.extend(fresh.iter().map(|digest| (digest.clone(), false)));
        state.leased.extend(fresh);
        Ok(())
    }
}
