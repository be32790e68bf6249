//! The same image through both forms has one identity where it can.

use plyfold_core::cache::MissingContent;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    Advice, Backends, Blob, BlobRange, CacheProvider as _, CacheProviderExt, CopyOptions, Descriptor,
    ErrorKind, ImageRegistry, ImageRegistryExt, ImageSourceExt, LoadOptions, Opened, Options, Reference,
    Result, copy, digest, reference,
};
use serde_json::{Value, json};

use crate::build::{OnDisk, Tar, config, config_name, layer, manifest};

/// `docker save` and `podman save` arrange the same image differently: folders or flat names, any order.
#[tokio::test]
async fn the_arrangement_of_an_archive_does_not_change_the_image() {
    let platform = "linux/amd64".parse().unwrap();
    let image = reference::parse("example.com/app:1").unwrap();
    let text = |layer: &str| manifest(&["example.com/app:1"], layer);
    let folders = Tar::new()
        .file("abc/VERSION", "1.0")
        .file("abc/layer.tar", layer())
        .file(&config_name(), config())
        .file("manifest.json", text("abc/layer.tar"));
    let flat = Tar::new()
        .file("./manifest.json", text("x.tar"))
        .file(&config_name(), config())
        .file("x.tar", layer());
    let mut digests = Vec::new();
    for tar in [folders, flat] {
        let disk = OnDisk::new(&tar.bytes());
        let source = disk.archive().image(&image, &platform).await.unwrap();
        digests.push(source.descriptor().clone());
    }
    assert_eq!(digests[0], digests[1]);
}

/// Docker 25.0 lists what has no tag in `manifest.json` alone, and its list of nothing is null.
#[tokio::test]
async fn an_image_that_the_index_does_not_list_is_read_from_the_other_list() {
    let image = manifest(&[], "blobs/sha256/x").replace("[]", "null");
    let index =
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}"#;
    let layout =
        |tar: Tar| tar.file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).file("index.json", index);
    let docker = Tar::new().file("blobs/sha256/x", layer()).file(&config_name(), config());
    let disk = OnDisk::new(&layout(docker.file("manifest.json", image)).bytes());
    let opened = Opened { registry: Box::new(disk.archive()), reference: None };
    let name = opened.reference().await.unwrap();
    assert_eq!((name.registry(), name.tag()), ("localhost", Some("latest")));
    disk.archive().image(&name, &"linux/amd64".parse().unwrap()).await.unwrap();

    let empty = OnDisk::new(&layout(Tar::new()).bytes());
    let opened = Opened { registry: Box::new(empty.archive()), reference: None };
    let error = opened.reference().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    assert!(error.hint().is_some_and(|hint| hint.contains("@sha256:")), "{error:?}");
}

/// An image of its own: its config and its layer.
fn image(seed: &str) -> (Vec<u8>, Vec<u8>) {
    let layer = Tar::new().file("seed", seed).bytes();
    let rootfs = json!({ "type": "layers", "diff_ids": [digest::sha256(&layer).to_string()] });
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs });
    (config.to_string().into_bytes(), layer)
}

fn blob(content: &[u8]) -> String {
    format!("blobs/sha256/{}", digest::sha256(content).digest())
}

/// The manifest of an image with one plain layer.
fn manifest_of((config, layer): &(Vec<u8>, Vec<u8>)) -> Vec<u8> {
    let described = |media_type: &str, content: &[u8]| json!({ "mediaType": media_type, "digest": digest::sha256(content), "size": content.len() });
    json!({
        "schemaVersion": 2,
        "config": described("application/vnd.oci.image.config.v1+json", config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", layer)],
    })
    .to_string()
    .into_bytes()
}

/// What Docker 25 and later save: both lists over one set of blobs. `entries` are those of `index.json`, `tags` stand
/// in `manifest.json`.
fn hybrid(images: &[(Vec<u8>, Vec<u8>)], entries: &Value, tags: &[Value]) -> OnDisk {
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    let list = images.iter().zip(tags).map(|((config, layer), tags)| {
        json!({ "Config": blob(config), "RepoTags": tags, "Layers": [blob(layer)] })
    });
    let list = list.collect::<Value>();
    let mut tar = Tar::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.to_string())
        .file("manifest.json", list.to_string());
    for image in images {
        let manifest = manifest_of(image);
        tar = tar
            .file(&blob(&image.0), &image.0)
            .file(&blob(&image.1), &image.1)
            .file(&blob(&manifest), &manifest);
    }
    OnDisk::new(&tar.bytes())
}

/// An entry of `index.json`.
fn entry(image: &(Vec<u8>, Vec<u8>), more: &Value) -> Value {
    let manifest = manifest_of(image);
    let mut entry = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest::sha256(&manifest),
        "size": manifest.len(),
    });
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    entry
}

/// Loads the whole archive; the configs of the images that are in the cache then, sorted.
async fn loaded(disk: &OnDisk) -> Result<Vec<String>> {
    let cache = MemoryCache::new()?;
    let from = Opened { registry: Box::new(disk.archive()), reference: None };
    let platform = "linux/amd64".parse()?;
    let loaded = cache.image_load(&from, &LoadOptions::default()).await?;
    let mut configs = Vec::new();
    for image in &loaded {
        assert!(cache.image_in_cache(&image.reference, &platform).await?, "{}", image.reference);
        let source = cache.new_source(&image.reference, &platform).await?;
        configs.push(source.manifest()?.config().digest().to_string());
    }
    configs.sort();
    configs.dedup();
    Ok(configs)
}

#[tokio::test]
async fn images_without_a_name_are_all_loaded_by_digest() {
    let images = [image("a"), image("b")];
    let (null, empty, none) = (Value::Null, json!([]), json!({}));
    let both = json!([entry(&images[0], &none), entry(&images[1], &none)]);
    let named_badly = json!({ "annotations": { "org.opencontainers.image.ref.name": "UPPER case" } });
    let emptily = json!({ "annotations": { "org.opencontainers.image.ref.name": "" }, "platform": { "os": "linux", "architecture": "amd64" } });
    let by_digest = json!({ "annotations": { "org.opencontainers.image.ref.name": format!("r.lan/a@{}", digest::sha256(&manifest_of(&images[0]))) } });
    let legacy = {
        let list = json!([
            { "Config": "a.json", "RepoTags": null, "Layers": ["a.tar"] },
            { "Config": "b.json", "RepoTags": [""], "Layers": ["b.tar"] },
        ]);
        let tar = Tar::new().file("manifest.json", list.to_string());
        let tar = tar.file("a.json", &images[0].0).file("a.tar", &images[0].1);
        OnDisk::new(&tar.file("b.json", &images[1].0).file("b.tar", &images[1].1).bytes())
    };
    let archives = [
        ("legacy", legacy),
        ("both lists", hybrid(&images, &both, &[null.clone(), empty.clone()])),
        ("no entry", hybrid(&images, &null, &[null.clone(), null.clone()])),
        ("one entry", hybrid(&images, &json!([entry(&images[0], &none)]), &[null.clone(), null.clone()])),
        ("no other list", hybrid(&images, &both, &[])),
        (
            "empty names",
            hybrid(&images, &json!([entry(&images[0], &emptily), entry(&images[1], &emptily)]), &[]),
        ),
        (
            "bad names",
            hybrid(&images, &json!([entry(&images[0], &named_badly), entry(&images[1], &named_badly)]), &[]),
        ),
        (
            "a digest for a name",
            hybrid(&images, &json!([entry(&images[0], &by_digest), entry(&images[1], &none)]), &[]),
        ),
        ("a name that is none", hybrid(&images, &null, &[json!(["../x y"]), json!(["UPPER"])])),
    ];
    let mut expected: Vec<String> = images.iter().map(|image| digest::sha256(&image.0).to_string()).collect();
    expected.sort();
    for (what, disk) in archives {
        assert_eq!(loaded(&disk).await.unwrap(), expected, "{what}");
        let opened = Opened { registry: Box::new(disk.archive()), reference: None };
        let error = opened.reference().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Ambiguous, "{what}: {error}");
        let untagged = opened.registry.untagged().await.unwrap();
        assert_eq!(untagged.len(), 2, "{what}");
        // Each is chosen by its digest, and by its place.
        let backends = Backends::linked().unwrap();
        let mut found = Vec::new();
        for (place, name) in untagged.iter().enumerate() {
            let digest = name.digest().unwrap();
            let (path, options) = (disk.path.display(), Options::default());
            for uri in [format!("docker-archive:{path}@{digest}"), format!("oci-archive:{path}@{digest}")] {
                let chosen = backends.open(&uri, &options).await.unwrap();
                let raw = chosen.registry.manifest(&chosen.reference().await.unwrap()).await.unwrap();
                assert_eq!(raw.digest().as_ref(), digest, "{what}");
            }
            let chosen = backends.open(&format!("docker-archive:{path}:@{place}"), &options).await.unwrap();
            let raw = chosen.registry.manifest(&chosen.reference().await.unwrap()).await.unwrap();
            found.push(raw.digest().to_string());
        }
        found.sort();
        let mut all: Vec<&str> = untagged.iter().filter_map(|name| name.digest()).collect();
        all.sort_unstable();
        assert_eq!(found, all, "{what}");
        let uri = format!("docker-archive:{}:@2", disk.path.display());
        let beyond = backends.open(&uri, &Options::default()).await.unwrap().reference().await.unwrap_err();
        assert_eq!(*beyond.kind(), ErrorKind::NotFound, "{what}: {beyond}");
    }
}

/// A name may stand in `manifest.json` alone, also that of an image of `index.json`.
#[tokio::test]
async fn names_of_both_lists_count() {
    let images = [image("a"), image("b")];
    let named = json!({ "annotations": { "io.containerd.image.name": "r.lan/a:1" } });
    let entries = json!([entry(&images[0], &named), entry(&images[1], &json!({}))]);
    let disk = hybrid(&images, &entries, &[json!(["r.lan/a:1", "r.lan/a:2"]), json!(["r.lan/b:1"])]);
    assert_eq!(loaded(&disk).await.unwrap().len(), 2);
    let opened = Opened { registry: Box::new(disk.archive()), reference: None };
    let found: Vec<String> = opened.references().await.unwrap().iter().map(Reference::whole).collect();
    assert_eq!(found, ["r.lan/a:1", "r.lan/a:2", "r.lan/b:1"]);
    assert_eq!(opened.registry.untagged().await.unwrap(), []);
    for (name, image) in [("r.lan/a:2", &images[0]), ("r.lan/b:1", &images[1])] {
        let raw = disk.archive().manifest(&reference::parse(name).unwrap()).await.unwrap();
        assert_eq!(raw.digest(), &digest::sha256(&manifest_of(image)), "{name}");
    }
    // What both lists name, `index.json` decides; the other image is there by its digest.
    let entries = json!([entry(&images[0], &named)]);
    let disk = hybrid(&images, &entries, &[json!([]), json!(["r.lan/a:1"])]);
    assert_eq!(loaded(&disk).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_image_without_a_name_that_is_broken_is_an_error() {
    let images = [image("a"), image("b")];
    let list = json!([
        { "Config": "a.json", "RepoTags": ["r.lan/a:1"], "Layers": ["a.tar"] },
        { "Config": "b.json", "RepoTags": null, "Layers": ["b.tar"] },
    ]);
    let tar = Tar::new().file("manifest.json", list.to_string()).file("a.json", &images[0].0);
    let disk = OnDisk::new(&tar.file("a.tar", &images[0].1).bytes());
    let error = loaded(&disk).await.unwrap_err();
    assert_eq!((error.kind(), error.context("config")), (&ErrorKind::NotFound, Some("b.json")), "{error}");
}

/// An archive of the old form with the images `a` and `b` under these names.
fn legacy(names: [&Value; 2]) -> OnDisk {
    let images = [image("a"), image("b")];
    let list = json!([
        { "Config": "a.json", "RepoTags": names[0], "Layers": ["a.tar"] },
        { "Config": "b.json", "RepoTags": names[1], "Layers": ["b.tar"] },
    ]);
    let mut tar = Tar::new().file("manifest.json", list.to_string());
    for (name, (config, layer)) in ["a", "b"].into_iter().zip(&images) {
        tar = tar.file(&format!("{name}.json"), config).file(&format!("{name}.tar"), layer);
    }
    OnDisk::new(&tar.bytes())
}

/// What a name in an archive leads to: the config's digest.
async fn config_at(disk: &OnDisk, name: &Reference) -> String {
    let raw = disk.archive().manifest(name).await.unwrap();
    raw.image().unwrap().config().digest().to_string()
}

fn config_digests() -> [String; 2] {
    ["a", "b"].map(|seed| digest::sha256(&image(seed).0).to_string())
}

/// As `docker load`, which gives a name to one image after the other; the earlier ones are loaded all the same.
#[tokio::test]
async fn the_last_of_several_images_has_their_name() {
    let images = [image("a"), image("b")];
    let (full, tag) = ("io.containerd.image.name", "org.opencontainers.image.ref.name");
    let listed = |name: &Value| json!([entry(&images[0], name), entry(&images[1], name)]);
    let annotated = |key: &str, name: &str| json!({ "annotations": { key: name } });
    let name = json!(["r.lan/a:1"]);
    let several = json!(["r.lan/a:1", "r.lan/a:1", "r.lan/a:2"]);
    let expected: Vec<String> = {
        let mut digests = config_digests().to_vec();
        digests.sort();
        digests
    };
    for (what, disk) in [
        ("both", legacy([&name, &name])),
        ("one twice", legacy([&several, &name])),
        ("an index", hybrid(&images, &listed(&annotated(full, "r.lan/a:1")), &[])),
        (
            "an index and a list",
            hybrid(&images, &listed(&annotated(full, "r.lan/a:1")), &[name.clone(), name.clone()]),
        ),
        ("a list beside an index", hybrid(&images, &listed(&json!({})), &[name.clone(), name.clone()])),
        ("a list beside no entry", hybrid(&images, &Value::Null, &[name.clone(), name.clone()])),
        ("a full name for a tag", hybrid(&images, &listed(&annotated(tag, "r.lan/a:1")), &[])),
        ("a tag and a digest", legacy([&json!([format!("r.lan/a:1@{}", digest::sha256(b"old"))]), &name])),
    ] {
        assert_eq!(loaded(&disk).await.unwrap(), expected, "{what}");
        let name = reference::parse("r.lan/a:1").unwrap();
        assert_eq!(config_at(&disk, &name).await, config_digests()[1], "{what}");
        let untagged = disk.archive().untagged().await.unwrap();
        if what == "one twice" {
            assert_eq!(config_at(&disk, &reference::parse("r.lan/a:2").unwrap()).await, config_digests()[0]);
            assert_eq!(untagged, []);
            continue;
        }
        let [other] = untagged.as_slice() else { panic!("{what}: {untagged:?}") };
        assert_eq!(reference::repository_of(other), "r.lan/a", "{what}");
        assert_eq!(config_at(&disk, other).await, config_digests()[0], "{what}");
    }
    // A bare tag is a name of the archive.
    let disk = hybrid(&images, &listed(&annotated(tag, "1")), &[]);
    assert_eq!(loaded(&disk).await.unwrap(), expected);
    // One image under one name twice is one image.
    let same = json!([
        entry(&images[0], &annotated(full, "r.lan/a:1")),
        entry(&images[0], &annotated(full, "r.lan/a:1"))
    ]);
    assert_eq!(hybrid(&images[..1], &same, &[]).archive().untagged().await.unwrap(), []);
}

/// The last image of a name is broken, or an earlier one: the load says so.
#[tokio::test]
async fn a_name_of_several_images_hides_none_that_is_broken() {
    let images = [image("a"), image("b")];
    for broken in ["a", "b"] {
        let config = |seed: &str| if seed == broken { json!(null) } else { json!(format!("{seed}.json")) };
        let list = json!([
            { "Config": config("a"), "RepoTags": ["r.lan/a:1"], "Layers": ["a.tar"] },
            { "Config": config("b"), "RepoTags": ["r.lan/a:1"], "Layers": ["b.tar"] },
        ]);
        let tar = Tar::new().file("manifest.json", list.to_string());
        let tar = tar.file("a.json", &images[0].0).file("a.tar", &images[0].1);
        let disk = OnDisk::new(&tar.file("b.json", &images[1].0).file("b.tar", &images[1].1).bytes());
        assert_eq!(*loaded(&disk).await.unwrap_err().kind(), ErrorKind::NotFound, "{broken}");
    }
}

/// `repository@digest` and `repository:tag@digest`, in both lists, alone and beside others.
#[tokio::test]
async fn names_with_a_digest_lose_no_image() {
    let images = [image("a"), image("b")];
    let full = |name: String| json!({ "annotations": { "io.containerd.image.name": name } });
    let elsewhere = digest::sha256(b"as it was in a registry");
    let mut all = config_digests().to_vec();
    all.sort();
    for digest in [digest::sha256(&manifest_of(&images[0])), elsewhere] {
        let (by_digest, both) = (format!("r.lan/a@{digest}"), format!("r.lan/a:1@{digest}"));
        let other = json!(["r.lan/b:1"]);
        for (what, name) in [("a digest", &by_digest), ("a tag and a digest", &both)] {
            let entries =
                json!([entry(&images[0], &full(name.clone())), entry(&images[1], &full("r.lan/b:1".into()))]);
            let one = json!([entry(&images[0], &full(name.clone()))]);
            let single = json!([{ "Config": "a.json", "RepoTags": [name], "Layers": ["a.tar"] }]);
            let single = Tar::new().file("manifest.json", single.to_string());
            let single = single.file("a.json", &images[0].0).file("a.tar", &images[0].1);
            for (form, disk, expected) in [
                ("old", legacy([&json!([name]), &other]), &all[..]),
                ("old, alone", OnDisk::new(&single.bytes()), &config_digests()[..1]),
                ("index", hybrid(&images, &entries, &[]), &all[..]),
                ("index, alone", hybrid(&images[..1], &one, &[]), &config_digests()[..1]),
                (
                    "list beside no entry",
                    hybrid(&images, &Value::Null, &[json!([name]), other.clone()]),
                    &all[..],
                ),
                (
                    "list beside one",
                    hybrid(&images, &json!([entry(&images[0], &json!({}))]), &[json!([name]), other.clone()]),
                    &all[..],
                ),
            ] {
                let what = format!("{what}, {form}");
                assert_eq!(loaded(&disk).await.unwrap(), expected, "{what}");
                let opened = Opened { registry: Box::new(disk.archive()), reference: None };
                let mut names = opened.references().await.unwrap();
                names.extend(opened.registry.untagged().await.unwrap());
                let ours: Vec<_> =
                    names.iter().filter(|name| reference::repository_of(name) == "r.lan/a").collect();
                let [ours] = ours.as_slice() else { panic!("{what}: {names:?}") };
                assert_eq!(ours.tag(), name.contains(":1@").then_some("1"), "{what}");
                assert_eq!(config_at(&disk, ours).await, config_digests()[0], "{what}");
            }
        }
    }
}

/// The entry is an index: its name by digest is its only one, though the archive's only image is found as `latest` too.
#[tokio::test]
async fn an_image_of_several_platforms_keeps_its_name_by_digest() {
    let images = [image("a"), image("b")];
    let platform =
        |architecture: &str| json!({ "platform": { "os": "linux", "architecture": architecture } });
    let inner = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&images[0], &platform("amd64")), entry(&images[1], &platform("arm64"))],
    });
    let inner = inner.to_string().into_bytes();
    let name = format!("r.lan/a@{}", digest::sha256(&inner));
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest::sha256(&inner),
        "size": inner.len(),
        "annotations": { "io.containerd.image.name": name },
    }] });
    let mut tar = Tar::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.to_string())
        .file(&blob(&inner), &inner);
    for image in &images {
        let manifest = manifest_of(image);
        tar = tar
            .file(&blob(&image.0), &image.0)
            .file(&blob(&image.1), &image.1)
            .file(&blob(&manifest), &manifest);
    }
    let disk = OnDisk::new(&tar.bytes());
    let cache = MemoryCache::new().unwrap();
    let from = Opened { registry: Box::new(disk.archive()), reference: None };
    assert_eq!(from.reference().await.unwrap().whole(), name);
    let latest = reference::local(&disk.path, "latest").unwrap();
    assert_eq!(from.registry.manifest(&latest).await.unwrap().digest(), &digest::sha256(&inner));
    let loaded = cache.image_load(&from, &LoadOptions::default()).await.unwrap();
    let names: Vec<_> = loaded.iter().map(|image| image.reference.whole()).collect();
    assert_eq!(names, [name]);
}

/// An item of the list that says nothing is no image, as for Go's readers.
#[tokio::test]
async fn a_list_may_hold_null() {
    let images = [image("a"), image("b")];
    let list = json!([null, { "Config": "a.json", "RepoTags": ["r.lan/a:1"], "Layers": ["a.tar"] }, {}]);
    let tar = Tar::new().file("manifest.json", list.to_string()).file("a.json", &images[0].0);
    let disk = OnDisk::new(&tar.file("a.tar", &images[0].1).bytes());
    assert_eq!(loaded(&disk).await.unwrap(), config_digests()[..1]);
    let disk = hybrid(&images[..1], &json!([null, entry(&images[0], &json!({})), {}]), &[]);
    assert_eq!(loaded(&disk).await.unwrap(), config_digests()[..1]);
}

/// Signatures and SBOMs of an image, as a layout lists them: under a tag of the subject's digest, or without a name.
#[tokio::test]
async fn what_refers_to_an_image_is_loaded_with_it() {
    let blob = |kind: &str, content: &[u8]| json!({ "mediaType": kind, "digest": digest::sha256(content).to_string(), "size": content.len() });
    let member = |content: &[u8]| format!("blobs/sha256/{}", digest::sha256(content).digest());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let image = json!({
        "schemaVersion": 2, "mediaType": kind,
        "config": blob("application/vnd.oci.image.config.v1+json", &config()),
        "layers": [blob("application/vnd.oci.image.layer.v1.tar", &layer())],
    });
    let image = image.to_string().into_bytes();
    let about = |subject: &[u8], note: &str| {
        let note = json!({
            "schemaVersion": 2, "mediaType": kind, "artifactType": "application/vnd.example.note",
            "config": blob("application/vnd.oci.empty.v1+json", b"{}"), "layers": [],
            "subject": blob(kind, subject), "annotations": { "note": note },
        });
        note.to_string().into_bytes()
    };
    let listed = [about(&image, "one"), about(&image, "two")];
    let nameless = [about(&image, "three"), about(&listed[0], "of the first")];
    let index_of = |entries: Vec<Value>| {
        let kind = "application/vnd.oci.image.index.v1+json";
        json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries }).to_string().into_bytes()
    };
    let list = index_of(listed.iter().map(|note| blob(kind, note)).collect());
    let named = |mut entry: Value, name: &str| {
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        entry
    };
    let mut entries: Vec<Value> = nameless.iter().map(|note| blob(kind, note)).collect();
    entries.push(named(blob(kind, &image), "1"));
    let tag = digest::sha256(&image).to_string().replace(':', "-");
    entries.push(named(blob("application/vnd.oci.image.index.v1+json", &list), &tag));
    let signature = about(&image, "of cosign");
    entries.push(named(blob(kind, &signature), &format!("{tag}.sig")));
    let blobs = [config(), layer(), b"{}".to_vec(), image.clone(), list, signature.clone()];
    let archive = |missing: &[u8]| {
        let mut tar = Tar::new()
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", index_of(entries.clone()));
        let all = blobs.iter().chain(&listed).chain(&nameless);
        for content in all.filter(|content| *content != missing) {
            tar = tar.file(&member(content), content);
        }
        OnDisk::new(&tar.bytes())
    };
    // What is missing of it is named. A copy has brought the image by then.
    for missing in [&listed[0], &nameless[0], &signature] {
        let disk = archive(missing);
        let name = reference::parse("localhost/medium:1").unwrap();
        let (target, cache) = (MemoryRegistry::new("target"), MemoryCache::new().unwrap());
        let copying = CopyOptions { referrers: true, ..CopyOptions::default() };
        let copied = copy(&disk.archive(), &name, &target, &name, &copying).await.map(drop);
        target.resolve(&name).await.unwrap();
        let opened = Opened { registry: Box::new(disk.archive()), reference: Some(name.clone()) };
        let loaded = cache.image_load(&opened, &LoadOptions::default()).await.map(drop);
        assert_eq!(cache.list().await.unwrap(), [], "a load brings all of it or nothing");
        for outcome in [copied, loaded] {
            let error = outcome.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains(digest::sha256(missing).as_ref()), "{error}");
        }
    }
    let disk = archive(&[]);
    let opened = Opened { registry: Box::new(disk.archive()), reference: None };
    let cache = MemoryCache::new().unwrap();
    let loaded = cache.image_load(&opened, &LoadOptions::default()).await.unwrap();
    assert_eq!(loaded.len(), 2, "what refers to an image is no image, unless it has a name");
    let counts = [(&image, 4), (&listed[0], 1), (&listed[1], 0)];
    for (subject, count) in counts {
        let name = &loaded[0].reference;
        let found = cache.as_registry().referrers(name, &digest::sha256(subject), None).await.unwrap();
        assert_eq!(found.len(), count);
    }
}

/// A delta archive has the documents, and lacks layers. What is missing is named with what it was made against, and may be
/// in the cache.
#[tokio::test]
async fn a_delta_is_loaded_over_its_base() {
    let image = image("a");
    let manifest = manifest_of(&image);
    let index = json!({ "schemaVersion": 2, "manifests": [entry(&image, &json!({}))] });
    let list =
        json!([{ "Config": blob(&image.0), "RepoTags": ["example.com/app:1"], "Layers": [blob(&image.1)] }]);
    let delta = json!({
        "schemaVersion": 1, "mediaType": "application/vnd.plyfold.delta.v1+json",
        "since": ["example.com/base:1\u{7}"],
        "absent": [{ "digest": digest::sha256(&image.1), "size": image.1.len() }],
    });
    let bases = vec!["example.com/base:1\\u{7}".to_owned()];
    for (document, advice) in
        [(delta.to_string(), Some(Advice::LoadBase { bases })), ("no JSON".to_owned(), None)]
    {
        let tar = Tar::new()
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", index.to_string())
            .file("manifest.json", list.to_string())
            .file("plyfold-delta.json", document)
            .file(&blob(&image.0), &image.0)
            .file(&blob(&manifest), &manifest);
        let disk = OnDisk::new(&tar.bytes());
        let (cache, from) =
            (MemoryCache::new().unwrap(), Opened { registry: Box::new(disk.archive()), reference: None });
        let error = cache.image_load(&from, &LoadOptions::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.advice()), (&ErrorKind::NotFound, advice.as_ref()), "{error}");
        let missing = &error.detail::<MissingContent>().unwrap().0;
        assert_eq!(missing.iter().map(Descriptor::digest).collect::<Vec<_>>(), [&digest::sha256(&image.1)]);
        assert_eq!(cache.list().await.unwrap(), []);
        let layer = Blob::from_bytes(&missing[0], BlobRange::FULL, &image.1.clone().into()).unwrap();
        cache.put(layer).await.unwrap();
        let loaded = cache.image_load(&from, &LoadOptions::default()).await.unwrap();
        assert!(cache.image_in_cache(&loaded[0].reference, &"linux/amd64".parse().unwrap()).await.unwrap());
    }
}

/// A copy looks for tags of cosign beside each image. To list all names for each that is not there takes minutes.
#[tokio::test]
async fn thousands_of_names_are_looked_for_in_linear_work() {
    let started = std::time::Instant::now();
    let called = |number: usize| format!("a.example/app:{number}");
    let names: Vec<String> = (0..8_000).map(called).collect();
    let tags: Vec<&str> = names.iter().map(String::as_str).collect();
    let docker = Tar::new()
        .file(&config_name(), config())
        .file("x.tar", layer())
        .file("manifest.json", manifest(&tags, "x.tar"));
    let docker = OnDisk::new(&docker.bytes());
    let raw = docker.archive().manifest(&reference::parse(&names[0]).unwrap()).await.unwrap();
    let entry = |name: &String| {
        let mut entry = serde_json::to_value(raw.descriptor()).unwrap();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        entry
    };
    let index = json!({ "schemaVersion": 2, "manifests": names.iter().map(entry).collect::<Vec<_>>() });
    let blob = format!("blobs/sha256/{}", raw.digest().digest());
    let layout = Tar::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.to_string())
        .file(&blob, raw.bytes());
    for disk in [docker, OnDisk::new(&layout.bytes())] {
        let archive = disk.archive();
        for number in 0..names.len() {
            let there = reference::parse(&called(number)).unwrap();
            assert_eq!(archive.manifest(&there).await.unwrap().digest(), raw.digest());
            let missing = reference::parse(&called(names.len() + number)).unwrap();
            let error = archive.manifest(&missing).await.unwrap_err();
            assert!(*error.kind() == ErrorKind::NotFound && error.hint().is_some(), "{error}");
        }
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
}
