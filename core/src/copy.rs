//! The copy engine: an image from one backend into another, digests unchanged.

mod documents;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};

use self::documents::{Batch, Documents};
use crate::cache::MissingBlob;
use crate::manifest::{Document, RawManifest, is_foreign, limits};
use crate::progress::{Event, Progress};
use crate::pull::Retry;
use crate::registry::{ImageRegistry, ImageRegistryExt, PushSession};
use crate::{
    Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, Platform, Reference, Result, reference, select,
};

/// What of an index is copied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Platforms {
    /// Everything: the copy has the digest of the original.
    #[default]
    All,
    /// The image of one platform alone: the copy has the digest of that image's manifest.
    One(Platform),
}

/// How an image is copied.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Blobs moved at the same time.
    pub concurrency: usize,
    /// What of an index is copied.
    pub platforms: Platforms,
    /// Where events go.
    pub progress: Progress,
    /// Copies what refers to the image, too: signatures, SBOMs, and what refers to those. Both ends have to list
    /// [referrers](ImageRegistry::referrers), or nothing is copied. What of them is missing in the source is named by an
    /// error at the end, when everything else is copied.
    pub referrers: bool,
    /// What happens after a failed attempt.
    pub retry: Retry,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            concurrency: 4,
            platforms: Platforms::default(),
            progress: Progress::none(),
            referrers: false,
            retry: Retry::default(),
        }
    }
}

/// Copies an image between backends. Blobs come first, then manifests, then indexes; the name is set last. Every
/// document is carried on byte for byte, so that digests and signatures survive (rule X 99
/// `copy_a_to_b_preserves_digests_or_refuses`). All of it is one [`PushSession`]: a name is set only when everything is
/// there, also beside a collection or a repair of the target.
///
/// The last progress event is [`Event::Finished`], always: also when the future is dropped, unless it was never polled.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported) at once when the target stores nothing; otherwise those of both
/// backends, with the image in their context. The target's name is not touched then, but by
/// [`NotFound`](crate::ErrorKind::NotFound) for [referrers](CopyOptions::referrers) that are missing.
pub async fn copy(
    from: &dyn ImageRegistry,
    image: &Reference,
    to: &dyn ImageRegistry,
    target: &Reference,
    options: &CopyOptions,
) -> Result<Descriptor> {
    let operation = options.progress.operation();
    let options = &CopyOptions { progress: operation.progress().clone(), ..options.clone() };
    let copied = async {
        let session = PushSession::begin(to, target)?;
        if options.referrers && !from.capabilities().referrers {
            return Err(from.unsupported("list referrers").with_image(image));
        }
        if options.referrers && !to.capabilities().referrers {
            return Err(to.unsupported("list referrers").with_image(target));
        }
        Copier { from, image, to, target, session, options, documents: Mutex::default() }.run().await
    };
    operation.end(copied.await)
}

/// Copies what refers to documents of an image that are at the target already, and what refers to that: all these
/// documents, and what is missing of them.
pub(crate) async fn copy_referrers(
    (from, image): (&dyn ImageRegistry, &Reference),
    subjects: impl IntoIterator<Item = Digest>,
    (to, target): (&dyn ImageRegistry, &Reference),
    options: &CopyOptions,
) -> Result<(HashSet<Digest>, Result<()>)> {
    let mut documents = Documents::default();
    subjects.into_iter().for_each(|digest| documents.store(digest));
    let (documents, session) = (Mutex::new(documents), PushSession::begin(to, target)?);
    let copier = Copier { from, image, to, target, session, options, documents };
    copier.referrers().await?;
    let documents = copier.documents.into_inner().unwrap_or_else(PoisonError::into_inner);
    let complete = documents.check_complete();
    Ok((documents.stored, complete))
}

struct Copier<'a> {
    from: &'a dyn ImageRegistry,
    image: &'a Reference,
    to: &'a dyn ImageRegistry,
    target: &'a Reference,
    /// Keeps what is there of the image until all names are set.
    session: PushSession<'a>,
    options: &'a CopyOptions,
    documents: Mutex<Documents>,
}

/// Endings of the tags under which cosign keeps what belongs to an image where there are no referrers.
const COSIGN: [&str; 3] = ["sig", "att", "sbom"];

/// How often content is stored again that a document needs, and that is gone from the target when the document is
/// stored.
const REPAIRS: usize = 8;

impl Copier<'_> {
    async fn run(&self) -> Result<Descriptor> {
        let raw = self.retrying("manifest", || async {
            match &self.options.platforms {
                Platforms::All => self.from.fetch_raw(self.image).await,
                Platforms::One(platform) => Ok(select::find(self.from, self.image, platform).await?.raw),
            }
        });
        let raw = raw.await?;
        if reference::digest_of(self.target)?.is_some_and(|digest| digest != *raw.digest()) {
            let message = format!("the target's digest is not that of the image, {}", raw.digest());
            return Err(Error::config(message).with_image(self.target));
        }
        self.content(&raw, limits::NESTING).await?;
        self.push(self.target, &raw).await?;
        if self.options.referrers {
            self.referrers().await?;
            self.documents()
                .check_complete()
                .map_err(|e| e.with_image(self.image).with_endpoint(self.from))?;
        }
        Ok(raw.descriptor().clone())
    }

    /// Copies everything that `raw` refers to, bottom up.
    fn content<'s>(&'s self, raw: &'s RawManifest, depth: usize) -> BoxFuture<'s, Result<()>> {
        Box::pin(async move {
            let Document::Index(index) = raw.document() else { return self.blobs(raw).await };
            if depth == 0 {
                let message = format!("indexes are nested more than {} deep", limits::NESTING);
                return Err(Error::limit(message).with_image(self.image));
            }
            let (mut batch, mut listed) = (Batch::default(), HashSet::new());
            for child in index.manifests() {
                // Hostile input lists one document many times, and in each of those another.
                let is_known = self.documents().stored.contains(child.digest());
                if is_known || !listed.insert(child.digest()) {
                    continue;
                }
                let raw = self.retrying("manifest", || self.from.fetch_child(self.image, child)).await;
                let child = raw.map_err(|e| of_source(e, child.digest()))?;
                self.content(&child, depth - 1).await?;
                batch.add(child);
                if batch.is_full() {
                    self.store(std::mem::take(&mut batch)).await?;
                }
            }
            self.store(batch).await
        })
    }

    /// Stores documents by their digests, those that have a subject together.
    async fn store(&self, batch: Batch) -> Result<()> {
        let (referrers, others): (Vec<_>, Vec<_>) =
            batch.documents.into_iter().partition(|raw| raw.subject().is_some());
        for raw in &others {
            self.push(&reference::by_digest(self.target, raw.digest()), raw).await?;
        }
        if referrers.is_empty() {
            return Ok(());
        }
        self.storing(&referrers, || self.session.put_referrers(&referrers)).await
    }

    async fn push(&self, name: &Reference, raw: &RawManifest) -> Result<()> {
        self.storing(std::slice::from_ref(raw), || self.session.finish(name, raw)).await
    }

    /// Stores documents by `attempt`, and again what they need when that is gone.
    async fn storing<F>(&self, documents: &[RawManifest], attempt: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        for repairs in 0.. {
            match self.retrying("manifest", &attempt).await {
                // A repair of the target has moved damaged content away since it was found or stored there.
                Err(e) if e.detail::<MissingBlob>().is_some() && repairs < REPAIRS => {}
                pushed => {
                    pushed.map_err(|e| e.with_image(self.target).with_endpoint(self.to))?;
                    break;
                }
            }
            for raw in documents {
                if let Document::Index(index) = raw.document() {
                    let stored = &mut self.documents().stored;
                    index.manifests().iter().for_each(|child| _ = stored.remove(child.digest()));
                }
                self.content(raw, limits::NESTING).await?;
            }
        }
        let mut known = self.documents();
        for raw in documents {
            known.store(raw.digest().clone());
        }
        Ok(())
    }

    /// Copies what refers to the documents that have been copied, and what refers to that.
    async fn referrers(&self) -> Result<()> {
        let mut batch = Batch::default();
        loop {
            let Some(subject) = self.documents().subjects.pop_front() else { return self.store(batch).await };
            self.referrers_of(&subject, &mut batch).await?;
        }
    }

    async fn referrers_of(&self, subject: &Digest, batch: &mut Batch) -> Result<()> {
        let listed = self.retrying("referrers", || self.from.referrers(self.image, subject, None)).await;
        for referrer in self.there(listed)?.unwrap_or_default() {
            // A list may lead back to what has led to it.
            if !self.documents().meet(referrer.digest()) {
                continue;
            }
            let Some(raw) = self.there(self.referrer(&referrer).await)? else { continue };
            batch.add(raw);
            if batch.is_full() {
                self.store(std::mem::take(batch)).await?;
            }
        }
        let stem = subject.as_ref().replacen(':', "-", 1);
        for tag in COSIGN.map(|ending| format!("{stem}.{ending}")) {
            if !reference::is_tag(&tag) {
                continue;
            }
            let Some(raw) = self.there(self.beside(&tag).await)?.flatten() else { continue };
            self.push(&tagged(self.target, &tag), &raw).await?;
        }
        Ok(())
    }

    /// What is not missing. What is is noted: everything else is copied before the copy fails.
    fn there<T>(&self, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Err(e) if *e.kind() == ErrorKind::NotFound && e.detail::<MissingBlob>().is_some() => {
                self.documents().miss(&e);
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    /// A document of a list, whose content is copied.
    async fn referrer(&self, referrer: &Descriptor) -> Result<RawManifest> {
        let raw = self.retrying("referrer", || self.from.fetch_child(self.image, referrer)).await;
        let raw = raw.map_err(|e| of_source(e, referrer.digest()))?;
        self.content(&raw, limits::NESTING).await?;
        Ok(raw)
    }

    /// The document of a tag that may be beside the image, whose content is copied.
    async fn beside(&self, tag: &str) -> Result<Option<RawManifest>> {
        let name = tagged(self.image, tag);
        let raw = match self.retrying("manifest", || self.from.fetch_raw(&name)).await {
            // There is no such tag; one whose document is missing is another matter.
            Err(e) if *e.kind() == ErrorKind::NotFound && e.detail::<MissingBlob>().is_none() => {
                return Ok(None);
            }
            raw => raw?,
        };
        self.content(&raw, limits::NESTING).await?;
        Ok(Some(raw))
    }

    /// Copies config and layers, each digest once.
    async fn blobs(&self, raw: &RawManifest) -> Result<()> {
        // What is there now must still be there when the name is set.
        self.session.expect(raw).await.map_err(|e| e.with_endpoint(self.to))?;
        let (mut unique, mut digests) = (raw.references(), HashSet::new());
        unique.retain(|blob| digests.insert(blob.digest().clone()));
        let size = unique.iter().map(Descriptor::size).fold(0, u64::saturating_add);
        self.options.progress.emit(Event::Planned { size });
        let jobs = unique.into_iter().map(|blob| async move { self.blob(&blob).await });
        let concurrency =
            self.options.concurrency.min(self.from.concurrency()).min(self.to.concurrency()).max(1);
        stream::iter(jobs).buffer_unordered(concurrency).try_collect().await
    }

    async fn blob(&self, blob: &Descriptor) -> Result<()> {
        let digest = blob.digest();
        let at = |e: Error| e.with_image(self.image).with_endpoint(self.to).with_context("blob", digest);
        let left_out = || {
            let message = format!("{digest} may not be redistributed and is not copied");
            self.options.progress.emit(Event::Warning { message });
        };
        let (foreign, has_url) =
            (is_foreign(blob.media_type()), blob.urls().as_ref().is_some_and(|urls| !urls.is_empty()));
        if foreign && has_url {
            left_out();
            return Ok(());
        }
        let is_there = self.retrying(digest.as_ref(), || self.session.has_blob(blob)).await.map_err(at)?;
        if is_there || self.mounted(blob).await {
            self.options.progress.emit(Event::BlobDone {
                digest: digest.clone(),
                size: blob.size(),
                cached: true,
            });
            return Ok(());
        }
        let started = self.options.progress.start(blob, 0);
        let attempt = AtomicU32::new(0);
        let moved = self.retrying(digest.as_ref(), || async {
            let content = self.from.fetch_blob(self.image, blob, BlobRange::FULL).await;
            let content = content.map_err(|e| of_source(e, digest))?;
            let attempt = attempt.fetch_add(1, Ordering::Relaxed) + 1;
            self.session.put_blob(self.watched(content, attempt)?).await
        });
        match moved.await.map_err(at) {
            // Such a layer may exist only at its own URL, even when the descriptor lists no URL.
            Err(e) if foreign && *e.kind() == ErrorKind::NotFound => left_out(),
            outcome => {
                outcome?;
                started.done();
            }
        }
        Ok(())
    }

    /// Whether the target could take the blob from the image's repository, which is on the same registry.
    async fn mounted(&self, blob: &Descriptor) -> bool {
        let is_same_registry = self.from.to_string() == self.to.to_string()
            && self.image.registry() == self.target.registry()
            && self.image.repository() != self.target.repository();
        if !is_same_registry || !self.to.capabilities().mount {
            return false;
        }
        // A mount saves work. If it fails, the blob is pushed, and the push reports its own error.
        self.session.mount_blob(blob, self.image).await.unwrap_or(false)
    }

    /// The same bytes, verified, with progress events.
    fn watched(&self, content: Blob, attempt: u32) -> Result<Blob> {
        let descriptor = content.descriptor().clone();
        let (digest, progress) = (descriptor.digest().clone(), self.options.progress.clone());
        let endpoint = content.endpoint().map_or_else(|| self.from.to_string(), str::to_owned);
        progress.emit(Event::BlobOpened { digest: digest.clone(), endpoint, attempt });
        let mut received = 0;
        let told = content.unverified().map_ok(move |chunk| {
            received += chunk.len() as u64;
            progress.emit(Event::BlobProgress { digest: digest.clone(), received });
            chunk
        });
        Blob::new(&descriptor, told)
    }

    async fn retrying<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.options.retry.run(what, &self.options.progress, attempt).await
    }

    fn documents(&self) -> MutexGuard<'_, Documents> {
        // Every change is one insertion, so a poisoned lock is consistent.
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says of what the source does not have that it is missing there.
fn of_source(error: Error, digest: &Digest) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error.with_detail(MissingBlob(digest.clone())),
        _ => error,
    }
}

fn tagged(image: &Reference, tag: &str) -> Reference {
    Reference::with_tag(image.registry().to_owned(), image.repository().to_owned(), tag.to_owned())
}
