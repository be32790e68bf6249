//! C: what a cache must do.

use bytes::Bytes;
use futures_util::stream;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt, Completeness, Descriptor, Error, ErrorKind, Ingest,
    NameChange, Platform, PullOptions, PullPolicy, Reference, Result, digest, reference,
};

use super::probe::{Counting, NAME, assert_kind, at, error_of, read, sound};
use crate::rule::{Rule, rules};
use crate::samples::{self, Sample};
use crate::stages::fill;
use crate::{CacheStage, CacheSubject, Staged};

pub(super) const RULES: &[Rule<dyn CacheStage>] = rules! {
    "C 40" absent_is_ok_none_not_error:
        "what is not there is None, not an error; reading it is NotFound, an unknown digest algorithm Unsupported",
    "C 41" find_by_tag_digest_and_child_digest:
        "a name is found by its tag, by its digest and by the digest of a child, nested ones included",
    "C 42" find_scoped_to_repository:
        "content that another repository has does not exist in this one",
    "C 43" put_wrong_digest_publishes_nothing:
        "content that does not hash to its digest is corrupt, and nothing of it can be seen afterwards",
    "C 44" put_wrong_size_publishes_nothing:
        "content with more or fewer bytes than declared is corrupt, and nothing of it can be seen afterwards",
    "C 45" put_reader_error_at_end_publishes_nothing_and_leaves_no_temp:
        "a source that fails after its last byte publishes nothing, leaves nothing, and does not spoil the next try",
    "C 46" put_existing_is_idempotent_and_repairs_corrupt_existing:
        "storing again what is there is a success; where what is there is damaged, it is replaced",
    "C 47" contains_means_complete_for_platform:
        "an image is cached when manifest, config and every layer of that platform are here with the right sizes",
    "C 48" missing_layer_reported_by_digest:
        "what an incomplete image lacks is told by digest",
    "C 49" pull_if_present_does_no_network_io:
        "with everything here IfMissing and Never ask nobody, also when the tag has moved; Never lists what it lacks",
    "C 58" descriptor_write_requires_name_and_replaces:
        "setting a name replaces what it stood for, in one transaction with other changes",
    "C 59" retag_keeps_other_names:
        "giving content one more name takes none of its names away",
    "C 60" two_names_one_digest:
        "two names may stand for one digest, each with a life of its own",
    "C 61" remove_keeps_shared_blobs:
        "removing a name keeps the content that another name needs",
    "C 62" remove_absent_is_documented_noop:
        "removing a name that is not there is a success and changes nothing",
};

async fn absent_is_ok_none_not_error(stage: &dyn CacheStage) {
    let subject = stage.open().await;
    let cache = &subject.cache;
    let absent = blob(b"absent");
    assert_eq!(sound(cache.stat(absent.digest()).await), None);
    let names = [name(NAME), at(&name(NAME), absent.digest())];
    for name in &names {
        assert_eq!(sound(cache.find_descriptor(name).await), None);
        assert_eq!(sound(cache.completeness(name, &amd64()).await), Completeness::Unknown);
        assert!(!sound(cache.is_cached(name, &amd64()).await));
    }
    assert_eq!(sound(cache.list().await), []);
    assert_kind(read(cache.open(&absent, BlobRange::FULL).await).await, &ErrorKind::NotFound);
    sound(cache.quarantine(absent.digest()).await);

    let unknown = "blake3:00".try_into().expect("the grammar of digests allows any algorithm");
    assert_kind(cache.stat(&unknown).await, &ErrorKind::Unsupported);
    let unknown = Descriptor::new(absent.media_type().clone(), 6, unknown);
    assert_kind(cache.ingest(&unknown).await, &ErrorKind::Unsupported);
}

async fn find_by_tag_digest_and_child_digest(stage: &dyn CacheStage) {
    for sample in [samples::index(), samples::nested_index()] {
        let subject = pulled(stage, &sample, NAME).await;
        let top = sound(subject.cache.find_descriptor(&name(NAME)).await).expect("found by tag");
        assert_eq!((top.digest(), top.size()), (sample.top.digest(), sample.top.size()));
        let child = &sample.image_for("linux/amd64").manifest;
        for wanted in [&sample.top, child] {
            let found = sound(subject.cache.find_descriptor(&at(&name(NAME), wanted.digest())).await);
            let found = found.unwrap_or_else(|| panic!("{} is found by digest", wanted.digest()));
            assert_eq!((found.digest(), found.size()), (wanted.digest(), wanted.size()));
            assert_eq!(found.media_type(), wanted.media_type());
        }
        let layer = at(&name(NAME), sample.image_for("linux/amd64").layers[0].descriptor.digest());
        assert_eq!(sound(subject.cache.find_descriptor(&layer).await), None, "a layer is no image");
    }
}

async fn find_scoped_to_repository(stage: &dyn CacheStage) {
    let sample = samples::index();
    let subject = pulled(stage, &sample, NAME).await;
    let elsewhere = name("registry.example/other/app:1.2");
    let child = at(&elsewhere, sample.image_for("linux/amd64").manifest.digest());
    for absent in
        [elsewhere.clone(), at(&elsewhere, sample.top.digest()), child, name("other.example/library/app:1.2")]
    {
        assert_eq!(sound(subject.cache.find_descriptor(&absent).await), None, "{absent}");
    }
    assert_eq!(sound(subject.cache.find_descriptor(&name("registry.example/library/app:2")).await), None);
}

async fn put_wrong_digest_publishes_nothing(stage: &dyn CacheStage) {
    let subject = stage.open().await;
    let (right, wrong) = (blob(b"right content"), b"wrong content");
    let error = assert_kind(subject.cache.put(stream_of(&right, [Ok(wrong)])).await, &ErrorKind::Corrupt);
    let mismatch = error.as_mismatch().expect("both digests are in the error");
    assert_eq!((&mismatch.expected, &mismatch.actual), (right.digest(), &Some(digest::sha256(wrong))));
    assert_nothing(&subject, &right).await;
    sound(subject.cache.put(stream_of(&right, [Ok(b"right content")])).await);
}

async fn put_wrong_size_publishes_nothing(stage: &dyn CacheStage) {
    let content = b"thirteen byte";
    for size in [content.len() as u64 - 1, content.len() as u64 + 1, 0, 1 << 50] {
        let subject = stage.open().await;
        let lying = Descriptor::new(blob(content).media_type().clone(), size, digest::sha256(content));
        let error =
            assert_kind(subject.cache.put(stream_of(&lying, [Ok(content)])).await, &ErrorKind::Corrupt);
        let mismatch = error.as_mismatch().expect("both sizes are in the error");
        assert_eq!(mismatch.expected_size, Some(size));
        assert_nothing(&subject, &lying).await;

        // The stream counts too; the writer must not rely on it.
        let Ingest::Vacant(mut writer) = sound(subject.cache.ingest(&lying).await) else {
            panic!("what was not published is present");
        };
        let written = writer.write(Bytes::from_static(content)).await;
        let outcome = if written.is_ok() {
            writer.commit().await
        } else {
            drop(writer);
            written
        };
        assert_kind(outcome, &ErrorKind::Corrupt);
        assert_nothing(&subject, &lying).await;
    }
}

async fn put_reader_error_at_end_publishes_nothing_and_leaves_no_temp(stage: &dyn CacheStage) {
    let subject = stage.open().await;
    let content = b"all of it arrives, and then the source fails";
    let whole = blob(content);
    let failing = [Ok(&content[..]), Err(Error::new(ErrorKind::Unavailable, "the source is gone"))];
    assert_kind(subject.cache.put(stream_of(&whole, failing)).await, &ErrorKind::Unavailable);
    assert_nothing(&subject, &whole).await;
    sound(subject.cache.put(stream_of(&whole, [Ok(content)])).await);
    assert_eq!(&sound(subject.cache.content(&whole, 100).await)[..], content);
}

async fn put_existing_is_idempotent_and_repairs_corrupt_existing(stage: &dyn CacheStage) {
    let subject = stage.open().await;
    let content = b"stored once, stored twice";
    let stored = blob(content);
    for _ in 0..2 {
        sound(subject.cache.put(stream_of(&stored, [Ok(content)])).await);
        assert_eq!(sound(subject.cache.stat(stored.digest()).await), Some(content.len() as u64));
    }
    // The same size with another byte, then a truncation.
    for damaged in [b"stored once, stored twicE".as_slice(), b"stored"] {
        subject.medium.damage(stored.digest(), damaged);
        assert_kind(subject.cache.verify_blob(&stored).await, &ErrorKind::Corrupt);
        sound(subject.cache.put(stream_of(&stored, [Ok(content)])).await);
        assert_eq!(&sound(subject.cache.content(&stored, 100).await)[..], content);
    }
    assert_eq!(subject.medium.leftovers(), [""; 0]);
}

async fn contains_means_complete_for_platform(stage: &dyn CacheStage) {
    let sample = samples::index();
    let subject = pulled(stage, &sample, NAME).await;
    let image = sample.image_for("linux/amd64");
    let cached =
        async |platform: &str| sound(subject.cache.completeness(&name(NAME), &sound(platform.parse())).await);
    assert_eq!(cached("linux/amd64").await, Completeness::Complete);
    assert!(matches!(cached("linux/arm64").await, Completeness::Incomplete(_)), "only amd64 was pulled");

    for part in [&image.layers[0].descriptor, &image.layers[1].descriptor, &image.config] {
        let content = sound(subject.cache.content(part, u64::MAX).await);
        sound(subject.cache.quarantine(part.digest()).await);
        assert_ne!(cached("linux/amd64").await, Completeness::Complete, "without {}", part.digest());
        sound(subject.cache.put(sound(Blob::from_bytes(part, BlobRange::FULL, &content))).await);
        assert_eq!(cached("linux/amd64").await, Completeness::Complete);
    }
    let layer = &image.layers[0].descriptor;
    subject.medium.damage(layer.digest(), b"torn");
    assert_ne!(cached("linux/amd64").await, Completeness::Complete, "with a layer of the wrong size");
}

async fn missing_layer_reported_by_digest(stage: &dyn CacheStage) {
    let sample = samples::image();
    let subject = pulled(stage, &sample, NAME).await;
    let mut missing = Vec::new();
    for layer in &sample.images[0].layers {
        sound(subject.cache.quarantine(layer.descriptor.digest()).await);
        missing.push(layer.descriptor.digest().clone());
        let found = sound(subject.cache.completeness(&name(NAME), &amd64()).await);
        assert_eq!(found, Completeness::Incomplete(missing.clone()));
    }
}

async fn pull_if_present_does_no_network_io(stage: &dyn CacheStage) {
    let (sample, newer) = (samples::image(), samples::custom_fields());
    let subject = pulled(stage, &sample, NAME).await;
    let registry = registry_with(&newer, NAME);
    let counting = Counting::new(&registry);
    for policy in [PullPolicy::IfMissing, PullPolicy::Never] {
        let result = sound(pull(&subject, &counting, &name(NAME), policy).await);
        assert!(result.cached);
        assert_eq!(result.manifest.digest(), sample.top.digest(), "the tag has moved elsewhere, not here");
        assert_eq!(counting.calls(), 0, "calls under {policy:?}");
    }
    let layer = sample.images[0].layers[1].descriptor.digest();
    sound(subject.cache.quarantine(layer).await);
    let error =
        assert_kind(pull(&subject, &counting, &name(NAME), PullPolicy::Never).await, &ErrorKind::NotFound);
    assert!(error.to_string().contains(layer.as_ref()), "{error}");
    assert_eq!(counting.calls(), 0, "calls under Never with a missing layer");
    let absent = pull(&subject, &counting, &name("registry.example/absent:1"), PullPolicy::Never).await;
    assert_kind(absent, &ErrorKind::NotFound);
    assert_eq!(counting.calls(), 0, "calls under Never for an unknown image");
}

async fn descriptor_write_requires_name_and_replaces(stage: &dyn CacheStage) {
    let subject = stage.open().await;
    let cache = &subject.cache;
    let (first, second) = (document(&**cache, "first").await, document(&**cache, "second").await);
    set(&**cache, NAME, &first).await;
    set(&**cache, NAME, &second).await;
    assert_eq!(names(&**cache).await, [(NAME.to_owned(), second.digest().clone())]);

    let other = "registry.example/library/other:1";
    let changes = [
        NameChange::Set(name(other), first.clone()),
        NameChange::Remove(name(NAME)),
        NameChange::Set(name(other), second.clone()),
    ];
    sound(cache.update(&changes).await);
    assert_eq!(names(&**cache).await, [(other.to_owned(), second.digest().clone())]);
}

async fn retag_keeps_other_names(stage: &dyn CacheStage) {
    let subject = stage.open().await;
    let cache = &subject.cache;
    let content = document(&**cache, "one").await;
    let all = ["registry.example/a:1", "registry.example/a:2", "registry.example/b:1"];
    for (count, text) in all.iter().enumerate() {
        set(&**cache, text, &content).await;
        let found: Vec<_> = names(&**cache).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, all[..=count]);
    }
}

async fn two_names_one_digest(stage: &dyn CacheStage) {
    let subject = stage.open().await;
    let cache = &subject.cache;
    let (one, other) = (document(&**cache, "one").await, document(&**cache, "other").await);
    let (first, second) = ("registry.example/a:1", "registry.example/b:1");
    set(&**cache, first, &one).await;
    set(&**cache, second, &one).await;
    set(&**cache, first, &other).await;
    let both = [(first.to_owned(), other.digest().clone()), (second.to_owned(), one.digest().clone())];
    assert_eq!(names(&**cache).await, both);
    set(&**cache, first, &one).await;
    sound(cache.remove(&name(first)).await);
    assert_eq!(names(&**cache).await, both[1..]);
}

async fn remove_keeps_shared_blobs(stage: &dyn CacheStage) {
    let sample = samples::image();
    let subject = pulled(stage, &sample, NAME).await;
    let other = "registry.example/library/other:1";
    set(&*subject.cache, other, &sample.top).await;
    sound(subject.cache.remove(&name(NAME)).await);
    assert_eq!(sound(subject.cache.find_descriptor(&name(NAME)).await), None);
    assert!(sound(subject.cache.is_cached(&name(other), &amd64()).await));
    for layer in &sample.images[0].layers {
        sound(subject.cache.verify_blob(&layer.descriptor).await);
    }
}

async fn remove_absent_is_documented_noop(stage: &dyn CacheStage) {
    let subject = stage.open().await;
    let cache = &subject.cache;
    sound(cache.remove(&name(NAME)).await);
    let content = document(&**cache, "stays").await;
    set(&**cache, NAME, &content).await;
    for absent in
        ["registry.example/library/app:1", "registry.example/library/ap:1.2", "other.example/library/app:1.2"]
    {
        sound(cache.remove(&name(absent)).await);
    }
    assert_eq!(names(&**cache).await, [(NAME.to_owned(), content.digest().clone())]);
}

/// A cache that holds the amd64 image of a sample.
async fn pulled(stage: &dyn CacheStage, sample: &Sample, text: &str) -> CacheSubject {
    let subject = stage.open().await;
    let registry = registry_with(sample, text);
    let result = pull(&subject, &Counting::new(&registry), &name(text), PullPolicy::IfMissing).await;
    assert_eq!(sound(result).descriptor.digest(), sample.top.digest());
    subject
}

async fn pull(
    subject: &CacheSubject,
    registry: &Counting,
    reference: &Reference,
    policy: PullPolicy,
) -> Result<plyfold_core::PullResult> {
    let options = PullOptions { policy, platform: amd64(), ..PullOptions::default() };
    subject.client.pull(registry, reference, &*subject.cache, &options).await
}

fn registry_with(sample: &Sample, text: &str) -> MemoryRegistry {
    let registry = MemoryRegistry::new("origin");
    fill(&registry, &Staged::new(text, sample));
    registry
}

fn name(text: &str) -> Reference {
    sound(reference::parse(text))
}

fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

fn blob(content: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream".into(), content.len() as u64, digest::sha256(content))
}

fn stream_of<const N: usize>(
    descriptor: &Descriptor,
    parts: [std::result::Result<&'static (impl AsRef<[u8]> + ?Sized), Error>; N],
) -> Blob {
    let parts = parts.map(|part| part.map(|bytes| Bytes::from_static(bytes.as_ref())));
    sound(Blob::new(descriptor, stream::iter(parts)))
}

/// Stores a small manifest, so that names have something to stand for.
async fn document(cache: &dyn CacheProvider, note: &str) -> Descriptor {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{{"note":"{note}"}}}}"#
    );
    let media_type = "application/vnd.oci.image.index.v1+json".into();
    let descriptor = Descriptor::new(media_type, text.len() as u64, digest::sha256(text.as_bytes()));
    sound(cache.put(sound(Blob::from_bytes(&descriptor, BlobRange::FULL, &text.into()))).await);
    descriptor
}

async fn set(cache: &dyn CacheProvider, text: &str, descriptor: &Descriptor) {
    sound(cache.update(&[NameChange::Set(name(text), descriptor.clone())]).await);
}

async fn names(cache: &dyn CacheProvider) -> Vec<(String, plyfold_core::Digest)> {
    let list = sound(cache.list().await);
    list.into_iter().map(|(name, descriptor)| (name.whole(), descriptor.digest().clone())).collect()
}

/// Nothing of a blob can be seen, and nothing of it is left.
async fn assert_nothing(subject: &CacheSubject, blob: &Descriptor) {
    assert_eq!(sound(subject.cache.stat(blob.digest()).await), None);
    let error = error_of(read(subject.cache.open(blob, BlobRange::FULL).await).await);
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(subject.medium.leftovers(), [""; 0]);
}
