//! Tars behind an index: the layer's `diff_id` is the digest of the file's end, and the tree is that of the layer.

use std::fs::{self, File};
use std::io::Cursor;

use plyfold_conformance::samples::{LayerBuilder, gzip};
use plyfold_core::digest::sha256;
use plyfold_core::files::Files as _;
use plyfold_core::layer::{Hashing, LayerOptions, LayerTar, TreeLimits};
use plyfold_core::{ErrorKind, InputArtifact, Made, Materializer as _, Result};
use plyfold_erofs::{ErofsFiles, ErofsTar, Options, OverlayFault, Reader, Summary};
use plyfold_verity::TreeLayout;
use tempfile::{NamedTempFile, TempPath};

use super::common::{image, rich_layer};
use super::listing;

fn indexed_with(tar: Vec<u8>, options: LayerOptions) -> Result<(TempPath, Made)> {
    let mut file = NamedTempFile::new()?;
    let made =
        ErofsTar::default().layer(&mut LayerTar::new(Cursor::new(tar), options)?, file.as_file_mut())?;
    Ok((file.into_temp_path(), made))
}

fn indexed(tar: Vec<u8>) -> Result<TempPath> {
    indexed_with(tar, LayerOptions::default()).map(|(path, _)| path)
}

/// What stands behind the index, and where that begins.
fn tail(path: &TempPath) -> (usize, Vec<u8>) {
    let summary = Summary::read(File::open(path).unwrap()).unwrap();
    let start = summary.blocks as usize * 512;
    (start, fs::read(path).unwrap().split_off(start))
}

#[test]
fn the_end_of_the_file_is_the_tar() {
    // What stands behind the entries belongs to it, too.
    let trailing = [rich_layer(), b"trailing".to_vec(), vec![0; 10_000]].concat();
    let short = rich_layer()[..rich_layer().len() - 1024].to_vec();
    for tar in [rich_layer(), LayerBuilder::new().finish(), trailing, short, Vec::new()] {
        for compressed in [tar.clone(), gzip(&[&tar])] {
            let (path, made) = indexed_with(compressed, LayerOptions::default()).unwrap();
            let (start, behind) = tail(&path);
            assert!(start.is_multiple_of(4096), "{start}");
            assert_eq!(sha256(&behind[..tar.len()]), sha256(&tar));
            assert!(behind[tar.len()..].iter().all(|byte| *byte == 0));
            assert_eq!(behind.len(), tar.len().next_multiple_of(512));
            assert_eq!(made.notes.len(), usize::from(behind.len() != tar.len()), "{:?}", made.notes);
            assert_eq!((made.kernel.unwrap().major, made.kernel.unwrap().minor), (6, 4));
            let summary = Summary::read(File::open(&path).unwrap()).unwrap();
            let device = &summary.devices[0];
            assert_eq!(device.tag, sha256(&tar).digest().as_bytes());
            assert_eq!((device.start as usize * 512, device.blocks as usize * 512), (start, behind.len()));
        }
    }
}

#[test]
fn it_has_what_the_layer_has() {
    let whiteouts = || {
        LayerBuilder::new()
            .dir("d", 0o700)
            .whiteout("d/gone")
            .opaque("opaque")
            .file("opaque/new", 0o644, &[9; 513])
            .hard_link("lower", "of/a/lower/layer")
            .finish()
    };
    for tar in [rich_layer(), whiteouts()] {
        let (ours, layer) = (indexed(tar.clone()).unwrap(), image(tar, Options::default()).unwrap());
        assert_eq!(listing(&ours), listing(&layer));
    }
}

/// Their runs begin anywhere.
#[test]
fn sparse_files_are_copied_with_their_holes() {
    let tar = LayerBuilder::new()
        .file("before", 0o644, &[1; 700])
        .sparse_file("sparse", 0o644, 1 << 25, &[(700, b"first"), ((1 << 25) - 4, b"last")])
        .file("behind", 0o644, &[2; 700])
        .finish();
    let path = indexed(tar.clone()).unwrap();
    let (start, behind) = tail(&path);
    assert_eq!(behind, tar);
    assert!(start < 2 << 20, "{start}");
    let reader = Reader::new(File::open(&path).unwrap()).unwrap();
    let mut files = ErofsFiles::new(reader).unwrap();
    for (name, byte) in [(b"before", 1), (b"behind", 2)] {
        let mut content = Vec::new();
        let mut take = |bytes: &[u8]| {
            content.extend_from_slice(bytes);
            Ok(())
        };
        files.read(name, &mut take).unwrap();
        assert_eq!(content, [byte; 700]);
    }
    let (mut at, mut found) = (0_u64, Vec::new());
    files
        .read(b"sparse", &mut |bytes| {
            found.extend(
                bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(index, _)| at + index as u64),
            );
            at += bytes.len() as u64;
            Ok(())
        })
        .unwrap();
    assert_eq!(at, 1 << 25);
    assert_eq!(found, [(700..705).collect::<Vec<_>>(), ((1 << 25) - 4..1 << 25).collect()].concat());
}

#[test]
fn a_tar_that_is_not_hashed_has_a_tag_all_the_same() {
    let options = LayerOptions { hashing: Hashing::Nothing, ..LayerOptions::default() };
    let (path, _) = indexed_with(rich_layer(), options).unwrap();
    let summary = Summary::read(File::open(&path).unwrap()).unwrap();
    assert_eq!((&*summary.devices[0].tag, summary.uuid), (&b"tar"[..], [0; 16]));
}

#[test]
fn a_bad_tar_is_an_error() {
    let tar = rich_layer();
    let wrong = LayerOptions { diff_id: Some(sha256(b"other")), ..LayerOptions::default() };
    assert_eq!(*indexed_with(tar.clone(), wrong).unwrap_err().kind(), ErrorKind::Corrupt);
    for end in [100, 700, tar.len() / 2 - tar.len() / 2 % 512 + 77] {
        assert_eq!(*indexed(tar[..end].to_vec()).unwrap_err().kind(), ErrorKind::Corrupt, "{end}");
    }
    // The copy has to begin with the first byte.
    let mut begun = LayerTar::new(Cursor::new(tar), LayerOptions::default()).unwrap();
    begun.next_entry().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    assert_eq!(*ErofsTar::default().layer(&mut begun, &mut file).unwrap_err().kind(), ErrorKind::Internal);
}

/// As for the layers' images without their tars.
#[test]
fn what_overlayfs_does_not_show_is_found() {
    let layers = [
        LayerBuilder::new().dir("d", 0o700).file("d/file", 0o644, b"1").file("other", 0o644, b"2").finish(),
        LayerBuilder::new().hard_link("second", "d/file").finish(),
    ];
    let layers = layers.map(|tar| indexed(tar).unwrap());
    let artifacts: Vec<_> = layers.iter().map(|path| InputArtifact::local(path, None).unwrap()).collect();
    let found = ErofsTar::overlay_differences(&artifacts, &TreeLimits::default(), false).unwrap();
    assert_eq!((found.count, found.examples[0].fault), (1, OverlayFault::Unreadable));
    assert_eq!(
        ErofsTar::overlay_differences(&artifacts[..1], &TreeLimits::default(), true).unwrap().count,
        0
    );
}

/// Pinned: a change of these bytes raises the format's version.
#[test]
fn same_input_same_bytes() {
    let digest = sha256(&fs::read(indexed(rich_layer()).unwrap()).unwrap());
    assert_eq!(digest.digest(), "77359ae513b905db328a2385c273e55a09976cc7848c397225c0424823aa9d75");
    assert_eq!(ErofsTar::default().format().to_string(), "erofs-tar-v1");
}

/// The same file, and a tree of it in blocks of 512 bytes, as containerd has it.
#[test]
fn a_hash_tree_follows_the_tar() {
    for tar in [rich_layer(), [rich_layer(), b"trailing".to_vec()].concat()] {
        let plain = indexed(tar.clone()).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        let mut layer = LayerTar::new(Cursor::new(tar), LayerOptions::default()).unwrap();
        let made = ErofsTar::default().with_hash_tree().layer(&mut layer, file.as_file_mut()).unwrap();
        let tree = made.hash_tree.unwrap();
        assert_eq!(
            (tree.data_block_size, tree.hash_block_size, tree.hash_offset),
            (512, 512, tree.data_size())
        );
        assert!(fs::read(&file).unwrap()[..tree.data_size() as usize] == fs::read(&plain).unwrap());
        let found = TreeLayout::find(file.as_file()).unwrap().unwrap().0;
        assert_eq!(found.hash_offset(), tree.hash_offset);
        assert_eq!(listing(&file.into_temp_path()), listing(&plain));
    }
}

/// A copy that fails is the error of the call that reads.
#[test]
fn a_full_disk_is_an_error_of_the_reader() {
    let mut tar = LayerTar::new(Cursor::new(rich_layer()), LayerOptions::default()).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    tar.copy_to(full).unwrap();
    let outcome = std::iter::from_fn(|| tar.next_entry().transpose()).find_map(Result::err);
    let error = outcome.or_else(|| tar.finish().err()).unwrap();
    assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
}
