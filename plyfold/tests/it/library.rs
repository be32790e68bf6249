//! The facade as a runtime uses it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use plyfold::atomic_file::FileOptions;
use plyfold::package::GitTree;
use plyfold::{
    Artifact, ArtifactKey, Backends, CacheProvider as _, CacheProviderExt as _, Collect, ErrorKind,
    FlatOptions, Images, LoadOptions, NameChange, Platform, PullOptions, PullPolicy, PulledLayer, Rootfs,
    Verify, reference,
};
use plyfold_conformance::samples::{self, LayerBuilder};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::baseline;

fn options() -> PullOptions {
    PullOptions { platform: platform(), ..PullOptions::default() }
}

fn options_always() -> PullOptions {
    PullOptions { policy: PullPolicy::Always, ..options() }
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

/// Names are made out of templates where the program says how, and no directory is read otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn packages_are_names_when_the_program_says_so() {
    let (dir, images) = open().await;
    fs::create_dir(dir.path().join("init")).unwrap();
    fs::write(dir.path().join("init/run.sh"), "exec true\n").unwrap();
    let template = "ghcr.io/org/{name}:{hash}@pkg:init";
    assert_eq!(*images.name(template).await.unwrap_err().kind(), ErrorKind::Config);
    let by_tree = images.clone().with_packages(GitTree::new(dir.path()));
    let name = by_tree.name(template).await.unwrap().whole();
    assert_eq!(name, "ghcr.io/org/init:b6414047ec9a0c4841e6b1e8922402d824047dc4");
    let error = by_tree.pull("@pkg:absent", PullOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.context("image")), (&ErrorKind::NotFound, Some("@pkg:absent")));
    let by_name = images.with_packages(|text: &str| Ok((text == "sample").then(sample)));
    assert_eq!(by_name.pull("sample", options()).await.unwrap().reference.repository(), "sample");
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
    let patience = Duration::ZERO;
    assert!(tokio::time::timeout(patience, images.materialize(&image, &rootfs, &out)).await.is_err());
    // Whatever had begun meets the end of its work, or none had.
    let disks = images.materialize(&image, &rootfs, &out).await.unwrap();
    let names = fs::read_dir(&out).unwrap().count();
    // And the record of the image.
    assert_eq!(names, disks.paths().count() + 1);
}

#[tokio::test]
async fn an_image_that_is_gone_is_not_found() {
    let (dir, images) = open().await;
    let image = images.pull(&sample(), options()).await.unwrap();
    images.remove(&image.reference).await.unwrap();
    // Its name was removed, and it is still held.
    let (rootfs, out) = (Rootfs::erofs_merged(), dir.path().join("out"));
    images.materialize(&image, &rootfs, &out).await.unwrap();
    fs::remove_dir_all(&out).unwrap();
    for folder in ["artifacts", "blobs/sha256"] {
        fs::remove_dir_all(image.path.join(folder)).unwrap();
    }
    let error = images.materialize(&image, &rootfs, &out).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.context("image")),
        (&ErrorKind::NotFound, Some("localhost/sample:latest"))
    );
    assert!(!out.exists());
    // One layer's thread may still be ending when another layer has failed.
    let ingest = image.path.join("ingest");
    let half_made = || {
        let left = fs::read_dir(&ingest).unwrap().map(|entry| entry.unwrap().path());
        left.filter(|path| path.extension().is_some()).collect::<Vec<_>>()
    };
    for _ in 0..400 {
        if half_made().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(half_made(), Vec::<PathBuf>::new(), "an artifact is half made");
    let never = PullOptions { policy: PullPolicy::Never, ..options() };
    assert_eq!(*images.pull(&sample(), never).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// While one task moves the tag, and another collects.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_the_image_that_was_pulled() {
    const ROUNDS: usize = 40;
    let (dir, images) = open().await;
    let contents = [&b"one"[..], b"another"];
    let mut tops = Vec::new();
    for content in contents {
        let layer = LayerBuilder::new().file("f", 0o644, content).finish();
        let made = samples::of_layers("moved", &[layer]);
        let layout = dir.path().join(format!("layout-{}", tops.len())).join("app");
        fs::create_dir_all(&layout).unwrap();
        samples::write_layout(&layout, &[("localhost/app:1".to_owned(), &made)]).unwrap();
        let image = images.pull(&format!("oci:{}:1", layout.display()), options_always()).await.unwrap();
        let stays = reference::parse(&format!("localhost/app:stays-{}", tops.len())).unwrap();
        let top = images.cache().find_descriptor(&image.reference).await.unwrap().unwrap();
        images.cache().update(&[NameChange::Set(stays, top.clone())]).await.unwrap();
        tops.push(top);
    }
    let name = reference::parse("localhost/app:1").unwrap();
    let (store, moved, tops_of_it) = (images.cache(), name.clone(), tops.clone());
    let beside = tokio::spawn(async move {
        for top in tops_of_it.iter().cycle() {
            store.update(&[NameChange::Set(moved.clone(), top.clone())]).await.unwrap();
            store.collect(&Collect::default()).await.unwrap();
        }
    });
    let mut seen = [0; 2];
    for round in 0..ROUNDS {
        let never = PullOptions { policy: PullPolicy::Never, ..options() };
        let image = images.pull("localhost/app:1", never).await.unwrap();
        let which = tops.iter().position(|top| *top.digest() == image.digest).unwrap();
        seen[which] += 1;
        let out = dir.path().join(format!("out-{round}"));
        let disks = images.materialize(&image, &Rootfs::erofs_layers(), &out).await.unwrap();
        let made = fs::read(&disks.layers[0]).unwrap();
        assert!(made.windows(contents[which].len()).any(|part| part == contents[which]), "round {round}");
        let mut tar = Vec::new();
        images.export(&image, &FlatOptions::default()).await.unwrap().read_to_end(&mut tar).await.unwrap();
        assert!(tar.windows(contents[which].len()).any(|part| part == contents[which]), "round {round}");
    }
    beside.abort();
    assert!(seen.iter().all(|count| *count > 0), "the name was never moved: {seen:?}");
}

#[tokio::test]
async fn an_image_in_hand_is_not_collected() {
    let (dir, images) = open().await;
    let rootfs = Rootfs::erofs_layers();
    let options = PullOptions { materializer: images.layer_materializer(&rootfs).unwrap(), ..options() };
    let image = images.pull(&sample(), options).await.unwrap();
    images.remove(&image.reference).await.unwrap();
    let (hand, store) = (image.clone(), images.cache());
    drop(image);
    let everything = Collect::default();
    let collected = store.collect(&everything).await.unwrap();
    assert_eq!((collected.artifacts, collected.freed), (0, 0), "{collected:?}");
    for layer in &hand.layers {
        store.verify_blob(&layer.descriptor).await.unwrap();
        assert!(layer.artifact.as_ref().unwrap().path().unwrap().is_file());
    }
    let (layer, artifact) = (hand.layers[0].descriptor.clone(), hand.layers[0].artifact.clone().unwrap());
    let artifact = artifact.path().unwrap();
    drop(hand);
    assert_eq!(store.collect(&everything).await.unwrap().artifacts, 2);
    assert_eq!((store.stat(layer.digest()).await.unwrap(), artifact.exists()), (None, false));
    drop(dir);
}

#[tokio::test]
async fn an_archive_is_loaded_whole() {
    let (dir, images) = open().await;
    let archive = dir.path().join("images.tar");
    let sample = samples::image();
    let names = ["a.example/app:1", "a.example/app:2"];
    let images_of_it = names.map(|text| (text.to_owned(), &sample));
    fs::write(&archive, samples::docker_archive(&images_of_it)).unwrap();
    let loaded =
        images.load(&format!("docker-archive:{}", archive.display()), LoadOptions::default()).await.unwrap();
    assert_eq!(loaded.iter().map(|image| image.reference.whole()).collect::<Vec<_>>(), names);
    for image in loaded {
        assert!(images.is_cached(&image.reference, &platform()).await.unwrap());
    }
}

/// Where the store keeps what was made of a layer.
async fn artifact(images: &Images, layer: &PulledLayer) -> PathBuf {
    let format = Rootfs::erofs_layers().format().format();
    let key = ArtifactKey::layer(format, layer.diff_id.clone().unwrap());
    match images.cache().artifact(&key).await.unwrap() {
        Artifact::Present(artifact) => artifact.path().unwrap().to_owned(),
        Artifact::Vacant(_) => panic!("there is no artifact of {key:?}"),
    }
}

#[tokio::test]
async fn a_store_of_an_earlier_version_gives_files_that_all_may_read() {
    let (dir, images) = open().await;
    let image = images.pull(&sample(), options()).await.unwrap();
    let made = images.materialize(&image, &Rootfs::erofs_merged(), &dir.path().join("first")).await.unwrap();
    for layer in &image.layers {
        let artifact = artifact(&images, layer).await;
        fs::set_permissions(artifact, fs::Permissions::from_mode(0o400)).unwrap();
    }
    drop(made);
    let disks =
        images.materialize(&image, &Rootfs::erofs_merged(), &dir.path().join("second")).await.unwrap();
    for file in disks.paths() {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o444, "{}", file.display());
    }
}

#[tokio::test]
async fn an_artifact_that_was_changed_by_a_link_is_found_and_made_again() {
    let (dir, images) = open().await;
    let image = images.pull(&sample(), options()).await.unwrap();
    let (rootfs, out) = (Rootfs::erofs_layers(), dir.path().join("out"));
    let disks = images.materialize(&image, &rootfs, &out).await.unwrap();
    let layer = &disks.layers[0];
    let content = fs::read(layer).unwrap();
    let artifact = artifact(&images, &image.layers[0]).await;
    if fs::metadata(layer).unwrap().ino() != fs::metadata(&artifact).unwrap().ino() {
        // The file system clones: a write to one is none to the other.
        fs::remove_file(layer).unwrap();
        fs::hard_link(&artifact, layer).unwrap();
    }
    // Root may, and so may who changes the mode.
    fs::set_permissions(layer, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(layer, vec![7; content.len()]).unwrap();
    let verify = |repair| Verify { repair, ..Verify::default() };
    let found = images.cache().verify(&verify(true)).await.unwrap();
    assert_eq!(found.damage.len(), 1, "{found:?}");
    assert!(found.damage[0].repaired && found.damage[0].reason.contains("hard link"), "{found:?}");
    assert_eq!(images.cache().verify(&verify(false)).await.unwrap().damage, []);
    let disks = images.materialize(&image, &rootfs, &out).await.unwrap();
    assert!(fs::read(&disks.layers[0]).unwrap() == content);
    // A copy may be written to, and the store never knows.
    let copies = rootfs.files(FileOptions { copy: true, mode: Some(0o600), ..FileOptions::default() });
    let disks = images.materialize(&image, &copies, &dir.path().join("copies")).await.unwrap();
    fs::write(&disks.layers[0], "mine").unwrap();
    assert_eq!(images.cache().verify(&verify(false)).await.unwrap().damage, []);
}
