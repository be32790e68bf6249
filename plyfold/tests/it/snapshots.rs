//! Snapshots: what comes back is what was saved, from every place, or nothing comes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plyfold::atomic_file::FileOptions;
use plyfold::materializers::ext4::{Ext4Rootfs, resize};
use plyfold::progress::Progress;
use plyfold::snapshot::{self, Content, Snapshot};
use plyfold::{
    CacheProvider as _, CacheProviderExt as _, Collect, CopyOptions, Error, ErrorKind, ImageRegistry as _,
    Images, Materializers, Options, PullOptions, PulledImage, Reference, Rootfs, copy, digest, reference,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::formats::pulled;

/// What a folder has: names, and their content.
pub(crate) fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    // The list of a set begins with the number of its own inode.
    let bytes = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        if path.ends_with(".plyfold-set") {
            bytes.drain(..=bytes.iter().position(|byte| *byte == b'\n').unwrap());
        }
        bytes
    };
    entries.map(|path| (name(&path), bytes(&path))).collect()
}

/// Changes a disk as a guest does: new data, data in place of other data, and zeros in place of data.
fn write_as_a_guest(disk: &Path) {
    let file = File::options().read(true).write(true).open(disk).unwrap();
    let size = file.metadata().unwrap().len();
    file.write_all_at(&[7; 10_000], 30 << 20).unwrap();
    file.write_all_at(b"the end", size - 7).unwrap();
    // The first block of group descriptors.
    file.write_all_at(&[0; 4096], 4096).unwrap();
    change_superblock(&file, |superblock| superblock[120..132].copy_from_slice(b"mounted once"));
}

/// Changes the superblock of an ext4 file system, which stays sound.
pub(crate) fn change_superblock(disk: &File, change: impl FnOnce(&mut [u8; 1024])) {
    let mut superblock = [0; 1024];
    disk.read_exact_at(&mut superblock, 1024).unwrap();
    change(&mut superblock);
    let checksum = crc32c(&superblock[..1020]);
    superblock[1020..].copy_from_slice(&checksum.to_le_bytes());
    disk.write_all_at(&superblock, 1024).unwrap();
}

/// CRC-32C as ext4 begins it.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

pub(crate) struct Scene {
    dir: TempDir,
    pub(crate) images: Images,
    pub(crate) image: PulledImage,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (images, image) = pulled(&dir).await;
        Self { dir, images, image }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Disks in a folder of this name, written to by a guest where one writes to them.
    pub(crate) async fn disks(&self, rootfs: &Rootfs, name: &str) -> plyfold::Disks {
        let disks = self.images.materialize(&self.image, rootfs, &self.path(name)).await.unwrap();
        let is_written = |path: &&PathBuf| !disks.verified().any(|of| of.disk.path == **path);
        for disk in [&disks.upper, &disks.ext4].into_iter().flatten().filter(is_written) {
            write_as_a_guest(disk);
        }
        disks
    }

    pub(crate) async fn saved(&self, rootfs: &Rootfs) -> (plyfold::Disks, snapshot::KeptSnapshot) {
        let disks = self.disks(rootfs, "vm").await;
        let kept = snapshot::save(&self.path("vm"), &self.path("saved"), FileOptions::default()).await;
        (disks, kept.unwrap())
    }

    async fn load(&self, out: &str) -> Result<plyfold::Disks, Error> {
        let loaded = snapshot::load(&self.path("saved"), &self.path(out), FileOptions::default()).await;
        loaded.map(|(_, disks)| disks)
    }

    /// What loading and verifying say.
    pub(crate) async fn refused(&self) -> Error {
        let before = content(&self.path("vm"));
        let error = self.load("out").await.unwrap_err();
        assert!(!self.path("out").exists());
        let verified = snapshot::verify(&self.path("saved")).await.unwrap_err();
        assert_eq!((verified.kind(), verified.message()), (error.kind(), error.message()));
        let names = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.as_encoded_bytes().starts_with(b".plyfold")).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(content(&self.path("vm")) == before);
        error
    }

    /// Changes what the document of the saved snapshot says.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("saved/snapshot.json");
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::remove_file(&path).unwrap();
        fs::write(&path, value.to_string()).unwrap();
    }
}

/// A format with hash trees.
pub(crate) fn verified(format: &str, place: &str) -> Rootfs {
    let options = Options::parse([&*format!("verity={place}")]).unwrap();
    Rootfs::named(format, &options, &Materializers::linked().unwrap()).unwrap().verified(true)
}

pub(crate) fn name(text: &str) -> Reference {
    reference::parse(text).unwrap()
}

async fn save_as(scene: &Scene, text: &str, attached: bool) -> Result<snapshot::KeptSnapshot, Error> {
    scene.images.save_snapshot(&scene.path("vm"), &name(text), attached, Progress::none()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_come_back_as_they_were() {
    let forms = [
        Rootfs::vmdk().upper(64 << 20),
        Rootfs::erofs_layers().upper(1 << 40),
        Rootfs::erofs_tar(),
        Rootfs::erofs_flat().upper(64 << 20),
        Rootfs::raw(),
        Rootfs::gpt().upper(64 << 20),
        Rootfs::ext4(Ext4Rootfs::new().size(128 << 20).unwrap()),
        verified("erofs-layers", "append"),
        Rootfs::named("vmdk-gpt", &Options::default(), &Materializers::linked().unwrap()).unwrap(),
        Rootfs::named("vmdk-stream", &Options::default(), &Materializers::linked().unwrap()).unwrap(),
        verified("raw", "beside").upper(64 << 20),
        verified("gpt", "append"),
        verified("erofs-layers", "beside"),
        verified("erofs-merged", "beside").upper(64 << 20),
        verified("erofs-tar", "beside"),
        verified("vmdk", "append").upper(64 << 20),
        verified("vmdk", "beside"),
        verified("ext4", "append"),
        verified("ext4", "beside"),
    ];
    for rootfs in forms {
        let scene = Scene::new().await;
        let (disks, kept) = scene.saved(&rootfs).await;
        let loaded = scene.load("out").await.unwrap();
        let is_sparse = |path: &Path| fs::metadata(path).unwrap().blocks() * 512 < 20 << 20;
        for (one, other) in disks.files.iter().zip(&loaded.files) {
            assert_eq!(one.path.file_name(), other.path.file_name());
            assert_eq!((one.role, &one.format, one.size), (other.role, &other.format, other.size));
            assert_eq!((&one.hash_tree, &one.partitions), (&other.hash_tree, &other.partitions));
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&one.path), mode(&other.path), "{}", one.path.display());
            assert!(is_sparse(&one.path) && is_sparse(&other.path), "{}", other.path.display());
            if one.size < 1 << 40 {
                assert!(
                    fs::read(&one.path).unwrap() == fs::read(&other.path).unwrap(),
                    "{}",
                    one.path.display()
                );
            }
        }
        assert_eq!(disks.files.len(), loaded.files.len());
        let script = |disks: &plyfold::Disks| disks.mount_script().unwrap_or_default();
        let (vm, out) = (scene.path("vm").display().to_string(), scene.path("out").display().to_string());
        assert_eq!(script(&disks).replace(&vm, &out), script(&loaded));
        assert_eq!(
            (disks.kernel, disks.boot_lines().is_some()),
            (loaded.kernel, loaded.boot_lines().is_some())
        );
        let records =
            ["vm", "out"].map(|folder| fs::read(scene.path(folder).join(".plyfold-image")).unwrap());
        assert!(records[0] == records[1]);
        // The few blocks that were written, and their bits.
        for file in kept.snapshot.files.iter().filter(|file| file.file.name == "upper.ext4") {
            assert!(file.stored().1 < 40_000, "{} bytes", file.stored().1);
            let Content::Delta(delta) = &file.content else { panic!("an upper is a delta") };
            assert!(delta.base.is_some());
        }
        assert_eq!(snapshot::verify(&scene.path("saved")).await.unwrap(), kept);
        // The disks that were loaded are saved as the same snapshot.
        let again = snapshot::save(&scene.path("out"), &scene.path("again"), FileOptions::default()).await;
        assert_eq!(again.unwrap(), kept);
    }
}

/// The base is not what it was, or there is none: the disk still comes back.
#[tokio::test]
async fn a_disk_that_is_not_what_was_made_is_saved_all_the_same() {
    type Change<'a> = &'a dyn Fn(&mut File);
    let scene = Scene::new().await;
    let disks = scene.disks(&Rootfs::erofs_flat().upper(64 << 20), "vm").await;
    let upper = disks.upper.unwrap();
    let saved = |number: u32| {
        let (vm, out) = (scene.path("vm"), scene.path(&format!("saved-{number}")));
        async move { (snapshot::save(&vm, &out, FileOptions::default()).await.unwrap().snapshot, out) }
    };
    let base_of = |snapshot: &Snapshot| match &snapshot.files[1].content {
        Content::Delta(delta) => delta.base.is_some(),
        _ => panic!("an upper is a delta"),
    };
    // Grown, no file system any more, and of another maker.
    let mut file = File::options().read(true).write(true).open(&upper).unwrap();
    file.set_len(64 << 20).unwrap();
    fs::remove_file(&upper).unwrap();
    scene.disks(&Rootfs::erofs_flat().upper(64 << 20), "pristine").await;
    fs::copy(scene.path("pristine/upper.ext4"), &upper).unwrap();
    let changes: [(Change<'_>, bool); 3] = [
        (&|file| file.set_len(300 << 20).unwrap(), true),
        (&|file| file.write_all_at(&[0; 2], 1024 + 56).unwrap(), true),
        (&|file| file.write_all_at(&[9; 16], 1024 + 104).unwrap(), false),
    ];
    file = File::options().read(true).write(true).open(&upper).unwrap();
    for (number, (change, has_base)) in (0..).zip(changes) {
        change(&mut file);
        let (snapshot, saved) = saved(number).await;
        assert_eq!(base_of(&snapshot), has_base, "{number}");
        let out = scene.path(&format!("out-{number}"));
        snapshot::load(&saved, &out, FileOptions::default()).await.unwrap();
        let (old, new) = (fs::read(&upper).unwrap(), fs::read(out.join("upper.ext4")).unwrap());
        assert!(old == new, "{number}: {} bytes, {} bytes", old.len(), new.len());
    }
}

#[tokio::test]
async fn a_disk_that_was_resized_is_a_small_delta() {
    let scene = Scene::new().await;
    let (rootfs, vm) = (Rootfs::vmdk().upper(64 << 20), scene.path("vm"));
    let disks = scene.images.materialize(&scene.image, &rootfs, &vm).await.unwrap();
    let upper = disks.upper.unwrap();
    let mut file = File::options().read(true).write(true).open(&upper).unwrap();
    resize(&mut file, 20 << 30).unwrap();
    let kept = snapshot::save(&scene.path("vm"), &scene.path("saved"), FileOptions::default()).await.unwrap();
    let stored = kept.snapshot.files.last().unwrap().stored().1;
    assert!(stored < 4 << 20, "{stored} bytes");
    let loaded = scene.load("out").await.unwrap().upper.unwrap();
    let of_both = |at: u64| {
        [&upper, &loaded].map(|path| {
            let mut part = vec![0; 1 << 20];
            File::open(path).unwrap().read_exact_at(&mut part, at).unwrap();
            part
        })
    };
    for at in (0..160).map(|group| group * (128 << 20)) {
        let [old, new] = of_both(at);
        assert!(old == new, "at {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_keeps_a_snapshot_while_it_has_a_name() {
    let scene = Scene::new().await;
    scene.disks(&Rootfs::vmdk().upper(64 << 20), "vm").await;
    let kept = save_as(&scene, "a.example/state:1", false).await.unwrap();
    assert_eq!(save_as(&scene, "a.example/state:1", false).await.unwrap(), kept, "saved again");
    scene.images.collect(&Collect::default()).await.unwrap();
    let listed = scene.images.snapshots().await.unwrap();
    assert_eq!(listed, [(name("a.example/state:1"), kept.clone())]);
    assert_eq!(scene.images.snapshot(&scene.image.reference).await.unwrap(), None);
    // The disks, and what they were made of, are gone.
    let before = content(&scene.path("vm"));
    fs::remove_dir_all(scene.path("vm")).unwrap();
    scene.images.remove(&scene.image.reference).await.unwrap();
    let here = scene.images.pull("a.example/state:1", PullOptions::default()).await.unwrap();
    let image = scene.image.manifest.clone();
    drop(scene.image);
    scene.images.collect(&Collect::default()).await.unwrap();
    assert_eq!(scene.images.cache().stat(&image).await.unwrap(), None);
    assert_eq!(scene.images.verify_snapshot(&here).await.unwrap(), kept);
    let out = scene.dir.path().join("out");
    let (same, _) = scene.images.load_snapshot(&here, &out, FileOptions::default()).await.unwrap();
    assert_eq!(same, kept);
    assert!(content(&out) == before);

    drop(here);
    assert!(scene.images.remove(&name("a.example/state:1")).await.unwrap());
    scene.images.collect(&Collect::default()).await.unwrap();
    let usage = scene.images.usage().await.unwrap();
    assert_eq!((usage.blobs, usage.artifacts), (0, 0));
}

/// A referrer stays with its image, and an image of that name stays what it is.
#[tokio::test]
async fn an_attached_snapshot_stays_with_its_image() {
    let scene = Scene::new().await;
    scene.disks(&Rootfs::erofs_flat().upper(64 << 20), "vm").await;
    let image = scene.image.reference.whole();
    let error = save_as(&scene, &image, false).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
    let kept = save_as(&scene, "a.example/state:1", true).await.unwrap();
    assert_eq!(*save_as(&scene, "a.example/state:1", false).await.unwrap_err().kind(), ErrorKind::Config);
    scene.images.remove(&name("a.example/state:1")).await.unwrap();
    scene.images.collect(&Collect::default()).await.unwrap();
    let stat = |digest| {
        let cache = scene.images.cache();
        async move { cache.stat(digest).await.unwrap() }
    };
    assert!(stat(kept.manifest.digest()).await.is_some());
    // It is found by its digest, and goes with its image to other places.
    let [(attached, same)] = &scene.images.snapshots().await.unwrap()[..] else { panic!("one snapshot") };
    assert_eq!((same, attached.digest()), (&kept, Some(kept.manifest.digest().as_ref())));
    let here = scene.images.pull(&attached.whole(), PullOptions::default()).await.unwrap();
    scene.images.load_snapshot(&here, &scene.path("loaded"), FileOptions::default()).await.unwrap();
    assert!(content(&scene.path("loaded")) == content(&scene.path("vm")));
    drop(here);
    let to = plyfold::memory::MemoryRegistry::new("to");
    let platforms = plyfold::Platforms::One(scene.image.made_for().unwrap());
    let copying = CopyOptions { platforms, referrers: true, ..CopyOptions::default() };
    let options = copying;
    let target = name("b.example/app:1");
    scene.images.cache().push(&scene.image.reference, &to, &target, &options).await.unwrap();
    let subject = scene.image.descriptor().digest().clone();
    let listed = to.referrers(&target, &subject, None).await.unwrap();
    assert_eq!(listed.iter().map(plyfold::Descriptor::digest).collect::<Vec<_>>(), [kept.manifest.digest()]);
    // What is no snapshot is not loaded as one.
    let error = scene.images.load_snapshot(&scene.image, &scene.path("out"), FileOptions::default()).await;
    assert_eq!(*error.unwrap_err().kind(), ErrorKind::Unsupported);
    scene.images.remove(&scene.image.reference).await.unwrap();
    let Scene { dir: _dir, images, image } = scene;
    drop(image);
    images.collect(&Collect::default()).await.unwrap();
    assert_eq!(images.cache().stat(kept.manifest.digest()).await.unwrap(), None);
}

/// A disk of an older set stays in its folder, and would be missing from the snapshot of the new one.
#[tokio::test]
async fn a_disk_that_is_no_part_of_the_set_is_not_left_out_in_silence() {
    let scene = Scene::new().await;
    assert!(scene.disks(&Rootfs::erofs_flat().upper(64 << 20), "vm").await.notes.is_empty());
    let disks = scene.disks(&Rootfs::raw(), "vm").await;
    assert!(disks.notes.iter().any(|note| note.contains("upper.ext4")), "{:?}", disks.notes);
    let saved = snapshot::save(&scene.path("vm"), &scene.path("saved"), FileOptions::default()).await;
    for error in [saved.unwrap_err(), save_as(&scene, "a.example/state:1", false).await.unwrap_err()] {
        assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("upper.ext4"), "{error}");
    }
    fs::rename(scene.path("vm/upper.ext4"), scene.path("upper.ext4")).unwrap();
    save_as(&scene, "a.example/state:1", false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_one_artifact_in_every_backend() {
    let scene = Scene::new().await;
    let (_, kept) = scene.saved(&Rootfs::gpt().upper(64 << 20)).await;
    let before = content(&scene.path("vm"));
    let layout = format!("oci:{}:one", scene.path("layout").display());
    let memory = "memory:snapshots:a.example/vm:2".to_owned();
    for uri in [&layout, &memory] {
        let to = scene.images.backends().open(uri, &Options::default()).await.unwrap();
        let target = to.reference.clone().unwrap();
        let (vm, options) = (scene.path("vm"), CopyOptions::default());
        let pushed = scene.images.push_snapshot(&vm, &*to.registry, &target, false, &options);
        assert_eq!(pushed.await.unwrap().manifest, kept.manifest, "{uri}");
    }
    // By the ordinary ways on to other places, and into another store.
    let from = scene.images.backends().open(&memory, &Options::default()).await.unwrap();
    let to = format!("oci:{}:two", scene.path("layout").display());
    let to = scene.images.backends().open(&to, &Options::default()).await.unwrap();
    let (source, target) = (from.reference.unwrap(), to.reference.unwrap());
    let copied = copy(&*from.registry, &source, &*to.registry, &target, &CopyOptions::default()).await;
    assert_eq!(copied.unwrap().digest(), kept.manifest.digest());
    let other = Images::open(scene.path("other")).await.unwrap();
    for (number, uri) in
        [layout, memory, format!("oci:{}:two", scene.path("layout").display())].iter().enumerate()
    {
        let here = other.pull(uri, PullOptions::default()).await.unwrap();
        let out = scene.path(&format!("out-{number}"));
        let (same, _) = other.load_snapshot(&here, &out, FileOptions::default()).await.unwrap();
        assert_eq!(same, kept);
        assert!(content(&out) == before);
    }
    assert_eq!(other.snapshots().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_altered_is_an_error_and_nothing_changes() {
    for rootfs in
        [Rootfs::vmdk().upper(64 << 20), verified("erofs-layers", "beside"), verified("vmdk", "append")]
    {
        let scene = Scene::new().await;
        let (_, kept) = scene.saved(&rootfs).await;
        let set = scene.path("out-2");
        scene.images.materialize(&scene.image, &Rootfs::erofs_flat(), &set).await.unwrap();
        let older = content(&set);
        for file in &kept.snapshot.files {
            let path = scene.path("saved").join(file.file.stored_name());
            let good = fs::read(&path).unwrap();
            let put = |bytes: &[u8]| {
                let _ = fs::remove_file(&path);
                fs::write(&path, bytes).unwrap();
            };
            let mut flipped = good.clone();
            flipped[good.len() / 2] ^= 1;
            for bad in [&flipped[..], &good[..good.len() - 1], &[&good[..], b"x"].concat(), b""] {
                put(bad);
                let error = scene.refused().await;
                assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
                assert!(error.message().contains(&*file.file.stored_name()), "{error}");
            }
            // An older set in the place of the output stays.
            let error = scene.load("out-2").await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(content(&set) == older);
            fs::remove_file(&path).unwrap();
            assert_eq!(*scene.refused().await.kind(), ErrorKind::NotFound);
            fs::write(scene.path("elsewhere"), &good).unwrap();
            std::os::unix::fs::symlink(scene.path("elsewhere"), &path).unwrap();
            assert_eq!(*scene.refused().await.kind(), ErrorKind::Config);
            put(&good);
        }
        scene.load("out-2").await.unwrap();
        assert_eq!(fs::read_dir(&set).unwrap().count(), content(&scene.path("vm")).len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_damaged_in_a_store_is_an_error() {
    let scene = Scene::new().await;
    scene.disks(&Rootfs::vmdk().upper(64 << 20), "vm").await;
    let kept = save_as(&scene, "a.example/state:1", false).await.unwrap();
    let here = scene.images.pull("a.example/state:1", PullOptions::default()).await.unwrap();
    for file in &kept.snapshot.files {
        let path = here.path.join("blobs/sha256").join(file.stored().0.digest());
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for (content, kind) in [(Some(&flipped), ErrorKind::Corrupt), (None, ErrorKind::NotFound)] {
            fs::remove_file(&path).unwrap();
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
            let out = scene.path("out");
            let loaded = scene.images.load_snapshot(&here, &out, FileOptions::default()).await;
            let error = loaded.unwrap_err();
            assert_eq!(*error.kind(), kind, "{}: {error}", file.file.name);
            assert!(!scene.path("out").exists());
            assert_eq!(*scene.images.verify_snapshot(&here).await.unwrap_err().kind(), kind);
            fs::write(&path, &good).unwrap();
        }
    }
    scene.images.load_snapshot(&here, &scene.path("out"), FileOptions::default()).await.unwrap();
}

/// Each says true digests of what is not what plyfold saves.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_hostile_snapshot_says_is_refused() {
    let scene = Scene::new().await;
    scene.saved(&Rootfs::vmdk().upper(64 << 20)).await;
    let document = fs::read(scene.path("saved/snapshot.json")).unwrap();
    let reset = || {
        fs::remove_file(scene.path("saved/snapshot.json")).unwrap();
        fs::write(scene.path("saved/snapshot.json"), &document).unwrap();
    };
    let put = |name: &str, content: &[u8]| {
        let path = scene.path("saved").join(name);
        fs::remove_file(&path).unwrap();
        fs::write(path, content).unwrap();
        (digest::sha256(content), content.len())
    };
    // A disk of files elsewhere.
    let text = fs::read_to_string(scene.path("saved/rootfs.vmdk")).unwrap();
    for path in ["passwd.erofs", "/etc/passwd", "../layer-00.erofs"] {
        let (digest, size) = put("rootfs.vmdk", text.replace("layer-00.erofs", path).as_bytes());
        scene.edit(|value| {
            value["files"][3]["digest"] = json!(digest);
            value["files"][3]["size"] = json!(size);
        });
        let error = scene.refused().await;
        assert!(
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Config),
            "{error}"
        );
        reset();
    }
    put("rootfs.vmdk", text.as_bytes());
    // A delta that goes on, ends early, or is of another disk.
    let delta = fs::read(scene.path("saved/upper.delta")).unwrap();
    for bad in [&delta[..delta.len() - 8], &[&delta[..], b"x"].concat(), b"plyfold delta 1\n"] {
        let (digest, size) = put("upper.delta", bad);
        scene.edit(|value| {
            value["files"][4]["delta"]["digest"] = json!(digest);
            value["files"][4]["delta"]["size"] = json!(size);
        });
        assert_eq!(*scene.refused().await.kind(), ErrorKind::Corrupt);
        reset();
    }
    put("upper.delta", &delta);
    scene.edit(|value| value["files"][4]["size"] = json!(65 << 20));
    assert_eq!(*scene.refused().await.kind(), ErrorKind::Corrupt);
    reset();
    // An empty disk that nothing makes any more.
    for (field, other) in [("size", json!(1)), ("format", json!("ext4-upper-v9")), ("uid", json!(7))] {
        scene.edit(|value| value["files"][4]["delta"]["base"]["empty"][field] = other);
        assert_eq!(*scene.refused().await.kind(), ErrorKind::Unsupported, "{field}");
        reset();
    }
    // The disk is another one than it says.
    scene.edit(|value| value["files"][4]["delta"]["disk"] = json!(digest::sha256(b"other")));
    assert_eq!(*scene.refused().await.kind(), ErrorKind::Corrupt);
    reset();
    // A size that no disk here has room for.
    scene.edit(|value| value["files"][0]["size"] = json!(i64::MAX));
    assert_eq!(*scene.refused().await.kind(), ErrorKind::Corrupt);
    reset();
    scene.load("out").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_stays() {
    let scene = Scene::new().await;
    scene.saved(&Rootfs::vmdk().upper(64 << 20)).await;
    let saved = content(&scene.path("saved"));
    // A snapshot, a set and a file are not replaced by a snapshot.
    fs::write(scene.path("file"), "mine").unwrap();
    for out in ["saved", "vm", "file"] {
        let error = snapshot::save(&scene.path("vm"), &scene.path(out), FileOptions::default()).await;
        assert_eq!(*error.unwrap_err().kind(), ErrorKind::Config, "{out}");
    }
    assert!(content(&scene.path("saved")) == saved);
    // Neither is a disk that a guest may have written to, by loading one.
    let before = content(&scene.path("vm"));
    assert_eq!(*scene.load("vm").await.unwrap_err().kind(), ErrorKind::Config);
    assert!(content(&scene.path("vm")) == before);
    // A folder with no disks of an image, and one with not all of them.
    let save = |from: &str| {
        let (from, out) = (scene.path(from), scene.path("new"));
        async move { snapshot::save(&from, &out, FileOptions::default()).await.unwrap_err().kind().clone() }
    };
    fs::create_dir(scene.path("none")).unwrap();
    assert_eq!(save("none").await, ErrorKind::NotFound);
    assert_eq!(save("absent").await, ErrorKind::NotFound);
    fs::remove_file(scene.path("vm/merged.erofs")).unwrap();
    assert_eq!(save("vm").await, ErrorKind::NotFound);
    assert!(!scene.path("new").exists());
    assert_eq!(*snapshot::verify(&scene.path("vm")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_dropped_leaves_nothing() {
    let scene = Scene::new().await;
    scene.saved(&Rootfs::vmdk().upper(64 << 20)).await;
    let (vm, saved, out) = (scene.path("vm"), scene.path("saved"), scene.path("out"));
    for _ in 0..3 {
        let save = snapshot::save(&vm, &out, FileOptions::default());
        let _ = tokio::time::timeout(Duration::ZERO, save).await;
        let load = snapshot::load(&saved, &out, FileOptions::default());
        let _ = tokio::time::timeout(Duration::ZERO, load).await;
    }
    let left = || {
        let names = fs::read_dir(scene.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.as_encoded_bytes().starts_with(b".plyfold")).count()
    };
    // The threads have been asked to end.
    let begun = Instant::now();
    while left() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} folders are left", left());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // One that was done before it was dropped has made all.
    if out.exists() {
        assert!(snapshot::verify(&out).await.is_ok() || content(&out) == content(&vm));
        fs::remove_dir_all(&out).unwrap();
    }
    scene.load("out").await.unwrap();
}
