//! What a load of an archive into a cache brings, says and leaves alone.

use std::io::ErrorKind as IoErrorKind;
use std::net::TcpListener;

use plyfold_core::cache::{LoadOptions, Loaded, MissingContent};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, CacheProviderExt, Collect, Descriptor, ErrorKind, MediaType, Opened, Platforms,
    RawManifest, Reference, Result, digest,
};
use serde_json::json;

use super::setup::{amd64, name, names, registry_with};
use crate::fixtures::fill;
use crate::rule::rules;
use crate::rules::probe::{NAME, assert_kind, at, sound};
use crate::samples::{self, LayerBuilder, Sample};
use crate::{CacheFixture, CacheUnderTest, FixtureImage};

rules! {
    $ __cache_loads_rules of dyn CacheFixture;
    "C 281" a_load_says_what_it_replaces:
        "a load says which image each name stood for before; a name that is to be kept is left alone, and the image comes by \
         its digest",
    "C 282" a_load_brings_all_platforms_that_are_there:
        "of an index everything comes that is there, and the name stands for the index; of one platform only that image is \
         asked for",
    "C 283" a_load_is_all_or_nothing:
        "when one of several images cannot be loaded, no name is changed, and what was stored of them is collected",
    "X 104" import_performs_zero_network_io:
        "a load asks no network for a layer that names URLs",
    "X 107" delta_archive_missing_blobs_reported_and_satisfied_by_cache:
        "what is neither in the archive nor in the cache is reported, all of it, before anything is stored; what the cache \
         has may be missing in the archive",
}

const OTHER: &str = "registry.example/library/other:1";

async fn load(
    subject: &CacheUnderTest,
    registry: &MemoryRegistry,
    options: &LoadOptions,
) -> Result<Vec<Loaded>> {
    let from = Opened { registry: Box::new(registry.clone()), reference: None };
    subject.client.load(&from, &*subject.cache, options).await
}

/// An image with one file of its own.
fn own(text: &'static str) -> Sample {
    samples::of_layers("own", &[LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish()])
}

async fn a_load_says_what_it_replaces(fixture: &dyn CacheFixture) {
    let (old, new, third) = (own("old"), own("new"), own("third"));
    let subject = fixture.open().await;
    let first = sound(load(&subject, &registry_with(&old, NAME), &LoadOptions::default()).await);
    assert_eq!((first.len(), &first[0].replaced, &first[0].kept), (1, &None, &None));
    let newer = registry_with(&new, NAME);
    fill(&newer, &FixtureImage::new(OTHER, &third));
    let digests = |loaded: &[Loaded]| {
        let digest = |descriptor: &Option<Descriptor>| descriptor.as_ref().map(|one| one.digest().clone());
        let said = loaded.iter().map(|one| (one.reference.whole(), digest(&one.replaced), digest(&one.kept)));
        said.collect::<Vec<_>>()
    };
    let stood = Some(old.top.digest().clone());
    let keeping = LoadOptions { keep_names: true, ..LoadOptions::default() };
    let kept = sound(load(&subject, &newer, &keeping).await);
    assert_eq!(digests(&kept), [(NAME.to_owned(), None, stood.clone()), (OTHER.to_owned(), None, None)]);
    let stands = async |text: &str| {
        sound(subject.cache.find_descriptor(&name(text)).await).map(|found| found.digest().clone())
    };
    assert_eq!((stands(NAME).await, stands(OTHER).await), (stood.clone(), Some(third.top.digest().clone())));
    let by_digest = at(&name(NAME), new.top.digest());
    assert!(sound(subject.cache.image_in_cache(&by_digest, &amd64()).await), "it is here without the name");
    let replaced = sound(load(&subject, &newer, &LoadOptions::default()).await);
    assert_eq!(digests(&replaced), [(NAME.to_owned(), stood, None), (OTHER.to_owned(), None, None)]);
    assert_eq!(stands(NAME).await, Some(new.top.digest().clone()));
}

async fn a_load_brings_all_platforms_that_are_there(fixture: &dyn CacheFixture) {
    for (sample, platforms) in [
        (samples::index(), &["linux/amd64", "linux/arm64/v8", "linux/arm/v7"][..]),
        (samples::nested_index(), &["linux/amd64", "linux/arm64/v8"][..]),
        (samples::sparse_index(), &["linux/amd64"][..]),
    ] {
        let subject = fixture.open().await;
        let registry = registry_with(&sample, NAME);
        let loaded = sound(load(&subject, &registry, &LoadOptions::default()).await);
        assert_eq!(
            loaded.iter().map(|one| one.descriptor.digest()).collect::<Vec<_>>(),
            [sample.top.digest()]
        );
        for platform in platforms {
            let here = sound(subject.cache.image_in_cache(&name(NAME), &sound(platform.parse())).await);
            assert!(here, "{} of {}", platform, sample.name);
        }
        for blob in &sample.blobs {
            let size = sound(subject.cache.stat(blob.descriptor.digest()).await);
            assert_eq!(size, Some(blob.descriptor.size()), "{} of {}", blob.descriptor.digest(), sample.name);
        }
    }
    // Of the other platforms the archive needs nothing but what their index says.
    let (sample, subject) = (samples::index(), fixture.open().await);
    let wanted = sample.image_for("linux/amd64");
    let mut part = sample.clone();
    let needed = [&sample.top, &wanted.manifest, &wanted.config];
    let layers = wanted.layers.iter().map(|layer| &layer.descriptor);
    let needed: Vec<_> = needed.into_iter().chain(layers).map(Descriptor::digest).collect();
    part.blobs.retain(|blob| needed.contains(&blob.descriptor.digest()));
    let one = LoadOptions { platforms: Platforms::One(amd64()), ..LoadOptions::default() };
    let loaded = sound(load(&subject, &registry_with(&part, NAME), &one).await);
    assert_eq!(loaded[0].descriptor.digest(), sample.top.digest());
    assert!(sound(subject.cache.image_in_cache(&name(NAME), &amd64()).await));
}

async fn a_load_is_all_or_nothing(fixture: &dyn CacheFixture) {
    let (old, bad) = (own("old"), samples::bad_digest());
    let texts = ["registry.example/a:1", "registry.example/b:1", "registry.example/c:1"];
    let subject = fixture.open().await;
    drop(sound(load(&subject, &registry_with(&old, texts[0]), &LoadOptions::default()).await));
    let before = names(&*subject.cache).await;
    let registry = registry_with(&own("first"), texts[0]);
    let (first, last) = (own("first"), own("last"));
    fill(&registry, &FixtureImage::new(texts[1], &bad));
    fill(&registry, &FixtureImage::new(texts[2], &last));
    assert_kind(load(&subject, &registry, &LoadOptions::default()).await, &ErrorKind::Corrupt);
    assert_eq!(names(&*subject.cache).await, before, "no name is changed");
    assert_eq!(subject.medium.leftovers(), [""; 0]);
    if !fixture.collects() {
        return;
    }
    sound(subject.cache.collect(&Collect::default()).await);
    for blob in first.blobs.iter().chain(&last.blobs) {
        let digest = blob.descriptor.digest();
        assert!(
            old.blob(digest).is_some() || sound(subject.cache.stat(digest).await).is_none(),
            "{digest} is kept by nothing"
        );
    }
    assert!(sound(subject.cache.image_in_cache(&name(texts[0]), &amd64()).await));
}

async fn import_performs_zero_network_io(fixture: &dyn CacheFixture) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
    listener.set_nonblocking(true).expect("a socket that does not wait");
    let address = listener.local_addr().expect("the port that was given");
    let (config, layer) = (b"{}".to_vec(), b"not in the archive".to_vec());
    let blob = |kind: &str, content: &[u8]| json!({ "mediaType": kind, "digest": digest::sha256(content), "size": content.len() });
    let mut foreign = blob("application/vnd.docker.image.rootfs.foreign.diff.tar", &layer);
    foreign["urls"] = json!([format!("http://{address}/layer"), format!("https://{address}/layer")]);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.as_ref(),
        "config": blob("application/vnd.example.config", &config), "layers": [foreign],
    });
    let raw = sound(RawManifest::new(manifest.to_string(), None));
    let registry = MemoryRegistry::new("archive");
    registry.insert_blob(&name(NAME), digest::sha256(&config), config);
    registry.insert_manifest(&name(NAME), MediaType::ImageManifest, raw.digest(), raw.bytes().clone());
    let subject = fixture.open().await;
    let loaded = sound(load(&subject, &registry, &LoadOptions::default()).await);
    assert_eq!(loaded[0].descriptor.digest(), raw.digest());
    assert_eq!(sound(subject.cache.stat(&digest::sha256(&layer)).await), None);
    let asked = listener.accept().map(|(_, who)| who).map_err(|e| e.kind());
    assert_eq!(asked, Err(IoErrorKind::WouldBlock), "a load asks no network");
}

async fn delta_archive_missing_blobs_reported_and_satisfied_by_cache(fixture: &dyn CacheFixture) {
    let (sample, subject) = (samples::image(), fixture.open().await);
    let layers: Vec<&Descriptor> = sample.images[0].layers.iter().map(|layer| &layer.descriptor).collect();
    let mut delta = sample.clone();
    delta.blobs.retain(|blob| !layers.contains(&&blob.descriptor));
    let registry = registry_with(&delta, NAME);
    let whole: Reference = name(OTHER);
    let other = own("beside");
    fill(&registry, &FixtureImage::new(OTHER, &other));
    let error = assert_kind(load(&subject, &registry, &LoadOptions::default()).await, &ErrorKind::NotFound);
    let missing = error.detail::<MissingContent>().expect("all that is missing");
    let missing: Vec<_> = missing.0.iter().map(Descriptor::digest).collect();
    assert_eq!(missing, layers.iter().map(|layer| layer.digest()).collect::<Vec<_>>());
    assert_eq!(names(&*subject.cache).await, []);
    for blob in delta.blobs.iter().chain(&other.blobs) {
        let size = sound(subject.cache.stat(blob.descriptor.digest()).await);
        assert_eq!(size, None, "{} is stored already", blob.descriptor.digest());
    }
    for layer in layers {
        let content = sample.blob(layer.digest()).expect("the sample is complete");
        sound(subject.cache.put(sound(Blob::from_bytes(layer, BlobRange::FULL, content))).await);
    }
    let loaded = sound(load(&subject, &registry, &LoadOptions::default()).await);
    assert_eq!(loaded.len(), 2);
    for name in [&name(NAME), &whole] {
        assert!(sound(subject.cache.image_in_cache(name, &amd64()).await));
    }
}
