//! Many machines, each with a cache of its own in front of one bucket: what they ask the registry and the service for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::server::FaultServer;
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    CacheProvider as _, CacheProviderExt as _, Completeness, Platform, PullOptions, PullPolicy, Reference,
    Tiered, pull, reference,
};
use plyfold_erofs::ErofsLayer;
use plyfold_registry::{Config, Registry};

use crate::medium::Medium;
use crate::wrapped::{Fault, Wrapped};

const NODES: usize = 40;
const IMAGES: usize = 10;

/// Requests of a machine for an image of three layers that is in the bucket, with its artifacts: two for each of five blobs and
/// three artifacts, looks for them, the name, the lease and the right to pull it.
const MOST_OF_A_PULL: usize = 60;

/// Images in a registry: each has a layer that all have, and two of its own.
struct Images {
    registry: FaultServer,
    samples: Vec<Sample>,
}

impl Images {
    fn new() -> Self {
        let registry = FaultServer::start().unwrap();
        let layer =
            |name: &str| LayerBuilder::new().file(name, 0o644, &name.as_bytes().repeat(5000)).finish();
        let base = layer("a file of the base of all");
        let image = |number: usize| {
            let name = format!("image-{number}");
            let layers = [base.clone(), layer(&format!("{name}-middle")), layer(&format!("{name}-top"))];
            let sample = samples::of_layers("of a fleet", &layers);
            registry.put("library/app", &number.to_string(), &sample);
            sample
        };
        let samples = (0..IMAGES).map(image).collect();
        Self { registry, samples }
    }

    fn name(&self, number: usize) -> Reference {
        reference::parse(&format!("{}/library/app:{number}", self.registry.host())).unwrap()
    }
}

/// A machine.
struct Node {
    near: MemoryCache,
    tiers: Tiered,
    registry: Registry,
}

impl Node {
    async fn new(medium: &Medium, images: &Images) -> Self {
        let (near, far) = (MemoryCache::new().unwrap(), medium.cache().await.unwrap());
        let tiers = Tiered::new(Box::new(near.clone()), Box::new(far));
        let config = Config { anonymous: true, ..Config::default() };
        Self { near, tiers, registry: Registry::new(images.registry.host(), &config).unwrap() }
    }

    async fn pull(&self, image: &Reference, policy: PullPolicy) {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let options = PullOptions {
            materializer: Some(Box::new(ErofsLayer::default())),
            platform: platform.clone(),
            policy,
            ..PullOptions::default()
        };
        let pulled = pull(&self.registry, image, &self.tiers, &options).await.unwrap();
        assert!(pulled.layers.iter().all(|layer| layer.artifact.is_some()));
        drop(pulled);
        let here = self.near.completeness(image, &platform).await.unwrap();
        assert_eq!(here, Completeness::Complete, "{image}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_share_downloads_and_conversions_and_ask_for_little() {
    let (images, requests) = (Images::new(), Arc::new(AtomicUsize::new(0)));
    let memory = Medium::memory();
    let store = Wrapped::around(memory.store.clone(), Fault::Counts(requests.clone()));
    let medium = Medium { store, ..memory.clone() };
    let counted = || requests.load(Ordering::SeqCst);

    // All at once, each machine from another image on.
    let nodes = join_all((0..NODES).map(|_| Node::new(&medium, &images))).await;
    let before = counted();
    let pulls = nodes.iter().enumerate().map(|(first, node)| {
        let images = &images;
        async move {
            for number in 0..IMAGES {
                node.pull(&images.name((first + number) % IMAGES), PullPolicy::IfMissing).await;
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(120), join_all(pulls)).await.expect("no machine waits for long");
    let together = counted() - before;
    for sample in &images.samples {
        for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
            let served = images.registry.served(blob.descriptor.digest());
            assert_eq!(served.requests, 1, "{:?} was downloaded once", blob.descriptor);
        }
    }
    // Each attempt to make one has an object of its own.
    let objects = memory.objects();
    let made = objects.iter().filter(|(path, _)| path.starts_with("data/artifacts/")).count();
    assert_eq!(made, 2 * IMAGES + 1, "each layer was converted once");

    // A machine that comes later.
    let late = Node::new(&medium, &images).await;
    let before = counted();
    for number in 0..IMAGES {
        late.pull(&images.name(number), PullPolicy::IfMissing).await;
    }
    let late_pull = (counted() - before).div_ceil(IMAGES);
    assert!(late_pull <= MOST_OF_A_PULL, "{late_pull} requests for an image that is in the bucket");
    let pull = together.div_ceil(NODES * IMAGES);
    assert!(pull <= 2 * MOST_OF_A_PULL, "{pull} requests for an image that all want at once");

    // What is here needs none, nor a registry.
    let names: Vec<Reference> = (0..IMAGES).map(|number| images.name(number)).collect();
    drop(images);
    late.tiers.settle().await;
    let before = counted();
    for name in &names {
        late.pull(name, PullPolicy::Never).await;
    }
    assert_eq!(counted(), before);
    // For the figures of the manual: `cargo test -- --nocapture`.
    std::io::Write::write_all(
        &mut std::io::stdout(),
        format!("requests: {pull} for a pull of {NODES} machines at once, {late_pull} for a later one\n")
            .as_bytes(),
    )
    .unwrap();
}
