//! Several processes on one store: this test binary runs itself.

mod collectors;
mod images;
mod pulls;
mod pushes;
mod stress;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use plyfold_core::{CacheProvider as _, CacheProviderExt as _, Ingest, NameChange, digest};
use plyfold_layout::Store;
use tempfile::TempDir;

use super::{blob, described, name};

/// Set for a child: the store's path.
const STORE: &str = "PLYFOLD_TEST_STORE";
/// Set for a child: its number.
const NUMBER: &str = "PLYFOLD_TEST_NUMBER";
/// Set for a child that pulls: the registry.
const HOST: &str = "PLYFOLD_TEST_HOST";
/// What every child wants to store.
const SHARED: &[u8] = &[7; 3 << 20];

/// This program again, as the child of a number that runs one of these tests.
fn child(test: &str, store: &Path, number: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("processes::{test}"), "--nocapture", "--test-threads=1"]);
    command.env(STORE, store).env(NUMBER, number.to_string()).stdout(Stdio::piped());
    command
}

/// Runs children at once; what they say.
fn run(commands: impl IntoIterator<Item = Command>) -> Vec<String> {
    // All of them run before the first is waited for.
    let running: Vec<_> = commands.into_iter().map(|mut command| Running(command.spawn().unwrap())).collect();
    running.into_iter().map(Running::said).collect()
}

/// A child that is killed when its test ends.
struct Running(Child);

impl Running {
    /// What it has said, when it has ended well.
    fn said(mut self) -> String {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut said).unwrap();
        assert!(self.0.wait().unwrap().success(), "a child failed: {said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The store and the number of this process, when it is a child. It is killed when its parent ends.
fn as_child() -> Option<(Store, usize)> {
    let number = std::env::var(NUMBER).ok()?.parse().unwrap();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    Some((Store::open(std::env::var_os(STORE)?).unwrap(), number))
}

/// The store of a parent: the children make it, all at once.
fn as_parent() -> (TempDir, std::path::PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    (folder, path)
}

#[tokio::test]
async fn n_processes_add_n_tags_all_survive() {
    const EACH: usize = 16;
    if let Some((store, number)) = as_child() {
        for tag in 0..EACH {
            let content = format!("image {number} {tag}");
            store.put(blob(content.as_bytes())).await.unwrap();
            let set = NameChange::Set(name(&format!("app:{number}-{tag}")), described(content.as_bytes()));
            store.update(&[set]).await.unwrap();
        }
        return;
    }
    let (_folder, path) = as_parent();
    run((0..EACH).map(|number| child("n_processes_add_n_tags_all_survive", &path, number)));
    let store = Store::open(&path).unwrap();
    let names = store.list().await.unwrap();
    assert_eq!(names.len(), EACH * EACH);
    for (name, descriptor) in names {
        let (number, tag) = name.tag().unwrap().split_once('-').unwrap();
        let expected = format!("image {number} {tag}");
        let content = store.content(&descriptor, 100).await.unwrap();
        assert_eq!(content, expected.as_bytes());
    }
}

/// Rule K 120, on the files themselves: every other program reads them without asking us.
#[tokio::test]
async fn reader_never_sees_partial_blob_or_index() {
    const WRITERS: usize = 3;
    const EACH: usize = 24;
    let content = |number: usize, tag: usize| vec![b'a' + number as u8; 100_000 * (tag % 4) + tag + 1];
    if let Some((store, number)) = as_child() {
        for tag in 0..EACH {
            let content = content(number, tag);
            store.put(blob(&content)).await.unwrap();
            let set = NameChange::Set(name(&format!("app:{number}")), described(&content));
            store.update(&[set]).await.unwrap();
        }
        return;
    }
    let (_folder, path) = as_parent();
    drop(Store::open(&path).unwrap());
    let start = |number| child("reader_never_sees_partial_blob_or_index", &path, number).spawn().unwrap();
    let mut writers: Vec<_> = (0..WRITERS).map(|number| Running(start(number))).collect();
    let (mut checked, mut states) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    loop {
        let ended = writers.iter_mut().all(|writer| writer.0.try_wait().unwrap().is_some());
        let index = std::fs::read(path.join("index.json")).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&index).expect("a torn index.json");
        for entry in document["manifests"].as_array().unwrap() {
            let digest = digest::parse(entry["digest"].as_str().unwrap()).unwrap();
            let content = std::fs::read(super::blob_path(&path, &digest)).expect("a name without content");
            assert_eq!(digest::sha256(&content), digest);
        }
        for found in super::names_in(&path.join("blobs/sha256")) {
            if checked.insert(found.clone()) {
                let content = std::fs::read(path.join("blobs/sha256").join(&found)).unwrap();
                assert_eq!(digest::sha256(&content).digest(), found, "a blob that is not whole");
            }
        }
        states.insert(index);
        if ended {
            break;
        }
    }
    for writer in writers {
        writer.said();
    }
    assert_eq!(checked.len(), WRITERS * EACH);
    assert!(states.len() > 3, "the writers were seen at work {} times", states.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_of_many_processes_write_one_blob_once() {
    if let Some((store, _)) = as_child() {
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(fetch(store.clone()))).collect();
        for task in tasks {
            if task.await.unwrap() {
                println!("FETCHED");
            }
        }
        store.verify_blob(&described(SHARED)).await.unwrap();
        return;
    }
    let (_folder, path) = as_parent();
    let test = "many_tasks_of_many_processes_write_one_blob_once";
    let said = run((0..4).map(|number| child(test, &path, number)));
    let fetched: usize = said.iter().map(|text| text.matches("FETCHED").count()).sum();
    assert_eq!(fetched, 1);
}

/// Stores the shared blob unless it is there; whether that was needed.
async fn fetch(store: Store) -> bool {
    let Ingest::Vacant(mut writer) = store.ingest(&described(SHARED)).await.unwrap() else { return false };
    for chunk in SHARED.chunks(64 << 10) {
        writer.write(chunk.into()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    writer.commit().await.unwrap();
    true
}

#[tokio::test]
async fn a_killed_writer_is_succeeded_where_it_stopped() {
    const WRITTEN: usize = 1 << 20;
    if let Some((store, _)) = as_child() {
        let Ingest::Vacant(mut writer) = store.ingest(&described(SHARED)).await.unwrap() else { return };
        writer.write(SHARED[..WRITTEN].into()).await.unwrap();
        // Killed by its parent while it holds the right to write.
        std::future::pending::<()>().await;
    }
    let (_folder, path) = as_parent();
    let store = Store::open(&path).unwrap();
    let mut winner = child("a_killed_writer_is_succeeded_where_it_stopped", &path, 0);
    let winner = Running(winner.spawn().unwrap());
    let partial = path.join("ingest").join(format!("sha256-{}", described(SHARED).digest().digest()));
    while std::fs::metadata(&partial).map_or(0, |partial| partial.len()) < WRITTEN as u64 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.ingest(&described(SHARED)).await.unwrap() }
    });
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    assert!(!waiting.is_finished(), "the child still lives");
    drop(winner);
    let Ingest::Vacant(mut writer) = waiting.await.unwrap() else { panic!("nothing was stored") };
    assert_eq!(writer.offset(), WRITTEN as u64);
    writer.write(SHARED[WRITTEN..].into()).await.unwrap();
    writer.commit().await.unwrap();
    store.verify_blob(&described(SHARED)).await.unwrap();
}
