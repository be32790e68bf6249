//! Several processes on one store: this test binary runs itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use plyfold_core::{CacheProvider as _, CacheProviderExt as _, Ingest, NameChange};
use plyfold_layout::Store;
use tempfile::TempDir;

use super::{blob, described, name};

/// Set for a child: the store's path.
const STORE: &str = "PLYFOLD_TEST_STORE";
/// Set for a child: its number.
const NUMBER: &str = "PLYFOLD_TEST_NUMBER";
/// What every child wants to store.
const SHARED: &[u8] = &[7; 3 << 20];

/// Runs one of the tests below, as a child, `count` times at once; what the children say.
fn children(test: &str, store: &Path, count: usize) -> Vec<String> {
    let start = |number: usize| -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("processes::{test}"), "--nocapture", "--test-threads=1"]);
        command.env(STORE, store).env(NUMBER, number.to_string()).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let running: Vec<_> = (0..count).map(start).collect();
    let ended = running.into_iter().map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "a child failed");
        String::from_utf8(output.stdout).unwrap()
    });
    ended.collect()
}

/// The store and the number of this process, when it is a child.
fn as_child() -> Option<(Store, usize)> {
    let number = std::env::var(NUMBER).ok()?.parse().unwrap();
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
    const EACH: usize = 8;
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
    children("n_processes_add_n_tags_all_survive", &path, 8);
    let store = Store::open(&path).unwrap();
    let names = store.list().await.unwrap();
    assert_eq!(names.len(), 8 * EACH);
    for (name, descriptor) in names {
        let (number, tag) = name.tag().unwrap().split_once('-').unwrap();
        let expected = format!("image {number} {tag}");
        let content = store.content(&descriptor, 100).await.unwrap();
        assert_eq!(content, expected.as_bytes());
    }
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
    let said = children("many_tasks_of_many_processes_write_one_blob_once", &path, 4);
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
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::a_killed_writer_is_succeeded_where_it_stopped"])
        .envs([(STORE, path.as_os_str()), (NUMBER, "0".as_ref())])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
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
    child.kill().unwrap();
    child.wait().unwrap();
    let Ingest::Vacant(mut writer) = waiting.await.unwrap() else { panic!("nothing was stored") };
    assert_eq!(writer.offset(), WRITTEN as u64);
    writer.write(SHARED[WRITTEN..].into()).await.unwrap();
    writer.commit().await.unwrap();
    store.verify_blob(&described(SHARED)).await.unwrap();
}
