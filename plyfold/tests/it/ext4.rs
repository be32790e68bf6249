//! Disks that guests write to: copies of the output's own, grown to their size.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use plyfold::materializers::ext4::{Ext4Rootfs, Journal, resize};
use plyfold::{Collect, ErrorKind, Rootfs, TreePlace};

use super::formats::pulled;

/// One file in the store for all sizes, and none of the output is a link to it.
#[tokio::test]
async fn a_root_disk_is_a_copy_of_its_own_in_the_size_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (images, image) = pulled(&dir).await;
    for (number, size) in [None, Some(64 << 20), Some(1 << 30), Some(1 << 40)].into_iter().enumerate() {
        let out = dir.path().join(number.to_string());
        let rootfs = size.map_or(Ext4Rootfs::new(), |size| Ext4Rootfs::new().size(size).unwrap());
        let disks = images.materialize(&image, &Rootfs::ext4(rootfs), &out).await.unwrap();
        assert_eq!(disks.ext4, Some(out.join("rootfs.ext4")));
        assert_eq!(disks.paths().collect::<Vec<_>>(), [out.join("rootfs.ext4")]);
        let found = fs::metadata(out.join("rootfs.ext4")).unwrap();
        assert_eq!((found.len(), found.nlink(), found.mode() & 0o200), (disks.files[0].size, 1, 0o200));
        assert!(size.is_none_or(|size| size == found.len()));
        assert!(found.blocks() * 512 < 16 << 20, "{} sectors", found.blocks());
    }
    images.remove(&image.reference).await.unwrap();
    drop(image);
    assert_eq!(images.collect(&Collect::default()).await.unwrap().artifacts, 1);
}

#[tokio::test]
async fn a_size_that_is_too_small_is_an_error_whether_the_disk_is_kept_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let (images, image) = pulled(&dir).await;
    let out = dir.path().join("out");
    for _ in 0..2 {
        let small = Rootfs::ext4(Ext4Rootfs::new().size(1 << 20).unwrap());
        let error = images.materialize(&image, &small, &out).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("the least size")), "{error:?}");
        assert!(!out.exists());
        images.materialize(&image, &Rootfs::ext4(Ext4Rootfs::new()), &dir.path().join("kept")).await.unwrap();
    }
}

/// What a guest has written is never replaced, and stays beside another set.
#[tokio::test]
async fn a_root_disk_that_was_written_to_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (images, image) = pulled(&dir).await;
    let (out, disk) = (dir.path().join("out"), dir.path().join("out/rootfs.ext4"));
    let none = || Rootfs::ext4(Ext4Rootfs::new().journal(Journal::None).unwrap());
    images.materialize(&image, &none(), &out).await.unwrap();
    images.materialize(&image, &none(), &out).await.unwrap();
    let file = File::options().read(true).write(true).open(&disk).unwrap();
    // s_mnt_count, as a mount counts.
    file.write_all_at(&[1], 1024 + 0x34).unwrap();
    let written = fs::read(&disk).unwrap();
    // Nor by one that guests do not write to.
    let verified = Rootfs::ext4(Ext4Rootfs::new().with_hash_tree(TreePlace::Append));
    let error = images.materialize(&image, &verified, &out).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
    let error = images.materialize(&image, &none(), &out).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error:?}");
    assert!(fs::read(&disk).unwrap() == written);
    images.materialize(&image, &Rootfs::erofs_flat(), &out).await.unwrap();
    assert!(out.join("rootfs.erofs").exists() && fs::read(&disk).unwrap() == written);
    fs::write(out.join("other"), "").unwrap();
    images.materialize(&image, &Rootfs::erofs_layers(), &out).await.unwrap();
    assert!(!out.join("rootfs.erofs").exists() && fs::read(&disk).unwrap() == written);
    // Neither does a file of the user's of that name.
    fs::remove_file(&disk).unwrap();
    fs::write(&disk, "a user's").unwrap();
    assert!(images.materialize(&image, &none(), &out).await.is_err());
    assert_eq!(fs::read(&disk).unwrap(), b"a user's");
}

#[tokio::test]
async fn a_kept_disk_stays_as_it_is_when_its_copy_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (images, image) = pulled(&dir).await;
    let disk = |name: &str| dir.path().join(name).join("rootfs.ext4");
    let ext4 = || Rootfs::ext4(Ext4Rootfs::new());
    images.materialize(&image, &ext4(), &dir.path().join("a")).await.unwrap();
    let before = fs::read(disk("a")).unwrap();
    let mut file = File::options().read(true).write(true).open(disk("a")).unwrap();
    resize(&mut file, 10 << 30).unwrap();
    images.materialize(&image, &ext4(), &dir.path().join("b")).await.unwrap();
    assert!(fs::read(disk("b")).unwrap() == before);
}
