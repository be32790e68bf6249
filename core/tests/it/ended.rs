//! Work that ends before its time: what it says last, and what it leaves running.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use plyfold_core::cache::Verify;
use plyfold_core::layer::LayerTar;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::progress::{Event, Events, Progress};
use plyfold_core::{
    CacheProvider as _, CacheProviderExt as _, CopyOptions, ErrorKind, Format, ImageRegistry as _, Input,
    LoadOptions, Made, Materializer, Opened, PullOptions, PullPolicy, Result, Role, Sink, copy, pull,
};
use tokio::runtime::Builder;

use crate::events::Watched;
use crate::fixture::{Drain, Fault, Scripted, layer, name, options, put_image};

const IMAGE: &str = "example.com/app:1";

fn staged() -> MemoryRegistry {
    let registry = MemoryRegistry::new("a");
    let layers = [layer("a", 300), layer("b", 700_000), layer("c", 500_000)];
    put_image(&registry, &name(IMAGE), ("linux", "amd64"), &layers);
    registry
}

/// Polls a future so many times and then drops it; whether it has ended by itself.
async fn polled<T>(future: impl Future<Output = Result<T>>, mut polls: usize) -> Option<bool> {
    let mut future = Box::pin(future);
    poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        future.as_mut().poll(context).map(|outcome| Some(outcome.is_ok()))
    })
    .await
}

/// Reads events to their end: the last one and no other tells the end of all, and each blob that was started ends once.
async fn check(mut events: Events, success: bool, when: &str) {
    let (mut all, mut started) = (Vec::new(), BTreeMap::new());
    while let Some(event) = events.next().await {
        match &event {
            Event::BlobStarted { digest, .. } => {
                assert_eq!(started.insert(digest.to_string(), true), None, "{when}: {all:?}");
            }
            Event::BlobStopped { digest } | Event::BlobDone { digest, cached: false, .. } => {
                assert_eq!(started.insert(digest.to_string(), false), Some(true), "{when}: {all:?}");
            }
            _ => {}
        }
        all.push(event);
    }
    let ends = all.iter().filter(|event| matches!(event, Event::Finished { .. })).count();
    assert_eq!((ends, all.last()), (1, Some(&Event::Finished { success })), "{when}: {all:?}");
    assert!(started.values().all(|is_running| !is_running), "{when}: {all:?}");
}

#[tokio::test]
async fn a_pull_that_is_dropped_after_any_poll_tells_its_end() {
    let registry = staged();
    for faults in [&[][..], &[Fault::Breaks(100), Fault::Refuses], &[Fault::Stalls]] {
        for polls in 1.. {
            let (scripted, cache) = (Scripted::new(&registry, faults), Watched::new());
            let (progress, events) = Progress::channel();
            let image = name(IMAGE);
            let options = PullOptions {
                materializer: Some(Box::new(Drain)),
                progress,
                stall: Duration::from_millis(30),
                ..options(PullPolicy::IfMissing)
            };
            let ended = polled(pull(&scripted, &image, &cache, &options), polls).await;
            drop(options);
            check(events, ended == Some(true), &format!("{faults:?} after {polls}")).await;
            if ended.is_some() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_copy_and_a_push_that_are_dropped_after_any_poll_tell_their_end() {
    let registry = staged();
    let (cache, image) = (Watched::new(), name(IMAGE));
    pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    for faults in [&[][..], &[Fault::Refuses]] {
        for polls in 1.. {
            let (scripted, target) = (Scripted::new(&registry, faults), MemoryRegistry::new("b"));
            let (progress, events) = Progress::channel();
            let options = CopyOptions { progress, ..CopyOptions::default() };
            let ended = polled(copy(&scripted, &image, &target, &image, &options), polls).await;
            drop(options);
            check(events, ended == Some(true), &format!("copy, {faults:?} after {polls}")).await;
            if ended.is_some() {
                break;
            }
        }
    }
    for polls in 1.. {
        let target = MemoryRegistry::new("b");
        let (progress, events) = Progress::channel();
        let copy = CopyOptions { progress, ..CopyOptions::default() };
        let options = copy;
        let ended = polled(cache.push(&image, &target, &image, &options), polls).await;
        drop(options);
        check(events, ended == Some(true), &format!("push after {polls}")).await;
        if ended.is_some() {
            break;
        }
    }
}

#[tokio::test]
async fn what_fails_before_its_first_step_tells_its_end() {
    let (registry, cache, image) = (staged(), MemoryCache::new().unwrap(), name(IMAGE));
    let (progress, events) = Progress::channel();
    let copies = CopyOptions { progress, ..CopyOptions::default() };
    let read_only = cache.as_registry();
    assert!(!read_only.capabilities().push);
    copy(&registry, &image, &read_only, &image, &copies).await.unwrap_err();
    drop(copies);
    check(events, false, "a copy to what stores nothing").await;

    let (progress, events) = Progress::channel();
    let pushes = CopyOptions { progress, ..CopyOptions::default() };
    cache.push(&image, &registry, &image, &pushes).await.unwrap_err();
    drop(pushes);
    check(events, false, "a push of what is not here").await;

    let (progress, events) = Progress::channel();
    let loads = LoadOptions { progress, ..LoadOptions::default() };
    let nothing = Opened { registry: Box::new(MemoryRegistry::new("empty")), reference: None };
    cache.image_load(&nothing, &loads).await.unwrap_err();
    drop(loads);
    check(events, false, "a load of nothing").await;

    let (progress, events) = Progress::channel();
    let verify = Verify { images: Some(vec![image]), progress, ..Verify::default() };
    cache.verify(&verify).await.unwrap_err();
    drop(verify);
    check(events, false, "a verification of what is not here").await;
}

/// Takes its time to see that its layer ends too early, and counts itself while it runs.
#[derive(Clone, Debug, Default)]
struct Slow {
    started: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

impl Materializer for Slow {
    fn format(&self) -> Format {
        Format { name: "slow", version: 1, options: String::new(), extension: "empty" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        out.output(Role::Image)?;
        self.running.fetch_add(1, Ordering::SeqCst);
        self.started.fetch_add(1, Ordering::SeqCst);
        let outcome = tar.finish().map(|_| Made::default());
        std::thread::sleep(Duration::from_millis(200));
        self.running.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}

impl Slow {
    fn options(&self) -> PullOptions {
        PullOptions { materializer: Some(Box::new(self.clone())), ..options(PullPolicy::IfMissing) }
    }

    async fn started(&self, count: usize) {
        while self.started.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

/// One layer is refused while the others are being converted.
#[tokio::test]
async fn a_pull_that_fails_leaves_no_conversion_running() {
    let (registry, image, slow) = (staged(), name(IMAGE), Slow::default());
    let cache = Watched::new();
    let scripted = Scripted::new(&registry, &[Fault::Stalls, Fault::Breaks(100), Fault::Refuses]);
    let mut options = PullOptions { stall: Duration::from_millis(300), ..slow.options() };
    options.retry.attempts = 1;
    let error = pull(&scripted, &image, &cache, &options).await.unwrap_err();
    assert_ne!(*error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(slow.started.load(Ordering::SeqCst) > 0);
    assert_eq!(slow.running(), 0);
}

/// Out of the cache as well as on the way into it.
#[test]
fn a_runtime_ends_after_the_conversions_of_pulls_that_were_dropped() {
    for is_here in [false, true] {
        let (registry, image, slow, cache) = (staged(), name(IMAGE), Slow::default(), Watched::new());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            if is_here {
                pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
            }
            let scripted = Scripted::new(&registry, &[Fault::Stalls; 3]);
            let options = slow.options();
            tokio::select! {
                outcome = pull(&scripted, &image, &cache, &options) => panic!("it ended: {outcome:?}"),
                () = slow.started(3) => {}
            }
        });
        drop(runtime);
        assert_eq!(slow.running(), 0, "{is_here}");
    }
}
