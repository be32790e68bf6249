//! What of an image's content no file system keeps is shown whenever something is made of it.

use std::fs;

use plyfold_conformance::samples::{self, LayerBuilder};

use super::run::Place;

#[test]
fn attributes_that_no_file_system_stores_are_told_at_every_making() {
    let place = Place::new();
    let tar = LayerBuilder::new().dir("./", 0o755).xattr("weird.ns", "x").file("f", 0o644, b"f").finish();
    fs::write(place.path("layer.tar"), &tar).unwrap();
    let sample = samples::of_layers("losses", &[tar]);
    let layout = place.dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    samples::write_layout(&layout, &[("localhost/layout:1".to_owned(), &sample)]).unwrap();
    // The first is made of the tar, the others of what is in the store.
    for format in ["erofs", "erofs-layers", "erofs-layers", "ext4", "raw", "vmdk", "erofs"] {
        let run = place.run(&format!("materialize oci:{{}}/layout:1 --as {format} --out {{}}/{format}"));
        assert!(run.contains("[exit 0]"), "{run}");
        let told = run.matches("is left out of 1 files: weird.ns").count();
        assert_eq!(told, 1, "{run}");
    }
    for format in ["erofs-layers", "erofs", "ext4"] {
        let run = place.run(&format!("layer {{}}/layer.tar --as {format} --out {{}}/{format}.img"));
        assert!(run.contains("warning: ") && run.contains("weird.ns"), "{run}");
    }
}
