//! What a cache keeps: as it was committed, apart from everything else, and longer than its process.

use std::io::Read as _;

use plyfold_core::cache::DamagedPart;
use plyfold_core::{
    Artifact, ArtifactKey, ArtifactReader, CacheProvider, CacheProviderExt as _, ErrorKind, Format, Made,
    NameChange, Reference, Result, digest,
};

use super::artifacts::{CONTENT, TICK, bytes, is_present, key, make};
use super::damage::{flipped, lengthened, truncated, verify};
use super::setup::{document, name, names, pulled, set};
use crate::rule::{not_judged, rules};
use crate::rules::probe::{NAME, sound};
use crate::samples;
use crate::{CacheFixture, CacheUnderTest};

rules! {
    $ __cache_kept_rules of dyn CacheFixture;
    "C 220" a_damaged_artifact_is_found_and_never_handed_out:
        "an artifact whose bytes are no longer those that were committed is found by a verification, of its images and \
         of everything, and is made again or refused, never handed out with other bytes; repaired, it is made again",
    "C 221" what_is_stored_outlasts_the_process:
        "names, pins, blobs and artifacts, and nothing that was removed, are there when no handle was left and the medium \
         is opened again",
    "C 222" artifacts_whose_keys_differ_are_kept_apart:
        "two keys that differ in name, version, options or extension of the format, or in what the file is made from, \
         are two artifacts",
}

async fn a_damaged_artifact_is_found_and_never_handed_out(fixture: &dyn CacheFixture) {
    let sample = samples::image();
    let subject = pulled(fixture, &sample, NAME).await;
    let needed = ArtifactKey { content: sample.images[0].layers[0].diff_id.clone(), ..key() };
    for (key, images) in [(needed, vec![name(NAME)]), (key(), Vec::new())] {
        for change in [flipped, truncated, lengthened] {
            if !damaged(&subject, &key, change).await {
                return not_judged("`CacheMedium::damage_artifact` of the fixture damages nothing");
            }
            assert_found(&subject, None, &key, &images, false).await;
            assert_found(&subject, Some(vec![name(NAME)]), &key, &images, false).await;
            assert_found(&subject, None, &key, &images, true).await;
            assert_eq!(verify(&subject, None, false).await, [], "after a repair");
            drop(vacant(&*subject.cache, &key).await);

            assert!(damaged(&subject, &key, change).await, "it was damaged before");
            for handle in [sound(subject.medium.reopen().await), subject.cache.clone()] {
                assert_not_handed_out(handle.artifact(&key).await);
            }
            // It may be refused until it is repaired.
            verify(&subject, None, true).await;
            drop(make(&*subject.cache, &key, &Made::default()).await);
            assert_eq!(bytes(&*is_present(&*subject.cache, &key).await), CONTENT);
            assert_eq!(verify(&subject, None, false).await, [], "made again");
        }
    }
}

/// Makes an artifact unless it is there, and damages it; whether the medium could.
async fn damaged(subject: &CacheUnderTest, key: &ArtifactKey, change: fn(&[u8]) -> Vec<u8>) -> bool {
    if let Artifact::Vacant(mut writer) = sound(subject.cache.artifact(key).await) {
        writer.output().write_all(CONTENT).expect("it can be written");
        drop(sound(writer.commit(&Made::default())));
    }
    tokio::time::sleep(TICK).await;
    subject.medium.damage_artifact(key, &change(CONTENT)).await
}

/// A verification finds the artifact, and nothing else. That of images finds nothing when none of them needs it.
async fn assert_found(
    subject: &CacheUnderTest,
    of: Option<Vec<Reference>>,
    key: &ArtifactKey,
    images: &[Reference],
    repair: bool,
) {
    let is_looked_at = of.is_none() || !images.is_empty();
    let found = verify(subject, of, repair).await;
    let found: Vec<_> = found.iter().map(|found| (&found.part, &*found.images, found.repaired)).collect();
    let part = DamagedPart::Artifact(key.format.to_string(), key.content.clone());
    let expected = is_looked_at.then_some((&part, images, repair));
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "what a verification finds");
}

/// It is to be made again, or it is refused at once or when it is read. A cache that has it twice may give it.
fn assert_not_handed_out(found: Result<Artifact>) {
    match found {
        Ok(Artifact::Vacant(_)) => {}
        Ok(Artifact::Present(artifact)) => {
            let mut read = Vec::new();
            let all = sound(ArtifactReader::open(&*artifact)).read_to_end(&mut read);
            assert!(all.is_err() || read == CONTENT, "a damaged artifact was handed out");
        }
        Err(error) => assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}"),
    }
}

async fn vacant(cache: &dyn CacheProvider, key: &ArtifactKey) -> Box<dyn plyfold_core::ArtifactWriter> {
    match sound(cache.artifact(key).await) {
        Artifact::Vacant(writer) => writer,
        Artifact::Present(artifact) => panic!("{artifact:?} is there"),
    }
}

async fn what_is_stored_outlasts_the_process(fixture: &dyn CacheFixture) {
    let (kept, gone) = ("registry.example/kept:1", "registry.example/gone:1");
    let sample = samples::image();
    let CacheUnderTest { cache, medium, client } = pulled(fixture, &sample, NAME).await;
    let content = document(&*cache, "kept").await;
    for text in [kept, gone] {
        set(&*cache, text, &content).await;
    }
    sound(cache.update(&[NameChange::Pin(name(kept))]).await);
    sound(cache.remove(&name(gone)).await);
    let made = Made::default().with_kernel(5, 15).with_note("kept");
    drop(make(&*cache, &key(), &made).await);
    let (listed, pins) = (names(&*cache).await, sound(cache.pins().await));
    drop((cache, client));

    let Some(reopened) = medium.reopen_from_nothing().await else {
        return not_judged("`CacheMedium::reopen_from_nothing` of the fixture opens nothing");
    };
    let cache = sound(reopened);
    assert_eq!(names(&*cache).await, listed, "names");
    assert_eq!(sound(cache.pins().await), pins, "pins");
    for blob in sample.blobs.iter().map(|blob| &blob.descriptor).chain([&content]) {
        sound(cache.verify_blob(blob).await);
    }
    let artifact = is_present(&*cache, &key()).await;
    assert_eq!((bytes(&*artifact), artifact.made()), (CONTENT.to_vec(), &made), "an artifact");
}

async fn artifacts_whose_keys_differ_are_kept_apart(fixture: &dyn CacheFixture) {
    let first = key();
    let of = |format| ArtifactKey { format, ..key() };
    let others = [
        of(Format { name: "conformance-other", ..key().format }),
        of(Format { version: 2, ..key().format }),
        of(Format { options: "other".to_owned(), ..key().format }),
        of(Format { extension: "other", ..key().format }),
        ArtifactKey { content: digest::sha256(b"another layer"), ..key() },
    ];
    let subject = fixture.open().await;
    let all: Vec<_> = std::iter::once(&first).chain(&others).collect();
    let content = |place: usize| [CONTENT, &[place as u8][..]].concat();
    for (place, key) in all.iter().enumerate() {
        let found = sound(subject.cache.artifact(key).await);
        let Artifact::Vacant(mut writer) = found else { panic!("{key:?} is taken for another one") };
        writer.output().write_all(&content(place)).expect("it can be written");
        drop(sound(writer.commit(&Made::default())));
    }
    let other = sound(subject.medium.reopen().await);
    for cache in [&subject.cache, &other] {
        for (place, key) in all.iter().enumerate() {
            assert_eq!(bytes(&*is_present(&**cache, key).await), content(place), "{key:?}");
        }
    }
}
