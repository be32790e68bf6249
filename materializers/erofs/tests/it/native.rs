//! Layers that are EROFS images already.

use std::fs;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom};

use plyfold_conformance::samples::LayerBuilder;
use plyfold_conformance::tree::{LayerEntry, TreeLine, read_layer, read_tar, stacked};
use plyfold_core::layer::{
    EntryKind, FileKind, Hashing, LayerFault, LayerForm, LayerLimits, LayerOptions, LayerTar, TreeLimits,
};
use plyfold_core::tree::MergedTree;
use plyfold_core::{Descriptor, Digest, ErrorKind, Materializer as _, MediaType, Result, digest};
use plyfold_erofs::{Compression, ErofsFault, ErofsFlat, ErofsLayer, ErofsTar, Options};

use crate::common::{artifacts, compressed, flat, image, rich_layer, varied_layer};

const TYPE: &str = "application/vnd.erofs.layer.v1";

fn form(media_type: &str) -> Result<Option<&'static LayerForm>> {
    LayerForm::of(&Descriptor::new(MediaType::from(media_type), 0_u64, digest::sha256(b"")))
}

/// Starts reading a layer of this type, whose `diff_id` is known.
fn open(media_type: &str, blob: &[u8], diff_id: Digest) -> Result<LayerTar> {
    let form = form(media_type)?;
    let options = LayerOptions { diff_id: Some(diff_id), form, ..LayerOptions::default() };
    LayerTar::new(Cursor::new(blob.to_vec()), options)
}

fn entries(image: &[u8]) -> Result<Vec<LayerEntry>> {
    read_layer(&mut open(TYPE, image, digest::sha256(image))?)
}

/// Keeps a layer as `erofs-layers` does.
fn kept(media_type: &str, blob: &[u8], diff_id: Digest) -> Result<Vec<u8>> {
    let mut out = tempfile::tempfile().unwrap();
    let mut tar = open(media_type, blob, diff_id)?;
    ErofsLayer::default().layer(&mut tar, &mut out)?;
    tar.finish()?;
    let mut bytes = Vec::new();
    out.seek(SeekFrom::Start(0)).unwrap();
    out.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

/// What overlayfs has in its own form comes as tars have it.
fn change() -> Vec<u8> {
    LayerBuilder::new()
        .dir("etc", 0o700)
        .file("etc/.wh.mtab", 0, b"")
        .file("etc/passwd", 0o600, b"changed")
        .dir("bin", 0o755)
        .file("bin/.wh..wh..opq", 0, b"")
        .file("bin/sh", 0o755, &[1; 10_000])
        .sparse_file("disk", 0o644, 1 << 24, &[(5 << 20, b"first"), ((1 << 24) - 4, b"last")])
        .hard_link("dev/disk", "disk")
        .file(".wh.order", 0, b"")
        .finish()
}

fn lines(layers: Vec<Vec<LayerEntry>>) -> Vec<TreeLine> {
    stacked(layers).unwrap()
}

#[test]
fn a_layer_is_read_as_the_tar_that_it_was_made_from() {
    let [lower, upper] = [rich_layer(), change()];
    let expected = lines(vec![read_tar(lower.clone()).unwrap(), read_tar(upper.clone()).unwrap()]);
    for size in [512, 4096] {
        let options = Options::default().with_block_size(size).unwrap();
        let native =
            |tar: &[u8]| entries(&fs::read(image(tar.to_vec(), options.clone()).unwrap()).unwrap()).unwrap();
        assert_eq!(lines(vec![native(&lower), native(&upper)]), expected, "both");
        let mixed = lines(vec![read_tar(lower.clone()).unwrap(), native(&upper)]);
        assert_eq!(mixed, expected, "above a tar");
        assert_eq!(lines(vec![native(&lower), read_tar(upper.clone()).unwrap()]), expected, "below a tar");
    }
}

#[test]
fn entries_have_the_order_and_the_form_of_a_tar() {
    let read = entries(&fs::read(image(change(), Options::default()).unwrap()).unwrap()).unwrap();
    let paths: Vec<_> = read.iter().map(|entry| entry.entry.path.to_string()).collect();
    // No entry made the root and /dev.
    let expected = [
        "/.wh.order",
        "/bin",
        "/bin/.wh..wh..opq",
        "/bin/sh",
        "/dev/disk",
        "/disk",
        "/etc",
        "/etc/.wh.mtab",
        "/etc/passwd",
    ];
    assert_eq!(paths.iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), expected.into());
    let at = |path: &str| paths.iter().position(|other| other == path).unwrap();
    assert!(at("/bin") < at("/bin/.wh..wh..opq") && at("/bin/.wh..wh..opq") < at("/bin/sh"));
    let target = &read[at("/disk")].entry.kind;
    assert!(
        matches!(target, EntryKind::HardLink { target } if target.as_bytes() == b"dev/disk"),
        "{target:?}"
    );
    let EntryKind::Node(FileKind::File { size, content: Some(runs) }) = &read[at("/dev/disk")].entry.kind
    else {
        panic!("no sparse file: {:?}", read[at("/dev/disk")].entry);
    };
    let stored: u64 = runs.iter().map(|run| run.length).sum();
    assert!(*size == 1 << 24 && stored < 4 << 20, "{runs:?}");
}

#[test]
fn images_of_mkfs_are_layers() {
    let expected = lines(vec![read_tar(varied_layer()).unwrap()]);
    let own = [
        flat(&[varied_layer()], Options::default()).unwrap(),
        compressed(&[varied_layer()], Compression::new("zstd".parse().unwrap()).unwrap()).unwrap(),
    ];
    let own = own.iter().map(|path| ("own".to_owned(), fs::read(path).unwrap()));
    for (name, bytes) in crate::mkfs::samples().into_iter().chain(own) {
        let read = entries(&bytes);
        assert_eq!(lines(vec![read.unwrap()]), expected, "{name}");
        assert!(kept(TYPE, &bytes, digest::sha256(&bytes)).unwrap() == bytes, "{name}");
    }
}

#[test]
fn an_image_is_kept_byte_for_byte_and_may_be_compressed_as_a_whole() {
    let image = fs::read(image(rich_layer(), Options::default()).unwrap()).unwrap();
    let diff_id = digest::sha256(&image);
    let zstd = zstd::encode_all(&*image, 1).unwrap();
    for (media_type, blob) in [(TYPE.to_owned(), &image), (format!("{TYPE}+zstd"), &zstd)] {
        assert!(kept(&media_type, blob, diff_id.clone()).unwrap() == image, "{media_type}");
        assert!(
            entries(&image).unwrap()
                == read_layer(&mut open(&media_type, blob, diff_id.clone()).unwrap()).unwrap()
        );
        let other = digest::sha256(b"other");
        assert_eq!(*kept(&media_type, blob, other.clone()).unwrap_err().kind(), ErrorKind::Corrupt);
        let read = read_layer(&mut open(&media_type, blob, other).unwrap());
        assert_eq!(*read.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let error = open(&format!("{TYPE}+encrypted"), &image, diff_id.clone()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
    // What it is, its type says alone.
    for (media_type, blob) in [("tar", &image), ("tar+zstd", &zstd)] {
        let error = kept(&format!("application/vnd.oci.image.layer.v1.{media_type}"), blob, diff_id.clone());
        assert_eq!(error.map(drop).unwrap_err().detail(), Some(&LayerFault::Erofs));
    }
    let tar = rich_layer();
    let error = kept(TYPE, &tar, digest::sha256(&tar)).unwrap_err();
    assert_eq!(error.detail(), Some(&ErofsFault::NoImage));
}

#[test]
fn a_whole_image_can_be_made_of_such_layers() {
    let scratch = tempfile::tempdir().unwrap();
    let made = |layers: Vec<Result<LayerTar>>| {
        let tree = MergedTree::read(layers, TreeLimits::default(), scratch.path()).unwrap();
        let mut out = tempfile::NamedTempFile::new().unwrap();
        ErofsFlat::new(Options::default().with_uuid([1; 16])).image(&tree, out.as_file_mut()).unwrap();
        crate::listing(out.path())
    };
    let tars = [rich_layer(), change()];
    let expected = made(
        tars.iter().map(|tar| LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default())).collect(),
    );
    let native = tars.map(|tar| {
        let image = fs::read(image(tar, Options::default()).unwrap()).unwrap();
        open(TYPE, &image, digest::sha256(&image))
    });
    assert_eq!(made(native.into()), expected);
}

#[test]
fn a_layer_without_a_tar_has_no_index_of_one() {
    let image = fs::read(image(rich_layer(), Options::default()).unwrap()).unwrap();
    let mut tar = open(TYPE, &image, digest::sha256(&image)).unwrap();
    let error = ErofsTar::default().layer(&mut tar, &mut tempfile::tempfile().unwrap()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.hint().is_some_and(|hint| hint.contains("erofs-layers")), "{error:?}");
}

#[test]
fn a_merged_image_refers_to_whole_blocks_alone() {
    use plyfold_erofs::ErofsMerged;
    for path in [
        flat(&[varied_layer()], Options::default()).unwrap(),
        compressed(&[varied_layer()], Compression::new("lz4".parse().unwrap()).unwrap()).unwrap(),
    ] {
        let path = [path];
        let layers = artifacts(&path);
        let error = ErofsMerged::default().join(&layers, &mut tempfile::tempfile().unwrap()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("erofs-layers")), "{error:?}");
        // Overlayfs shows them, all the same.
        let differences = ErofsMerged::default().overlay_differences(&layers, true).unwrap();
        assert_eq!(differences.count, 0, "{differences:?}");
    }
}

/// An image whose one directory has this attribute in place of one of the same length.
fn with_mark(name: &str, value: &str) -> Vec<u8> {
    let stand_in: String = name.chars().map(|_| 'x').collect();
    let stand_in = format!("trusted.{}", &stand_in["trusted.".len()..]);
    let layer = LayerBuilder::new().xattr(&stand_in, value).dir("d", 0o755).finish();
    let mut bytes = fs::read(image(layer, Options::default()).unwrap()).unwrap();
    let [from, to] = [&stand_in, name].map(|name| name.strip_prefix("trusted.").unwrap().as_bytes());
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn what_overlayfs_would_show_otherwise_is_refused() {
    for (name, value, is_kept) in [
        ("trusted.overlay.opaque", "y", true),
        ("trusted.overlay.opaque", "x", false),
        ("trusted.overlay.origin", "any", true),
        ("trusted.overlay.impure", "y", true),
        ("trusted.overlay.redirect", "/etc", false),
        ("trusted.overlay.metacopy", "", false),
        ("trusted.overlay.unheard-of", "y", false),
        ("trusted.overlay.plyfold.links", "a\0b\0", false),
        ("trusted.other", "y", true),
    ] {
        let bytes = with_mark(name, value);
        let outcome = kept(TYPE, &bytes, digest::sha256(&bytes));
        let read = entries(&bytes);
        if is_kept {
            assert!(outcome.unwrap() == bytes, "{name}");
            assert_eq!(
                read.unwrap().iter().any(|entry| !entry.entry.metadata.xattrs.is_empty()),
                name == "trusted.other"
            );
            continue;
        }
        for error in [outcome.unwrap_err(), read.unwrap_err()] {
            assert_eq!(error.detail(), Some(&ErofsFault::OverlayMark(name.to_owned())), "{error}");
            assert!(error.to_string().contains("/d"), "{error}");
        }
    }
    let mut bytes = fs::read(
        image(LayerBuilder::new().file(".xx.name", 0o644, b"").finish(), Options::default()).unwrap(),
    )
    .unwrap();
    let at = bytes.windows(8).position(|window| window == b".xx.name").unwrap();
    bytes[at..at + 4].copy_from_slice(b".wh.");
    let error = kept(TYPE, &bytes, digest::sha256(&bytes)).unwrap_err();
    assert_eq!(error.detail(), Some(&ErofsFault::WhiteoutName));
}

#[test]
fn the_role_and_the_type_of_a_layer_say_what_it_is() {
    let layer = |media_type: &str, role: &str| {
        let mut layer = Descriptor::new(MediaType::from(media_type), 0_u64, digest::sha256(b""));
        layer.set_annotations(Some([("org.erofs.role".to_owned(), role.to_owned())].into()));
        LayerForm::of(&layer).map(|form| form.map(|form| form.name))
    };
    for (media_type, role) in [
        (TYPE, ""),
        (TYPE, "overlay-lower"),
        ("application/vnd.erofs", "overlay-lower"),
        ("application/vnd.erofs+zstd", ""),
    ] {
        assert_eq!(layer(media_type, role).unwrap(), Some("erofs"));
    }
    assert_eq!(layer("application/vnd.oci.image.layer.v1.tar", "").unwrap(), None);
    for (media_type, role) in [
        (TYPE, "device"),
        ("application/vnd.erofs+zstd", "overlay-data"),
        ("application/vnd.erofs+encrypted", ""),
        ("application/vnd.erofs.chunk-index.v1", ""),
        ("application/vnd.erofs.layer.v2", ""),
    ] {
        assert_eq!(
            *layer(media_type, role).unwrap_err().kind(),
            ErrorKind::Unsupported,
            "{media_type} {role}"
        );
    }
}

#[test]
fn limits_of_layers_hold() {
    let image = fs::read(image(rich_layer(), Options::default()).unwrap()).unwrap();
    let read = |change: fn(&mut LayerLimits)| {
        let mut limits = LayerLimits::default();
        change(&mut limits);
        let options = LayerOptions {
            form: form(TYPE).unwrap(),
            hashing: Hashing::Nothing,
            limits,
            ..LayerOptions::default()
        };
        read_layer(&mut LayerTar::new(Cursor::new(image.clone()), options)?)
    };
    read(|_| {}).unwrap();
    for change in [
        (|limits| limits.entries = 100) as fn(&mut LayerLimits),
        |limits| limits.file = 4096,
        |limits| limits.path = 200,
        |limits| limits.uncompressed = 100_000,
        |limits| limits.xattr = 10,
        |limits| limits.tree.files = 100,
        |limits| limits.tree.metadata = 1000,
    ] {
        assert_eq!(*read(change).unwrap_err().kind(), ErrorKind::Limit);
    }
}

#[test]
fn damaged_layers_are_refused_or_read_and_never_panic() {
    let mut state = 11_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let sample = fs::read(image(rich_layer(), Options::default()).unwrap()).unwrap();
    let (mut refused, mut kept_whole) = (0, 0);
    for _ in 0..120 {
        let mut bytes = sample.clone();
        // Without a checksum, so that what is behind it is reached.
        bytes[1032] &= !1;
        for _ in 0..=random(6) {
            let at = 1024 + random(bytes.len() - 1024);
            bytes[at] = [0, 0xff, 1, 0x80, bytes[at] ^ 1, bytes[at].wrapping_add(1)][random(6)];
        }
        let (outcome, read) = (kept(TYPE, &bytes, digest::sha256(&bytes)), entries(&bytes));
        match outcome {
            Ok(image) => {
                assert!(image == bytes);
                kept_whole += 1;
            }
            Err(e) => {
                let known = [ErrorKind::Corrupt, ErrorKind::Unsupported, ErrorKind::Limit];
                assert!(known.contains(e.kind()), "{e}");
                // What is not kept has no entries, either.
                assert!(read.is_err(), "{e}");
                refused += 1;
            }
        }
    }
    assert!(refused > 12 && kept_whole > 12, "{refused} {kept_whole}");
}

#[test]
fn a_layer_ends_early_where_its_bytes_do() {
    let image = fs::read(image(rich_layer(), Options::default()).unwrap()).unwrap();
    let short = &image[..image.len() - 4096];
    for diff_id in [digest::sha256(&image), digest::sha256(short)] {
        assert_eq!(*kept(TYPE, short, diff_id).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
