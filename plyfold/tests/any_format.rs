//! A build of plyfold without any format of its own: those of other crates are made all the same. CI runs it with the
//! feature `layout` alone.

use std::fs;

use plyfold::tree::MergedTree;
use plyfold::{Format, Images, Input, Made, Materializer, PullOptions, Result, Role, Rootfs, Sink};

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
        for (path, _) in image.tree().walk() {
            writeln!(out.output(Role::Image)?, "{path}")?;
        }
        Ok(Made::default())
    }
}

#[tokio::test]
async fn a_format_needs_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path().join("store")).await.unwrap();
    let sample = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../examples/sample:latest");
    let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
    let image = images.pull(sample, options).await.unwrap();
    let rootfs = Rootfs::of(Box::new(Names));
    rootfs.check().unwrap();
    let disks = images.materialize(&image, &rootfs, &dir.path().join("out")).await.unwrap();
    let [disk] = disks.files.as_slice() else { panic!("{disks:?}") };
    assert_eq!(disk.path, dir.path().join("out/rootfs.names"));
    assert!(fs::read_to_string(&disk.path).unwrap().lines().count() > 1);
}
