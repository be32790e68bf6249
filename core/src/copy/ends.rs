//! Blobs on their way from one backend into another.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{FutureExt as _, StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use super::convert::recompress::{Recipe, Recompressed};
use super::options::CopyOptions;
use crate::cache::MissingBlob;
use crate::holes::reopened;
use crate::manifest::{RawManifest, is_foreign};
use crate::progress::Event;
use crate::pull::may_be_of_part;
use crate::registry::{ImageRegistry, ImageRegistryExt, PushSession};
use crate::resumed::BlobOpener;
use crate::{
    Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, Mismatch, Platform, Reference, Result, select,
};

/// How often content is stored again that a document needs, and that is gone from the target when the document is
/// stored.
pub(crate) const REPAIRS: usize = 8;

/// An image where it is and where it goes.
#[derive(Clone, Copy)]
pub(crate) struct Ends<'a> {
    pub(crate) from: &'a dyn ImageRegistry,
    pub(crate) image: &'a Reference,
    pub(crate) to: &'a dyn ImageRegistry,
    pub(crate) target: &'a Reference,
    /// Keeps what is there of the image until all names are set.
    pub(crate) session: &'a PushSession<'a>,
    pub(crate) options: &'a CopyOptions,
    pub(crate) counts: &'a Counts,
}

/// Bytes of blobs of one image, and where those of all images of a copy went.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    moved: AtomicU64,
    present: AtomicU64,
    places: Arc<Mutex<HashMap<Digest, Reference>>>,
    made: Arc<Mutex<Made>>,
    /// Blobs that a conversion has brought for this image: they are counted.
    brought: Mutex<HashSet<Digest>>,
    /// Whether something that was brought is gone.
    is_doubted: Arc<AtomicBool>,
}

/// Layers that were compressed anew in this copy: each is made once.
#[derive(Debug, Default)]
struct Made {
    /// What each has become, by its digest and its `diff_id`.
    blobs: HashMap<(Digest, Digest), Arc<OnceCell<Descriptor>>>,
    /// How to make it again, by its new digest.
    recipes: HashMap<Digest, Recipe>,
}

impl Counts {
    /// Those of another image of the same copy.
    pub(crate) fn beside(&self) -> Self {
        let (places, made) = (Arc::clone(&self.places), Arc::clone(&self.made));
        Self { places, made, is_doubted: Arc::clone(&self.is_doubted), ..Self::default() }
    }

    /// Lets nothing count as there from now on because a conversion has brought it.
    pub(crate) fn doubt(&self) {
        self.is_doubted.store(true, Ordering::Relaxed);
    }

    /// Whether a conversion has brought a blob to where `target` is, and whether for this image. Backends that cannot tell
    /// what they have are not asked, and it is not made again for them.
    fn brought(&self, digest: &Digest, target: &Reference) -> Option<bool> {
        let of = |reference: &Reference| (reference.registry().to_owned(), reference.repository().to_owned());
        if self.is_doubted.load(Ordering::Relaxed) || !locked(&self.made).recipes.contains_key(digest) {
            return None;
        }
        let is_own = locked(&self.brought).contains(digest);
        (is_own || self.place(digest).is_some_and(|place| of(&place) == of(target))).then_some(is_own)
    }

    /// What a layer becomes, once that is known.
    fn made(&self, recipe: &Recipe) -> Arc<OnceCell<Descriptor>> {
        let key = (recipe.layer.digest().clone(), recipe.diff_id.clone());
        Arc::clone(locked(&self.made).blobs.entry(key).or_default())
    }

    /// Where a blob went, if that is known.
    fn place(&self, digest: &Digest) -> Option<Reference> {
        self.places().get(digest).cloned()
    }

    fn went(&self, digest: &Digest, target: &Reference) {
        let mut places = self.places();
        if places.len() < PushSession::LIMIT {
            places.entry(digest.clone()).or_insert_with(|| target.clone());
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Digest, Reference>> {
        locked(&self.places)
    }

    /// What was moved, and what was there.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.moved.load(Ordering::Relaxed), self.present.load(Ordering::Relaxed))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one insertion, so a poisoned lock is consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ends<'_> {
    /// The document of a tag that may be beside the image.
    pub(crate) async fn tagged(&self, tag: &str) -> Result<Option<RawManifest>> {
        self.retrying("manifest", || select::of_tag(self.from, self.image, tag)).await
    }

    /// Copies config and layers, each digest once.
    pub(crate) async fn blobs(&self, raw: &RawManifest) -> Result<()> {
        let is_dry = self.options.dry_run;
        if !is_dry {
            // What is there now must still be there when the name is set.
            self.session.expect(raw).await.map_err(|e| e.with_endpoint(self.to))?;
        }
        let (mut unique, mut digests) = (raw.references(), HashSet::new());
        unique.retain(|blob| digests.insert(blob.digest().clone()));
        let planned =
            unique.iter().filter(|blob| self.counts.brought(blob.digest(), self.target) != Some(true));
        let size = planned.map(Descriptor::size).fold(0, u64::saturating_add);
        if !is_dry {
            self.options.progress.emit(Event::Planned { size });
        }
        let jobs = unique.into_iter().map(|blob| async move { self.blob(&blob).await });
        stream::iter(jobs).buffer_unordered(self.concurrency()).try_collect().await
    }

    pub(crate) fn concurrency(&self) -> usize {
        self.options.concurrency.min(self.from.concurrency()).min(self.to.push_concurrency()).max(1)
    }

    /// Compresses a layer anew and brings it to the target, once for all images of the copy.
    pub(crate) async fn recompressed(&self, recipe: &Recipe) -> Result<Descriptor> {
        let cell = self.counts.made(recipe);
        let made = cell.get_or_try_init(|| async {
            self.options.progress.emit(Event::Planned { size: recipe.layer.size() });
            let Recompressed { blob, file } = self.make(recipe).await?;
            let digest = blob.digest().clone();
            locked(&self.counts.made).recipes.insert(digest.clone(), recipe.clone());
            self.options.progress.emit(Event::Planned { size: blob.size() });
            self.moved(&blob, Some(&file)).await?;
            locked(&self.counts.brought).insert(digest);
            Ok(blob)
        });
        made.await.cloned()
    }

    async fn make(&self, recipe: &Recipe) -> Result<Recompressed> {
        let folder = self.options.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let (from, image) = (dyn_clone::clone_box(self.from), self.image.clone());
        let open = move |blob: Descriptor, range| {
            let (from, image) = (from.clone(), image.clone());
            async move { select::blob(&*from, &image, &blob, range).await }.boxed()
        };
        let (retry, progress) = (self.options.retry, self.options.progress.clone());
        let runtime = tokio::runtime::Handle::current();
        let opener = move |stop| BlobOpener { open: Box::new(open), retry, progress, runtime, stop };
        recipe.made(&folder, opener).await.map_err(|e| e.with_image(self.image).with_endpoint(self.from))
    }

    pub(crate) async fn blob(&self, blob: &Descriptor) -> Result<()> {
        self.moved(blob, None).await
    }

    /// Brings a blob to the target, if it is not there: from a file that has it, or from the source.
    async fn moved(&self, blob: &Descriptor, file: Option<&File>) -> Result<()> {
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
        let brought = self.counts.brought(digest, self.target);
        if brought == Some(true) {
            return Ok(());
        }
        if self.options.dry_run {
            return self.look(blob).await.map_err(at);
        }
        let has = || self.session.has_blob(blob);
        let is_there = brought.is_some() || self.retrying(digest.as_ref(), has).await.map_err(at)?;
        if is_there || self.mounted(blob).await {
            self.counts.present.fetch_add(blob.size(), Ordering::Relaxed);
            self.options.progress.emit(Event::BlobDone {
                digest: digest.clone(),
                size: blob.size(),
                cached: true,
            });
            return Ok(());
        }
        let at_first = self.retrying(digest.as_ref(), || self.partial(blob)).await.map_err(at)?;
        let started = self.options.progress.start(blob, at_first);
        match self.transferred(blob, file, at_first).await.map_err(at) {
            // Such a layer may exist only at its own URL, even when the descriptor lists no URL.
            Err(e) if foreign && *e.kind() == ErrorKind::NotFound => left_out(),
            outcome => {
                let moved = blob.size().saturating_sub(outcome?);
                self.counts.moved.fetch_add(moved, Ordering::Relaxed);
                self.counts.went(digest, self.target);
                started.done();
            }
        }
        Ok(())
    }

    /// Moves a blob of which so many first bytes are at the target; the byte that the last attempt began with.
    async fn transferred(&self, blob: &Descriptor, file: Option<&File>, at_first: u64) -> Result<u64> {
        let digest = blob.digest();
        let (attempt, there, asked) = (&AtomicU32::new(0), &AtomicU64::new(0), &AtomicU64::new(0));
        let put = async |from, is_whole: bool| {
            let content = self.opened(blob, file, if is_whole { 0 } else { from }).await;
            let content = content.map_err(|e| of_source(e, digest))?;
            let content = if is_whole { content.continuing(from)? } else { content };
            let attempt = attempt.fetch_add(1, Ordering::Relaxed) + 1;
            there.store(content.offset(), Ordering::Relaxed);
            let (source, begins) = (self.source_of(&content), content.offset() == 0);
            let put = self.session.put_blob(self.watched(content, attempt)?).await;
            // The target has found that these are other bytes: they came from the source.
            let is_of_source = |e: &Error| begins && e.detail::<Mismatch>().is_some();
            put.map_err(|e| if is_of_source(&e) { e.bare().with_endpoint(source) } else { e })
        };
        let put_rest = async |is_whole| {
            let is_first = attempt.load(Ordering::Relaxed) == 0;
            let from = if is_first { at_first } else { self.partial(blob).await? };
            asked.store(from, Ordering::Relaxed);
            match put(from, is_whole).await {
                // The bytes of an attempt before may have been wrong: all of it once more.
                Err(e) if from > 0 && *e.kind() == ErrorKind::Corrupt => put(0, false).await,
                // Another writer, which was asked to stop, has completed it meanwhile, or given it up.
                Err(e) if *e.kind() == ErrorKind::Unavailable && self.partial(blob).await? < from => {
                    if self.session.has_blob(blob).await? { Ok(()) } else { put(0, false).await }
                }
                outcome => outcome,
            }
        };
        match self.retrying(digest.as_ref(), || put_rest(false)).await {
            // A source that refuses parts may have the whole: what is at the target of that is passed over.
            Err(e) if may_be_of_part(&e) && self.has_part(blob, asked.load(Ordering::Relaxed)).await => {
                self.retrying(digest.as_ref(), || put_rest(true)).await?;
            }
            outcome => outcome?,
        }
        Ok(there.load(Ordering::Relaxed))
    }

    /// The content of a blob from a byte on: from a file, from the source, or made of what the source has.
    async fn opened(&self, blob: &Descriptor, file: Option<&File>, from: u64) -> Result<Blob> {
        if from == blob.size() && from > 0 {
            return Blob::ranged(blob, from..from, stream::empty());
        }
        let range = if from == 0 { BlobRange::FULL } else { BlobRange::from_start(from) };
        let reading = |e| Error::io("reading a compressed layer", e);
        let recipe = locked(&self.counts.made).recipes.get(blob.digest()).cloned();
        let mut file = match (file, recipe) {
            (Some(file), _) => reopened(file).map_err(reading)?,
            // It was at the target before; or this is another place than the one that it was brought to.
            (None, Some(recipe)) => self.make(&recipe).await?.file,
            (None, None) => {
                let fetched = self.from.fetch_blob(self.image, blob, range).await;
                return fetched.map_err(|e| e.with_endpoint(self.from));
            }
        };
        file.seek(SeekFrom::Start(from)).map_err(reading)?;
        Blob::from_reader(blob, range, file)
    }

    /// How many first bytes of a blob a copy before has left at the target.
    async fn partial(&self, blob: &Descriptor) -> Result<u64> {
        if !self.to.capabilities().partial_blobs {
            return Ok(0);
        }
        let there = self.session.partial_blob(blob).await?;
        Ok(there.min(blob.size()))
    }

    /// Whether the target has just so many first bytes of a blob: the last attempt has brought none.
    async fn has_part(&self, blob: &Descriptor, bytes: u64) -> bool {
        bytes > 0 && self.partial(blob).await.is_ok_and(|there| there == bytes)
    }

    /// Counts a blob as a copy would.
    async fn look(&self, blob: &Descriptor) -> Result<()> {
        let digest = blob.digest();
        let has = || self.to.has_blob(self.target, blob);
        let is_there = self.counts.place(digest).is_some() || self.retrying(digest.as_ref(), has).await?;
        let count = if is_there { &self.counts.present } else { &self.counts.moved };
        count.fetch_add(blob.size(), Ordering::Relaxed);
        self.counts.went(digest, self.target);
        Ok(())
    }

    /// Whether the target could take the blob from another of its repositories: that of the image, if this is on the same
    /// registry, or one to which this copy has brought it.
    async fn mounted(&self, blob: &Descriptor) -> bool {
        if !self.to.capabilities().mount {
            return false;
        }
        let is_same_registry =
            self.from.to_string() == self.to.to_string() && self.image.registry() == self.target.registry();
        let own = is_same_registry.then(|| self.image.clone());
        let is_elsewhere = |from: &Reference| {
            (from.registry(), from.repository()) != (self.target.registry(), self.target.repository())
        };
        for from in own.into_iter().chain(self.counts.place(blob.digest())).filter(is_elsewhere) {
            // A mount saves work. If it fails, the blob is pushed, and the push reports its own error.
            if self.session.mount_blob(blob, &from).await.unwrap_or(false) {
                return true;
            }
        }
        false
    }

    /// The same bytes, with progress events; verified from the first one on, else by the target.
    fn watched(&self, content: Blob, attempt: u32) -> Result<Blob> {
        let descriptor = content.descriptor().clone();
        let (digest, progress) = (descriptor.digest().clone(), self.options.progress.clone());
        let endpoint = self.source_of(&content);
        progress.emit(Event::BlobOpened { digest: digest.clone(), endpoint: endpoint.clone(), attempt });
        let (offset, mut received) = (content.offset(), content.offset());
        let told = content.unverified().map_ok(move |chunk| {
            received += chunk.len() as u64;
            progress.emit(Event::BlobProgress { digest: digest.clone(), received });
            chunk
        });
        let told = told.map_err(move |e| e.with_endpoint(&endpoint));
        Blob::ranged(&descriptor, offset..descriptor.size(), told)
    }

    /// The endpoint that serves the bytes of a blob.
    fn source_of(&self, content: &Blob) -> String {
        content.endpoint().map_or_else(|| self.from.to_string(), str::to_owned)
    }

    /// Stores documents by `attempt`, and what they need by `repair` when that is gone. `at` says of an attempt's error where it is.
    pub(super) async fn repairing<A, R>(
        &self,
        attempt: impl Fn() -> A,
        repair: impl Fn() -> R,
        at: impl Fn(Error) -> Error,
    ) -> Result<()>
    where
        A: Future<Output = Result<()>>,
        R: Future<Output = Result<()>>,
    {
        for repairs in 0.. {
            match self.retrying("manifest", &attempt).await {
                // A repair of the target has moved damaged content away since it was found or stored there.
                Err(e) if e.detail::<MissingBlob>().is_some() && repairs < REPAIRS => repair().await?,
                outcome => return outcome.map_err(at),
            }
        }
        Ok(())
    }

    pub(crate) async fn retrying<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.options.retry.run(what, &self.options.progress, attempt).await
    }
}

/// Says of a document that an index lists and the source does not have for which platform it is.
pub(super) fn of_child(error: Error, child: &Descriptor) -> Error {
    let platform = child.platform().as_ref().map(Platform::from).filter(|platform| !platform.is_unknown());
    match platform {
        Some(platform) => error.with_context("platform", platform),
        None => error,
    }
}

/// Says of what the source does not have that it is missing there.
pub(crate) fn of_source(error: Error, digest: &Digest) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error.with_detail(MissingBlob(digest.clone())),
        _ => error,
    }
}
