//! A program that keeps its images in the bucket.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use example_cache::BucketCache;
use example_cpio as _;
use plyfold::atomic_file::FileOptions;
use plyfold::{
    CacheProvider as _, Collect, ErrorKind, FlatOptions, Images, LoadOptions, Options, Platform, PullOptions,
    PulledImage, Rootfs, Verify,
};
use plyfold_conformance::samples::{self, LayerBuilder};

fn options() -> PullOptions {
    let platform: Platform = "linux/amd64".parse().unwrap();
    PullOptions { platform, ..PullOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_loads_pulls_exports_and_collects() {
    let dir = tempfile::tempdir().unwrap();
    let (bucket, sample) = (BucketCache::default(), samples::image());
    let images = Images::with_cache(bucket.clone()).unwrap();
    let archive = dir.path().join("images.tar");
    let name = "a.example/app:1";
    fs::write(&archive, samples::docker_archive(&[(name.to_owned(), &sample)])).unwrap();
    let uri = format!("docker-archive:{}", archive.display());
    // An image is pulled as a layout directory, and the bucket is none.
    let error = images.pull(&uri, options()).await.unwrap_err();
    assert_eq!((error.kind(), bucket.objects()), (&ErrorKind::Config, 0), "nothing was fetched: {error}");

    let images = images.with_scratch(dir.path().join("scratch"));
    let loaded = images.load(&uri, LoadOptions::default()).await.unwrap();
    assert_eq!(loaded[0].reference.whole(), name);
    let image = images.pull(&uri, options()).await.unwrap();
    assert!(image.cached && image.path.join("oci-layout").is_file());
    let (tar, file) = (dir.path().join("rootfs.tar"), FileOptions::default());
    let size = images.export_to(&image, &FlatOptions::default(), &tar, file).await.unwrap();
    assert!(size > 1024);
    assert_eq!(images.verify(&Verify::default()).await.unwrap().damage, []);
    assert!(bucket.layout().is_none() && bucket.objects() > 0);

    images.remove(&image.reference).await.unwrap();
    let all = Collect::default();
    assert_eq!(images.collect(&all).await.unwrap().freed, 0, "the image is in hand");
    drop((image, loaded));
    assert!(images.collect(&all).await.unwrap().freed > 0);
    assert_eq!(bucket.objects(), 0);
}

/// An image of two layers, one of which replaces a file of the other, with a file that is mostly zeros.
fn big() -> samples::Sample {
    let zeros = [vec![0; 8 << 20], b"the end".to_vec()].concat();
    let below = LayerBuilder::new().dir(".", 0o700).file("zeros", 0o644, &zeros).file("a", 0o644, b"one");
    samples::of_layers("big", &[below.finish(), LayerBuilder::new().file("a", 0o644, b"two").finish()])
}

/// The disks that are made of an image, and their content.
async fn disks(images: &Images, image: &PulledImage, rootfs: &Rootfs, out: &Path) -> Vec<(String, Vec<u8>)> {
    let disks = images.materialize(image, rootfs, out).await.unwrap();
    let file =
        |path: &Path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
    disks.paths().map(file).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_those_that_a_store_on_disk_gives_and_are_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let (bucket, image) = (BucketCache::default(), big());
    let of_store = Images::open(dir.path().join("store")).await.unwrap();
    let of_bucket = Images::with_cache(bucket.clone()).unwrap().with_scratch(dir.path().join("scratch"));
    fs::create_dir(dir.path().join("image")).unwrap();
    samples::write_layout(&dir.path().join("image"), &[("latest".to_owned(), &image)]).unwrap();
    let uri = format!("oci:{}:latest", dir.path().join("image").display());
    let (in_store, in_bucket) =
        (of_store.pull(&uri, options()).await.unwrap(), of_bucket.pull(&uri, options()).await.unwrap());
    let cpio = Rootfs::of(of_bucket.materializers().open("cpio", &Options::default()).unwrap());
    let copies =
        Rootfs::vmdk().files(FileOptions { copy: true, mode: Some(0o640), ..FileOptions::default() });
    for (form, rootfs) in [
        ("layers", Rootfs::erofs_layers().upper(64 << 20)),
        ("merged", Rootfs::erofs_merged()),
        ("vmdk", Rootfs::vmdk().upper(64 << 20)),
        ("copies", copies),
        ("cpio", cpio.clone()),
    ] {
        let expected = disks(&of_store, &in_store, &rootfs, &dir.path().join(form)).await;
        let out = dir.path().join(format!("{form}-of-bucket"));
        let made = disks(&of_bucket, &in_bucket, &rootfs, &out).await;
        assert!(made == expected, "{form}: {:?}", made.iter().map(|(name, _)| name).collect::<Vec<_>>());
        let (kept, again) = (bucket.objects(), disks(&of_bucket, &in_bucket, &rootfs, &out).await);
        assert!(again == expected && bucket.objects() == kept, "{form} was not kept");
        let mode = if form == "copies" { 0o640 } else { 0o444 };
        let first = fs::metadata(out.join(&made[0].0)).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, mode, "{form}");
    }
    // What is zeros in a file of the cache is a hole in the copy.
    let archive = fs::metadata(dir.path().join("cpio-of-bucket/rootfs.cpio")).unwrap();
    assert!(archive.len() > 8 << 20 && archive.blocks() * 512 < 1 << 20, "{} blocks", archive.blocks());

    assert_eq!(of_bucket.verify(&Verify::default()).await.unwrap().damage, []);
    let usage = of_bucket.usage().await.unwrap();
    assert!(usage.artifacts > 8 << 20 && usage.unused == 0, "{usage:?}");
    // Files of the image stay as long as it has a name, and go after that.
    drop(in_bucket);
    assert_eq!(of_bucket.collect(&Collect::default()).await.unwrap().artifacts, 0);
    let name = of_bucket.list_cached().await.unwrap().remove(0).0;
    assert!(of_bucket.remove(&name).await.unwrap());
    // Two layers, the merged image, the VMDK and the archive.
    assert_eq!(of_bucket.collect(&Collect::default()).await.unwrap().artifacts, 5);
    assert_eq!(bucket.objects(), 0);
}
