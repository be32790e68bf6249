//! Leases and single flights, within a process and across processes.

use std::fs;
use std::time::{Duration, SystemTime};

use plyfold_core::{CacheProvider as _, CacheProviderExt as _};
use plyfold_layout::Store;
use tempfile::TempDir;

use super::{blob, blob_path, described, names_in};

const CONTENT: &[u8] = b"content under a lease";

fn fresh() -> (Store, TempDir) {
    let folder = TempDir::new().unwrap();
    (Store::open(folder.path().join("store")).unwrap(), folder)
}

#[tokio::test]
async fn a_lease_is_a_file_that_goes_with_it() {
    let (store, _folder) = fresh();
    let digests = [described(CONTENT).digest().clone()];
    let (first, second) = (store.lease(&digests).await.unwrap(), store.lease(&digests).await.unwrap());
    let again = first.clone();
    let ingest = store.path().join("ingest");
    assert_eq!(names_in(&ingest).len(), 2);
    drop(first);
    assert_eq!(names_in(&ingest).len(), 2, "a clone still holds it");
    drop(again);
    assert_eq!(names_in(&ingest).len(), 1);
    // Another handle removes leases of killed processes, never of running ones.
    Store::open(store.path()).unwrap();
    let left = names_in(&ingest);
    assert_eq!(left.len(), 1);
    assert_eq!(fs::read_to_string(ingest.join(&left[0])).unwrap(), format!("{}\n", digests[0]));
    drop(second);
    assert_eq!(names_in(&ingest), [""; 0]);
}

#[tokio::test]
async fn a_lease_is_a_use() {
    let (store, _folder) = fresh();
    store.put(blob(CONTENT)).await.unwrap();
    let path = blob_path(store.path(), described(CONTENT).digest());
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = fs::File::open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(long_ago).set_accessed(long_ago)).unwrap();
    let before = SystemTime::now();
    drop(store.lease(&[described(CONTENT).digest().clone(), described(b"absent").digest().clone()]).await);
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.modified().unwrap() >= before);
    assert_eq!(metadata.accessed().unwrap(), long_ago, "when it was read is not ours to say");
}

#[tokio::test]
async fn a_lease_that_is_being_written_is_in_nobodys_way() {
    let (store, _folder) = fresh();
    drop(store.lease(&[described(CONTENT).digest().clone()]).await.unwrap());
    let path = store.path().join("ingest/lease-1");
    fs::write(&path, format!("{}\nsha256:ab", described(CONTENT).digest())).unwrap();
    let owner = fs::File::open(&path).unwrap();
    owner.lock().unwrap();
    store.put(blob(CONTENT)).await.unwrap();
    assert_eq!(store.usage().await.unwrap().unused, 0, "its first line is whole");
}

#[tokio::test]
async fn turns_for_one_work_follow_each_other_and_others_do_not_wait() {
    let (store, _folder) = fresh();
    let other = Store::open(store.path()).unwrap();
    let first = store.single_flight("one").await.unwrap();
    let _different = store.single_flight("another").await.unwrap();
    let waiting: Vec<_> = [store.clone(), other]
        .map(|store| tokio::spawn(async move { drop(store.single_flight("one").await.unwrap()) }))
        .into_iter()
        .collect();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    drop(first);
    for waiting in waiting {
        waiting.await.unwrap();
    }
    // A cancelled waiter does not block others.
    let held = store.single_flight("one").await.unwrap();
    tokio::time::timeout(Duration::from_millis(20), store.single_flight("one")).await.unwrap_err();
    drop(held);
    store.single_flight("one").await.unwrap();
}
