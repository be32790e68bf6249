//! What goes, what stays, and what it takes.

use std::time::Duration;

use bytes::Bytes;
use plyfold_core::layer::LayerLimits;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt, Collect, Collected, Descriptor, Digest, ErrorKind,
    Ingest, NameChange, PullPolicy,
};

use super::setup::{amd64, blob, name, names, pull, pull_for, pulled, registry_with, set, stream_of};
use crate::rule::{not_judged, rules};
use crate::rules::probe::{Hooked, NAME, assert_kind, at, sound};
use crate::samples::{self, LayerBuilder, Sample};
use crate::{CacheFixture, CacheUnderTest};

rules! {
    $ __cache_collect_rules of dyn CacheFixture;
    "C 63" gc_keeps_reachable_incl_nested_referrers_and_leases:
        "a collection leaves what names and leases lead to, referrers included, and takes all the rest",
    "C 64" gc_skips_in_flight_ingest:
        "a collection takes nothing from those who are about to store or to name it",
    "C 65" evict_is_lru_and_never_pinned:
        "to meet a budget the names go that were not used for longest, none that is pinned or leased",
    "C 66" size_counts_blob_once:
        "content that several names need, or one needs several times, is counted once",
    "C 184" partial_downloads_are_counted_and_dropped:
        "an interrupted download is counted by its digest, and goes when a collection is asked to, unless it is leased",
    "C 292" the_index_of_a_blob_is_kept_with_it:
        "the index of a layer that is compressed by gzip is there for every handle, and \
         goes with the last name that needs the layer",
}

async fn gc_keeps_reachable_incl_nested_referrers_and_leases(fixture: &dyn CacheFixture) {
    let sample = samples::nested_index();
    let subject = pulled(fixture, &sample, NAME).await;
    if !fixture.collects() {
        return refuses_to_collect(&subject).await;
    }
    let (cache, other) = (&subject.cache, sound(subject.medium.reopen().await));
    // An artifact about the image for amd64, which nothing but its subject leads to.
    let referrer = samples::subject();
    let about = referrer.subject.as_ref().expect("the sample has a subject");
    assert_eq!(about.manifest.digest(), sample.image_for("linux/amd64").manifest.digest());
    store(&**cache, &referrer).await;
    let (garbage, leased) = (blob(b"garbage"), blob(b"leased"));
    sound(cache.put(stream_of(&garbage, [Ok(b"garbage")])).await);
    let lease = sound(other.lease(std::slice::from_ref(leased.digest())).await);
    sound(cache.put(stream_of(&leased, [Ok(b"leased")])).await);
    let kept = present(&**cache, [&sample, &referrer]).await;
    assert!(kept.len() > 8, "index, index, manifest, config, two layers; manifest, config, document");

    let would = sound(cache.collect(&Collect { dry_run: true, ..Collect::default() }).await);
    assert_eq!((&would.blobs, would.freed), (&vec![garbage.digest().clone()], garbage.size()));
    assert!(sound(cache.stat(garbage.digest()).await).is_some(), "a dry run takes nothing");
    let graceful = Collect { grace: Duration::from_secs(3600), ..Collect::default() };
    assert_eq!(sound(cache.collect(&graceful).await).blobs, [], "what has just been stored is let alone");
    let did = collect(&**cache).await;
    assert_eq!((&did.blobs, did.freed), (&would.blobs, would.freed), "as the dry run said");
    assert_eq!(did.kept, sound(cache.usage().await).blobs, "what is kept is what is there");
    assert_eq!(sound(cache.stat(garbage.digest()).await), None);
    assert_eq!(present(&**cache, [&sample, &referrer]).await, kept);
    assert!(sound(cache.stat(leased.digest()).await).is_some(), "a lease of any holder protects");
    assert!(sound(cache.image_in_cache(&name(NAME), &amd64()).await));

    drop(lease);
    assert_eq!(collect(&**cache).await.blobs, [leased.digest().clone()]);
    // A lease on a document that is here protects what it leads to.
    let lease = sound(other.lease(std::slice::from_ref(sample.top.digest())).await);
    sound(cache.remove(&name(NAME)).await);
    assert_eq!(collect(&**cache).await.blobs, []);
    drop(lease);
    let mut gone = collect(&**cache).await.blobs;
    gone.sort_by_key(ToString::to_string);
    assert_eq!(gone, kept, "nothing leads there any more");
    assert_eq!(sound(cache.usage().await).blobs, 0);
}

async fn the_index_of_a_blob_is_kept_with_it(fixture: &dyn CacheFixture) {
    let sample = samples::image();
    let subject = pulled(fixture, &sample, NAME).await;
    let (cache, other) = (&subject.cache, sound(subject.medium.reopen().await));
    let layer = &sample.images[0].layers[0].descriptor;
    let limits = LayerLimits::default();
    assert_eq!(sound(cache.find_gzip_index(layer).await), None, "none is made");
    let made = sound(cache.make_gzip_index(layer, &limits).await).expect("the layer is a gzip stream");
    assert_eq!(made.blob_size(), layer.size());
    let config = &sample.images[0].config;
    assert_eq!(sound(cache.make_gzip_index(config, &limits).await), None, "a document is no gzip stream");
    // A cache may know nothing by a look alone.
    if sound(cache.find_gzip_index(layer).await).is_none() {
        return;
    }
    for handle in [cache, &other] {
        assert_eq!(sound(handle.find_gzip_index(layer).await).as_ref(), Some(&made));
        assert_eq!(sound(handle.make_gzip_index(layer, &limits).await).as_ref(), Some(&made), "once more");
    }
    if !fixture.collects() {
        return;
    }
    collect(&*other).await;
    assert_eq!(sound(cache.find_gzip_index(layer).await).as_ref(), Some(&made), "a name needs the layer");
    sound(cache.remove(&name(NAME)).await);
    collect(&*other).await;
    assert_eq!(sound(cache.find_gzip_index(layer).await), None, "nothing needs the layer");
}

async fn gc_skips_in_flight_ingest(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    if !fixture.collects() {
        return refuses_to_collect(&subject).await;
    }
    let (cache, other) = (&subject.cache, sound(subject.medium.reopen().await));
    let content = Bytes::from_static(b"a blob that is being stored while others collect");
    let wanted = blob(&content);
    let lease = sound(cache.lease(std::slice::from_ref(wanted.digest())).await);
    let Ingest::Vacant(mut writer) = sound(cache.ingest(&wanted).await) else {
        panic!("nothing is stored yet");
    };
    sound(writer.write(content.slice(..10)).await);
    collect(&*other).await;
    sound(writer.write(content.slice(10..)).await);
    sound(writer.commit().await);
    collect(&*other).await;
    sound(cache.verify_blob(&wanted).await);
    set(&**cache, "registry.example/stored:1", &wanted).await;
    drop(lease);
    collect(&*other).await;
    sound(cache.verify_blob(&wanted).await);

    // Collections before each blob of a pull.
    let sample = samples::index();
    let collector = other.clone();
    let registry = Hooked::new(&registry_with(&sample, NAME), move |_| {
        let collector = collector.clone();
        Box::pin(async move { drop(collect(&*collector).await) })
    });
    drop(sound(pull(&subject, &registry, &name(NAME), PullPolicy::IfMissing).await));
    collect(&*other).await;
    assert!(sound(cache.image_in_cache(&name(NAME), &amd64()).await));
}

async fn evict_is_lru_and_never_pinned(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    if !fixture.collects() {
        return refuses_to_collect(&subject).await;
    }
    let cache = &subject.cache;
    let texts = ["registry.example/a:1", "registry.example/b:1", "registry.example/c:1"];
    let mut contents = Vec::new();
    for text in texts {
        let own = LayerBuilder::new().file("name", 0o644, text.as_bytes()).finish();
        let sample = samples::of_layers("evicted", &[own]);
        drop(sound(pull(&subject, &registry_with(&sample, text), &name(text), PullPolicy::IfMissing).await));
        contents.push(sample.blobs.iter().map(|blob| blob.descriptor.digest().clone()).collect::<Vec<_>>());
        apart().await;
    }
    let use_it = async |place: usize| {
        drop(sound(cache.lease(&contents[place]).await));
        apart().await;
    };
    let evicted = async |policy: Collect| {
        let evicted = sound(cache.collect(&policy).await).evicted;
        evicted.iter().map(plyfold_core::Reference::whole).collect::<Vec<_>>()
    };
    // The first one stored is not the one that was used least lately.
    use_it(0).await;
    let total = sound(cache.usage().await).blobs;
    let tight = Collect { budget: Some(total - 1), ..Collect::default() };
    assert_eq!(evicted(Collect { budget: Some(total), ..Collect::default() }).await, [""; 0], "it fits");
    assert_eq!(evicted(Collect { dry_run: true, ..tight.clone() }).await, [texts[1]]);
    assert_eq!(names(&**cache).await.len(), 3, "a dry run takes nothing");
    assert_eq!(
        evicted(tight).await,
        [texts[1]],
        "one is enough, and it is the one that was not used for longest"
    );
    assert!(!sound(cache.image_in_cache(&name(texts[1]), &amd64()).await));
    assert!(sound(cache.usage().await).blobs < total, "its content goes with it");

    let nothing = Collect { budget: Some(0), ..Collect::default() };
    sound(cache.update(&[NameChange::Pin(name(texts[0]))]).await);
    assert_eq!(sound(cache.pins().await), [name(texts[0])]);
    let lease = sound(cache.lease(&contents[2]).await);
    assert_eq!(evicted(nothing.clone()).await, [""; 0], "pinned and leased");
    drop(lease);
    assert_eq!(evicted(nothing.clone()).await, [texts[2]]);
    assert!(
        sound(cache.image_in_cache(&name(texts[0]), &amd64()).await),
        "pinned is pinned, whatever the budget"
    );
    sound(cache.update(&[NameChange::Unpin(name(texts[0]))]).await);
    assert_eq!(evicted(nothing).await, [texts[0]]);
    assert_eq!(sound(cache.usage().await).blobs, 0);
    assert_kind(
        cache.update(&[NameChange::Pin(name("registry.example/absent:1"))]).await,
        &ErrorKind::NotFound,
    );
}

async fn size_counts_blob_once(fixture: &dyn CacheFixture) {
    let sample = samples::index();
    let subject = pulled(fixture, &sample, NAME).await;
    if !fixture.collects() {
        return refuses_to_collect(&subject).await;
    }
    let cache = &subject.cache;
    // The same image, the same under another name, and a part of it under its digest.
    let (arm, other) = (sample.image_for("linux/arm64/v8"), "registry.example/other:1");
    let child = at(&name(NAME), arm.manifest.digest());
    let registry = registry_with(&sample, NAME);
    let platform = sound("linux/arm64/v8".parse());
    drop(sound(pull_for(&subject, &registry, &child, PullPolicy::IfMissing, &platform).await));
    set(&**cache, other, &sample.top).await;
    // And one that needs its bottom layer twice.
    let (twice, repeated) = ("registry.example/twice:1", samples::repeated_layer());
    drop(sound(pull(&subject, &registry_with(&repeated, twice), &name(twice), PullPolicy::IfMissing).await));

    let size_of = async |sample: &Sample| sizes(&**cache, &present(&**cache, [sample]).await).await;
    let (whole, alone) = (size_of(&sample).await, size_of(&repeated).await);
    let part: u64 = [&arm.manifest, &arm.config].into_iter().map(Descriptor::size).sum::<u64>()
        + arm.layers.iter().map(|layer| layer.descriptor.size()).sum::<u64>();
    let usage = sound(cache.usage().await);
    assert_eq!((usage.blobs, usage.unused), (whole + alone, 0));
    let images: Vec<_> = usage.images.iter().map(|i| (i.reference.whole(), i.size, i.unique)).collect();
    let mut expected = vec![
        (NAME.to_owned(), whole, 0),
        (child.whole(), part, 0),
        (other.to_owned(), whole, 0),
        (twice.to_owned(), alone, alone),
    ];
    expected.sort();
    assert_eq!(images, expected);

    sound(cache.remove(&name(other)).await);
    sound(cache.put(stream_of(&blob(b"nobody's"), [Ok(b"nobody's")])).await);
    let usage = sound(cache.usage().await);
    assert_eq!((usage.blobs, usage.unused), (whole + alone + 8, 8));
    let top = usage.images.iter().find(|image| image.reference.whole() == NAME).expect("it is listed");
    assert_eq!((top.size, top.unique), (whole, whole - part), "what the child needs is not its own");
    assert_eq!(sound(cache.collect(&Collect::default()).await).kept, whole + alone);
}

async fn partial_downloads_are_counted_and_dropped(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    if !fixture.collects() {
        return refuses_to_collect(&subject).await;
    }
    let (cache, other) = (&subject.cache, sound(subject.medium.reopen().await));
    let wanted = blob(b"a download that is interrupted");
    let begin = async |part: &'static [u8]| {
        let Ingest::Vacant(mut writer) = sound(cache.ingest(&wanted).await) else {
            panic!("nothing is stored yet");
        };
        sound(writer.write(Bytes::from_static(part)).await);
        writer
    };
    sound(begin(b"a download").await.suspend().await);
    let held = sound(cache.partial(wanted.digest()).await);
    let counted = async || {
        let partials = sound(other.usage().await).partials.into_iter();
        partials.filter(|partial| partial.digest == *wanted.digest()).map(|partial| partial.size).sum::<u64>()
    };
    assert_eq!(counted().await, held, "what is kept is counted");
    if held == 0 {
        return not_judged("the cache keeps nothing of a suspended download");
    }
    let patient = Collect { resumable: Duration::from_secs(3600), ..Collect::default() };
    let collected = sound(other.collect(&patient).await);
    assert_eq!((collected.partials, collected.resumable, collected.freed), (vec![], held, 0));
    let lease = sound(cache.lease(std::slice::from_ref(wanted.digest())).await);
    assert_eq!(collect(&*other).await.partials, [], "a writer is about to resume");
    drop(lease);
    let Ingest::Vacant(mut writer) = sound(cache.ingest(&wanted).await) else { panic!("it is not complete") };
    assert_eq!(writer.offset(), held);
    assert_eq!(collect(&*other).await.partials, [], "a writer resumes");
    sound(writer.write(Bytes::from_static(b" that")).await);
    sound(writer.suspend().await);
    let held = held + 5;
    assert_eq!(counted().await, held);
    let would = sound(other.collect(&Collect { dry_run: true, ..Collect::default() }).await);
    assert_eq!((would.partials, would.freed), (vec![wanted.digest().clone()], held));
    assert_eq!(counted().await, held, "a dry run takes nothing");
    let did = collect(&*other).await;
    assert_eq!((did.partials, did.freed, did.resumable), (vec![wanted.digest().clone()], held, 0));
    assert_eq!((counted().await, sound(cache.partial(wanted.digest()).await)), (0, 0));
}

/// Times of use lie apart by more than the coarsest clock of a file system in use.
async fn apart() {
    tokio::time::sleep(Duration::from_millis(25)).await;
}

pub(super) async fn collect(cache: &dyn CacheProvider) -> Collected {
    sound(cache.collect(&Collect::default()).await)
}

/// A cache that does not collect says so at once, and takes nothing.
pub(super) async fn refuses_to_collect(subject: &CacheUnderTest) {
    let before = sound(subject.cache.list().await);
    for dry_run in [true, false] {
        let policy = Collect { dry_run, budget: Some(0), ..Collect::default() };
        assert_kind(subject.cache.collect(&policy).await, &ErrorKind::Unsupported);
    }
    assert_kind(subject.cache.usage().await, &ErrorKind::Unsupported);
    assert_eq!(sound(subject.cache.pins().await), []);
    assert_eq!(sound(subject.cache.list().await), before);
    not_judged("the cache does not collect");
}

/// Stores every blob of a sample, under no name.
async fn store(cache: &dyn CacheProvider, sample: &Sample) {
    for blob in &sample.blobs {
        let content = sound(Blob::from_bytes(&blob.descriptor, BlobRange::FULL, &blob.bytes));
        sound(cache.put(content).await);
    }
}

/// The blobs of these samples that are here, sorted.
async fn present<const N: usize>(cache: &dyn CacheProvider, samples: [&Sample; N]) -> Vec<Digest> {
    let mut found = Vec::new();
    for blob in samples.into_iter().flat_map(|sample| &sample.blobs) {
        if sound(cache.stat(blob.descriptor.digest()).await).is_some() {
            found.push(blob.descriptor.digest().clone());
        }
    }
    found.sort_by_key(ToString::to_string);
    found.dedup();
    found
}

async fn sizes(cache: &dyn CacheProvider, blobs: &[Digest]) -> u64 {
    let mut total = 0;
    for blob in blobs {
        total += sound(cache.stat(blob).await).expect("it is here");
    }
    total
}
