//! Whole images out of layers' images and out of tars: the same bytes.

use std::fs::{self, File};
use std::io::Cursor;

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_core::digest::sha256;
use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::{LayerFile, LayerReader, LayerSource, MergedTree};
use plyfold_core::{ErrorKind, Materializer as _, Result};
use plyfold_erofs::{Algorithm, Compression, ErofsFlat, ErofsLayer, Options};
use tempfile::TempDir;

use crate::common::{noise, rich_layer, text};

/// Where a layer is read from.
#[derive(Clone, Copy, Debug)]
enum From {
    Image,
    /// An image of smaller blocks.
    SmallBlocks,
    Tar,
    TarInFile,
}

fn reader() -> LayerReader {
    *LayerReader::linked().find(|reader| reader.format == "erofs-layers").unwrap()
}

fn source(tar: &[u8], from: From, folder: &TempDir, number: usize) -> Result<LayerSource> {
    let path = folder.path().join(format!("{number}-{from:?}"));
    let plain = || LayerTar::new(Cursor::new(tar.to_vec()), LayerOptions::default());
    let block_size = match from {
        From::Tar => return plain().map(LayerSource::from),
        From::TarInFile => {
            fs::write(&path, tar)?;
            let tar = LayerTar::in_file(File::open(&path)?, File::open(&path)?, LayerOptions::default());
            return tar.map(LayerSource::from);
        }
        From::Image => 4096,
        From::SmallBlocks => 512,
    };
    let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
    ErofsLayer::new(Options::default().with_block_size(block_size)?).layer(&mut plain()?, &mut file)?;
    LayerFile::new(file, reader(), Some(sha256(tar))).map(LayerSource::File)
}

fn image(tars: &[Vec<u8>], from: &[From]) -> Result<MergedTree> {
    let folder = tempfile::tempdir()?;
    let from = from.iter().cycle();
    let sources = tars.iter().zip(from).enumerate();
    let sources = sources.map(|(number, (tar, from))| source(tar, *from, &folder, number));
    MergedTree::from_sources(sources, TreeLimits::default(), folder.path())
}

fn bytes(image: &MergedTree, format: &ErofsFlat) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    format.image(image, &mut file.reopen().unwrap()).unwrap();
    image.check_unchanged().unwrap();
    fs::read(file.path()).unwrap()
}

/// Large files with zeros here and there, and some of each size around the limits of this crate.
fn large() -> Vec<u8> {
    const MIB: usize = 1 << 20;
    let mut layer = LayerBuilder::new().dir("./", 0o755);
    for (number, size) in [65_535, 65_536, MIB - 1, MIB, MIB + 1, 2 * MIB + 700].into_iter().enumerate() {
        layer = layer.file(format!("noise-{number}"), 0o644, &noise(size, number as u64));
        layer = layer.file(format!("text-{number}"), 0o644, &text(size, number as u64));
        layer = layer.file(format!("zeros-{number}"), 0o644, &vec![0; size]);
    }
    for (number, zeros) in [65_536, MIB, MIB + 65_536].into_iter().enumerate() {
        for start in [0, 1, 65_536] {
            let mut data = noise(3 * MIB / 2 + 10, number as u64);
            data[start..start + zeros].fill(0);
            layer = layer.file(format!("part-{number}-{start}"), 0o600, &data);
            data.truncate(start + zeros);
            layer = layer.file(format!("end-{number}-{start}"), 0o600, &data);
        }
    }
    let run = noise(200_000, 1);
    let runs: [(u64, &[u8]); 3] = [(5, b"a"), (70_000, &run), (3 << 20, b"end")];
    let layer = layer.sparse_file("sparse", 0o644, (5 << 20) + 3, &runs);
    layer.sparse_file("hole", 0o644, 1 << 32, &[]).finish()
}

/// What an upper layer can do to a lower one.
fn upper() -> Vec<u8> {
    LayerBuilder::new()
        .whiteout("many")
        .opaque("order")
        .file("order/new", 0o600, &noise(9000, 3))
        .file("bin/implied/by/a/path", 0o644, b"no entry for its parents")
        .hard_link("etc/group", "etc/passwd")
        .hard_link("noise", "bin/ping")
        .xattr("trusted.overlay.opaque", "y")
        .xattr("system.nfs4_acl", "no file system shows it")
        .xattr("user.kept", "1")
        .file("xattrs", 0o644, b"")
        .xattr("system.nfs4_acl", "alone")
        .file("xattr", 0o644, b"")
        .char_device("tmp/one-more", 0, 0, 0)
        .finish()
}

fn images() -> Vec<Vec<Vec<u8>>> {
    let mut images = vec![vec![rich_layer(), upper()], vec![rich_layer()], vec![large()]];
    for sample in [samples::rootfs(), samples::image(), samples::docker_image()] {
        images.extend(
            sample.images.iter().map(|image| image.layers.iter().map(|layer| layer.tar.to_vec()).collect()),
        );
    }
    images
}

#[test]
fn an_image_has_the_same_bytes_wherever_content_lies() {
    let small = Options::default().with_block_size(512).unwrap();
    let lz4 = Compression::new(Algorithm::Lz4).unwrap();
    let formats =
        [ErofsFlat::default(), ErofsFlat::new(small), ErofsFlat::default().with_compression(lz4).unwrap()];
    for (number, tars) in images().into_iter().enumerate() {
        let expected = image(&tars, &[From::Tar]).unwrap();
        let expected: Vec<_> = formats.iter().map(|format| bytes(&expected, format)).collect();
        let ways: [&[From]; 4] = [
            &[From::TarInFile],
            &[From::Image],
            &[From::SmallBlocks, From::Tar],
            &[From::TarInFile, From::Image],
        ];
        for way in ways {
            let image = image(&tars, way).unwrap();
            for (format, expected) in formats.iter().zip(&expected) {
                let found = bytes(&image, format);
                assert!(found == *expected, "image {number} from {way:?} as {:?}", format.format());
            }
        }
    }
}

/// What a layer's image has is held open; nothing of it is copied to read it.
#[test]
fn layers_images_need_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let layers = [rich_layer(), large(), upper()];
    let sources: Vec<_> =
        layers.iter().enumerate().map(|(number, tar)| source(tar, From::Image, &folder, number)).collect();
    let scratch = folder.path().join("scratch");
    let image = MergedTree::from_sources(sources, TreeLimits::default(), &scratch).unwrap();
    assert!(!scratch.exists());
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(!bytes(&image, &ErofsFlat::default()).is_empty());
}

/// A whole image has bytes behind inodes and in compressed files, and is the image of one layer like any other.
#[test]
fn inline_and_compressed_files_are_read_back() {
    let tars = [rich_layer(), large()];
    let expected = image(&tars, &[From::Tar]).unwrap();
    let options = || Options::default().with_uuid([1; 16]);
    let plain = bytes(&expected, &ErofsFlat::new(options()));
    let zstd = Compression::new(Algorithm::Zstd(3)).unwrap();
    for format in [ErofsFlat::new(options()), ErofsFlat::default().with_compression(zstd).unwrap()] {
        let mut file = tempfile::tempfile().unwrap();
        format.image(&expected, &mut file).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let sources = [LayerFile::new(file, reader(), None).map(LayerSource::File)];
        let again = MergedTree::from_sources(sources, TreeLimits::default(), scratch.path()).unwrap();
        assert!(bytes(&again, &ErofsFlat::new(options())) == plain, "{:?}", format.format());
    }
}

#[test]
fn what_is_no_layers_image_is_an_error() {
    let of = |content: &[u8]| {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        fs::write(&path, content).unwrap();
        let file = LayerFile::new(File::open(&path).unwrap(), reader(), None).map(LayerSource::File);
        let scratch = tempfile::tempdir().unwrap();
        MergedTree::from_sources([file], TreeLimits::default(), scratch.path()).unwrap_err()
    };
    for content in [&b""[..], &[0; 8192]] {
        let error = of(content);
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(error.context("format"), Some("erofs-layers"));
    }
    let layer = crate::common::image(rich_layer(), Options::default()).unwrap();
    let cut = fs::read(layer).unwrap();
    assert_eq!(*of(&cut[..cut.len() - 4096]).kind(), ErrorKind::Corrupt);
}
