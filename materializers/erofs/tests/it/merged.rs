//! Merged images.

use std::fs;
use std::io::Write as _;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::ErrorKind;
use plyfold_erofs::{ErofsMerged, Options, OverlayDifferences, Reader};
use tempfile::{NamedTempFile, TempPath};

use crate::common::{artifacts, image, merged, rich_layer};
use crate::listing;

fn layers(tars: Vec<LayerBuilder>) -> Vec<TempPath> {
    tars.into_iter().map(|tar| image(tar.finish(), Options::default()).unwrap()).collect()
}

/// The merged image with its layers behind it: what its reader takes for its devices.
fn flat(layers: &[TempPath], options: &Options) -> TempPath {
    let mut disk = NamedTempFile::new().unwrap();
    disk.write_all(&fs::read(merged(layers, options.clone()).unwrap()).unwrap()).unwrap();
    for layer in layers {
        disk.write_all(&fs::read(layer).unwrap()).unwrap();
    }
    disk.into_temp_path()
}

#[test]
fn one_layer_merges_into_itself() {
    for block_size in [512, 4096] {
        let options = Options::default().with_block_size(block_size).unwrap();
        let layer = image(rich_layer(), options.clone()).unwrap();
        let expected = listing(&layer);
        assert_eq!(listing(&flat(&[layer], &options)), expected);
    }
}

#[test]
fn upper_layers_add_replace_and_remove() {
    let layers = layers(vec![
        LayerBuilder::new()
            .dir("d", 0o755)
            .file("d/a", 0o644, b"1")
            .file("d/b", 0o644, b"1")
            .file("f", 0o644, b"1"),
        LayerBuilder::new().whiteout("d/a").file("d/c", 0o644, b"2").file("g", 0o644, &[5; 10_000]),
        LayerBuilder::new().whiteout("f").hard_link("h", "g").dir("f", 0o700),
        LayerBuilder::new().dir("o", 0o755).file("o/a", 0o644, b"4"),
        LayerBuilder::new().dir("o", 0o700).opaque("o"),
    ]);
    let lines = listing(&flat(&layers, &Options::default()));
    assert_eq!(
        lines,
        [
            "/ d 755 0:0 x5 0+0",
            "/d d 755 0:0 x2",
            "/d/b f\"1\" 644 0:0 x1",
            "/d/c f\"2\" 644 0:0 x1",
            "/f d 700 0:0 x2",
            "/g f10000*5 644 0:0 x2",
            "/h f10000*5 644 0:0 x2",
            "/o d 700 0:0 x2",
        ]
    );
}

#[test]
fn holes_stay_holes() {
    let mut data = vec![3; 8 << 20];
    data[1 << 20..6 << 20].fill(0);
    let layers = layers(vec![LayerBuilder::new().file("f", 0o644, &data).file("g", 0o644, b"g")]);
    let path = flat(&layers, &Options::default());
    let mut reader = Reader::new(fs::File::open(&path).unwrap()).unwrap();
    let tree = reader.tree().unwrap();
    let file = tree.child(plyfold_core::tree::NodeId::ROOT, b"f").unwrap();
    let plyfold_core::tree::Kind::File { size, content } = &tree.node(file).kind else { panic!("no file") };
    assert_eq!(crate::data(&mut reader, content, *size), data);
}

#[test]
fn merged_image_refers_to_layers_without_copying() {
    let layers = layers(vec![LayerBuilder::new().file("f", 0o644, &[1; 3 << 20])]);
    let merged = merged(&layers, Options::default()).unwrap();
    // One chunk for the whole of it: superblock, inodes, and no more.
    assert_eq!(fs::metadata(&merged).unwrap().len(), 2 * 4096);
}

#[test]
fn more_devices_than_the_first_block_lists() {
    let tars = (0..60).map(|n| LayerBuilder::new().file(format!("f{n:02}"), 0o644, &[n; 100]));
    let layers = layers(tars.collect());
    let lines = listing(&flat(&layers, &Options::default()));
    assert_eq!(lines.len(), 61);
    assert_eq!(lines[60], "/f59 f100*59 644 0:0 x1");
}

#[test]
fn same_layers_same_bytes() {
    let layers = layers(vec![LayerBuilder::new().file("a", 0o644, b"1"), LayerBuilder::new().whiteout("a")]);
    let once = fs::read(merged(&layers, Options::default()).unwrap()).unwrap();
    assert_eq!(once, fs::read(merged(&layers, Options::default()).unwrap()).unwrap());
}

#[test]
fn the_root_of_a_merged_image_is_the_top_layers() {
    let layers = layers(vec![
        LayerBuilder::new().xattr("user.of", "lower").dir("./", 0o700),
        LayerBuilder::new().owner(3, 4).mtime("5.5").dir("./", 0o711),
        LayerBuilder::new().file("f", 0o644, b""),
    ]);
    let merged = merged(&layers, Options::default()).unwrap();
    let root = Reader::new(fs::File::open(&merged).unwrap()).unwrap().root().unwrap();
    assert_eq!(
        (root.mode, root.uid, root.gid, root.mtime.seconds, root.mtime.nanos),
        (0o711, 3, 4, 5, 500_000_000)
    );
    assert!(root.xattrs.is_empty());
}

#[test]
fn images_that_cannot_be_joined_are_refused() {
    let kind = |layers: &[TempPath]| merged(layers, Options::default()).unwrap_err().kind().clone();
    let good = || image(rich_layer(), Options::default()).unwrap();
    let small_blocks = image(rich_layer(), Options::default().with_block_size(512).unwrap()).unwrap();
    assert_eq!(kind(&[]), ErrorKind::Config);
    assert_eq!(kind(&[good(), small_blocks]), ErrorKind::Unsupported);
    let joined = merged(&[good()], Options::default()).unwrap();
    assert_eq!(kind(&[good(), joined]), ErrorKind::Unsupported);

    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(good()).unwrap();
        change(&mut bytes);
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file.into_temp_path()
    };
    assert_eq!(kind(&[damaged(&|bytes| bytes[1024] ^= 1)]), ErrorKind::Corrupt);
    assert_eq!(kind(&[damaged(&|bytes| bytes[1024 + 64] ^= 1)]), ErrorKind::Corrupt);
    assert_eq!(kind(&[damaged(&|bytes| bytes.truncate(bytes.len() - 1))]), ErrorKind::Corrupt);
    assert_eq!(kind(&[damaged(&|bytes| bytes.push(0))]), ErrorKind::Corrupt);
    assert_eq!(kind(&[damaged(&Vec::clear)]), ErrorKind::Corrupt);
}

#[test]
fn a_hard_link_to_nothing_is_refused() {
    let layers = layers(vec![LayerBuilder::new(), LayerBuilder::new().hard_link("h", "nothing")]);
    assert_eq!(merged(&layers, Options::default()).unwrap_err().kind(), &ErrorKind::Corrupt);
}

/// Rule S 83: the link is read before the layer has a file of that name, so it is to the lower one.
#[test]
fn a_hard_link_before_a_file_of_its_targets_name_is_to_the_lower_file() {
    let forward = || LayerBuilder::new().hard_link("b", "a").file("a", 0o644, b"new").dir("d", 0o755);
    let lower = LayerBuilder::new().file("a", 0o644, b"lower");
    let lines = listing(&flat(&layers(vec![lower, forward()]), &Options::default()));
    assert_eq!(lines[1..], ["/a f\"new\" 644 0:0 x1", "/b f\"lower\" 644 0:0 x1", "/d d 755 0:0 x2"]);
    // Without a lower file it is to the layer's own, also in the layer's own image.
    let alone = layers(vec![forward()]);
    let marks = "trusted.overlay.plyfold.implied=y trusted.overlay.plyfold.links=b\\x00a\\x00";
    assert_eq!(
        listing(&alone[0]),
        [
            format!("/ d 755 0:0 x3 0+0 {marks}").as_str(),
            "/a f\"new\" 644 0:0 x2",
            "/b f\"new\" 644 0:0 x2",
            "/d d 755 0:0 x2"
        ]
    );
    let lines = listing(&flat(&alone, &Options::default()));
    assert_eq!(lines[1..3], ["/a f\"new\" 644 0:0 x2", "/b f\"new\" 644 0:0 x2"]);
}

#[test]
fn very_many_links_in_one_directory_survive() {
    let lower = (0..1_000).fold(LayerBuilder::new(), |layer, number| {
        layer.file(format!("a{number:0200}"), 0o644, format!("{number}").as_bytes())
    });
    let upper = (0..1_000).fold(LayerBuilder::new(), |layer, number| {
        let target = format!("a{number:0200}");
        layer.pax("linkpath", &target).hard_link(format!("b{number}"), "").file(&target, 0o644, b"new")
    });
    let lines = listing(&flat(&layers(vec![lower, upper]), &Options::default()));
    assert_eq!(lines.iter().filter(|line| line.contains("f\"new\"")).count(), 1_000);
    assert!(lines.contains(&"/b999 f\"999\" 644 0:0 x1".to_owned()), "{:?}", lines.last());
}

fn differences(tars: Vec<LayerBuilder>, stacked: bool) -> Vec<String> {
    let layers = layers(tars);
    let found = ErofsMerged::default().overlay_differences(&artifacts(&layers), stacked).unwrap();
    assert_eq!(found.count, found.examples.len() as u64);
    found.examples.iter().map(ToString::to_string).collect()
}

#[test]
fn what_overlayfs_shows_otherwise_is_told() {
    let lower = || {
        LayerBuilder::new()
            .dir("d", 0o700)
            .dir("d/e", 0o755)
            .file("d/f", 0o640, b"content")
            .dir("usr", 0o755)
            .dir("usr/lib", 0o755)
            .symlink("lib", "usr/lib")
    };
    let told = |upper: LayerBuilder| differences(vec![lower(), upper], false);
    let metadata = "is shown with another mode, owner, time or extended attributes";
    assert_eq!(told(LayerBuilder::new().dir("d", 0o711).file("d/g", 0o644, b"")), [""; 0]);
    assert_eq!(told(LayerBuilder::new().file("d/g", 0o644, b"")), [format!("/d {metadata}")]);
    assert_eq!(
        told(LayerBuilder::new().opaque("").file("new", 0o644, b"")),
        ["/d", "/lib", "/usr"].map(|path| format!("{path} is shown and is not in the image"))
    );
    assert_eq!(
        told(LayerBuilder::new().file("lib/g", 0o644, b"")),
        ["/lib is shown as another file", "/usr/lib/g is not shown"]
    );
    assert_eq!(
        told(LayerBuilder::new().hard_link("h", "d/f")),
        ["/h is a hard link to a file of a lower layer and cannot be opened"]
    );
    assert_eq!(
        told(LayerBuilder::new().dir("d", 0o700).hard_link("d/h", "d/f").file("d/f", 0o640, b"new")),
        ["/d/h is shown as another file"]
    );
    // A later layer may make it right.
    let mended =
        vec![lower(), LayerBuilder::new().file("d/g", 0o644, b""), LayerBuilder::new().dir("d", 0o700)];
    assert_eq!(differences(mended, false), [""; 0]);
}

/// The metadata of more directories than there are examples are others, before and behind a link.
#[test]
fn the_worst_difference_is_an_example() {
    let lower = (0..120).fold(LayerBuilder::new().file("f", 0o644, b"content"), |layer, number| {
        layer.dir(format!("d{number:03}"), 0o700)
    });
    let upper = (0..120)
        .fold(LayerBuilder::new().hard_link("h", "f").hard_link("i", "f"), |layer, number| {
            layer.file(format!("d{number:03}/g"), 0o644, b"")
        });
    let layers = layers(vec![lower, upper]);
    let found = ErofsMerged::default().overlay_differences(&artifacts(&layers), true).unwrap();
    assert_eq!((found.count, found.examples.len()), (122, OverlayDifferences::EXAMPLES));
    let worst = found.worst().unwrap().to_string();
    assert_eq!(worst, "/h is a hard link to a file of a lower layer and cannot be opened");
    assert_eq!(found.examples[0].path.as_bytes(), b"d000");
    assert_eq!(OverlayDifferences::default().worst(), None);
}

#[test]
fn a_layer_that_is_mounted_alone_shows_its_whiteouts() {
    let layer = || {
        vec![LayerBuilder::new().dir("d", 0o755).whiteout("d/gone").hard_link("b", "a").file("a", 0o600, b"")]
    };
    assert_eq!(differences(layer(), false), ["/d/gone is shown and is not in the image"]);
    assert_eq!(differences(layer(), true), [""; 0]);
}

/// The layers' images say so, too: what the layer changed behind a symbolic link is in none of them.
#[test]
fn layers_whose_order_decides_are_refused() {
    let lower = || LayerBuilder::new().dir("r", 0o755).file("r/x", 0o644, b"1").symlink("s", "r");
    let changed = || LayerBuilder::new().file("s/new", 0o644, b"2");
    for (upper, refused) in [
        (changed(), false),
        (changed().symlink("s", "q"), true),
        (changed().whiteout("s"), true),
        (changed().dir("s", 0o755), true),
        (LayerBuilder::new().dir("s", 0o755).file("s/new", 0o644, b"2").symlink("s", "q"), false),
    ] {
        let error = merged(&layers(vec![lower(), upper]), Options::default()).err();
        assert_eq!(error.map(|error| error.kind().clone()), refused.then_some(ErrorKind::Unsupported));
    }
}
