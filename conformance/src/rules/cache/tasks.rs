//! Many tasks on many handles at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use plyfold_core::{
    BlobRange, BlobWriter, CacheProvider, CacheProviderExt, Descriptor, ErrorKind, Ingest, NameChange,
    PullOptions, Result, digest,
};
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;

use super::setup::{
    PAUSE, amd64, blob, document, handles, name, names, promptly, registry_with, set, waiting,
};
use crate::CacheFixture;
use crate::rule::{not_judged, rules};
use crate::rules::probe::{Counting, Hooked, NAME, read, sound};
use crate::samples;

rules! {
    $ __cache_tasks_rules of dyn CacheFixture;
    "K 117" n_processes_add_n_tags_all_survive:
        "of names that many handles set at once, none is lost",
    "K 118" n_threads_same_blob_one_write:
        "a blob that many want at once is written by one, and fetched once",
    "K 119" winner_cancelled_waiter_succeeds:
        "when a writer gives up, the next one takes over",
    "K 120" reader_never_sees_partial_blob_or_index:
        "beside a writer, a reader sees whole content or none, and a name's old meaning or its new one",
    "K 121" two_handles_one_process_exclude_each_other:
        "two handles of one process exclude each other as two processes do",
    "K 122" nested_write_keeps_outer_lock:
        "a task that writes one blob while another is open keeps the right to both",
}

/// Handles in the place of processes.
const HANDLES: usize = 4;
/// Tasks on each handle.
const TASKS: usize = 8;

async fn n_processes_add_n_tags_all_survive(fixture: &dyn CacheFixture) {
    const EACH: usize = 4;
    let subject = fixture.open().await;
    let mut tasks = JoinSet::new();
    let mut expected = Vec::new();
    for (handle, cache) in handles(&subject, HANDLES).await.into_iter().enumerate() {
        for task in 0..TASKS {
            let own = (0..EACH).map(move |tag| format!("registry.example/app:{handle}-{task}-{tag}"));
            expected.extend(own.clone());
            let cache = cache.clone();
            tasks.spawn(async move {
                for text in own {
                    let content = document(&*cache, &text).await;
                    // A passing name beside the one that stays.
                    let (stays, passes) = (name(&text), name(&format!("{text}-passing")));
                    let changes = [stays, passes.clone()].map(|name| NameChange::Set(name, content.clone()));
                    sound(cache.update(&changes).await);
                    sound(cache.remove(&passes).await);
                }
            });
        }
    }
    tasks.join_all().await;
    expected.sort();
    let found: Vec<_> = names(&*subject.cache).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, expected);
}

async fn n_threads_same_blob_one_write(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let handles = handles(&subject, HANDLES).await;
    let writers = Arc::new(AtomicUsize::new(0));
    // All have asked before the one that writes goes on, however slow the machine is.
    let all_asked = Arc::new(Barrier::new(TASKS * HANDLES));
    let mut tasks = JoinSet::new();
    for cache in (0..TASKS).flat_map(|_| handles.clone()) {
        let (writers, all_asked) = (writers.clone(), all_asked.clone());
        tasks.spawn(async move {
            let (wanted, content) = large();
            let mut asks = cache.ingest(&wanted);
            let answer = poll_fn(|context| Poll::Ready(asks.as_mut().poll(context))).await;
            all_asked.wait().await;
            let granted = match answer {
                Poll::Ready(granted) => granted,
                Poll::Pending => asks.await,
            };
            if let Ingest::Vacant(writer) = sound(granted) {
                writers.fetch_add(1, Ordering::SeqCst);
                // A cache that asks other threads has the same time to answer as one that must wait.
                tokio::time::sleep(PAUSE).await;
                sound(write_on(writer, &content).await);
            }
            sound(cache.verify_blob(&wanted).await);
        });
    }
    tasks.join_all().await;
    assert_eq!(writers.load(Ordering::SeqCst), 1, "writers of one blob");

    let sample = samples::image();
    let counting = Counting::new(&registry_with(&sample, NAME));
    let all_here = Arc::new(Barrier::new(TASKS * HANDLES));
    let slow = Hooked::new(&counting, |_| Box::pin(tokio::task::yield_now()));
    let mut tasks = JoinSet::new();
    for cache in (0..TASKS).flat_map(|_| handles.clone()) {
        let (client, registry, all_here) = (subject.client.clone(), slow.clone(), all_here.clone());
        tasks.spawn(async move {
            all_here.wait().await;
            sound(client.pull(&registry, &name(NAME), &*cache, &for_amd64()).await)
        });
    }
    tasks.join_all().await;
    for layer in &sample.images[0].layers {
        let fetched = counting.fetched();
        let count = fetched.iter().filter(|digest| *digest == layer.descriptor.digest()).count();
        assert_eq!(count, 1, "a layer is fetched once for all that want it");
    }
}

async fn winner_cancelled_waiter_succeeds(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let other = sound(subject.medium.reopen().await);
    let (wanted, content) = large();
    let half = content.slice(..content.len() / 2);
    let (cache, begun) = (subject.cache.clone(), Arc::new(Notify::new()));
    let (blob, winner_begun) = (wanted.clone(), begun.clone());
    let winner = tokio::spawn(async move {
        let mut writer = vacant(&*cache, &blob).await;
        sound(writer.write(half).await);
        winner_begun.notify_one();
        std::future::pending::<()>().await;
    });
    begun.notified().await;
    let (cache, blob) = (other.clone(), wanted.clone());
    let second = async move { write_on(vacant(&*cache, &blob).await, &content).await };
    let waiter = waiting("the second writer", second).await;
    winner.abort();
    sound(promptly(fixture, "the second writer", waiter).await.expect("the second writer does not panic"));
    sound(subject.cache.verify_blob(&wanted).await);

    // A pull whose caller no longer wants it.
    let (stuck, caught) = (Arc::new(Notify::new()), stuck_registry());
    let (registry, client, cache) = (caught(stuck.clone()), subject.client.clone(), subject.cache.clone());
    let winner = tokio::spawn(async move {
        drop(client.pull(&registry, &name(NAME), &*cache, &for_amd64()).await);
    });
    stuck.notified().await;
    let (client, cache) = (subject.client.clone(), other.clone());
    let sample = samples::image();
    let waiter = tokio::spawn(async move {
        client.pull(&registry_with(&sample, NAME), &name(NAME), &*cache, &for_amd64()).await
    });
    tokio::task::yield_now().await;
    winner.abort();
    sound(promptly(fixture, "the second pull", waiter).await.expect("the second pull does not panic"));
    assert!(sound(subject.cache.image_in_cache(&name(NAME), &amd64()).await));
}

async fn reader_never_sees_partial_blob_or_index(fixture: &dyn CacheFixture) {
    const ROUNDS: usize = 12;
    let subject = fixture.open().await;
    let reader = sound(subject.medium.reopen().await);
    let done = Arc::new(AtomicBool::new(false));
    let contents: Vec<Bytes> = (0..ROUNDS).map(|round| vec![round as u8; 300_000 + round].into()).collect();
    let meanings: Vec<_> = contents.iter().map(|content| blob(content)).collect();
    let first = document(&*subject.cache, "first").await;
    set(&*subject.cache, NAME, &first).await;

    let (cache, finished, steps) = (subject.cache.clone(), done.clone(), meanings.clone());
    let writer = tokio::spawn(async move {
        for (wanted, content) in steps.iter().zip(&contents) {
            sound(write_on(vacant(&*cache, wanted).await, content).await);
            set(&*cache, NAME, wanted).await;
        }
        finished.store(true, Ordering::SeqCst);
    });
    let mut newest = 0;
    while !done.load(Ordering::SeqCst) && !writer.is_finished() {
        let found = sound(reader.find_descriptor(&name(NAME)).await).expect("the name is always there");
        assert_eq!(sound(reader.list().await).len(), 1, "the name is listed, once");
        if let Some(place) = meanings.iter().position(|wanted| wanted.digest() == found.digest()) {
            assert!(place >= newest, "the name does not go back");
            newest = place;
            sound(reader.verify_blob(&meanings[place]).await);
        } else {
            assert_eq!(found.digest(), first.digest());
        }
        let next = &meanings[(newest + 1).min(ROUNDS - 1)];
        if let Some(size) = sound(reader.stat(next.digest()).await) {
            assert_eq!(size, next.size(), "a blob is there whole or not at all");
        }
        match read(reader.open(next, BlobRange::FULL).await).await {
            Ok(content) => assert_eq!(content.len() as u64, next.size()),
            Err(error) => assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}"),
        }
        tokio::task::yield_now().await;
    }
    writer.await.expect("the writer does not panic");
}

async fn two_handles_one_process_exclude_each_other(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let other = sound(subject.medium.reopen().await);
    let (wanted, content) = large();
    let writer = vacant(&*subject.cache, &wanted).await;
    let (cache, blob) = (other.clone(), wanted.clone());
    let waiter = waiting("a writer on another handle", async move { sound(cache.ingest(&blob).await) }).await;
    sound(write_on(writer, &content).await);
    let outcome = promptly(fixture, "a writer on another handle", waiter).await;
    assert!(matches!(outcome.expect("it does not panic"), Ingest::Present), "the blob is there now");

    // The same work is granted to one caller at a time, by caches that grant it at all.
    let work = sound(subject.cache.single_flight("work").await);
    if work.is_none() {
        return not_judged("`single_flight` of the cache excludes no other caller");
    }
    drop(sound(promptly(fixture, "other work", other.single_flight("other work")).await));
    let cache = other.clone();
    let same = async move { sound(cache.single_flight("work").await) };
    let waiter = waiting("the same work on another handle", same).await;
    drop(work);
    drop(promptly(fixture, "the same work on another handle", waiter).await.expect("it does not panic"));
}

async fn nested_write_keeps_outer_lock(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let (cache, other) = (&subject.cache, sound(subject.medium.reopen().await));
    let (wanted, content) = large();
    let mut writer = vacant(&**cache, &wanted).await;
    sound(writer.write(content.slice(..1000)).await);
    // Everything that opens, locks and closes something of the same cache.
    let nested = document(&**cache, "nested").await;
    set(&**cache, NAME, &nested).await;
    sound(cache.verify_blob(&nested).await);
    assert_eq!(sound(cache.stat(wanted.digest()).await), None);
    drop(vacant(&**cache, &blob(b"given up")).await);
    drop(sound(cache.single_flight("nested").await));
    drop(sound(cache.lease(std::slice::from_ref(wanted.digest())).await));
    drop(sound(subject.medium.reopen().await));

    for cache in [cache.clone(), other] {
        let blob = wanted.clone();
        let waiter = waiting("a second writer", async move { sound(cache.ingest(&blob).await) }).await;
        waiter.abort();
        drop(waiter.await);
    }
    sound(writer.write(content.slice(1000..)).await);
    sound(writer.commit().await);
    sound(cache.verify_blob(&wanted).await);
}

/// A blob of several chunks.
fn large() -> (Descriptor, Bytes) {
    let content: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 251) as u8).collect();
    let descriptor =
        Descriptor::new("application/octet-stream".into(), content.len() as u64, digest::sha256(&content));
    (descriptor, content.into())
}

fn for_amd64() -> PullOptions {
    PullOptions { platform: amd64(), ..PullOptions::default() }
}

async fn vacant(cache: &dyn CacheProvider, blob: &Descriptor) -> Box<dyn BlobWriter> {
    match sound(cache.ingest(blob).await) {
        Ingest::Vacant(writer) => writer,
        Ingest::Present => panic!("{} was never stored", blob.digest()),
    }
}

/// Writes what is left of a blob, slowly, and commits it.
async fn write_on(mut writer: Box<dyn BlobWriter>, content: &Bytes) -> Result<()> {
    let offset = usize::try_from(writer.offset()).unwrap_or(usize::MAX);
    for chunk in content[offset..].chunks(64 << 10) {
        writer.write(Bytes::copy_from_slice(chunk)).await?;
        tokio::task::yield_now().await;
    }
    writer.commit().await
}

/// A registry that tells when a layer is wanted, and then never answers.
fn stuck_registry() -> impl Fn(Arc<Notify>) -> Hooked {
    let sample = samples::image();
    let layer = sample.images[0].layers[0].descriptor.digest().clone();
    let inner = registry_with(&sample, NAME);
    move |stuck| {
        let layer = layer.clone();
        Hooked::new(&inner, move |digest| {
            let (stuck, stops) = (stuck.clone(), *digest == layer);
            Box::pin(async move {
                if stops {
                    stuck.notify_one();
                    std::future::pending::<()>().await;
                }
            })
        })
    }
}
