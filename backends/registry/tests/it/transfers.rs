//! How layers are moved: at once, over few connections, in parts, and to an end in any case.

use std::num::NonZero;
use std::time::{Duration, Instant};

use bytes::Bytes;
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::server::{Fault, FaultServer, On, Options};
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::progress::{Event, Progress};
use plyfold_core::{
    BlobRange, CacheProviderExt as _, CopyOptions, Descriptor, ErrorKind, ImageRegistry, MediaType, Platform,
    PullOptions, PullResult, Reference, Result, copy, digest, pull, reference,
};
use plyfold_registry::Registry;

use crate::{assert_kind, open, serve};

/// Options that lose no time.
pub(crate) fn quick() -> PullOptions {
    let mut options = PullOptions {
        platform: Platform::new("linux", "amd64", None),
        stall: Duration::from_millis(300),
        ..PullOptions::default()
    };
    (options.retry.base, options.retry.cap) = (Duration::from_millis(1), Duration::from_millis(20));
    options
}

/// Bytes that no codec makes smaller, different for each seed.
pub(crate) fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// A server with an artifact whose layers are `blobs`.
fn serve_blobs(blobs: &[Bytes]) -> (FaultServer, Reference, Vec<Descriptor>) {
    let server = FaultServer::start().unwrap();
    let (name, layers) = put_blobs(&server, blobs);
    (server, name, layers)
}

/// Stores an artifact `org/data:1` whose layers are `blobs`.
pub(crate) fn put_blobs(server: &FaultServer, blobs: &[Bytes]) -> (Reference, Vec<Descriptor>) {
    let kind = MediaType::from("application/vnd.example.data");
    let mut layers = Vec::new();
    for blob in blobs {
        let layer = Descriptor::new(kind.clone(), blob.len() as u64, digest::sha256(blob));
        server.put_blob("org/data", layer.digest(), blob.clone());
        layers.push(layer);
    }
    let empty = Bytes::from_static(b"{}");
    server.put_blob("org/data", &digest::sha256(&empty), empty.clone());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.data",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest::sha256(&empty), "size": 2,
        },
        "layers": layers,
    });
    let manifest = Bytes::from(manifest.to_string());
    let own = digest::sha256(&manifest);
    server.put_manifest("org/data", &own, "application/vnd.oci.image.manifest.v1+json", manifest);
    server.tag("org/data", "1", &own);
    (reference::parse(&format!("{}/org/data:1", server.host())).unwrap(), layers)
}

async fn fetch(
    registry: &Registry,
    name: &Reference,
    options: &PullOptions,
) -> (MemoryCache, Result<PullResult>) {
    let cache = MemoryCache::new().unwrap();
    let result = pull(registry, name, &cache, options).await;
    (cache, result)
}

fn many() -> (FaultServer, Reference, Vec<Descriptor>) {
    serve_blobs(&(0..12).map(|seed| noise(seed, 20_000)).collect::<Vec<_>>())
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let (server, name, layers) = many();
    fetch(&open(server.host(), |_| ()), &name, &quick()).await.1.unwrap();
    // A request may come before the connection of the one before it is free again.
    let connections = usize::try_from(server.connections()).unwrap();
    assert!(connections < layers.len(), "{connections} for {} layers", layers.len());
}

#[tokio::test]
async fn a_host_gets_no_more_requests_at_once_than_it_wants() {
    let (server, name, _) = many();
    server.script(On::blobs(), [Fault::Delay(Duration::from_millis(20))]);
    let registry = open(server.host(), |config| config.max_connections = NonZero::new(2));
    // Two pulls that know nothing of each other.
    let options = quick();
    let (first, second) = tokio::join!(fetch(&registry, &name, &options), fetch(&registry, &name, &options));
    first.1.unwrap();
    second.1.unwrap();
    assert_eq!(server.busiest(), 2);
}

#[tokio::test]
async fn a_host_gets_no_more_requests_a_second_than_it_wants() {
    let (server, name, _) = many();
    let registry = open(server.host(), |config| config.requests_per_second = NonZero::new(100));
    let start = Instant::now();
    let options = PullOptions { stall: Duration::from_secs(10), ..quick() };
    fetch(&registry, &name, &options).await.1.unwrap();
    // A manifest, a config and twelve layers: thirteen intervals.
    assert!(start.elapsed() >= Duration::from_millis(130), "{:?}", start.elapsed());
}

/// One very large layer in several ranges at once: the same bytes, and one request when there are no ranges.
#[tokio::test]
async fn large_layers_come_in_parts_when_that_is_wanted() {
    let content = noise(1, (33 << 20) + 5);
    let (server, name, layers) = serve_blobs(std::slice::from_ref(&content));
    let registry = open(server.host(), |config| config.parallel_ranges = 4);
    server.script(On::blobs(), [Fault::Delay(Duration::from_millis(10))]);
    let whole = registry.blob(&name, &layers[0], BlobRange::FULL).await.unwrap();
    assert!(whole.is_verified());
    assert!(whole.bytes(64 << 20).await.unwrap() == content);
    assert_eq!(server.served(layers[0].digest()).requests, 9);
    assert!((2..=4).contains(&server.busiest()), "{}", server.busiest());

    // A part that is truncated: the pull goes on from there.
    server.clear_requests();
    server.script(On::blobs().skip(3).times(1), [Fault::TruncateAt(1 << 20)]);
    let (cache, result) = fetch(&registry, &name, &quick()).await;
    result.unwrap();
    cache.verify_blob(&layers[0]).await.unwrap();

    server.clear_scripts();
    server.clear_requests();
    server.script(On::blobs(), [Fault::IgnoreRange]);
    let whole = registry.blob(&name, &layers[0], BlobRange::FULL).await.unwrap();
    assert!(whole.bytes(64 << 20).await.unwrap() == content);
    assert_eq!(server.served(layers[0].digest()).requests, 1);
}

/// An endpoint that gets every range wrong: the last attempt asks for the whole.
#[tokio::test]
async fn ranges_that_are_always_wrong_end_in_the_whole() {
    let (server, name, layers) = serve_blobs(&[noise(1, 50_000)]);
    server.script(On::blob(layers[0].digest()).times(1), [Fault::TruncateAt(20_000)]);
    server.script(On::blob(layers[0].digest()).ranged(true), [Fault::WrongRange(7)]);
    let (cache, result) = fetch(&open(server.host(), |_| ()), &name, &quick()).await;
    result.unwrap();
    cache.verify_blob(&layers[0]).await.unwrap();
    let asked: Vec<_> = server.requests().iter().filter(|x| x.target.contains("/blobs/")).cloned().collect();
    let ranges: Vec<_> = asked.iter().filter_map(|x| x.header("range")).collect();
    assert_eq!(ranges, ["bytes=20000-49999"; 3]);
    assert!(asked.last().unwrap().header("range").is_none());
}

/// An endpoint that refuses ranges has the whole all the same: what was kept of a blob never keeps it from being complete.
#[tokio::test]
async fn ranges_that_are_refused_end_in_the_whole() {
    let content = noise(1, 50_000);
    let statuses = [400, 401, 403, 405, 429, 500, 501, 503].map(Fault::Status);
    let wrong =
        [Fault::WrongRange(7), Fault::WrongTotal(7), Fault::Close, Fault::Surplus(9), Fault::TruncateAt(0)];
    for fault in statuses.into_iter().chain(wrong) {
        let (server, name, layers) = serve_blobs(std::slice::from_ref(&content));
        let layer = || On::blob(layers[0].digest());
        server.script(layer().times(1), [Fault::TruncateAt(20_000)]);
        server.script(layer().ranged(true), [fault.clone()]);
        let registry = open(server.host(), |_| ());
        let (cache, result) = fetch(&registry, &name, &quick()).await;
        result.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        cache.verify_blob(&layers[0]).await.unwrap();
        // A copy, and one after it that goes on with what it has left, without another attempt.
        let (to, target) = (MemoryRegistry::new("to"), reference::parse("a.example/b:1").unwrap());
        let mut options = CopyOptions { retry: quick().retry, ..CopyOptions::default() };
        options.retry.attempts = 1;
        server.clear_scripts();
        server.script(layer(), [Fault::TruncateAt(20_000)]);
        copy(&registry, &name, &to, &target, &options).await.unwrap_err();
        assert_eq!(to.partial_blob(&target, &layers[0]).await.unwrap(), 20_000, "{fault:?}");
        server.clear_scripts();
        server.script(layer().ranged(true), [fault.clone()]);
        copy(&registry, &name, &to, &target, &options).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        let blob = to.blob(&target, &layers[0], BlobRange::FULL).await.unwrap();
        assert!(blob.bytes(1 << 20).await.unwrap() == content, "{fault:?}");
    }
}

/// Bytes that went wrong before a transfer broke off are found out at the end, and fetched again once.
#[tokio::test]
async fn a_wrong_beginning_is_fetched_again_once() {
    let (server, name, layers) = serve_blobs(&[noise(1, 50_000)]);
    let layer = || On::blob(layers[0].digest());
    server.script(layer().times(1), [Fault::Flip(5), Fault::TruncateAt(20_000)]);
    let (cache, result) = fetch(&open(server.host(), |_| ()), &name, &quick()).await;
    result.unwrap();
    cache.verify_blob(&layers[0]).await.unwrap();
    assert_eq!(server.served(layers[0].digest()).requests, 3);

    server.script(layer().times(1), [Fault::Flip(5), Fault::TruncateAt(20_000)]);
    server.script(layer().ranged(false), [Fault::Flip(5)]);
    server.clear_requests();
    let (_, result) = fetch(&open(server.host(), |_| ()), &name, &quick()).await;
    assert_kind(result, &ErrorKind::Corrupt);
    assert_eq!(server.served(layers[0].digest()).requests, 3);
}

/// A byte now and then is no progress: the transfer times out.
#[tokio::test]
async fn trickles_end_in_a_timeout() {
    let (server, name, layers) = serve_blobs(&[noise(1, 50_000)]);
    server.script(On::blob(layers[0].digest()), [Fault::Pace(1, Duration::from_millis(20))]);
    let mut options = quick();
    options.retry.attempts = 3;
    let start = Instant::now();
    let (_, result) = fetch(&open(server.host(), |_| ()), &name, &options).await;
    let error = assert_kind(result, &ErrorKind::Timeout);
    assert_eq!(error.context("attempt"), Some("3"));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// A pull that is given up keeps what it has of every layer, not only of the one that failed.
#[tokio::test]
async fn what_was_under_way_is_kept_when_another_layer_fails() {
    let (server, name, layers) = serve_blobs(&[noise(1, 50_000), noise(2, 50_000)]);
    server.script(On::blob(layers[0].digest()).times(1), [Fault::StallAt(30_000)]);
    // Long enough for the first bytes of the other layer, also on a busy machine.
    let late = [Fault::Status(403), Fault::Delay(Duration::from_secs(1))];
    server.script(On::blob(layers[1].digest()).times(1), late);
    let cache = MemoryCache::new().unwrap();
    let registry = open(server.host(), |_| ());
    let options = PullOptions { stall: Duration::from_secs(20), ..quick() };
    assert_kind(pull(&registry, &name, &cache, &options).await, &ErrorKind::Denied);
    pull(&registry, &name, &cache, &options).await.unwrap();
    let ranges: Vec<_> =
        server.requests().iter().filter_map(|x| x.header("range").map(str::to_owned)).collect();
    let [range] = ranges.as_slice() else { panic!("{ranges:?}") };
    let start = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix("-49999")).unwrap();
    assert!((1..=30_000).contains(&start.parse::<u32>().unwrap()), "{range}");
}

/// Who answers, at which attempt, stands in the events.
#[tokio::test]
async fn events_name_endpoint_and_attempt() {
    let (storage, _, _) = serve_blobs(&[noise(1, 50_000)]);
    let (server, name, layers) = serve_blobs(&[noise(1, 50_000)]);
    let digest = layers[0].digest();
    server.script(On::blob(digest).times(1), [Fault::TruncateAt(100)]);
    let elsewhere = format!("{}/v2/org/data/blobs/{digest}", storage.url());
    server.script(On::blob(digest), [Fault::Redirect(307, elsewhere)]);
    let (progress, mut events) = Progress::channel();
    let options = PullOptions { progress, ..quick() };
    fetch(&open(server.host(), |_| ()), &name, &options).await.1.unwrap();
    drop(options);
    let mut opened = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::BlobOpened { digest: other, endpoint, attempt } = event
            && other == *digest
        {
            opened.push((endpoint, attempt));
        }
    }
    assert_eq!(opened, [(server.url(), 1), (storage.url(), 2)]);
}

/// 503 with a Retry-After waits as long as it says, like 429.
#[tokio::test]
async fn outages_say_when_to_come_back() {
    let sample: Sample = samples::image();
    let (server, name) = serve(Options::default(), &sample);
    let delay = Fault::Header("Retry-After", Some("3".to_owned()));
    server.script(On::manifests(), [Fault::Status(503), delay]);
    let error = assert_kind(open(server.host(), |_| ()).manifest(&name).await, &ErrorKind::Unavailable);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
}

/// What waits for a limit of ours waits for nothing of the server's. The layer takes three seconds, all attempts of the
/// other pull together would be over after two and a half.
#[tokio::test]
async fn waiting_for_ones_own_limit_is_no_stall_of_the_server() {
    let (server, name, _) = serve_blobs(&[noise(1, 1 << 20)]);
    server.script(On::blobs().method("GET"), [Fault::Pace(32 << 10, Duration::from_millis(100))]);
    let registry = open(server.host(), |config| config.max_connections = NonZero::new(1));
    let options = PullOptions { stall: Duration::from_millis(500), ..quick() };
    let (first, second) = tokio::join!(fetch(&registry, &name, &options), fetch(&registry, &name, &options));
    first.1.unwrap();
    second.1.unwrap();
    assert_eq!(server.busiest(), 1);
}

/// One request a second, and a time-out of 300 ms: each request is held back for longer than that.
#[tokio::test]
async fn waiting_for_a_turn_is_no_stall_either() {
    let (server, name, layers) = serve_blobs(&[noise(1, 1000), noise(2, 1000)]);
    let slow = |host: &str| open(host, |config| config.requests_per_second = NonZero::new(1));
    let (_, pulled) = fetch(&slow(server.host()), &name, &quick()).await;
    pulled.unwrap();
    let registry = open(server.host(), |config| {
        config.requests_per_second = NonZero::new(1);
        // An upload may stand still for four times as long.
        config.read_timeout = Duration::from_millis(200);
    });
    let target = reference::parse(&format!("{}/org/copy:1", server.host())).unwrap();
    let blob = registry.blob(&name, &layers[0], BlobRange::FULL).await.unwrap();
    registry.push_blob(&target, blob).await.unwrap();
}
