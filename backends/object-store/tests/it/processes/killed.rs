//! Processes that are killed while they hold a right: another one takes over within the time of a lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plyfold_core::{CacheProvider as _, CacheProviderExt as _, NameChange};

use super::{Running, as_child, begin, child, wait};
use crate::content::{blob, commit, make, name, names, put, read, set};
use crate::front::{Fault, Front, Gate};
use crate::medium::Medium;

/// The time of a lease in these tests.
const LEASE: Duration = Duration::from_secs(2);
/// What looks and requests take besides, on a busy machine.
const MARGIN: Duration = Duration::from_secs(2);

/// Says that this took as long as a right lasts, and hardly longer.
fn assert_taken_over(begun: Instant) {
    let took = begun.elapsed();
    assert!(took >= LEASE, "taken over while its holder may live: {took:?}");
    assert!(took < LEASE + MARGIN, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_of_a_blob() {
    // Two parts of it are sent before it is killed.
    let content = vec![7; 11 << 20];
    if let Some((cache, _)) = as_child().await {
        let _writer = begin(&cache, &content).await;
        return wait().await;
    }
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let cache = service.cache().await.unwrap();
    let mut holder = Running::start(child("killed::the_writer_of_a_blob", &service, 0));
    holder.wait_for("HOLDING");
    drop(holder);
    let begun = Instant::now();
    let writer = begin(&cache, &content).await;
    assert_taken_over(begun);
    writer.commit().await.unwrap();
    cache.verify_blob(&blob(&content)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_maker_of_an_artifact() {
    if let Some((cache, _)) = as_child().await {
        let _writer = make(&cache, b"half of it").await;
        return wait().await;
    }
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let cache = service.cache().await.unwrap();
    let mut holder = Running::start(child("killed::the_maker_of_an_artifact", &service, 0));
    holder.wait_for("HOLDING");
    drop(holder);
    let begun = Instant::now();
    let writer = make(&cache, b"all of it").await;
    assert_taken_over(begun);
    assert_eq!(read(commit(writer).await.unwrap()).await.unwrap(), b"all of it");
}

/// Killed before its last put arrives, which arrives after all: when another one has given the change up.
#[tokio::test(flavor = "multi_thread")]
async fn the_writer_of_several_names() {
    let texts = ["a.example/a:1", "a.example/b:1"];
    if let Some((cache, _)) = as_child().await {
        let image = put(&cache, b"of the child").await.unwrap();
        let changes = texts.map(|text| NameChange::Set(name(text), image.clone()));
        cache.update(&changes).await.unwrap();
        return;
    }
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let cache = service.cache().await.unwrap();
    let before = put(&cache, b"before").await.unwrap();
    for text in texts {
        set(&cache, text, &before).await.unwrap();
    }
    let expected = names(&cache).await;
    let gate = Arc::new(Gate::default());
    let last = gate.clone();
    service.plan(move |request| {
        let is_last = request.writes("transactions") && request.body.starts_with(br#"{"state":"committed"#);
        is_last.then(|| Fault::Delayed(last.clone()))
    });
    let holder = Running::start(child("killed::the_writer_of_several_names", &service, 0));
    gate.arrived();
    drop(holder);
    assert_eq!(names(&cache).await, expected, "nothing is changed yet");
    let begun = Instant::now();
    let after = put(&cache, b"after").await.unwrap();
    set(&cache, texts[1], &after).await.unwrap();
    assert!(begun.elapsed() < LEASE + MARGIN, "{:?}", begun.elapsed());
    gate.open();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let expected = vec![
        (texts[0].to_owned(), before.digest().to_string()),
        (texts[1].to_owned(), after.digest().to_string()),
    ];
    assert_eq!(names(&cache).await, expected, "what arrives late is refused");
}
