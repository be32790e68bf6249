//! Images whose layers are EROFS images already, through the facade and the program.

use std::fs::{self, File};
use std::io::{Cursor, Read as _, Seek as _};

use plyfold::digest::sha256;
use plyfold::files::{FileType, Files};
use plyfold::layer::{LayerLimits, LayerOptions, LayerTar, TreeLimits};
use plyfold::materializers::erofs::{self, Compression, ErofsFiles, ErofsFlat, ErofsLayer, Reader};
use plyfold::materializers::ext4::{Ext4Files, Ext4Rootfs};
use plyfold::tree::MergedTree;
use plyfold::{ErrorKind, ImageSourceExt as _, Images, Materializer as _, Options, PullOptions, Rootfs};
use plyfold_conformance::samples::{self, LayerBuilder, Sample, oci_archive, write_layout};
use plyfold_conformance::server::FaultServer;
use plyfold_conformance::tree::{read_tar, stacked};
use tempfile::TempDir;

use super::run::{Place, check};

const PLAIN: &str = "linux/amd64";
const NATIVE: &str = "linux(+erofs)/amd64";

fn layers() -> Vec<Vec<u8>> {
    let lower = LayerBuilder::new()
        .dir("./", 0o755)
        .dir("etc", 0o755)
        .file("etc/os-release", 0o644, b"NAME=sample\n")
        .hard_link("etc/again", "etc/os-release")
        .file("etc/gone", 0o644, b"gone")
        .xattr("security.capability", [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .file("ping", 0o4755, &[7; 10_000])
        .dir("old", 0o700)
        .file("old/below", 0o644, b"below")
        .symlink("release", "etc/os-release")
        .dir("dev", 0o755)
        .char_device("dev/null", 0o666, 1, 3)
        .finish();
    let upper = LayerBuilder::new()
        .dir("etc", 0o711)
        .whiteout("etc/gone")
        .owner(1000, 70_000)
        .mtime("1700000000.5")
        .file("etc/new", 0o600, b"new\n")
        .dir("old", 0o755)
        .opaque("old")
        .file("old/above", 0o644, &[9; 5000])
        .finish();
    vec![lower, upper]
}

/// The image that `erofs-layers` makes of a tar.
fn image(tar: &[u8], block_size: u32) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    let mut tar = LayerTar::new(Cursor::new(tar.to_vec()), LayerOptions::default()).unwrap();
    let options = erofs::Options::default().with_block_size(block_size).unwrap();
    ErofsLayer::new(options).layer(&mut tar, &mut file).unwrap();
    bytes(file)
}

/// A flat image of one tar, with the ends of files behind their inodes or compressed: what no merged image can refer to.
fn dense(tar: &[u8], compression: Option<&str>) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let tar = LayerTar::new(Cursor::new(tar.to_vec()), LayerOptions::default());
    let tree = MergedTree::read([tar], TreeLimits::default(), scratch.path()).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let flat = match compression {
        Some(name) => {
            ErofsFlat::default().with_compression(Compression::new(name.parse().unwrap()).unwrap()).unwrap()
        }
        None => ErofsFlat::default(),
    };
    flat.image(&tree, &mut file).unwrap();
    bytes(file)
}

fn bytes(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn sample() -> Sample {
    let tars = layers();
    let images: Vec<_> = tars.iter().map(|tar| image(tar, 4096)).collect();
    samples::native_layers(&tars, &images)
}

/// A folder with the image as the layout `image`, and images over a store in it.
async fn open(sample: &Sample) -> (TempDir, Images, String) {
    let dir = tempfile::tempdir().unwrap();
    write_layout(&dir.path().join("image"), &[("a.example/app:1".to_owned(), sample)]).unwrap();
    let images = Images::open(dir.path().join("store")).await.unwrap();
    let uri = format!("oci:{}:a.example/app:1", dir.path().join("image").display());
    (dir, images, uri)
}

fn on(platform: &str) -> PullOptions {
    PullOptions { platform: platform.parse().unwrap(), ..PullOptions::default() }
}

/// Every file, with what is known of it and its content; ext4's reader knows no extended attributes.
fn tree(files: &mut dyn Files, with_xattrs: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![b"/".to_vec()];
    while let Some(folder) = pending.pop() {
        for file in files.list(&folder).unwrap() {
            let path = [&*folder, &*file.name].concat();
            if path == b"/lost+found" {
                continue;
            }
            let mut content = Vec::new();
            if file.kind == FileType::Regular {
                files
                    .read(&path, &mut |bytes| {
                        content.extend_from_slice(bytes);
                        Ok(())
                    })
                    .unwrap();
            }
            let is_directory = file.kind == FileType::Directory;
            let xattrs: Vec<_> =
                file.xattrs.iter().filter(|_| with_xattrs).flat_map(plyfold::tree::Xattrs::to_vec).collect();
            lines.push(format!(
                "{} {} {:o} {}:{} {:?} {:?} {} {xattrs:?}",
                path.escape_ascii(),
                file.kind,
                file.mode,
                file.uid,
                file.gid,
                file.mtime,
                file.target,
                sha256(&content),
            ));
            if is_directory {
                pending.push([&*path, b"/"].concat());
            }
        }
    }
    lines.sort();
    lines
}

fn erofs_tree(path: &std::path::Path) -> Vec<String> {
    tree(&mut ErofsFiles::new(Reader::new(File::open(path).unwrap()).unwrap()).unwrap(), true)
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_erofs_images_are_used_as_they_are() {
    let sample = sample();
    let (dir, images, uri) = open(&sample).await;
    let plain = images.pull(&uri, on(PLAIN)).await.unwrap();
    assert_eq!(&plain.manifest, sample.image_for(PLAIN).manifest.digest());
    let native = images.pull(&uri, on(NATIVE)).await.unwrap();
    let expected = sample.image_for(NATIVE);
    assert_eq!(&native.manifest, expected.manifest.digest());
    let config = images.source(&native).config().await.unwrap();
    assert_eq!(config.platform().unwrap().to_string(), NATIVE);
    let disks =
        images.materialize(&native, &Rootfs::erofs_layers(), &dir.path().join("native")).await.unwrap();
    let made: Vec<_> = disks.layers.iter().map(|path| fs::read(path).unwrap()).collect();
    let wanted: Vec<_> = expected.layers.iter().map(|layer| layer.tar.to_vec()).collect();
    assert!(made == wanted);
    // The image of the tars has other artifacts.
    let of_tars =
        images.materialize(&plain, &Rootfs::erofs_layers(), &dir.path().join("plain")).await.unwrap();
    assert_eq!(of_tars.layers.len(), 2);
    let usage = images.usage().await.unwrap();
    images.materialize(&native, &Rootfs::erofs_layers(), &dir.path().join("again")).await.unwrap();
    assert_eq!(images.usage().await.unwrap().artifacts, usage.artifacts);
    let verified = images.verify(&plyfold::Verify::default()).await.unwrap();
    assert!(verified.damage.is_empty(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_shows_the_files_of_the_plain_image() {
    let sample = sample();
    let (dir, images, uri) = open(&sample).await;
    let plain = images.pull(&uri, on(PLAIN)).await.unwrap();
    let native = images.pull(&uri, on(NATIVE)).await.unwrap();
    let files = |image: plyfold::PulledImage| {
        let images = images.clone();
        async move {
            let mut files = images.files(&image, LayerLimits::default()).await.unwrap();
            tokio::task::spawn_blocking(move || tree(&mut files, true)).await.unwrap()
        }
    };
    let expected = files(plain.clone()).await;
    assert!(expected.len() >= 10, "{expected:?}");
    assert_eq!(files(native.clone()).await, expected);
    let out = |name: &str| dir.path().join(name);
    let flat = images.materialize(&native, &Rootfs::erofs_flat(), &out("flat")).await.unwrap();
    assert_eq!(erofs_tree(&flat.flat.unwrap()), expected);
    let options = Options::parse(["compress=lz4"]).unwrap();
    let compressed = Rootfs::named("erofs", &options, images.materializers()).unwrap();
    let compressed = images.materialize(&native, &compressed, &out("compressed")).await.unwrap();
    assert_eq!(erofs_tree(&compressed.flat.unwrap()), expected);
    let raw = images.materialize(&native, &Rootfs::raw(), &out("raw")).await.unwrap();
    assert_eq!(erofs_tree(&raw.raw.unwrap()), expected);
    let merged = images.materialize(&native, &Rootfs::vmdk(), &out("vmdk")).await.unwrap();
    assert_eq!((merged.layers.len(), merged.merged.is_some()), (2, true));
    let ext4 = images.materialize(&native, &Rootfs::ext4(Ext4Rootfs::default()), &out("ext4")).await.unwrap();
    let ext4 = ext4.ext4.unwrap();
    let mut of_plain = images.files(&plain, LayerLimits::default()).await.unwrap();
    let compared = move || {
        let mut ext4 = Ext4Files::new(File::open(ext4).unwrap()).unwrap();
        (tree(&mut ext4, false), tree(&mut of_plain, false))
    };
    let (found, wanted) = tokio::task::spawn_blocking(compared).await.unwrap();
    assert_eq!(found, wanted);
    let error = images.materialize(&native, &Rootfs::erofs_tar(), &out("tar")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(!out("tar").exists());
}

/// Their blocks, the ends of their files and their compression differ: each stands by itself, and one image can be made.
#[tokio::test(flavor = "multi_thread")]
async fn layers_that_cannot_be_merged_are_used_by_themselves() {
    let [lower, upper] = layers().try_into().unwrap();
    for images_of in [
        [dense(&lower, None), image(&upper, 4096)],
        [image(&lower, 4096), dense(&upper, Some("zstd"))],
        [image(&lower, 512), image(&upper, 4096)],
    ] {
        // A flat image has no whiteouts: the layers are compared with themselves.
        let (dir, images, uri) = open(&samples::native_layers(&layers(), &images_of)).await;
        let native = images.pull(&uri, on(NATIVE)).await.unwrap();
        let error = images.materialize(&native, &Rootfs::vmdk(), &dir.path().join("vmdk")).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("format erofs")), "{error:?}");
        assert!(!dir.path().join("vmdk").exists());
        let mut files = images.files(&native, LayerLimits::default()).await.unwrap();
        let expected = tokio::task::spawn_blocking(move || tree(&mut files, true)).await.unwrap();
        let flat =
            images.materialize(&native, &Rootfs::erofs_flat(), &dir.path().join("flat")).await.unwrap();
        assert_eq!(erofs_tree(&flat.flat.unwrap()), expected);
        let layers =
            images.materialize(&native, &Rootfs::erofs_layers(), &dir.path().join("layers")).await.unwrap();
        let made: Vec<_> = layers.layers.iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(made == images_of);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_layer_leaves_no_artifact() {
    let [lower, upper] = layers().try_into().unwrap();
    let mut wrong = image(&upper, 4096);
    // The first directory entry of the root names no inode.
    let at = wrong.windows(4).position(|window| window == b"etco").unwrap_or(8192);
    wrong[at..at + 4].copy_from_slice(b"\0/\0/");
    let (dir, images, uri) = open(&samples::native_layers(&layers(), &[image(&lower, 4096), wrong])).await;
    // It is what its digests say.
    let native = images.pull(&uri, on(NATIVE)).await.unwrap();
    for rootfs in [Rootfs::erofs_layers(), Rootfs::erofs_flat(), Rootfs::vmdk()] {
        let error = images.materialize(&native, &rootfs, &dir.path().join("out")).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(error.context("layer"), Some(native.layers[1].descriptor.digest().as_ref()));
        assert!(!dir.path().join("out").exists());
    }
    let names: Vec<_> = walk(&dir.path().join("store/artifacts"));
    assert!(
        names.iter().all(|name| !name.contains(&native.layers[1].diff_id.as_ref().unwrap().digest()[2..])),
        "{names:?}"
    );
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => names.extend(walk(&path)),
            path => names.push(path.display().to_string()),
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_image_is_the_same_tar() {
    let sample = sample();
    let place = Place::new();
    write_layout(&place.dir.path().join("image"), &[("a.example/app:1".to_owned(), &sample)]).unwrap();
    let exported = [PLAIN, NATIVE].map(|platform| {
        let said = place
            .run(&format!("export oci:{{}}/image:a.example/app:1 --platform {platform} --out {{}}/out.tar"));
        assert!(said.contains("[exit 0]"), "{said}");
        stacked(vec![read_tar(fs::read(place.path("out.tar")).unwrap()).unwrap()]).unwrap()
    });
    assert_eq!(exported[0], exported[1]);
}

/// A layout, an archive and a registry hand over the same bytes, and what is copied keeps them.
#[tokio::test(flavor = "multi_thread")]
async fn copies_keep_every_digest() {
    let sample = sample();
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &sample);
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    let names = [("a.example/app:1".to_owned(), &sample)];
    write_layout(&place.dir.path().join("image"), &names).unwrap();
    fs::write(place.path("image.tar"), oci_archive(&names)).unwrap();
    let index = sample.top.digest().to_string();
    for from in
        ["oci:{}/image:a.example/app:1", "oci-archive:{}/image.tar:a.example/app:1", "HOST:PORT/org/app:1"]
    {
        for to in ["oci:{}/copied:1", "HOST:PORT/org/copied:1"] {
            let said = place.run(&format!("copy {from} {to} --json"));
            assert!(said.contains("[exit 0]") && said.contains(&index), "{said}");
            let said = place.run(&format!("inspect --remote {to} --platform {NATIVE} --json"));
            assert!(said.contains(sample.image_for(NATIVE).manifest.digest().as_ref()), "{said}");
        }
        fs::remove_dir_all(place.path("copied")).unwrap();
        let said = place.run(&format!("pull {from} --platform {NATIVE} --json --policy always"));
        assert!(said.contains(sample.image_for(NATIVE).manifest.digest().as_ref()), "{said}");
    }
}

#[test]
fn native_images_by_the_program() {
    let sample = sample();
    let place = Place::new();
    write_layout(&place.dir.path().join("image"), &[("a.example/app:1".to_owned(), &sample)]).unwrap();
    let lines = [
        "pull oci:{}/image:a.example/app:1 --platform linux(+erofs)/amd64",
        "inspect oci:{}/image:a.example/app:1 --platform linux(+erofs)/amd64",
        "ls a.example/app:1 etc --platform linux(+erofs)/amd64",
        "cat a.example/app:1 etc/new --platform linux(+erofs)/amd64",
        "materialize a.example/app:1 --as erofs-tar --out {}/tar --platform linux(+erofs)/amd64",
        "pull oci:{}/image:a.example/app:1 --platform linux(+erofs)/s390x",
        "pull oci:{}/image:a.example/app:1 --platform linux(erofs)/amd64",
    ];
    check("native", &lines.map(|line| place.run(line)));
}
