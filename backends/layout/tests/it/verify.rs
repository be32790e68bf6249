//! Verification and repair of a whole store.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use plyfold_conformance::samples::{self, Sample};
use plyfold_core::cache::{Damage, DamagedPart, Remains};
use plyfold_core::copy::{CopyOptions, copy};
use plyfold_core::layout_index::{ENTRIES, LayoutIndex};
use plyfold_core::progress::{Event, Progress};
use plyfold_core::{
    Advice, Artifact, ArtifactKey, CacheProvider as _, CacheProviderExt as _, Collect, Digest, ErrorKind,
    Format, Ingest, Made, NameChange, PullOptions, Reference, Verified, Verify, digest, pull,
};
use plyfold_layout::{Config, Layout, Store};
use tempfile::TempDir;

use super::{blob, blob_path, described, fails, name, names_in};

const NAME: &str = "registry.example/library/app:1.2";

/// A store with one image and the artifacts of its layers, and where the image came from.
struct Scene {
    store: Store,
    sample: Sample,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let (folder, sample) = (TempDir::new().unwrap(), samples::image());
        samples::write_layout(&folder.path().join("origin"), &[(NAME.to_owned(), &sample)]).unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        let scene = Self { store, sample, folder };
        scene.pull().await;
        for layer in &scene.sample.images[0].layers {
            scene.make(&layer.diff_id).await;
        }
        scene
    }

    async fn pull(&self) {
        let origin = Layout::new(self.folder.path().join("origin"), Config::default());
        let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
        pull(&origin, &name(NAME), &self.store, &options).await.unwrap();
    }

    /// Makes the artifact of a layer, unless it is there.
    async fn make(&self, diff_id: &Digest) -> PathBuf {
        let format = Format { name: "erofs", version: 1, options: String::new(), extension: "erofs" };
        match self.store.artifact(&ArtifactKey::layer(format, diff_id.clone())).await.unwrap() {
            Artifact::Present(artifact) => artifact.path().unwrap().to_owned(),
            Artifact::Vacant(mut writer) => {
                writer.output().write_all(b"an image of some bytes").unwrap();
                writer.commit(&Made::default()).unwrap().path().unwrap().to_owned()
            }
        }
    }

    fn layer(&self) -> Digest {
        self.sample.images[0].layers[0].descriptor.digest().clone()
    }

    fn diff_id(&self) -> Digest {
        self.sample.images[0].layers[0].diff_id.clone()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        blob_path(self.store.path(), digest)
    }

    async fn verify(&self, repair: bool) -> Verified {
        self.store.verify(&Verify { repair, ..Verify::default() }).await.unwrap()
    }

    fn quarantined(&self) -> Vec<String> {
        names_in(&self.store.path().join("quarantine"))
    }
}

#[tokio::test]
async fn the_artifact_of_an_image_is_verified_with_the_image() {
    let scene = Scene::new().await;
    let layers = &scene.sample.images[0].layers;
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let content = digest::chain_id(&diff_ids).unwrap();
    let path = scene.make(&content).await;
    replace(&path, b"an image of some bytEs");
    let images = Some(vec![name(NAME)]);
    let verified = scene.store.verify(&Verify { images, repair: true, ..Verify::default() }).await.unwrap();
    let damage = only(&verified);
    assert_eq!(damage.part, DamagedPart::Artifact("erofs-v1".to_owned(), content));
    assert_eq!((damage.images.len(), damage.repaired, path.exists()), (1, true, false));
}

/// The one damage that there is.
fn only(verified: &Verified) -> &Damage {
    assert_eq!(verified.damage.len(), 1, "{verified:?}");
    &verified.damage[0]
}

/// Puts other content in a file's place, as a new file.
fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

#[tokio::test]
async fn a_sound_store_is_read_whole_and_foreign_files_are_left_alone() {
    let scene = Scene::new().await;
    let path = scene.store.path();
    let foreign = [
        "README",
        "blobs/README",
        "blobs/sha256/README",
        "blobs/md5/d41d8cd98f00b204e9800998ecf8427e",
        "artifacts/README",
        "artifacts/erofs-v1/sha256/zz/README",
    ];
    for file in foreign {
        fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
        fs::write(path.join(file), "theirs").unwrap();
    }
    let sidecar = format!("{}.dmverity", scene.make(&scene.diff_id()).await.display());
    fs::write(&sidecar, "{}").unwrap();
    let (progress, mut events) = Progress::channel();
    let verified = scene.store.verify(&Verify { repair: true, progress, images: None }).await.unwrap();
    assert_eq!(verified.damage, []);
    // Manifest, config, two layers, two artifacts.
    assert_eq!(verified.checked, 6);
    let blobs: u64 = scene.sample.blobs.iter().map(|blob| blob.descriptor.size()).sum();
    assert_eq!(verified.bytes, blobs + 2 * 22);
    assert!(foreign.iter().all(|file| path.join(file).exists()) && Path::new(&sidecar).exists());
    let mut last = None;
    while let Some(event) = events.next().await {
        match event {
            Event::VerifyProgress { read, total } => {
                assert!(read <= total && total == verified.bytes);
            }
            event => last = Some(event),
        }
    }
    assert_eq!(last, Some(Event::Finished { success: true }));
}

#[tokio::test]
async fn damaged_blobs_are_told_quarantined_and_fetched_again() {
    let scene = Scene::new().await;
    let (layer, manifest) = (scene.layer(), scene.sample.top.digest().clone());
    let outside = scene.folder.path().join("outside");
    for digest in [&layer, &manifest] {
        let path = scene.blob(digest);
        let sound = fs::read(&path).unwrap();
        fs::write(&outside, &sound).unwrap();
        let mut flipped = sound.clone();
        flipped[sound.len() / 2] ^= 1;
        let clear = || fs::remove_file(&path).unwrap();
        let damages: [(&str, &dyn Fn()); 6] = [
            ("digest mismatch", &|| replace(&path, &flipped)),
            ("digest mismatch", &|| replace(&path, &sound[..sound.len() - 1])),
            ("digest mismatch", &|| replace(&path, b"")),
            ("a symbolic link", &|| {
                clear();
                symlink(&outside, &path).unwrap();
            }),
            ("a pipe", &|| {
                clear();
                let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
                rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
            }),
            ("a directory", &|| {
                clear();
                fs::create_dir(&path).unwrap();
            }),
        ];
        for (why, damage) in damages {
            damage();
            let before = scene.quarantined().len();
            for repair in [false, true] {
                let verified = scene.verify(repair).await;
                let damage = only(&verified);
                assert_eq!((&damage.part, damage.repaired), (&DamagedPart::Blob(digest.clone()), repair));
                assert!(damage.reason.contains(why), "{damage:?}");
                assert_eq!(damage.images, [name(NAME)]);
                assert_eq!(scene.quarantined().len(), before + usize::from(repair));
            }
            let missing = scene.verify(true).await;
            assert_eq!(only(&missing).part, DamagedPart::Missing(digest.clone()));
            assert_eq!((&*only(&missing).images, only(&missing).repaired), (&[name(NAME)][..], false));
            scene.pull().await;
            assert_eq!(scene.verify(false).await.damage, []);
        }
        assert_eq!(fs::read(&outside).unwrap(), sound);
    }
    assert_eq!(names_in(&scene.store.path().join("ingest")), [""; 0]);
}

#[tokio::test]
async fn damaged_artifacts_are_told_removed_and_made_again() {
    let scene = Scene::new().await;
    let path = scene.make(&scene.diff_id()).await;
    let checksum = PathBuf::from(format!("{}.checksum", path.display()));
    let damages: [(&str, &dyn Fn()); 4] = [
        ("checksum mismatch: 22 bytes at 0", &|| replace(&path, b"another of some bytes.")),
        ("size mismatch", &|| replace(&path, b"an image")),
        ("no checksum", &|| replace(&checksum, b"{")),
        ("a directory", &|| {
            fs::remove_file(&path).unwrap();
            fs::create_dir_all(path.join("inner")).unwrap();
        }),
    ];
    for (why, damage) in damages {
        damage();
        for repair in [false, true] {
            let verified = scene.verify(repair).await;
            let damage = only(&verified);
            assert_eq!(damage.part, DamagedPart::Artifact("erofs-v1".to_owned(), scene.diff_id()));
            assert!(damage.reason.contains(why), "{damage:?}");
            assert_eq!((&*damage.images, damage.repaired), (&[name(NAME)][..], repair));
            assert_eq!(path.exists(), !repair);
        }
        assert_eq!(scene.verify(false).await.damage, []);
        assert_eq!(scene.make(&scene.diff_id()).await, path);
        assert_eq!(scene.verify(false).await.damage, []);
    }
}

#[tokio::test]
async fn an_artifact_that_was_written_to_by_another_name_is_told_and_made_again() {
    let scene = Scene::new().await;
    let path = scene.make(&scene.layer()).await;
    let link = scene.folder.path().join("link");
    fs::hard_link(&path, &link).unwrap();
    let content = fs::read(&path).unwrap();
    let changed = vec![b'x'; content.len()];
    fs::write(&link, &changed).unwrap();
    let verify = |repair| {
        let what = Verify { repair, ..Verify::default() };
        let store = scene.store.clone();
        async move { store.verify(&what).await.unwrap() }
    };
    for repair in [false, true] {
        let verified = verify(repair).await;
        let damage = only(&verified);
        assert_eq!(damage.repaired, repair);
        assert!(damage.reason.ends_with("another file is a hard link to it, and has the same content"));
    }
    assert_eq!(verify(false).await.damage, []);
    // The artifact is a new file; the changed file is kept.
    assert_eq!(fs::read(scene.make(&scene.layer()).await).unwrap(), content);
    assert_eq!(fs::read(&link).unwrap(), changed);
    assert_eq!(verify(false).await.damage, []);
}

#[tokio::test]
async fn a_mode_that_was_changed_is_told_and_set_back() {
    let scene = Scene::new().await;
    let path = scene.make(&scene.diff_id()).await;
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    let content = fs::read(&path).unwrap();
    for changed in [0o666, 0o644, 0o4444, 0o400] {
        fs::set_permissions(&path, Permissions::from_mode(changed)).unwrap();
        for repair in [false, true] {
            let verified = scene.verify(repair).await;
            let damage = only(&verified);
            assert_eq!(damage.part, DamagedPart::Artifact("erofs-v1".to_owned(), scene.diff_id()));
            let reason = format!("mode mismatch: recorded with mode 0444, it has {changed:04o}");
            assert_eq!((&damage.reason, &*damage.images), (&reason, &[name(NAME)][..]));
            assert_eq!((damage.repaired, mode()), (repair, if repair { 0o444 } else { changed }));
        }
        assert_eq!(scene.verify(false).await.damage, []);
    }
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[tokio::test]
async fn an_artifact_in_the_making_is_not_damaged() {
    let scene = Scene::new().await;
    let path = scene.make(&scene.diff_id()).await;
    fs::remove_file(format!("{}.checksum", path.display())).unwrap();
    let maker = File::open(&path).unwrap();
    maker.lock().unwrap();
    let verified = scene.verify(true).await;
    assert_eq!((&*verified.damage, verified.checked), (&[][..], 5));
    drop(maker);
    let verified = scene.verify(false).await;
    assert_eq!((&*verified.damage, verified.remains.count), (&[][..], 1));
}

#[tokio::test]
async fn what_another_writes_anew_is_left_to_it() {
    let scene = Scene::new().await;
    let layer = scene.sample.images[0].layers[0].descriptor.clone();
    replace(&scene.blob(layer.digest()), b"torn");
    let Ingest::Vacant(mut writer) = scene.store.ingest(&layer).await.unwrap() else { panic!("it is torn") };
    writer.write(scene.sample.blob(layer.digest()).unwrap().slice(..10)).await.unwrap();
    let verified = scene.verify(true).await;
    assert!(!only(&verified).repaired && only(&verified).reason.contains("another process"), "{verified:?}");
    assert_eq!(scene.quarantined(), [""; 0]);
    // What it leaves for the next one stays, too.
    writer.suspend().await.unwrap();
    assert!(only(&scene.verify(true).await).repaired);
    let Ingest::Vacant(writer) = scene.store.ingest(&layer).await.unwrap() else { panic!("it is gone") };
    assert_eq!(writer.offset(), 10);
}

#[tokio::test]
async fn a_size_that_an_image_makes_up_is_told_and_the_content_stays() {
    let scene = Scene::new().await;
    let mut top = scene.sample.top.clone();
    top.set_size(top.size() + 1);
    // Of another tool: ours does not set such a name.
    let set = [NameChange::Set(name("liar"), top.clone())];
    fails(scene.store.update(&set).await, &ErrorKind::NotFound);
    let index = scene.store.path().join("index.json");
    let mut names = LayoutIndex::parse(&fs::read(&index).unwrap(), scene.store.path()).unwrap();
    names.set(&name("liar"), &top, true);
    fs::write(&index, names.to_bytes()).unwrap();
    scene.store.remove(&name(NAME)).await.unwrap();
    let verified = scene.verify(true).await;
    let damage = only(&verified);
    assert_eq!((&damage.part, damage.repaired), (&DamagedPart::Blob(top.digest().clone()), false));
    assert_eq!(damage.images, [name("liar")]);
    assert!(scene.blob(top.digest()).exists());
}

#[tokio::test]
async fn images_choose_what_is_read() {
    let scene = Scene::new().await;
    let other = b"nobody needs this";
    scene.store.put(blob(other)).await.unwrap();
    replace(&scene.blob(described(other).digest()), b"torn");
    let images =
        |names: &[&str]| -> Option<Vec<Reference>> { Some(names.iter().map(|text| name(text)).collect()) };
    let chosen = Verify { images: images(&[NAME]), ..Verify::default() };
    let verified = scene.store.verify(&chosen).await.unwrap();
    assert_eq!((&*verified.damage, verified.checked), (&[][..], 6));
    let whole = scene.verify(false).await;
    assert_eq!(
        (&only(&whole).part, &*only(&whole).images),
        (&DamagedPart::Blob(described(other).digest().clone()), &[][..])
    );
    assert_eq!(whole.checked, 7);
    let unknown = Verify { images: images(&["nobody"]), ..Verify::default() };
    let error = fails(scene.store.verify(&unknown).await, &ErrorKind::NotFound);
    assert_eq!(error.context("image"), Some("docker.io/library/nobody:latest"));
}

#[tokio::test]
async fn a_corrupt_index_is_set_aside_and_keeps_every_name_that_can_be_read() {
    let scene = Scene::new().await;
    let index = scene.store.path().join("index.json");
    let entry = |name: &str, digest: &str| {
        let media_type = scene.sample.top.media_type();
        let size = scene.sample.top.size();
        let name = format!(r#""org.opencontainers.image.ref.name":"{name}""#);
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size},"annotations":{{{name}}},"x":1}}"#
        )
    };
    let good = scene.sample.top.digest().to_string();
    let list =
        [entry("a.example/a:1", &good), entry("b.example/b:1", "sha256:0"), entry("c.example/c:1", &good)];
    let twice = entry("d.example/d:1", &good).replace("\"x\":1", "\"size\":1");
    let list = [&list[..], &[twice, "7".to_owned()]].concat().join(",");
    let one_bad = format!(r#"{{"schemaVersion":2,"manifests":[{list}],"theirs":[1.5]}}"#);
    let kept = ["a.example/a:1", "c.example/c:1"];
    let cases: [(&str, &[&str]); 5] = [
        (&one_bad, &kept),
        (&one_bad.replace("\"schemaVersion\":2,", ""), &kept),
        (&one_bad.replace("\"theirs\":[1.5]", "\"layers\":[]"), &kept),
        (&one_bad[..one_bad.len() - 1], &[]),
        ("", &[]),
    ];
    for (round, (corrupt, kept)) in cases.into_iter().enumerate() {
        fs::write(&index, corrupt).unwrap();
        let error = scene.store.list().await.unwrap_err();
        assert_eq!(error.advice(), Some(&Advice::RepairNames), "{error:?}");
        let told = scene.verify(false).await;
        assert_eq!((&only(&told).part, only(&told).repaired), (&DamagedPart::Names, false));
        assert_eq!(fs::read_to_string(&index).unwrap(), corrupt);
        let repaired = scene.verify(true).await;
        assert_eq!((&only(&repaired).part, only(&repaired).repaired), (&DamagedPart::Names, true));
        assert!(only(&repaired).reason.contains(&format!("{} of its entries", kept.len())), "{repaired:?}");
        let aside = scene.store.path().join(format!("quarantine/index.json.{round}"));
        assert_eq!(fs::read_to_string(aside).unwrap(), corrupt);
        let names: Vec<_> =
            scene.store.list().await.unwrap().into_iter().map(|(name, _)| name.whole()).collect();
        assert_eq!(names, kept);
        let text = fs::read_to_string(&index).unwrap();
        assert_eq!(text.contains(r#""theirs":[1.5]"#), round < 2, "{text}");
        assert_eq!(text.contains(r#""x":1"#), !kept.is_empty(), "{text}");
        assert_eq!(scene.verify(false).await.damage, []);
    }
}

#[tokio::test]
async fn an_index_that_is_gone_or_no_file_is_replaced_and_its_marker_too() {
    let scene = Scene::new().await;
    let index = scene.store.path().join("index.json");
    let outside = scene.folder.path().join("outside");
    let content = fs::read(&index).unwrap();
    fs::write(&outside, &content).unwrap();
    let damages: [&dyn Fn(); 3] = [&|| {}, &|| fs::create_dir_all(index.join("inner")).unwrap(), &|| {
        symlink(&outside, &index).unwrap();
    }];
    for damage in damages {
        fs::remove_file(&index).unwrap();
        damage();
        fails(scene.store.list().await, &ErrorKind::Corrupt);
        // An image that cannot be found is not an error of the call.
        let chosen = Verify { images: Some(vec![name(NAME)]), ..Verify::default() };
        assert_eq!(only(&scene.store.verify(&chosen).await.unwrap()).part, DamagedPart::Names);
        assert!(only(&scene.verify(true).await).repaired);
        assert_eq!(scene.store.list().await.unwrap(), []);
    }
    assert_eq!(fs::read(&outside).unwrap(), content);
    assert_eq!(scene.quarantined(), ["index.json.0", "index.json.1"]);
    // A marker that says nothing any more, under an open store.
    fs::write(&index, &content).unwrap();
    fs::write(scene.store.path().join("oci-layout"), [0; 31]).unwrap();
    assert!(!only(&scene.verify(false).await).repaired);
    assert!(only(&scene.verify(true).await).repaired);
    assert_eq!(scene.verify(true).await.damage, []);
    assert_eq!(scene.quarantined(), ["index.json.0", "index.json.1", "oci-layout.0"]);
    // Without `oci-layout` the directory still has names.
    fs::write(&index, &content).unwrap();
    fs::remove_file(scene.store.path().join("oci-layout")).unwrap();
    let names = Store::open(scene.store.path()).unwrap().list().await.unwrap();
    assert_eq!(names.len(), 1);
}

#[tokio::test]
async fn more_names_than_anyone_reads_are_refused_before_they_are_written() {
    let scene = Scene::new().await;
    let index = scene.store.path().join("index.json");
    let entry = format!(r#"{{"mediaType":"a/b","size":1,"digest":"{}"}}"#, scene.layer());
    let full = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![entry; ENTRIES].join(","));
    fs::write(&index, &full).unwrap();
    let change = [NameChange::Set(name(NAME), scene.sample.top.clone())];
    fails(scene.store.update(&change).await, &ErrorKind::Limit);
    assert_eq!(fs::read_to_string(&index).unwrap(), full);
}

#[tokio::test]
async fn a_damaged_store_is_repaired_beside_pulls() {
    let scene = std::sync::Arc::new(Scene::new().await);
    let layer = scene.layer();
    let pulls = tokio::spawn({
        let scene = scene.clone();
        async move {
            for _ in 0..30 {
                scene.pull().await;
            }
        }
    });
    while !pulls.is_finished() {
        let path = scene.blob(&layer);
        if path.exists() {
            let torn = scene.folder.path().join("torn");
            fs::write(&torn, "torn").unwrap();
            fs::rename(&torn, &path).unwrap();
        }
        scene.verify(true).await;
    }
    pulls.await.unwrap();
    scene.verify(true).await;
    scene.pull().await;
    assert_eq!(scene.verify(false).await.damage, []);
    assert_eq!(names_in(&scene.store.path().join("ingest")), [""; 0]);
}

#[tokio::test]
async fn free_room_is_what_this_user_can_still_write() {
    let scene = Scene::new().await;
    let room = rustix::fs::statvfs(scene.store.path()).unwrap();
    let free = scene.store.free().await.unwrap().unwrap();
    // Others write meanwhile; the blocks that only root may take are far more.
    assert!(free.abs_diff(room.f_bavail * room.f_frsize) < 1 << 30);
    fs::remove_dir_all(scene.store.path()).unwrap();
    fails(scene.store.free().await, &ErrorKind::Io);
}

#[tokio::test]
async fn what_a_killed_writer_leaves_is_no_damage() {
    let scene = Scene::new().await;
    let store = scene.store.path();
    let artifact = scene.make(&scene.diff_id()).await;
    // Killed between an artifact and its checksum.
    fs::remove_file(format!("{}.checksum", artifact.display())).unwrap();
    // Killed between the removal of an artifact and that of its checksum, in another order than ours.
    let other = scene.make(&scene.sample.images[0].layers[1].diff_id).await;
    fs::remove_file(&other).unwrap();
    // Killed while it made an artifact, changed names, held a lease or a single flight.
    let temps =
        ["erofs-v1-sha256-00.erofs", "erofs-v1-sha256-00.erofs.checksum", "index.json", "lease-1-2-3"];
    for temp in temps {
        fs::write(store.join("ingest").join(temp), "left").unwrap();
    }
    let partial = described(b"a download");
    let Ingest::Vacant(mut writer) = scene.store.ingest(&partial).await.unwrap() else { panic!("it is new") };
    writer.write(b"a down"[..].into()).await.unwrap();
    writer.suspend().await.unwrap();
    let sizes = |files: &[PathBuf]| files.iter().map(|file| fs::metadata(file).unwrap().len()).sum::<u64>();
    let checksum = PathBuf::from(format!("{}.checksum", other.display()));
    let bytes = sizes(&[artifact.clone(), checksum.clone()]) + 4 * 4;
    let looked = scene.verify(false).await;
    assert_eq!((&*looked.damage, looked.remains), (&[][..], Remains { count: 6, bytes, removed: 0 }));
    assert!(artifact.exists(), "it has only looked");
    // A collection finds the same, in use or not.
    let dry = Collect { dry_run: true, resumable: Duration::from_secs(60), ..Collect::default() };
    let would = scene.store.collect(&dry).await.unwrap();
    assert_eq!((would.remains, would.freed, would.resumable), (6, bytes, 6));
    let copy = scene.folder.path().join("copy");
    assert!(Command::new("cp").arg("-r").args([store, &copy]).status().unwrap().success());
    let did = Store::open(&copy).unwrap().collect(&Collect { dry_run: false, ..dry }).await.unwrap();
    // An open has removed the temporary files.
    assert_eq!((did.remains, did.freed, did.resumable), (2, bytes - 16, 6));
    assert_eq!(
        Store::open(&copy).unwrap().verify(&Verify::default()).await.unwrap().remains,
        Remains::default()
    );

    let repaired = scene.verify(true).await;
    assert_eq!((&*repaired.damage, repaired.remains), (&[][..], Remains { count: 6, bytes, removed: 6 }));
    assert!(!artifact.exists() && !checksum.exists());
    assert_eq!(names_in(&store.join("ingest")).len(), 1, "the download goes on");
    scene.make(&scene.diff_id()).await;
    assert_eq!(scene.verify(false).await.remains, Remains::default());
}

#[tokio::test]
async fn what_is_being_made_is_not_left_behind() {
    let scene = Scene::new().await;
    let diff_id = &scene.diff_id();
    let artifact = scene.make(diff_id).await;
    fs::remove_file(format!("{}.checksum", artifact.display())).unwrap();
    // As its maker holds it between the artifact and the checksum.
    let held = File::open(&artifact).unwrap();
    held.lock().unwrap();
    assert_eq!(scene.verify(true).await.remains, Remains::default());
    assert_eq!(scene.store.collect(&Collect::default()).await.unwrap().remains, 0);
    assert!(artifact.exists());
    drop(held);
    assert_eq!(scene.store.collect(&Collect::default()).await.unwrap().remains, 1);
    assert!(!artifact.exists());
}

#[tokio::test]
async fn layers_that_may_not_be_redistributed_are_not_missing() {
    let (folder, sample) = (TempDir::new().unwrap(), samples::non_distributable());
    let (origin, target) = (folder.path().join("origin"), folder.path().join("store"));
    samples::write_layout(&origin, &[(NAME.to_owned(), &sample)]).unwrap();
    let store = Store::open(&target).unwrap();
    let (from, to) = (Layout::new(origin, Config::default()), Layout::new(&target, Config::default()));
    copy(&from, &name(NAME), &to, &name(NAME), &CopyOptions::default()).await.unwrap();
    let absent = sample.blobs.iter().filter(|blob| !blob_path(&target, blob.descriptor.digest()).exists());
    assert_eq!(absent.count(), 1, "a layer is left out");
    assert_eq!(store.verify(&Verify::default()).await.unwrap().damage, []);
}
