//! What a pull holds, waits for, and asks of the disk.

use std::error::Error as _;
use std::io;

use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::progress::{Event, Progress};
use plyfold_core::{
    Advice, CacheProvider, CacheProviderExt, Descriptor, Digest, ErrorKind, Ingest, PullOptions, PullPolicy,
    PullResult, Reference, digest, pull,
};

use crate::events::{Asked, Watched};
use crate::fixture::{AMD64, Fault, Scripted, index_of, layer, name, options, put_image, verifying};

const IMAGE: &str = "example.com/app:1";
const TURN: &str = "pull example.com/app:1 linux/amd64";

/// An index of an image of two layers for amd64 under [`IMAGE`].
async fn staged() -> (Reference, MemoryRegistry) {
    let registry = MemoryRegistry::new("a");
    index_of(&registry, &name(IMAGE), &[("amd64", &[layer("a", 300), layer("b", 700)])]).await;
    (name(IMAGE), registry)
}

/// Every digest that a pulled image needs.
fn digests(pulled: &PullResult) -> Vec<Digest> {
    let config = pulled.config.as_ref().unwrap();
    let layers = pulled.layers.iter().map(|layer| layer.descriptor.digest().clone());
    let mut all = vec![
        pulled.descriptor.digest().clone(),
        pulled.manifest.digest().clone(),
        config.descriptor().digest().clone(),
    ];
    all.extend(layers.chain(config.diff_ids().unwrap()));
    all
}

/// How many times each of an image's parts was asked for: manifest documents, and its config and layers.
fn fetches(scripted: &Scripted, pulled: &PullResult) -> Vec<usize> {
    let config = pulled.config.as_ref().unwrap().descriptor().digest();
    let blobs = std::iter::once(config).chain(pulled.layers.iter().map(|layer| layer.descriptor.digest()));
    std::iter::once(scripted.manifest_requests()).chain(blobs.map(|blob| scripted.reads_of(blob))).collect()
}

#[tokio::test]
async fn everything_needed_is_leased_before_it_is_looked_for_and_on_with_the_result() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let pulled = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    for policy in [PullPolicy::IfMissing, PullPolicy::Always, PullPolicy::Never] {
        let asked = cache.asked();
        let taken = asked.iter().filter_map(|asked| match asked {
            Asked::Lease(content) => Some(content),
            _ => None,
        });
        let taken: Vec<_> = taken.collect();
        assert_eq!(taken.len(), 1, "one lease is enough: {asked:?}");
        assert!(digests(&pulled).iter().all(|digest| taken[0].contains(digest)), "{taken:?}");
        let first = |what: fn(&Asked) -> bool| asked.iter().position(what).unwrap_or(usize::MAX);
        let leased_at = first(|asked| matches!(asked, Asked::Lease(_)));
        assert!(leased_at < first(|asked| matches!(asked, Asked::Ingest(_))), "{asked:?}");
        let named = asked.iter().filter(|asked| matches!(asked, Asked::Update(_)));
        assert!(named.clone().all(|asked| *asked == Asked::Update(1)), "a name is set under the lease");

        let again = pull(&registry, &image, &cache, &options(policy)).await.unwrap();
        assert!(again.cached);
        assert_eq!(cache.leases(), 2);
    }
    let asked = cache.asked();
    let leased_at = asked.iter().position(|asked| matches!(asked, Asked::Lease(_))).unwrap();
    for digest in digests(&pulled) {
        let looked = asked.iter().rposition(|asked| *asked == Asked::Stat(digest.clone()));
        assert!(looked.is_some_and(|at| at > leased_at), "{digest} is looked for under the lease");
    }
    let clone = pulled.clone();
    drop(pulled);
    assert_eq!(cache.leases(), 1);
    drop(clone);
    assert_eq!(cache.leases(), 0);
}

#[tokio::test]
async fn what_is_collected_before_the_lease_is_fetched_again() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let first = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let lost = first.descriptor.digest().clone();
    cache.lose_at_lease(&lost);
    let scripted = Scripted::new(&registry, &[]);
    let again = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    assert_eq!(cache.stat(&lost).await.unwrap(), Some(again.descriptor.size()));
    assert!(scripted.requests() > 0);
}

#[tokio::test]
async fn of_many_pulls_of_one_image_one_fetches_it() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let scripted = Scripted::new(&registry, &[]);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (scripted, image, cache) = (scripted.clone(), image.clone(), cache.clone());
            tokio::spawn(async move {
                pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap()
            })
        })
        .collect();
    let mut fetched = 0;
    for task in tasks {
        let pulled = task.await.unwrap();
        fetched += usize::from(!pulled.cached);
        assert_eq!(fetches(&scripted, &pulled), [2, 1, 1, 1], "index and manifest, config and two layers");
    }
    assert_eq!(fetched, 1);
}

#[tokio::test]
async fn a_pull_that_waits_says_so_and_asks_nothing_meanwhile() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let scripted = Scripted::new(&registry, &[]);
    let turn = cache.single_flight(TURN).await.unwrap();
    let (progress, mut events) = Progress::channel();
    let waiting = tokio::spawn({
        let (scripted, image, cache) = (scripted.clone(), image.clone(), cache.clone());
        let options = PullOptions { progress, ..options(PullPolicy::IfMissing) };
        async move { pull(&scripted, &image, &cache, &options).await }
    });
    assert_eq!(events.next().await, Some(Event::Waiting { what: IMAGE.to_owned() }));
    assert_eq!((scripted.requests(), cache.leases()), (0, 0));
    drop(turn);
    assert!(!waiting.await.unwrap().unwrap().cached);
}

#[tokio::test(start_paused = true)]
async fn a_pull_does_not_wait_for_ever() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let _turn = cache.single_flight(TURN).await.unwrap();
    let start = tokio::time::Instant::now();
    assert!(!pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap().cached);
    assert_eq!(start.elapsed().as_secs(), 300);
}

#[tokio::test]
async fn waiting_for_a_blob_is_told() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let layer = digest::sha256(&layer("b", 700));
    let blob = Descriptor::new("application/octet-stream".into(), 2048, layer.clone());
    let Ingest::Vacant(writer) = cache.ingest(&blob).await.unwrap() else { panic!("it is not here") };
    let (progress, mut events) = Progress::channel();
    let options = PullOptions { progress, ..options(PullPolicy::IfMissing) };
    let waiting = tokio::spawn(async move { pull(&registry, &image, &cache, &options).await });
    let mut waits = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::Waiting { what } = event {
            waits.push(what);
            break;
        }
    }
    assert_eq!(waits, [layer.as_ref()]);
    drop(writer);
    assert!(!waiting.await.unwrap().unwrap().cached);
}

#[tokio::test]
async fn a_cached_image_or_another_image_is_not_waited_for() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let other = name("example.com/other:1");
    put_image(&registry, &other, ("linux", "amd64"), &[layer("a", 300)]);
    pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let _turn = cache.single_flight(TURN).await.unwrap();
    for policy in [PullPolicy::IfMissing, PullPolicy::Always, PullPolicy::Never] {
        assert!(pull(&registry, &image, &cache, &options(policy)).await.unwrap().cached);
    }
    let force = PullOptions { force: true, ..options(PullPolicy::IfMissing) };
    pull(&registry, &image, &cache, &force).await.unwrap();
    pull(&registry, &other, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
}

#[tokio::test]
async fn the_next_one_takes_over_when_a_pull_is_dropped_or_fails() {
    for fails in [false, true] {
        let ((image, registry), cache) = (staged().await, Watched::new());
        let scripted = Scripted::new(&registry, &[if fails { Fault::Refuses } else { Fault::Stalls }]);
        let start = |options: PullOptions| {
            let (scripted, image, cache) = (scripted.clone(), image.clone(), cache.clone());
            tokio::spawn(async move { pull(&scripted, &image, &cache, &options).await })
        };
        // One layer at a time: the fault meets the first reader.
        let first = start(PullOptions { concurrency: 1, ..options(PullPolicy::IfMissing) });
        while scripted.layer_reads() == 0 {
            tokio::task::yield_now().await;
        }
        let second = start(options(PullPolicy::IfMissing));
        if fails {
            assert_eq!(*first.await.unwrap().unwrap_err().kind(), ErrorKind::Denied);
        } else {
            tokio::task::yield_now().await;
            assert!(!second.is_finished());
            first.abort();
        }
        let pulled = second.await.unwrap().unwrap();
        assert!(!pulled.cached);
        assert!(cache.image_in_cache(&image, &AMD64.parse().unwrap()).await.unwrap());
    }
}

#[tokio::test]
async fn a_pull_without_room_fetches_and_changes_nothing() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let (elsewhere, always) = (MemoryCache::new().unwrap(), options(PullPolicy::Always));
    let measured = pull(&registry, &image, &elsewhere, &always).await.unwrap();
    let config = measured.config.as_ref().unwrap().descriptor().size();
    let layers: Vec<u64> = measured.layers.iter().map(|layer| layer.descriptor.size()).collect();
    let needed = measured.descriptor.size()
        + measured.manifest.descriptor().size()
        + config
        + layers.iter().sum::<u64>();

    cache.set_free(needed - 1);
    let scripted = Scripted::new(&registry, &[]);
    let error = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Io);
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>()).unwrap();
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    let message = error.message();
    assert!(
        message.contains(&needed.to_string()) && message.contains(&(needed - 1).to_string()),
        "{message}"
    );
    assert_eq!(error.advice(), Some(&Advice::Collect));
    assert_eq!(scripted.log.blobs.lock().unwrap().len(), 0, "no blob is read");
    assert!(!cache.asked().iter().any(|asked| matches!(asked, Asked::Ingest(_) | Asked::Update(_))));

    // What a broken transfer has left is room that is taken already.
    cache.set_free(needed);
    let breaking = Scripted::new(&registry, &[Fault::Breaks(100); 5]);
    let broken = PullOptions { concurrency: 1, ..options(PullPolicy::IfMissing) };
    pull(&breaking, &image, &cache, &broken).await.unwrap_err();
    // The longest is fetched first.
    let longest = measured.layers.iter().max_by_key(|layer| layer.descriptor.size()).unwrap();
    let left = cache.partial(longest.descriptor.digest()).await.unwrap();
    assert_eq!(left, 500);
    cache.set_free(needed - config - left - 1);
    let error = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap_err();
    assert!(error.message().contains(&(needed - config - left).to_string()), "{error}");
    cache.set_free(needed - config - left);
    pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();

    // With everything here nothing is needed.
    cache.set_free(0);
    assert!(pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap().cached);
}

#[tokio::test]
async fn verification_applies_to_what_is_here_already() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let pulled = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let scripted = Scripted::new(&registry, &[]);
    let sound = pull(&scripted, &image, &cache, &verifying(PullPolicy::IfMissing)).await.unwrap();
    assert_eq!((sound.cached, scripted.requests()), (true, 0));

    let config = pulled.config.as_ref().unwrap().descriptor().clone();
    let layer = pulled.layers[1].descriptor.clone();
    for part in [&layer, &config, pulled.manifest.descriptor(), &pulled.descriptor] {
        let content = cache.content(part, 1 << 20).await.unwrap();
        let mut damaged = content.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        cache.inner().insert_blob(part.digest().clone(), damaged);
        let error = pull(&registry, &image, &cache, &verifying(PullPolicy::Never)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(cache.stat(part.digest()).await.unwrap(), Some(part.size()), "Never changes nothing");
        pull(&registry, &image, &cache, &verifying(PullPolicy::IfMissing)).await.unwrap();
        cache.verify_blob(part).await.unwrap();
    }
    // What of an incomplete image is here is read, too.
    let mut damaged = cache.content(&layer, 1 << 20).await.unwrap().to_vec();
    damaged[0] ^= 1;
    cache.inner().insert_blob(layer.digest().clone(), damaged);
    cache.quarantine(pulled.layers[0].descriptor.digest()).await.unwrap();
    let healed = pull(&registry, &image, &cache, &verifying(PullPolicy::IfMissing)).await.unwrap();
    assert!(!healed.cached);
    cache.verify_blob(&layer).await.unwrap();
}

#[tokio::test]
async fn damaged_documents_are_fetched_again_without_being_asked() {
    let ((image, registry), cache) = (staged().await, Watched::new());
    let pulled = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let config = pulled.config.as_ref().unwrap().descriptor();
    for part in [config, pulled.manifest.descriptor(), &pulled.descriptor] {
        cache.inner().insert_blob(part.digest().clone(), vec![b' '; usize::try_from(part.size()).unwrap()]);
        pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
        cache.verify_blob(part).await.unwrap();
    }
}

#[tokio::test]
async fn a_second_platform_comes_under_the_same_index() {
    let (registry, cache) = (MemoryRegistry::new("a"), Watched::new());
    let image = name(IMAGE);
    let both: [(&str, &[Vec<u8>]); 2] =
        [("amd64", &[layer("a", 300), layer("b", 10)]), ("arm64", &[layer("a", 300), layer("c", 10)])];
    index_of(&registry, &image, &both).await;
    let first = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let arm64 = PullOptions { platform: "linux/arm64".parse().unwrap(), ..options(PullPolicy::Never) };
    let error = pull(&registry, &image, &cache, &arm64).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "only amd64 is here: {error}");
    let scripted = Scripted::new(&registry, &[]);
    let arm64 = PullOptions { policy: PullPolicy::IfMissing, ..arm64 };
    let second = pull(&scripted, &image, &cache, &arm64).await.unwrap();
    assert_eq!(first.descriptor, second.descriptor);
    assert_ne!(first.manifest.digest(), second.manifest.digest());
    let shared: &Descriptor = &second.layers[0].descriptor;
    assert_eq!((scripted.reads_of(shared.digest()), scripted.layer_reads()), (0, 1), "only what is missing");
    assert_eq!(*shared.digest(), digest::sha256(&layer("a", 300)));
    for options in [options(PullPolicy::Never), PullOptions { policy: PullPolicy::Never, ..arm64 }] {
        let again = pull(&scripted, &image, &cache, &options).await.unwrap();
        let platform = again.config.as_ref().unwrap().platform();
        assert_eq!(platform, Some(options.platform));
    }
}
