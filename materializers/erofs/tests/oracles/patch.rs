//! Patched images through the kernel and fsck.erofs.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use plyfold_conformance::oracle::{Failure, Mount, PowerDisk, Run, Verdict};
use plyfold_conformance::samples::LayerBuilder;
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_core::ErrorKind;
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_erofs::{Compression, ErofsPatch, Options};
use tempfile::{NamedTempFile, TempPath};

use crate::common::{
    compressed, flat, noise, patch, patch_by, rich_change, rich_layer, shared_attributes, text,
    varied_change, varied_layer,
};

/// A patched image is to the kernel what an image of all layers is, and fsck.erofs finds nothing in it.
pub(crate) fn a_patched_image_is_that_of_all_layers() -> Verdict {
    for size in [512, 1024, 2048, 4096] {
        let image = flat(&[rich_layer()], Options::default().with_block_size(size)?)?;
        same(&image, &[rich_layer()], &[rich_change()])?;
    }
    let (layer, change) = shared_attributes();
    for other in ["inline-3", "text-163845"] {
        let changes = [change.clone(), LayerBuilder::new().whiteout(other).finish()];
        let image = flat(std::slice::from_ref(&layer), Options::default())?;
        same(&image, std::slice::from_ref(&layer), &changes)?;
        for (algorithm, cluster) in [("lz4", 4096), ("lz4", 65_536), ("lz4hc", 16_384), ("zstd", 65_536)] {
            let by = || Compression::new(algorithm.parse()?)?.with_cluster(cluster);
            let image = compressed(std::slice::from_ref(&layer), by()?)?;
            same(&image, std::slice::from_ref(&layer), &changes)?;
            let image = compressed(&[varied_layer()], by()?)?;
            same(&image, &[varied_layer()], &[varied_change()])?;
            if cluster > 4096 {
                let image = compressed(&[varied_layer()], by()?.with_fragments())?;
                same(&image, &[varied_layer()], &[varied_change()])?;
            }
        }
    }
    Ok(())
}

/// The same of images of mkfs.erofs 1.9, of each form that can be patched.
pub(crate) fn a_patched_image_of_mkfs_is_that_of_all_layers() -> Verdict {
    let mut patched = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/samples"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension() != Some("zst".as_ref())
            || name.starts_with("48bit")
            || name.starts_with("metabox")
        {
            continue;
        }
        let mut file = NamedTempFile::new()?;
        file.write_all(&zstd::decode_all(File::open(&path)?)?)?;
        let image = file.into_temp_path();
        same(&image, &[varied_layer()], &[varied_change()])
            .map_err(|e| Failure::new(format!("{name}: {e:?}")))?;
        patched += 1;
    }
    assert!(patched >= 16, "{patched} images");
    Ok(())
}

fn same(image: &TempPath, layers: &[Vec<u8>], changes: &[Vec<u8>]) -> Verdict {
    patch(image, changes)?;
    let all = flat(&[layers, changes].concat(), Options::default())?;
    let (patched, expected) = (tree(image)?, tree(&all)?);
    for (patched, expected) in patched.iter().zip(&expected) {
        assert_eq!(patched.to_string(), expected.to_string());
    }
    assert_eq!(patched.len(), expected.len());
    let superblock = fs::read(image)?[1024..1152].to_vec();
    // Versions before 1.6 refuse blocks smaller than a page; Debian's know LZ4 alone, and no fragments.
    let has_others = superblock[80] & 2 != 0 && superblock[84] != 1;
    if superblock[12] == 12 && superblock[80] & !0x17 == 0 && !has_others {
        Run::new("fsck.erofs").arg(image).success()?;
    }
    Ok(())
}

fn tree(image: &Path) -> Result<Vec<TreeLine>, Failure> {
    let mount = Mount::new("erofs", image, "loop,ro")?;
    Ok(mounted(mount.path())?)
}

/// A mount stays what it was while patches go on, and the superblock of each patch gives its tree.
pub(crate) fn a_mounted_image_can_be_patched() -> Verdict {
    let compression = Compression::new("zstd".parse()?)?;
    let image = compressed(&[varied_layer()], compression)?;
    let file = File::options().read(true).write(true).open(&image)?;
    let mut superblocks = Vec::new();
    let first = Mount::new("erofs", &image, "loop,ro")?;
    for number in 0..10 {
        let mut superblock = [0; 128];
        file.read_exact_at(&mut superblock, 1024)?;
        superblocks.push((superblock, tree(&image)?));
        let change = LayerBuilder::new()
            .file("number", 0o644, &text(number * 700, number as u64))
            .file(format!("new-{number}"), 0o644, b"new")
            .finish();
        patch(&image, &[change])?;
    }
    assert!(mounted(first.path())? == superblocks[0].1);
    for (superblock, expected) in superblocks.into_iter().rev() {
        file.write_all_at(&superblock, 1024)?;
        assert!(tree(&image)? == expected);
    }
    Ok(())
}

/// The power goes at a byte of the change, and right after a success.
pub(crate) fn a_patch_is_complete_or_absent_after_a_power_cut() -> Verdict {
    let image = flat(&[rich_layer()], Options::default())?;
    let change = LayerBuilder::new()
        .file("first", 0o644, &noise(3 << 20, 1))
        .file("second", 0o644, &noise(3 << 20, 2))
        .finish();
    let (bytes, old) = (fs::read(&image)?, tree(&image)?);
    patch(&image, std::slice::from_ref(&change))?;
    let (patched, new) = (fs::read(&image)?, tree(&image)?);
    for file_system in ["ext4", "xfs"] {
        let disk = PowerDisk::new(file_system, 512 << 20)?;
        for at in [Some(512), Some(2 << 20), Some(change.len() / 2), Some(change.len() - 1), None] {
            let mounted = disk.mount()?;
            let path = mounted.path().join("image");
            drop(fs::remove_file(&path));
            let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            File::open(mounted.path())?.sync_all()?;
            if let Some(at) = at {
                cut_at(at, &change, &file, || PowerDisk::cut(&mounted))?;
            } else {
                patch(&path, std::slice::from_ref(&change))?;
                PowerDisk::cut(&mounted)?;
            }
            drop(file);
            mounted.unmount()?;
            let mounted = disk.mount()?;
            let path = mounted.path().join("image");
            let found = tree(&path)?;
            assert!(found == if at.is_some() { old.clone() } else { new.clone() }, "{file_system} {at:?}");
            if at.is_some() {
                // What was left is no hindrance.
                patch(&path, std::slice::from_ref(&change))?;
            }
            assert!(fs::read(&path)? == patched, "{file_system} {at:?}");
            mounted.unmount()?;
        }
        // What shows that this can fail.
        let mounted = disk.mount()?;
        let path = mounted.path().join("image");
        fs::write(&path, &bytes)?;
        File::open(&path)?.sync_all()?;
        patch_by(&ErofsPatch::default().without_sync(), &path, std::slice::from_ref(&change))?;
        PowerDisk::cut(&mounted)?;
        mounted.unmount()?;
        let mounted = disk.mount()?;
        assert!(fs::read(mounted.path().join("image"))? != patched, "nothing is lost on {file_system}");
        mounted.unmount()?;
    }
    Ok(())
}

/// Patches, and cuts the power when so many bytes of the change have been read.
fn cut_at(at: usize, change: &[u8], image: &File, cut: impl FnOnce() -> Verdict) -> Verdict {
    let (first, rest) = change.split_at(at);
    let (reached, wait) = mpsc::channel();
    let (go_on, cut_off) = mpsc::channel::<()>();
    let gate = Gate { reached: Some(reached), cut_off };
    let source = Cursor::new(first.to_vec()).chain(gate).chain(Cursor::new(rest.to_vec()));
    let scratch = tempfile::tempdir()?;
    thread::scope(|scope| {
        let patching = scope.spawn(|| {
            let tar = LayerTar::new(source, LayerOptions::default());
            ErofsPatch::default().apply(image, [tar], scratch.path())
        });
        wait.recv()?;
        cut()?;
        go_on.send(())?;
        let outcome = patching.join().map_err(|_| Failure::new("the patch panicked"))?;
        assert!(outcome.is_err(), "a patch of a disk without power is reported as a success");
        Ok(())
    })
}

/// The end of a source, which says that it is read, and waits.
struct Gate {
    reached: Option<mpsc::Sender<()>>,
    cut_off: mpsc::Receiver<()>,
}

impl Read for Gate {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if let Some(reached) = self.reached.take() {
            reached.send(()).map_err(io::Error::other)?;
            self.cut_off.recv().map_err(io::Error::other)?;
        }
        Ok(0)
    }
}

/// A disk without room for the change: the file is what it was, and not longer.
pub(crate) fn a_full_disk_leaves_the_image_as_it_is() -> Verdict {
    let image = flat(&[rich_layer()], Options::default())?;
    let bytes = fs::read(&image)?;
    let change = LayerBuilder::new().file("large", 0o644, &noise(20 << 20, 1)).finish();
    let disk = PowerDisk::new("ext4", 24 << 20)?;
    let mounted = disk.mount()?;
    let path = mounted.path().join("image");
    fs::write(&path, &bytes)?;
    let scratch = tempfile::tempdir()?;
    let tar = LayerTar::new(Cursor::new(change), LayerOptions::default());
    let file = File::options().read(true).write(true).open(&path)?;
    let error = ErofsPatch::default().apply(&file, [tar], scratch.path()).expect_err("there is no room");
    assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
    assert!(fs::read(&path)? == bytes);
    patch(&path, &[rich_change()])?;
    let all = flat(&[rich_layer(), rich_change()], Options::default())?;
    assert!(tree(&path)? == tree(&all)?);
    drop(file);
    mounted.unmount()
}
