//! Layers stacked into one tree, and the content of its files read back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::FileExt as _;

use plyfold_core::digest::sha256;
use plyfold_core::layer::{Hashing, LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::{Kind, MergedTree, NodeId};
use plyfold_core::{Error, ErrorKind, Result};

use super::archive::{Archive, Header, open};

fn merged(layers: &[Vec<u8>]) -> Result<MergedTree> {
    merged_within(layers, TreeLimits::default())
}

fn merged_within(layers: &[Vec<u8>], limits: TreeLimits) -> Result<MergedTree> {
    let scratch = tempfile::tempdir().unwrap();
    let open = layers.iter().map(|layer| Ok(open(layer, LayerOptions::default())));
    // The content outlives the folder's name.
    MergedTree::read(open, limits, scratch.path())
}

/// A sparse file in GNU format 1.0.
pub(super) fn sparse(archive: Archive, name: &str, size: u64, runs: &[(u64, &[u8])]) -> Archive {
    let mut data = format!("{}\n", runs.len());
    for (offset, run) in runs {
        write!(data, "{offset}\n{}\n", run.len()).unwrap();
    }
    let mut data = data.into_bytes();
    data.resize(data.len().next_multiple_of(512), 0);
    data.extend(runs.iter().flat_map(|(_, run)| *run));
    let archive = archive.pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", name.as_bytes()),
        ("GNU.sparse.realsize", size.to_string().as_bytes()),
    ]);
    archive.file(name, &data)
}

/// They would mean something to overlayfs, wherever the tree is written.
#[test]
fn overlayfs_own_attributes_are_left_out() {
    let header = |xattr: &str| {
        let archive = Archive::default()
            .pax(&[(&format!("SCHILY.xattr.{xattr}"), b"y"), ("SCHILY.xattr.user.kept", b"1")]);
        archive.file("f", b"data").end()
    };
    for xattr in ["trusted.overlay.opaque", "user.overlay.redirect"] {
        let image = merged(&[header(xattr)]).unwrap();
        let xattrs = image.tree().node(find(&image, "f")).xattrs.to_vec();
        assert_eq!(xattrs, [(b"user.kept".to_vec(), b"1".to_vec())], "{xattr}");
    }
}

#[test]
fn the_digests_of_the_layers_are_known_unless_they_were_not_hashed() {
    let tars = [Archive::default().file("f", b"1").end(), Archive::default().file("g", b"2").end()];
    let image = merged(&tars).unwrap();
    assert_eq!(image.diff_ids(), tars.each_ref().map(|tar| Some(sha256(tar))));
    let unhashed = LayerOptions { hashing: Hashing::Nothing, ..LayerOptions::default() };
    let scratch = tempfile::tempdir().unwrap();
    let layers = [Ok(open(&tars[0], LayerOptions::default())), Ok(open(&tars[1], unhashed))];
    let image = MergedTree::read(layers, TreeLimits::default(), scratch.path()).unwrap();
    assert_eq!(image.diff_ids(), [Some(sha256(&tars[0])), None]);
}

pub(super) fn find(image: &MergedTree, path: &str) -> NodeId {
    let found = image.tree().walk().find(|(own, _)| own.as_bytes() == path.as_bytes());
    found.unwrap_or_else(|| panic!("{path} is missing")).1
}

pub(super) fn content(image: &MergedTree, path: &str) -> Vec<u8> {
    let id = find(image, path);
    let Kind::File { size, .. } = image.tree().node(id).kind else { panic!("{path} is no file") };
    let mut content = vec![0xee; usize::try_from(size).unwrap()];
    assert_eq!(image.read_at(id, 0, &mut content).unwrap(), content.len(), "{path}");
    content
}

/// Bytes that are like no others.
pub(super) fn bytes(seed: usize, count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 7 + at / 251 + seed) as u8 | 1).collect()
}

#[test]
fn every_file_has_its_own_content() {
    let sizes = [0, 1, 511, 4095, 4096, 4097, 300_000, 3, 8192];
    let layers: Vec<_> = (0..3)
        .map(|layer| {
            let files = sizes.iter().enumerate().fold(Archive::default(), |archive, (at, size)| {
                archive.file(format!("{layer}-{at}"), &bytes(layer * 100 + at, *size))
            });
            files.file("same", &bytes(layer, 5_000)).end()
        })
        .collect();
    let image = merged(&layers).unwrap();
    for layer in 0..3 {
        for (at, size) in sizes.iter().enumerate() {
            assert_eq!(content(&image, &format!("{layer}-{at}")), bytes(layer * 100 + at, *size));
        }
    }
    assert_eq!(content(&image, "same"), bytes(2, 5_000), "the uppermost one");
}

#[test]
fn layers_stack_as_in_every_format() {
    let lower = Archive::default()
        .file("d/gone", b"1")
        .file("d/kept", b"2")
        .file("opaque/old", b"3")
        .file("linked", &bytes(1, 9_000))
        .end();
    let upper = Archive::default()
        .header(Header::link("link", b'1', "linked"))
        .file("linked", b"new")
        .file("d/.wh.gone", b"a whiteout has no content")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"4")
        .end();
    let image = merged(&[lower, upper]).unwrap();
    let paths: Vec<_> = image.tree().walk().map(|(path, _)| path.to_string()).collect();
    assert_eq!(paths, ["/", "/d", "/d/kept", "/link", "/linked", "/opaque", "/opaque/new"]);
    assert_eq!(content(&image, "link"), bytes(1, 9_000), "a link to what the layer replaces");
    assert_eq!(content(&image, "linked"), b"new");
    assert_eq!((content(&image, "d/kept"), content(&image, "opaque/new")), (b"2".to_vec(), b"4".to_vec()));
}

#[test]
fn a_hard_link_over_layers_is_one_file() {
    let lower = Archive::default().file("f", b"content").end();
    let upper = Archive::default().header(Header::link("g", b'1', "f")).end();
    let image = merged(&[lower, upper]).unwrap();
    assert_eq!(find(&image, "f"), find(&image, "g"));
    assert_eq!(image.tree().links(find(&image, "f")), 2);
    assert_eq!(content(&image, "g"), b"content");
}

/// Every window over a file's holes and runs, against the file as it is.
#[test]
fn holes_read_as_zeros_and_are_no_extents() {
    let (long, short) = (bytes(3, 10_000), bytes(4, 7));
    let runs: [(u64, &[u8]); 4] = [(100, &short), (5_000, &long), (15_000, &short), (40_959, &short[..1])];
    let mut expected = vec![0; 50_000];
    for (offset, run) in runs {
        let at = usize::try_from(offset).unwrap();
        expected[at..at + run.len()].copy_from_slice(run);
    }
    let layer = sparse(Archive::default().file("before", b"x"), "s", 50_000, &runs).file("after", b"y");
    let image = merged(&[sparse(layer, "hole", 1 << 40, &[]).end()]).unwrap();
    assert_eq!(content(&image, "s"), expected);
    let id = find(&image, "s");
    for offset in (0..50_000).step_by(997).chain([99, 100, 106, 107, 14_999, 40_958, 40_959, 49_999]) {
        for length in [1, 2, 8, 4_096, 30_000, 60_000] {
            let mut buffer = vec![0xee; length];
            let count = image.read_at(id, offset as u64, &mut buffer).unwrap();
            assert_eq!(count, length.min(50_000 - offset), "{offset}, {length}");
            assert_eq!(buffer[..count], expected[offset..offset + count], "{offset}, {length}");
            assert!(buffer[count..].iter().all(|byte| *byte == 0xee), "touched beyond the end");
        }
    }
    let extents: Vec<_> = image.extents(id).map(|extent| (extent.offset, extent.length)).collect();
    // The second and the third are adjacent.
    assert_eq!(extents, [(100, 7), (5_000, 10_007), (40_959, 1)]);

    let hole = find(&image, "hole");
    assert_eq!(image.extents(hole).count(), 0);
    let mut buffer = [0xee; 10];
    assert_eq!(image.read_at(hole, (1 << 40) - 4, &mut buffer).unwrap(), 4);
    assert_eq!(buffer, [0, 0, 0, 0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);
}

#[test]
fn extents_name_the_bytes_and_long_ones_keep_their_place_in_a_block() {
    let contents = BTreeMap::from([
        ("a", bytes(1, 1)),
        ("b", bytes(2, 4_096)),
        ("c", bytes(3, 100)),
        ("d", bytes(4, 70_001)),
        ("e", bytes(5, 4_097)),
    ]);
    let files = contents.iter().fold(Archive::default(), |archive, (name, data)| archive.file(name, data));
    let data = bytes(6, 9_000);
    let image = merged(&[sparse(files, "s", 1 << 20, &[(5_000, &data), (600_000, &data)]).end()]).unwrap();
    for (name, expected) in &contents {
        let [extent] = image.extents(find(&image, name)).collect::<Vec<_>>()[..] else {
            panic!("{name} is more than one run")
        };
        let mut read = vec![0; expected.len()];
        extent.file.read_exact_at(&mut read, extent.at).unwrap();
        assert_eq!((extent.offset, &read), (0, expected), "{name}");
        assert!(extent.length < 4_096 || extent.at.is_multiple_of(4_096), "{name} at {}", extent.at);
    }
    for extent in image.extents(find(&image, "s")) {
        let mut read = vec![0; 9_000];
        extent.file.read_exact_at(&mut read, extent.at).unwrap();
        assert_eq!(read, data);
        assert_eq!(extent.at % 4_096, extent.offset % 4_096);
    }
}

#[test]
fn what_is_no_regular_file_has_no_content() {
    let layer = Archive::default()
        .header(Header::new("d/", b'5', 0))
        .header(Header::link("l", b'2', "target"))
        .header(Header::new("fifo", b'6', 0))
        .file("empty", b"")
        .end();
    let image = merged(&[layer]).unwrap();
    for path in ["", "d", "l", "fifo", "empty"] {
        let id = find(&image, path);
        assert_eq!(image.read_at(id, 0, &mut [0; 8]).unwrap(), 0, "{path}");
        assert_eq!(image.extents(id).count(), 0, "{path}");
    }
    let file = merged(&[Archive::default().file("f", b"12345").end()]).unwrap();
    let id = find(&file, "f");
    for offset in [5, 6, u64::MAX] {
        assert_eq!(file.read_at(id, offset, &mut [0; 8]).unwrap(), 0, "{offset}");
    }
    assert_eq!(file.read_at(id, 2, &mut []).unwrap(), 0);
}

#[test]
fn a_bad_layer_is_an_error_wherever_it_stands() {
    let good = Archive::default().file("good", b"1").end();
    let tar = Archive::default().file("f", &bytes(1, 5_000)).end();
    let mut flipped = tar.clone();
    flipped[600] ^= 1;
    let bad: [(&str, Vec<u8>); 3] = [
        ("a changed byte", flipped),
        ("an end within a file", tar[..3_000].to_vec()),
        ("no end", tar[..tar.len() - 700].to_vec()),
    ];
    let diff_id = sha256(&tar);
    for (what, bad) in bad {
        for place in 0..3 {
            let layers = (0..3).map(|at| {
                let diff_id = (at == place).then(|| diff_id.clone());
                let layer = if at == place { &bad } else { &good };
                Ok(open(layer, LayerOptions { diff_id, ..LayerOptions::default() }))
            });
            let scratch = tempfile::tempdir().unwrap();
            let read = MergedTree::read(layers, TreeLimits::default(), scratch.path());
            assert_eq!(*read.unwrap_err().kind(), ErrorKind::Corrupt, "{what} in layer {place}");
            assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_layer_that_does_not_open_is_its_own_error() {
    let good = open(&Archive::default().end(), LayerOptions::default());
    let layers: [Result<LayerTar>; 2] = [Ok(good), Err(Error::not_found("no such layer"))];
    let scratch = tempfile::tempdir().unwrap();
    let error = MergedTree::read(layers, TreeLimits::default(), scratch.path()).unwrap_err();
    assert_eq!(error.message(), "no such layer");
}

#[test]
fn a_scratch_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let scratch = file.path().join("none");
    let layer = open(&Archive::default().file("f", b"content").end(), LayerOptions::default());
    let error = MergedTree::read([Ok(layer)], TreeLimits::default(), &scratch).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Io);
    assert_eq!(error.context("path"), Some(&*scratch.display().to_string()));
}

#[test]
fn no_layers_are_an_empty_root() {
    let image = merged(&[]).unwrap();
    assert_eq!(image.tree().walk().count(), 1);
}

#[test]
fn runs_of_sparse_files_count_as_metadata() {
    let run: [(u64, &[u8]); 100] = std::array::from_fn(|at| (at as u64 * 1_000, &b"x"[..]));
    let layer = sparse(Archive::default(), "s", 1 << 20, &run).end();
    let limits = |metadata| TreeLimits { metadata, ..TreeLimits::default() };
    let error = merged_within(std::slice::from_ref(&layer), limits(2_000)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Limit);
    merged_within(&[layer], limits(3_000)).unwrap();
}
