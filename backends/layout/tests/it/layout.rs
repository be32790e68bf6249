//! Layouts as a target: what copies and deletions do to them.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use plyfold_conformance::samples;
use plyfold_core::layout_index::image_in;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, CacheProvider as _, CacheProviderExt as _, Capabilities, CopyOptions, Descriptor,
    Digest, ErrorKind, ImageRegistry, ImageRegistryExt as _, Lease, LoadOptions, NameChange, Opened, Page,
    RawManifest, Reference, Result, copy, reference,
};
use plyfold_layout::{Config, Layout, Store};
use tempfile::TempDir;

use super::{blob, blob_path, described, fails, name, names_in};

fn fresh() -> (Layout, TempDir) {
    let folder = TempDir::new().unwrap();
    (Layout::new(folder.path().join("new/base"), Config::default()), folder)
}

fn registry() -> MemoryRegistry {
    let (registry, sample) = (MemoryRegistry::new("origin"), samples::index());
    for blob in &sample.blobs {
        let descriptor = &blob.descriptor;
        if blob.is_manifest() {
            let by_digest = reference::by_digest(&name("app:1"), descriptor.digest());
            let target = if *descriptor == sample.top { name("app:1") } else { by_digest };
            let media_type = descriptor.media_type().clone();
            registry.insert_manifest(&target, media_type, descriptor.digest(), blob.bytes.clone());
        } else {
            registry.insert_blob(&name("app:1"), descriptor.digest().clone(), blob.bytes.clone());
        }
    }
    registry
}

/// Every path through it leads through sixty children, four deep.
#[tokio::test]
async fn what_leads_to_an_image_is_read_once() {
    let (layout, _folder) = fresh();
    let victim = push(&layout, &name("app:victim"), &samples::image()).await;
    let mut child = push(&layout, &name("app:other"), &samples::no_layers()).await.descriptor().clone();
    for depth in 0..4 {
        let list = vec![serde_json::to_value(&child).unwrap(); 60];
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": list }).to_string();
        let index = RawManifest::new(index, None).unwrap();
        layout.push_manifest(&name(&format!("app:{depth}")), &index).await.unwrap();
        child = index.descriptor().clone();
    }
    let deleted = reference::by_digest(&name("app:victim"), victim.digest());
    let deletion = tokio::time::timeout(Duration::from_secs(20), layout.delete(&deleted)).await;
    deletion.expect("it follows every path").unwrap();
}

/// Pushes a single image as any client of registries does: blobs first, then the manifest.
async fn push(layout: &Layout, target: &Reference, sample: &samples::Sample) -> RawManifest {
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        let content = Blob::from_bytes(&blob.descriptor, BlobRange::FULL, &blob.bytes).unwrap();
        layout.push_blob(target, content).await.unwrap();
    }
    let raw = RawManifest::new(sample.top_bytes().clone(), None).unwrap();
    layout.push_manifest(target, &raw).await.unwrap();
    raw
}

/// A lease is an open file, of which a process has 1,024 by default: all names take one together.
#[tokio::test]
async fn thousands_of_names_are_set_together_and_what_is_missing_is_named() {
    let (layout, _folder) = fresh();
    let opened = Opened { registry: Box::new(layout.clone()), reference: None };
    let image = push(&layout, &name("app:1"), &samples::image()).await;
    let mut names: Vec<(Reference, RawManifest)> =
        (0..3_000).map(|number| (name(&format!("app:t{number}")), image.clone())).collect();
    let missing = RawManifest::new(samples::no_layers().top_bytes().clone(), None).unwrap();
    names.push((name("other:1"), missing));
    let error = layout.push_names(&names).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(error.context("image"), Some(name("other:1").whole().as_str()));
    assert_eq!(opened.references().await.unwrap().len(), 1);
    names.pop();
    layout.push_names(&names).await.unwrap();
    assert_eq!(opened.references().await.unwrap().len(), 3_001);
}

#[tokio::test]
async fn the_first_push_makes_the_layout_and_tools_find_the_tag() {
    let (layout, folder) = fresh();
    let path = folder.path().join("new/base");
    let target = image_in(&path, "v1").unwrap();
    copy(&registry(), &name("app:1"), &layout, &target, &CopyOptions::default()).await.unwrap();
    let index = fs::read_to_string(path.join("index.json")).unwrap();
    assert!(index.contains(r#""org.opencontainers.image.ref.name":"v1""#), "{index}");
    assert!(!index.contains("io.containerd"), "{index}");

    let full = name("ghcr.io/o/app:2");
    copy(&layout, &target, &layout, &full, &CopyOptions::default()).await.unwrap();
    let opened = Opened { registry: Box::new(layout.clone()), reference: None };
    assert_eq!(opened.references().await.unwrap(), [full.clone(), target.clone()]);
    assert_eq!(layout.manifest(&full).await.unwrap(), layout.manifest(&target).await.unwrap());
    assert_eq!(names_in(&path.join("ingest")), [""; 0]);
    for platform in ["linux/amd64", "linux/arm64"] {
        layout.fetch_config(&full, &platform.parse().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn what_refers_to_an_image_without_a_name_is_loaded_with_it() {
    let (layout, folder) = fresh();
    push(&layout, &name("app:1"), &samples::no_layers()).await;
    let referrer = samples::subject();
    let loose = &referrer.subject.as_ref().unwrap().manifest;
    push(&layout, &reference::by_digest(&name("app:1"), referrer.top.digest()), &referrer).await;
    let raw = RawManifest::new(referrer.blob(loose.digest()).unwrap().clone(), None).unwrap();
    layout.push_manifest(&reference::by_digest(&name("app:1"), loose.digest()), &raw).await.unwrap();
    let index = folder.path().join("new/base/index.json");
    let mut document: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    document["manifests"].as_array_mut().unwrap().push(serde_json::to_value(loose).unwrap());
    fs::write(&index, document.to_string()).unwrap();

    let store = Store::open(folder.path().join("store")).unwrap();
    let opened = Opened { registry: Box::new(layout), reference: None };
    let loaded = store.image_load(&opened, &LoadOptions::default()).await.unwrap();
    assert_eq!(loaded.last().unwrap().descriptor.digest(), loose.digest());
    let found = store.as_registry().referrers(&loaded[1].reference, loose.digest(), None).await.unwrap();
    assert_eq!(found.iter().map(Descriptor::digest).collect::<Vec<_>>(), [referrer.top.digest()]);
}

/// A program that was ended while it made a layout, or is about to go on, has lost nothing: no name is there yet.
#[tokio::test]
async fn a_layout_that_is_being_made_has_no_names() {
    let (made, folder) = fresh();
    push(&made, &name("app:1"), &samples::image()).await;
    let empty = r#"{"schemaVersion":2,"manifests":[]}"#.to_owned();
    let listed = fs::read_to_string(folder.path().join("new/base/index.json")).unwrap();
    for (folders, index, is_begun) in [
        (&[][..], None, true),
        (&["locks", "ingest"], None, true),
        (&["locks", "blobs"], Some(empty.clone()), true),
        (&["locks", "blobs"], Some(listed), false),
        (&["locks", "src"], None, false),
        (&["src"], Some(empty), false),
    ] {
        let (layout, folder) = fresh();
        let path = folder.path().join("new/base");
        fs::create_dir_all(&path).unwrap();
        for inner in folders {
            fs::create_dir(path.join(inner)).unwrap();
        }
        if let Some(index) = index {
            fs::write(path.join("index.json"), index).unwrap();
        }
        let error = layout.resolve(&name("app:1")).await.unwrap_err();
        let expected = if is_begun { ErrorKind::NotFound } else { ErrorKind::Corrupt };
        assert_eq!(*error.kind(), expected, "{folders:?}: {error}");
        if is_begun {
            push(&layout, &name("app:1"), &samples::image()).await;
            layout.resolve(&name("app:1")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_directory_of_something_else_is_no_target() {
    let (layout, folder) = fresh();
    let path = folder.path().join("new/base");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("thesis.tex"), "").unwrap();
    fails(layout.push_blob(&name("a"), blob(b"content")).await, &ErrorKind::Config);
    assert_eq!(names_in(&path), ["thesis.tex"]);
}

#[tokio::test]
async fn a_damaged_push_stores_nothing_and_one_that_is_there_succeeds() {
    let (layout, folder) = fresh();
    let path = folder.path().join("new/base");
    for _ in 0..2 {
        layout.push_blob(&name("a"), blob(b"content")).await.unwrap();
    }
    let wrong = reference::by_digest(&name("a"), samples::image().top.digest());
    let sample = samples::index();
    let raw = RawManifest::new(sample.top_bytes().clone(), None).unwrap();
    fails(layout.push_manifest(&wrong, &raw).await, &ErrorKind::Corrupt);
    assert_eq!(names_in(&path.join("blobs/sha256")).len(), 1);
    assert!(layout.repositories(Page::default()).await.unwrap().names.is_empty());
}

#[tokio::test]
async fn deletion_takes_names_and_keeps_what_others_need() {
    let (layout, folder) = fresh();
    let path = folder.path().join("new/base");
    let (first, second) = (name("ghcr.io/o/app:1"), name("ghcr.io/o/app:2"));
    for target in [&first, &second] {
        copy(&registry(), &name("app:1"), &layout, target, &CopyOptions::default()).await.unwrap();
    }
    layout.delete(&first).await.unwrap();
    fails(layout.delete(&first).await, &ErrorKind::NotFound);
    fails(layout.manifest(&first).await, &ErrorKind::NotFound);
    let index = layout.manifest(&second).await.unwrap();

    let child = reference::by_digest(&second, index.references()[0].digest());
    fails(layout.delete(&child).await, &ErrorKind::Unsupported);
    layout.manifest(&child).await.unwrap();
    let elsewhere = reference::by_digest(&name("ghcr.io/other/app:1"), index.digest());
    fails(layout.delete(&elsewhere).await, &ErrorKind::Unsupported);

    let whole = reference::by_digest(&second, index.digest());
    layout.delete(&whole).await.unwrap();
    fails(layout.delete(&whole).await, &ErrorKind::NotFound);
    fails(layout.manifest(&second).await, &ErrorKind::NotFound);
    assert!(!blob_path(&path, index.digest()).exists());
    layout.delete(&child).await.unwrap();
}

#[tokio::test]
async fn content_of_another_name_is_mounted_without_moving_it() {
    let (layout, _folder) = fresh();
    layout.push_blob(&name("a"), blob(b"content")).await.unwrap();
    let content = blob(b"content").descriptor().clone();
    assert!(layout.mount_blob(&name("b"), &content, &name("a")).await.unwrap());
    let absent = blob(b"absent").descriptor().clone();
    assert!(!layout.mount_blob(&name("b"), &absent, &name("a")).await.unwrap());
}

#[tokio::test]
async fn names_that_another_tool_changes_in_place_are_seen() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (one, other) = (described(b"one"), described(b"two"));
    store.put(blob(b"one")).await.unwrap();
    store.update(&[NameChange::Set(name("a"), one.clone())]).await.unwrap();
    let file = folder.path().join("index.json");
    // What was read long after it was written is remembered.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(store.find_descriptor(&name("a")).await.unwrap().unwrap().digest(), one.digest());

    // The same length, the same inode.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(one.digest().digest(), other.digest().digest())).unwrap();
    assert_eq!(store.find_descriptor(&name("a")).await.unwrap().unwrap().digest(), other.digest());
    // Twice within one tick of the file system's clock.
    fs::write(&file, &text).unwrap();
    assert_eq!(store.find_descriptor(&name("a")).await.unwrap().unwrap().digest(), one.digest());
    assert_eq!(store.list().await.unwrap()[0].1.digest(), one.digest());
}

/// A layout that loses a blob before a name is set, as to a repair by another process.
#[derive(Clone, Debug)]
struct Repaired {
    inner: Layout,
    path: PathBuf,
    times: Arc<Mutex<usize>>,
}

#[async_trait]
impl ImageRegistry for Repaired {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.inner.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.inner.blob(reference, blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        self.inner.has_blob(reference, blob).await
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        self.inner.push_blob(reference, blob).await
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        if reference.tag().is_some() && *self.times.lock().unwrap() > 0 {
            *self.times.lock().unwrap() -= 1;
            fs::remove_file(&self.path).unwrap();
        }
        self.inner.push_manifest(reference, manifest).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.inner.lease(content).await
    }
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[tokio::test]
async fn a_copy_stores_again_what_is_lost_before_the_name_is_set() {
    let (from, sample) = (registry(), samples::index());
    let others = sample.blobs.iter().map(|blob| &blob.descriptor).filter(|blob| **blob != sample.top);
    for lost in others {
        for (times, has_name) in [(3, true), (usize::MAX, false)] {
            let (inner, folder) = fresh();
            let root = folder.path().join("new/base");
            let (path, times) = (blob_path(&root, lost.digest()), Arc::new(Mutex::new(times)));
            let to = Repaired { inner: inner.clone(), path, times };
            let copied = copy(&from, &name("app:1"), &to, &name("app:2"), &CopyOptions::default()).await;
            if has_name {
                copied.unwrap();
                let layout = Store::open(&root).unwrap();
                for blob in &sample.blobs {
                    layout.verify_blob(&blob.descriptor).await.unwrap();
                }
            } else {
                let error = fails(copied, &ErrorKind::NotFound);
                assert_eq!(error.context("blob"), Some(lost.digest().as_ref()));
            }
            assert_eq!(inner.exists(&name("app:2")).await.unwrap(), has_name);
        }
    }
}
