//! S: what an opened image must be, down to the files of its layers.

use plyfold_core::layer::{DataExtent, EntryKind, FileKind};
use plyfold_core::{Blob, BlobRange, Digest, ErrorKind, ImageSource, ImageSourceExt, Result, digest};

use super::probe::{altered, assert_kind, carried, moved_layer, open, open_index, read, sound};
use crate::rule::{not_judged, rules};
use crate::samples::{self, LayerBuilder};
use crate::tree::{LayerEntry, TreeLine, is_implied, read_tar, stacked};
use crate::{BackendUnderTest, Fidelity, Fixture};

rules! {
    $ __source_rules of dyn Fixture;
    "S 76" descriptor_matches_manifest_bytes:
        "an image's descriptor is the media type, digest and size of its manifest's bytes",
    "S 77" config_raw_bytes_hash_to_descriptor:
        "the config is verified and kept byte for byte, fields that no specification knows included",
    "S 78" layers_ordered_bottom_up:
        "layers come bottom first, each with the diff_id of the same place",
    "S 79" compressed_stream_hashes_to_digest_uncompressed_to_diffid:
        "a layer is proved twice: its bytes by the blob's digest, its tar by the diff_id",
    "S 80" gzip_multi_member_zstd_plain_by_magic_not_media_type:
        "the compression of a layer is detected by its first bytes, in every form that writers make",
    "S 81" flattened_tar_equals_overlay_of_layers:
        "the stacked layers are the tree that overlayfs shows: names, kinds, metadata, content, links",
    "S 82" whiteout_file_dir_opaque_including_same_layer_order:
        "a whiteout hides what lower layers have, never what its own layer brings, wherever it stands in the tar; \
         its parent is what the entries before it make of the path",
    "S 83" hardlink_to_overwritten_or_deleted_target:
        "a hard link keeps its file when the name that it was made from is overwritten or deleted, in a layer above or \
         later in its own; behind a whiteout of its target it is an error",
    "S 84" hardlink_target_precedes_link_in_output:
        "a hard link is one file with its target, in whichever order the two are read",
    "S 85" absolute_hardlink_and_symlink_targets_accepted_dotdot_refused:
        "absolute targets are inside the image, any text may be a symbolic link's, and `..` leaves it nowhere",
    "S 86" xattrs_caps_devices_sparse_mtime_ns_uid_over_2_21_long_names_non_utf8_preserved:
        "nothing that a tar can say about a file is lost",
    "S 87" parent_dirs_before_children_or_synthesised:
        "a parent without an entry is a directory 0755 root:root, and never replaces a lower layer's",
    "S 88" file_replaces_dir_and_dir_replaces_file:
        "an upper file takes the place of a lower directory with all in it, and the reverse",
    "S 204" blob_of_an_image_by_its_digest_alone:
        "a config or a layer of an image for any platform is read by its digest alone, whole and verified or a range of \
         it; what the image does not have is NotFound",
}

async fn blob_of_an_image_by_its_digest_alone(fixture: &dyn Fixture) {
    async fn fetch(subject: &BackendUnderTest, digest: &Digest, range: BlobRange) -> Result<Blob> {
        subject.client.image_blob(&*subject.registry, subject.reference(), digest, range).await
    }
    let (image, nested) = (samples::image(), samples::nested_index());
    let mut opened = vec![(open(fixture, &image).await, &image)];
    opened.extend(open_index(fixture, &nested).await.map(|subject| (subject, &nested)));
    for (subject, sample) in opened {
        for expected in &sample.images {
            let source = sound(subject.image(&expected.platform).await);
            let config = sound(source.manifest()).config();
            for blob in sound(source.layers()).iter().chain([config]) {
                let whole = sound(read(fetch(&subject, blob.digest(), BlobRange::FULL).await).await);
                assert_eq!(digest::sha256(&whole), *blob.digest(), "{}", sample.name);
                let part = sound(fetch(&subject, blob.digest(), BlobRange::new(3, 8)).await);
                let start = usize::try_from(part.offset()).expect("a small offset");
                assert!(sound(read(Ok(part)).await) == whole[start..8], "{}: a range", sample.name);
            }
        }
        let absent = digest::sha256(b"absent");
        assert_kind(fetch(&subject, &absent, BlobRange::FULL).await, &ErrorKind::NotFound);
    }
}

async fn descriptor_matches_manifest_bytes(fixture: &dyn Fixture) {
    for sample in carried(fixture) {
        let subject = open(fixture, &sample).await;
        for expected in &sample.images {
            let source = sound(subject.image(&expected.platform).await);
            let (descriptor, bytes) = (source.descriptor(), source.raw().bytes());
            assert_eq!(descriptor.size(), bytes.len() as u64, "{}", sample.name);
            if fixture.fidelity() == Fidelity::Exact {
                assert_eq!(descriptor.digest(), expected.manifest.digest(), "{}", sample.name);
                assert_eq!(descriptor.media_type(), expected.manifest.media_type(), "{}", sample.name);
            } else {
                assert_eq!(*descriptor.digest(), digest::sha256(bytes), "{}", sample.name);
            }
        }
    }
}

async fn config_raw_bytes_hash_to_descriptor(fixture: &dyn Fixture) {
    for sample in [samples::custom_fields(), samples::image(), samples::no_layers()] {
        let subject = open(fixture, &sample).await;
        let config = sound(sound(subject.image("linux/amd64").await).config().await);
        assert!(Some(config.bytes()) == sample.blob(sample.images[0].config.digest()), "{}", sample.name);
        assert_eq!(*config.descriptor().digest(), digest::sha256(config.bytes()), "{}", sample.name);
    }
    if fixture.fidelity() == Fidelity::Exact {
        let sample = samples::image();
        let config = sample.images[0].config.clone();
        let other = |bytes: &bytes::Bytes| {
            let text = String::from_utf8_lossy(bytes).replace("PATH=/bin", "PATH=/etc");
            text.into()
        };
        let subject = open(fixture, &altered(sample, config.digest(), other)).await;
        // A single image is judged by its config's platform: the fault shows on opening or on reading.
        let outcome = match subject.image("linux/amd64").await {
            Ok(source) => source.config().await,
            Err(error) => Err(error),
        };
        assert_kind(outcome, &ErrorKind::Corrupt);
    } else {
        not_judged("the medium has no digests of its own");
    }
}

async fn layers_ordered_bottom_up(fixture: &dyn Fixture) {
    for sample in [samples::image(), samples::repeated_layer(), samples::uncompressed()] {
        let subject = open(fixture, &sample).await;
        let source = sound(subject.image("linux/amd64").await);
        let diff_ids = sound(sound(source.config().await).diff_ids());
        let expected: Vec<_> = sample.images[0].layers.iter().map(|layer| layer.diff_id.clone()).collect();
        assert_eq!(diff_ids, expected, "{}", sample.name);
        assert_eq!(sound(source.layers()).len(), expected.len(), "{}", sample.name);
        if fixture.fidelity() == Fidelity::Exact {
            let digests: Vec<_> = sound(source.layers()).iter().map(|layer| layer.digest().clone()).collect();
            let stored = sample.images[0].layers.iter().map(|layer| layer.descriptor.digest().clone());
            assert_eq!(digests, stored.collect::<Vec<_>>(), "{}", sample.name);
        }
    }
}

async fn compressed_stream_hashes_to_digest_uncompressed_to_diffid(fixture: &dyn Fixture) {
    for sample in [samples::image(), samples::uncompressed(), samples::zstandard()] {
        let subject = open(fixture, &sample).await;
        let source = sound(subject.image("linux/amd64").await);
        for (index, layer) in sound(source.layers()).iter().enumerate() {
            let content = sound(read(source.blob(layer, BlobRange::FULL).await).await);
            assert_eq!(content.len() as u64, layer.size(), "{}", sample.name);
            assert_eq!(digest::sha256(&content), *layer.digest(), "{}", sample.name);
            assert!(!sound(subject.client.layer(&*source, index).await).is_empty(), "{}", sample.name);
        }
    }
    // A tar that is not the one of the diff_id, under a blob digest that is right.
    let wrong = match fixture.fidelity() {
        Fidelity::DiffIds => moved_layer(samples::image()),
        Fidelity::Exact => samples::wrong_diff_id(),
    };
    let subject = open(fixture, &wrong).await;
    let source = sound(subject.image("linux/amd64").await);
    assert_kind(subject.client.layer(&*source, 0).await, &ErrorKind::Corrupt);
}

async fn gzip_multi_member_zstd_plain_by_magic_not_media_type(fixture: &dyn Fixture) {
    let packed =
        [samples::image(), samples::multi_member_gzip(), samples::zstandard(), samples::mislabelled()];
    let expected = sound(flat(&open(fixture, &samples::uncompressed()).await).await);
    for sample in packed {
        let tree = sound(flat(&open(fixture, &sample).await).await);
        assert_eq!(tree, expected, "{}", sample.name);
    }
}

async fn flattened_tar_equals_overlay_of_layers(fixture: &dyn Fixture) {
    let subject = open(fixture, &samples::rootfs()).await;
    let source = sound(subject.image("linux/amd64").await);
    let tar = sound(subject.client.flat_tar(&*source).await);
    for tree in [sound(subject.client.tree(&*source).await), sound(stacked(vec![sound(read_tar(tar))]))] {
        let lines: Vec<_> = tree.iter().map(ToString::to_string).collect();
        assert_lines(&lines.join("\n"), samples::ROOTFS_TREE);
    }
}

async fn whiteout_file_dir_opaque_including_same_layer_order(fixture: &dyn Fixture) {
    let lower = || {
        LayerBuilder::new()
            .dir("d", 0o755)
            .file("d/old", 0o644, b"old")
            .file("f", 0o644, b"lower")
            .dir("e", 0o700)
    };
    let cases = [
        ("a file", LayerBuilder::new().whiteout("f"), "/ /d /d/old /e"),
        ("a directory", LayerBuilder::new().whiteout("d"), "/ /e /f"),
        ("opaque", LayerBuilder::new().dir("d", 0o755).opaque("d"), "/ /d /e /f"),
        (
            "opaque before its own",
            LayerBuilder::new().dir("d", 0o755).opaque("d").file("d/new", 0o644, b""),
            "/ /d /d/new /e /f",
        ),
        (
            "opaque after its own",
            LayerBuilder::new().dir("d", 0o755).file("d/new", 0o644, b"").opaque("d"),
            "/ /d /d/new /e /f",
        ),
        ("opaque without its directory", LayerBuilder::new().opaque("d"), "/ /d /e /f"),
        ("before the new file", LayerBuilder::new().whiteout("f").file("f", 0o600, b""), "/ /d /d/old /e /f"),
        ("after the new file", LayerBuilder::new().file("f", 0o600, b"").whiteout("f"), "/ /d /d/old /e /f"),
        (
            "before the new directory",
            LayerBuilder::new().whiteout("d").dir("d", 0o755).file("d/new", 0o644, b""),
            "/ /d /d/new /e /f",
        ),
        (
            "after the new directory",
            LayerBuilder::new().dir("d", 0o755).file("d/new", 0o644, b"").whiteout("d"),
            "/ /d /d/new /e /f",
        ),
        ("of nothing", LayerBuilder::new().whiteout("absent").whiteout("d/absent"), "/ /d /d/old /e /f"),
        ("one name alone", LayerBuilder::new().whiteout("d/old"), "/ /d /e /f"),
    ];
    for (case, upper, expected) in cases {
        let tree = sound(of(fixture, [lower(), upper]).await);
        let names: Vec<_> = tree.iter().map(|line| line.path.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{case}");
    }
    marks_before_and_after_a_link(fixture).await;
    let kept = [LayerBuilder::new().file("f", 0o600, b"upper").whiteout("f")];
    assert_eq!(
        what(&sound(of(fixture, kept).await), "/f"),
        r#"file 5 "upper""#,
        "its own layer's file stays"
    );
}

/// A mark stands in the directory that its parent is when the mark is read.
async fn marks_before_and_after_a_link(fixture: &dyn Fixture) {
    let lower = || {
        LayerBuilder::new()
            .dir("a", 0o755)
            .file("a/f", 0o644, b"")
            .dir("b", 0o755)
            .file("b/f", 0o644, b"")
            .file("b/g", 0o644, b"")
    };
    let cases = [
        (
            "a whiteout, then a link",
            LayerBuilder::new().whiteout("a/f").symlink("a", "/b"),
            "/ /a /b /b/f /b/g",
        ),
        ("a link, then a whiteout", LayerBuilder::new().symlink("a", "/b").whiteout("a/f"), "/ /a /b /b/g"),
        ("opaque, then a link", LayerBuilder::new().opaque("a").symlink("a", "/b"), "/ /a /b /b/f /b/g"),
        ("a link, then opaque", LayerBuilder::new().symlink("a", "/b").opaque("a"), "/ /a /b"),
    ];
    for (case, upper, expected) in cases {
        let tree = sound(of(fixture, [lower(), upper]).await);
        let names: Vec<_> = tree.iter().map(|line| line.path.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{case}");
    }
}

async fn hardlink_to_overwritten_or_deleted_target(fixture: &dyn Fixture) {
    let lower = || LayerBuilder::new().file("a", 0o644, b"first").hard_link("b", "a");
    let cases = [
        (
            "overwritten above",
            vec![lower(), LayerBuilder::new().file("a", 0o644, b"second")],
            r#"file 6 "second""#,
        ),
        ("deleted above", vec![lower(), LayerBuilder::new().whiteout("a")], ""),
        ("overwritten in its layer", vec![lower().file("a", 0o644, b"second")], r#"file 6 "second""#),
    ];
    for (case, layers, a) in cases {
        let tree = sound(of(fixture, layers).await);
        assert_eq!(what(&tree, "/a"), a, "{case}");
        assert_eq!(what(&tree, "/b"), r#"file 5 "first""#, "{case}");
        assert_eq!(links(&tree, "/b"), 1, "{case}");
    }
    let upper = LayerBuilder::new().hard_link("c", "a").file("a", 0o644, b"second");
    let tree = sound(of(fixture, [lower(), upper]).await);
    assert_eq!(what(&tree, "/a"), r#"file 6 "second""#, "a link to a lower file, then a file of its name");
    assert_eq!((what(&tree, "/b"), what(&tree, "/c")), (r#"file 5 "first""#, "= /b"));
    // Names that move on: each link is to what its target is when the link is read.
    let two = LayerBuilder::new().file("a", 0o644, b"first").file("b", 0o644, b"other");
    let tree = sound(of(fixture, [two, LayerBuilder::new().hard_link("c", "a").hard_link("a", "b")]).await);
    assert_eq!(what(&tree, "/c"), r#"file 5 "first""#);
    assert_eq!((what(&tree, "/a"), what(&tree, "/b")), (r#"file 5 "other""#, "= /a"));
    // A link to a lower layer's file, which the same layer deletes.
    let upper = LayerBuilder::new().hard_link("c", "a").whiteout("a");
    let tree = sound(of(fixture, [lower(), upper]).await);
    let seen = (what(&tree, "/a"), what(&tree, "/b"), what(&tree, "/c"));
    assert_eq!(seen, ("", r#"file 5 "first""#, "= /b"));
    let upper = LayerBuilder::new().whiteout("a").hard_link("c", "a");
    assert_kind(of(fixture, [lower(), upper]).await, &ErrorKind::Corrupt);
}

async fn hardlink_target_precedes_link_in_output(fixture: &dyn Fixture) {
    let cases = [
        LayerBuilder::new().file("a", 0o644, b"one").hard_link("z", "a"),
        LayerBuilder::new().file("z", 0o644, b"one").hard_link("a", "z"),
        // The link before its target, as GNU tar never writes it and others do.
        LayerBuilder::new().hard_link("z", "a").file("a", 0o644, b"one"),
    ];
    for layer in cases {
        let tree = sound(of(fixture, [layer]).await);
        assert_eq!((what(&tree, "/a"), what(&tree, "/z")), (r#"file 3 "one""#, "= /a"));
        assert_eq!((links(&tree, "/a"), links(&tree, "/z")), (2, 2));
    }
    let deep = LayerBuilder::new().dir("y", 0o755).file("y/file", 0o644, b"one").hard_link("b", "y/file");
    let upper = LayerBuilder::new().hard_link("c", "b");
    let tree = sound(of(fixture, [deep, upper]).await);
    assert_eq!((what(&tree, "/c"), what(&tree, "/y/file")), ("= /b", "= /b"));
    assert_eq!(links(&tree, "/b"), 3);

    let mut seen = Vec::new();
    for LayerEntry { entry, .. } in flat_entries(fixture).await {
        if let EntryKind::HardLink { target } = &entry.kind {
            assert!(seen.contains(target), "{} comes before its target {target}", entry.path);
        }
        seen.push(entry.path);
    }
}

async fn absolute_hardlink_and_symlink_targets_accepted_dotdot_refused(fixture: &dyn Fixture) {
    let layer = LayerBuilder::new()
        .dir("d", 0o755)
        .file("d/file", 0o644, b"one")
        .hard_link("absolute", "/d/file")
        .hard_link("dotted", "./d/file")
        .symlink("up", "../../../etc/passwd")
        .symlink("root", "/d/file")
        .file("/rooted", 0o644, b"");
    let tree = sound(of(fixture, [layer]).await);
    assert_eq!(what(&tree, "/absolute"), r#"file 3 "one""#);
    assert_eq!((what(&tree, "/d/file"), what(&tree, "/dotted")), ("= /absolute", "= /absolute"));
    assert_eq!((what(&tree, "/up"), what(&tree, "/root")), ("-> ../../../etc/passwd", "-> /d/file"));
    assert_eq!(what(&tree, "/rooted"), r#"file 0 """#);

    let refused = [
        LayerBuilder::new().file("../outside", 0o644, b""),
        LayerBuilder::new().dir("d", 0o755).file("d/../../outside", 0o644, b""),
        LayerBuilder::new().file("a", 0o644, b"").hard_link("b", "../a"),
        LayerBuilder::new().hard_link("b", "../../etc/hostname"),
        LayerBuilder::new().hard_link("self", "self"),
        LayerBuilder::new().dir("d", 0o755).hard_link("b", "d"),
        LayerBuilder::new().hard_link("b", "nowhere"),
    ];
    for layer in refused {
        assert_kind(of(fixture, [layer]).await, &ErrorKind::Corrupt);
    }
}

async fn xattrs_caps_devices_sparse_mtime_ns_uid_over_2_21_long_names_non_utf8_preserved(
    fixture: &dyn Fixture,
) {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = "n".repeat(255);
    let deep = format!("{}/{}", "p".repeat(200), "q".repeat(200));
    let layer = LayerBuilder::new()
        .xattr("security.capability", capability)
        .xattr("user.empty", "")
        .xattr("user.note", [0, 255, b'\n', b'='])
        .file("xattrs", 0o4755, b"x")
        .char_device("null", 0o666, 1, 3)
        .block_device("disk", 0o660, 4095, 1_048_575)
        .fifo("pipe", 0o622)
        .sparse_file("sparse", 0o600, 1 << 36, &[(0, b"head"), ((1 << 36) - 4, b"tail")])
        .mtime("1234567890.123456789")
        .file("time", 0o644, b"")
        .mtime("-1.5")
        .file("past", 0o644, b"")
        .owner(3_000_000, 4_000_000_000)
        .file("owner", 0o1777, b"")
        .file(&long, 0o644, b"")
        .file(&deep, 0o644, b"")
        .file(b"caf\xe9", 0o644, b"");
    let subject = open(fixture, &samples::of_layers("layers", &[layer.finish()])).await;
    let source = sound(subject.image("linux/amd64").await);
    let entries = sound(subject.client.layer(&*source, 0).await);
    let extents = entries.into_iter().find_map(|item| match item.entry.kind {
        EntryKind::Node(FileKind::File { size, content: extents }) if size == 1 << 36 => extents,
        _ => None,
    });
    let runs = [DataExtent { offset: 0, length: 4 }, DataExtent { offset: (1 << 36) - 4, length: 4 }];
    assert_eq!(extents, Some(runs.to_vec()), "the holes of a sparse file");
    let tree = sound(subject.client.tree(&*source).await);
    let node =
        |path: &str| tree.iter().find(|line| line.path == path).unwrap_or_else(|| panic!("{path} is lost"));
    let xattrs = node("/xattrs");
    assert_eq!(xattrs.mode, 0o4755);
    assert_eq!(
        xattrs.xattrs,
        [
            r"security.capability=\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            "user.empty=",
            r"user.note=\x00\xff\n=",
        ]
    );
    assert_eq!((node("/null").what.as_str(), node("/null").mode), ("char 1:3", 0o666));
    assert_eq!(node("/disk").what, "block 4095:1048575");
    assert_eq!((node("/pipe").what.as_str(), node("/pipe").mode), ("fifo", 0o622));
    assert!(node("/sparse").what.starts_with("file 68719476736 "), "{}", node("/sparse"));
    assert_eq!(node("/time").mtime, (1_234_567_890, 123_456_789));
    assert_eq!(node("/past").mtime, (-2, 500_000_000));
    assert_eq!((node("/owner").owner, node("/owner").mode), ((3_000_000, 4_000_000_000), 0o1777));
    node(&format!("/{long}"));
    node(&format!("/{deep}"));
    let others = tree.iter().filter(|line| line.path.starts_with("/caf"));
    assert_eq!(others.count(), 1, "a name that is not UTF-8");
}

async fn parent_dirs_before_children_or_synthesised(fixture: &dyn Fixture) {
    let tree = sound(of(fixture, [LayerBuilder::new().file("a/b/c", 0o600, b"")]).await);
    let names: Vec<_> = tree.iter().map(|line| line.path.as_str()).collect();
    assert_eq!(names, ["/", "/a", "/a/b", "/a/b/c"]);
    assert!(tree[..3].iter().all(is_implied), "{tree:?}");

    let late = LayerBuilder::new().file("a/file", 0o600, b"").dir("a", 0o700).owner(7, 7).dir("./", 0o711);
    let tree = sound(of(fixture, [late]).await);
    assert_eq!((tree[0].mode, tree[0].owner, tree[1].mode), (0o711, (7, 7), 0o700));

    let lower = LayerBuilder::new()
        .owner(5, 6)
        .dir("a", 0o700)
        .dir("usr", 0o755)
        .dir("usr/bin", 0o750)
        .symlink("bin", "usr/bin");
    let upper = LayerBuilder::new().file("a/file", 0o600, b"").file("bin/tool", 0o755, b"");
    let tree = sound(of(fixture, [lower, upper]).await);
    let a = tree.iter().find(|line| line.path == "/a").expect("the lower directory is there");
    assert_eq!((a.mode, a.owner), (0o700, (5, 6)), "an implied parent keeps the lower metadata");
    assert_eq!(what(&tree, "/bin"), "-> usr/bin", "an implied parent keeps the lower link");
    assert_eq!(what(&tree, "/usr/bin/tool"), r#"file 0 """#);

    let mut directories = vec![Vec::new()];
    for LayerEntry { entry, .. } in flat_entries(fixture).await {
        let path = entry.path.as_bytes();
        let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&path[..0], |slash| &path[..slash]);
        assert!(
            directories.iter().any(|directory| directory == parent),
            "{} comes before its parent",
            entry.path
        );
        directories.push(path.to_vec());
    }
}

/// The entries of the sample root file system as one tar.
async fn flat_entries(fixture: &dyn Fixture) -> Vec<LayerEntry> {
    let subject = open(fixture, &samples::rootfs()).await;
    let source = sound(subject.image("linux/amd64").await);
    sound(read_tar(sound(subject.client.flat_tar(&*source).await)))
}

async fn file_replaces_dir_and_dir_replaces_file(fixture: &dyn Fixture) {
    let lower = || {
        LayerBuilder::new()
            .dir("x", 0o755)
            .dir("x/sub", 0o755)
            .file("x/sub/file", 0o644, b"")
            .file("y", 0o644, b"")
    };
    let upper = LayerBuilder::new().file("x", 0o600, b"now a file").dir("y", 0o711).file("y/new", 0o644, b"");
    let tree = sound(of(fixture, [lower(), upper]).await);
    let names: Vec<_> = tree.iter().map(|line| line.path.as_str()).collect();
    assert_eq!(names, ["/", "/x", "/y", "/y/new"]);
    assert_eq!((what(&tree, "/x"), what(&tree, "/y")), (r#"file 10 "now a file""#, "dir"));

    // And back again: nothing of the first directory shines through.
    let layers = [
        lower(),
        LayerBuilder::new().symlink("x", "y"),
        LayerBuilder::new().dir("x", 0o755).file("x/new", 0o644, b""),
    ];
    let names: Vec<_> = sound(of(fixture, layers).await).into_iter().map(|line| line.path).collect();
    assert_eq!(names, ["/", "/x", "/x/new", "/y"]);
}

/// The tree of an image of these layers.
async fn of(fixture: &dyn Fixture, layers: impl IntoIterator<Item = LayerBuilder>) -> Result<Vec<TreeLine>> {
    let layers: Vec<_> = layers.into_iter().map(LayerBuilder::finish).collect();
    flat(&open(fixture, &samples::of_layers("layers", &layers)).await).await
}

/// The tree of the first image.
async fn flat(subject: &BackendUnderTest) -> Result<Vec<TreeLine>> {
    let source: Box<dyn ImageSource> = subject.image("linux/amd64").await?;
    subject.client.tree(&*source).await
}

fn what<'a>(tree: &'a [TreeLine], path: &str) -> &'a str {
    tree.iter().find(|line| line.path == path).map_or("", |line| line.what.as_str())
}

fn links(tree: &[TreeLine], path: &str) -> u32 {
    tree.iter().find(|line| line.path == path).map_or(0, |line| line.links)
}

/// Compares line by line, so that the message is about one line.
#[track_caller]
fn assert_lines(actual: &str, expected: &str) {
    for (number, (actual, expected)) in actual.lines().zip(expected.lines()).enumerate() {
        assert_eq!(actual, expected, "line {}", number + 1);
    }
    assert_eq!(actual.lines().count(), expected.lines().count(), "number of lines");
}
