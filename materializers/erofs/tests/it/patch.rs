//! Changes appended to finished images.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{Cursor, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::ErrorKind;
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_erofs::{Compression, ErofsFault, ErofsPatch, Options, Patched, Reader};
use tempfile::TempPath;

use crate::common::{
    compressed, flat, image, merged, patch, patch_by, rich_change, rich_layer, shared_attributes, text,
    varied_change, varied_layer,
};
use crate::listing;

fn by(algorithm: &str, cluster: u32) -> Compression {
    Compression::new(algorithm.parse().unwrap()).unwrap().with_cluster(cluster).unwrap()
}

fn of_bytes(bytes: &[u8]) -> TempPath {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.into_temp_path()
}

fn of_blocks(bytes: u32) -> Options {
    Options::default().with_block_size(bytes).unwrap()
}

/// Patches, and compares with the image of all layers; the patched image.
fn check(image: &Path, base: &[Vec<u8>], changes: &[Vec<u8>], name: &str) -> Patched {
    let before = fs::read(image).unwrap();
    let patched = patch(image, changes).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    let layers = [base, changes].concat();
    assert!(listing(image) == listing(&flat(&layers, Options::default()).unwrap()), "{name}");
    let after = fs::read(image).unwrap();
    assert_eq!(after.len() as u64, patched.size, "{name}");
    assert_eq!(patched.old_size, before.len() as u64, "{name}");
    // Nothing of the old image is overwritten but the superblock.
    assert!(after[..1024] == before[..1024] && after[1152..before.len()] == before[1152..], "{name}");
    patched
}

#[test]
fn a_patched_image_is_that_of_all_layers() {
    for size in [512, 1024, 2048, 4096] {
        let made = flat(&[rich_layer()], of_blocks(size)).unwrap();
        check(&made, &[rich_layer()], &[rich_change()], &size.to_string());
        let made = image(rich_layer(), of_blocks(size)).unwrap();
        check(&made, &[rich_layer()], &[rich_change()], "a layer without marks");
    }
    for (algorithm, cluster) in [("lz4", 4096), ("lz4", 65_536), ("lz4hc", 16_384), ("zstd", 65_536)] {
        let made = compressed(&[varied_layer()], by(algorithm, cluster)).unwrap();
        check(&made, &[varied_layer()], &[varied_change()], algorithm);
    }
    let made = flat(&[LayerBuilder::new().finish()], Options::default()).unwrap();
    check(&made, &[], &[rich_layer(), rich_change(), LayerBuilder::new().finish()], "an empty image");
}

#[test]
fn images_of_mkfs_are_patched() {
    for (name, bytes) in crate::mkfs::samples() {
        let image = of_bytes(&bytes);
        if name.starts_with("48bit") || name.starts_with("metabox") {
            let error = refused(&image, &[varied_change()], &ErrorKind::Unsupported);
            assert!(matches!(error.detail(), Some(ErofsFault::PatchFeatures(_))), "{name}: {error:?}");
            continue;
        }
        check(&image, &[varied_layer()], &[varied_change()], &name);
        // All the same once more, with nothing to do.
        check(&image, &[varied_layer(), varied_change()], &[LayerBuilder::new().finish()], &name);
    }
}

/// An inode that shared its attributes with a file that is gone is larger than before: what stands behind it is at
/// another place, or no longer in its block.
#[test]
fn what_no_longer_fits_behind_an_inode_is_moved() {
    let (layer, alone) = shared_attributes();
    let layer = [layer];
    for kept in ["inline-3", "text-163845"] {
        let other = if kept == "inline-3" { "text-163845" } else { "inline-3" };
        let changes = [alone.clone(), LayerBuilder::new().whiteout(other).finish()];
        let made = flat(&layer, Options::default()).unwrap();
        let patched = check(&made, &layer, &changes, kept);
        assert_eq!(patched.data > 0, kept == "inline-3", "{kept}");
        for cluster in [4096, 16_384, 65_536] {
            for algorithm in ["lz4", "zstd"] {
                let made = compressed(&layer, by(algorithm, cluster)).unwrap();
                check(&made, &layer, &changes, kept);
                let is_full = kept != "inline-3" && full_inodes(&fs::read(&made).unwrap()) > 0;
                assert_eq!(is_full, kept != "inline-3", "{algorithm} {cluster}");
            }
        }
    }
}

/// How many regular files of an image have full indexes.
fn full_inodes(image: &[u8]) -> usize {
    let number = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
    let metadata = 4096 * usize::from(number(1024 + 40));
    let inodes = (metadata..image.len() - 64).step_by(32);
    inodes.filter(|at| number(*at) >> 1 == 1 && number(at + 4) & 0o170_000 == 0o100_000).count()
}

#[test]
fn ten_patches_are_as_one_image_of_all_layers() {
    let (made, small) = (compressed(&[varied_layer()], by("lz4", 16_384)).unwrap(), of_blocks(512));
    let other = flat(&[varied_layer()], small).unwrap();
    let mut layers = vec![varied_layer()];
    for number in 0..10_u64 {
        let size = usize::try_from(number * 1_000).unwrap();
        let change = LayerBuilder::new()
            .file(format!("new-{number}"), 0o644, &text(size, number))
            .whiteout(&format!("new-{}", number.wrapping_sub(2)))
            .hard_link(format!("link-{number}"), "mixed")
            .finish();
        for image in [&made, &other] {
            check(image, &layers, std::slice::from_ref(&change), &number.to_string());
        }
        layers.push(change);
    }
}

#[test]
fn the_old_superblock_gives_the_old_image() {
    let made = flat(&[rich_layer()], Options::default()).unwrap();
    let (before, old) = (fs::read(&made).unwrap(), listing(&made));
    patch(&made, &[rich_change()]).unwrap();
    assert_ne!(listing(&made), old);
    let file = File::options().write(true).open(&made).unwrap();
    file.write_all_at(&before[1024..1152], 1024).unwrap();
    assert_eq!(listing(&made), old);
}

#[test]
fn the_same_changes_give_the_same_bytes() {
    let run = |by: &ErofsPatch| {
        let made = flat(&[rich_layer()], Options::default()).unwrap();
        let patched = patch_by(by, &made, &[rich_change(), varied_layer()]).unwrap();
        (fs::read(&made).unwrap(), patched)
    };
    let (bytes, patched) = run(&ErofsPatch::default());
    assert!(run(&ErofsPatch::default()) == (bytes.clone(), patched.clone()));
    assert!(run(&ErofsPatch::default().without_sync()) == (bytes.clone(), patched.clone()));
    let made = flat(&[rich_layer()], Options::default()).unwrap();
    let old = Reader::new(File::open(&made).unwrap()).unwrap().uuid();
    let new = Reader::new(Cursor::new(bytes)).unwrap().uuid();
    assert_eq!(patched.uuid, new);
    assert_ne!(old, new);
    let (bytes, patched) = run(&ErofsPatch::default().with_uuid([7; 16]));
    assert_eq!((Reader::new(Cursor::new(bytes)).unwrap().uuid(), patched.uuid), ([7; 16], [7; 16]));
    assert_eq!(patched.diff_ids.len(), 2);
}

/// The image stays as it was, byte for byte.
#[track_caller]
fn refused(image: &Path, changes: &[Vec<u8>], kind: &ErrorKind) -> plyfold_core::Error {
    let before = fs::read(image).unwrap();
    let error = patch(image, changes).unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(fs::read(image).unwrap() == before, "{error}");
    error
}

#[test]
fn files_that_must_not_change_are_refused() {
    let made = flat(&[rich_layer()], Options::default()).unwrap();
    let link = made.with_extension("link");
    fs::hard_link(&made, &link).unwrap();
    let error = refused(&made, &[], &ErrorKind::Config);
    assert!(matches!(error.detail(), Some(ErofsFault::PatchNames(2))), "{error:?}");
    fs::remove_file(&link).unwrap();
    let file = File::options().read(true).write(true).open(&made).unwrap();
    fs::set_permissions(&made, Permissions::from_mode(0o444)).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let error = ErofsPatch::default().apply(&file, [], scratch.path()).unwrap_err();
    assert!(matches!(error.detail(), Some(ErofsFault::PatchReadOnly)), "{error:?}");
    fs::set_permissions(&made, Permissions::from_mode(0o644)).unwrap();
    file.lock().unwrap();
    let error = refused(&made, &[], &ErrorKind::Unavailable);
    assert!(matches!(error.detail(), Some(ErofsFault::PatchLocked)), "{error:?}");
    file.unlock().unwrap();
    let folder = File::open(scratch.path()).unwrap();
    let error = ErofsPatch::default().apply(&folder, [], scratch.path()).unwrap_err();
    assert!(matches!(error.detail(), Some(ErofsFault::PatchKind)), "{error:?}");
    // The lock is gone with the call.
    patch(&made, &[]).unwrap();
    patch(&made, &[]).unwrap();
}

#[test]
fn images_that_cannot_be_kept_are_refused() {
    let layers = [image(rich_layer(), Options::default()).unwrap()];
    let joined = merged(&layers, Options::default()).unwrap();
    let error = refused(&joined, &[], &ErrorKind::Unsupported);
    assert!(matches!(error.detail(), Some(ErofsFault::PatchDevices(1))), "{error:?}");
    let marks = [
        LayerBuilder::new().dir("./", 0o755).dir("d", 0o755).whiteout("d/gone"),
        LayerBuilder::new().dir("./", 0o755).dir("d", 0o755).opaque("d"),
        LayerBuilder::new().file("no/root", 0o755, b""),
    ];
    for marked in marks {
        let layer = image(marked.finish(), Options::default()).unwrap();
        let error = refused(&layer, &[rich_change()], &ErrorKind::Unsupported);
        assert!(matches!(error.detail(), Some(ErofsFault::PatchOverlayMark(_))), "{error:?}");
    }
    // Features of Linux 6.15, and those that only writers have to know.
    let made = flat(&[rich_layer()], Options::default()).unwrap();
    for (at, value) in [(80, 0x80), (81, 2), (8, 0x23), (90, 1)] {
        let mut bytes = fs::read(&made).unwrap();
        bytes[1024 + at] = value;
        sum(&mut bytes);
        refused(&of_bytes(&bytes), &[rich_change()], &ErrorKind::Unsupported);
    }
    for bytes in [&b""[..], b"no image", &[0; 8192]] {
        refused(&of_bytes(bytes), &[rich_change()], &ErrorKind::Corrupt);
    }
}

fn sum(bytes: &mut [u8]) {
    let end = if bytes[1024 + 12] == 12 { 4096 } else { 1024 + (1 << bytes[1024 + 12]).min(1024) };
    bytes[1028..1032].fill(0);
    let sum = !crc32c::crc32c(&bytes[1024..end]);
    bytes[1028..1032].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn what_stands_behind_an_image_is_kept() {
    for size in [512, 4096] {
        let made = flat(&[rich_layer()], of_blocks(size)).unwrap();
        let bytes = fs::read(&made).unwrap();
        let error = refused(&of_bytes(&[&bytes[..], b"x"].concat()), &[], &ErrorKind::Config);
        assert!(matches!(error.detail(), Some(ErofsFault::PatchTail(_, 1))), "{error:?}");
        let mut tree = bytes.clone();
        tree.resize(bytes.len().next_multiple_of(4096), 0);
        tree.extend_from_slice(b"verity\0\0");
        tree.extend_from_slice(&[1; 4096]);
        let error = refused(&of_bytes(&tree), &[], &ErrorKind::Unsupported);
        assert!(matches!(error.detail(), Some(ErofsFault::PatchVerity)), "{error:?}");
        // Zeros are room.
        let mut padded = bytes.clone();
        padded.resize(2 << 20, 0);
        let image = of_bytes(&padded);
        refused(&image, &[rich_layer()[..700].to_vec()], &ErrorKind::Corrupt);
        patch(&image, &[rich_change()]).unwrap();
        patch(&made, &[rich_change()]).unwrap();
        assert_eq!(fs::metadata(&image).unwrap().len(), 2 << 20);
        let same = listing(&image) == listing(&made);
        assert!(same);
    }
}

#[test]
fn bad_changes_leave_the_image_as_it_is() {
    let made = flat(&[rich_layer()], Options::default()).unwrap();
    let deep = (0..2100).fold(String::new(), |path, _| path + "d/");
    let tars = [
        (LayerBuilder::new().file("../outside", 0o644, b"x").finish(), ErrorKind::Corrupt),
        (LayerBuilder::new().hard_link("link", "no/such/file").finish(), ErrorKind::Corrupt),
        (LayerBuilder::new().hard_link("link", "etc").finish(), ErrorKind::Corrupt),
        (LayerBuilder::new().file(deep, 0o644, b"").finish(), ErrorKind::Limit),
        (
            LayerBuilder::new().xattr("user.long", vec![b'x'; 70_000]).file("f", 0o644, b"").finish(),
            ErrorKind::Limit,
        ),
        (rich_change()[..3_000].to_vec(), ErrorKind::Corrupt),
        (vec![7; 4096], ErrorKind::Corrupt),
    ];
    for (number, (tar, kind)) in tars.into_iter().enumerate() {
        let before = fs::read(&made).unwrap();
        // What is sound before it is not kept, either.
        let Err(error) = patch(&made, &[rich_change(), tar]) else { panic!("tar {number} was taken") };
        assert_eq!(*error.kind(), kind, "tar {number}: {error:?}");
        assert!(fs::read(&made).unwrap() == before, "tar {number}");
    }
}

/// Whatever an image says: an error that leaves it as it is, or an image in which what stays is what it was.
#[test]
fn damaged_images_are_patched_or_refused() {
    let mut state = 3_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let plain = flat(&[rich_layer()], Options::default()).unwrap();
    let mut samples = vec![fs::read(&plain).unwrap()];
    samples.extend(
        crate::mkfs::samples()
            .into_iter()
            .filter(|(name, _)| !name.starts_with("48bit"))
            .map(|(_, bytes)| bytes),
    );
    let change = LayerBuilder::new().file("added", 0o644, b"added").finish();
    let (mut taken, mut rounds) = (0, 0);
    for sample in samples {
        let block = u32::from_le_bytes(sample[1024 + 40..][..4].try_into().unwrap());
        let metadata = 4096 * usize::try_from(block).unwrap();
        for round in 0..12 {
            let mut bytes = sample.clone();
            for _ in 0..=random(3) {
                let at = match round % 3 {
                    0 => 1024 + random(128),
                    1 => metadata + random((bytes.len() - metadata).min(8192)),
                    _ => metadata + random(bytes.len() - metadata),
                };
                bytes[at] =
                    [0, 0xff, 1, 0x80, bytes[at] ^ 1, bytes[at].wrapping_add(1), bytes[at] ^ 0x20][random(7)];
            }
            sum(&mut bytes);
            let image = of_bytes(&bytes);
            rounds += 1;
            let outcome = patch(&image, std::slice::from_ref(&change));
            let after = fs::read(&image).unwrap();
            if outcome.is_err() {
                assert!(after == bytes);
                continue;
            }
            taken += 1;
            let is_same = |masked: bool| names(&bytes, masked) == names(&after, masked);
            assert!(is_same(false) || is_same(true));
        }
    }
    assert!(taken > rounds / 8 && taken < rounds, "{taken} of {rounds} were taken");
}

/// Each name but `added`, with what its content is, or the kind of the error that reading it gives.
fn names(bytes: &[u8], masked: bool) -> Vec<(String, String)> {
    let mut reader = Reader::new(Cursor::new(bytes)).unwrap();
    let tree = reader.tree().unwrap();
    let mut names = Vec::new();
    for (path, id) in tree.walk().filter(|(path, _)| !matches!(path.as_bytes(), b"" | b"added")) {
        let node = tree.node(id);
        let mut what = format!("{:o} {} {} {:?}", node.mode, node.uid, node.gid, node.mtime);
        if let plyfold_core::tree::Kind::File { size, content } = &node.kind {
            let mut data = vec![0; (*size).min(1 << 18).try_into().unwrap()];
            let mut at = 0;
            while at < data.len() {
                match reader.read(content, *size, at as u64, &mut data[at..]) {
                    Ok(0) => break,
                    Ok(count) => at += count,
                    Err(e) => {
                        write!(what, "{:?}", e.kind()).unwrap();
                        break;
                    }
                }
            }
            // What a damaged file has of the superblock is another one afterwards.
            let is_left_out = masked && data.windows(4).any(|bytes| bytes == 0xE0F5_E1E2_u32.to_le_bytes());
            let sum = if is_left_out { 0 } else { crc32c::crc32c(&data[..at]) };
            write!(what, "{at} {sum}").unwrap();
        }
        names.push((path.to_string(), what));
    }
    names
}

/// A change is read once, from the start to the end, as from a pipe.
#[test]
fn changes_come_from_a_pipe() {
    let made = flat(&[rich_layer()], Options::default()).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let change = rich_change();
    let sent = std::thread::spawn(move || writer.write_all(&change));
    let tar = LayerTar::new(reader.take(u64::MAX), LayerOptions::default());
    let file = File::options().read(true).write(true).open(&made).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    ErofsPatch::default().apply(&file, [tar], scratch.path()).unwrap();
    sent.join().unwrap().unwrap();
    let all = flat(&[rich_layer(), rich_change()], Options::default()).unwrap();
    assert_eq!(listing(&made), listing(&all));
}
