//! Machines that stop, and never go on, between any two of their requests.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use plyfold_core::{CacheProvider as _, CacheProviderExt as _, Collect, Ingest, NameChange, Verify};
use plyfold_object_store::ObjectStoreCache;

use crate::content::{blob, name, names, put};
use crate::medium::Medium;
use crate::wrapped::{Fault, Wrapped};

/// A bucket whose rights expire soon.
fn medium() -> Medium {
    let mut medium = Medium::memory();
    medium.config.lease_seconds = 1;
    medium
}

/// The same on a machine that stops after so many writes; `None` when it does not come to its end.
async fn dying(medium: &Medium, writes: usize) -> Option<ObjectStoreCache> {
    let fault = Fault::DiesAfter(Arc::new(AtomicUsize::new(writes + 1)));
    let store = Wrapped::around(medium.store.clone(), fault);
    let dying = Medium { store, ..medium.clone() };
    dying.cache().await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_made_or_not() {
    let [a, b, c] = ["a.example/a:1", "a.example/b:1", "a.example/c:1"];
    let mut outcomes = [0, 0];
    for writes in 0.. {
        let medium = medium();
        let cache = medium.cache().await.unwrap();
        let (old, new) = (put(&cache, b"old").await.unwrap(), put(&cache, b"new").await.unwrap());
        for text in [a, c] {
            cache.update(&[NameChange::Set(name(text), old.clone())]).await.unwrap();
        }
        let before = names(&cache).await;
        let changes = [
            NameChange::Set(name(a), new.clone()),
            NameChange::Set(name(b), new.clone()),
            NameChange::Remove(name(c)),
        ];
        let other = dying(&medium, writes).await.unwrap();
        let ended = other.update(&changes).await.is_ok();
        other.settle().await;
        let after: Vec<_> = [a, b].map(|text| (text.to_owned(), new.digest().to_string())).into();
        let found = names(&cache).await;
        assert!(found == before || found == after, "half of it after {writes}: {found:?}");
        assert!(!ended || found == after, "what was said to be made is made");
        outcomes[usize::from(found == after)] += 1;

        // The next writer does not wait for long, and the collection leaves what names need.
        let changes = [NameChange::Pin(name(a)), NameChange::Set(name(c), old.clone())];
        cache.update(&changes).await.unwrap();
        cache.collect(&Collect::default()).await.unwrap();
        assert_eq!(cache.verify(&Verify::default()).await.unwrap().damage, [], "after {writes}");
        assert_eq!(cache.pins().await.unwrap(), [name(a)]);
        if ended && found == after && writes > 12 {
            break;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 1), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_of_a_blob_is_succeeded() {
    for content in [b"small".to_vec(), vec![7; 100_000], vec![9; 6 << 20]] {
        for writes in 0..8 {
            let medium = medium();
            let cache = medium.cache().await.unwrap();
            let other = dying(&medium, writes).await.unwrap();
            let ended = put(&other, &content).await.is_ok();
            other.settle().await;
            let wanted = blob(&content);
            if let Some(size) = cache.stat(wanted.digest()).await.unwrap() {
                assert_eq!(size, wanted.size());
                cache.verify_blob(&wanted).await.unwrap();
            }
            put(&cache, &content).await.unwrap();
            cache.verify_blob(&wanted).await.unwrap();
            cache.update(&[NameChange::Set(name("a.example/a:1"), wanted.clone())]).await.unwrap();
            cache.collect(&Collect::default()).await.unwrap();
            cache.verify_blob(&wanted).await.unwrap();
            let content = medium.objects().iter().filter(|(path, _)| path.starts_with("data/")).count();
            assert!(content <= 1, "{content} objects of one blob after {writes}");
            if ended {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_stops_removes_nothing_that_is_used() {
    let (kept, again) = (b"kept", vec![5; 50_000]);
    for writes in 0..24 {
        let medium = medium();
        let cache = medium.cache().await.unwrap();
        let wanted = put(&cache, kept).await.unwrap();
        cache.update(&[NameChange::Set(name("a.example/a:1"), wanted.clone())]).await.unwrap();
        let unused = put(&cache, &again).await.unwrap();
        put(&cache, b"garbage").await.unwrap();
        let other = dying(&medium, writes).await.unwrap();
        let ended = other.collect(&Collect::default()).await.is_ok();
        cache.verify_blob(&wanted).await.unwrap();
        // It is used again, or stored again.
        let lease = cache.lease(std::slice::from_ref(unused.digest())).await.unwrap();
        if cache.stat(unused.digest()).await.unwrap().is_none() {
            put(&cache, &again).await.unwrap();
        }
        cache.update(&[NameChange::Set(name("a.example/b:1"), unused.clone())]).await.unwrap();
        drop(lease);
        let collected = cache.collect(&Collect::default()).await.unwrap();
        assert!(collected.blobs.len() <= 1, "{:?}", collected.blobs);
        assert_eq!(cache.verify(&Verify::default()).await.unwrap().damage, [], "after {writes}");
        let left = medium.objects();
        let content = left.iter().filter(|(path, _)| path.starts_with("data/")).count();
        assert_eq!(content, 1, "{left:?}");
        if ended {
            return;
        }
    }
    panic!("the collection does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_writer_replaces_nothing() {
    let medium = medium();
    let (slow, next) = (medium.cache().await.unwrap(), medium.cache().await.unwrap());
    let content = vec![3; 30_000];
    let wanted = blob(&content);
    let begin = async |cache: &ObjectStoreCache| {
        let Ingest::Vacant(mut writer) = cache.ingest(&wanted).await.unwrap() else {
            panic!("it was never stored")
        };
        writer.write(content.clone().into()).await.unwrap();
        writer
    };
    let late = begin(&slow).await;
    // As another machine does when the first one was not heard of: by the record alone.
    let path = format!(
        "{}/blobs/{}/{}",
        crate::objects::PREFIX,
        wanted.digest().algorithm(),
        wanted.digest().digest()
    );
    let body = format!(r#"{{"state":"writing","size":0,"data":"{}","token":"other"}}"#, "0".repeat(32));
    let (store, path) = (medium.store.clone(), object_store::path::Path::parse(path).unwrap());
    object_store::ObjectStoreExt::put(&*store, &path, body.into()).await.unwrap();
    let before = std::time::Instant::now();
    let second = begin(&next).await;
    assert!(before.elapsed().as_millis() >= 900, "it waits for a lease");
    assert!(late.commit().await.is_err(), "it has lost its right");
    assert_eq!(next.stat(wanted.digest()).await.unwrap(), None);
    second.commit().await.unwrap();
    next.verify_blob(&wanted).await.unwrap();
    next.settle().await;
    let content = medium.objects().iter().filter(|(path, _)| path.starts_with("data/")).count();
    assert_eq!(content, 1, "what the slow one has sent is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_change_nothing() {
    let mut medium = medium();
    medium.cache().await.unwrap();
    medium.store = Wrapped::around(medium.store, Fault::LosesAnswers(Arc::default()));
    let cache = medium.cache().await.unwrap();
    for round in 0..8 {
        // Content of its own object is put without a condition, and may be put again.
        let Ok(wanted) = put(&cache, format!("round {round}").as_bytes()).await else {
            panic!("round {round}")
        };
        let texts = [format!("a.example/a:{round}"), format!("a.example/b:{round}")];
        let changes = texts.each_ref().map(|text| NameChange::Set(name(text), wanted.clone()));
        cache.update(&changes).await.unwrap();
        cache.update(&[NameChange::Remove(name(&texts[1]))]).await.unwrap();
    }
    assert_eq!(names(&cache).await.len(), 8);
}
