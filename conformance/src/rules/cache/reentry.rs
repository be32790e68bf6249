//! A cache that is used from within its own work, and while the network has stalled.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use plyfold_core::{
    Blob, CacheProvider, CacheProviderExt, Collect, Descriptor, ErrorKind, Progress, PullOptions, PullPolicy,
    Verify,
};
use tokio::sync::{Notify, Semaphore};

use super::setup::{
    amd64, blob, document, handles, name, names, promptly, pull, registry_with, set, stream_of,
};
use crate::CacheFixture;
use crate::rule::rules;
use crate::rules::probe::{Hooked, NAME, assert_kind, sound};
use crate::samples;

rules! {
    $ __cache_reentry_rules of dyn CacheFixture;
    "K 123" callback_reentry_no_deadlock:
        "a source, a backend and a receiver of progress may use the cache that is being filled",
    "K 124" lock_not_held_over_network:
        "while a download has stalled, everything else in the cache goes on",
}

async fn callback_reentry_no_deadlock(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let content = Bytes::from_static(b"the source of this blob uses the cache");
    let wanted = blob(&content);
    let (cache, inner) = (subject.cache.clone(), wanted.clone());
    let stream = stream::once(async move {
        use_it(&*cache, &inner, "registry.example/from/a/source:1").await;
        Ok(content)
    });
    let stored = subject.cache.put(sound(Blob::new(&wanted, stream)));
    sound(promptly(fixture, "a blob whose source uses the cache", stored).await);

    let sample = samples::image();
    let (cache, inner) = (subject.cache.clone(), wanted.clone());
    let registry = Hooked::new(&registry_with(&sample, NAME), move |digest| {
        let (cache, inner) = (cache.clone(), inner.clone());
        let text = format!("registry.example/from/a/backend:{}", &digest.digest()[..8]);
        Box::pin(async move { use_it(&*cache, &inner, &text).await })
    });
    let (progress, mut events) = Progress::channel();
    let cache = subject.cache.clone();
    let receiver = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            use_it(&*cache, &wanted, "registry.example/from/a/receiver:1").await;
            drop(event);
        }
    });
    let options = PullOptions { platform: amd64(), progress, ..PullOptions::default() };
    let reference = name(NAME);
    let pulled = subject.client.pull(&registry, &reference, &*subject.cache, &options);
    sound(promptly(fixture, "a pull whose backend uses the cache", pulled).await);
    drop(options);
    promptly(fixture, "a receiver of progress that uses the cache", receiver)
        .await
        .expect("it does not panic");
    assert!(sound(subject.cache.image_in_cache(&name(NAME), &amd64()).await));
    for at in ["source", "receiver"] {
        let text = format!("registry.example/from/a/{at}:1");
        assert!(names(&*subject.cache).await.iter().any(|(name, _)| *name == text), "{text}");
    }
}

/// One of everything that a callback may want of a cache.
async fn use_it(cache: &dyn CacheProvider, blob: &Descriptor, text: &str) {
    sound(cache.stat(blob.digest()).await);
    let content = document(cache, text).await;
    set(cache, text, &content).await;
    assert!(sound(cache.find_descriptor(&name(text)).await).is_some());
    sound(cache.list().await);
    drop(sound(cache.lease(std::slice::from_ref(blob.digest())).await));
    drop(sound(cache.single_flight(text).await));
}

async fn lock_not_held_over_network(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let sample = samples::image();
    let (stuck, release) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let layer = sample.images[0].layers[0].descriptor.digest().clone();
    let (waits, gate) = (stuck.clone(), release.clone());
    let registry = Hooked::new(&registry_with(&sample, NAME), move |digest| {
        let (waits, gate, stops) = (waits.clone(), gate.clone(), *digest == layer);
        Box::pin(async move {
            if stops {
                waits.notify_one();
                drop(gate.acquire().await);
            }
        })
    });
    let (client, cache) = (subject.client.clone(), subject.cache.clone());
    let options = PullOptions { platform: amd64(), ..PullOptions::default() };
    let standing = tokio::spawn(async move { client.pull(&registry, &name(NAME), &*cache, &options).await });
    stuck.notified().await;

    for (number, cache) in handles(&subject, 2).await.into_iter().enumerate() {
        promptly(fixture, "what another does beside a download that has stalled", async {
            let text = format!("registry.example/beside:{number}");
            use_it(&*cache, &blob(b"elsewhere"), &text).await;
            sound(cache.put(stream_of(&blob(b"beside"), [Ok(b"beside")])).await);
            sound(cache.verify(&Verify::default()).await);
            sound(cache.free().await);
            sound(cache.pins().await);
            if fixture.collects() {
                sound(cache.usage().await);
                sound(cache.collect(&Collect::default()).await);
            } else {
                assert_kind(cache.usage().await, &ErrorKind::Unsupported);
                assert_kind(cache.collect(&Collect::default()).await, &ErrorKind::Unsupported);
            }
            sound(cache.remove(&name(&text)).await);
        })
        .await;
    }
    let (beside, other) = (samples::index(), "registry.example/library/other:1");
    let registry = registry_with(&beside, other);
    let reference = name(other);
    let pulled = pull(&subject, &registry, &reference, PullPolicy::IfMissing);
    sound(promptly(fixture, "a pull beside one that has stalled", pulled).await);

    release.add_permits(1);
    sound(standing.await.expect("the pull does not panic"));
    assert!(sound(subject.cache.image_in_cache(&name(NAME), &amd64()).await), "all of it is still here");
}
