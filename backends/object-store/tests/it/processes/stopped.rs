//! Processes that are stopped for longer than their right lasts, and go on: what they write late is refused.

use plyfold_core::{CacheProvider as _, CacheProviderExt as _, ErrorKind};
use rustix::process::Signal;

use super::{Running, as_child, begin, child, say, wait};
use crate::content::{artifact_key, blob, commit, make, read};
use crate::front::Front;
use crate::medium::Medium;

/// What a child says of its commit.
const DONE: &str = "DONE";
const REFUSED: &str = "REFUSED";

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_of_a_blob_replaces_nothing() {
    let content = vec![9; 100_000];
    if let Some((cache, _)) = as_child().await {
        let writer = begin(&cache, &content).await;
        wait().await;
        match writer.commit().await {
            // What its successor has stored is as good.
            Ok(()) => say(DONE),
            Err(e) if *e.kind() == ErrorKind::Unavailable => say(REFUSED),
            Err(e) => panic!("{e}"),
        }
        return cache.settle().await;
    }
    for is_committed in [false, true] {
        let medium = Medium::memory();
        let service = Front::of(medium.memory.as_ref().unwrap());
        let cache = service.cache().await.unwrap();
        let mut holder = Running::start(child("stopped::the_writer_of_a_blob_replaces_nothing", &service, 0));
        holder.wait_for("HOLDING");
        holder.signal(Signal::STOP);
        let writer = begin(&cache, &content).await;
        let mut writer = Some(writer);
        if is_committed {
            writer.take().unwrap().commit().await.unwrap();
        }
        let record = medium.record_of(&blob(&content));
        holder.go_on();
        holder.signal(Signal::CONT);
        let said = holder.said();
        assert!(said.contains(if is_committed { DONE } else { REFUSED }), "{said}");
        if let Some(writer) = writer {
            assert_eq!(cache.stat(blob(&content).digest()).await.unwrap(), None);
            writer.commit().await.unwrap();
        } else {
            assert_eq!(medium.record_of(&blob(&content)), record, "the record is not touched");
        }
        cache.verify_blob(&blob(&content)).await.unwrap();
        let objects = medium.objects();
        let content = objects.iter().filter(|(path, _)| path.starts_with("data/")).count();
        assert_eq!(content, 1, "what the late one has sent is removed: {objects:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_maker_of_an_artifact_replaces_nothing() {
    if let Some((cache, _)) = as_child().await {
        let writer = make(&cache, b"by the late one").await;
        wait().await;
        let made = commit(writer).await.unwrap();
        assert_eq!(read(made).await.unwrap(), b"in time", "it gets what was made meanwhile");
        return cache.settle().await;
    }
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let cache = service.cache().await.unwrap();
    let mut holder = Running::start(child("stopped::the_maker_of_an_artifact_replaces_nothing", &service, 0));
    holder.wait_for("HOLDING");
    holder.signal(Signal::STOP);
    commit(make(&cache, b"in time").await).await.unwrap();
    holder.go_on();
    holder.signal(Signal::CONT);
    holder.said();
    let found = cache.find_artifact(&artifact_key()).await.unwrap().unwrap();
    assert_eq!(read(found).await.unwrap(), b"in time");
    let content = medium.objects().into_iter().filter(|(path, _)| path.starts_with("data/")).count();
    assert_eq!(content, 1);
}
