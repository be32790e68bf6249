//! Collections beside other processes: this test binary runs itself.

use std::time::Duration;

use plyfold_core::cache::Needs;
use plyfold_core::{CacheProvider as _, CacheProviderExt as _, Collect, NameChange};
use plyfold_layout::Store;

use super::{Running, as_child, as_parent, child, run};
use crate::collect::Image;
use crate::{blob, described, name, names_in};

#[tokio::test]
async fn a_lease_ends_with_its_process() {
    const CONTENT: &[u8] = b"leased by a process that is killed";
    let digest = described(CONTENT).digest().clone();
    if let Some((store, _)) = as_child() {
        let _lease = store.lease(&[digest]).await.unwrap();
        // Killed by its parent.
        return std::future::pending().await;
    }
    let (_folder, path) = as_parent();
    let store = Store::open(&path).unwrap();
    store.put(blob(CONTENT)).await.unwrap();
    let mut command = child("collectors::a_lease_ends_with_its_process", &path, 0);
    let running = Running(command.spawn().unwrap());
    let leases = || {
        let ingest = path.join("ingest");
        let written = |name: &String| std::fs::metadata(ingest.join(name)).is_ok_and(|lease| lease.len() > 0);
        names_in(&ingest).iter().filter(|name| name.starts_with("lease-") && written(name)).count()
    };
    while leases() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let beside = store.collect(&Collect::default()).await.unwrap();
    assert_eq!((beside.blobs.len(), beside.remains), (0, 0), "the child still lives");
    drop(running);
    let after = store.collect(&Collect::default()).await.unwrap();
    assert_eq!((after.blobs, after.remains, leases()), (vec![digest], 1, 0));
}

/// What every process works on: each image shares a layer with all others.
fn image(number: usize) -> Image {
    Image::new(&[b"shared by all", format!("layer of {number}").as_bytes()])
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_and_pulls_of_many_processes_do_each_other_no_harm() {
    const ROUNDS: usize = 12;
    if let Some((store, number)) = as_child() {
        let (image, name) = (image(number % 3), name(&format!("app:{number}")));
        for _ in 0..ROUNDS {
            let lease = store.lease(&image.digests()).await.unwrap();
            let mut present = 0;
            for (descriptor, content) in &image.blobs {
                // As a pull does: what is here is counted upon.
                if store.stat(descriptor.digest()).await.unwrap().is_some() {
                    present += 1;
                } else {
                    store.put(blob(content)).await.unwrap();
                }
            }
            store.update(&[NameChange::Set(name.clone(), image.top.clone())]).await.unwrap();
            drop(lease);
            for (descriptor, _) in &image.blobs {
                store.verify_blob(descriptor).await.unwrap_or_else(|e| panic!("{present} were here: {e}"));
            }
            store.remove(&name).await.unwrap();
        }
        store.lease(&image.digests()).await.unwrap();
        return;
    }
    let (_folder, path) = as_parent();
    let store = Store::open(&path).unwrap();
    let kept = image(9).named(&store, "app:kept").await;
    let test = "collectors::collections_and_pulls_of_many_processes_do_each_other_no_harm";
    let commands: Vec<_> = (0..4).map(|number| child(test, &path, number)).collect();
    let running = tokio::task::spawn_blocking(|| run(commands));
    let mut collected = 0;
    while !running.is_finished() {
        collected += store.collect(&Collect::default()).await.unwrap().blobs.len();
    }
    running.await.unwrap();
    collected += store.collect(&Collect::default()).await.unwrap().blobs.len();
    assert!(collected > 0, "all but one image is gone");
    let left = Needs::of(&store, &kept.top).await.unwrap().blobs.len();
    assert_eq!(names_in(&path.join("blobs/sha256")).len(), left);
    assert_eq!(names_in(&path.join("ingest")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_leases_are_taken_a_collection_gets_its_turn() {
    let (_folder, path) = as_parent();
    let store = Store::open(&path).unwrap();
    let digests = [described(b"wanted all the time").digest().clone()];
    let takers: Vec<_> = (0..16)
        .map(|_| {
            let (store, digests) = (Store::open(&path).unwrap(), digests.clone());
            tokio::spawn(async move {
                loop {
                    drop(store.lease(&digests).await.unwrap());
                }
            })
        })
        .collect();
    let policy = Collect::default();
    for _ in 0..5 {
        let turn = tokio::time::timeout(Duration::from_secs(60), store.collect(&policy));
        turn.await.expect("it waits only for tasks that write a lease at this moment").unwrap();
    }
    for taker in takers {
        taker.abort();
        let _ = taker.await;
    }
}
