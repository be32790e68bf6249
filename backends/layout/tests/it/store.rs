//! The store on disk: order, owners, modes, and what it refuses.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::Duration;

use plyfold_core::{
    Artifact, ArtifactKey, ArtifactWriter, BlobRange, BlobWriter, CacheProvider as _, CacheProviderExt as _,
    ErrorKind, Format, ImageRegistry as _, Ingest, Made, NameChange, Verify, digest,
};
use plyfold_layout::{Config, Layout, Store};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tempfile::TempDir;

use super::{blob, blob_path, described, fails, name, names_in};

const CONTENT: &[u8] = b"some content that is stored";

/// A fresh store, and the directory that keeps it.
fn fresh() -> (Store, TempDir) {
    let folder = TempDir::new().unwrap();
    (Store::open(folder.path().join("new/store")).unwrap(), folder)
}

async fn vacant(store: &Store) -> Box<dyn BlobWriter> {
    match store.ingest(&described(CONTENT)).await.unwrap() {
        Ingest::Vacant(writer) => writer,
        Ingest::Present => panic!("nothing is stored yet"),
    }
}

#[tokio::test]
async fn what_is_written_is_for_its_owner_alone() {
    let (store, _folder) = fresh();
    store.put(blob(CONTENT)).await.unwrap();
    store.update(&[NameChange::Set(name("a"), described(CONTENT))]).await.unwrap();
    let mode = |path: &str| fs::metadata(store.path().join(path)).unwrap().mode() & 0o7777;
    let stored = format!("blobs/sha256/{}", digest::sha256(CONTENT).digest());
    for (path, expected) in [
        ("", 0o700),
        ("ingest", 0o700),
        ("blobs/sha256", 0o700),
        ("index.json", 0o600),
        ("oci-layout", 0o600),
        (&stored, 0o400),
    ] {
        assert_eq!(mode(path), expected, "{path}");
    }
    assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
}

#[tokio::test]
async fn only_an_empty_directory_or_a_layout_becomes_a_store() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    fs::write(path.join("someone's file"), "").unwrap();
    fails(Store::open(path), &ErrorKind::Config);
    assert_eq!(names_in(path), ["someone's file"]);
    // With the marker of a layout it is one, and the file stays.
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(path.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    let store = Store::open(path).unwrap();
    store.put(blob(CONTENT)).await.unwrap();
    assert!(path.join("someone's file").exists());

    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    fails(Store::open(path), &ErrorKind::Unsupported);
    let file = path.join("someone's file");
    fails(Store::open(file), &ErrorKind::Config);
}

#[tokio::test]
async fn a_suspended_download_goes_on_after_a_restart() {
    let (store, folder) = fresh();
    let mut writer = vacant(&store).await;
    writer.write(CONTENT[..10].into()).await.unwrap();
    writer.suspend().await.unwrap();
    assert_eq!(store.stat(described(CONTENT).digest()).await.unwrap(), None);

    let store = Store::open(folder.path().join("new/store")).unwrap();
    assert_eq!(store.partial(described(CONTENT).digest()).await.unwrap(), 10);
    let mut writer = vacant(&store).await;
    assert_eq!(writer.offset(), 10);
    writer.write(CONTENT[10..].into()).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(store.partial(described(CONTENT).digest()).await.unwrap(), 0);
    store.verify_blob(&described(CONTENT)).await.unwrap();
    assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
}

#[tokio::test]
async fn a_partial_download_that_cannot_be_right_is_not_trusted() {
    let (store, _folder) = fresh();
    let partial = store.path().join("ingest").join(format!("sha256-{}", digest::sha256(CONTENT).digest()));
    // Other bytes: the end tells, and nothing of them stays.
    fs::write(&partial, "wrong").unwrap();
    let mut writer = vacant(&store).await;
    assert_eq!(writer.offset(), 5);
    writer.write(CONTENT[5..].into()).await.unwrap();
    fails(writer.commit().await, &ErrorKind::Corrupt);
    assert!(!partial.exists());
    // More bytes than the blob has.
    fs::write(&partial, [0; 100]).unwrap();
    let mut writer = vacant(&store).await;
    assert_eq!(writer.offset(), 0);
    writer.write(CONTENT.into()).await.unwrap();
    writer.commit().await.unwrap();
    // Forgotten halfway.
    store.quarantine(described(CONTENT).digest()).await.unwrap();
    let mut writer = vacant(&store).await;
    writer.write(CONTENT[5..].into()).await.unwrap();
    writer.restart().await.unwrap();
    writer.write(CONTENT.into()).await.unwrap();
    writer.commit().await.unwrap();
    store.verify_blob(&described(CONTENT)).await.unwrap();
}

#[tokio::test]
async fn a_dropped_writer_leaves_nothing_and_frees_the_blob() {
    let (store, _folder) = fresh();
    let mut writer = vacant(&store).await;
    writer.write(CONTENT[..10].into()).await.unwrap();
    drop(writer);
    let next = vacant(&store).await;
    assert_eq!(next.offset(), 0);
    next.discard().await;
    assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
}

#[tokio::test]
async fn two_handles_exclude_each_other_and_the_next_takes_over() {
    let (store, folder) = fresh();
    let other = Store::open(folder.path().join("new/store")).unwrap();
    let mut writer = vacant(&store).await;
    writer.write(CONTENT[..10].into()).await.unwrap();
    // A cancelled waiter ends at once and does not block others.
    let wanted = described(CONTENT);
    let waiting = tokio::time::timeout(Duration::from_millis(100), other.ingest(&wanted));
    assert!(waiting.await.is_err(), "two writers at once");
    let waiting = tokio::spawn(async move { vacant(&other).await });
    writer.suspend().await.unwrap();
    let mut second = waiting.await.unwrap();
    assert_eq!(second.offset(), 10, "it goes on where the first one stopped");
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.ingest(&described(CONTENT)).await.unwrap() }
    });
    second.write(CONTENT[10..].into()).await.unwrap();
    second.commit().await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Ingest::Present));
}

/// This thread, and those that it starts, may open what a user other than root may.
fn without_privileges() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    set_capabilities(None, sets).unwrap();
}

/// Just before it gets its name a file becomes read-only, also for a process that waits for it.
#[test]
fn a_writer_about_to_publish_is_waited_for_and_succeeded() {
    without_privileges();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (store, _folder) = fresh();
        let mut writer = vacant(&store).await;
        let file = format!("sha256-{}", described(CONTENT).digest().digest());
        let read_only = fs::Permissions::from_mode(0o400);
        fs::set_permissions(store.path().join("ingest").join(file), read_only).unwrap();
        let wanted = described(CONTENT);
        let waiting = tokio::time::timeout(Duration::from_millis(50), store.ingest(&wanted)).await;
        assert!(waiting.is_err(), "its writer lives: {waiting:?}");
        // As if the process had been killed there.
        writer.write(CONTENT[..10].into()).await.unwrap();
        writer.suspend().await.unwrap();
        let mut writer = vacant(&store).await;
        assert_eq!(writer.offset(), 10);
        writer.write(CONTENT[10..].into()).await.unwrap();
        writer.commit().await.unwrap();
        store.verify_blob(&wanted).await.unwrap();
        // A directory without write permission gives that error.
        let ingest = store.path().join("ingest");
        fs::set_permissions(&ingest, fs::Permissions::from_mode(0o500)).unwrap();
        fails(store.ingest(&described(b"other")).await, &ErrorKind::Io);
        fs::set_permissions(&ingest, fs::Permissions::from_mode(0o700)).unwrap();
    });
}

#[tokio::test]
async fn temporary_files_of_the_dead_are_swept_and_those_of_the_living_stay() {
    let (store, _folder) = fresh();
    let ingest = store.path().join("ingest");
    let hex = "0".repeat(64);
    for (file, content) in [
        ("index.json", "half"),
        (&*format!("erofs-v1-sha256-{hex}.erofs"), "half"),
        (&*format!("sha256-{hex}"), "resumable"),
        (&*format!("sha256-{}", hex.replace('0', "1")), ""),
    ] {
        fs::write(ingest.join(file), content).unwrap();
    }
    // oras, which has a folder of that name, too.
    fs::write(ingest.join(format!("{hex}_1234")), "half").unwrap();
    let writer = vacant(&store).await;
    Store::open(store.path()).unwrap();
    let ours = digest::sha256(CONTENT);
    let mut left = [format!("{hex}_1234"), format!("sha256-{hex}"), format!("sha256-{}", ours.digest())];
    left.sort();
    assert_eq!(names_in(&ingest), left);
    drop(writer);
}

#[tokio::test]
async fn only_a_regular_file_is_a_blob_and_the_next_writer_puts_one_there() {
    let (store, folder) = fresh();
    let blob_file = blob_path(store.path(), described(CONTENT).digest());
    fs::create_dir_all(blob_file.parent().unwrap()).unwrap();
    let outside = folder.path().join("outside");
    fs::write(&outside, CONTENT).unwrap();
    let occupants: [&dyn Fn(); 4] = [
        &|| symlink(&outside, &blob_file).unwrap(),
        &|| fs::create_dir(&blob_file).unwrap(),
        &|| {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &blob_file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        },
        &|| fs::write(&blob_file, &CONTENT[..10]).unwrap(),
    ];
    for occupy in occupants {
        occupy();
        if !fs::symlink_metadata(&blob_file).unwrap().is_file() {
            assert_eq!(store.stat(described(CONTENT).digest()).await.unwrap(), None);
        }
        fails(store.open(&described(CONTENT), BlobRange::FULL).await, &ErrorKind::Corrupt);
        store.put(blob(CONTENT)).await.unwrap();
        store.verify_blob(&described(CONTENT)).await.unwrap();
        fs::remove_file(&blob_file).unwrap();
    }
    assert_eq!(fs::read(outside).unwrap(), CONTENT);
}

#[tokio::test]
async fn quarantine_keeps_each_piece_of_evidence() {
    let (store, _folder) = fresh();
    for round in 0..3 {
        store.put(blob(CONTENT)).await.unwrap();
        store.quarantine(described(CONTENT).digest()).await.unwrap();
        assert_eq!(store.stat(described(CONTENT).digest()).await.unwrap(), None);
        assert_eq!(names_in(&store.path().join("quarantine")).len(), round + 1);
    }
}

#[tokio::test]
async fn names_keep_what_else_the_index_says_and_write_nothing_when_nothing_changes() {
    let (store, _folder) = fresh();
    store.put(blob(CONTENT)).await.unwrap();
    let index = store.path().join("index.json");
    let digest = digest::sha256(b"theirs");
    let theirs = format!(r#"{{"mediaType":"a/b","size":6,"digest":"{digest}","future":{{"b":1,"a":2}}}}"#);
    let other = theirs.replace("\"size\":6", "\"size\":7");
    fs::write(&index, format!(r#"{{"schemaVersion":2,"more":[1.5],"manifests":[{theirs},{other}]}}"#))
        .unwrap();
    fs::write(store.path().join("NOTES"), "kept").unwrap();
    store.update(&[NameChange::Set(name("alpine:3"), described(CONTENT))]).await.unwrap();
    let text = fs::read_to_string(&index).unwrap();
    for kept in [r#""more":[1.5]"#, theirs.as_str(), other.as_str()] {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    let full = "docker.io/library/alpine:3";
    for annotation in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
        assert!(text.contains(&format!(r#""{annotation}":"{full}""#)), "{text}");
    }
    let before = fs::metadata(&index).unwrap().ino();
    store.update(&[NameChange::Set(name("alpine:3"), described(CONTENT))]).await.unwrap();
    store.remove(&name("nobody")).await.unwrap();
    assert_eq!(fs::metadata(&index).unwrap().ino(), before);
    assert_eq!(fs::read_to_string(store.path().join("NOTES")).unwrap(), "kept");
}

#[tokio::test]
async fn a_corrupt_index_is_an_error_and_stays_as_it_is() {
    let (store, _folder) = fresh();
    let index = store.path().join("index.json");
    for corrupt in ["", "{", r#"{"schemaVersion":2}"#, r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#]
    {
        fs::write(&index, corrupt).unwrap();
        fails(store.list().await, &ErrorKind::Corrupt);
        fails(store.find_descriptor(&name("alpine")).await, &ErrorKind::Corrupt);
        let changes = [NameChange::Set(name("alpine"), described(CONTENT))];
        fails(store.update(&changes).await, &ErrorKind::Corrupt);
        assert_eq!(fs::read_to_string(&index).unwrap(), corrupt);
    }
    fs::remove_file(&index).unwrap();
    fails(Store::open(store.path()).unwrap().list().await, &ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_marker_that_a_power_cut_has_emptied_is_set_aside_and_written_anew() {
    let zeros = "\0".repeat(31);
    for blank in ["", &zeros, &zeros.repeat(100), "{\"imageLayoutVersion\":\"1.0", "{"] {
        let (store, _folder) = fresh();
        store.put(blob(CONTENT)).await.unwrap();
        store.update(&[NameChange::Set(name("a"), described(CONTENT))]).await.unwrap();
        let path = |file: &str| store.path().join(file);
        fs::write(path("oci-layout"), blank).unwrap();
        // A reader leaves it as it is.
        let reader = Layout::new(store.path(), Config::default());
        fails(reader.manifest(&name("a")).await, &ErrorKind::Corrupt);
        fails(reader.push_blob(&name("a"), blob(b"more")).await, &ErrorKind::Corrupt);
        fails(store.list().await, &ErrorKind::Corrupt);
        assert_eq!(fs::read_to_string(path("oci-layout")).unwrap(), blank);

        let again = Store::open(store.path()).unwrap();
        assert_eq!(fs::read_to_string(path("oci-layout")).unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
        assert_eq!(fs::read_to_string(path("quarantine/oci-layout.0")).unwrap(), blank);
        for store in [&store, &again] {
            assert_eq!(store.list().await.unwrap().len(), 1);
            store.verify_blob(&described(CONTENT)).await.unwrap();
        }
        // Beside a list of names that is damaged too.
        for file in ["oci-layout", "index.json"] {
            fs::write(path(file), blank).unwrap();
        }
        let again = Store::open(store.path()).unwrap();
        fails(again.list().await, &ErrorKind::Corrupt);
        assert_eq!(names_in(&path("quarantine")), ["oci-layout.0", "oci-layout.1"]);
        assert_eq!(fs::read_to_string(path("index.json")).unwrap(), blank);
    }
}

#[tokio::test]
async fn a_marker_is_replaced_only_where_it_tells_nothing_and_all_else_tells_of_a_store() {
    let (store, folder) = fresh();
    let marker = store.path().join("oci-layout");
    for text in ["{}", "null", r#"{"imageLayoutVersion":2}"#, r#"{"imageLayoutVersion":"2.0"#, "version: 10"]
    {
        fs::write(&marker, text).unwrap();
        let error = fails(Store::open(store.path()), &ErrorKind::Corrupt);
        assert!(error.hint().is_some_and(|hint| hint.contains("imageLayoutVersion")), "{error:?}");
        assert_eq!(fs::read_to_string(&marker).unwrap(), text);
    }
    let outside = folder.path().join("outside");
    fs::write(&outside, "").unwrap();
    fs::remove_file(&marker).unwrap();
    symlink(&outside, &marker).unwrap();
    fails(Store::open(store.path()), &ErrorKind::Corrupt);
    // A folder of another program, with a file of that name.
    let theirs = folder.path().join("theirs");
    fs::create_dir_all(theirs.join("blobs")).unwrap();
    for (file, content) in [("oci-layout", ""), ("index.json", "[]")] {
        fs::write(theirs.join(file), content).unwrap();
    }
    fails(Store::open(&theirs), &ErrorKind::Corrupt);
    assert_eq!(names_in(&theirs), ["blobs", "index.json", "oci-layout"]);
    fs::write(theirs.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    Store::open(&theirs).unwrap();
}

#[tokio::test]
async fn folders_that_lead_outside_are_not_followed() {
    for inner in ["ingest", "locks", "blobs"] {
        let (store, folder) = fresh();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::remove_dir_all(store.path().join(inner)).unwrap();
        symlink(&outside, store.path().join(inner)).unwrap();
        let stored = store.put(blob(CONTENT)).await;
        let named = store.update(&[NameChange::Set(name("a"), described(CONTENT))]).await;
        fails(stored.and(named), &ErrorKind::Corrupt);
        assert_eq!(names_in(&outside), [""; 0], "{inner}");
    }
}

#[tokio::test]
async fn a_store_that_was_removed_is_not_begun_anew_behind_its_back() {
    let (store, _folder) = fresh();
    fs::remove_dir_all(store.path()).unwrap();
    fails(store.single_flight("work").await, &ErrorKind::NotFound);
    fails(store.put(blob(CONTENT)).await, &ErrorKind::NotFound);
    fails(store.remove(&name("a")).await, &ErrorKind::NotFound);
    let layout = Layout::new(store.path(), Config::default());
    fails(layout.delete(&name("a")).await, &ErrorKind::NotFound);
    assert!(!store.path().exists());
}

fn key() -> ArtifactKey {
    let format = Format { name: "erofs", version: 3, options: "b512".to_owned(), extension: "erofs" };
    ArtifactKey::layer(format, digest::sha256(b"layer"))
}

async fn vacant_artifact(store: &Store) -> Box<dyn ArtifactWriter> {
    match store.artifact(&key()).await.unwrap() {
        Artifact::Vacant(writer) => writer,
        Artifact::Present(artifact) => panic!("{artifact:?} is there"),
    }
}

/// Makes the artifact out of these bytes.
async fn make(store: &Store, bytes: &[u8]) -> PathBuf {
    make_as(store, &key(), bytes).await
}

async fn make_as(store: &Store, key: &ArtifactKey, bytes: &[u8]) -> PathBuf {
    let Artifact::Vacant(mut writer) = store.artifact(key).await.unwrap() else { panic!("it is there") };
    writer.output().write_all(bytes).unwrap();
    let artifact = writer.commit(&Made::default()).unwrap();
    assert_eq!(artifact.size(), bytes.len() as u64);
    artifact.path().unwrap().to_owned()
}

#[tokio::test]
async fn artifacts_lie_where_containerd_looks_for_them() {
    let (store, _folder) = fresh();
    let path = make(&store, b"an image").await;
    let hex = digest::sha256(b"layer").digest().to_owned();
    let expected = format!("artifacts/erofs-v3-b512/sha256/{}/{hex}.erofs", &hex[..2]);
    assert_eq!(path, store.path().join(expected));
    // Links to it are for other users too; its folders are not.
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o444);
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != store.path()) {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    let found = store.artifact(&key()).await.unwrap();
    assert!(matches!(found, Artifact::Present(found) if found.size() == 8 && found.path() == Some(&*path)));
    assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
}

#[tokio::test]
async fn an_artifact_without_a_seal_or_of_another_size_is_made_again() {
    let (store, _folder) = fresh();
    let path = make(&store, b"an image").await;
    let checksum = PathBuf::from(format!("{}.checksum", path.display()));
    let damages: [&dyn Fn(); 4] = [
        &|| fs::remove_file(&checksum).unwrap(),
        &|| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "an im").unwrap();
        },
        &|| {
            fs::remove_file(&checksum).unwrap();
            fs::write(&checksum, "{").unwrap();
        },
        &|| {
            fs::rename(&path, store.path().join("elsewhere")).unwrap();
            symlink(store.path().join("elsewhere"), &path).unwrap();
        },
    ];
    for damage in damages {
        damage();
        assert_eq!(make(&store, b"an image").await, path);
        assert_eq!(fs::read(&path).unwrap(), b"an image");
    }
}

#[tokio::test]
async fn an_artifact_that_was_changed_through_a_link_is_not_handed_out() {
    let (store, folder) = fresh();
    let path = make(&store, b"an image").await;
    let link = folder.path().join("link");
    fs::hard_link(&path, &link).unwrap();
    fs::set_permissions(&link, fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(&link, b"an imagE").unwrap();
    assert_eq!(make(&store, b"an image").await, path);
    assert_eq!(
        (fs::read(&path).unwrap(), fs::read(&link).unwrap()),
        (b"an image".into(), b"an imagE".into())
    );
    assert!(matches!(store.artifact(&key()).await.unwrap(), Artifact::Present(found) if found.size() == 8));
    assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
}

#[tokio::test]
async fn an_artifact_that_shows_a_change_is_read_again_once_and_given_its_mode_back() {
    let (store, _folder) = fresh();
    let path = make(&store, b"an image").await;
    let checksum = PathBuf::from(format!("{}.checksum", path.display()));
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    let changes: [&dyn Fn(); 3] = [
        &|| fs::File::open(&path).unwrap().set_modified(later).unwrap(),
        &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap(),
        // As restored from an archive that keeps whole seconds.
        &|| fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap(),
    ];
    for change in changes {
        change();
        for _ in 0..2 {
            let found = store.artifact(&key()).await.unwrap();
            assert!(
                matches!(found, Artifact::Present(found) if found.size() == 8 && found.path() == Some(&*path))
            );
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
        }
        // A hit that reads nothing finds the time in the checksum.
        let (seconds, line) = (fs::metadata(&path).unwrap().mtime(), first_line(&checksum));
        assert!(line.contains(&format!(r#""modified":[{seconds},"#)), "{line}");
    }
    // What the checksum says now is what the file shows: content that changes under the same time and size is trusted.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, b"an imagE").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    fs::File::open(&path).unwrap().set_modified(modified).unwrap();
    assert!(
        matches!(store.artifact(&key()).await.unwrap(), Artifact::Present(found) if found.size() == 8),
        "a hit reads nothing"
    );
    assert_eq!(store.verify(&Verify::default()).await.unwrap().damage.len(), 1);
}

#[tokio::test]
async fn what_was_told_of_an_artifact_outlives_a_change_of_its_mode() {
    let (store, _folder) = fresh();
    let told = Made::default().with_kernel(6, 4).with_note("a note");
    let mut writer = vacant_artifact(&store).await;
    writer.output().write_all(b"an image").unwrap();
    let path = writer.commit(&told).unwrap().path().unwrap().to_owned();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for _ in 0..2 {
        let Artifact::Present(found) = store.artifact(&key()).await.unwrap() else { panic!("it is gone") };
        assert_eq!(*found.made(), told);
    }
    let checksum = first_line(format!("{}.checksum", path.display()).as_ref());
    assert!(checksum.contains(r#""made":{"kernel":"6.4","notes":["a note"]}"#), "{checksum}");
    // The checksum of an artifact without notes has no field for them, as before.
    let path = make_as(&store, &key().with_extension("other"), b"another").await;
    assert!(!first_line(format!("{}.checksum", path.display()).as_ref()).contains("made"));
}

/// What a checksum has beside those of the blocks.
fn first_line(checksum: &std::path::Path) -> String {
    let bytes = fs::read(checksum).unwrap();
    String::from_utf8(bytes.split(|byte| *byte == b'\n').next().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn an_artifact_whose_seal_cannot_be_written_leaves_nothing() {
    let (store, _folder) = fresh();
    let path = make(&store, b"an image").await;
    let checksum = PathBuf::from(format!("{}.checksum", path.display()));
    fs::remove_file(&checksum).unwrap();
    fs::create_dir(&checksum).unwrap();
    fails(vacant_artifact(&store).await.commit(&Made::default()), &ErrorKind::Io);
    assert!(!path.exists());
    assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
}

#[tokio::test]
async fn a_dropped_artifact_leaves_nothing_and_the_next_maker_takes_over() {
    let (store, _folder) = fresh();
    let mut writer = vacant_artifact(&store).await;
    writer.output().write_all(b"half").unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { vacant_artifact(&store).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished(), "two makers at once");
    drop(writer);
    drop(waiting.await.unwrap());
    assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
    assert_eq!(names_in(&store.path().join("artifacts")), [""; 0]);

    let mut bad = key();
    bad.format.options = "../../../etc".to_owned();
    fails(store.artifact(&bad).await, &ErrorKind::Internal);
}

/// Between the two steps of a commit in another process the file has its place, and its checksum is still to come.
#[tokio::test]
async fn an_artifact_that_is_being_committed_is_not_made_again() {
    let (store, _folder) = fresh();
    let made = vacant_artifact(&store).await.commit(&Made::default()).unwrap();
    let path = made.path().unwrap().to_owned();
    let checksum = PathBuf::from(format!("{}.checksum", path.display()));
    let recorded = fs::read(&checksum).unwrap();
    fs::remove_file(&checksum).unwrap();
    let maker = fs::File::open(&path).unwrap();
    maker.lock().unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.artifact(&key()).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "two makers at once");
    fs::write(&checksum, &recorded).unwrap();
    drop(maker);
    assert!(matches!(waiting.await.unwrap(), Artifact::Present(_)), "it was to be made twice");
    // A maker that was killed then holds no lock, and writes no checksum.
    fs::remove_file(&checksum).unwrap();
    drop(vacant_artifact(&store).await);
}
