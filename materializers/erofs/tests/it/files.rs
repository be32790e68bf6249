//! The files of images, and what superblocks say.

use std::fs::File;
use std::io;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::ErrorKind;
use plyfold_core::files::{FileType, Files as _};
use plyfold_erofs::{ErofsFault, ErofsFiles, Options, Reader, Summary};

use super::common::{flat, image, merged, rich_layer};

fn read(files: &mut ErofsFiles<File>, path: &[u8]) -> plyfold_core::Result<Vec<u8>> {
    let mut content = Vec::new();
    files.read(path, &mut |bytes| {
        content.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(content)
}

#[test]
fn files_of_layers_and_of_flat_images_are_listed_and_read() {
    let options = Options::default;
    let images = [
        image(rich_layer(), options()).unwrap(),
        image(rich_layer(), options().with_block_size(512).unwrap()).unwrap(),
        flat(&[rich_layer()], options()).unwrap(),
    ];
    for path in &images {
        let mut files = ErofsFiles::new(Reader::new(File::open(path).unwrap()).unwrap()).unwrap();
        let names: Vec<_> = files.list(b"/etc").unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, [&b"long"[..], b"mtab", b"passwd", b"passwd-"]);
        assert_eq!(read(&mut files, b"etc/passwd-").unwrap(), b"root:x:0:0::/:/bin/sh\n");
        assert_eq!(read(&mut files, b"/bin/ping").unwrap(), [7; 5000]);
        assert_eq!(read(&mut files, b"/bin/empty").unwrap(), b"");
        assert_eq!(read(&mut files, b"\xff\xfe\x80").unwrap(), b"no UTF-8");
        let ping = files.file(b"bin/ping", true).unwrap();
        assert_eq!((ping.mode, ping.size, ping.links), (0o4755, 5000, Some(1)));
        assert!(ping.xattrs.unwrap().into_iter().any(|(name, _)| name == b"user.shared"));
        assert_eq!(files.file(b"dev/loop300", true).unwrap().device, Some((7, 300)));
        assert_eq!(files.file(b"many", true).unwrap().links, Some(402));
        assert_eq!(*read(&mut files, b"etc/mtab").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(files.file(b"etc/mtab", false).unwrap().kind, FileType::Symlink);
    }
}

#[test]
fn a_merged_image_is_read_with_its_layers_behind_it() {
    let layers = [
        LayerBuilder::new().file("lower", 0o644, b"1").file("empty", 0o644, b"").finish(),
        LayerBuilder::new().file("upper", 0o644, &[2; 10_000]).finish(),
    ];
    let layers = layers.map(|tar| image(tar, Options::default()).unwrap());
    let merged = merged(&layers, Options::default()).unwrap();
    let mut disk = tempfile::tempfile().unwrap();
    for path in std::iter::once(&merged).chain(&layers) {
        io::copy(&mut File::open(path).unwrap(), &mut disk).unwrap();
    }
    let mut files = ErofsFiles::new(Reader::new(disk).unwrap()).unwrap();
    assert_eq!(read(&mut files, b"lower").unwrap(), b"1");
    assert_eq!(read(&mut files, b"upper").unwrap(), [2; 10_000]);
    // Alone it shows everything but data.
    let mut alone = ErofsFiles::new(Reader::new(File::open(&merged).unwrap()).unwrap()).unwrap();
    assert_eq!(alone.file(b"upper", true).unwrap().size, 10_000);
    assert_eq!(read(&mut alone, b"empty").unwrap(), b"");
    let error = read(&mut alone, b"upper").unwrap_err();
    assert_eq!(error.detail(), Some(&ErofsFault::DevicesElsewhere(2)));
    let summary = Summary::read(File::open(&merged).unwrap()).unwrap();
    assert_eq!(summary.features, ["sb_chksum", "mtime", "chunked_file", "device_table"]);
    let first = summary.devices.first().unwrap();
    let size = std::fs::metadata(&layers[0]).unwrap().len();
    assert_eq!((u64::from(first.start), u64::from(first.blocks)), (summary.blocks, size / 4096));
}

/// In the image of a layer such a file has no byte.
#[test]
fn a_link_to_a_file_of_a_lower_layer_is_not_read_as_an_empty_file() {
    let layer = LayerBuilder::new().hard_link("bin/ls", "bin/busybox").file("bin/empty", 0o755, b"").finish();
    let path = image(layer, Options::default()).unwrap();
    let mut files = ErofsFiles::new(Reader::new(File::open(&path).unwrap()).unwrap()).unwrap();
    assert_eq!(files.list(b"bin").unwrap().len(), 2);
    let error = read(&mut files, b"bin/ls").unwrap_err();
    assert_eq!(error.detail(), Some(&ErofsFault::BelowLayer("/bin/busybox".to_owned())));
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert_eq!(read(&mut files, b"bin/empty").unwrap(), b"");
}

#[test]
fn a_summary_says_what_the_superblock_does() {
    let options = Options::default().with_block_size(1024).unwrap().with_label("root").unwrap();
    let path = flat(&[rich_layer()], options.with_uuid([0xab; 16])).unwrap();
    let summary = Summary::read(File::open(&path).unwrap()).unwrap();
    let found = (summary.block_size, summary.uuid, &*summary.label, summary.has_checksum);
    assert_eq!(found, (1024, [0xab; 16], &b"root"[..], true));
    assert_eq!(summary.size, summary.blocks * 1024);
    let names = Reader::new(File::open(&path).unwrap()).unwrap().tree().unwrap().walk().count();
    // One of the names is the second of a file.
    assert_eq!(summary.inodes, names as u64 - 1);

    let mut bytes = std::fs::read(&path).unwrap();
    assert!(Summary::is_image(&bytes[..1028]) && !Summary::is_image(&bytes[..1027]));
    let fault = |bytes: &[u8]| Summary::read(io::Cursor::new(bytes)).unwrap_err().kind().clone();
    // With 48 bits for block numbers the root has a number of 64 bits, and its old field the upper part of the size; an image
    // without such a root is as any other.
    let mut wide = bytes.clone();
    wide[1024 + 8] = 0;
    wide[1024 + 80] |= 0x80;
    let seen = |bytes: &[u8]| Summary::read(io::Cursor::new(bytes)).unwrap().blocks;
    assert_eq!(seen(&wide), summary.blocks);
    wide[1024 + 112] = 40;
    assert_eq!(seen(&wide) & 0xffff_ffff, summary.blocks);
    assert_eq!(seen(&wide) >> 32, u64::from(u16::from_le_bytes([bytes[1024 + 14], bytes[1024 + 15]])));
    // A feature that nothing reads yet is shown by its number.
    bytes[1024 + 8] = 0;
    bytes[1024 + 81] |= 0x80;
    let shown = Summary::read(io::Cursor::new(&bytes)).unwrap();
    assert_eq!((shown.features.join(" "), shown.has_checksum), ("0x8000".to_owned(), false));
    bytes[1024 + 8] = 1;
    assert_eq!(fault(&bytes), ErrorKind::Corrupt);
    assert_eq!(fault(&bytes[..1100]), ErrorKind::Corrupt);
    bytes[1024 + 12] = 40;
    assert_eq!(fault(&bytes), ErrorKind::Unsupported);
    bytes[1024] = 0;
    assert_eq!(fault(&bytes), ErrorKind::Corrupt);
}
