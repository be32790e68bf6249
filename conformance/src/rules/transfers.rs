//! R: transfers of layers, with failures.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    BlobRange, CacheProviderExt, Descriptor, ErrorKind, ImageRegistry, Platform, PullOptions, PullResult,
    Reference, Result,
};

use super::probe::{assert_kind, sound};
use crate::rule::rules;
use crate::samples::{self, LayerBuilder, Sample};
use crate::server::{Exchange, Fault, FaultServer, On, Options};
use crate::{HttpFixture, HttpSetup};

rules! {
    $ __http_transfer_rules of dyn HttpFixture;
    "R 17" resume_sends_closed_range_at_exact_offset:
        "a truncated download resumes with one closed range, from the first missing byte",
    "R 18" resume_without_accept_ranges:
        "ranges are asked for whether the server advertises them or not",
    "R 19" status_200_to_range_restarts_from_zero:
        "the whole blob in answer to a range is read as the whole blob",
    "R 20" status_206_with_wrong_content_range_rejected:
        "a part that is not stated to be the one that was asked for is not taken for it",
    "R 21" status_416_resets_partial:
        "when a range cannot be satisfied the blob is fetched from its start",
    "R 22" resume_survives_process_restart:
        "what a failed pull has left is used by the next one, in any process",
    "R 23" partial_prefix_rehashed_before_resume:
        "what an earlier pull has left is not trusted: wrong bytes in it are found out and fetched again",
    "R 24" no_progress_timeout_bounds_attempts:
        "a transfer that stalls or trickles is ended, is tried again, and fails in the end",
    "R 25" retry_after_seconds_and_date_honoured_and_capped:
        "a Retry-After is waited for as seconds, as a date, and never longer than the cap",
    "R 26" status_429_5xx_retried_4xx_not:
        "what may pass is tried again, what is final is asked once",
    "R 27" exact_attempt_count:
        "what keeps failing is tried exactly as often as configured",
    "R 28" concurrency_bound_reached_never_exceeded:
        "as many layers are fetched at once as configured, and no more",
    "R 29" duplicate_layer_digests_fetched_once:
        "a layer that an image has twice is fetched once",
    "R 171" content_encoding_does_not_decide:
        "a blob that is labelled with a Content-Encoding is judged by the bytes that were sent: they are the blob, or \
         corrupt",
}

async fn resume_sends_closed_range_at_exact_offset(fixture: &dyn HttpFixture) {
    for cut in [1, 1000, SIZE - 1] {
        let scene = Scene::new(1, Options::default());
        scene.server.script(scene.layer(0).times(1), [Fault::TruncateAt(cut)]);
        scene.pulled(fixture).await;
        let asked: Vec<_> = scene.asked(0).iter().map(|x| x.header("range").map(str::to_owned)).collect();
        assert_eq!(asked, [None, Some(format!("bytes={cut}-{}", SIZE - 1))]);
        assert_eq!(scene.server.served(scene.digest(0)).bytes, SIZE, "no byte comes twice");
    }
}

async fn resume_without_accept_ranges(fixture: &dyn HttpFixture) {
    let scene = Scene::new(1, Options { accept_ranges: false, ..Options::default() });
    scene.server.script(scene.layer(0).times(2), [Fault::TruncateAt(1000)]);
    scene.pulled(fixture).await;
    assert_eq!(scene.server.served(scene.digest(0)).bytes, SIZE, "no byte comes twice");
}

async fn status_200_to_range_restarts_from_zero(fixture: &dyn HttpFixture) {
    let scene = Scene::new(1, Options::default());
    scene.server.script(scene.layer(0).times(1), [Fault::TruncateAt(1000)]);
    scene.server.script(scene.layer(0).ranged(true), [Fault::IgnoreRange]);
    let registry = sound(fixture.open(&scene.setup()).await);
    scene.pulled(fixture).await;
    let blob = sound(registry.blob(&scene.name, &scene.layers[0], BlobRange::new(100, 200)).await);
    let at = usize::try_from(blob.offset()).expect("a small offset");
    let bytes = sound(blob.bytes(SIZE).await);
    assert!(at + bytes.len() >= 200 && bytes == scene.content(0).slice(at..at + bytes.len()));
}

async fn status_206_with_wrong_content_range_rejected(fixture: &dyn HttpFixture) {
    let missing = Fault::Header("Content-Range", None);
    for fault in [Fault::WrongRange(1), Fault::WrongTotal(1 << 40), missing] {
        let shown = format!("{fault:?}");
        let scene = Scene::new(1, Options::default());
        scene.server.script(scene.layer(0).times(1), [Fault::TruncateAt(1000)]);
        scene.server.script(scene.layer(0).ranged(true).times(2), [fault]);
        let registry = sound(fixture.open(&scene.setup()).await);
        let cache = scene.pulled(fixture).await;
        sound(cache.verify_blob(&scene.layers[0]).await);
        scene.server.script(scene.layer(0).ranged(true), [Fault::WrongRange(1)]);
        let part = registry.blob(&scene.name, &scene.layers[0], BlobRange::from_start(500)).await;
        assert!(part.is_err() || part.is_ok_and(|blob| blob.offset() == 0), "{shown} is taken for the range");
    }
}

async fn status_416_resets_partial(fixture: &dyn HttpFixture) {
    let scene = Scene::new(1, Options::default());
    scene.server.script(scene.layer(0).times(1), [Fault::TruncateAt(1000)]);
    scene.server.script(scene.layer(0).ranged(true), [Fault::Status(416)]);
    scene.pulled(fixture).await;
    let asked = scene.asked(0);
    assert!(asked.len() <= 3 && asked.last().is_some_and(|x| x.header("range").is_none()), "{asked:?}");
    // The backend does so itself, without an error that the pull would go on from.
    let registry = sound(fixture.open(&scene.setup()).await);
    let part = sound(registry.blob(&scene.name, &scene.layers[0], BlobRange::from_start(500)).await);
    assert_eq!(part.offset(), 0);
    // Some servers break the connection where 416 is due, others do so by accident.
    let scene = Scene::new(1, Options::default());
    scene.server.script(scene.layer(0).times(1), [Fault::TruncateAt(1000)]);
    scene.server.script(scene.layer(0).ranged(true).times(2), [Fault::Close]);
    scene.pulled(fixture).await;
}

async fn resume_survives_process_restart(fixture: &dyn HttpFixture) {
    let scene = Scene::new(2, Options::default());
    scene.server.script(scene.layer(0).times(1), [Fault::TruncateAt(1000)]);
    let (cache, options) = (cache(), PullOptions { concurrency: 1, ..once() });
    assert_kind(scene.pull(fixture, &cache, &options).await, &ErrorKind::Unavailable);
    let first = scene.server.served(scene.digest(0)).bytes;
    sound(scene.pull(fixture, &cache, &options).await);
    let range = scene.asked(0).last().and_then(|x| x.header("range").map(str::to_owned));
    assert_eq!(range, Some(format!("bytes={first}-{}", SIZE - 1)));
    for layer in &scene.layers {
        sound(cache.verify_blob(layer).await);
    }
}

async fn partial_prefix_rehashed_before_resume(fixture: &dyn HttpFixture) {
    let scene = Scene::new(1, Options::default());
    scene.server.script(scene.layer(0).times(1), [Fault::Flip(5), Fault::TruncateAt(1000)]);
    let (cache, options) = (cache(), once());
    assert_kind(scene.pull(fixture, &cache, &options).await, &ErrorKind::Unavailable);
    sound(scene.pull(fixture, &cache, &options).await);
    sound(cache.verify_blob(&scene.layers[0]).await);
    assert!(scene.asked(0).len() <= 3, "the wrong bytes are fetched again once");
}

async fn no_progress_timeout_bounds_attempts(fixture: &dyn HttpFixture) {
    for fault in [Fault::StallAt(0), Fault::StallAt(1000), Fault::Pace(1, Duration::from_millis(20))] {
        let shown = format!("{fault:?}");
        let scene = Scene::new(1, Options::default());
        // The fourth attempt would succeed.
        scene.server.script(scene.layer(0).times(3), [fault]);
        let mut options = quick();
        options.retry.attempts = 3;
        let error = assert_kind(scene.pull(fixture, &cache(), &options).await, &ErrorKind::Timeout);
        assert_eq!(scene.asked(0).len(), 3, "{shown}: {error}");
    }
}

async fn retry_after_seconds_and_date_honoured_and_capped(fixture: &dyn HttpFixture) {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3));
    let second = Duration::from_secs(1);
    for (value, status, cap, least, most) in [
        // First of all, while the date is still to come.
        (Some(date), 503, second * 10, second, second * 20),
        (Some("1".to_owned()), 429, second * 10, second, second * 20),
        (Some("1000000000".to_owned()), 429, second / 10, second / 10, second * 20),
        (None, 429, second / 10, Duration::ZERO, second * 20),
        (Some("soon".to_owned()), 429, second / 10, Duration::ZERO, second * 20),
    ] {
        let scene = Scene::new(1, Options::default());
        let refusal = [Fault::Status(status), Fault::Header("Retry-After", value.clone())];
        scene.server.script(scene.layer(0).times(1), refusal);
        let mut options = quick();
        options.retry.cap = cap;
        let start = Instant::now();
        sound(scene.pull(fixture, &cache(), &options).await);
        let taken = start.elapsed();
        assert!((least..most).contains(&taken), "{value:?}: {taken:?}");
    }
}

async fn status_429_5xx_retried_4xx_not(fixture: &dyn HttpFixture) {
    for (status, is_final) in [
        (429, false),
        (500, false),
        (502, false),
        (503, false),
        (504, false),
        (400, true),
        (403, true),
        (404, true),
        (405, true),
        (410, true),
    ] {
        let scene = Scene::new(1, Options::default());
        scene.server.script(scene.layer(0).times(2), [Fault::Status(status)]);
        let outcome = scene.pull(fixture, &cache(), &quick()).await;
        assert_eq!(outcome.is_err(), is_final, "{status}: {outcome:?}");
        assert_eq!(scene.asked(0).len(), if is_final { 1 } else { 3 }, "{status}");
    }
}

async fn exact_attempt_count(fixture: &dyn HttpFixture) {
    for attempts in [1, 4] {
        let scene = Scene::new(1, Options::default());
        scene.server.script(scene.layer(0), [Fault::Status(503)]);
        let mut options = quick();
        options.retry.attempts = attempts;
        assert_kind(scene.pull(fixture, &cache(), &options).await, &ErrorKind::Unavailable);
        assert_eq!(scene.asked(0).len(), attempts as usize, "attempts to read a blob");
        scene.server.script(On::manifests(), [Fault::Close]);
        scene.server.clear_requests();
        assert_kind(scene.pull(fixture, &cache(), &options).await, &ErrorKind::Unavailable);
        assert_eq!(scene.server.requests().len(), attempts as usize, "attempts to read a manifest");
    }
}

async fn concurrency_bound_reached_never_exceeded(fixture: &dyn HttpFixture) {
    let scene = Scene::new(8, Options::default());
    scene.server.script(On::blobs(), [Fault::Delay(Duration::from_millis(100))]);
    let options = PullOptions { concurrency: 3, stall: Duration::from_secs(30), ..quick() };
    sound(scene.pull(fixture, &cache(), &options).await);
    assert_eq!(scene.server.busiest(), 3);
}

async fn duplicate_layer_digests_fetched_once(fixture: &dyn HttpFixture) {
    let sample = samples::repeated_layer();
    let scene = Scene::of(sample, Options::default());
    assert_eq!(scene.digest(0), scene.digest(2), "the sample has a layer twice");
    scene.pulled(fixture).await;
    assert_eq!(scene.asked(0).len(), 1);
}

/// The size of each layer in bytes.
const SIZE: u64 = 64 << 10;

async fn content_encoding_does_not_decide(fixture: &dyn HttpFixture) {
    for coding in ["gzip", "x-gzip", "zstd", "br", "identity"] {
        let scene = Scene::new(1, Options::default());
        let label = Fault::Header("Content-Encoding", Some(coding.to_owned()));
        scene.server.script(On::blobs(), [label]);
        scene.pulled(fixture).await;
        let registry = sound(fixture.open(&scene.setup()).await);
        let part = sound(registry.blob(&scene.name, &scene.layers[0], BlobRange::new(5, 50)).await);
        let at = usize::try_from(part.offset()).expect("a small offset");
        let bytes = sound(part.bytes(SIZE).await);
        assert!(bytes == scene.content(0).slice(at..at + bytes.len()), "{coding}");
    }
    let scene = Scene::new(1, Options::default());
    for faults in [vec![Fault::GzipEncoded], vec![Fault::GzipEncoded, Fault::Chunked]] {
        scene.server.clear_scripts();
        scene.server.script(On::blobs(), faults);
        let registry = sound(fixture.open(&scene.setup()).await);
        let blob = registry.blob(&scene.name, &scene.layers[0], BlobRange::FULL).await;
        let read = match blob {
            Ok(blob) => blob.bytes(SIZE).await,
            Err(e) => Err(e),
        };
        // A client that undoes the coding has the blob, too.
        match read {
            Ok(bytes) => assert!(bytes == scene.content(0)),
            Err(e) => assert_eq!(*e.kind(), ErrorKind::Corrupt, "{e}"),
        }
    }
}

/// A server with one image, whose layers tests break.
struct Scene {
    server: FaultServer,
    name: Reference,
    sample: Sample,
    layers: Vec<Descriptor>,
}

impl Scene {
    /// An image with `count` different layers of [`SIZE`] bytes.
    fn new(count: usize, options: Options) -> Self {
        let tars: Vec<_> = (0..count).map(layer_tar).collect();
        Self::of(samples::of_layers("transfers", &tars), options)
    }

    fn of(sample: Sample, options: Options) -> Self {
        let server = FaultServer::with(options).expect("the loopback interface has a free port");
        server.put("library/app", "1.2", &sample);
        let name = HttpSetup::of(&server).reference("library/app:1.2");
        let layers = sample.images[0].layers.iter().map(|layer| layer.descriptor.clone()).collect();
        Self { server, name, sample, layers }
    }

    fn setup(&self) -> HttpSetup {
        HttpSetup::of(&self.server)
    }

    fn digest(&self, layer: usize) -> &plyfold_core::Digest {
        self.layers[layer].digest()
    }

    fn layer(&self, layer: usize) -> On {
        On::blob(self.digest(layer)).method("GET")
    }

    fn content(&self, layer: usize) -> Bytes {
        self.sample.blob(self.digest(layer)).expect("the sample has its layers").clone()
    }

    /// The reads of a layer so far.
    fn asked(&self, layer: usize) -> Vec<Exchange> {
        let of = format!("/blobs/{}", self.digest(layer));
        let mut requests = self.server.requests();
        requests.retain(|exchange| exchange.method == "GET" && exchange.target.contains(&of));
        requests
    }

    /// A pull by a backend that has never been used.
    async fn pull(
        &self,
        fixture: &dyn HttpFixture,
        cache: &MemoryCache,
        options: &PullOptions,
    ) -> Result<PullResult> {
        let registry = sound(fixture.open(&self.setup()).await);
        fixture.client().pull(&*registry, &self.name, cache, options).await
    }

    /// A pull that ends well, and where it went.
    async fn pulled(&self, fixture: &dyn HttpFixture) -> MemoryCache {
        let cache = cache();
        sound(self.pull(fixture, &cache, &quick()).await);
        for layer in &self.layers {
            sound(cache.verify_blob(layer).await);
        }
        cache
    }
}

/// A tar of [`SIZE`] bytes, another one for each number.
fn layer_tar(number: usize) -> Vec<u8> {
    // A header, the content, and the two blocks that end a tar.
    let mut content = vec![0; usize::try_from(SIZE).expect("a small size") - 3 * 512];
    for (at, byte) in content.iter_mut().enumerate() {
        *byte = (at * 7 + at / 251 + number * 31) as u8;
    }
    let tar = LayerBuilder::new().file("content", 0o644, &content).finish();
    assert_eq!(tar.len() as u64, SIZE, "the layer's tar has the size that rules count with");
    tar
}

fn cache() -> MemoryCache {
    sound(MemoryCache::new())
}

/// Options that lose no time, with patience for a slow machine.
fn quick() -> PullOptions {
    let mut options = PullOptions {
        platform: Platform::new("linux", "amd64", None),
        stall: Duration::from_millis(500),
        ..PullOptions::default()
    };
    (options.retry.base, options.retry.cap) = (Duration::from_millis(1), Duration::from_millis(20));
    options
}

/// The same without a second attempt.
fn once() -> PullOptions {
    let mut options = quick();
    options.retry.attempts = 1;
    options
}
