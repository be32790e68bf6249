//! X: an image is the same from every backend.

use std::collections::BTreeSet;
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    BlobRange, Descriptor, Digest, ErrorKind, ImageRegistry, ImageSourceExt, MediaType, Opened, RawManifest,
    Reference, digest,
};

use super::probe::{NAME, assert_kind, at, beside, carried, of_tag, open, read, sound};
use super::pushes::push;
use crate::fixtures::fill;
use crate::rule::{not_judged, rules};
use crate::samples::{self, Sample, SampleBlob};
use crate::{BackendUnderTest, Client as _, CoreClient, Fidelity, Fixture, FixtureImage};

rules! {
    $ __equivalence_rules of dyn Fixture;
    "X 98" same_descriptor_manifest_config_layers:
        "manifest, config and layers of an image are the same bytes from every backend (a medium that keeps no \
         manifests: config, diff_ids and uncompressed layers)",
    "X 99" copy_a_to_b_preserves_digests_or_refuses:
        "a copy has every digest of the original; a backend that cannot store says so before it changes anything",
    "X 100" round_trip_a_b_a_identity:
        "what comes out of a backend and goes into the same medium again comes out as it was",
    "X 101" flattened_tar_identical:
        "the root file system of an image is the same tree and the same tar from every backend",
    "X 102" materialised_trees_are_the_same:
        "the tree that every format is made from is that of the layers, and the same from every backend",
    "X 103" derived_and_overridden_methods_agree:
        "what a backend does in a shorter way ends as the longer way does: a resolved name is that of the manifest, a blob \
         that is said to be there can be read, a name of several is the one that is set alone",
    "X 105" multi_image_archive_enumerates_and_selects:
        "of several images in one medium each is listed once, by its names or, without one, by its digest, and each \
         of these opens it",
}

async fn same_descriptor_manifest_config_layers(fixture: &dyn Fixture) {
    for sample in carried(fixture) {
        let subject = open(fixture, &sample).await;
        for expected in &sample.images {
            let source = sound(subject.image(&expected.platform).await);
            let config = sound(source.config().await);
            assert!(Some(config.bytes()) == sample.blob(expected.config.digest()), "{}: config", sample.name);
            let layers = sound(source.layers()).to_vec();
            assert_eq!(layers.len(), expected.layers.len(), "{}", sample.name);
            for (index, (layer, expected)) in layers.iter().zip(&expected.layers).enumerate() {
                assert_eq!(
                    sound(config.diff_ids())[index],
                    expected.diff_id,
                    "{}: diff_id {index}",
                    sample.name
                );
                let content = sound(read(source.blob(layer, BlobRange::FULL).await).await);
                if fixture.fidelity() == Fidelity::Exact {
                    assert_eq!(
                        described(layer),
                        described(&expected.descriptor),
                        "{}: layer {index}",
                        sample.name
                    );
                    assert!(Some(&content) == sample.blob(layer.digest()), "{}: layer {index}", sample.name);
                }
                assert!(inflated(&content) == expected.tar, "{}: tar of layer {index}", sample.name);
            }
            if fixture.fidelity() == Fidelity::Exact {
                let manifest = sample.blob(expected.manifest.digest());
                assert!(Some(source.raw().bytes()) == manifest, "{}: manifest", sample.name);
                assert_eq!(source.descriptor().digest(), expected.manifest.digest(), "{}", sample.name);
                assert_eq!(
                    source.descriptor().media_type(),
                    expected.manifest.media_type(),
                    "{}",
                    sample.name
                );
            }
        }
    }
}

async fn copy_a_to_b_preserves_digests_or_refuses(fixture: &dyn Fixture) {
    for sample in carried(fixture) {
        let subject = open(fixture, &sample).await;
        let memory = MemoryRegistry::new("copy");
        let target = FixtureImage::new(NAME, &sample).reference;
        let own = sound(subject.registry.manifest(subject.reference()).await);
        let copied = subject.client.copy(&*subject.registry, subject.reference(), &memory, &target).await;
        assert_eq!(sound(copied).digest(), own.digest(), "{}: out", sample.name);
        assert_eq!(sound(memory.manifest(&target).await).bytes(), own.bytes(), "{}: out", sample.name);
    }
    // And in: into an empty repository of the same medium, or beside an image that has nothing in common with it.
    let subject = open(fixture, &samples::zstandard()).await;
    let target = elsewhere(fixture, &subject, "library/copied", "new");
    for sample in [samples::index(), samples::custom_fields(), samples::artifact()] {
        let memory = MemoryRegistry::new("original");
        let original = FixtureImage::new(NAME, &sample);
        fill(&memory, &original);
        let copied = subject.client.copy(&memory, &original.reference, &*subject.registry, &target).await;
        if !subject.registry.capabilities().push {
            assert_kind(copied, &ErrorKind::Unsupported);
            assert_kind(subject.registry.manifest(&target).await, &ErrorKind::NotFound);
            continue;
        }
        assert_eq!(sound(copied).digest(), sample.top.digest(), "{}: in", sample.name);
        assert!(
            sound(subject.registry.manifest(&target).await).bytes() == sample.top_bytes(),
            "{}: in",
            sample.name
        );
        for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
            let content = read(subject.registry.blob(&target, &blob.descriptor, BlobRange::FULL).await).await;
            assert!(sound(content) == blob.bytes, "{}: in", sample.name);
        }
    }
}

/// A tag of another repository, or of the only one that there is, or the only name.
fn elsewhere(fixture: &dyn Fixture, subject: &BackendUnderTest, repository: &str, tag: &str) -> Reference {
    let own = subject.reference();
    if !fixture.holds_several_images() {
        return own.clone();
    }
    of_tag(own, if fixture.holds_any_repository() { repository } else { own.repository() }, tag)
}

async fn multi_image_archive_enumerates_and_selects(fixture: &dyn Fixture) {
    let (first, second) = (samples::image(), samples::custom_fields());
    let (third, fourth) = (samples::uncompressed(), samples::no_layers());
    if !fixture.holds_several_images() {
        return one_image_is_listed(fixture, &first).await;
    }
    let tool = if fixture.holds_any_repository() { "library/tool:1" } else { "library/app:3" };
    let named = [
        FixtureImage::new("registry.example/library/app:1", &first),
        FixtureImage::new("registry.example/library/app:2", &second),
        FixtureImage::new(&format!("registry.example/{tool}"), &first),
    ];
    let subject = fixture.open(&named).await;
    let made: BTreeSet<_> = subject.references.iter().map(Reference::whole).collect();
    let asked: Vec<_> = named.iter().map(|image| image.reference.whole()).collect();
    assert_eq!(
        made.len(),
        named.len(),
        "of {asked:?} the fixture makes {made:?}: two images have one name. In a medium with one repository, \
         `holds_any_repository` of the fixture says so"
    );
    assert_listed(&subject, &named).await;
    assert_eq!(sound(subject.registry.untagged().await), [], "each has a name");
    let Some(subject) = fixture.open_with_untagged(&named, &[&third, &fourth]).await else {
        return not_judged("the medium holds no images without names, or lists none");
    };
    assert_listed(&subject, &named).await;
    let untagged = sound(subject.registry.untagged().await);
    assert_eq!(untagged.len(), 2, "{untagged:?}");
    for (reference, sample) in untagged.iter().zip([&third, &fourth]) {
        assert!(reference.tag().is_none() && reference.digest().is_some(), "{reference}");
        assert_opens(&subject, reference, sample).await;
    }
}

/// The name of the only image is all that is listed, and it leads to it.
async fn one_image_is_listed(fixture: &dyn Fixture, sample: &Sample) {
    let subject = open(fixture, sample).await;
    let opened = Opened { registry: subject.registry.clone(), reference: None };
    assert_eq!(sound(opened.references().await), subject.references);
    assert_eq!(sound(opened.reference().await), *subject.reference());
    assert_eq!(sound(subject.registry.untagged().await), [], "it has a name");
    assert_opens(&subject, subject.reference(), sample).await;
}

/// Every name and nothing else is listed, and each leads to its image.
async fn assert_listed(subject: &BackendUnderTest, images: &[FixtureImage<'_>]) {
    let opened = Opened { registry: subject.registry.clone(), reference: None };
    if subject.registry.capabilities().repositories {
        let mut listed = sound(opened.references().await);
        let mut expected = subject.references.clone();
        listed.sort_by_key(Reference::whole);
        expected.sort_by_key(Reference::whole);
        assert_eq!(listed, expected, "what the backend lists, and the names of the fixture");
        assert_kind(opened.reference().await, &ErrorKind::Ambiguous);
    } else {
        assert_kind(opened.reference().await, &ErrorKind::Config);
    }
    for (reference, image) in subject.references.iter().zip(images) {
        assert_opens(subject, reference, image.sample).await;
    }
}

async fn assert_opens(subject: &BackendUnderTest, reference: &Reference, sample: &Sample) {
    let image = &sample.images[0];
    let source = subject.client.image(&*subject.registry, reference, &sound(image.platform.parse())).await;
    let config = sound(sound(source).config().await);
    assert!(Some(config.bytes()) == sample.blob(image.config.digest()), "{reference} is not {}", sample.name);
}

async fn round_trip_a_b_a_identity(fixture: &dyn Fixture) {
    for sample in carried(fixture) {
        let subject = open(fixture, &sample).await;
        let first = sound(subject.registry.manifest(subject.reference()).await);
        let memory = MemoryRegistry::new("between");
        let between = FixtureImage::new(NAME, &sample).reference;
        sound(subject.client.copy(&*subject.registry, subject.reference(), &memory, &between).await);

        let returned = open(fixture, &taken_out(&memory, &between, &sample).await).await;
        let second = sound(returned.registry.manifest(returned.reference()).await);
        assert_eq!(second.digest(), first.digest(), "{}", sample.name);
        assert_eq!(second.bytes(), first.bytes(), "{}", sample.name);
        if subject.registry.capabilities().push {
            let other = if sample.name == "zstandard" { samples::image() } else { samples::zstandard() };
            let subject = open(fixture, &other).await;
            let back = elsewhere(fixture, &subject, "library/back", "again");
            sound(subject.client.copy(&memory, &between, &*subject.registry, &back).await);
            let pushed = sound(subject.registry.manifest(&back).await);
            assert_eq!(pushed.bytes(), first.bytes(), "{}", sample.name);
        }
    }
}

async fn flattened_tar_identical(fixture: &dyn Fixture) {
    let samples =
        [samples::image(), samples::multi_member_gzip(), samples::uncompressed(), samples::zstandard()];
    let (mut trees, mut tars) = (Vec::new(), Vec::new());
    for sample in &samples {
        let subject = open(fixture, sample).await;
        let source = sound(subject.image("linux/amd64").await);
        trees.push(sound(subject.client.tree(&*source).await));
        tars.push(sound(subject.client.flat_tar(&*source).await));

        let memory = MemoryRegistry::new("reference");
        let original = FixtureImage::new(NAME, sample);
        fill(&memory, &original);
        let platform = sound("linux/amd64".parse());
        let source = sound(CoreClient.image(&memory, &original.reference, &platform).await);
        assert_eq!(trees.last(), Some(&sound(CoreClient.tree(&*source).await)), "{}", sample.name);
        assert!(tars.last() == Some(&sound(CoreClient.flat_tar(&*source).await)), "{}: tar", sample.name);
    }
    trees.dedup();
    tars.dedup();
    assert_eq!((trees.len(), tars.len()), (1, 1), "one tree and one tar, however its layers are packed");
}

async fn materialised_trees_are_the_same(fixture: &dyn Fixture) {
    for sample in carried(fixture).iter().filter(|sample| !sample.images.is_empty()) {
        let subject = open(fixture, sample).await;
        let memory = MemoryRegistry::new("reference");
        let original = FixtureImage::new(NAME, sample);
        fill(&memory, &original);
        for image in &sample.images {
            let merged = sound(subject.client.merged(&*sound(subject.image(&image.platform).await)).await);
            let platform = sound(image.platform.parse());
            let source = sound(CoreClient.image(&memory, &original.reference, &platform).await);
            let shown = format!("{} for {}", sample.name, image.platform);
            assert_eq!(merged, sound(CoreClient.tree(&*source).await), "{shown}: tree and layers");
            assert_eq!(merged, sound(CoreClient.merged(&*source).await), "{shown}: two backends");
        }
    }
}

async fn derived_and_overridden_methods_agree(fixture: &dyn Fixture) {
    for sample in carried(fixture) {
        let subject = open(fixture, &sample).await;
        let (registry, name) = (&*subject.registry, subject.reference());
        let top = sound(registry.manifest(name).await);
        for asked in [name.clone(), at(name, top.digest())] {
            let (short, long) = (registry.resolve(&asked).await, registry.manifest(&asked).await);
            assert_eq!(described(&sound(short)), described(sound(long).descriptor()), "{asked}");
        }
        let absent = digest::sha256(b"what no sample has");
        for asked in [of_tag(name, name.repository(), "absent"), at(name, &absent)] {
            assert_kind(registry.manifest(&asked).await, &ErrorKind::NotFound);
            assert_kind(registry.resolve(&asked).await, &ErrorKind::NotFound);
        }
        let absent = Descriptor::new(MediaType::ImageLayer, 1, absent);
        for blob in sample
            .blobs
            .iter()
            .filter(|blob| !blob.is_manifest())
            .map(|blob| &blob.descriptor)
            .chain([&absent])
        {
            if sound(registry.has_blob(name, blob).await) {
                sound(read(registry.blob(name, blob, BlobRange::FULL).await).await);
            }
        }
        assert!(registry.push_concurrency() <= registry.concurrency(), "{name}");
    }
    let subject = open(fixture, &samples::zstandard()).await;
    let registry = &*subject.registry;
    let sample = samples::image();
    let raw = sound(RawManifest::new(sample.top_bytes().clone(), Some(sample.top.media_type())));
    let names = ["alone", "listed", "whole"].map(|tag| beside(fixture, &subject, tag));
    let of = |at: usize| [(names[at].clone(), raw.clone())];
    if !registry.capabilities().push {
        assert_kind(registry.push_manifest(&names[0], &raw).await, &ErrorKind::Unsupported);
        assert_kind(registry.push_names(&of(1)).await, &ErrorKind::Unsupported);
        return;
    }
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        push(registry, &names[0], &sample, &blob.descriptor).await;
    }
    sound(registry.push_manifest(&names[0], &raw).await);
    sound(registry.push_names(&of(1)).await);
    let sparse = registry.capabilities().sparse;
    if sparse {
        sound(registry.push_sparse(&of(2), &[]).await);
    }
    for name in &names[..if sparse { 3 } else { 2 }] {
        assert!(sound(registry.manifest(name).await).bytes() == sample.top_bytes(), "{name}");
        assert_eq!(described(&sound(registry.resolve(name).await)), described(raw.descriptor()), "{name}");
    }
}

/// What a descriptor has to agree in.
fn described(of: &Descriptor) -> (MediaType, Digest, u64) {
    (of.media_type().clone(), of.digest().clone(), of.size())
}

/// What a registry holds of a sample, as a sample.
async fn taken_out(registry: &MemoryRegistry, name: &Reference, sample: &Sample) -> Sample {
    let mut out = sample.clone();
    for blob in &mut out.blobs {
        let content: Bytes = if blob.is_manifest() {
            let by_digest = at(name, blob.descriptor.digest());
            match registry.manifest(&by_digest).await {
                Ok(raw) => raw.bytes().clone(),
                // A subject is no part of the image that refers to it.
                Err(_) => continue,
            }
        } else {
            match read(registry.blob(name, &blob.descriptor, BlobRange::FULL).await).await {
                Ok(content) => content,
                Err(_) => continue,
            }
        };
        *blob = SampleBlob { descriptor: blob.descriptor.clone(), bytes: content };
    }
    out
}

/// The tar in a layer's bytes, by a decoder that is not the one under test.
fn inflated(layer: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    let outcome = match layer {
        [0x1f, 0x8b, ..] => MultiGzDecoder::new(layer).read_to_end(&mut tar).map(|_| ()),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::stream::copy_decode(layer, &mut tar),
        _ => {
            tar.extend_from_slice(layer);
            Ok(())
        }
    };
    outcome.expect("a sample's layer can be inflated");
    tar
}
