//! X: what a backend that stores must not store.

use bytes::Bytes;
use futures_util::stream;
use plyfold_core::copy::{Conversion, Copied, CopyFrom, CopyJob, CopyOptions, MediaForm, copy};
use plyfold_core::layer::Compression;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::pull::Retry;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Error, ErrorKind, ImageRegistry, ImageSourceExt as _, MediaType, Platform,
    Platforms, RawManifest, Reference, Sparse, digest, reference,
};

use super::cut::a_push_goes_on_where_it_stopped;
use super::probe::{Before, NAME, assert_kind, at, beside, error_of, of_tag, open, read, sound};
use crate::fixtures::fill;
use crate::rule::rules;
use crate::samples::{self, LayerBuilder, Sample};
use crate::{Fixture, FixtureImage};

rules! {
    $ __push_rules of dyn Fixture;
    "X 223" a_pushed_blob_is_what_its_descriptor_says:
        "of a blob whose stream ends in an error, or is not what its descriptor says, nothing is stored, and the error is \
         that of the stream",
    "X 224" a_pushed_tag_waits_for_its_content:
        "a manifest whose config or layer is missing is refused, and its tag is not set; when all is there, it is",
    "X 269" a_pushed_referrer_is_listed_by_its_subject:
        "what is pushed with a subject is listed among that one's referrers, once, with its type; a copy with referrers to \
         where they cannot be listed is refused",
    "X 274" names_are_set_together_or_not_at_all:
        "of several names one whose content is missing is refused; a backend that sets names in one step has set none of them \
         then, and all of them when everything is there",
    "X 275" a_subset_is_sparse_or_rewritten:
        "of some platforms of an index the attestations come as well; the index keeps its digest, where the backend takes such \
         an index, or is one of what is copied, or the copy is refused",
    "X 276" referrers_and_cosign_tags_travel:
        "a copy with referrers brings what refers to an image, and what cosign keeps under a tag, to where both are found by \
         the image's digest again; where they cannot be listed it is refused, and nothing has the name",
    "X 277" a_conversion_is_asked_for:
        "a copy without a conversion keeps the digest; with one the layers are compressed as was asked, documents have the form that \
         was asked for, configurations and diff_ids stay, and the same conversion gives the same digest again",
    "X 278" a_push_goes_on_where_it_stopped:
        "of a blob whose transfer was cut a backend that keeps what has arrived says how much that is and takes the rest, and a \
         copy reads the source from there on; a blob that does not match its digest then is refused, and nothing of it is kept",
    "X 279" images_of_several_places_are_named_last:
        "of images of several places none has its name before everything is there, also what refers to the last of them; a copy \
         that fails sets no name, and one that stores nothing counts what is missing",
    "X 280" referrers_pushed_together_are_all_listed:
        "what is pushed together, each with a subject, is listed by the subjects, once, beside what was listed before",
}

const CONTENT: &[u8] = b"a blob that no sample has";
/// At least as long as [`CONTENT`].
const OTHER: &[u8] = b"other bytes of that length";

async fn a_pushed_blob_is_what_its_descriptor_says(fixture: &dyn Fixture) {
    let subject = open(fixture, &samples::image()).await;
    let (registry, name) = (&*subject.registry, subject.reference());
    let blob = Descriptor::new(MediaType::ImageLayer, CONTENT.len() as u64, digest::sha256(CONTENT));
    let half = &CONTENT[..CONTENT.len() / 2];
    let other: &'static [u8] = &OTHER[..CONTENT.len()];
    let streams = [
        ("other bytes", [Ok(other), Ok(b"")], ErrorKind::Corrupt),
        ("too few bytes", [Ok(half), Ok(b"")], ErrorKind::Corrupt),
        ("too many bytes", [Ok(CONTENT), Ok(b"!")], ErrorKind::Corrupt),
        ("an error", [Ok(half), Err("the source fails")], ErrorKind::Unavailable),
    ];
    for (what, parts, kind) in streams {
        let parts = parts
            .into_iter()
            .map(|part| part.map(Bytes::from_static).map_err(|why| Error::new(ErrorKind::Unavailable, why)));
        let pushed = registry.push_blob(name, sound(Blob::new(&blob, stream::iter(parts)))).await;
        if !registry.capabilities().push {
            assert_kind(pushed, &ErrorKind::Unsupported);
            continue;
        }
        let error = error_of(pushed);
        assert_eq!(*error.kind(), kind, "{what}: {error}");
        let stored = error_of(read(registry.blob(name, &blob, BlobRange::FULL).await).await);
        assert_eq!(*stored.kind(), ErrorKind::NotFound, "{what} were stored: {stored}");
        assert!(!sound(registry.has_blob(name, &blob).await), "{what} were stored");
    }
    if registry.capabilities().push {
        let content = Bytes::from_static(CONTENT);
        sound(registry.push_blob(name, sound(Blob::from_bytes(&blob, BlobRange::FULL, &content))).await);
        assert_eq!(sound(read(registry.blob(name, &blob, BlobRange::FULL).await).await), content);
    }
}

async fn a_pushed_tag_waits_for_its_content(fixture: &dyn Fixture) {
    let tars = ["one", "two"].map(|text| LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish());
    let sample = samples::of_layers("pushed", &tars);
    let raw = sound(RawManifest::new(sample.top_bytes().clone(), Some(sample.top.media_type())));
    let parts = sound(raw.image()).layers().iter().chain([sound(raw.image()).config()]);
    for missing in parts {
        let subject = open(fixture, &samples::image()).await;
        let registry = &*subject.registry;
        let name = beside(fixture, &subject, "pushed");
        if !registry.capabilities().push {
            assert_kind(registry.push_manifest(&name, &raw).await, &ErrorKind::Unsupported);
            continue;
        }
        for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
            if blob.descriptor.digest() != missing.digest() {
                push(registry, &name, &sample, &blob.descriptor).await;
            }
        }
        let before = Before::of(registry, &[&name]).await;
        let error = error_of(registry.push_manifest(&name, &raw).await);
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{} is missing: {error}", missing.digest());
        before.assert_kept(registry, missing.digest()).await;
        push(registry, &name, &sample, missing).await;
        sound(registry.push_manifest(&name, &raw).await);
        assert!(sound(registry.manifest(&name).await).bytes() == sample.top_bytes(), "what was pushed");
    }
}

async fn a_pushed_referrer_is_listed_by_its_subject(fixture: &dyn Fixture) {
    let subject = open(fixture, &samples::image()).await;
    let (registry, name) = (&*subject.registry, subject.reference());
    let referrer = samples::subject();
    let of = sound(RawManifest::new(referrer.top_bytes().clone(), Some(referrer.top.media_type())));
    let about = of.subject().expect("the sample has a subject").digest().clone();
    let can = registry.capabilities();
    if !can.push || !can.referrers {
        let origin = MemoryRegistry::new("origin");
        let options = CopyOptions { referrers: true, ..CopyOptions::default() };
        fill(&origin, &FixtureImage::new(NAME, &samples::image()));
        let image = sound(reference::parse(NAME));
        let target = beside(fixture, &subject, "copied");
        assert_kind(copy(&origin, &image, registry, &target, &options).await, &ErrorKind::Unsupported);
        return;
    }
    for blob in referrer.blobs.iter().filter(|blob| !blob.is_manifest()) {
        push(registry, name, &referrer, &blob.descriptor).await;
    }
    // The subject may come later, and so may a second push of the same.
    for _ in 0..2 {
        sound(registry.push_manifest(&at(name, of.digest()), &of).await);
        let listed = sound(registry.referrers(name, &about, None).await);
        assert_eq!(listed.iter().map(Descriptor::digest).collect::<Vec<_>>(), [of.digest()]);
        assert_eq!(listed[0].size(), of.descriptor().size());
        let kind = listed[0].artifact_type().clone().expect("a referrer has an artifact type");
        assert_eq!(sound(registry.referrers(name, &about, Some(&kind)).await), listed);
        let other = MediaType::Other("application/vnd.example.none".to_owned());
        assert_eq!(sound(registry.referrers(name, &about, Some(&other)).await), []);
    }
}

async fn names_are_set_together_or_not_at_all(fixture: &dyn Fixture) {
    let subject = open(fixture, &samples::image()).await;
    let registry = &*subject.registry;
    let made = ["first", "second"].map(|text| {
        let tar = LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish();
        let sample = samples::of_layers(text, &[tar]);
        let raw = sound(RawManifest::new(sample.top_bytes().clone(), Some(sample.top.media_type())));
        (of_tag(subject.reference(), subject.reference().repository(), text), sample, raw)
    });
    let names = made.each_ref().map(|(name, _, raw)| (name.clone(), raw.clone()));
    if !registry.capabilities().push {
        assert_kind(registry.push_names(&names).await, &ErrorKind::Unsupported);
        return;
    }
    let [first, second] = &made;
    push_blobs(registry, first).await;
    if !fixture.holds_several_images() {
        push_blobs(registry, second).await;
        let before = Before::of(registry, &[subject.reference()]).await;
        assert_kind(registry.push_names(&names).await, &ErrorKind::Unsupported);
        return before.assert_kept(registry, "two names where one is").await;
    }
    let error = error_of(registry.push_names(&names).await);
    assert_eq!(*error.kind(), ErrorKind::NotFound, "content of the second name is missing: {error}");
    assert_kind(registry.manifest(&second.0).await, &ErrorKind::NotFound);
    if registry.capabilities().atomic_names {
        assert_kind(registry.manifest(&first.0).await, &ErrorKind::NotFound);
    }
    push_blobs(registry, second).await;
    sound(registry.push_names(&names).await);
    for (name, sample, _) in &made {
        assert!(sound(registry.manifest(name).await).bytes() == sample.top_bytes(), "{name}");
    }
}

async fn push_blobs(registry: &dyn ImageRegistry, (name, sample, _): &(Reference, Sample, RawManifest)) {
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        push(registry, name, sample, &blob.descriptor).await;
    }
}

async fn a_subset_is_sparse_or_rewritten(fixture: &dyn Fixture) {
    let (origin, image, children) = attested();
    let platforms = Platforms::Some(vec![Platform::new("linux", "amd64", None)]);
    for sparse in [Sparse::Refuse, Sparse::Keep, Sparse::Rewrite] {
        let subject = open(fixture, &samples::image()).await;
        let registry = &*subject.registry;
        let target = beside(fixture, &subject, "part");
        let before = Before::of(registry, &[&target]).await;
        let options = CopyOptions { platforms: platforms.clone(), sparse, ..CopyOptions::default() };
        let copied = subject.client.copy_part(&origin, &image, registry, &target, &options).await;
        let can = registry.capabilities();
        if !can.push || sparse == Sparse::Refuse || (sparse == Sparse::Keep && !can.sparse) {
            assert_kind(copied, &ErrorKind::Unsupported);
            before.assert_kept(registry, "it has the name all the same").await;
            continue;
        }
        // Registries that cannot say so beforehand refuse such an index by themselves.
        if sparse == Sparse::Keep && copied.is_err() {
            before.assert_kept(registry, "an index that was refused").await;
            continue;
        }
        let (copied, top) = (sound(copied), sound(registry.manifest(&target).await));
        assert_eq!(copied.digest(), top.digest());
        let original = sound(origin.manifest(&image).await);
        let listed: Vec<Descriptor> = top.references();
        let wanted = if sparse == Sparse::Keep { children.to_vec() } else { children[1..].to_vec() };
        assert_eq!(listed, wanted, "{sparse:?}");
        assert_eq!(copied.digest() == original.digest(), sparse == Sparse::Keep);
        for child in &children[1..] {
            let raw = sound(registry.manifest(&at(&target, child.digest())).await);
            assert_eq!(raw.digest(), child.digest());
        }
        assert_kind(registry.manifest(&at(&target, children[0].digest())).await, &ErrorKind::NotFound);
    }
}

/// An index of an image for arm64, one for amd64 and an attestation of the latter.
fn attested() -> (MemoryRegistry, Reference, [Descriptor; 3]) {
    let (origin, image) = (MemoryRegistry::new("origin"), sound(reference::parse(NAME)));
    let of = |text: &'static str| {
        let sample =
            samples::of_layers(text, &[LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish()]);
        fill(&origin, &FixtureImage::new(NAME, &sample));
        sample.top
    };
    let tops = ["arm64", "amd64", "attestation"].map(of);
    let json = |top: &Descriptor| serde_json::json!({ "mediaType": top.media_type(), "digest": top.digest(), "size": top.size() });
    let mut children = tops.each_ref().map(json);
    for (child, architecture) in children.iter_mut().zip(["arm64", "amd64", "unknown"]) {
        let os = if architecture == "unknown" { "unknown" } else { "linux" };
        child["platform"] = serde_json::json!({ "os": os, "architecture": architecture });
    }
    children[2]["annotations"] = serde_json::json!({
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": tops[1].digest(),
    });
    let kind = MediaType::ImageIndex;
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": kind.as_ref(), "manifests": children });
    let raw = sound(RawManifest::new(index.to_string(), None));
    origin.insert_manifest(&image, kind, raw.digest(), raw.bytes().clone());
    let listed: [Descriptor; 3] = raw.references().try_into().expect("the index lists three");
    (origin, image, listed)
}

async fn referrers_and_cosign_tags_travel(fixture: &dyn Fixture) {
    let (origin, image, sample) =
        (MemoryRegistry::new("origin"), sound(reference::parse(NAME)), samples::image());
    fill(&origin, &FixtureImage::new(NAME, &sample));
    let refers = samples::subject();
    for blob in refers.blobs.iter().filter(|blob| !blob.is_manifest()) {
        push(&origin, &image, &refers, &blob.descriptor).await;
    }
    let first = sound(RawManifest::new(refers.top_bytes().clone(), Some(refers.top.media_type())));
    let referrer = noted(&first, "of the image", &sample.top);
    sound(origin.push_manifest(&at(&image, referrer.digest()), &referrer).await);
    let signature = noted(&first, "a signature", first.subject().expect("the sample has a subject"));
    let tag = format!("{}.sig", sample.top.digest().as_ref().replace(':', "-"));
    let tagged = |name: &Reference| of_tag(name, name.repository(), &tag);
    sound(origin.push_manifest(&tagged(&image), &signature).await);

    let subject = open(fixture, &samples::zstandard()).await;
    let (registry, name) = (&*subject.registry, subject.reference());
    let target = of_tag(name, name.repository(), "copied");
    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    let copied = subject.client.copy_part(&origin, &image, registry, &target, &options).await;
    let can = registry.capabilities();
    if !can.push || !can.referrers {
        assert_kind(copied, &ErrorKind::Unsupported);
        assert_kind(registry.manifest(&target).await, &ErrorKind::NotFound);
        return;
    }
    assert_eq!(sound(copied).digest(), sample.top.digest());
    let listed = sound(registry.referrers(&target, sample.top.digest(), None).await);
    assert_eq!(listed.iter().map(Descriptor::digest).collect::<Vec<_>>(), [referrer.digest()]);
    assert!(sound(registry.manifest(&at(&target, referrer.digest())).await).bytes() == referrer.bytes());
    assert!(
        sound(registry.manifest(&tagged(&target)).await).bytes() == signature.bytes(),
        "under cosign's tag"
    );
}

async fn a_conversion_is_asked_for(fixture: &dyn Fixture) {
    let gzip = Conversion { form: Some(MediaForm::Docker), compress: Some(sound("gzip:1".parse())) };
    let zstd = Conversion { form: Some(MediaForm::Oci), compress: Some(sound("zstd".parse())) };
    let asked = [None, Some(gzip), Some(zstd)];
    for sample in
        [samples::docker_image(), samples::repeated_layer(), samples::uncompressed(), samples::zstandard()]
    {
        let (origin, image) = (MemoryRegistry::new("origin"), sound(reference::parse(NAME)));
        fill(&origin, &FixtureImage::new(NAME, &sample));
        let subject = open(fixture, &samples::image()).await;
        let registry = &*subject.registry;
        for (at, conversion) in asked.into_iter().enumerate() {
            let target = beside(fixture, &subject, &format!("converted-{at}"));
            let options = CopyOptions { conversion, ..CopyOptions::default() };
            let copy = || subject.client.copy_part(&origin, &image, registry, &target, &options);
            if !registry.capabilities().push {
                assert_kind(copy().await, &ErrorKind::Unsupported);
                continue;
            }
            let copied = sound(copy().await);
            assert_eq!(sound(copy().await), copied, "another digest the second time");
            let Some(Conversion { form: Some(form), compress: Some(how) }) = conversion else {
                assert_eq!(*copied.digest(), *sample.top.digest(), "{copied:?}");
                continue;
            };
            assert_eq!(copied.media_type().as_ref().contains(".docker."), form == MediaForm::Docker);
            let platform = sound(sample.images[0].platform.parse());
            let before = sound(subject.client.image(&origin, &image, &platform).await);
            let after = sound(subject.client.image(registry, &target, &platform).await);
            assert_eq!(sound(before.manifest()).config().digest(), sound(after.manifest()).config().digest());
            for (index, layer) in sound(after.layers()).iter().enumerate() {
                assert_eq!(Compression::by_media_type(layer.media_type()), Some(how.compression()));
                // Read to an end that meets the configuration's diff_id.
                let [ours, origin] = [&after, &before].map(|image| subject.client.layer(&**image, index));
                assert_eq!(sound(ours.await), sound(origin.await));
                let content = sound(read(registry.blob(&target, layer, BlobRange::FULL).await).await);
                assert_eq!(Compression::by_magic(&content), how.compression());
            }
        }
    }
}

async fn images_of_several_places_are_named_last(fixture: &dyn Fixture) {
    let subject = open(fixture, &samples::image()).await;
    let (registry, name) = (&*subject.registry, subject.reference());
    let can = registry.capabilities();
    let image = sound(reference::parse(NAME));
    let made = ["first", "second"].map(|text| {
        let sample =
            samples::of_layers(text, &[LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish()]);
        let origin = MemoryRegistry::new(text);
        fill(&origin, &FixtureImage::new(NAME, &sample));
        (origin, sample, of_tag(name, name.repository(), text))
    });
    let (origin, second, _) = &made[1];
    // What is missing at first: a blob of what refers to the second image, or of the image itself.
    let other = samples::subject();
    let raw = sound(RawManifest::new(other.top_bytes().clone(), Some(other.top.media_type())));
    let referrer = noted(&raw, "about the second", &second.top);
    let from = if can.referrers { &other } else { second };
    let blobs: Vec<_> = from.blobs.iter().filter(|blob| !blob.is_manifest()).collect();
    if can.referrers {
        let by_digest = at(&image, referrer.digest());
        let kind = referrer.descriptor().media_type().clone();
        origin.insert_manifest(&by_digest, kind, referrer.digest(), referrer.bytes().clone());
    }
    let (missing, others) = blobs.split_last().expect("the sample has blobs");
    for blob in others {
        origin.insert_blob(&image, blob.descriptor.digest().clone(), blob.bytes.clone());
    }
    if !can.referrers && fixture.holds_several_images() {
        origin.insert_blob(&image, missing.descriptor.digest().clone(), Bytes::from_static(b"damaged"));
    }
    let jobs = made.each_ref().map(|(origin, _, target)| {
        let job = CopyJob { image: image.clone(), target: target.clone() };
        let mut from = CopyFrom::new(origin, job);
        from.referrers = can.referrers;
        from
    });
    let options = CopyOptions { retry: Retry { attempts: 1, ..Retry::default() }, ..CopyOptions::default() };
    let before = Before::of(registry, &[name]).await;
    let failed = subject.client.copy_from(&jobs, registry, &options).await;
    if !can.push || !fixture.holds_several_images() {
        assert_kind(failed, &ErrorKind::Unsupported);
        return before.assert_kept(registry, "two names where none or one can be").await;
    }
    let kind = if can.referrers { ErrorKind::NotFound } else { ErrorKind::Corrupt };
    assert_kind(failed, &kind);
    for (_, _, target) in &made {
        assert_kind(registry.manifest(target).await, &ErrorKind::NotFound);
    }
    origin.insert_blob(&image, missing.descriptor.digest().clone(), missing.bytes.clone());
    let dry = CopyOptions { dry_run: true, ..options.clone() };
    let counted = sound(subject.client.copy_from(&jobs, registry, &dry).await);
    for (_, _, target) in &made {
        assert_kind(registry.manifest(target).await, &ErrorKind::NotFound);
    }
    let copied = sound(subject.client.copy_from(&jobs, registry, &options).await);
    let moved = |copied: &[Copied]| copied.iter().map(|one| one.moved).sum::<u64>();
    assert!(moved(&counted) >= moved(&copied), "{counted:?} {copied:?}");
    for ((_, sample, target), copied) in made.iter().zip(&copied) {
        assert_eq!(copied.descriptor.digest(), sample.top.digest());
        assert!(sound(registry.manifest(target).await).bytes() == sample.top_bytes(), "{target}");
    }
}

async fn referrers_pushed_together_are_all_listed(fixture: &dyn Fixture) {
    let subject = open(fixture, &samples::image()).await;
    let (registry, name) = (&*subject.registry, subject.reference());
    let sample = samples::subject();
    let first = sound(RawManifest::new(sample.top_bytes().clone(), Some(sample.top.media_type())));
    let can = registry.capabilities();
    if !can.push {
        assert_kind(registry.push_referrers(name, &[first]).await, &ErrorKind::Unsupported);
        return;
    }
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        push(registry, name, &sample, &blob.descriptor).await;
    }
    let about = first.subject().expect("the sample has a subject").clone();
    let others = [("second", &about), ("third", &about), ("of the first", first.descriptor())];
    let others = others.map(|(note, subject)| noted(&first, note, subject));
    sound(registry.push_referrers(name, std::slice::from_ref(&first)).await);
    let all = [std::slice::from_ref(&first), &others[..]].concat();
    // One that is listed already is among them.
    sound(registry.push_referrers(name, &all).await);
    for raw in &all {
        assert!(sound(registry.manifest(&at(name, raw.digest())).await).bytes() == raw.bytes());
    }
    let lists = [(about.digest(), vec![&all[0], &all[1], &all[2]]), (first.digest(), vec![&all[3]])];
    for (subject, wanted) in lists.into_iter().filter(|_| can.referrers) {
        let listed = sound(registry.referrers(name, subject, None).await);
        let mut listed: Vec<_> = listed.iter().map(|entry| entry.digest().to_string()).collect();
        let mut wanted: Vec<_> = wanted.iter().map(|raw| raw.digest().to_string()).collect();
        listed.sort();
        wanted.sort();
        assert_eq!(listed, wanted);
    }
}

/// The same manifest with a note, about something.
fn noted(raw: &RawManifest, note: &str, subject: &Descriptor) -> RawManifest {
    let mut document: serde_json::Value = sound(serde_json::from_slice(raw.bytes()).map_err(invalid));
    document["annotations"] = serde_json::json!({ "note": note });
    let (kind, digest, size) = (subject.media_type(), subject.digest(), subject.size());
    document["subject"] = serde_json::json!({ "mediaType": kind, "digest": digest, "size": size });
    sound(RawManifest::new(document.to_string(), Some(raw.descriptor().media_type())))
}

fn invalid(error: serde_json::Error) -> Error {
    Error::corrupt("the sample is not JSON").with_source(error)
}

pub(super) async fn push(registry: &dyn ImageRegistry, name: &Reference, sample: &Sample, blob: &Descriptor) {
    let content = sample.blob(blob.digest()).expect("the sample has it");
    let blob = sound(Blob::from_bytes(blob, BlobRange::FULL, content));
    sound(registry.push_blob(name, blob).await);
}
