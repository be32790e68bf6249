//! Collections beside pulls, removals and readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{Blob, BlobRange, CacheProviderExt, Platform, PullOptions, Verify};
use tokio::task::JoinSet;

use super::collect::{collect, refuses_to_collect};
use super::setup::{blob, handles, name, names, set};
use crate::fixtures::fill;
use crate::rule::rules;
use crate::rules::probe::{Hooked, NAME, sound};
use crate::samples;
use crate::{CacheFixture, FixtureImage};

rules! {
    $ __cache_foreign_handles_rules of dyn CacheFixture;
    "K 125" gc_vs_pull_vs_remove_stress:
        "pulls, removals and collections at once: no pull fails, and no name lacks anything at any time",
    "K 126" open_reader_survives_remove:
        "who reads content reads it to its end, though its name is removed and it is collected meanwhile",
}

async fn gc_vs_pull_vs_remove_stress(fixture: &dyn CacheFixture) {
    const ROUNDS: usize = 5;
    let subject = fixture.open().await;
    if !fixture.collects() {
        return refuses_to_collect(&subject).await;
    }
    // All of them share an index, and each pair of neighbours a layer.
    let sample = samples::index();
    let platforms = ["linux/amd64", "linux/386", "linux/arm64/v8", "linux/arm/v7"];
    let of = |task: usize| format!("registry.example/library/app:{task}");
    let registry = MemoryRegistry::new("origin");
    for task in 0..8 {
        fill(&registry, &FixtureImage::new(&of(task), &sample));
    }
    // Within each pull for certain, besides those that run whenever the machine gives them time.
    let within = sound(subject.medium.reopen().await);
    let registry = Hooked::new(&registry, move |_| {
        let within = within.clone();
        Box::pin(async move { drop(collect(&*within).await) })
    });
    // One layer after the other, alone: each collection meets what was fetched before it, whatever the machine's speed.
    let alone =
        PullOptions { platform: sound(platforms[0].parse()), concurrency: 1, ..PullOptions::default() };
    drop(sound(subject.client.pull(&registry, &name(&of(0)), &*subject.cache, &alone).await));
    sound(subject.cache.remove(&name(&of(0))).await);

    let mut pulls = JoinSet::new();
    for (task, cache) in handles(&subject, 4).await.into_iter().cycle().take(8).enumerate() {
        let (client, registry, text) = (subject.client.clone(), registry.clone(), of(task));
        let platform: Platform = sound(platforms[task % platforms.len()].parse());
        pulls.spawn(async move {
            let options = PullOptions { platform: platform.clone(), ..PullOptions::default() };
            for round in 0..ROUNDS {
                let result = sound(client.pull(&registry, &name(&text), &*cache, &options).await);
                assert!(
                    sound(cache.image_in_cache(&name(&text), &platform).await),
                    "{text} in round {round}"
                );
                drop(result);
                if task % 2 == 1 {
                    sound(cache.remove(&name(&text)).await);
                } else {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    assert!(
                        sound(cache.image_in_cache(&name(&text), &platform).await),
                        "{text} stays complete"
                    );
                }
            }
        });
    }
    let done = Arc::new(AtomicBool::new(false));
    let mut collectors = JoinSet::new();
    for cache in handles(&subject, 2).await {
        let done = done.clone();
        collectors.spawn(async move {
            while !done.load(Ordering::SeqCst) {
                collect(&*cache).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    pulls.join_all().await;
    done.store(true, Ordering::SeqCst);
    collectors.join_all().await;

    collect(&*subject.cache).await;
    let left: Vec<_> = names(&*subject.cache).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, [of(0), of(2), of(4), of(6)]);
    let verified = sound(subject.cache.verify(&Verify::default()).await);
    assert_eq!(verified.damage, []);
    for text in left {
        sound(subject.cache.remove(&name(&text)).await);
    }
    collect(&*subject.cache).await;
    assert_eq!(sound(subject.cache.usage().await).blobs, 0, "nothing is left behind");
    assert_eq!(subject.medium.leftovers(), [""; 0]);
}

async fn open_reader_survives_remove(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    if !fixture.collects() {
        return refuses_to_collect(&subject).await;
    }
    let cache = &subject.cache;
    let content: Bytes = (0..8_u32 << 20).map(|at| (at / 4093) as u8).collect::<Vec<_>>().into();
    let wanted = blob(&content);
    sound(cache.put(sound(Blob::from_bytes(&wanted, BlobRange::FULL, &content))).await);
    set(&**cache, NAME, &wanted).await;
    let mut whole = sound(cache.open(&wanted, BlobRange::FULL).await);
    let mut tail = sound(cache.open(&wanted, BlobRange::from_start(1)).await);
    let first = sound(whole.chunk().await).expect("it begins");

    let other = sound(subject.medium.reopen().await);
    sound(other.remove(&name(NAME)).await);
    collect(&*other).await;
    assert_eq!(sound(cache.stat(wanted.digest()).await), None);
    let mut read = first.len();
    while let Some(chunk) = sound(whole.chunk().await) {
        assert_eq!(chunk, content[read..read + chunk.len()]);
        read += chunk.len();
    }
    assert_eq!(read, content.len());
    let mut read = 1;
    while let Some(chunk) = sound(tail.chunk().await) {
        assert_eq!(chunk, content[read..read + chunk.len()]);
        read += chunk.len();
    }
    assert_eq!(read, content.len());
}
