//! Disks that cannot be made: a typed error with a hint, nothing half-made, and nothing lost of what was there.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use plyfold::layer::{LayerOptions, LayerTar};
use plyfold::materializers::erofs::{ErofsFault, ErofsLayer, ErofsMerged};
use plyfold::materializers::ext4::{Ext4Fault, Ext4Rootfs};
use plyfold::{
    Advice, Error, ErrorKind, Images, InputArtifact, Materializer as _, PulledImage, Rootfs, Size,
};
use plyfold_conformance::samples::LayerBuilder;
use tempfile::TempDir;

use super::formats::pulled;

/// A folder with a set of an image.
struct Scene {
    images: Images,
    image: PulledImage,
    dir: TempDir,
}

/// Every file of a folder, and what is in it.
fn content(folder: &Path) -> Vec<(OsString, Vec<u8>)> {
    let read = |entry: fs::DirEntry| (entry.file_name(), fs::read(entry.path()).unwrap());
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap())).collect();
    files.sort();
    files
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (images, image) = pulled(&dir).await;
        Self { images, image, dir }
    }

    /// Is refused over an older set, which stays, and in a new folder, which is not made.
    async fn refusal(&self, rootfs: &Rootfs) -> Error {
        let (out, new) = (self.dir.path().join("out"), self.dir.path().join("new"));
        self.images.materialize(&self.image, &Rootfs::vmdk(), &out).await.unwrap();
        let before = content(&out);
        let error = self.images.materialize(&self.image, rootfs, &out).await.unwrap_err();
        assert!(content(&out) == before, "the older set is another: {error}");
        let again = self.images.materialize(&self.image, rootfs, &new).await.unwrap_err();
        assert_eq!((again.kind(), again.message()), (error.kind(), error.message()));
        let mut left: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["out", "store"], "{error}");
        assert!(error.hint().is_some(), "{error:?}");
        error
    }
}

#[tokio::test]
async fn an_upper_that_is_too_small() {
    let scene = Scene::new().await;
    for size in [0, 4096, (64 << 20) - 4096, (64 << 20) + 1, (16 << 40) + 4096] {
        let error = scene.refusal(&Rootfs::erofs_layers().upper(size)).await;
        assert_eq!(*error.kind(), ErrorKind::Config, "{error:?}");
        assert!(matches!(error.detail(), Some(Ext4Fault::Size(_) | Ext4Fault::Blocks(_))), "{error:?}");
    }
}

/// Told with the least that would do, which does.
#[tokio::test]
async fn a_size_that_is_too_small_for_the_tree() {
    let scene = Scene::new().await;
    let sized = |size| Rootfs::ext4(Ext4Rootfs::new().size(size).unwrap());
    let error = scene.refusal(&sized(1 << 20)).await;
    assert_eq!(*error.kind(), ErrorKind::Config);
    assert!(matches!(error.detail(), Some(Ext4Fault::TooSmall(Size(1_048_576)))), "{error:?}");
    let numbers = error.hint().unwrap().split(|c: char| !c.is_ascii_digit());
    let least =
        numbers.filter_map(|number| number.parse::<u64>().ok()).find(|number| *number > 4096).unwrap();
    // The file that is kept in the store has been made by now: a copy of it is refused before it is written to.
    let error = scene.refusal(&sized(least - 4096)).await;
    assert!(error.hint().unwrap().contains(&least.to_string()), "{error:?}");
    let out = scene.dir.path().join("least");
    let disks = scene.images.materialize(&scene.image, &sized(least), &out).await.unwrap();
    assert_eq!(disks.files[0].size, least);
}

/// A layer that is damaged anywhere in its metadata is named, and so is one that is cut short.
#[test]
fn a_corrupt_layer_that_is_to_be_merged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layer.erofs");
    let tar = LayerBuilder::new().dir("d", 0o755).file("d/f", 0o644, &[7; 9_000]).whiteout("d/g").finish();
    let mut tar = LayerTar::new(std::io::Cursor::new(tar), LayerOptions::default()).unwrap();
    let mut file = fs::File::create_new(&path).unwrap();
    ErofsLayer::default().layer(&mut tar, &mut file).unwrap();
    let sound = fs::read(&path).unwrap();
    let merge = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let (layer, mut out) = (InputArtifact::local(&path, None).unwrap(), tempfile::tempfile().unwrap());
        ErofsMerged::default().join(&[layer], &mut out).map(drop)
    };
    merge(&sound).unwrap();
    let mut refused = 0;
    for at in (1024..sound.len()).step_by(29) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x55;
        // Bytes of a file's data, and padding, are not looked at.
        let Err(error) = merge(&bytes) else { continue };
        let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported, ErrorKind::Limit, ErrorKind::Config];
        assert!(kinds.contains(error.kind()), "byte {at}: {error:?}");
        assert_eq!(error.context("layer"), path.to_str(), "byte {at}: {error:?}");
        refused += 1;
    }
    assert!(refused > 20, "{refused} places");
    for length in [0, 1, 1024, 1151, 4096, sound.len() - 1] {
        let error = merge(&sound[..length]).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{length} bytes: {error:?}");
        assert!(error.detail::<ErofsFault>().is_some(), "{error:?}");
        assert_eq!(error.context("layer"), path.to_str());
        assert_eq!(error.advice(), Some(&Advice::RepairContent), "{error:?}");
    }
}
