//! What EROFS has no room for, and what layers may not say.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, Write};
use std::os::unix::fs::MetadataExt as _;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_core::tree::{Kind, NodeId};
use plyfold_core::{ErrorKind, Materializer as _, Output, RangeWrite};
use plyfold_erofs::{ErofsLayer, Options, Reader};

use crate::common::{image, rich_layer};
use crate::listing;

fn refused(layer: LayerBuilder) -> ErrorKind {
    image(layer.finish(), Options::default()).unwrap_err().kind().clone()
}

#[test]
fn what_the_format_cannot_hold_is_a_limit() {
    let long_name = format!("user.{}", "n".repeat(256));
    assert_eq!(refused(LayerBuilder::new().xattr(&long_name, "v").file("f", 0o644, b"")), ErrorKind::Limit);
    assert_eq!(
        refused(LayerBuilder::new().xattr("user.n", vec![1; 65_536]).file("f", 0o644, b"")),
        ErrorKind::Limit
    );
    let mut many = LayerBuilder::new();
    for number in 0..5 {
        many = many.xattr(&format!("user.{number}"), vec![number; 60_000]);
    }
    assert_eq!(refused(many.file("f", 0o644, b"")), ErrorKind::Limit);
}

#[test]
fn the_largest_of_everything_survives() {
    // Linux takes names of 255 bytes with their prefix; EROFS would hold a few more.
    let name = format!("user.{}", "n".repeat(250));
    let mut layer = LayerBuilder::new().xattr(&name, vec![b'v'; 65_535]);
    for number in 0..3 {
        layer = layer.xattr(&format!("user.{number}"), vec![b'w'; 65_000]);
    }
    let layer = layer.char_device("c", 0o600, 4095, 0xf_ffff).finish();
    let lines = listing(&image(layer, Options::default()).unwrap());
    assert!(lines[1].starts_with("/c c4095:1048575 600"));
    assert_eq!(lines[1].matches('w').count(), 3 * 65_000);
    assert_eq!(lines[1].matches('v').count(), 65_535);
}

#[test]
fn more_shared_xattrs_than_an_inode_can_list_stay_inline() {
    let mut layer = LayerBuilder::new();
    for file in ["a", "b"] {
        for number in 0..300 {
            layer = layer.xattr(&format!("user.{number:03}"), "value");
        }
        layer = layer.file(file, 0o644, b"");
    }
    let lines = listing(&image(layer.finish(), Options::default()).unwrap());
    assert_eq!(lines[1].matches("=value").count(), 300);
    assert_eq!(lines[1][2..], lines[2][2..]);
}

/// Chunks are larger than the data in them: a short tar asks for large images, which take as much room as the data.
#[test]
fn zeros_around_the_data_of_sparse_files_take_no_room() {
    const STEP: u64 = 20 << 20;
    let runs: Vec<(u64, &[u8])> = (0..200).map(|number| (number * STEP + 100_000, b"x" as &[u8])).collect();
    let layer = LayerBuilder::new().sparse_file("f", 0o644, 200 * STEP, &runs).finish();
    let images = [
        image(layer.clone(), Options::default()).unwrap(),
        crate::common::flat(&[layer], Options::default()).unwrap(),
    ];
    for image in images {
        let file = File::open(&image).unwrap();
        let found = file.metadata().unwrap();
        assert!(found.len() > 20 << 20, "{} bytes", found.len());
        assert!(found.blocks() * 512 < 4 << 20, "{} of {} bytes", found.blocks() * 512, found.len());
        let mut reader = Reader::new(file).unwrap();
        let tree = reader.tree().unwrap();
        let id = tree.child(NodeId::ROOT, b"f").unwrap();
        let Kind::File { size, content } = &tree.node(id).kind else { panic!("no file") };
        for (offset, _) in &runs {
            let mut bytes = [7; 3];
            let count = reader.read(content, *size, offset - 1, &mut bytes).unwrap();
            assert_eq!((count, &bytes), (3, b"\0x\0"), "at {offset}");
        }
    }
}

#[test]
fn xattrs_of_no_prefix_and_overlayfs_own_are_dropped() {
    let layer = LayerBuilder::new()
        .xattr("system.nfs4_acl", "x")
        .xattr("system.posix_acl_access", "acl")
        .xattr("trusted.overlay.opaque", "y")
        .xattr("trusted.overlay.redirect", "/etc")
        .xattr("trusted.overlayed", "kept")
        .xattr("user.overlay.metacopy", "")
        .xattr("unprefixed", "x")
        .dir("d", 0o755)
        .finish();
    let lines = listing(&image(layer, Options::default()).unwrap());
    assert_eq!(lines[1], "/d d 755 0:0 x2 system.posix_acl_access=acl trusted.overlayed=kept");
}

#[test]
fn an_implied_parent_is_0755_root() {
    let layer = LayerBuilder::new().owner(5, 5).mtime("9").file("a/b/f", 0o600, b"").finish();
    let lines = listing(&image(layer, Options::default()).unwrap());
    let implied = "0:0 x3 0+0 trusted.overlay.plyfold.implied=y";
    assert_eq!(lines[1], format!("/a d 755 {implied}"));
}

#[test]
fn whiteouts_share_one_device() {
    let layer = LayerBuilder::new().dir("d", 0o755).whiteout("d/a").whiteout("d/b").finish();
    let lines = listing(&image(layer, Options::default()).unwrap());
    assert_eq!(lines[1], "/d d 755 0:0 x2 trusted.overlay.origin=");
    assert_eq!(lines[2], "/d/a c0:0 0 0:0 x2 0+0");
    assert_eq!(lines[3], "/d/b c0:0 0 0:0 x2 0+0");
}

#[test]
fn output_is_no_image_after_an_error() {
    let mut out = tempfile::tempfile().unwrap();
    let wrong = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let options = LayerOptions { diff_id: Some(wrong), ..LayerOptions::default() };
    let mut tar = LayerTar::new(Cursor::new(rich_layer()), options).unwrap();
    let error = ErofsLayer::default().layer(&mut tar, &mut out).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    assert!(!has_magic(&mut out));
}

/// A disk that is full after some bytes.
struct Full {
    file: File,
    left: u64,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(&bytes[..bytes.len().min(usize::try_from(self.left).unwrap())])?;
        self.left -= count as u64;
        if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for Full {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Full {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl RangeWrite for Full {}

impl Output for Full {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

#[test]
fn a_full_disk_is_an_io_error_wherever_it_ends() {
    let write = |left| {
        let mut out = Full { file: tempfile::tempfile().unwrap(), left };
        let mut tar = LayerTar::new(Cursor::new(rich_layer()), LayerOptions::default()).unwrap();
        let written = ErofsLayer::default().layer(&mut tar, &mut out);
        (written, out)
    };
    let (whole, out) = write(u64::MAX);
    whole.unwrap();
    let needed = u64::MAX - out.left;
    for left in (0..needed).step_by(5000).chain([needed - 4096, needed - 3000, needed - 1]) {
        let (written, mut out) = write(left);
        assert_eq!(written.unwrap_err().kind(), &ErrorKind::Io, "{left} of {needed}");
        assert!(left > needed - 4096 || !has_magic(&mut out.file));
    }
}

#[test]
fn a_truncated_layer_leaves_no_image() {
    let mut tar = rich_layer();
    tar.truncate(20_000);
    let mut out = tempfile::tempfile().unwrap();
    let mut tar = LayerTar::new(Cursor::new(tar), LayerOptions::default()).unwrap();
    assert!(ErofsLayer::default().layer(&mut tar, &mut out).is_err());
    assert!(!has_magic(&mut out));
}

fn has_magic(file: &mut File) -> bool {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(Reader::new(Cursor::new(&bytes)).unwrap_err().kind(), &ErrorKind::Corrupt);
    bytes.get(1024..1028) == Some(&[0xe2, 0xe1, 0xf5, 0xe0])
}
