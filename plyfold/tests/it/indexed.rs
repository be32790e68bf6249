//! Gzip layers that have an index become what they become without one.

use std::fs;
use std::path::Path;

use plyfold::edit::{Edit, NewLayer};
use plyfold::layer::LayerLimits;
use plyfold::{
    CacheProviderExt as _, Error, Images, LoadOptions, PullOptions, PullPolicy, PulledImage, Rootfs, Verify,
    reference,
};
use plyfold_conformance::samples::{self, LayerBuilder};
use tempfile::TempDir;

const BASE: &str = "a.example/base:1";
const NAME: &str = "a.example/app:1";

/// A store with an image whose last layer has 12 MiB, compressed by gzip.
async fn stored(dir: &TempDir, name: &str) -> (Images, PulledImage) {
    let words = (0..2_500_000_u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44).to_string());
    let text = words.collect::<String>().into_bytes();
    let tar = LayerBuilder::new().dir("usr", 0o755).file("usr/words", 0o644, &text).finish();
    let path = dir.path().join("layer.tar.gz");
    fs::write(&path, samples::gzip(&[&tar])).unwrap();
    let layer = NewLayer::read(fs::File::open(path).unwrap(), "layer.tar.gz").await.unwrap();
    let layout = dir.path().join(format!("layout-{name}"));
    samples::write_layout(&layout, &[(BASE.to_owned(), &samples::image())]).unwrap();
    let images = Images::open(dir.path().join(name)).await.unwrap();
    images.load(&format!("oci:{}", layout.display()), LoadOptions::default()).await.unwrap();
    let edit = Edit { layers: vec![layer], ..Edit::default() };
    let [base, name] = [BASE, NAME].map(|name| reference::parse(name).unwrap());
    images.cache().edit(&base, &edit, &name).await.unwrap();
    let platform = "linux/amd64".parse().unwrap();
    let options = PullOptions { platform, policy: PullPolicy::Never, ..PullOptions::default() };
    let image = images.pull(NAME, options).await.unwrap();
    (images, image)
}

async fn index(images: &Images, image: &PulledImage) {
    let layer = &image.layers.last().unwrap().descriptor;
    let index = images.cache().make_gzip_index(layer, &LayerLimits::default()).await.unwrap().unwrap();
    assert!(index.spans() > 2, "{index:?}");
}

/// A format of layers, and one of a whole image.
fn formats() -> [Rootfs; 2] {
    [Rootfs::erofs_layers(), Rootfs::erofs_flat()]
}

/// The content of the files that are made.
async fn made(
    images: &Images,
    image: &PulledImage,
    rootfs: &Rootfs,
    out: &Path,
) -> Result<Vec<Vec<u8>>, Error> {
    let disks = images.materialize(image, rootfs, out).await?;
    Ok(disks.files.iter().map(|file| fs::read(&file.path).unwrap()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_an_index_becomes_the_same_file() {
    for rootfs in formats() {
        let dir = tempfile::tempdir().unwrap();
        let (images, image) = stored(&dir, "without").await;
        let expected = made(&images, &image, &rootfs, &dir.path().join("a")).await.unwrap();
        let (images, image) = stored(&dir, "with").await;
        index(&images, &image).await;
        assert!(made(&images, &image, &rootfs, &dir.path().join("b")).await.unwrap() == expected);
        assert_eq!(images.verify(&Verify::default()).await.unwrap().damage, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_with_an_index_is_found_as_without() {
    for rootfs in formats() {
        let dir = tempfile::tempdir().unwrap();
        let mut outcomes = Vec::new();
        for name in ["without", "with"] {
            let (images, image) = stored(&dir, name).await;
            if name == "with" {
                index(&images, &image).await;
            }
            let digest = image.layers.last().unwrap().descriptor.digest();
            let path = image.path.join("blobs/sha256").join(digest.digest());
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            let outcome = made(&images, &image, &rootfs, &dir.path().join(name)).await.unwrap_err();
            outcomes.push((outcome.kind().clone(), outcome.message().to_owned()));
        }
        assert_eq!(outcomes[0], outcomes[1]);
    }
}
