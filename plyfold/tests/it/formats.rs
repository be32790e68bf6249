//! A format of another crate goes through the door that the own ones go through.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use plyfold::atomic_file::FileOptions;
use plyfold::tree::MergedTree;
use plyfold::{
    ErrorKind, Format, FormatEntry, Images, Input, Made, Materializer, Materializers, Options, PullOptions,
    Result, Role, Rootfs, Sink,
};
use tempfile::TempDir;

use super::baseline;

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

async fn pulled(dir: &TempDir) -> (Images, plyfold::PulledImage) {
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
    for rootfs in [Rootfs::of(Box::new(Names)), names.clone(), names.files(FileOptions::new().copy(true))] {
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
