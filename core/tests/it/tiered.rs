//! A cache of this machine in front of one that several share.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use plyfold_core::layer::LayerTar;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, CacheProviderExt as _,
    CachedNames, Collect, Collected, Completeness, Descriptor, Digest, Error, ErrorKind, Format, Ingest,
    Input, Lease, Made, Materializer, NameChange, Page, PullOptions, PullPolicy, Reference, Result, Role,
    Sink, Tiered, Usage, Verified, Verify, digest, pull,
};

use crate::fixture::{AMD64, Fault, Scripted, layer, name, options, put_image};

/// A cache that counts what it is asked, and cannot always be reached.
#[derive(Clone, Debug)]
struct Distant {
    cache: MemoryCache,
    unreachable: Unreachable,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: AtomicUsize,
    is_down: AtomicBool,
    /// The next large blob ends early, and nothing is answered from then on.
    breaks: AtomicBool,
}

impl Distant {
    fn new() -> Self {
        let (cache, state) = (MemoryCache::new().unwrap(), Arc::default());
        Self { cache, unreachable: Unreachable, state }
    }

    fn reached(&self) -> &dyn CacheProvider {
        self.state.requests.fetch_add(1, Ordering::Relaxed);
        if self.state.is_down.load(Ordering::Relaxed) { &self.unreachable } else { &self.cache }
    }

    fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }

    fn set_down(&self, is_down: bool) {
        self.state.is_down.store(is_down, Ordering::Relaxed);
    }
}

plyfold_core::forward_cache! {
    Distant, |distant| distant.reached();
    async stat(digest: &Digest) -> Result<Option<u64>>;
    async is_away(digest: &Digest) -> Result<bool>;
    async ingest(blob: &Descriptor) -> Result<Ingest>;
    async partial(digest: &Digest) -> Result<u64>;
    async quarantine(digest: &Digest) -> Result<()>;
    async find_descriptor(reference: &Reference) -> Result<Option<Descriptor>>;
    async list() -> Result<Vec<(Reference, Descriptor)>>;
    async update(changes: &[NameChange]) -> Result<()>;
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
    sync layout() -> Option<&Path>;
    sync scratch() -> Option<PathBuf>;
    {
        async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
            if blob.size() < 1 << 20 || !self.state.breaks.load(Ordering::Relaxed) {
                return self.reached().open(blob, range).await;
            }
            let start = range.resolve(blob.size())?.start;
            let head = self.reached().open(blob, BlobRange::new(start, start + 1000)).await?;
            self.set_down(true);
            let broken = stream::iter([unreachable()]);
            Blob::ranged(blob, start..blob.size(), head.chain(broken))
        }

        fn is_read_only(&self) -> bool {
            false
        }
    }
}

impl fmt::Display for Distant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("distant:")
    }
}

/// A cache that does not answer.
#[derive(Clone, Debug)]
struct Unreachable;

fn unreachable<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unavailable, "connection refused"))
}

#[async_trait]
impl CacheProvider for Unreachable {
    async fn stat(&self, _: &Digest) -> Result<Option<u64>> {
        unreachable()
    }

    async fn open(&self, _: &Descriptor, _: BlobRange) -> Result<Blob> {
        unreachable()
    }

    async fn ingest(&self, _: &Descriptor) -> Result<Ingest> {
        unreachable()
    }

    async fn quarantine(&self, _: &Digest) -> Result<()> {
        unreachable()
    }

    async fn find_descriptor(&self, _: &Reference) -> Result<Option<Descriptor>> {
        unreachable()
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        unreachable()
    }

    async fn update(&self, _: &[NameChange]) -> Result<()> {
        unreachable()
    }

    async fn artifact(&self, _: &ArtifactKey) -> Result<Artifact> {
        unreachable()
    }

    async fn lease(&self, _: &[Digest]) -> Result<Lease> {
        unreachable()
    }

    async fn single_flight(&self, _: &str) -> Result<Lease> {
        unreachable()
    }

    async fn verify(&self, _: &Verify) -> Result<Verified> {
        unreachable()
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unreachable:")
    }
}

/// The tar of a layer; counts how often it is made.
#[derive(Clone, Debug, Default)]
struct Counted(Arc<AtomicUsize>);

impl Materializer for Counted {
    fn format(&self) -> Format {
        Format { name: "counted", version: 1, options: String::new(), extension: "tar" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut copy = out.scratch()?;
        tar.copy_to(copy.try_clone().unwrap())?;
        tar.finish()?;
        std::io::Seek::rewind(&mut copy).unwrap();
        std::io::copy(&mut copy, &mut out.output(Role::Image)?).unwrap();
        Ok(Made::default())
    }
}

fn converting(format: &Counted) -> PullOptions {
    PullOptions { materializer: Some(Box::new(format.clone())), ..options(PullPolicy::IfMissing) }
}

/// A machine: its own tier, in front of the shared one.
struct Node {
    near: MemoryCache,
    cache: Tiered,
}

impl Node {
    fn before(far: &Distant) -> Self {
        let near = MemoryCache::new().unwrap();
        let cache = Tiered::new(Box::new(near.clone()), Box::new(far.clone()));
        Self { near, cache }
    }
}

/// A registry with an image of two layers, one of them of more than a piece of an artifact.
fn image() -> (Scripted, Reference, Vec<Digest>) {
    let (registry, image) = (MemoryRegistry::new("a"), name("example.com/app:1"));
    let layers = [layer("a", 100), layer("b", 3 << 20)];
    let (_, digests) = put_image(&registry, &image, ("linux", "amd64"), &layers);
    (Scripted::new(&registry, &[]), image, digests)
}

async fn is_whole(cache: &dyn CacheProvider, image: &Reference) -> bool {
    cache.completeness(image, &AMD64.parse().unwrap()).await.unwrap() == Completeness::Complete
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_asks_no_registry_and_converts_nothing() {
    let (far, (registry, image, digests)) = (Distant::new(), image());
    let (first, format) = (Node::before(&far), Counted::default());
    let made = pull(&registry, &image, &first.cache, &converting(&format)).await.unwrap();
    assert!(is_whole(&first.near, &image).await && is_whole(&far.cache, &image).await);
    assert_eq!((registry.layer_reads(), format.0.load(Ordering::SeqCst)), (2, 2));

    let (second, before) = (Node::before(&far), registry.requests());
    for policy in [PullPolicy::Never, PullPolicy::IfMissing] {
        let options = PullOptions { policy, ..converting(&format) };
        let pulled = pull(&registry, &image, &second.cache, &options).await.unwrap();
        assert_eq!(pulled.manifest.digest(), made.manifest.digest());
        for (layer, of_first) in pulled.layers.iter().zip(&made.layers) {
            let (ours, theirs) = (layer.artifact.as_ref().unwrap(), of_first.artifact.as_ref().unwrap());
            let ours = std::fs::read(ours.path().expect("a file of this machine")).unwrap();
            assert!(ours == std::fs::read(theirs.path().unwrap()).unwrap(), "{}", layer.descriptor.digest());
        }
    }
    assert_eq!((registry.requests(), format.0.load(Ordering::SeqCst)), (before, 2));
    assert!(is_whole(&second.near, &image).await);
    for digest in &digests {
        assert!(second.near.stat(digest).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn what_is_here_needs_no_request() {
    let (far, (registry, image, _)) = (Distant::new(), image());
    let (node, format) = (Node::before(&far), Counted::default());
    pull(&registry, &image, &node.cache, &converting(&format)).await.unwrap();
    let before = (far.requests(), registry.requests());
    for policy in [PullPolicy::IfMissing, PullPolicy::Never] {
        let options = PullOptions { policy, ..converting(&format) };
        assert!(pull(&registry, &image, &node.cache, &options).await.unwrap().cached);
    }
    assert_eq!((far.requests(), registry.requests()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_machines_download_and_convert_once() {
    let (far, (registry, image, digests)) = (Distant::new(), image());
    let format = Counted::default();
    let nodes: Vec<Node> = (0..8).map(|_| Node::before(&far)).collect();
    let pulls = nodes.iter().map(|node| async {
        pull(&registry, &image, &node.cache, &converting(&format)).await.unwrap();
    });
    join_all(pulls).await;
    for digest in &digests {
        assert_eq!(registry.reads_of(digest), 1, "{digest}");
    }
    assert_eq!(format.0.load(Ordering::SeqCst), digests.len());
    for node in &nodes {
        assert!(is_whole(&node.near, &image).await);
    }
}

#[tokio::test]
async fn a_far_tier_that_cannot_be_reached_is_left_alone() {
    let (far, (registry, image, _)) = (Distant::new(), image());
    let node = Node::before(&far);
    far.set_down(true);
    pull(&registry, &image, &node.cache, &options(PullPolicy::IfMissing)).await.unwrap();
    assert_eq!(far.requests(), 1, "it is not asked again");
    assert!(is_whole(&node.near, &image).await);

    // Another machine, and another time: what was not published is sent with the next name.
    far.set_down(false);
    let later = Tiered::new(Box::new(node.near.clone()), Box::new(far.clone()));
    let top = later.find_descriptor(&image).await.unwrap().unwrap();
    let other = name("example.com/app:2");
    later.update(&[NameChange::Set(other.clone(), top)]).await.unwrap();
    assert!(is_whole(&far.cache, &other).await);
    assert_eq!(far.cache.find_descriptor(&image).await.unwrap(), None);
    later.update(&[NameChange::Pin(image.clone())]).await.unwrap();
    assert!(is_whole(&far.cache, &image).await, "a name that is pinned is there, too");
}

#[tokio::test]
async fn a_far_tier_that_goes_in_a_transfer_is_replaced_by_the_registry() {
    let (far, (registry, image, digests)) = (Distant::new(), image());
    pull(&registry, &image, &Node::before(&far).cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let (node, before) = (Node::before(&far), registry.log.blobs.lock().unwrap().len());
    far.state.breaks.store(true, Ordering::Relaxed);
    pull(&registry, &image, &node.cache, &options(PullPolicy::IfMissing)).await.unwrap();
    assert!(is_whole(&node.near, &image).await);
    let read: Vec<BlobRange> = {
        let log = registry.log.blobs.lock().unwrap();
        log[before..].iter().filter(|(digest, _)| *digest == digests[1]).map(|(_, range)| *range).collect()
    };
    assert_eq!(read.last(), Some(&BlobRange::from_start(1000)), "the rest of it");
}

#[tokio::test]
async fn what_is_damaged_in_the_far_tier_is_fetched_and_replaced() {
    let (far, (registry, image, digests)) = (Distant::new(), image());
    pull(&registry, &image, &Node::before(&far).cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let size = far.cache.stat(&digests[1]).await.unwrap().unwrap();
    let mut flipped = layer("b", 3 << 20);
    flipped[1 << 20] ^= 1;
    let truncated = layer("b", 3 << 20)[..1000].to_vec();
    for damaged in [flipped, truncated] {
        far.cache.insert_blob(digests[1].clone(), damaged);
        let (node, before) = (Node::before(&far), registry.reads_of(&digests[1]));
        pull(&registry, &image, &node.cache, &options(PullPolicy::IfMissing)).await.unwrap();
        assert_eq!(registry.reads_of(&digests[1]), before + 1);
        let blob = Descriptor::new("application/octet-stream".into(), size, digests[1].clone());
        for tier in [&node.near, &far.cache] {
            tier.verify_blob(&blob).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_read_stores_what_it_reads() {
    let far = Distant::new();
    let content = b"content of the fleet".to_vec();
    let digest = digest::sha256(&content);
    far.cache.insert_blob(digest.clone(), content.clone());
    let (node, blob) =
        (Node::before(&far), Descriptor::new("a/b".into(), content.len() as u64, digest.clone()));
    let part = node.cache.open(&blob, BlobRange::new(11, 14)).await.unwrap();
    assert_eq!(part.bytes(3).await.unwrap(), "the");
    assert_eq!(node.near.stat(&digest).await.unwrap(), None, "a range is read without the rest");
    assert!(node.cache.is_away(&digest).await.unwrap());
    let whole = node.cache.open(&blob, BlobRange::FULL).await.unwrap();
    assert_eq!(whole.bytes(100).await.unwrap(), content);
    assert_eq!(node.near.stat(&digest).await.unwrap(), Some(blob.size()));
    assert!(!node.cache.is_away(&digest).await.unwrap());
    // What is wrong is no content of either.
    far.cache.insert_blob(digest::sha256(b"other"), b"wrong".to_vec());
    let wrong = Descriptor::new("a/b".into(), 5, digest::sha256(b"other"));
    let read = node.cache.open(&wrong, BlobRange::FULL).await.unwrap().bytes(100).await;
    assert_eq!(*read.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(node.near.stat(wrong.digest()).await.unwrap(), None);
}

#[tokio::test]
async fn the_near_tier_says_what_a_name_stands_for() {
    let far = Distant::new();
    let (one, two) = (Node::before(&far), Node::before(&far));
    let (registry, image) = (MemoryRegistry::new("a"), name("example.com/app:1"));
    let (first, _) = put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 10)]);
    pull(&registry, &image, &one.cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let (second, _) = put_image(&registry, &image, ("linux", "amd64"), &[layer("b", 10)]);
    pull(&registry, &image, &two.cache, &options(PullPolicy::Always)).await.unwrap();
    let of = |node: &Node| {
        let (cache, image) = (node.cache.clone(), image.clone());
        async move { cache.find_descriptor(&image).await.unwrap().unwrap().digest().clone() }
    };
    assert_eq!((of(&one).await, of(&two).await), (first.clone(), second.clone()));
    assert_eq!(*far.find_descriptor(&image).await.unwrap().unwrap().digest(), second);
    assert_eq!(one.cache.list().await.unwrap().len(), 1);

    // Content of the far tier alone: the name is answered by it from now on.
    let top = two.cache.find_descriptor(&image).await.unwrap().unwrap();
    one.cache.update(&[NameChange::Set(image.clone(), top)]).await.unwrap();
    assert_eq!(of(&one).await, second);
    assert_eq!(one.near.find_descriptor(&image).await.unwrap(), None);

    one.cache.update(&[NameChange::Remove(image.clone())]).await.unwrap();
    assert_eq!(one.cache.find_descriptor(&image).await.unwrap(), None);
    assert_eq!(of(&two).await, second, "another machine goes on with its own");
    let missing = Descriptor::new("a/b".into(), 3, digest::sha256(b"xyz"));
    let refused = one.cache.update(&[NameChange::Set(image.clone(), missing)]).await;
    assert_eq!(*refused.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(one.cache.find_descriptor(&image).await.unwrap(), None);
}

#[tokio::test]
async fn pages_have_the_names_of_both_tiers() {
    let (far, content) = (Distant::new(), b"listed".to_vec());
    let (node, digest) = (Node::before(&far), digest::sha256(&content));
    let top = Descriptor::new("a/b".into(), content.len() as u64, digest.clone());
    far.cache.insert_blob(digest.clone(), content.clone());
    node.near.insert_blob(digest, content);
    for number in 0..12 {
        let set = [NameChange::Set(name(&format!("example.com/app:{number:02}")), top.clone())];
        if number % 3 != 1 {
            node.near.update(&set).await.unwrap();
        }
        if number % 3 != 2 {
            far.cache.update(&set).await.unwrap();
        }
    }
    let all = node.cache.list().await.unwrap();
    assert_eq!(all.len(), 12);
    for limit in [None, Some(1), Some(2), Some(5), Some(12), Some(100)] {
        let (mut found, mut page) = (Vec::new(), Page { limit, after: None });
        loop {
            let part = node.cache.list_page(&page).await.unwrap();
            assert!(part.names.len() <= limit.unwrap_or(usize::MAX));
            found.extend(part.names);
            page.after = part.next;
            if page.after.is_none() {
                break;
            }
        }
        assert_eq!(found, all, "{limit:?} on a page");
    }
}

#[tokio::test]
async fn a_transfer_that_was_suspended_goes_on_from_the_far_tier() {
    let (far, (_, image, digests)) = (Distant::new(), image());
    let (registry, _, _) = self::image();
    let node = Node::before(&far);
    // The registry breaks for good in the middle of the large layer.
    let broken: Vec<Fault> = (0..100).map(|_| Fault::Refuses).collect();
    let inner = MemoryRegistry::new("a");
    put_image(&inner, &image, ("linux", "amd64"), &[layer("a", 100), layer("b", 3 << 20)]);
    let faults: Vec<Fault> = [Fault::Breaks(1 << 20)].into_iter().chain(broken).collect();
    let failing = Scripted::new(&inner, &faults);
    pull(&failing, &image, &node.cache, &options(PullPolicy::IfMissing)).await.unwrap_err();
    assert!(node.cache.partial(&digests[1]).await.unwrap() > 0);
    // Another machine has it by now.
    pull(&registry, &image, &Node::before(&far).cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let before = failing.requests();
    pull(&failing, &image, &node.cache, &options(PullPolicy::IfMissing)).await.unwrap();
    assert_eq!(failing.requests(), before);
    assert!(is_whole(&node.near, &image).await);
}
