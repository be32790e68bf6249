//! What formats of other crates are called, tell and write: it harms neither each other nor the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use plyfold_core::blocking::Stop;
use plyfold_core::{
    Artifact, ArtifactKey, ArtifactWriter, CacheProvider as _, Collect, ErrorKind, Format, HashTree, Made,
    TreePlace, Verify, digest,
};
use plyfold_layout::Store;
use tempfile::TempDir;

use super::names_in;

fn fresh() -> (Store, TempDir) {
    let folder = TempDir::new().unwrap();
    (Store::open(folder.path()).unwrap(), folder)
}

fn key(name: &'static str, options: &str, extension: &'static str) -> ArtifactKey {
    let format = Format { name, version: 1, options: options.to_owned(), extension };
    ArtifactKey::layer(format, digest::sha256(b"layer"))
}

async fn vacant(store: &Store, key: &ArtifactKey) -> Box<dyn ArtifactWriter> {
    match store.artifact(key).await.unwrap() {
        Artifact::Vacant(writer) => writer,
        Artifact::Present(artifact) => panic!("{artifact:?} is there"),
    }
}

/// Temporary files have the name of no lease, of no lock and of no blob.
#[tokio::test]
async fn a_collection_goes_on_beside_formats_of_any_name() {
    let (store, _folder) = fresh();
    let names = ["lease", "work", "collector", "sha256", "store", "index", "artifact"];
    let mut writers = Vec::new();
    for name in names {
        let mut writer = vacant(&store, &key(name, "", "img")).await;
        writeln!(writer.output(), "no digest").unwrap();
        writers.push(writer);
    }
    assert_eq!(names_in(&store.path().join("ingest")).len(), names.len());
    let work = store.single_flight("work").await.unwrap();
    let lease = store.lease(&[digest::sha256(b"leased")]).await.unwrap();
    let collected = store.collect(&Collect::default()).await.unwrap();
    assert_eq!((collected.artifacts, collected.remains), (0, 0));
    drop((work, lease));
    for writer in writers {
        writer.commit(&Made::default()).unwrap();
    }
    assert_eq!(store.collect(&Collect::default()).await.unwrap().artifacts, names.len() as u64);
}

#[tokio::test]
async fn the_longest_names_fit_into_a_folder() {
    let (store, _folder) = fresh();
    let text = |bytes: usize| -> &'static str { "x".repeat(bytes).leak() };
    let long = key(text(Format::NAME_BYTES), text(Format::OPTIONS_BYTES), text(Format::EXTENSION_BYTES));
    let mut hasher = digest::Hasher::like(&format!("sha512:{}", "0".repeat(128)).parse().unwrap()).unwrap();
    hasher.update(b"layer");
    let format = Format { version: u32::MAX, ..long.format };
    let long = ArtifactKey { format, content: hasher.finish() };
    vacant(&store, &long).await.commit(&Made::default()).unwrap();
    assert!(matches!(store.artifact(&long).await.unwrap(), Artifact::Present(_)));
}

/// A checksum that is longer than what is read of it would be no checksum: the file would be made at each run.
#[tokio::test]
async fn notes_of_any_length_leave_a_checksum_that_is_read() {
    let (store, _folder) = fresh();
    let mut told = Made::default();
    told.notes = (0..40).map(|_| "\u{1}".repeat(1 << 17)).collect();
    let made = vacant(&store, &key("notes", "", "img")).await.commit(&told).unwrap();
    let Artifact::Present(found) = store.artifact(&key("notes", "", "img")).await.unwrap() else {
        panic!("it is to be made again")
    };
    assert_eq!(found.made(), made.made());
    assert_eq!((found.made().notes.len(), found.made().notes[0].len()), (Made::NOTES, Made::NOTE_BYTES));
}

/// To hash it takes an hour.
#[tokio::test]
async fn a_commit_that_reads_again_ends_when_it_is_cancelled_and_leaves_nothing() {
    let (store, _folder) = fresh();
    let mut writer = vacant(&store, &key("sparse", "", "img")).await;
    writer.output().write_all(b"first").unwrap();
    writer.output().rewind().unwrap();
    writer.output().write_all(b"again").unwrap();
    let stop = Stop::default();
    writer.stop_with(&stop);
    stop.flag().store(true, Ordering::SeqCst);
    let error = writer.commit(&Made::default()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Cancelled, "{error}");
    assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
    drop(vacant(&store, &key("sparse", "", "img")).await);
}

/// Holes are neither read nor listed.
#[tokio::test]
async fn a_huge_sparse_file_is_committed_and_verified_at_once() {
    let (store, _folder) = fresh();
    let mut writer = vacant(&store, &key("sparse", "", "img")).await;
    for place in [0, 1 << 30, 1 << 39] {
        writer.output().seek(std::io::SeekFrom::Start(place)).unwrap();
        writer.output().write_all(b"data").unwrap();
    }
    writer.output().set_len(1 << 40).unwrap();
    let made = writer.commit(&Made::default()).unwrap();
    let checksum = fs::metadata(format!("{}.checksum", made.path().unwrap().display())).unwrap();
    assert!(checksum.len() < 400, "{}", checksum.len());
    let verified = store.verify(&Verify::default()).await.unwrap();
    assert_eq!((verified.damage, verified.bytes), (vec![], 1 << 40));
}

fn sidecar_of(artifact: &Path) -> PathBuf {
    PathBuf::from(format!("{}.dmverity", artifact.display()))
}

/// As containerd looks for it: `HEX.erofs` has a file `HEX.erofs.dmverity`.
#[tokio::test]
async fn a_layer_with_a_hash_tree_behind_it_has_the_file_that_containerd_reads() {
    let (store, _folder) = fresh();
    let tree = HashTree::new(digest::sha256(b"root"), 3);
    let beside = tree.clone().at(TreePlace::Separate, 0);
    let made =
        [Made::default(), Made::default().with_hash_tree(beside), Made::default().with_hash_tree(tree)];
    let mut paths = Vec::new();
    for (made, name) in made.into_iter().zip(["without", "beside", "layers"]) {
        let artifact = vacant(&store, &key(name, "", "erofs")).await.commit(&made).unwrap();
        let Artifact::Present(found) = store.artifact(&key(name, "", "erofs")).await.unwrap() else {
            panic!("{name} is to be made again")
        };
        assert_eq!(found.made(), &made);
        paths.push(artifact.path().unwrap().to_owned());
    }
    assert!(!sidecar_of(&paths[0]).exists() && !sidecar_of(&paths[1]).exists());
    let [.., layer] = paths.as_slice() else { unreachable!() };
    let (sidecar, root) = (sidecar_of(layer), digest::sha256(b"root"));
    let text = format!("{{\n  \"roothash\": \"{}\",\n  \"hashoffset\": 12288\n}}", root.digest());
    assert_eq!(fs::read_to_string(&sidecar).unwrap(), text);

    // It is a part of the artifact: when it is gone or another one, the artifact is made again.
    let verify = Verify { repair: true, ..Verify::default() };
    assert_eq!(store.verify(&Verify::default()).await.unwrap().damage.len(), 0);
    for damage in [&(|| fs::remove_file(&sidecar).unwrap()) as &dyn Fn(), &|| {
        fs::remove_file(&sidecar).unwrap();
        fs::write(&sidecar, text.replace('1', "2")).unwrap();
    }] {
        damage();
        assert_eq!(store.verify(&verify).await.unwrap().damage.len(), 1);
        assert!(!layer.exists() && !sidecar.exists());
        let tree = HashTree::new(root.clone(), 3);
        let made = Made::default().with_hash_tree(tree);
        vacant(&store, &key("layers", "", "erofs")).await.commit(&made).unwrap();
        assert_eq!(fs::read_to_string(&sidecar).unwrap(), text);
    }
    // It goes with the artifact, also when that was removed by another process.
    assert_eq!(store.collect(&Collect::default()).await.unwrap().artifacts, 3);
    assert!(!layer.exists() && !sidecar.exists());
    fs::write(&sidecar, text).unwrap();
    let collected = store.collect(&Collect::default()).await.unwrap();
    assert_eq!((collected.artifacts, collected.remains), (0, 1));
    assert!(!sidecar.exists());
}
