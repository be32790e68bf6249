//! Snapshots of files that are not what was made any more, and of stores that cannot be written.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use plyfold::atomic_file::FileOptions;
use plyfold::block_sums::BlockSums;
use plyfold::materializers::ext4::Ext4Rootfs;
use plyfold::progress::Progress;
use plyfold::snapshot::{self, Content, SetRecord, SnapshotFault};
use plyfold::{CopyOptions, Error, ErrorKind, ImageRegistry as _, Images, PullOptions, Rootfs};

use super::faulty_cache::{Fault, Faulty};
use super::snapshots::{Scene, content, name, verified};

/// Puts a file of the user's in the place of one.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn is_modified(error: &Error, path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    *error.kind() == ErrorKind::Corrupt
        && error.detail() == Some(&SnapshotFault::Modified(name))
        && error.context("path") == path.to_str()
        && error.hint().is_some()
}

/// Its digest would be right, and what is said of it, such as its layer and its root hash, would not.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_changed_since_it_was_made_is_not_saved_as_that_file() {
    for rootfs in [
        Rootfs::vmdk().upper(64 << 20),
        Rootfs::erofs_flat(),
        Rootfs::raw().upper(64 << 20),
        Rootfs::gpt(),
        verified("erofs-layers", "append"),
        verified("erofs-layers", "beside"),
    ] {
        let scene = Scene::new().await;
        let disks = scene.disks(&rootfs, "vm").await;
        let (vm, out, state) = (scene.path("vm"), scene.path("saved"), name("a.example/state:1"));
        let first = fs::read(&disks.files[0].path).unwrap();
        for disk in disks.files.iter().filter(|disk| Some(&disk.path) != disks.upper.as_ref()) {
            let good = fs::read(&disk.path).unwrap();
            let mut flipped = good.clone();
            flipped[good.len() / 2] ^= 1;
            for bad in [&flipped[..], &[&good[..], b"x"].concat(), b"", &first] {
                if bad == good {
                    continue;
                }
                replace(&disk.path, bad);
                let before = content(&vm);
                let error = snapshot::save(&vm, &out, FileOptions::default()).await.unwrap_err();
                assert!(is_modified(&error, &disk.path), "{error:?}");
                let save = scene.images.save_snapshot(&vm, &state, false, Progress::none());
                let error = save.await.unwrap_err();
                assert!(is_modified(&error, &disk.path), "{error:?}");
                assert!(!out.exists() && scene.images.snapshots().await.unwrap().is_empty());
                assert!(content(&vm) == before);
            }
            replace(&disk.path, &good);
        }
        // Another file of the same bytes is the same.
        snapshot::save(&vm, &out, FileOptions::default()).await.unwrap();
    }
}

/// A guest may change all of it: it is stored as a disk that one writes to, and never as what was made.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_guests_write_to_may_be_anything() {
    let scene = Scene::new().await;
    let disks = scene.disks(&Rootfs::ext4(Ext4Rootfs::new().size(64 << 20).unwrap()), "vm").await;
    let ext4 = disks.ext4.unwrap();
    let other = [&b"another file system"[..], &[0; 4096]].concat();
    fs::write(&ext4, &other).unwrap();
    let saved = scene.path("saved");
    let kept = snapshot::save(&scene.path("vm"), &saved, FileOptions::default()).await.unwrap();
    let [file] = &kept.snapshot.files[..] else { panic!("one disk") };
    assert!(file.file.writable && file.file.digest.is_none() && file.file.diff_id.is_none());
    assert!(matches!(&file.content, Content::Delta(delta) if delta.base.is_none()));
    snapshot::load(&saved, &scene.path("out"), FileOptions::default()).await.unwrap();
    assert_eq!(fs::read(scene.path("out/rootfs.ext4")).unwrap(), other);
    fs::write(&ext4, b"another file system").unwrap();
    let cut = snapshot::save(&scene.path("vm"), &scene.path("cut"), FileOptions::default()).await;
    assert_eq!(*cut.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// From the record of the cache, or by a read where the cache knows no checksums.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_recorded_with_the_checksum_of_its_bytes() {
    let scene = Scene::new().await;
    let unknowing = Images::with_cache(Faulty(scene.images.cache(), Fault::NoScratch)).unwrap();
    let forms = [Rootfs::vmdk().upper(64 << 20), verified("erofs-layers", "append"), Rootfs::raw()];
    for (number, rootfs) in forms.iter().enumerate() {
        for (place, images) in [("known", &scene.images), ("read", &unknowing)] {
            let out = scene.path(&format!("{place}-{number}"));
            images.materialize(&scene.image, rootfs, &out).await.unwrap();
            let record = SetRecord::parse(&fs::read(out.join(".plyfold-image")).unwrap()).unwrap();
            for file in &record.files {
                let found = BlockSums::read_all(&*fs::read(out.join(&file.name)).unwrap()).unwrap();
                let found = (!file.writable).then_some(found.checksum());
                assert_eq!((&file.digest, file.checksum), (&None, found), "{place}: {}", file.name);
            }
        }
    }
}

/// A store that is shared read-only has no folder for temporary files.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_written_gives_its_snapshots() {
    let scene = Scene::new().await;
    scene.disks(&Rootfs::erofs_flat().upper(64 << 20), "vm").await;
    let (vm, state) = (scene.path("vm"), name("a.example/state:1"));
    let kept = scene.images.save_snapshot(&vm, &state, false, Progress::none()).await.unwrap();
    let read_only = Images::with_cache(Faulty(scene.images.cache(), Fault::ReadOnly)).unwrap();
    let here = read_only.pull("a.example/state:1", PullOptions::default()).await.unwrap();
    assert_eq!(read_only.verify_snapshot(&here).await.unwrap(), kept);
    read_only.load_snapshot(&here, &scene.path("out"), FileOptions::default()).await.unwrap();
    assert!(content(&scene.path("out")) == content(&vm));
    // What is saved to another place needs nothing of the store.
    let to = plyfold::memory::MemoryRegistry::new("to");
    let options = CopyOptions::default();
    let pushed = read_only.push_snapshot(&vm, &to, &state, false, &options).await.unwrap();
    assert_eq!(pushed, kept);
    assert_eq!(to.manifest(&state).await.unwrap().descriptor().digest(), kept.manifest.digest());
}

/// Files are links to the store's: what is written to one of them is in the store, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_a_link_is_found() {
    let scene = Scene::new().await;
    let disks = scene.disks(&Rootfs::erofs_flat(), "vm").await;
    let flat = disks.flat.unwrap();
    fs::set_permissions(&flat, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    File::options().append(true).open(&flat).unwrap().write_all(b"x").unwrap();
    let saved = snapshot::save(&scene.path("vm"), &scene.path("saved"), FileOptions::default()).await;
    assert!(is_modified(&saved.unwrap_err(), &flat));
    // Made again, it is the image's.
    scene.images.materialize(&scene.image, &Rootfs::erofs_flat(), &scene.path("vm")).await.unwrap();
    snapshot::save(&scene.path("vm"), &scene.path("saved"), FileOptions::default()).await.unwrap();
}
