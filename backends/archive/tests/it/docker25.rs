//! What Docker 25 and the containerd store leave out of an archive.

use plyfold_core::cache::MissingContent;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    CacheProviderExt as _, CopyOptions, Digest, ErrorKind, ImageRegistry as _, ImageRegistryExt as _,
    ImageSourceExt as _, LoadOptions, Opened, copy, digest, reference,
};
use serde_json::{Value, json};

use crate::build::{OnDisk, Tar, config, layer};

const NAME: &str = "docker.io/library/app:1";

fn blob(content: &[u8]) -> String {
    format!("blobs/sha256/{}", digest::sha256(content).digest())
}

fn described(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest::sha256(content), "size": content.len() })
}

/// The manifest of the image with some of its layers.
fn manifest(layers: &[Vec<u8>]) -> Vec<u8> {
    let layers: Vec<Value> =
        layers.iter().map(|layer| described("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let config = described("application/vnd.oci.image.config.v1+json", &config());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers }).to_string().into()
}

/// An archive of both lists, whose OCI side has `manifests`. `name` stands in both.
fn hybrid(manifests: &[Vec<u8>], name: Option<&str>) -> OnDisk {
    let entry = |manifest: &Vec<u8>| {
        let mut entry = described("application/vnd.oci.image.manifest.v1+json", manifest);
        if let Some(name) = name {
            entry["annotations"] = json!({ "io.containerd.image.name": name });
        }
        entry
    };
    let entries: Vec<Value> = manifests.iter().map(entry).collect();
    let list = json!([{ "Config": blob(&config()), "RepoTags": name.map(|name| vec![name]), "Layers": [blob(&layer())] }]);
    let tar = Tar::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", json!({ "schemaVersion": 2, "manifests": entries }).to_string())
        .file("manifest.json", list.to_string())
        .file(&blob(&config()), config())
        .file(&blob(&layer()), layer());
    let tar = manifests.iter().fold(tar, |tar, manifest| tar.file(&blob(manifest), manifest));
    OnDisk::new(&tar.bytes())
}

/// Loads everything; what each loaded image hashes to.
async fn diff_ids(disk: &OnDisk) -> Vec<Option<Digest>> {
    let cache = MemoryCache::new().unwrap();
    let from = Opened { registry: Box::new(disk.archive()), reference: None };
    let loaded = cache.image_load(&from, &LoadOptions::default()).await.unwrap();
    let mut found = Vec::new();
    for image in loaded {
        let source = cache.new_source(&image.reference, &"linux/amd64".parse().unwrap()).await.unwrap();
        assert_eq!(source.config().await.unwrap().bytes()[..], config());
        assert_eq!(source.layers().unwrap().len(), 1);
        let mut tar = source.layer_tar(0).await.unwrap();
        found.push(tokio::task::spawn_blocking(move || tar.finish()).await.unwrap().unwrap().diff_id);
    }
    found
}

/// Docker 25.0.0 wrote manifests with an empty list of layers beside a right `manifest.json`.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_lacks_the_layers_of_its_config_loses_against_the_other_list() {
    let layerless = manifest(&[]);
    for name in [Some(NAME), None] {
        let disk = hybrid(std::slice::from_ref(&layerless), name);
        assert_eq!(diff_ids(&disk).await, [Some(digest::sha256(&layer()))], "{name:?}");
        let opened = Opened { registry: Box::new(disk.archive()), reference: None };
        assert_eq!(opened.references().await.unwrap().len(), 1, "{name:?}");
        assert_eq!(disk.archive().untagged().await.unwrap(), [], "{name:?}");
    }
    // The entry that is complete has the image, and its digest.
    let complete = manifest(&[layer()]);
    let disk = hybrid(std::slice::from_ref(&complete), Some(NAME));
    let raw = disk.archive().fetch_raw(&reference::parse(NAME).unwrap()).await.unwrap();
    assert_eq!(*raw.digest(), digest::sha256(&complete));
    // Also beside one that is not.
    let disk = hybrid(&[layerless, complete.clone()], None);
    let platform = "linux/amd64".parse().unwrap();
    let by_digest = format!("localhost/medium@{}", digest::sha256(&complete));
    disk.archive().image(&reference::parse(&by_digest).unwrap(), &platform).await.unwrap();
}

/// A layer that neither list has is missing, and is named; a manifest is not damaged by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_layer_that_is_left_out_is_named_and_taken_from_the_store() {
    let complete = manifest(&[layer()]);
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest::sha256(&complete),
        "size": complete.len(), "annotations": { "io.containerd.image.name": NAME },
    }]});
    let list = json!([{ "Config": blob(&config()), "RepoTags": [NAME], "Layers": [blob(&layer())] }]);
    let tar = Tar::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.to_string())
        .file("manifest.json", list.to_string())
        .file(&blob(&config()), config())
        .file(&blob(&complete), &complete);
    let disk = OnDisk::new(&tar.bytes());
    let cache = MemoryCache::new().unwrap();
    let from = Opened { registry: Box::new(disk.archive()), reference: None };
    let error = cache.image_load(&from, &LoadOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error:?}");
    let missing = error.detail::<MissingContent>().unwrap();
    assert!(format!("{missing:?}").contains(digest::sha256(&layer()).as_ref()), "{missing:?}");
    // The other image, which has the layer, is in the store already.
    let whole = hybrid(std::slice::from_ref(&complete), Some("docker.io/library/other:1"));
    let memory = MemoryRegistry::new("other");
    let other = reference::parse("docker.io/library/other:1").unwrap();
    copy(&whole.archive(), &other, &memory, &other, &CopyOptions::default()).await.unwrap();
    let there = Opened { registry: Box::new(memory), reference: Some(other) };
    cache.image_load(&there, &LoadOptions::default()).await.unwrap();
    let loaded = cache.image_load(&from, &LoadOptions::default()).await.unwrap();
    assert_eq!(loaded[0].reference.whole(), NAME);
}
