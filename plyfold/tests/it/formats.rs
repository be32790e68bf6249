//! A format of another crate goes through the door that the own ones go through.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use plyfold::atomic_file::FileOptions;
use plyfold::cache::{Damage, DamagedPart};
use plyfold::layer::{LayerTar, Metadata, Timestamp};
use plyfold::materializers::erofs::ErofsLayer;
use plyfold::materializers::ext4::Ext4Upper;
use plyfold::tree::MergedTree;
use plyfold::{
    CacheProvider, ErrorKind, Format, FormatEntry, Images, Input, Made, Materializer, Materializers, Options,
    PullOptions, Result, Role, Rootfs, Sink, Verify,
};
use plyfold_conformance::samples::{self, LayerBuilder};
use tempfile::TempDir;

use super::baseline;
use super::faulty_cache::{Fault, Faulty};

static RUNS: AtomicUsize = AtomicUsize::new(0);

/// The names of an image's files.
#[derive(Clone, Debug)]
struct Names;

impl Materializer for Names {
    fn format(&self) -> Format {
        Format { name: "names", version: 1, options: String::new(), extension: "names" }
    }

    fn input(&self) -> Input {
        Input::Image
    }

    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        RUNS.fetch_add(1, Ordering::SeqCst);
        for (path, _) in image.tree().walk() {
            writeln!(out.output(Role::Image)?, "{path}")?;
        }
        Ok(Made::default().with_kernel(5, 4).with_note("names only"))
    }
}

const ENTRY: FormatEntry = FormatEntry {
    name: "names",
    package: "test",
    summary: "",
    options: "",
    open: |options| options.refuse().map(|()| Box::new(Names) as Box<dyn Materializer>),
};

/// The sample, in a store in the folder.
pub(crate) async fn pulled(dir: &TempDir) -> (Images, plyfold::PulledImage) {
    let images = Images::open(dir.path().join("store")).await.unwrap();
    let sample = format!("oci:{}:latest", baseline::root().join("examples/sample").display());
    let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
    let image = images.pull(&sample, options).await.unwrap();
    (images, image)
}

#[tokio::test]
async fn any_format_is_made_once_and_put_beside_what_a_user_has() {
    let dir = tempfile::tempdir().unwrap();
    let (images, image) = pulled(&dir).await;
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("rootfs.tar"), "theirs").unwrap();
    let formats = Materializers::linked().unwrap().with(ENTRY).unwrap();
    let names = Rootfs::named("names", &Options::default(), &formats).unwrap();
    for rootfs in [
        Rootfs::of(Box::new(Names)),
        names.clone(),
        names.files(FileOptions { copy: true, ..FileOptions::default() }),
    ] {
        let disks = images.materialize(&image, &rootfs, &out).await.unwrap();
        let [disk] = disks.files.as_slice() else { panic!("{disks:?}") };
        assert_eq!(
            (disk.path.clone(), disk.role, disk.format.as_str()),
            (out.join("rootfs.names"), Role::Image, "names")
        );
        assert_eq!(disk.size, fs::metadata(&disk.path).unwrap().len());
        assert!(fs::read_to_string(&disk.path).unwrap().lines().count() > 1);
        assert_eq!(
            (disks.kernel.unwrap().to_string().as_str(), disks.notes.as_slice()),
            ("5.4", &["names only".to_owned()][..])
        );
        assert_eq!(*disks.mount_script().unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!((disks.boot_lines(), disks.layers.len()), (None, 0));
        assert!(images.layer_materializer(&rootfs).unwrap().is_none());
    }
    assert_eq!(RUNS.load(Ordering::SeqCst), 1, "it was not kept");
    // Another format takes its place, and the user's file stays.
    images.materialize(&image, &Rootfs::erofs_merged(), &out).await.unwrap();
    assert!(!out.join("rootfs.names").exists());
    assert_eq!(fs::read_to_string(out.join("rootfs.tar")).unwrap(), "theirs");
    let error =
        images.materialize(&image, &Rootfs::of(Box::new(Names)).upper(64 << 20), &out).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
    assert!(error.message().contains("names has no upper"), "{error}");
    // All of it goes with the image: this file, two layers and the merged image.
    let everything = plyfold::Collect::default();
    images.remove(&image.reference).await.unwrap();
    drop(image);
    assert_eq!(images.collect(&everything).await.unwrap().artifacts, 4);
}

/// One image without layers, alone and under an upper that has its root's mode.
#[tokio::test]
async fn a_flat_image_is_made_once_and_takes_an_upper() {
    let dir = tempfile::tempdir().unwrap();
    let (images, image) = pulled(&dir).await;
    let out = dir.path().join("out");
    let alone = images.materialize(&image, &Rootfs::erofs_flat(), &out).await.unwrap();
    assert_eq!(alone.flat, Some(out.join("rootfs.erofs")));
    assert_eq!(alone.paths().collect::<Vec<_>>(), [out.join("rootfs.erofs")]);
    assert_eq!((alone.layers.len(), alone.kernel.unwrap().to_string().as_str()), (0, "5.4"));
    assert!(images.layer_materializer(&Rootfs::erofs_flat()).unwrap().is_none());
    let bytes = fs::read(out.join("rootfs.erofs")).unwrap();
    let stacked = images.materialize(&image, &Rootfs::erofs_flat().upper(64 << 20), &out).await.unwrap();
    assert_eq!(stacked.paths().collect::<Vec<_>>(), [out.join("rootfs.erofs"), out.join("upper.ext4")]);
    assert_eq!(fs::read(out.join("rootfs.erofs")).unwrap(), bytes);
    // The two sets share one artifact, and no layer was converted.
    images.remove(&image.reference).await.unwrap();
    drop(image);
    assert_eq!(images.collect(&plyfold::Collect::default()).await.unwrap().artifacts, 1);
}

/// A format that is made from one that is not linked is refused before any work.
#[tokio::test]
async fn what_a_format_is_made_from_has_to_be_linked() {
    let dir = tempfile::tempdir().unwrap();
    let (images, image) = pulled(&dir).await;
    let images = images.with_materializers(Materializers::none());
    let error = images.materialize(&image, &Rootfs::vmdk(), &dir.path().join("out")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
    assert!(error.message().contains("erofs-merged"), "{error}");
    assert!(!dir.path().join("out").exists());
}

/// EROFS layers, counted.
#[derive(Clone, Debug)]
struct Counted;

static LAYERS: AtomicUsize = AtomicUsize::new(0);

impl Materializer for Counted {
    fn format(&self) -> Format {
        ErofsLayer::default().format()
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        LAYERS.fetch_add(1, Ordering::SeqCst);
        ErofsLayer::default().layer(tar, out)
    }
}

/// The layers of the sample are shown otherwise by overlayfs, so that its merged image is made of them, too.
#[tokio::test]
async fn with_a_store_that_cannot_be_written_each_layer_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let (images, image) = pulled(&dir).await;
    let linked = Materializers::linked().unwrap();
    let counted = FormatEntry { name: "erofs-layers", open: |_| Ok(Box::new(Counted)), ..ENTRY };
    let formats = linked.clone().without("erofs-layers").with(counted).unwrap();
    let read_only = Images::with_cache(Faulty(images.cache(), Fault::ReadOnly))
        .unwrap()
        .with_materializers(formats.clone());
    let rootfs = Rootfs::named("erofs-layers", &Options::default(), &formats).unwrap().upper(64 << 20);
    let (out, expected) = (dir.path().join("out"), dir.path().join("expected"));
    let disks = read_only.materialize(&image, &rootfs, &out).await.unwrap();
    assert_eq!((disks.layers.len(), disks.merged.is_some()), (2, true));
    assert_eq!(LAYERS.load(Ordering::SeqCst), 2);
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(files.iter().all(|name| name == "store" || name == "out"), "{files:?}");
    let store = images.cache();
    assert_eq!(store.usage().await.unwrap().artifacts, 0, "something was made in the store");
    let made = images.materialize(&image, &Rootfs::erofs_layers().upper(64 << 20), &expected).await.unwrap();
    for (own, other) in disks.paths().zip(made.paths()) {
        assert!(fs::read(own).unwrap() == fs::read(other).unwrap(), "{}", own.display());
    }
}

/// A layer format that copies the folders in which files are made at that moment, as a killed process leaves them.
#[derive(Clone, Debug)]
struct Snapshots(PathBuf, Arc<Mutex<()>>);

impl Materializer for Snapshots {
    fn format(&self) -> Format {
        Format { name: "snapshots", version: 1, options: String::new(), extension: "snapshot" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        while tar.next_entry()?.is_some() {}
        out.output(Role::Image)?.write_all(b"half")?;
        let mut seen = 0;
        // Layers are made at once, and copy the same folders.
        let _turn = self.1.lock().unwrap();
        for folder in folders_in(&self.0) {
            let name = folder.file_name().unwrap().to_str().unwrap();
            if !name.starts_with(".plyfold-") || name.ends_with("dead") {
                continue;
            }
            let lock = fs::File::open(&folder)?.try_lock();
            assert!(matches!(lock, Err(fs::TryLockError::WouldBlock)), "another run would remove {name}");
            let copy = folder.with_file_name(format!("{name}dead"));
            fs::create_dir_all(&copy)?;
            for file in files_in(&folder) {
                // The list of a set is known by its inode.
                let link = copy.join(file.file_name().unwrap());
                let _ = fs::remove_file(&link);
                fs::hard_link(&file, link)?;
                seen += 1;
            }
        }
        assert!(seen > 0, "nothing is made beside the output");
        Ok(Made::default())
    }
}

/// Every folder below one, the store's aside.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().unwrap() != "store" {
            folders.extend(folders_in(&path));
            folders.push(path);
        }
    }
    folders
}

#[tokio::test]
async fn what_a_killed_run_over_a_store_that_cannot_be_written_leaves_is_removed() {
    for there in ["nothing", "a set", "another file"] {
        let dir = tempfile::tempdir().unwrap();
        let (images, image) = pulled(&dir).await;
        let read_only = Images::with_cache(Faulty(images.cache(), Fault::ReadOnly)).unwrap();
        let out = dir.path().join("new/out");
        match there {
            "a set" => drop(images.materialize(&image, &Rootfs::erofs_merged(), &out).await.unwrap()),
            "another file" => {
                fs::create_dir_all(&out).unwrap();
                fs::write(out.join("theirs"), "theirs").unwrap();
            }
            _ => {}
        }
        let rootfs = Rootfs::of(Box::new(Snapshots(dir.path().to_owned(), Arc::default())));
        read_only.materialize(&image, &rootfs, &out).await.unwrap();
        // The next run, over whatever store.
        images.materialize(&image, &Rootfs::erofs_merged(), &out).await.unwrap();
        let mut left = folders_in(dir.path());
        left.retain(|path| *path != out && Some(path.as_path()) != out.parent());
        assert!(left.is_empty(), "{there}: {left:?}");
    }
}

/// Only the root directory of the whole image is needed for it, and that is in the layers.
#[tokio::test]
async fn an_upper_over_layers_leaves_no_merged_image_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path().join("store")).await.unwrap();
    let below = LayerBuilder::new().owner(1, 2).dir(".", 0o700).file("f", 0o644, b"one");
    let above = LayerBuilder::new().owner(7, 8).dir(".", 0o1751).file("g", 0o644, b"two");
    let sample = samples::of_layers("rooted", &[below.finish(), above.finish()]);
    let layout = dir.path().join("image");
    fs::create_dir(&layout).unwrap();
    samples::write_layout(&layout, &[("latest".to_owned(), &sample)]).unwrap();
    let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
    let image = images.pull(&format!("oci:{}:latest", layout.display()), options).await.unwrap();
    let make = async |rootfs: Rootfs, out| {
        images.materialize(&image, &rootfs.upper(64 << 20), &dir.path().join(out)).await.unwrap()
    };
    let layers = make(Rootfs::erofs_layers(), "layers").await;
    assert_eq!((layers.merged.clone(), layers.overlay_differences.count), (None, 0));
    assert_eq!(
        images.usage().await.unwrap().artifacts,
        layers.files[..2].iter().map(|file| file.size).sum::<u64>()
    );
    let merged = make(Rootfs::erofs_merged(), "merged").await;
    let upper = |disks: &plyfold::Disks| fs::read(disks.upper.as_ref().unwrap()).unwrap();
    assert!(upper(&layers) == upper(&merged));
    let mtime = Timestamp { seconds: samples::MTIME.try_into().unwrap(), nanos: 0 };
    let root = Metadata { mode: 0o1751, uid: 7, gid: 8, mtime, xattrs: Vec::new() };
    let path = dir.path().join("expected");
    let mut file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let disk = Ext4Upper::new(64 << 20).unwrap().root(root).unwrap();
    disk.join(&[], &mut file).unwrap();
    assert!(upper(&layers) == fs::read(path).unwrap(), "another root directory");
    // What each needs of the kernel.
    let kernel = |disks: &plyfold::Disks| disks.kernel.unwrap().to_string();
    let vmdk = make(Rootfs::vmdk(), "vmdk").await;
    let (raw, gpt) = (make(Rootfs::raw(), "raw").await, make(Rootfs::gpt(), "gpt").await);
    let flat = make(Rootfs::erofs_flat(), "flat").await;
    let kernels = [&layers, &merged, &vmdk, &raw, &gpt, &flat].map(kernel);
    assert_eq!(kernels, ["5.4", "5.16", "6.4", "6.4", "5.16", "5.4"]);
    let over = make(Rootfs::vmdk_gpt(), "vmdk-gpt").await;
    assert_eq!(kernel(&over), "5.16");
    let names: Vec<_> = over.paths().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        ["layer-00.erofs", "layer-01.erofs", "merged.erofs", "partitions.gpt", "rootfs.vmdk", "upper.ext4"]
    );
    // A disk that is complete by itself stands alone, with the same upper.
    for disks in [&raw, &gpt, &flat] {
        assert_eq!(disks.files.len(), 2, "{disks:?}");
        assert!(upper(disks) == upper(&merged));
    }
}

/// Every file below a folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn a_damaged_file_of_a_whole_image_is_told_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (images, image) = pulled(&dir).await;
    let out = dir.path().join("out");
    // A copy: what is in the store has one name.
    let rootfs = Rootfs::erofs_merged().files(FileOptions { copy: true, ..FileOptions::default() });
    let disks = images.materialize(&image, &rootfs, &out).await.unwrap();
    let merged = disks.merged.unwrap();
    let content = fs::read(&merged).unwrap();
    let artifacts = files_in(&image.path.join("artifacts"));
    let damaged = artifacts.iter().find(|path| fs::read(path).unwrap() == content).unwrap();
    let bytes = [&content[..content.len() - 1], &[!content[content.len() - 1]]].concat();
    fs::remove_file(damaged).unwrap();
    fs::write(damaged, &bytes).unwrap();
    let verify = |repair| Verify { repair, ..Verify::default() };
    let found = images.verify(&verify(false)).await.unwrap().damage;
    let [Damage { part: DamagedPart::Artifact(format, _), repaired: false, .. }] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(format, "erofs-merged-v1");
    let found = images.verify(&verify(true)).await.unwrap().damage;
    assert!(found.len() == 1 && found[0].repaired, "{found:?}");
    assert!(!damaged.exists(), "a damaged file is still there");
    let disks = images.materialize(&image, &rootfs, &out).await.unwrap();
    assert!(fs::read(disks.merged.unwrap()).unwrap() == content && fs::read(damaged).unwrap() == content);
    assert_eq!(images.verify(&verify(false)).await.unwrap().damage, []);
}

/// Layers with holes, with long runs of zeros, with what the upper one hides, and with attributes that no file system shows.
fn layers_of_many_kinds() -> Vec<Vec<u8>> {
    let data = |size: usize, seed: usize| -> Vec<u8> {
        (0..size).map(|at| (at * 7 + at / 251 + seed) as u8 | 1).collect()
    };
    let mut zeros = data(3 << 20, 1);
    zeros[70_000..2_500_000].fill(0);
    let runs: [(u64, &[u8]); 3] = [(5, b"a"), (200_000, &zeros[..70_000]), ((2 << 20) - 3, b"end")];
    let lower = LayerBuilder::new()
        .dir("./", 0o755)
        .file("zeros", 0o644, &zeros)
        .sparse_file("sparse", 0o644, 2 << 20, &runs)
        .file("gone", 0o644, &data(300_000, 2))
        .file("linked", 0o600, &data(66_000, 3))
        .dir("opaque", 0o700)
        .file("opaque/old", 0o644, b"old");
    let lower = (0..300).fold(lower, |layer, number| {
        let layer = layer.xattr("user.number", (number % 7).to_string());
        layer.file(format!("d/{}/{number}", number % 9), 0o644, &data(number * 37, number))
    });
    let upper = LayerBuilder::new()
        .whiteout("gone")
        .opaque("opaque")
        .xattr("system.nfs4_acl", "no file system shows it")
        .xattr("trusted.overlay.opaque", "y")
        .file("opaque/new", 0o644, &data(100_000, 4))
        .hard_link("again", "linked")
        .file("implied/by/a/path", 0o644, b"");
    vec![lower.finish(), upper.finish()]
}

/// The files of layers, plain layers and compressed ones are ways to one image.
#[tokio::test]
async fn whole_images_have_the_same_bytes_wherever_their_content_was() {
    let tars = layers_of_many_kinds();
    let dir = tempfile::tempdir().unwrap();
    let sample = samples::of_layers("kinds", &tars);
    let named = [("a.example/kinds:1".to_owned(), &sample)];
    let layout = dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    samples::write_layout(&layout, &named).unwrap();
    let linked = Materializers::linked().unwrap();
    let formats = [("erofs", ""), ("erofs", "block-size=512"), ("erofs", "compress=lz4"), ("ext4", "")];
    let mut expected = Vec::new();
    for by_layers in [false, true] {
        let images = Images::open(dir.path().join(format!("store-{by_layers}"))).await.unwrap();
        let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
        let source = format!("oci:{}:a.example/kinds:1", layout.display());
        let image = images.pull(&source, options).await.unwrap();
        if by_layers {
            images.materialize(&image, &Rootfs::erofs_layers(), &dir.path().join("layers")).await.unwrap();
        }
        for (number, (name, options)) in formats.iter().enumerate() {
            let options = Options::parse(Some(*options).filter(|text| !text.is_empty())).unwrap();
            let rootfs = Rootfs::named(name, &options, &linked).unwrap();
            let out = dir.path().join(format!("out-{by_layers}-{number}"));
            let disks = images.materialize(&image, &rootfs, &out).await.unwrap();
            let bytes = fs::read(disks.paths().next().unwrap()).unwrap();
            match expected.get(number) {
                None => expected.push(bytes),
                Some(expected) => assert!(bytes == *expected, "{name} {options:?}"),
            }
        }
    }
}

/// Where the test below runs itself again.
const PLACE: &str = "PLYFOLD_ROOT_HASHES_PLACE";

/// The folder for temporary files may be one of all users, with any names in it.
#[test]
fn root_hashes_over_a_store_that_cannot_be_written_need_no_fixed_folder() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let rootfs = || {
        let options = Options::parse(["verity=append"]).unwrap();
        Rootfs::named("erofs-layers", &options, &Materializers::linked().unwrap()).unwrap()
    };
    if let Some(place) = std::env::var_os(PLACE) {
        let dir = tempfile::tempdir_in(&place).unwrap();
        return runtime.block_on(async {
            let (images, image) = pulled(&dir).await;
            let read_only = Images::with_cache(Faulty(images.cache(), Fault::ReadOnly)).unwrap();
            let hashes = read_only.root_hashes(&image, &rootfs()).await.unwrap();
            assert_eq!(images.cache().usage().await.unwrap().artifacts, 0, "something was made in the store");
            let expected = images.root_hashes(&image, &rootfs()).await.unwrap();
            assert_eq!(hashes.document().unwrap(), expected.document().unwrap());
            // Folders of the program are made when they are needed.
            let scratch = dir.path().join("new/scratch");
            let hashes = read_only.with_scratch(&scratch).root_hashes(&image, &rootfs()).await.unwrap();
            assert_eq!(hashes.document().unwrap(), expected.document().unwrap());
            assert_eq!(fs::read_dir(scratch).unwrap().count(), 0);
        });
    }
    let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("plyfold"), "of another user").unwrap();
    let test = "formats::root_hashes_over_a_store_that_cannot_be_written_need_no_fixed_folder";
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("TMPDIR", dir.path()).env(PLACE, place.path());
    let run = command.output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let passed = run.status.success() && said.contains(" 1 passed");
    assert!(passed, "{said} {}", String::from_utf8_lossy(&run.stderr));
    let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["plyfold"]);
}
