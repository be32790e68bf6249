//! An index with everything about it, from every medium into every medium.

use std::path::Path;

use plyfold::memory::MemoryRegistry;
use plyfold::{
    Backends, CacheProviderExt as _, CopyOptions, Descriptor, Digest, ErrorKind, ImageRegistry, Images,
    MediaType, Options, RawManifest, Reference, copy, digest, reference,
};
use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_conformance::server::FaultServer;
use serde_json::{Value, json};

const NAME: &str = "registry.example/org/app:1.2";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What an image is in, and the name it has there.
pub(crate) struct Place {
    pub(crate) from: Box<dyn ImageRegistry>,
    pub(crate) to: Box<dyn ImageRegistry>,
    pub(crate) name: Reference,
}

/// The media, fresh.
const MEDIA: [&str; 6] = ["registry", "oci", "oci-archive", "docker-archive", "store", "memory"];

pub(crate) async fn place(medium: &str, folder: &Path, server: &FaultServer) -> Place {
    let name = reference::parse(NAME).unwrap();
    if medium == "store" {
        let images = Images::open(folder.join("store")).await.unwrap();
        let (from, to) = (images.cache().as_registry(), images.cache().as_target());
        return Place { from: Box::new(from), to: Box::new(to), name };
    }
    let uri = match medium {
        "registry" => format!("registry:{}/org/app:1.2", server.host()),
        "dir" => format!("dir:{}", folder.join("place").display()),
        "memory" => format!("memory:{}:{NAME}", folder.display().to_string().replace([':', '/'], "-")),
        _ => format!("{medium}:{}:{NAME}", folder.join("place.tar").display()),
    };
    let opened = || async { Backends::linked().unwrap().open(&uri, &Options::default()).await.unwrap() };
    let (from, to) = (opened().await, opened().await);
    Place { from: from.registry, to: to.registry, name: from.reference.unwrap() }
}

/// Three platforms with an attestation, a signature of the index under cosign's tag, and two documents that refer to the index and to
/// one image.
pub(crate) struct Origin {
    pub(crate) registry: MemoryRegistry,
    pub(crate) index: RawManifest,
    children: Vec<Descriptor>,
    /// What refers, and to what.
    pub(crate) referrers: Vec<(RawManifest, Digest)>,
    signature: RawManifest,
    pub(crate) tag: Reference,
}

fn described(raw: &RawManifest) -> Value {
    let of = raw.descriptor();
    json!({ "mediaType": of.media_type(), "digest": of.digest(), "size": of.size() })
}

fn origin() -> Origin {
    let (registry, name) = (MemoryRegistry::new("origin"), reference::parse(NAME).unwrap());
    let put = |raw: &RawManifest, name: &Reference| {
        let kind = raw.descriptor().media_type().clone();
        registry.insert_manifest(name, kind, raw.digest(), raw.bytes().clone());
    };
    let by_digest = |raw: &RawManifest| put(raw, &reference::by_digest(&name, raw.digest()));
    let image = |text: &'static str| {
        let layers = [LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish()];
        let sample = samples::of_layers(text, &layers);
        for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
            registry.insert_blob(&name, blob.descriptor.digest().clone(), blob.bytes.clone());
        }
        let raw = RawManifest::new(sample.top_bytes().clone(), Some(sample.top.media_type())).unwrap();
        by_digest(&raw);
        raw
    };
    let artifact = |note: &str, subject: Option<&RawManifest>| {
        let content = note.as_bytes().to_vec();
        let (blob, empty) = (digest::sha256(&content), digest::sha256(b"{}"));
        let size = content.len();
        registry.insert_blob(&name, blob.clone(), content);
        registry.insert_blob(&name, empty.clone(), b"{}".to_vec());
        let mut text = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": format!("application/vnd.example.{note}"),
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2 },
            "layers": [{ "mediaType": "application/octet-stream", "digest": blob, "size": size }],
        });
        if let Some(subject) = subject {
            text["subject"] = described(subject);
        }
        RawManifest::new(text.to_string(), None).unwrap()
    };
    let platforms = ["amd64", "arm64", "s390x"].map(|text| (text, image(text)));
    let mut entries = platforms.each_ref().map(|(architecture, raw)| {
        let mut entry = described(raw);
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry
    });
    let attestation = artifact("attestation", None);
    by_digest(&attestation);
    let mut attested = described(&attestation);
    attested["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    let amd64 = &platforms[0].1;
    attested["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": amd64.digest(),
    });
    entries.sort_by_key(|entry| entry["digest"].to_string());
    let entries = [&entries[..], &[attested]].concat();
    let kind = MediaType::ImageIndex;
    let text = json!({ "schemaVersion": 2, "mediaType": kind.as_ref(), "manifests": entries });
    let index = RawManifest::new(text.to_string(), None).unwrap();
    put(&index, &name);
    let of_index = (artifact("sbom", Some(&index)), index.digest().clone());
    let of_image = (artifact("scan", Some(amd64)), amd64.digest().clone());
    let signature = artifact("signature", None);
    let tag = format!("registry.example/org/app:{}.sig", index.digest().as_ref().replace(':', "-"));
    let tag = reference::parse(&tag).unwrap();
    put(&signature, &tag);
    let children = index.references();
    Origin { registry, index, children, referrers: vec![of_index, of_image], signature, tag }
}

/// The same with what refers to it.
pub(crate) async fn stored_origin() -> Origin {
    let origin = origin();
    for (referrer, _) in &origin.referrers {
        let by_digest = reference::by_digest(&Origin::name(), referrer.digest());
        origin.registry.push_manifest(&by_digest, referrer).await.unwrap();
    }
    origin
}

impl Origin {
    pub(crate) fn name() -> Reference {
        reference::parse(NAME).unwrap()
    }

    /// Copies all of it.
    pub(crate) async fn copy_into(&self, place: &Place) {
        let options = CopyOptions { referrers: true, ..CopyOptions::default() };
        copy(&self.registry, &Self::name(), &*place.to, &place.name, &options).await.unwrap();
    }

    /// Whether the index and all that it lists are in a place.
    async fn assert_index_is_in(&self, place: &Place, what: &str) {
        let (back, name) = (MemoryRegistry::new("back"), reference::parse(NAME).unwrap());
        let copied = copy(&*place.from, &place.name, &back, &name, &CopyOptions::default()).await;
        assert_eq!(copied.unwrap().digest(), self.index.digest(), "{what}");
        for child in &self.children {
            let raw = back.manifest(&reference::by_digest(&name, child.digest())).await.unwrap();
            assert_eq!(raw.digest(), child.digest(), "{what}");
        }
    }

    /// Whether all of it is in a place.
    pub(crate) async fn assert_is_in(&self, place: &Place, what: &str) {
        let options = CopyOptions { referrers: true, ..CopyOptions::default() };
        // Everything is read and verified by a copy of it.
        let (back, name) = (MemoryRegistry::new("back"), reference::parse(NAME).unwrap());
        let copied = copy(&*place.from, &place.name, &back, &name, &options).await;
        assert_eq!(copied.unwrap().digest(), self.index.digest(), "{what}");
        assert!(back.manifest(&name).await.unwrap().bytes() == self.index.bytes(), "{what}");
        for child in &self.children {
            let raw = back.manifest(&reference::by_digest(&name, child.digest())).await.unwrap();
            assert_eq!(raw.digest(), child.digest(), "{what}");
        }
        for (referrer, subject) in &self.referrers {
            let listed = back.referrers(&name, subject, None).await.unwrap();
            let listed: Vec<_> = listed.iter().map(Descriptor::digest).collect();
            assert_eq!(listed, [referrer.digest()], "{what}");
        }
        let signature = back.manifest(&self.tag).await.unwrap();
        assert!(signature.bytes() == self.signature.bytes(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_goes_from_every_medium_into_every_medium_with_all_its_digests() {
    let origin = stored_origin().await;
    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    for source in MEDIA {
        let (folder, server) = (tempfile::tempdir().unwrap(), FaultServer::start().unwrap());
        let from = place(source, folder.path(), &server).await;
        origin.copy_into(&from).await;
        origin.assert_is_in(&from, source).await;
        for target in MEDIA {
            let (folder, server) = (tempfile::tempdir().unwrap(), FaultServer::start().unwrap());
            let to = place(target, folder.path(), &server).await;
            let copied = copy(&*from.from, &from.name, &*to.to, &to.name, &options).await;
            let what = format!("{source} into {target}");
            assert_eq!(copied.unwrap().digest(), origin.index.digest(), "{what}");
            origin.assert_is_in(&to, &what).await;
        }
    }
}

/// A directory of one image lists nothing that refers to it: that is said, and the rest goes in and out.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_goes_through_the_directory_of_one_image_with_all_its_digests() {
    let origin = stored_origin().await;
    let name = reference::parse(NAME).unwrap();
    let all = CopyOptions { referrers: true, ..CopyOptions::default() };
    for medium in MEDIA.into_iter().chain(["dir"]) {
        let (folder, server) = (tempfile::tempdir().unwrap(), FaultServer::start().unwrap());
        let from = place(medium, folder.path(), &server).await;
        copy(&origin.registry, &name, &*from.to, &from.name, &CopyOptions::default()).await.unwrap();
        let between = tempfile::tempdir().unwrap();
        let directory = place("dir", between.path(), &server).await;
        let error = copy(&*from.from, &from.name, &*directory.to, &directory.name, &all).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{medium}: {error}");
        let error = directory.from.manifest(&directory.name).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{medium}: {error}");
        let options = CopyOptions::default();
        let copied = copy(&*from.from, &from.name, &*directory.to, &directory.name, &options).await;
        assert_eq!(copied.unwrap().digest(), origin.index.digest(), "{medium} into dir");
        origin.assert_index_is_in(&directory, medium).await;
        let (folder, server) = (tempfile::tempdir().unwrap(), FaultServer::start().unwrap());
        let to = place(medium, folder.path(), &server).await;
        let copied = copy(&*directory.from, &directory.name, &*to.to, &to.name, &options).await;
        assert_eq!(copied.unwrap().digest(), origin.index.digest(), "dir into {medium}");
        origin.assert_index_is_in(&to, medium).await;
    }
}
