//! Indexes that are made to be walked for hours.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

use plyfold_core::edit::{ConfigChange, Edit};
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::save::{Contents, SaveImage, SaveOptions};
use plyfold_core::{
    CacheProviderExt as _, Conversion, CopyJob, CopyOptions, Digest, Document, ErrorKind, ImageRegistry,
    ImageRegistryExt as _, LoadOptions, MediaForm, MediaType, Opened, Platforms, Reference, Result, Sparse,
    copy, copy_all,
};
use serde_json::{Value, json};

use crate::fixture::{AMD64, Scripted, child, descriptor, layer, name, put_document, put_image};

fn image() -> Reference {
    name("example.com/app:1")
}

fn target() -> Reference {
    name("other.org/x:2")
}

/// An index of these, which takes the name; as a child of another one.
async fn index(registry: &MemoryRegistry, entries: &[Value]) -> Value {
    let index =
        json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": entries });
    put_document(registry, &image(), MediaType::ImageIndex, &index);
    descriptor(MediaType::ImageIndex.as_ref(), registry.manifest(&image()).await.unwrap().bytes())
}

/// Two images as children of an index.
async fn two(registry: &MemoryRegistry) -> [Value; 2] {
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64"] {
        put_image(registry, &image(), ("linux", architecture), &[layer(architecture, 10)]);
        entries.push(child(registry, &image(), architecture).await);
    }
    entries.try_into().unwrap()
}

/// 36 KB of indexes that lead to two images in a million ways.
async fn deep() -> MemoryRegistry {
    let registry = MemoryRegistry::new("a");
    let mut top = index(&registry, &two(&registry).await).await;
    for _ in 0..3 {
        top = index(&registry, &vec![top; 100]).await;
    }
    registry
}

/// One large index that another one lists 4,000 times.
async fn wide() -> MemoryRegistry {
    let registry = MemoryRegistry::new("a");
    let [amd64, arm64] = two(&registry).await;
    let mut entries = vec![amd64; 3_999];
    entries.push(arm64);
    let top = index(&registry, &entries).await;
    index(&registry, &vec![top; 4_000]).await;
    registry
}

/// Runs what takes hours where an index is walked badly, also where it never waits.
fn soon<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work());
        done.send(()).unwrap();
    });
    assert_eq!(finished.recv_timeout(Duration::from_secs(60)), Ok(()));
}

fn both() -> Platforms {
    Platforms::Some(vec![AMD64.parse().unwrap(), "linux/arm64".parse().unwrap()])
}

/// Copies both images, where the target takes an index of which not all is there.
async fn copied(from: &dyn ImageRegistry, options: &CopyOptions) -> Result<Digest> {
    let cache = MemoryCache::new().unwrap();
    Ok(copy(from, &image(), &cache.as_target(), &target(), options).await?.digest().clone())
}

#[test]
fn a_copy_of_some_platforms_reads_each_index_a_few_times() {
    soon(|| async {
        for sparse in [Sparse::Keep, Sparse::Rewrite] {
            let from = Scripted::new(&deep().await, &[]);
            let options = CopyOptions { platforms: both(), sparse, ..CopyOptions::default() };
            copied(&from, &options).await.unwrap();
            // Six documents: for each platform, for the part, and for the copy.
            assert!(from.manifest_requests() <= 30, "{} reads", from.manifest_requests());
        }
    });
    soon(|| async {
        let options = CopyOptions { platforms: both(), sparse: Sparse::Keep, ..CopyOptions::default() };
        copied(&wide().await, &options).await.unwrap();
    });
}

#[test]
fn a_conversion_looks_at_each_document_once() {
    for form in [MediaForm::Docker, MediaForm::Oci] {
        for is_deep in [true, false] {
            soon(move || async move {
                let from = if is_deep { deep().await } else { wide().await };
                let conversion = Conversion { form: Some(form), compress: Some("gzip".parse().unwrap()) };
                let options = CopyOptions { conversion: Some(conversion), ..CopyOptions::default() };
                // Docker's form has no index within an index.
                assert_eq!(copied(&from, &options).await.is_ok(), form == MediaForm::Oci);
            });
        }
    }
}

#[test]
fn a_save_a_load_a_push_and_an_edit_look_at_each_document_once() {
    for is_deep in [true, false] {
        soon(move || async move {
            let from = if is_deep { deep().await } else { wide().await };
            let images = vec![SaveImage::new(Box::new(from.clone()), image())];
            let options = SaveOptions { docker_list: true, ..SaveOptions::default() };
            assert_eq!(Contents::of(images, &options).await.unwrap().names(), 1);
        });
        soon(move || async move {
            let from = if is_deep { deep().await } else { wide().await };
            let (cache, to) = (MemoryCache::new().unwrap(), MemoryRegistry::new("b"));
            let opened = Opened { registry: Box::new(from.clone()), reference: None };
            cache.image_load(&opened, &LoadOptions::default()).await.unwrap();
            cache.push(&image(), &to, &target(), &CopyOptions::default()).await.unwrap();
            let config = ConfigChange { user: Some("1".to_owned()), ..ConfigChange::default() };
            let edit = Edit { config, ..Edit::default() };
            cache.edit(&image(), &edit, &name("example.com/app:2")).await.unwrap();
        });
    }
}

/// An index whose platforms have no image leads to no search of hours.
#[test]
fn a_search_for_a_platform_looks_into_each_index_once() {
    soon(|| async {
        let from = Scripted::new(&deep().await, &[]);
        let options = CopyOptions {
            platforms: Platforms::One("linux/s390x".parse().unwrap()),
            ..CopyOptions::default()
        };
        copied(&from, &options).await.unwrap_err();
        assert!(from.manifest_requests() <= 8, "{} reads", from.manifest_requests());
    });
}

/// Each attestation is about the next one, in four indexes that list 16,000 of them in the order that is worst to follow.
#[test]
fn a_chain_of_attestations_is_followed_in_one_pass() {
    soon(|| async {
        const EACH: usize = 4_000;
        let digest = |number: usize| format!("sha256:{number:064x}");
        let registry = MemoryRegistry::new("a");
        let (mut entries, mut subject) = (two(&registry).await.to_vec(), None);
        let mut root = Value::Null;
        for level in (0..4).rev() {
            let first = subject.take().unwrap_or_else(|| entries[0]["digest"].as_str().unwrap().to_owned());
            for at in level * EACH..(level + 1) * EACH {
                let is_last = at + 1 == (level + 1) * EACH;
                let subject = if is_last { first.clone() } else { digest(at + 1) };
                entries.push(json!({
                    "mediaType": MediaType::ImageManifest.as_ref(), "digest": digest(at), "size": 2,
                    "annotations": { "vnd.docker.reference.digest": subject },
                }));
            }
            subject = Some(digest(level * EACH));
            root = index(&registry, &entries).await;
            entries = vec![root.clone()];
        }
        assert!(root.is_object());
        let options = CopyOptions { platforms: both(), sparse: Sparse::Rewrite, ..CopyOptions::default() };
        let error = copied(&registry, &options).await.unwrap_err();
        // All are taken, and none is there.
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    });
}

/// An interrupt is heard between two documents, also where no read ever waits.
#[tokio::test]
async fn a_walk_lets_others_work_between_two_documents() {
    const IMAGES: usize = 100;
    let registry = MemoryRegistry::new("a");
    let mut entries = Vec::new();
    for number in 0..IMAGES {
        put_image(&registry, &image(), ("linux", "amd64"), &[layer(&number.to_string(), 10)]);
        entries.push(child(&registry, &image(), "amd64").await);
    }
    index(&registry, &entries).await;
    let conversion = Conversion { form: Some(MediaForm::Docker), compress: None };
    let (to, jobs) = (MemoryRegistry::new("b"), [CopyJob { image: image(), target: target() }]);
    let options = CopyOptions { conversion: Some(conversion), dry_run: true, ..CopyOptions::default() };
    assert!(polls(copy_all(&registry, &jobs, &to, &options)).await > IMAGES);
    let images = vec![SaveImage::new(Box::new(registry.clone()), image())];
    assert!(polls(Contents::of(images, &SaveOptions::default())).await > IMAGES);
}

/// How often a future is asked until it ends.
async fn polls<T>(work: impl Future<Output = Result<T>>) -> usize {
    let (mut work, mut count) = (pin!(work), 0);
    let outcome = poll_fn(|context| {
        count += 1;
        work.as_mut().poll(context)
    });
    outcome.await.unwrap();
    count
}

/// What attests to an attestation goes with it, whatever the order.
#[tokio::test]
async fn a_part_has_no_attestation_to_what_is_left_out() {
    let (from, to, cache) = (MemoryRegistry::new("a"), MemoryRegistry::new("b"), MemoryCache::new().unwrap());
    let mut entries = two(&from).await.to_vec();
    for number in 0..4 {
        put_image(&from, &image(), ("unknown", "unknown"), &[layer(&format!("note {number}"), 5)]);
        entries.push(child(&from, &image(), "unknown").await);
    }
    // Two are about the second image, by the way of each other, two about the first.
    for (entry, subject) in [(2, 3), (3, 1), (4, 5), (5, 0)] {
        let digest = entries[subject]["digest"].clone();
        entries[entry]["annotations"] = json!({ "vnd.docker.reference.digest": digest });
    }
    let opened = Opened { registry: Box::new(from.clone()), reference: None };
    // All attestations are here already.
    index(&from, &entries[2..]).await;
    cache.image_load(&opened, &LoadOptions::default()).await.unwrap();
    index(&from, &entries).await;
    let load = LoadOptions { platforms: Platforms::One(AMD64.parse().unwrap()), ..LoadOptions::default() };
    cache.image_load(&opened, &load).await.unwrap();
    let options = CopyOptions { sparse: Sparse::Rewrite, ..CopyOptions::default() };
    cache.push(&image(), &to, &target(), &options).await.unwrap();
    let pushed = to.fetch_raw(&target()).await.unwrap();
    let Document::Index(pushed) = pushed.document() else { panic!("no index") };
    let listed: Vec<&str> = pushed.manifests().iter().map(|entry| entry.digest().as_ref()).collect();
    let kept = [0, 4, 5].map(|at: usize| entries[at]["digest"].as_str().unwrap());
    assert_eq!(listed, kept);
}
