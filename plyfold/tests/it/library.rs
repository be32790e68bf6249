//! The facade as a runtime uses it.

use std::fs;
use std::path::PathBuf;

use plyfold::{
    Backends, CacheProvider as _, CacheProviderExt as _, Collect, ErrorKind, Images, Platform, PullOptions,
    PullPolicy, Rootfs, reference,
};
use tempfile::TempDir;

use super::baseline;

fn options() -> PullOptions {
    PullOptions { platform: platform(), ..PullOptions::default() }
}

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn sample() -> String {
    format!("oci:{}:latest", baseline::root().join("examples/sample").display())
}

async fn open() -> (TempDir, Images) {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path().join("store")).await.unwrap();
    (dir, images)
}

#[tokio::test]
async fn an_image_is_pulled_known_and_removed() {
    let (_dir, images) = open().await;
    let name = reference::parse("localhost/sample").unwrap();
    assert!(!images.is_cached(&name, &platform()).await.unwrap());
    let image = images.pull(&sample(), options()).await.unwrap();
    assert_eq!((&image.reference, image.layers.len(), image.cached), (&name, 2, false));
    assert!(image.path.join("oci-layout").is_file());
    assert!(images.is_cached(&name, &platform()).await.unwrap());
    assert!(!images.is_cached(&name, &"linux/arm64".parse().unwrap()).await.unwrap());
    assert!(images.pull(&sample(), options()).await.unwrap().cached);
    let names: Vec<String> =
        images.list_cached().await.unwrap().iter().map(|(name, _)| name.whole()).collect();
    assert_eq!(names, ["localhost/sample:latest"]);
    assert!(images.remove(&name).await.unwrap());
    assert!(!images.remove(&name).await.unwrap());
}

#[tokio::test]
async fn names_begin_with_a_registry_or_are_refused() {
    let (_dir, images) = open().await;
    for (text, name) in [
        ("ghcr.io/org/app:1.2", "ghcr.io/org/app:1.2"),
        ("localhost/app", "localhost/app:latest"),
        ("host:5000/app", "host:5000/app:latest"),
        ("registry:docker.io/library/alpine:3", "docker.io/library/alpine:3"),
    ] {
        assert_eq!(images.name(text).await.unwrap().whole(), name, "{text}");
    }
    for text in ["alpine", "alpine:3.20", "library/alpine", "s3:bucket", ""] {
        assert_eq!(*images.name(text).await.unwrap_err().kind(), ErrorKind::Config, "{text}");
    }
    let without = images.with_backends(Backends::none());
    let error = without.pull("ghcr.io/org/app", options()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn force_heals_what_is_damaged() {
    let (_dir, images) = open().await;
    let image = images.pull(&sample(), options()).await.unwrap();
    let layer = image.layers[0].descriptor.digest();
    let blob: PathBuf = image.path.join("blobs/sha256").join(layer.digest());
    let content = fs::read(&blob).unwrap();
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, vec![0; content.len()]).unwrap();
    images.force_pull(&sample(), options()).await.unwrap();
    assert!(fs::read(&blob).unwrap() == content);
}

#[tokio::test]
async fn work_that_is_dropped_leaves_nothing() {
    let (dir, images) = open().await;
    let image = images.pull(&sample(), options()).await.unwrap();
    let (rootfs, out) = (Rootfs::vmdk().upper(64 << 20), dir.path().join("out"));
    let patience = std::time::Duration::ZERO;
    assert!(tokio::time::timeout(patience, images.materialize(&image, &rootfs, &out)).await.is_err());
    // Whatever had begun meets the end of its work, or none had.
    let disks = images.materialize(&image, &rootfs, &out).await.unwrap();
    let names = fs::read_dir(&out).unwrap().count();
    assert_eq!(names, disks.files().count());
}

#[tokio::test]
async fn an_image_that_is_gone_is_not_found() {
    let (dir, images) = open().await;
    let image = images.pull(&sample(), options()).await.unwrap();
    images.remove(&image.reference).await.unwrap();
    let error =
        images.materialize(&image, &Rootfs::erofs_layers(), &dir.path().join("out")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    assert!(!dir.path().join("out").exists());
    let never = PullOptions { policy: PullPolicy::Never, ..options() };
    assert_eq!(*images.pull(&sample(), never).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_image_in_hand_is_not_collected() {
    let (dir, images) = open().await;
    let rootfs = Rootfs::erofs_layers();
    let options = PullOptions { materializer: Some(rootfs.layer_materializer()), ..options() };
    let image = images.pull(&sample(), options).await.unwrap();
    images.remove(&image.reference).await.unwrap();
    let (hand, store) = (image.clone(), images.store());
    drop(image);
    let everything = Collect::default();
    let collected = store.collect(&everything).await.unwrap();
    assert_eq!((collected.artifacts, collected.freed), (0, 0), "{collected:?}");
    for layer in &hand.layers {
        store.verify_blob(&layer.descriptor).await.unwrap();
        assert!(layer.artifact.as_ref().unwrap().0.is_file());
    }
    let (layer, artifact) = (hand.layers[0].descriptor.clone(), hand.layers[0].artifact.clone().unwrap().0);
    drop(hand);
    assert_eq!(store.collect(&everything).await.unwrap().artifacts, 2);
    assert_eq!((store.stat(layer.digest()).await.unwrap(), artifact.exists()), (None, false));
    drop(dir);
}

#[tokio::test]
async fn an_archive_is_loaded_whole() {
    let (dir, images) = open().await;
    let archive = dir.path().join("images.tar");
    let sample = plyfold_conformance::samples::image();
    let names = ["a.example/app:1", "a.example/app:2"];
    let images_of_it = names.map(|text| (text.to_owned(), &sample));
    fs::write(&archive, plyfold_conformance::samples::docker_archive(&images_of_it)).unwrap();
    let loaded = images.load(&format!("docker-archive:{}", archive.display()), options()).await.unwrap();
    assert_eq!(loaded.iter().map(|image| image.reference.whole()).collect::<Vec<_>>(), names);
    for image in loaded {
        assert!(images.is_cached(&image.reference, &platform()).await.unwrap());
    }
}
