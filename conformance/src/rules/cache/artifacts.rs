//! Files that are made from layers and from images.

use std::fs;
use std::io::{IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::time::Duration;

use plyfold_core::block_sums::BlockSums;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, ArtifactReader, ArtifactWriter, CacheProvider,
    CacheProviderExt as _, Digest, Format, Made, Output, Verify, digest,
};

use super::collect::{collect, refuses_to_collect};
use super::setup::{name, promptly, pulled, waiting};
use crate::CacheFixture;
use crate::fixture::overwrite;
use crate::rule::{not_judged, rules};
use crate::rules::probe::{NAME, sound};
use crate::samples;

rules! {
    $ __cache_artifacts_rules of dyn CacheFixture;
    "C 185" a_changed_artifact_is_made_again:
        "a file made from a layer that was written to through a hard link is not handed out with that content",
    "C 186" a_dropped_artifact_leaves_nothing:
        "a file whose maker gives up is never visible, and the next maker begins with an empty one",
    "C 192" gc_keeps_artifacts_of_whole_images:
        "what is made from a whole image stays while a name or a lease leads to the image, and goes after that",
    "C 193" what_a_materializer_tells_is_kept:
        "a file out of the cache tells the kernel and the notes that it was made with",
    "K 194" two_outputs_of_one_format_do_not_exclude_each_other:
        "files of one format that differ in their extension have makers at the same time, and are kept apart",
    "C 207" an_artifact_is_read_at_any_offset:
        "a file out of the cache has as many bytes as it says, gives them at any offset and in any order, and no more; where \
         it tells a checksum, it is that of its bytes",
    "K 208" of_many_makers_of_an_artifact_one_makes_it:
        "of tasks that want one file at once, through several handles, one makes it, and the others are given that one",
    "C 210" artifacts_whose_keys_print_alike_are_kept_apart:
        "files of two formats whose name, version and options print as one text have makers at the same time, and are two \
         files",
    "C 267" a_look_for_an_artifact_takes_no_right_and_never_waits:
        "a look for a file answers at once, also while the file is being made, and takes no right to make it; a file that is \
         incomplete or was changed is not found, and what is found has the path, the bytes and the notes of what was made",
    "C 280" an_artifact_is_written_in_any_order:
        "a file that was written out of order, over what was there, with holes, cut, lengthened and copied into by ranges has \
         the bytes that a file would have, and a verification finds nothing wrong with it",
}

pub(super) const CONTENT: &[u8] = b"what was made of a layer";
/// As long as [`CONTENT`].
const CHANGED: &[u8] = b"what a guest has written";

/// Longer than a tick of a file system's clock.
pub(super) const TICK: Duration = Duration::from_millis(20);

async fn a_changed_artifact_is_made_again(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let made = present(&*subject.cache).await;
    assert_eq!(bytes(&*made), CONTENT);
    let again = present(&*subject.cache).await;
    assert_eq!((bytes(&*again), again.path()), (CONTENT.to_vec(), made.path()), "it is made once");
    // Nothing can be linked to what is no file of this machine.
    let Some(made) = made.path() else { return not_judged("its files are not on this machine") };
    // Beside it, because a link cannot lead to another file system.
    let beside = tempfile::tempdir_in(made.parent().expect("it is in a folder"));
    let link = beside.as_ref().expect("a folder can be made beside it").path().join("output");
    fs::hard_link(made, &link).expect("a second name can be made");
    tokio::time::sleep(TICK).await;
    overwrite(&link, CHANGED).expect("it can be written to");
    let other = sound(subject.medium.reopen().await);
    for cache in [&subject.cache, &other] {
        assert_eq!(bytes(&*present(&**cache).await), CONTENT, "what others have written was handed out");
    }
    assert_eq!(fs::read(&link).expect("it can be read"), CHANGED, "what others have written is theirs");
    assert_eq!(subject.medium.leftovers(), [""; 0]);
}

async fn a_dropped_artifact_leaves_nothing(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let other = sound(subject.medium.reopen().await);
    let mut writer = vacant(&*subject.cache).await;
    writer.output().write_all(&CONTENT[..10]).expect("it can be written");
    let waiter = waiting("a second maker", async move { vacant(&*other).await }).await;
    // As a conversion whose caller is gone: it ends on its own thread.
    let dropped = tokio::task::spawn_blocking(move || drop(writer)).await;
    dropped.expect("a writer can be dropped on any thread");
    let next = promptly(fixture, "the next maker", waiter).await;
    let mut next = next.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let (mut left, output) = (Vec::new(), next.output());
    output.seek(SeekFrom::Start(0)).expect("it can be read from its start");
    output.read_to_end(&mut left).expect("it can be read");
    assert_eq!(left, [0; 0], "what the one before has left");
    drop(next);
    assert_eq!(subject.medium.leftovers(), [""; 0]);
    assert_eq!(bytes(&*present(&*subject.cache).await), CONTENT);
}

async fn gc_keeps_artifacts_of_whole_images(fixture: &dyn CacheFixture) {
    let sample = samples::image();
    let subject = pulled(fixture, &sample, NAME).await;
    if !fixture.collects() {
        return refuses_to_collect(&subject).await;
    }
    let (cache, other) = (&*subject.cache, sound(subject.medium.reopen().await));
    let layers = &sample.images[0].layers;
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let image = ArtifactKey::image(key().format, &diff_ids).expect("the sample has layers");
    let upside_down: Vec<Digest> = diff_ids.iter().rev().cloned().collect();
    let another = ArtifactKey::image(key().format, &upside_down).expect("the sample has layers");
    for key in [&image, &another] {
        drop(make(cache, key, &Made::default()).await);
    }
    let collected = collect(cache).await;
    assert_eq!((collected.artifacts, collected.freed), (1, CONTENT.len() as u64), "of no image");
    assert_eq!(bytes(&*is_present(cache, &image).await), CONTENT, "of an image with a name");
    let lease = sound(other.lease(std::slice::from_ref(&image.content)).await);
    sound(cache.remove(&name(NAME)).await);
    assert_eq!(collect(cache).await.artifacts, 0, "of an image with a lease");
    drop(lease);
    assert_eq!(collect(cache).await.artifacts, 1, "of an image that nothing leads to");
    assert!(matches!(sound(cache.artifact(&image).await), Artifact::Vacant(_)));
}

async fn what_a_materializer_tells_is_kept(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    // The longest that there is.
    let note = "\u{1}".repeat(Made::NOTE_BYTES);
    let made =
        (0..Made::NOTES).fold(Made::default().with_kernel(5, 15), |made, _| made.with_note(note.clone()));
    assert_eq!(made.notes.len(), Made::NOTES);
    let made = made.with_losses((0..Made::NOTES).map(|at| format!("{at}{}", &note[..note.len() - 2])));
    assert_eq!(*make(&*subject.cache, &key(), &made).await.made(), made);
    let other = sound(subject.medium.reopen().await);
    for cache in [&subject.cache, &other] {
        assert_eq!(*is_present(&**cache, &key()).await.made(), made);
    }
}

async fn two_outputs_of_one_format_do_not_exclude_each_other(fixture: &dyn CacheFixture) {
    are_kept_apart(fixture, &key(), &key().with_extension("other")).await;
}

async fn artifacts_whose_keys_print_alike_are_kept_apart(fixture: &dyn CacheFixture) {
    let of = |name, version, options: &str| {
        let format = Format { name, version, options: options.to_owned(), ..key().format };
        ArtifactKey { format, ..key() }
    };
    let (one, other) = (of("conformance", 1, "v2"), of("conformance-v1", 2, ""));
    assert_eq!(one.format.to_string(), other.format.to_string());
    are_kept_apart(fixture, &one, &other).await;
}

async fn are_kept_apart(fixture: &dyn CacheFixture, one: &ArtifactKey, other: &ArtifactKey) {
    let subject = fixture.open().await;
    let Artifact::Vacant(mut first) = sound(subject.cache.artifact(one).await) else { panic!("it is there") };
    first.output().write_all(CONTENT).expect("it can be written");
    let second = promptly(fixture, "the maker of another file", subject.cache.artifact(other)).await;
    let Artifact::Vacant(mut second) = sound(second) else { panic!("it was not made yet") };
    second.output().write_all(CHANGED).expect("it can be written");
    drop(sound(second.commit(&Made::default())));
    drop(sound(first.commit(&Made::default())));
    assert_eq!(bytes(&*is_present(&*subject.cache, one).await), CONTENT);
    assert_eq!(bytes(&*is_present(&*subject.cache, other).await), CHANGED);
}

async fn an_artifact_is_read_at_any_offset(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    drop(present(&*subject.cache).await);
    let other = sound(subject.medium.reopen().await);
    for cache in [&subject.cache, &other] {
        let artifact = is_present(&**cache, &key()).await;
        let size = artifact.size();
        assert_eq!(size, CONTENT.len() as u64);
        if let Some(told) = artifact.checksum() {
            let sums = BlockSums::read_all(CONTENT).expect("it can be read");
            assert_eq!(told, sums.checksum(), "the checksum that it tells");
        }
        // From the end to the start, through another handle each time.
        for offset in (0..=size + 1).rev() {
            let (handle, mut rest) = (artifact.clone(), Vec::new());
            let mut part = [0; 5];
            loop {
                let read = handle.read_at(offset + rest.len() as u64, &mut part);
                match read.expect("it can be read") {
                    0 => break,
                    count => rest.extend_from_slice(&part[..count]),
                }
            }
            let expected = CONTENT.get(offset as usize..).unwrap_or_default();
            assert_eq!(rest, expected, "from byte {offset}");
            let (range, mut whole) = (offset.min(size)..size, Vec::new());
            let read = artifact.read_range(range, &mut |piece| {
                whole.extend_from_slice(piece);
                Ok(())
            });
            read.expect("it can be read");
            assert_eq!(whole, expected, "the range from byte {offset}");
            let beyond = artifact.read_range(offset..size + 2, &mut |_| Ok(()));
            let error = beyond.expect_err("there are fewer bytes");
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "a range beyond the end: {error}");
        }
    }
}

async fn of_many_makers_of_an_artifact_one_makes_it(fixture: &dyn CacheFixture) {
    const MAKERS: usize = 8;
    let subject = fixture.open().await;
    let mut first = vacant(&*subject.cache).await;
    let mut waiters = Vec::new();
    for maker in 0..MAKERS {
        let cache = if maker % 2 == 0 { subject.cache.clone() } else { sound(subject.medium.reopen().await) };
        waiters.push(waiting("another maker", async move { cache.artifact(&key()).await }).await);
    }
    first.output().write_all(CONTENT).expect("it can be written");
    drop(sound(first.commit(&Made::default())));
    for maker in waiters {
        let found = promptly(fixture, "another maker", maker).await.expect("no maker panics");
        let Artifact::Present(artifact) = sound(found) else { panic!("it was to be made twice") };
        assert_eq!(bytes(&*artifact), CONTENT);
    }
}

async fn a_look_for_an_artifact_takes_no_right_and_never_waits(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let other = sound(subject.medium.reopen().await);
    let key = key();
    let look = async || {
        let mut found = Vec::new();
        for cache in [&subject.cache, &other] {
            let answer = promptly(fixture, "a look for an artifact", cache.find_artifact(&key)).await;
            found.extend(sound(answer));
        }
        found
    };
    let missing = "what is not there was found";
    assert!(look().await.is_empty(), "{missing}");
    let mut writer = promptly(fixture, "the only maker", vacant(&*subject.cache)).await;
    writer.output().write_all(&CONTENT[..10]).expect("it can be written");
    assert!(look().await.is_empty(), "{missing}");
    writer.output().write_all(&CONTENT[10..]).expect("it can be written");
    let made = sound(writer.commit(&Made::default().with_note("told")));
    // A cache may know nothing by a look alone.
    for found in look().await {
        assert_eq!((bytes(&*found), found.path()), (CONTENT.to_vec(), made.path()));
        assert_eq!((found.size(), found.made()), (made.size(), made.made()));
    }
    if let Some(path) = made.path() {
        tokio::time::sleep(TICK).await;
        overwrite(path, CHANGED).expect("it can be written to");
        // It may be found elsewhere, as it was made.
        for found in look().await {
            assert_eq!(bytes(&*found), CONTENT, "what others have written was found");
        }
    }
}

async fn an_artifact_is_written_in_any_order(fixture: &dyn CacheFixture) {
    const MIB: u64 = 1 << 20;
    let subject = fixture.open().await;
    let mut source = tempfile::tempfile().expect("a file can be made");
    source.write_all(&[b'c'; 3000]).expect("it can be written");
    let write = |out: &mut dyn Output| {
        out.write_all(&vec![b'a'; 2 << 20])?;
        out.seek(SeekFrom::Start(5))?;
        out.write_all(b"over")?;
        out.seek(SeekFrom::Start(MIB + 7))?;
        out.copy_range(&source, 100, 2000)?;
        out.set_len(2 * MIB - 10)?;
        out.set_len(3 * MIB)?;
        out.seek(SeekFrom::Start(4 * MIB + 3))?;
        let count = out.write_vectored(&[IoSlice::new(b"be"), IoSlice::new(b"hind")])?;
        out.write_all(&b"behind"[count..])?;
        out.seek(SeekFrom::Start(4 * MIB))?;
        out.write_all(b"xyz")?;
        out.set_len(6 * MIB + 1)
    };
    let mut model = tempfile::tempfile().expect("a file can be made");
    write(&mut model).expect("a file can be written");
    let mut expected = Vec::new();
    model.rewind().and_then(|()| model.read_to_end(&mut expected)).expect("it can be read");
    let mut writer = vacant(&*subject.cache).await;
    write(writer.output()).expect("it can be written");
    let made = sound(writer.commit(&Made::default()));
    let found = is_present(&*subject.cache, &key()).await;
    for artifact in [made, found] {
        assert_eq!(artifact.size(), expected.len() as u64);
        assert!(bytes(&*artifact) == expected, "a file would have other bytes");
        if let Some(told) = artifact.checksum() {
            let sums = BlockSums::read_all(&*expected).expect("it can be read");
            assert_eq!(told, sums.checksum(), "the checksum that it tells");
        }
    }
    assert_eq!(sound(subject.cache.verify(&Verify::default()).await).damage, []);
}

/// Makes a file that is not there.
pub(super) async fn make(
    cache: &dyn CacheProvider,
    key: &ArtifactKey,
    made: &Made,
) -> Box<dyn ArtifactHandle> {
    let Artifact::Vacant(mut writer) = sound(cache.artifact(key).await) else { panic!("{key:?} is there") };
    writer.output().write_all(CONTENT).expect("it can be written");
    sound(writer.commit(made))
}

pub(super) async fn is_present(cache: &dyn CacheProvider, key: &ArtifactKey) -> Box<dyn ArtifactHandle> {
    match sound(cache.artifact(key).await) {
        Artifact::Present(artifact) => artifact,
        Artifact::Vacant(_) => panic!("{key:?} is gone"),
    }
}

pub(super) fn key() -> ArtifactKey {
    let format = Format { name: "conformance", version: 1, options: String::new(), extension: "rule" };
    ArtifactKey::layer(format, digest::sha256(b"a layer"))
}

async fn vacant(cache: &dyn CacheProvider) -> Box<dyn ArtifactWriter> {
    match sound(cache.artifact(&key()).await) {
        Artifact::Vacant(writer) => writer,
        Artifact::Present(artifact) => panic!("{artifact:?} was never finished"),
    }
}

/// The file, which is made if the cache says that it is not there.
async fn present(cache: &dyn CacheProvider) -> Box<dyn ArtifactHandle> {
    let artifact = match sound(cache.artifact(&key()).await) {
        Artifact::Present(artifact) => artifact,
        Artifact::Vacant(mut writer) => {
            writer.output().write_all(CONTENT).expect("it can be written");
            sound(writer.commit(&Made::default()))
        }
    };
    assert_eq!(artifact.size(), CONTENT.len() as u64);
    artifact
}

pub(super) fn bytes(artifact: &dyn ArtifactHandle) -> Vec<u8> {
    let mut bytes = Vec::new();
    sound(ArtifactReader::open(artifact)).read_to_end(&mut bytes).expect("it can be read");
    bytes
}
