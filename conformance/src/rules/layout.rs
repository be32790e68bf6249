//! C, K and D on caches that are OCI layout directories: what other tools see of them, and what they leave there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt, Collect, Descriptor, ErrorKind, Ingest, NameChange,
    Reference, Verify, digest, reference,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::probe::{NAME, assert_kind, sound};
use crate::LayoutStage;
use crate::rule::{Rule, rules};

pub(super) const RULES: &[Rule<dyn LayoutStage>] = rules! {
    "C 71" unknown_files_and_fields_preserved:
        "files, fields and entries that the cache does not know survive what it writes",
    "C 72" unsupported_layout_version_refused:
        "a layout of another major version is Unsupported, and nothing in it changes",
    "D 128" index_old_or_new_never_torn:
        "whoever reads index.json beside writers reads a whole document with every name that was promised",
    "D 130" stale_temps_reclaimed_not_live_ones:
        "what dead writers have left goes in the end, what living ones write stays",
    "D 131" stale_lock_of_dead_owner_recovered:
        "no lock outlives its owner: what a dead process held is free at once",
};

async fn unknown_files_and_fields_preserved(stage: &dyn LayoutStage) {
    let place = Place::new();
    let cache = sound(stage.open(&place.path).await);
    let theirs = Theirs::add_to(&place.path);
    let content = stored(&*cache, b"ours").await;
    set(&*cache, NAME, &content).await;
    theirs.assert_kept(&place.path, "setting a name");
    set(&*cache, NAME, &stored(&*cache, b"ours, again").await).await;
    sound(cache.remove(&name("registry.example/absent:1")).await);
    theirs.assert_kept(&place.path, "moving a name");
    sound(cache.verify(&Verify { repair: true, ..Verify::default() }).await);
    theirs.assert_kept(&place.path, "verifying");
    drop(cache);
    let cache = sound(stage.open(&place.path).await);
    match cache.collect(&Collect::default()).await {
        Ok(_) => {}
        Err(error) => assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    sound(cache.remove(&name(NAME)).await);
    theirs.assert_kept(&place.path, "opening, collecting and removing");
    let found = sound(cache.find_descriptor(&name("registry.example/theirs:1")).await);
    assert_eq!(found.expect("their name is a name").digest(), &theirs.blob);
}

async fn unsupported_layout_version_refused(stage: &dyn LayoutStage) {
    let place = Place::new();
    let cache = sound(stage.open(&place.path).await);
    set(&*cache, NAME, &stored(&*cache, b"kept").await).await;
    let marker = place.path.join("oci-layout");
    let ours = fs::read(&marker).expect("a layout has the file oci-layout");
    for (text, kind) in [
        (r#"{"imageLayoutVersion":"2.0.0"}"#, ErrorKind::Unsupported),
        (r#"{"imageLayoutVersion":"10.0.0"}"#, ErrorKind::Unsupported),
        (r#"{"imageLayoutVersion":"#, ErrorKind::Corrupt),
    ] {
        replace(&marker, text.as_bytes());
        let before = documents(&place.path);
        let refused = async {
            let cache = stage.open(&place.path).await?;
            cache.update(&[NameChange::Remove(name(NAME))]).await
        };
        assert_kind(refused.await, &kind);
        assert_kind(cache.list().await, &kind);
        assert_kind(cache.find_descriptor(&name(NAME)).await, &kind);
        assert_eq!(documents(&place.path), before, "a layout that is not ours to write");
    }
    // A later minor version and fields of the future are no reason to refuse.
    for text in [r#"{"imageLayoutVersion":"1.1.0","future":[1]}"#.as_bytes(), &ours] {
        replace(&marker, text);
        let cache = sound(stage.open(&place.path).await);
        assert_eq!(sound(cache.list().await).len(), 1);
    }
}

async fn index_old_or_new_never_torn(stage: &dyn LayoutStage) {
    const WRITERS: usize = 4;
    const EACH: usize = 12;
    let place = Place::new();
    let first = sound(stage.open(&place.path).await);
    let content = stored(&*first, b"named").await;
    set(&*first, NAME, &content).await;
    let done = Arc::new(AtomicBool::new(false));
    let (path, finished) = (place.path.join("index.json"), done.clone());
    let reader = tokio::task::spawn_blocking(move || {
        let mut reads = 0_u64;
        while !finished.load(Ordering::SeqCst) {
            let bytes = fs::read(&path).expect("index.json is always there");
            let document: Value = serde_json::from_slice(&bytes).expect("index.json is always whole");
            let named = document["manifests"].to_string();
            assert!(named.contains(NAME), "the name that was promised is always there");
            reads += 1;
        }
        reads
    });
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let cache = sound(stage.open(&place.path).await);
        let content = content.clone();
        writers.spawn(async move {
            for number in 0..EACH {
                // Documents of many lengths, growing and shrinking.
                let text = format!("registry.example/{}app:{writer}-{number}", "long/".repeat(number));
                set(&*cache, &text, &content).await;
                if number % 2 == 1 {
                    sound(cache.remove(&name(&text)).await);
                }
            }
        });
    }
    writers.join_all().await;
    done.store(true, Ordering::SeqCst);
    assert!(reader.await.expect("every read is whole") > 0);
    assert_eq!(sound(first.list().await).len(), 1 + WRITERS * EACH / 2);
}

async fn stale_temps_reclaimed_not_live_ones(stage: &dyn LayoutStage) {
    let place = Place::new();
    let cache = sound(stage.open(&place.path).await);
    let (wanted, content) = large();
    let mut writer = vacant(&*cache, &wanted).await;
    sound(writer.write(content.slice(..content.len() - 1)).await);
    let (other, other_content) = (described(b"suspended"), Bytes::from_static(b"suspen"));
    let mut suspended = vacant(&*cache, &other).await;
    sound(suspended.write(other_content).await);
    sound(suspended.suspend().await);

    // A cache that keeps what it receives in memory has nothing there.
    for _ in 0..50 {
        if !place.files_with(&content[..4096]).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nobody has been alive for a month who wrote into this copy.
    let copy = Place::copy_of(&place.path);
    copy.age();
    let heir = sound(stage.open(&copy.path).await);
    match heir.collect(&Collect::default()).await {
        Ok(_) => assert!(copy.files_with(&content[..4096]).is_empty(), "nobody writes these any more"),
        Err(error) => assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    sound(heir.put(whole(&wanted, &content)).await);
    sound(heir.verify_blob(&wanted).await);
    assert_eq!(copy.files_with(&content[..4096]).len(), 1, "the blob, and nothing beside it");

    // Here one is.
    let second = sound(stage.open(&place.path).await);
    match second.collect(&Collect::default()).await {
        Ok(_) => {}
        Err(error) => assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    sound(writer.write(content.slice(content.len() - 1..)).await);
    sound(writer.commit().await);
    sound(second.verify_blob(&wanted).await);
    assert_eq!(place.files_with(&content[..4096]).len(), 1);
}

async fn stale_lock_of_dead_owner_recovered(stage: &dyn LayoutStage) {
    let place = Place::new();
    let cache = sound(stage.open(&place.path).await);
    set(&*cache, NAME, &stored(&*cache, b"named").await).await;
    let (wanted, content) = large();
    let mut writer = vacant(&*cache, &wanted).await;
    sound(writer.write(content.slice(..content.len() / 2)).await);
    let turn = sound(cache.turn("work").await);
    let lease = sound(cache.lease(std::slice::from_ref(wanted.digest())).await);
    // The files of all these locks are in the copy, and their owners are not.
    let copy = Place::copy_of(&place.path);
    drop((writer, turn, lease));
    let recovered = async {
        let heir = sound(stage.open(&copy.path).await);
        drop(sound(heir.turn("work").await));
        drop(sound(heir.lease(std::slice::from_ref(wanted.digest())).await));
        sound(heir.put(whole(&wanted, &content)).await);
        sound(heir.remove(&name(NAME)).await);
        set(&*heir, "registry.example/heir:1", &wanted).await;
        match heir.collect(&Collect::default()).await {
            Ok(_) => {}
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}"),
        }
        sound(heir.verify_blob(&wanted).await);
    };
    let outcome = tokio::time::timeout(stage.patience(), recovered).await;
    outcome.expect("the dead hold no locks");
}

/// A directory for one cache.
struct Place {
    path: PathBuf,
    _folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary directory can be made");
        Self { path: folder.path().join("layout"), _folder: folder }
    }

    /// What a process leaves that dies now: its files, and none of its locks.
    fn copy_of(path: &Path) -> Self {
        let copy = Self::new();
        for file in files_in(path) {
            let inside = file.strip_prefix(path).expect("a file of the directory");
            let target = copy.path.join(inside);
            fs::create_dir_all(target.parent().expect("it has a folder")).expect("folders can be made");
            fs::copy(&file, &target).expect("files can be copied");
        }
        copy
    }

    /// Makes every file a month older.
    fn age(&self) {
        let then = SystemTime::now() - Duration::from_secs(30 * 24 * 60 * 60);
        for file in files_in(&self.path) {
            let opened = fs::File::open(file).and_then(|file| file.set_modified(then));
            opened.expect("times can be set");
        }
    }

    /// The files that contain these bytes.
    fn files_with(&self, part: &[u8]) -> Vec<PathBuf> {
        let contains = |file: &PathBuf| {
            let content = fs::read(file).expect("files can be read");
            content.windows(part.len()).any(|window| window == part)
        };
        files_in(&self.path).into_iter().filter(contains).collect()
    }
}

/// What other programs keep in the same directory.
struct Theirs {
    blob: plyfold_core::Digest,
    entry: Value,
    files: Vec<(&'static str, &'static str)>,
}

impl Theirs {
    fn add_to(path: &Path) -> Self {
        let files = vec![
            ("NOTES", "keep me"),
            ("blobs/README", "keep me too"),
            ("org.example.tool/state.json", "{}"),
        ];
        for (file, content) in &files {
            let file = path.join(file);
            fs::create_dir_all(file.parent().expect("it has a folder")).expect("folders can be made");
            fs::write(file, content).expect("files can be written");
        }
        let content = br#"{ "schemaVersion":2, "mediaType":"application/vnd.oci.image.index.v1+json", "manifests":[] }"#;
        let blob = digest::sha256(content);
        let folder = path.join("blobs/sha256");
        fs::create_dir_all(&folder).expect("folders can be made");
        fs::write(folder.join(blob.digest()), content).expect("files can be written");
        let entry = json!({
            "mediaType": "application/vnd.oci.image.index.v1+json", "size": content.len(), "digest": blob,
            "annotations": {
                "org.opencontainers.image.ref.name": "registry.example/theirs:1", "org.example.note": "kept"
            },
            "org.example.unknown": { "b": [1, 2.5], "a": null },
        });
        edit_index(path, |index| {
            index["org.example.future"] = json!({ "kept": [true] });
            index["annotations"] = json!({ "org.example.owner": "someone" });
            index["manifests"].as_array_mut().expect("a list").push(entry.clone());
        });
        Self { blob, entry, files }
    }

    #[track_caller]
    fn assert_kept(&self, path: &Path, after: &str) {
        for (file, content) in &self.files {
            let found = fs::read_to_string(path.join(file)).unwrap_or_default();
            assert_eq!(found, *content, "{file} after {after}");
        }
        let index = index_of(path);
        assert_eq!(index["org.example.future"], json!({ "kept": [true] }), "after {after}");
        assert_eq!(index["annotations"]["org.example.owner"], "someone", "after {after}");
        let entries = index["manifests"].as_array().expect("a list");
        assert!(entries.contains(&self.entry), "{index} has their entry no more after {after}");
        assert!(path.join("blobs/sha256").join(self.blob.digest()).exists(), "their blob after {after}");
    }
}

fn index_of(path: &Path) -> Value {
    let bytes = fs::read(path.join("index.json")).expect("a layout has the file index.json");
    serde_json::from_slice(&bytes).expect("index.json is JSON")
}

fn edit_index(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut index = index_of(path);
    edit(&mut index);
    replace(&path.join("index.json"), index.to_string().as_bytes());
}

/// As another tool would write it, whatever the modes of what was there.
fn replace(file: &Path, content: &[u8]) {
    let beside = file.with_extension("by-hand");
    fs::write(&beside, content).and_then(|()| fs::rename(&beside, file)).expect("files can be written");
}

/// The documents at the top, with their content.
fn documents(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let top = ["index.json", "oci-layout"].map(|file| path.join(file));
    top.into_iter().map(|file| (file.clone(), fs::read(&file).expect("files can be read"))).collect()
}

/// Every regular file below a folder, sorted.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).expect("folders can be read");
    for path in entries.map(|entry| entry.expect("folders can be read").path()) {
        if path.is_dir() {
            files.extend(files_in(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn name(text: &str) -> Reference {
    sound(reference::parse(text))
}

fn described(content: &[u8]) -> Descriptor {
    let media_type = "application/octet-stream".into();
    Descriptor::new(media_type, content.len() as u64, digest::sha256(content))
}

fn whole(descriptor: &Descriptor, content: &Bytes) -> Blob {
    sound(Blob::from_bytes(descriptor, BlobRange::FULL, content))
}

/// A blob that no buffer holds whole.
fn large() -> (Descriptor, Bytes) {
    let content: Vec<u8> = (0..3_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    (described(&content), content.into())
}

async fn stored(cache: &dyn CacheProvider, content: &'static [u8]) -> Descriptor {
    let descriptor = described(content);
    sound(cache.put(whole(&descriptor, &Bytes::from_static(content))).await);
    descriptor
}

async fn set(cache: &dyn CacheProvider, text: &str, descriptor: &Descriptor) {
    sound(cache.update(&[NameChange::Set(name(text), descriptor.clone())]).await);
}

async fn vacant(cache: &dyn CacheProvider, blob: &Descriptor) -> Box<dyn plyfold_core::BlobWriter> {
    match sound(cache.ingest(blob).await) {
        Ingest::Vacant(writer) => writer,
        Ingest::Present => panic!("{} was never stored", blob.digest()),
    }
}
