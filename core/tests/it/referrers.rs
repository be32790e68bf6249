//! Copies and loads of what refers to an image: how much work they are, and where they end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use plyfold_core::cache::{CachedNames, Ingest, Lease, MissingContent, NameChange, Usage, Verified, Verify};
use plyfold_core::manifest::limits;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::progress::{Event, Progress};
use plyfold_core::save::{Contents, SaveImage, SaveOptions};
use plyfold_core::{
    Advice, Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, CacheProviderExt,
    Capabilities, Collect, Collected, CopyOptions, Descriptor, Digest, Error, ErrorKind, ImageRegistry,
    LoadOptions, MediaType, Opened, Page, RawManifest, Reference, Result, copy, digest, reference,
};
use serde_json::{Value, json};

use crate::fixture::{AMD64, descriptor, index_of, layer, name, put_image};

/// A cache that counts what is asked of it.
#[derive(Clone, Debug)]
struct Counting {
    inner: MemoryCache,
    /// Blobs that were read, and changes of names.
    opened: Arc<AtomicUsize>,
    updated: Arc<AtomicUsize>,
}

plyfold_core::forward_cache! {
    Counting, |cache| cache.inner;
    async stat(digest: &Digest) -> Result<Option<u64>>;
    async is_away(digest: &Digest) -> Result<bool>;
    async ingest(blob: &Descriptor) -> Result<Ingest>;
    async partial(digest: &Digest) -> Result<u64>;
    async quarantine(digest: &Digest) -> Result<()>;
    async find_descriptor(reference: &Reference) -> Result<Option<Descriptor>>;
    async list() -> Result<Vec<(Reference, Descriptor)>>;
    async artifact(key: &ArtifactKey) -> Result<Artifact>;
    async find_artifact(key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>>;
    async lease(content: &[Digest]) -> Result<Lease>;
    async single_flight(work: &str) -> Result<Lease>;
    async free() -> Result<Option<u64>>;
    async pins() -> Result<Vec<Reference>>;
    async usage() -> Result<Usage>;
    async collect(policy: &Collect) -> Result<Collected>;
    async verify(what: &Verify) -> Result<Verified>;
    async list_page(page: &Page) -> Result<CachedNames>;
    async settle() -> ();
    sync layout() -> Option<&std::path::Path>;
    sync scratch() -> Option<std::path::PathBuf>;
    sync is_read_only() -> bool;
    {
        async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            self.inner.open(blob, range).await
        }

        async fn update(&self, changes: &[NameChange]) -> Result<()> {
            self.updated.fetch_add(1, Ordering::Relaxed);
            self.inner.update(changes).await
        }
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Counting {
    fn new() -> Self {
        Self { inner: MemoryCache::new().unwrap(), opened: Arc::default(), updated: Arc::default() }
    }
}

const IMAGE: &str = "example.com/app:1";

/// An artifact that refers to `subject`, as a manifest.
fn artifact(registry: &MemoryRegistry, subject: &Descriptor, number: usize) -> RawManifest {
    artifact_of(registry, subject, number, &[])
}

/// The same with these layers, which are not put there.
fn artifact_of(
    registry: &MemoryRegistry,
    subject: &Descriptor,
    number: usize,
    layers: &[Value],
) -> RawManifest {
    let config = b"{}";
    registry.insert_blob(&name(IMAGE), digest::sha256(config), &config[..]);
    let subject: Value = serde_json::to_value(subject).unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
        "artifactType": "application/vnd.example.note",
        "config": descriptor("application/vnd.oci.empty.v1+json", config), "layers": layers,
        "subject": { "mediaType": subject["mediaType"], "digest": subject["digest"], "size": subject["size"] },
        "annotations": { "number": number.to_string() },
    });
    RawManifest::new(manifest.to_string(), None).unwrap()
}

fn put(registry: &MemoryRegistry, raw: &RawManifest) {
    let at = reference::by_digest(&name(IMAGE), raw.digest());
    registry.insert_manifest(&at, MediaType::ImageManifest, raw.digest(), raw.bytes().clone());
}

/// An image, and its manifest.
async fn image(registry: &MemoryRegistry) -> Descriptor {
    put_image(registry, &name(IMAGE), ("linux", "amd64"), &[layer("a", 10)]);
    registry.resolve(&name(IMAGE)).await.unwrap()
}

/// The cost of one load into a new cache; what refers to `subjects` is as many as given.
async fn cost(registry: MemoryRegistry, subjects: &[(Descriptor, usize)]) -> (usize, usize) {
    let (cache, opened) =
        (Counting::new(), Opened { registry: Box::new(registry), reference: Some(name(IMAGE)) });
    cache.image_load(&opened, &LoadOptions::default()).await.unwrap();
    let cost = (cache.opened.load(Ordering::Relaxed), cache.updated.load(Ordering::Relaxed));
    for (subject, count) in subjects {
        let listed = cache.as_registry().referrers(&name(IMAGE), subject.digest(), None).await.unwrap();
        assert_eq!(listed.len(), *count);
    }
    cost
}

/// The list is written once, and what it has already is not read again for each that is added.
#[tokio::test]
async fn a_load_of_many_referrers_is_linear_work() {
    let mut costs = Vec::new();
    for count in [50, 100] {
        let registry = MemoryRegistry::new("wide");
        let subject = image(&registry).await;
        for number in 0..count {
            put(&registry, &artifact(&registry, &subject, number));
        }
        costs.push(cost(registry, &[(subject, count)]).await);
    }
    let [(fewer, once), (more, again)] = costs[..] else { unreachable!() };
    assert_eq!((once, again), (1, 1), "the image's name, and the list's");
    assert!(more <= 2 * fewer, "{more} blobs are read of twice as many, not {fewer}");
}

#[tokio::test]
async fn a_chain_of_referrers_is_followed_to_its_end() {
    let registry = MemoryRegistry::new("chain");
    let mut subjects = vec![image(&registry).await];
    for number in 0..40 {
        let raw = artifact(&registry, &subjects[number], number);
        put(&registry, &raw);
        subjects.push(raw.descriptor().clone());
    }
    let target = MemoryRegistry::new("target");
    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    copy(&registry, &name(IMAGE), &target, &name(IMAGE), &options).await.unwrap();
    let last = subjects.pop().unwrap();
    assert_eq!(
        target.resolve(&reference::by_digest(&name(IMAGE), last.digest())).await.unwrap().size(),
        last.size()
    );

    let subjects: Vec<_> = subjects.into_iter().map(|subject| (subject, 1)).chain([(last, 0)]).collect();
    let (read, updated) = cost(registry, &subjects).await;
    assert_eq!(updated, 1, "the image and all lists get their names together");
    assert!(read <= 8 * subjects.len(), "{read} blobs are read for {} documents", subjects.len());
}

/// A registry may make up one more for each that is asked for.
#[tokio::test]
async fn a_chain_of_referrers_without_end_is_an_error() {
    let registry = MemoryRegistry::new("chain");
    let mut subject = image(&registry).await;
    for number in 0..=limits::REFERRERS {
        let raw = artifact(&registry, &subject, number);
        put(&registry, &raw);
        subject = raw.descriptor().clone();
    }
    let target = MemoryRegistry::new("target");
    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    let error = copy(&registry, &name(IMAGE), &target, &name(IMAGE), &options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.context("image").is_some() && error.context("endpoint").is_some(), "{error:?}");
}

/// A registry that lists what it likes as referrers of everything: one document, of itself too, or else three more each time.
#[derive(Clone, Debug)]
struct MadeUp {
    inner: MemoryRegistry,
    listed: Option<Descriptor>,
    /// How often it was asked.
    asked: Arc<AtomicUsize>,
}

impl MadeUp {
    fn new(inner: MemoryRegistry, listed: Option<Descriptor>) -> Self {
        Self { inner, listed, asked: Arc::default() }
    }
}

#[async_trait]
impl ImageRegistry for MadeUp {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.inner.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.inner.blob(reference, blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        _: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(listed) = &self.listed {
            return Ok(vec![listed.clone()]);
        }
        let subject = self.inner.resolve(&reference::by_digest(reference, subject)).await?;
        let more = (0..3).map(|number| {
            let raw = artifact(&self.inner, &subject, 3 * asked + number);
            put(&self.inner, &raw);
            raw.descriptor().clone()
        });
        Ok(more.collect())
    }
}

impl fmt::Display for MadeUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[tokio::test]
async fn a_circle_of_referrers_ends() {
    let registry = MemoryRegistry::new("circle");
    let subject = image(&registry).await;
    let raw = artifact(&registry, &subject, 0);
    put(&registry, &raw);
    let circle = MadeUp::new(registry, Some(raw.descriptor().clone()));
    let target = MemoryRegistry::new("target");
    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    copy(&circle, &name(IMAGE), &target, &name(IMAGE), &options).await.unwrap();
    assert_eq!(circle.asked.load(Ordering::Relaxed), 2);
}

/// A document about another image, or about none, is not copied as one about this image, whatever a registry lists.
#[tokio::test]
async fn what_refers_to_something_else_is_refused() {
    let registry = MemoryRegistry::new("planted");
    image(&registry).await;
    let other = descriptor("application/vnd.oci.image.manifest.v1+json", b"another image");
    let other: Descriptor = serde_json::from_value(other).unwrap();
    let planted = artifact(&registry, &other, 0);
    put(&registry, &planted);
    let planted = MadeUp::new(registry, Some(planted.descriptor().clone()));
    let target = MemoryRegistry::new("target");
    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    let error = copy(&planted, &name(IMAGE), &target, &name(IMAGE), &options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(other.digest().as_ref()), "{error}");
    assert!(target.referrers(&name(IMAGE), other.digest(), None).await.unwrap().is_empty());
    let image = SaveImage::new(Box::new(planted.clone()), name(IMAGE));
    let saving = SaveOptions { referrers: true, ..SaveOptions::default() };
    assert_eq!(*Contents::of(vec![image], &saving).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let cache = MemoryCache::new().unwrap();
    let opened = Opened { registry: Box::new(planted), reference: Some(name(IMAGE)) };
    let error = cache.image_load(&opened, &LoadOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), (&ErrorKind::Corrupt, Some(&Advice::LeaveReferrers)));
    assert_eq!(cache.find_descriptor(&name(IMAGE)).await.unwrap(), None);
}

/// Where one image of an index is saved, what refers to the index stays behind, and that is said.
#[tokio::test]
async fn what_refers_to_an_index_that_is_not_saved_is_told() {
    let registry = MemoryRegistry::new("a");
    let (arm64, amd64) = ([layer("arm64", 10)], [layer("amd64", 10)]);
    index_of(&registry, &name(IMAGE), &[("arm64", &arm64), ("amd64", &amd64)]).await;
    let index = registry.resolve(&name(IMAGE)).await.unwrap();
    put(&registry, &artifact(&registry, &index, 0));
    for (platforms, is_told) in [(vec![], false), (vec![AMD64.parse().unwrap()], true)] {
        let image = SaveImage::new(Box::new(registry.clone()), name(IMAGE));
        let (progress, mut events) = Progress::channel();
        let saving = SaveOptions { platforms, progress, referrers: true, ..SaveOptions::default() };
        drop(Contents::of(vec![image], &saving).await.unwrap());
        drop(saving);
        let mut told = Vec::new();
        while let Some(event) = events.next().await {
            if let Event::Warning { message } = event {
                told.push(message);
            }
        }
        assert_eq!(
            told.iter().any(|message| message.contains("it refers to the index")),
            is_told,
            "{told:?}"
        );
    }
}

/// What the source lists and does not have is named at the end, and all else is copied.
#[tokio::test]
async fn what_is_missing_of_the_referrers_is_named() {
    let registry = MemoryRegistry::new("incomplete");
    let subject = image(&registry).await;
    let without_layer = artifact_of(&registry, &subject, 0, &[descriptor("text/plain", b"missing")]);
    let (missing, sound) = (artifact(&registry, &subject, 1), artifact(&registry, &subject, 2));
    for raw in [&without_layer, &missing, &sound] {
        put(&registry, raw);
    }
    let lost = Altered { inner: registry, lost: Some(missing.digest().clone()), untagged: Vec::new() };
    let target = MemoryRegistry::new("target");
    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    let error = copy(&lost, &name(IMAGE), &target, &name(IMAGE), &options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    for digest in [&digest::sha256(b"missing"), missing.digest()] {
        assert!(error.to_string().contains(digest.as_ref()), "{error}");
    }
    assert_eq!(target.resolve(&name(IMAGE)).await.unwrap().digest(), subject.digest());
    let listed = target.referrers(&name(IMAGE), subject.digest(), None).await.unwrap();
    assert_eq!(listed.iter().map(Descriptor::digest).collect::<Vec<_>>(), [sound.digest()]);

    // A load says so, too, and brings nothing; without them the image is complete.
    let cache = MemoryCache::new().unwrap();
    let opened = Opened { registry: Box::new(lost), reference: Some(name(IMAGE)) };
    let error = cache.image_load(&opened, &LoadOptions::default()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.advice()),
        (&ErrorKind::NotFound, Some(&Advice::LeaveReferrers)),
        "{error}"
    );
    let mut digests: Vec<_> =
        error.detail::<MissingContent>().unwrap().0.iter().map(Descriptor::digest).collect();
    digests.sort_by_key(ToString::to_string);
    let mut expected = [&digest::sha256(b"missing"), missing.digest()];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(digests, expected);
    assert_eq!((cache.list().await.unwrap(), cache.usage().await.unwrap().blobs), (Vec::new(), 0));
    let without = LoadOptions { referrers: false, ..LoadOptions::default() };
    assert_eq!(cache.image_load(&opened, &without).await.unwrap().len(), 1);
}

/// A registry that lists a document which it does not have, and images without a name.
#[derive(Clone, Debug)]
struct Altered {
    inner: MemoryRegistry,
    lost: Option<Digest>,
    untagged: Vec<Reference>,
}

#[async_trait]
impl ImageRegistry for Altered {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        if self.lost.as_ref().is_some_and(|lost| reference.digest() == Some(lost.as_ref())) {
            return Err(Error::not_found("no such manifest"));
        }
        self.inner.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.inner.blob(reference, blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn untagged(&self) -> Result<Vec<Reference>> {
        Ok(self.untagged.clone())
    }

    async fn repositories(&self, page: Page) -> Result<plyfold_core::Names> {
        self.inner.repositories(page).await
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<plyfold_core::Names> {
        self.inner.tags(repository, page).await
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        self.inner.referrers(reference, subject, artifact_type).await
    }
}

impl fmt::Display for Altered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// What refers to an image comes with it, and is not loaded as an image of its own.
#[tokio::test]
async fn a_referrer_without_a_name_is_loaded_once() {
    let registry = MemoryRegistry::new("untagged");
    let subject = image(&registry).await;
    let absent = Descriptor::new(MediaType::ImageManifest, 2, digest::sha256(b"{}"));
    let mut untagged = Vec::new();
    for (number, subject) in [&subject, &absent].into_iter().enumerate() {
        let raw = artifact(&registry, subject, number);
        put(&registry, &raw);
        untagged.push(reference::by_digest(&name(IMAGE), raw.digest()));
    }
    let alone = untagged[1].clone();
    let altered = Altered { inner: registry, lost: None, untagged };
    let opened = Opened { registry: Box::new(altered), reference: None };
    let cache = MemoryCache::new().unwrap();
    let loaded = cache.image_load(&opened, &LoadOptions::default()).await.unwrap();
    let loaded: Vec<&Reference> = loaded.iter().map(|image| &image.reference).collect();
    assert_eq!(loaded, [&name(IMAGE), &alone], "of which one has a name");
}

/// The sum is bounded, however few refer to each.
#[tokio::test]
async fn referrers_that_grow_without_end_are_an_error() {
    let registry = MemoryRegistry::new("growing");
    image(&registry).await;
    let growing = MadeUp::new(registry, None);
    let options = CopyOptions { referrers: true, dry_run: true, ..CopyOptions::default() };
    let target = MemoryRegistry::new("target");
    let copied = copy(&growing, &name(IMAGE), &target, &name(IMAGE), &options).await;
    let image = SaveImage::new(Box::new(growing.clone()), name(IMAGE));
    let options = SaveOptions { referrers: true, ..SaveOptions::default() };
    let saved = Contents::of(vec![image], &options).await.map(drop);
    let opened = Opened { registry: Box::new(growing.clone()), reference: Some(name(IMAGE)) };
    let cache = MemoryCache::new().unwrap();
    let loaded = cache.image_load(&opened, &LoadOptions::default()).await.map(drop);
    for (what, outcome) in [("copy", copied.map(drop)), ("save", saved), ("load", loaded)] {
        let error = outcome.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Limit, "{what}: {error}");
        assert_eq!(error.advice(), Some(&Advice::LeaveReferrers), "{what}: {error:?}");
    }
    let made = 3 * growing.asked.load(Ordering::Relaxed);
    assert!(made <= 3 * (limits::ALL_REFERRERS + 4), "{made} were asked for");
}
