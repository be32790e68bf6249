//! Rules about layouts that are damaged, written by several, or left behind by killed processes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use plyfold_core::cache::DamagedPart;
use plyfold_core::{CacheProvider, CacheProviderExt, Collect, ErrorKind, NameChange, Verified, Verify};
use serde_json::Value;
use tokio::task::JoinSet;

use super::place::{Place, Theirs, documents, files_in, replace};
use super::setup::{described, large, name, set, stored, vacant, whole};
use crate::LayoutFixture;
use crate::rule::not_judged;
use crate::rules::probe::{NAME, assert_kind, error_of, sound};

pub(super) async fn unknown_files_and_fields_preserved(fixture: &dyn LayoutFixture) {
    let place = Place::new();
    let cache = sound(fixture.open(&place.path).await);
    let theirs = Theirs::add_to(&place.path);
    let content = stored(&*cache, b"ours").await;
    set(&*cache, NAME, &content).await;
    theirs.assert_kept(&place.path, "setting a name");
    set(&*cache, NAME, &stored(&*cache, b"ours, again").await).await;
    sound(cache.remove(&name("registry.example/absent:1")).await);
    theirs.assert_kept(&place.path, "moving a name");
    sound(cache.verify(&Verify { repair: true, ..Verify::default() }).await);
    theirs.assert_kept(&place.path, "verifying");
    drop(cache);
    let cache = sound(fixture.open(&place.path).await);
    match cache.collect(&Collect::default()).await {
        Ok(_) => {}
        Err(error) => assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    sound(cache.remove(&name(NAME)).await);
    theirs.assert_kept(&place.path, "opening, collecting and removing");
    let found = sound(cache.find_descriptor(&name("registry.example/theirs:1")).await);
    assert_eq!(found.expect("their name is a name").digest(), &theirs.blob);
}

pub(super) async fn unsupported_layout_version_refused(fixture: &dyn LayoutFixture) {
    let place = Place::new();
    let cache = sound(fixture.open(&place.path).await);
    set(&*cache, NAME, &stored(&*cache, b"kept").await).await;
    let marker = place.path.join("oci-layout");
    let ours = fs::read(&marker).expect("a layout has the file oci-layout");
    for (text, kind) in [
        (r#"{"imageLayoutVersion":"2.0.0"}"#, ErrorKind::Unsupported),
        (r#"{"imageLayoutVersion":"10.0.0"}"#, ErrorKind::Unsupported),
        (r#"{"imageLayoutVersion":"2.0"#, ErrorKind::Corrupt),
        (r#"{"imageLayoutVersion":2}"#, ErrorKind::Corrupt),
    ] {
        replace(&marker, text.as_bytes());
        let before = documents(&place.path);
        let refused = async {
            let cache = fixture.open(&place.path).await?;
            cache.update(&[NameChange::Remove(name(NAME))]).await
        };
        assert_kind(refused.await, &kind);
        assert_kind(cache.list().await, &kind);
        assert_kind(cache.find_descriptor(&name(NAME)).await, &kind);
        assert_eq!(documents(&place.path), before, "a layout that is not ours to write");
    }
    // An empty one, as after a power cut, may also be quarantined and written again.
    for text in ["", &"\0".repeat(31), r#"{"imageLayoutVersion":"#] {
        replace(&marker, text.as_bytes());
        let before = documents(&place.path);
        let listed = async { fixture.open(&place.path).await?.list().await };
        match listed.await {
            Ok(names) => {
                assert_eq!(names.len(), 1);
                let aside = |file: &PathBuf| {
                    *file != marker && fs::read(file).is_ok_and(|kept| kept == text.as_bytes())
                };
                assert!(
                    files_in(&place.path).iter().any(aside),
                    "it was kept under another name, not destroyed"
                );
            }
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
                assert_eq!(documents(&place.path), before);
            }
        }
    }
    // A later minor version and fields of the future are no reason to refuse.
    for text in [r#"{"imageLayoutVersion":"1.1.0","future":[1]}"#.as_bytes(), &ours] {
        replace(&marker, text);
        let cache = sound(fixture.open(&place.path).await);
        assert_eq!(sound(cache.list().await).len(), 1);
    }
}

pub(super) async fn corrupt_index_quarantined_not_destroyed(fixture: &dyn LayoutFixture) {
    for corrupt in [
        r#"{"schemaVersion":2,"manifests":[{"torn by a power cut"#,
        r#"{"schemaVersion":2,"manifests":[],"manifests":[],"two":"readings"}"#,
        r#"{"schemaVersion":2,"org.example":"no manifests"}"#,
    ] {
        let place = Place::new();
        let cache = sound(fixture.open(&place.path).await);
        let content = stored(&*cache, b"kept").await;
        set(&*cache, NAME, &content).await;
        let index = place.path.join("index.json");
        replace(&index, corrupt.as_bytes());
        let unchanged = || assert_eq!(fs::read_to_string(&index).expect("it is still there"), corrupt);
        for cache in [cache, sound(fixture.open(&place.path).await)] {
            assert_kind(cache.list().await, &ErrorKind::Corrupt);
            assert_kind(cache.find_descriptor(&name(NAME)).await, &ErrorKind::Corrupt);
            let changes = [NameChange::Set(name("registry.example/other:1"), content.clone())];
            assert_kind(cache.update(&changes).await, &ErrorKind::Corrupt);
            let error = error_of(cache.collect(&Collect::default()).await);
            assert!([ErrorKind::Corrupt, ErrorKind::Unsupported].contains(error.kind()), "{error}");
            unchanged();
            sound(cache.verify_blob(&content).await);
        }
        let cache = sound(fixture.open(&place.path).await);
        let names_damage = |verified: Verified| {
            let damage = verified.damage.into_iter().filter(|damage| damage.part == DamagedPart::Names);
            damage.map(|damage| damage.repaired).collect::<Vec<_>>()
        };
        assert_eq!(names_damage(sound(cache.verify(&Verify::default()).await)), [false]);
        unchanged();
        let repair = Verify { repair: true, ..Verify::default() };
        assert_eq!(names_damage(sound(cache.verify(&repair).await)), [true]);
        assert_eq!(
            place.files_with(corrupt.as_bytes()).len(),
            1,
            "it was kept under another name, not destroyed"
        );
        sound(cache.verify_blob(&content).await);
        for cache in [cache, sound(fixture.open(&place.path).await)] {
            set(&*cache, NAME, &content).await;
            assert_eq!(sound(cache.list().await).len(), 1);
        }
        assert_eq!(place.files_with(corrupt.as_bytes()).len(), 1, "and stays aside");
    }
}

pub(super) async fn index_old_or_new_never_torn(fixture: &dyn LayoutFixture) {
    const WRITERS: usize = 4;
    const EACH: usize = 12;
    let place = Place::new();
    let first = sound(fixture.open(&place.path).await);
    let content = stored(&*first, b"named").await;
    set(&*first, NAME, &content).await;
    let done = Arc::new(AtomicBool::new(false));
    let (path, finished) = (place.path.join("index.json"), done.clone());
    let (reads, begun) = tokio::sync::oneshot::channel();
    let mut reads = Some(reads);
    let reader = tokio::task::spawn_blocking(move || {
        while !finished.load(Ordering::SeqCst) {
            let bytes = fs::read(&path).expect("index.json is always there");
            let document: Value = serde_json::from_slice(&bytes).expect("index.json is always whole");
            let named = document["manifests"].to_string();
            assert!(named.contains(NAME), "the name that was promised is always there");
            if let Some(reads) = reads.take() {
                let _ = reads.send(());
            }
        }
    });
    begun.await.expect("the first read is complete");
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let cache = sound(fixture.open(&place.path).await);
        let content = content.clone();
        writers.spawn(async move {
            for number in 0..EACH {
                // Documents of many lengths, growing and shrinking.
                let text = format!("registry.example/{}app:{writer}-{number}", "long/".repeat(number));
                set(&*cache, &text, &content).await;
                if number % 2 == 1 {
                    sound(cache.remove(&name(&text)).await);
                }
            }
        });
    }
    writers.join_all().await;
    done.store(true, Ordering::SeqCst);
    reader.await.expect("every read is complete");
    assert_eq!(sound(first.list().await).len(), 1 + WRITERS * EACH / 2);
}

pub(super) async fn stale_temps_reclaimed_not_live_ones(fixture: &dyn LayoutFixture) {
    let place = Place::new();
    let cache = sound(fixture.open(&place.path).await);
    let (wanted, content) = large();
    let mut writer = vacant(&*cache, &wanted).await;
    sound(writer.write(content.slice(..content.len() - 1)).await);
    let (other, other_content) = (described(b"suspended"), Bytes::from_static(b"suspen"));
    let mut suspended = vacant(&*cache, &other).await;
    sound(suspended.write(other_content).await);
    sound(suspended.suspend().await);

    for _ in 0..250 {
        if !place.files_with(&content[..4096]).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if place.files_with(&content[..4096]).is_empty() {
        not_judged("the cache keeps what it receives in memory");
    }
    // No running process writes into this copy, so nothing may wait.
    let copy = Place::copy_of(&place.path);
    let heir = sound(fixture.open(&copy.path).await);
    match heir.collect(&Collect::default()).await {
        Ok(_) => assert!(copy.files_with(&content[..4096]).is_empty(), "these have no writer"),
        Err(error) => assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    sound(heir.put(whole(&wanted, &content)).await);
    sound(heir.verify_blob(&wanted).await);
    assert_eq!(copy.files_with(&content[..4096]).len(), 1, "the blob, and nothing beside it");

    // Here one is.
    let second = sound(fixture.open(&place.path).await);
    match second.collect(&Collect::default()).await {
        Ok(_) => {}
        Err(error) => assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    sound(writer.write(content.slice(content.len() - 1..)).await);
    sound(writer.commit().await);
    sound(second.verify_blob(&wanted).await);
    assert_eq!(place.files_with(&content[..4096]).len(), 1);
}

pub(super) async fn stale_lock_of_dead_owner_recovered(fixture: &dyn LayoutFixture) {
    let place = Place::new();
    let cache = sound(fixture.open(&place.path).await);
    set(&*cache, NAME, &stored(&*cache, b"named").await).await;
    let (wanted, content) = large();
    let mut writer = vacant(&*cache, &wanted).await;
    sound(writer.write(content.slice(..content.len() / 2)).await);
    let work = sound(cache.single_flight("work").await);
    let lease = sound(cache.lease(std::slice::from_ref(wanted.digest())).await);
    // The files of all these locks are in the copy, and their owners are not.
    let copy = Place::copy_of(&place.path);
    drop((writer, work, lease));
    let recovered = async {
        let heir = sound(fixture.open(&copy.path).await);
        drop(sound(heir.single_flight("work").await));
        drop(sound(heir.lease(std::slice::from_ref(wanted.digest())).await));
        sound(heir.put(whole(&wanted, &content)).await);
        sound(heir.remove(&name(NAME)).await);
        set(&*heir, "registry.example/heir:1", &wanted).await;
        match heir.collect(&Collect::default()).await {
            Ok(_) => {}
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}"),
        }
        sound(heir.verify_blob(&wanted).await);
    };
    let outcome = tokio::time::timeout(fixture.patience(), recovered).await;
    outcome.expect("killed processes hold no locks");
}
