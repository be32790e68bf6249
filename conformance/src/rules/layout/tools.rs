//! C 69 and C 70: what others write is read, and what is written here others read.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use plyfold_core::layout_index::image_in;
use plyfold_core::{
    BlobRange, CacheProvider, CacheProviderExt, Collect, CopyOptions, Error, ErrorKind, ImageRegistry,
    NameChange, Reference, Result, Verify, copy, reference,
};
use serde_json::Value;

use super::forms::{self, Form};
use super::place::{Place, index_of};
use super::setup::{NO_REGISTRY, large, name, set, vacant, whole};
use super::strict::StrictLayout;
use crate::LayoutFixture;
use crate::rule::not_judged;
use crate::rules::probe::{NAME, assert_kind, sound};
use crate::samples::{self, Sample};

pub(super) async fn foreign_layout_by_skopeo_crane_docker_readable(fixture: &dyn LayoutFixture) {
    for form in forms::all() {
        let place = Place::new();
        form.write(&place.path);
        if let Some(registry) = fixture.registry(&place.path).await {
            reads(&form, &place.path, &*registry).await;
        } else {
            not_judged(NO_REGISTRY);
        }
        is_a_cache(&form, &place.path, fixture).await;
    }
}

impl Form {
    /// The value of an outcome that must succeed with this layout.
    #[track_caller]
    fn sound<T>(&self, outcome: Result<T>) -> T {
        outcome.unwrap_or_else(|error: Error| panic!("{}: {error} {error:?}", self.tool))
    }

    fn names(&self, place: &Path) -> Vec<(Reference, &Sample)> {
        let image = |(text, top): &(String, plyfold_core::Descriptor)| {
            (self.sound(image_in(place, text)), self.sample(top.digest()))
        };
        self.images.iter().map(image).collect()
    }
}

/// Each image of a layout is found by its name, and every byte of it is as its digest says.
async fn reads(form: &Form, place: &Path, registry: &dyn ImageRegistry) {
    for (name, sample) in form.names(place) {
        let manifest = form.sound(registry.manifest(&name).await);
        assert_eq!(manifest.bytes(), sample.top_bytes(), "{}: {name}", form.tool);
        for blob in &sample.blobs {
            let bytes = if blob.is_manifest() {
                let child = reference::by_digest(&name, blob.descriptor.digest());
                form.sound(registry.manifest(&child).await).bytes().clone()
            } else {
                let read = form.sound(registry.blob(&name, &blob.descriptor, BlobRange::FULL).await);
                form.sound(read.bytes(u64::MAX).await)
            };
            assert_eq!(bytes, blob.bytes, "{}: {}", form.tool, blob.descriptor.digest());
        }
    }
    for text in &form.ambiguous {
        let answer = registry.manifest(&form.sound(image_in(place, text))).await;
        let refused = answer.is_err_and(|e| [ErrorKind::Ambiguous, ErrorKind::NotFound].contains(e.kind()));
        assert!(refused, "{}: {text} stands for one of several", form.tool);
    }
}

/// The layout is a cache in place: its images are found and whole without any other, names are added to them, and
/// everything that was there stays.
async fn is_a_cache(form: &Form, place: &Path, fixture: &dyn LayoutFixture) {
    const ADDED: &str = "registry.example/added:1";
    let before = Told::by(place);
    let cache = form.sound(fixture.open(place).await);
    let first = form.names(place).first().map(|(name, _)| name.clone());
    let added = match &first {
        Some(first) => {
            form.sound(cache.find_descriptor(first).await).unwrap_or_else(|| panic!("{}: {first}", form.tool))
        }
        None => super::setup::stored(&*cache, b"the first").await,
    };
    for round in ["before", "after"] {
        for (name, sample) in form.names(place) {
            let found = form.sound(cache.find_descriptor(&name).await);
            let found = found.unwrap_or_else(|| panic!("{}: no {name} {round} a name is added", form.tool));
            let told = (found.digest(), found.size(), found.media_type());
            assert_eq!(
                told,
                (sample.top.digest(), sample.top.size(), sample.top.media_type()),
                "{}",
                form.tool
            );
            if sample.images.is_empty() {
                form.sound(cache.verify_blob(&found).await);
            } else {
                let platform = sound("linux/amd64".parse());
                let is_whole = form.sound(cache.image_in_cache(&name, &platform).await);
                assert!(is_whole, "{}: {name} is here", form.tool);
            }
        }
        form.sound(cache.update(&[NameChange::Set(name(ADDED), added.clone())]).await);
    }
    for text in form.ambiguous.iter().filter(|text| **text != "latest") {
        let found = cache.find_descriptor(&form.sound(image_in(place, text))).await;
        assert!(!matches!(found, Ok(Some(_))), "{}: {text} stands for one of several", form.tool);
    }
    let verified = form.sound(cache.verify(&Verify { repair: true, ..Verify::default() }).await);
    assert_eq!(verified.damage, [], "{}", form.tool);
    let listed = form.sound(cache.list().await);
    assert!(listed.iter().any(|(listed, found)| *listed == name(ADDED) && found.digest() == added.digest()));
    before.assert_kept(place, form.tool);
}

/// All that a layout's writer has told.
struct Told {
    entries: Vec<Value>,
    fields: Value,
    files: Vec<(std::path::PathBuf, Vec<u8>)>,
}

impl Told {
    fn by(place: &Path) -> Self {
        let mut fields = index_of(place);
        let entries = fields["manifests"].take().as_array().cloned().unwrap_or_default();
        let files = super::place::files_in(place);
        let files = files.into_iter().filter(|file| !file.ends_with("index.json"));
        let files = files.map(|file| (file.clone(), fs::read(&file).expect("files can be read")));
        Self { entries, fields, files: files.collect() }
    }

    /// A name that an entry has only for being the only one may be written down.
    #[track_caller]
    fn assert_kept(&self, place: &Path, tool: &str) {
        let now = Self::by(place);
        assert_eq!(now.fields, self.fields, "{tool}");
        for entry in &self.entries {
            let kept = now.entries.iter().any(|other| other == entry || unnamed(other) == *entry);
            assert!(kept, "{tool}: {entry} is not in {:?}", now.entries);
        }
        for file in &self.files {
            assert!(now.files.contains(file), "{tool}: {} has changed", file.0.display());
        }
    }
}

fn unnamed(entry: &Value) -> Value {
    let mut entry = entry.clone();
    let annotations = entry.get_mut("annotations").and_then(Value::as_object_mut);
    let is_bare = annotations.is_some_and(|annotations| {
        annotations.remove("org.opencontainers.image.ref.name");
        annotations.is_empty()
    });
    if let (true, Some(entry)) = (is_bare, entry.as_object_mut()) {
        entry.remove("annotations");
    }
    entry
}

pub(super) async fn our_layout_readable_by_skopeo_crane_regctl(fixture: &dyn LayoutFixture) {
    let place = Place::new();
    let cache = sound(fixture.open(&place.path).await);
    assert_eq!(StrictLayout::read(&place.path).len(), 0, "a fresh one has no images");
    let (image, index, sha512) = (samples::image(), samples::index(), samples::sha512());
    let names = [
        (NAME, &image),
        ("registry.example:5000/org/app:latest", &index),
        ("docker.io/library/app:7.0_rc-1", &sha512),
        // The same tag in another repository, and another name of the same image.
        ("registry.example/library/other:2", &index),
        ("registry.example/library/again:3", &image),
    ];
    for (at, (name, sample)) in names.iter().enumerate() {
        store(&*cache, sample).await;
        set(&*cache, name, &sample.top).await;
        let layout = StrictLayout::read(&place.path);
        for (name, sample) in &names[..=at] {
            let digest = sample.top.digest().to_string();
            assert_eq!(layout.find(name), digest);
            assert_eq!(layout.find_tag(name.rsplit(':').next().unwrap_or_default()), digest);
        }
        assert_eq!(layout.len(), at + 1);
    }
    // A name that moves stands once.
    set(&*cache, NAME, &sha512.top).await;
    assert_eq!(StrictLayout::read(&place.path).find(NAME), sha512.top.digest().to_string());

    // What is not complete yet is in no place where other tools look.
    let (wanted, content) = large();
    let mut writer = vacant(&*cache, &wanted).await;
    sound(writer.write(content.slice(..content.len() / 2)).await);
    StrictLayout::read(&place.path);
    drop(writer);
    sound(cache.put(whole(&wanted, &content)).await);
    for (gone, _) in &names[1..] {
        sound(cache.remove(&name(gone)).await);
    }
    if let Err(error) = cache.collect(&Collect::default()).await {
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
    }
    let layout = StrictLayout::read(&place.path);
    assert_eq!((layout.len(), layout.find_tag("1.2")), (1, &*sha512.top.digest().to_string()));
    pushed(fixture).await;
}

/// As [`our_layout_readable_by_skopeo_crane_regctl`] for the backend that makes layouts as copies.
async fn pushed(fixture: &dyn LayoutFixture) {
    let (place, from) = (Place::new(), Place::new());
    let Some(registry) = fixture.registry(&place.path).await else { return not_judged(NO_REGISTRY) };
    let (sample, target) = (samples::index(), sound(image_in(&place.path, "v1")));
    if !registry.capabilities().push {
        let manifest = sound(plyfold_core::RawManifest::new(sample.top_bytes().clone(), None));
        assert_kind(registry.push_manifest(&target, &manifest).await, &ErrorKind::Unsupported);
        return;
    }
    samples::write_layout(&from.path, &[(NAME.to_owned(), &sample)]).expect("a layout can be written");
    let source = fixture.registry(&from.path).await.expect("a registry, as before");
    for (target, written) in [(target, "v1"), (name(NAME), NAME)] {
        sound(copy(&*source, &name(NAME), &*registry, &target, &CopyOptions::default()).await);
        let layout = StrictLayout::read(&place.path);
        assert_eq!(layout.find(written), sample.top.digest().to_string());
    }
}

async fn store(cache: &dyn CacheProvider, sample: &Sample) {
    for blob in &sample.blobs {
        sound(cache.put(whole(&blob.descriptor, &Bytes::clone(&blob.bytes))).await);
    }
}
