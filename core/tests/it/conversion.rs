//! Copies that change the form of an image, or the compression of its layers.

use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use plyfold_core::cache::MissingBlob;
use plyfold_core::layer::{Compression, LayerOptions};
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::progress::Event;
use plyfold_core::{
    Blob, BlobRange, CacheProviderExt as _, Capabilities, Conversion, ConversionFault, Copied, CopyJob,
    CopyOptions, Descriptor, Digest, Document, Error, ErrorKind, ImageRegistry, ImageRegistryExt as _,
    ImageSource as _, ImageSourceExt as _, MediaForm, MediaType, Platforms, Progress, PullPolicy,
    RawManifest, Reference, Result, Sparse, copy, copy_all, digest,
};
use serde_json::{Value, json};

use crate::fixture::{
    AMD64, Fault, Scripted, child, descriptor, index_of, layer, name, options, put_attested, put_compressed,
    put_document, put_image,
};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

fn image() -> Reference {
    name("example.com/app:1")
}

fn target() -> Reference {
    name("other.org/x:2")
}

fn to_form(form: MediaForm) -> Conversion {
    Conversion { form: Some(form), ..Conversion::default() }
}

fn to_compression(how: &str) -> Conversion {
    Conversion { compress: Some(how.parse().unwrap()), ..Conversion::default() }
}

fn converting(conversion: Conversion) -> CopyOptions {
    let retry = options(PullPolicy::Always).retry;
    CopyOptions { conversion: Some(conversion), retry, ..CopyOptions::default() }
}

async fn converted(
    from: &dyn ImageRegistry,
    to: &dyn ImageRegistry,
    conversion: Conversion,
) -> Result<Copied> {
    let jobs = [CopyJob { image: image(), target: target() }];
    Ok(copy_all(from, &jobs, to, &converting(conversion)).await?.remove(0))
}

/// An index of two images, which share a layer.
async fn two_platforms() -> MemoryRegistry {
    let registry = MemoryRegistry::new("a");
    let shared = layer("shared", 300_000);
    let (arm64, amd64) = ([shared.clone(), layer("arm64", 10)], [shared, layer("amd64", 10)]);
    index_of(&registry, &image(), &[("arm64", &arm64), ("amd64", &amd64)]).await;
    registry
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

/// The media types of the layers for a platform, and their `diff_id`s by their bytes.
async fn layers(
    registry: &MemoryRegistry,
    of: &Reference,
    platform: &str,
) -> Vec<(String, Compression, Digest)> {
    let source = registry.image(of, &platform.parse().unwrap()).await.unwrap();
    let mut found = Vec::new();
    for (at, layer) in source.layers().unwrap().iter().enumerate() {
        // The digest of the bytes and the diff_id are checked on the way.
        let mut tar = source.layer_tar_with(at, LayerOptions::default()).await.unwrap();
        let read = tokio::task::spawn_blocking(move || tar.finish()).await.unwrap().unwrap();
        found.push((layer.media_type().to_string(), read.compression, read.diff_id.unwrap()));
    }
    found
}

#[tokio::test]
async fn layers_are_compressed_anew_and_each_once() {
    let from = two_platforms().await;
    let root = from.fetch_raw(&image()).await.unwrap();
    let shared = digest::sha256(&layer("shared", 300_000));
    for (how, kind, media_type) in [
        ("zstd", Compression::Zstd, MediaType::ImageLayerZstd),
        ("gzip:9", Compression::Gzip, MediaType::ImageLayerGzip),
    ] {
        let (reads, to) = (Scripted::new(&from, &[]), MemoryRegistry::new("b"));
        let copied = converted(&reads, &to, to_compression(how)).await.unwrap();
        assert_eq!(copied.original, *root.descriptor());
        assert_ne!(copied.descriptor.digest(), root.digest());
        assert_eq!(reads.reads_of(&shared), 1, "a layer of two images");
        let mut size = 0;
        for platform in ["linux/arm64", AMD64] {
            let at = |registry: &MemoryRegistry, name: Reference| {
                let registry = registry.clone();
                async move { registry.image(&name, &platform.parse().unwrap()).await.unwrap() }
            };
            let (before, after) = (at(&from, image()).await, at(&to, target()).await);
            assert_eq!(before.manifest().unwrap().config(), after.manifest().unwrap().config());
            let diff_ids = before.config().await.unwrap().diff_ids().unwrap();
            let wanted: Vec<_> = diff_ids.into_iter().map(|id| (media_type.to_string(), kind, id)).collect();
            assert_eq!(layers(&to, &target(), platform).await, wanted);
            size += after.manifest().unwrap().config().size();
            size += after.layers().unwrap()[1].size();
            size += if platform == AMD64 { after.layers().unwrap()[0].size() } else { 0 };
        }
        assert_eq!((copied.moved, copied.present), (size, 0), "{copied:?}");
        // The next copy finds all of it by its digests, where that can be asked.
        let cache = MemoryCache::new().unwrap();
        for wanted in [(size, 0), (0, size)] {
            let again = converted(&from, &cache.as_target(), to_compression(how)).await.unwrap();
            assert_eq!((again.moved, again.present), wanted, "{again:?}");
            assert_eq!(again.descriptor, copied.descriptor);
        }
        // One at a time, and elsewhere, it is the same.
        let alone = CopyOptions { concurrency: 1, ..converting(to_compression(how)) };
        let other = copy(&from, &image(), &MemoryCache::new().unwrap().as_target(), &target(), &alone).await;
        assert_eq!(other.unwrap(), copied.descriptor);
    }
    let kept =
        copy(&from, &image(), &MemoryRegistry::new("c"), &target(), &CopyOptions::default()).await.unwrap();
    assert_eq!(kept, *root.descriptor());
}

#[tokio::test]
async fn layers_that_are_as_asked_are_kept() {
    let (from, tar) = (MemoryRegistry::new("a"), layer("file", 4000));
    put_compressed(&from, &image(), &tar, &gzip(&tar));
    let root = from.fetch_raw(&image()).await.unwrap();
    for conversion in [to_compression("gzip:9"), to_form(MediaForm::Oci)] {
        let to = MemoryRegistry::new("b");
        let copied = converted(&from, &to, conversion).await.unwrap();
        assert_eq!((&copied.descriptor, &copied.original), (root.descriptor(), root.descriptor()));
        assert_eq!(to.fetch_raw(&target()).await.unwrap().bytes(), root.bytes());
    }
}

/// To Docker's form and back it is the same image, and in between it has Docker's types alone.
#[tokio::test]
async fn an_index_becomes_a_list_and_an_index_again() {
    let (from, docker, oci) = (two_platforms().await, MemoryRegistry::new("b"), MemoryRegistry::new("c"));
    converted(&from, &docker, to_form(MediaForm::Docker)).await.unwrap();
    let list = docker.fetch_raw(&target()).await.unwrap();
    let document: Value = serde_json::from_slice(list.bytes()).unwrap();
    assert_eq!(
        (list.descriptor().media_type().as_ref(), &document["mediaType"]),
        (DOCKER_LIST, &json!(DOCKER_LIST))
    );
    for platform in ["linux/arm64", AMD64] {
        let source = docker.image(&target(), &platform.parse().unwrap()).await.unwrap();
        assert_eq!(source.raw().descriptor().media_type().as_ref(), DOCKER_MANIFEST);
        assert_eq!(source.manifest().unwrap().config().media_type().as_ref(), DOCKER_CONFIG);
        let types: Vec<_> =
            source.layers().unwrap().iter().map(|layer| layer.media_type().as_ref()).collect();
        assert_eq!(types, [DOCKER_LAYER; 2]);
        assert_eq!(layers(&docker, &target(), platform).await.len(), 2);
    }
    // The same again is nothing to change.
    let options = converting(to_form(MediaForm::Docker));
    let same = copy(&docker, &target(), &MemoryRegistry::new("d"), &target(), &options).await.unwrap();
    assert_eq!(same, *list.descriptor());
    let options = converting(to_form(MediaForm::Oci));
    copy(&docker, &target(), &oci, &target(), &options).await.unwrap();
    let (before, after) =
        (from.fetch_index(&image()).await.unwrap(), oci.fetch_index(&target()).await.unwrap());
    for (old, new) in before.manifests().iter().zip(after.manifests()) {
        let (old, new) =
            (from.fetch_child(&image(), old).await.unwrap(), oci.fetch_child(&target(), new).await.unwrap());
        assert_eq!(old.image().unwrap(), new.image().unwrap());
    }
    assert_eq!(*oci.fetch_raw(&target()).await.unwrap().descriptor().media_type(), MediaType::ImageIndex);
}

/// A manifest of one layer whose document is changed.
fn changed(registry: &MemoryRegistry, change: impl FnOnce(&mut Value)) -> RawManifest {
    let tar = layer("file", 4000);
    put_compressed(registry, &image(), &tar, &gzip(&tar));
    let raw = futures_util::FutureExt::now_or_never(registry.fetch_raw(&image())).unwrap().unwrap();
    let mut document: Value = serde_json::from_slice(raw.bytes()).unwrap();
    change(&mut document);
    let kind = MediaType::from(document["mediaType"].as_str().unwrap());
    put_document(registry, &image(), kind, &document);
    futures_util::FutureExt::now_or_never(registry.fetch_raw(&image())).unwrap().unwrap()
}

#[tokio::test]
async fn what_a_form_has_no_place_for_is_refused_by_name_and_nothing_is_moved() {
    type Change = fn(&mut Value);
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let cases: [(&str, Change); 9] = [
        ("annotations (a, b) of the manifest", |m| m["annotations"] = json!({ "a": "1", "b": "2" })),
        ("annotations (c) of sha256:", |m| m["layers"][0]["annotations"] = json!({ "c": "1" })),
        ("annotations (d) of sha256:", |m| m["config"]["annotations"] = json!({ "d": "1" })),
        ("subject of the manifest", |m| m["subject"] = descriptor(MediaType::ImageManifest.as_ref(), b"{}")),
        ("artifactType of the manifest", |m| m["artifactType"] = json!("application/vnd.example")),
        ("(application/vnd.oci.image.layer.v1.tar+zstd)", |m| {
            m["layers"][0]["mediaType"] = json!(MediaType::ImageLayerZstd);
        }),
        ("(application/vnd.example.layer)", |m| {
            m["layers"][0]["mediaType"] = json!("application/vnd.example.layer");
        }),
        ("nondistributable.v1.tar)", |m| {
            m["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar");
        }),
        ("the artifact sha256:", |m| m["config"]["mediaType"] = json!("application/vnd.example.config")),
    ];
    for (wanted, change) in cases {
        let (from, to) = (MemoryRegistry::new("a"), MemoryRegistry::new("b"));
        let raw = changed(&from, change);
        let reads = Scripted::new(&from, &[]);
        let error = converted(&reads, &to, to_form(MediaForm::Docker)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
        let Some(ConversionFault::Docker(named)) = error.detail() else { panic!("{wanted}: {error}") };
        assert!(named.contains(wanted), "{wanted}: {named}");
        assert!(error.hint().is_some());
        assert_eq!(reads.layer_reads(), 0, "{wanted}");
        assert!(!to.exists(&target()).await.unwrap());
        for blob in raw.references() {
            assert!(!to.has_blob(&target(), &blob).await.unwrap(), "{wanted}");
        }
    }
    // Those of them that gzip makes a place for.
    let (from, to) = (MemoryRegistry::new("a"), MemoryRegistry::new("b"));
    changed(&from, |m| m["layers"][0]["mediaType"] = json!(MediaType::ImageLayerZstd));
    let both = Conversion { form: Some(MediaForm::Docker), ..to_compression("gzip") };
    converted(&from, &to, both).await.unwrap();
    assert_eq!(layers(&to, &target(), AMD64).await[0].0, format!("{DOCKER_LAYER}.gzip"));
    // A foreign layer keeps its bytes, and its type where the form has the same.
    changed(&from, |m| m["layers"][0]["mediaType"] = json!(format!("{foreign}+gzip")));
    let zstd = Conversion { form: Some(MediaForm::Oci), ..to_compression("zstd") };
    let kept = converted(&from, &to, zstd).await.unwrap();
    assert_eq!(kept.descriptor, kept.original);
    converted(&from, &to, to_form(MediaForm::Docker)).await.unwrap();
    let there = to.image(&target(), &AMD64.parse().unwrap()).await.unwrap();
    assert_eq!(
        there.layers().unwrap()[0].media_type().as_ref(),
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    );
}

#[tokio::test]
async fn what_no_image_can_become_is_refused_at_once() {
    let from = Scripted::new(&two_platforms().await, &[]);
    let to = MemoryRegistry::new("b");
    let docker = Conversion { form: Some(MediaForm::Docker), ..to_compression("zstd") };
    let zstd = converting(to_compression("zstd"));
    let cases = [
        (converting(docker), ConversionFault::ZstdInDocker),
        (CopyOptions { referrers: true, ..zstd.clone() }, ConversionFault::Referrers),
        (CopyOptions { sparse: Sparse::Keep, ..zstd.clone() }, ConversionFault::Sparse),
    ];
    for (options, wanted) in cases {
        let error = copy(&from, &image(), &to, &target(), &options).await.unwrap_err();
        assert_eq!(error.detail(), Some(&wanted), "{error}");
        assert!(error.hint().is_some());
    }
    assert_eq!(from.requests(), 0);
    // A manifest of Docker's that stays one.
    let docker = MemoryRegistry::new("c");
    converted(&from, &docker, to_form(MediaForm::Docker)).await.unwrap();
    let error = copy(&docker, &target(), &to, &target(), &zstd).await.unwrap_err();
    assert_eq!(error.detail(), Some(&ConversionFault::ZstdInDocker), "{error}");
    let both = converting(Conversion { form: Some(MediaForm::Oci), ..to_compression("zstd") });
    copy(&docker, &target(), &to, &target(), &both).await.unwrap();
    assert_eq!(layers(&to, &target(), AMD64).await[1].0, MediaType::ImageLayerZstd.to_string());
    for text in ["", "zip", "gzip:", "gzip:0", "gzip:10", "zstd:20", "zstd:-1", "zstd:3:4", "none"] {
        let error = text.parse::<plyfold_core::Recompression>().unwrap_err();
        assert_eq!(error.detail(), Some(&ConversionFault::Compression(text.to_owned())));
    }
}

/// An index of an uncompressed image and of a compressed one, with an attestation of each; the entries.
async fn attested() -> (MemoryRegistry, Vec<Descriptor>) {
    let registry = MemoryRegistry::new("a");
    let mut children = Vec::new();
    let gzipped = layer("gzipped", 1000);
    for architecture in ["arm64", "amd64"] {
        match architecture {
            "amd64" => put_compressed(&registry, &image(), &gzipped, &gzip(&gzipped)),
            _ => drop(put_image(&registry, &image(), ("linux", architecture), &[layer(architecture, 10)])),
        }
        children.push(child(&registry, &image(), architecture).await);
    }
    let children = put_attested(&registry, &image(), children).await;
    (registry, children)
}

#[tokio::test]
async fn attestations_stay_with_images_that_stay() {
    let (from, children) = attested().await;
    let to = MemoryRegistry::new("b");
    let (progress, mut events) = Progress::channel();
    let options = CopyOptions { progress, ..converting(to_compression("gzip")) };
    copy(&from, &image(), &to, &target(), &options).await.unwrap();
    drop(options);
    let listed = to.fetch_index(&target()).await.unwrap().manifests().clone();
    // The first is another image now.
    assert_eq!(listed[1..], [children[1].clone(), children[3].clone()]);
    assert_eq!(listed[0].platform(), children[0].platform());
    assert_ne!(listed[0].digest(), children[0].digest());
    let (mut warnings, mut changes) = (Vec::new(), Vec::new());
    while let Some(event) = events.next().await {
        match event {
            Event::Warning { message } => warnings.push(message),
            Event::Converted { original, digest } => changes.push((original, digest)),
            _ => {}
        }
    }
    assert!(warnings.len() == 1 && warnings[0].ends_with("left out: 1"), "{warnings:?}");
    assert!(changes.contains(&(children[0].digest().clone(), listed[0].digest().clone())), "{changes:?}");
    assert_eq!(changes.len(), 2, "a layer and its manifest: {changes:?}");
    let error = converted(&from, &to, to_form(MediaForm::Docker)).await.unwrap_err();
    let named = format!("the attestation {}", children[2].digest());
    assert!(matches!(error.detail(), Some(ConversionFault::Docker(all)) if all.contains(&named)), "{error}");
    assert!(!error.message().contains("vnd.docker.reference"), "an attestation is named once: {error}");
}

/// Of some platforms an index is made, and converted.
#[tokio::test]
async fn a_part_of_an_index_is_converted() {
    let (from, _) = attested().await;
    let platforms = Platforms::Some(vec!["linux/arm64".parse().unwrap()]);
    let part = CopyOptions { platforms, sparse: Sparse::Rewrite, ..converting(to_compression("zstd")) };
    let to = MemoryRegistry::new("b");
    copy(&from, &image(), &to, &target(), &part).await.unwrap();
    assert_eq!(to.fetch_index(&target()).await.unwrap().manifests().len(), 1);
    assert_eq!(layers(&to, &target(), "linux/arm64").await[0].1, Compression::Zstd);
    let one = Platforms::One("linux/arm64".parse().unwrap());
    let one = CopyOptions { platforms: one, ..converting(to_compression("zstd")) };
    let copied = copy(&from, &image(), &to, &target(), &one).await.unwrap();
    assert_eq!(*copied.media_type(), MediaType::ImageManifest);
    // From a cache that has one platform, too.
    let (cache, to) = (MemoryCache::new().unwrap(), MemoryRegistry::new("c"));
    cache.image_pull(&from, &image(), &options(PullPolicy::Always)).await.unwrap();
    let rewrite = CopyOptions { sparse: Sparse::Rewrite, ..converting(to_compression("zstd")) };
    let pushed = cache.push(&image(), &to, &target(), &rewrite).await.unwrap();
    assert_eq!(pushed.original, *from.fetch_raw(&image()).await.unwrap().descriptor());
    assert_eq!(layers(&to, &target(), AMD64).await[0].1, Compression::Zstd);
}

#[tokio::test]
async fn what_is_about_the_old_bytes_does_not_stay_with_the_new_ones() {
    let (from, to) = (MemoryRegistry::new("a"), MemoryRegistry::new("b"));
    changed(&from, |m| {
        m["unknown"] = json!("kept");
        m["annotations"] = json!({ "note": "kept" });
        m["layers"][0]["urls"] = json!(["https://example.com/layer"]);
        m["layers"][0]["annotations"] = json!({
            "containerd.io/snapshot/stargz/toc.digest": "sha256:00", "io.github.containers.zstd-chunked.manifest-checksum": "x",
            "note": "kept",
        });
    });
    converted(&from, &to, to_compression("zstd")).await.unwrap();
    let raw = to.fetch_raw(&target()).await.unwrap();
    let document: Value = serde_json::from_slice(raw.bytes()).unwrap();
    assert_eq!(
        (&document["unknown"], &document["annotations"]),
        (&json!("kept"), &json!({ "note": "kept" }))
    );
    let made = &document["layers"][0];
    assert_eq!(made["annotations"], json!({ "note": "kept" }));
    let mut keys: Vec<_> = made.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["annotations", "digest", "mediaType", "size"]);
}

#[tokio::test]
async fn a_damaged_layer_leaves_no_name_and_a_broken_transfer_goes_on() {
    let (from, to) = (MemoryRegistry::new("a"), MemoryRegistry::new("b"));
    let (tar, other) = (layer("file", 200_000), layer("other", 200_000));
    put_compressed(&from, &image(), &tar, &gzip(&other));
    let error = converted(&from, &to, to_compression("zstd")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(!to.exists(&target()).await.unwrap());
    put_image(&from, &image(), ("linux", "amd64"), &[tar]);
    let broken = Scripted::new(&from, &[Fault::Breaks(70_000), Fault::Breaks(70_000), Fault::IgnoresRange]);
    let copied = converted(&broken, &to, to_compression("zstd")).await.unwrap();
    assert_eq!(broken.layer_reads(), 3);
    let sound = converted(&from, &MemoryRegistry::new("c"), to_compression("zstd")).await.unwrap();
    assert_eq!(copied.descriptor, sound.descriptor);
}

/// A registry whose repositories share nothing.
#[derive(Clone, Debug)]
struct Apart(MemoryRegistry);

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("apart:")
    }
}

#[async_trait]
impl ImageRegistry for Apart {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.0.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.0.blob(reference, blob, range).await
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        self.0.push_blob(reference, blob).await
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        self.0.push_manifest(reference, manifest).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { push: true, ..Capabilities::READ }
    }
}

/// A registry that loses a layer once, when the first manifest needs it.
#[derive(Clone, Debug)]
struct Loses(Apart, Arc<Mutex<Option<Digest>>>, Arc<Mutex<Vec<Digest>>>);

impl fmt::Display for Loses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("loses:")
    }
}

#[async_trait]
impl ImageRegistry for Loses {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.0.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.0.blob(reference, blob, range).await
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        self.2.lock().unwrap().push(blob.descriptor().digest().clone());
        self.0.push_blob(reference, blob).await
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        let layer = manifest.references().pop().unwrap().digest().clone();
        if self.1.lock().unwrap().is_none() {
            *self.1.lock().unwrap() = Some(layer.clone());
            let lost = Error::not_found("a repair has moved it away");
            return Err(lost.with_detail(MissingBlob(layer)));
        }
        self.0.push_manifest(reference, manifest).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

#[tokio::test]
async fn a_layer_that_is_lost_is_made_again() {
    let (from, to) = (two_platforms().await, MemoryRegistry::new("b"));
    let loses = Loses(Apart(to.clone()), Arc::default(), Arc::default());
    let copied = converted(&from, &loses, to_compression("zstd")).await.unwrap();
    let lost = loses.1.lock().unwrap().clone().unwrap();
    assert_eq!(loses.2.lock().unwrap().iter().filter(|pushed| **pushed == lost).count(), 2);
    for platform in ["linux/arm64", AMD64] {
        assert_eq!(layers(&to, &target(), platform).await[1].1, Compression::Zstd);
    }
    let sound = converted(&from, &MemoryRegistry::new("c"), to_compression("zstd")).await.unwrap();
    assert_eq!(copied.descriptor, sound.descriptor);
}

#[tokio::test]
async fn a_layer_is_made_again_where_it_cannot_be_taken_from() {
    let (from, to) = (two_platforms().await, MemoryRegistry::new("b"));
    let targets = [target(), name("other.org/y:2")];
    let jobs = targets.clone().map(|target| CopyJob { image: image(), target });
    let copied =
        copy_all(&from, &jobs, &Apart(to.clone()), &converting(to_compression("gzip"))).await.unwrap();
    assert_eq!(copied[0].descriptor, copied[1].descriptor);
    assert!(copied[1].moved >= copied[0].moved, "{copied:?}");
    // In one repository it is made once.
    let jobs = [jobs[0].clone(), CopyJob { image: image(), target: name("other.org/x:3") }];
    let (reads, shared) = (Scripted::new(&from, &[]), digest::sha256(&layer("shared", 300_000)));
    let third = Apart(MemoryRegistry::new("c"));
    let copied = copy_all(&reads, &jobs, &third, &converting(to_compression("gzip"))).await.unwrap();
    assert!(copied[1].present > 0 && copied[1].moved < copied[0].moved, "{copied:?}");
    assert_eq!(reads.reads_of(&shared), 1);
    for target in &targets {
        assert_eq!(layers(&to, target, AMD64).await[0].1, Compression::Gzip);
    }
}

#[tokio::test]
async fn indexes_within_indexes_are_rewritten() {
    let from = two_platforms().await;
    let inner = from.fetch_raw(&image()).await.unwrap();
    let nested = serde_json::to_value(inner.descriptor()).unwrap();
    let outer =
        json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": [nested] });
    put_document(&from, &image(), MediaType::ImageIndex, &outer);
    let to = MemoryRegistry::new("b");
    converted(&from, &to, to_compression("zstd")).await.unwrap();
    let index = to.fetch_index(&target()).await.unwrap();
    let inner = to.fetch_child(&target(), &index.manifests()[0]).await.unwrap();
    assert!(matches!(inner.document(), Document::Index(index) if index.manifests().len() == 2));
    assert_eq!(layers(&to, &target(), "linux/arm64").await[1].1, Compression::Zstd);
    let error = converted(&from, &to, to_form(MediaForm::Docker)).await.unwrap_err();
    assert!(error.message().contains("within the index"), "{error}");
}
