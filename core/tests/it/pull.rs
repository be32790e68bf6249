//! The pull engine.

use std::io::Write as _;
use std::time::Duration;

use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::progress::{Event, Progress};
use plyfold_core::{
    BlobRange, CacheProvider, CacheProviderExt, Completeness, ErrorKind, Platform, PullOptions, PullPolicy,
    pull,
};

use crate::fixture::{self, AMD64, Drain, Fault, Scripted, layer, name, put_compressed, put_image};

fn options(policy: PullPolicy) -> PullOptions {
    PullOptions { stall: Duration::from_millis(200), ..fixture::options(policy) }
}

#[tokio::test]
async fn everything_present_asks_nothing_even_when_the_tag_has_moved() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    let (first, _) = put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 10), layer("b", 10)]);
    let scripted = Scripted::new(&registry, &[]);
    let pulled = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    assert_eq!((pulled.manifest.digest(), pulled.cached, pulled.layers.len()), (&first, false, 2));

    let (second, _) = put_image(&registry, &image, ("linux", "amd64"), &[layer("c", 10)]);
    let before = scripted.requests();
    for policy in [PullPolicy::IfMissing, PullPolicy::Never] {
        let again = pull(&scripted, &image, &cache, &options(policy)).await.unwrap();
        assert_eq!((again.manifest.digest(), again.cached), (&first, true));
    }
    assert_eq!(scripted.requests(), before);
    let moved = pull(&scripted, &image, &cache, &options(PullPolicy::Always)).await.unwrap();
    assert_eq!(*moved.manifest.digest(), second);
    let before = scripted.requests();
    let unmoved = pull(&scripted, &image, &cache, &options(PullPolicy::Always)).await.unwrap();
    assert_eq!((unmoved.cached, scripted.requests() - before), (true, 1));
}

#[tokio::test]
async fn never_lists_what_is_missing() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    let (_, layers) = put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 10)]);
    let scripted = Scripted::new(&registry, &[]);
    let error = pull(&scripted, &image, &cache, &options(PullPolicy::Never)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    assert_eq!(scripted.requests(), 0);

    pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    cache.quarantine(&layers[0]).await.unwrap();
    let platform: Platform = AMD64.parse().unwrap();
    let lacking = cache.completeness(&image, &platform).await.unwrap();
    assert_eq!(lacking, Completeness::Incomplete(vec![layers[0].clone()]));
    let error = pull(&scripted, &image, &cache, &options(PullPolicy::Never)).await.unwrap_err();
    assert!(error.message().contains(layers[0].as_ref()), "{error}");
    pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    assert_eq!(scripted.reads_of(&layers[0]), 2);
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    let content = layer("a", 3 << 20);
    let (_, layers) = put_image(&registry, &image, ("linux", "amd64"), std::slice::from_ref(&content));
    let faults = [Fault::Breaks(1000), Fault::Stalls, Fault::Breaks(500), Fault::IgnoresRange];
    let scripted = Scripted::new(&registry, &faults);
    let pulled = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    cache.verify_blob(&pulled.layers[0].descriptor).await.unwrap();
    let starts: Vec<BlobRange> = {
        let log = scripted.log.blobs.lock().unwrap();
        log.iter().filter(|(digest, _)| *digest == layers[0]).map(|(_, range)| *range).collect()
    };
    let expected = [0, 1000, 1000, 1500].map(BlobRange::from_start);
    assert_eq!(starts, expected);
}

#[tokio::test]
async fn a_transfer_that_never_recovers_ends_and_the_next_pull_resumes() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 100_000)]);
    let dead = Scripted::new(&registry, &[Fault::Breaks(100); 5]);
    let error = pull(&dead, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert_eq!((error.context("attempt"), error.context("image")), (Some("5"), Some("example.com/app:1")));
    assert_eq!(cache.list().await.unwrap(), []);

    let alive = Scripted::new(&registry, &[]);
    let pulled = pull(&alive, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let digest = pulled.layers[0].descriptor.digest().clone();
    assert_eq!(alive.log.blobs.lock().unwrap().last(), Some(&(digest, BlobRange::from_start(500))));
}

#[tokio::test]
async fn the_config_that_told_the_platform_is_not_fetched_again() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 9)]);
    let scripted = Scripted::new(&registry, &[]);
    let pulled = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    assert_eq!(scripted.reads_of(pulled.config.unwrap().descriptor().digest()), 1);
}

#[tokio::test]
async fn one_layer_used_twice_is_fetched_once() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    let (_, layers) =
        put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 9), layer("b", 9), layer("a", 9)]);
    let scripted = Scripted::new(&registry, &[]);
    let pulled = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let order: Vec<_> = pulled.layers.iter().map(|layer| layer.descriptor.digest().clone()).collect();
    assert_eq!(order, layers);
    assert_eq!(scripted.reads_of(&layers[0]), 1);
}

#[tokio::test]
async fn force_replaces_damaged_content() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    let (_, layers) = put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 700)]);
    let pulled = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let mut damaged = layer("a", 700);
    damaged[600] ^= 1;
    cache.insert_blob(layers[0].clone(), damaged);
    let unforced = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    assert!(unforced.cached);
    assert!(cache.verify_blob(&pulled.layers[0].descriptor).await.is_err());
    let force = PullOptions { force: true, ..options(PullPolicy::IfMissing) };
    let forced = pull(&registry, &image, &cache, &force).await.unwrap();
    assert!(!forced.cached);
    cache.verify_blob(&pulled.layers[0].descriptor).await.unwrap();
}

#[tokio::test]
async fn wrong_content_is_refused_at_once_and_nothing_becomes_visible() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    let (_, layers) = put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 700)]);
    registry.insert_blob(&image, layers[0].clone(), vec![0; layer("a", 700).len()]);
    let scripted = Scripted::new(&registry, &[]);
    let error = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap_err();
    let mismatch = error.detail::<plyfold_core::Mismatch>().expect("a digest mismatch");
    assert_eq!((*error.kind() == ErrorKind::Corrupt, &mismatch.expected), (true, &layers[0]));
    assert_eq!(error.context("endpoint"), Some(scripted.to_string().as_str()));
    assert_eq!(scripted.reads_of(&layers[0]), 1);
    assert_eq!(cache.stat(&layers[0]).await.unwrap(), None);
    assert_eq!(cache.list().await.unwrap(), []);
}

/// The time in a gzip header is in the blob's digest and not in the tar's: the conversion finds nothing wrong.
#[tokio::test]
async fn an_artifact_of_a_blob_that_was_put_together_wrongly_is_made_again() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    let tar = layer("a", 5000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    put_compressed(&registry, &image, &tar, &gzip);
    let scripted = Scripted::new(&registry, &[Fault::FlipsAndBreaks(4, 100)]);
    let options = PullOptions { materializer: Some(Box::new(Drain)), ..options(PullPolicy::IfMissing) };
    let pulled = tokio::time::timeout(Duration::from_secs(20), pull(&scripted, &image, &cache, &options));
    let pulled = pulled.await.expect("nothing waits for itself").unwrap();
    assert!(pulled.layers[0].artifact.is_some());
    assert_eq!(scripted.layer_reads(), 3);
}

#[tokio::test]
async fn the_last_event_says_how_it_ended() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    for success in [false, true] {
        if success {
            put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 10)]);
        }
        let (progress, mut events) = Progress::channel();
        let options = PullOptions { progress, ..options(PullPolicy::IfMissing) };
        assert_eq!(pull(&registry, &image, &cache, &options).await.is_ok(), success);
        drop(options);
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert_eq!(last, Some(Event::Finished { success }));
    }
}

#[tokio::test]
async fn a_digest_wins_over_its_tag_and_names_what_is_kept() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let tag = name("example.com/app:1");
    let (old, _) = put_image(&registry, &tag, ("linux", "amd64"), &[layer("old", 10)]);
    put_image(&registry, &tag, ("linux", "amd64"), &[layer("new", 10)]);
    let both = name(&format!("example.com/app:1@{old}"));
    let pulled = pull(&registry, &both, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    assert_eq!(*pulled.manifest.digest(), old);
    assert_eq!(cache.find_descriptor(&tag).await.unwrap(), None);
    assert!(cache.find_descriptor(&both).await.unwrap().is_some());
}
