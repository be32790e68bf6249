//! Work that is given up at any moment, and work on few threads.

use std::fs;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_core::cache::Verify;
use plyfold_core::{
    CacheProvider as _, CacheProviderExt as _, Collect, CopyOptions, Ingest, NameChange, PullOptions, Result,
    copy, digest, pull,
};
use plyfold_erofs::ErofsLayer;
use plyfold_layout::{Config, Layout, Store};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::{blob, described, name, names_in};

const IMAGE: &str = "example.com/app:1";
/// More than anything here takes, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

/// A runtime on which nothing may wait for anything else with a thread in its hand.
fn one_thread() -> Runtime {
    Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap()
}

/// A layout with an image whose layers have one file of so many bytes.
fn origin(folder: &Path, sizes: &[usize]) -> Layout {
    let layers = sizes.iter().enumerate().map(|(number, size)| {
        let content: Vec<u8> = (0..*size).map(|at| (at * 31 % 251 + number) as u8).collect();
        LayerBuilder::new().file("f", 0o644, &content).finish()
    });
    let sample = samples::of_layers("cut off", &layers.collect::<Vec<_>>());
    samples::write_layout(&folder.join("origin"), &[(IMAGE.to_owned(), &sample)]).unwrap();
    Layout::new(folder.join("origin"), Config::default())
}

fn options() -> PullOptions {
    PullOptions {
        materializer: Some(Box::new(ErofsLayer::default())),
        platform: "linux/amd64".parse().unwrap(),
        stall: Duration::from_secs(5),
        ..PullOptions::default()
    }
}

/// What comes of a future that is dropped after so many polls, if anything does.
async fn polled<F: Future>(future: F, mut polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Waits for what has been given up to be gone: it ends at its next step.
async fn nothing_in_progress(store: &Path) {
    let gone = async {
        while !names_in(&store.join("ingest")).is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let gone = tokio::time::timeout(LONG, gone).await;
    assert!(gone.is_ok(), "{:?} stay", names_in(&store.join("ingest")));
}

#[test]
fn a_pull_that_is_dropped_after_any_poll_is_in_nobodys_way() {
    let folder = TempDir::new().unwrap();
    let origin = origin(folder.path(), &[700_000, 20]);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut half_way = 0;
    for polls in 0.. {
        let path = folder.path().join(polls.to_string());
        let done = runtime.block_on(async {
            let store = Store::open(&path).unwrap();
            let done = polled(pull(&origin, &name(IMAGE), &store, &options()), polls).await;
            let begun =
                ["ingest", "blobs/sha256"].iter().any(|folder| !names_in(&path.join(folder)).is_empty());
            half_way += usize::from(done.is_none() && begun);
            let image = name(IMAGE);
            let options = options();
            let again = tokio::time::timeout(LONG, pull(&origin, &image, &store, &options)).await;
            let again = again.unwrap_or_else(|_| panic!("it waits for one that was dropped after {polls}"));
            drop(again.unwrap());
            let done = done.map(Result::unwrap).is_some();
            nothing_in_progress(&path).await;
            let verified = store.verify(&Verify::default()).await.unwrap();
            assert_eq!((verified.damage, verified.checked), (vec![], 6), "after {polls}");
            done
        });
        fs::remove_dir_all(path).unwrap();
        if done {
            assert!(half_way > 0, "none of {polls} was dropped half way");
            break;
        }
    }
}

#[test]
fn pulls_and_copies_need_one_thread() {
    let folder = TempDir::new().unwrap();
    let origin = origin(folder.path(), &[3 << 20, 2 << 20, 5]);
    let store = Store::open(folder.path().join("store")).unwrap();
    let runtime = one_thread();
    let pulled = runtime.block_on(async {
        let pulled = pull(&origin, &name(IMAGE), &store, &options()).await.unwrap();
        // Once more, out of what is there.
        fs::remove_dir_all(store.path().join("artifacts")).unwrap();
        let (image, options) = (name(IMAGE), options());
        let again = tokio::time::timeout(LONG, pull(&origin, &image, &store, &options)).await;
        again.expect("reading and converting wait for each other").unwrap();
        pulled
    });
    assert!(pulled.layers.iter().all(|layer| layer.artifact.is_some()));
    let target = Layout::new(folder.path().join("copy"), Config::default());
    runtime.block_on(async {
        let (image, options) = (name(IMAGE), CopyOptions::default());
        let copied = tokio::time::timeout(LONG, copy(&origin, &image, &target, &image, &options)).await;
        copied.expect("reading and writing wait for each other").unwrap();
    });
}

#[test]
fn names_change_beside_a_collection_on_one_thread() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    one_thread().block_on(async {
        let _lease = store.lease(&[described(b"x").digest().clone()]).await.unwrap();
        store.put(blob(b"x")).await.unwrap();
        let changes = async {
            for number in 0..20 {
                let set = NameChange::Set(name(&format!("app:{number}")), described(b"x"));
                store.update(&[set]).await.unwrap();
            }
        };
        let collections = async {
            for _ in 0..5 {
                store.collect(&Collect::default()).await.unwrap();
            }
        };
        let both = async { tokio::join!(changes, collections) };
        tokio::time::timeout(LONG, both).await.expect("they wait for each other");
        assert_eq!(store.list().await.unwrap().len(), 20);
    });
}

#[test]
fn a_partial_download_outlives_who_gives_up_before_it_is_hashed_again() {
    const HELD: usize = 20 << 20;
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    one_thread().block_on(async {
        let wanted = described(&vec![0; HELD + 1]);
        let file = format!("sha256-{}", wanted.digest().digest());
        drop(store.lease(&[digest::sha256(b"")]).await.unwrap());
        fs::write(store.path().join("ingest").join(file), vec![0; HELD]).unwrap();
        assert!(polled(store.ingest(&wanted), 1).await.is_none());
        let Ingest::Vacant(mut writer) = store.ingest(&wanted).await.unwrap() else {
            panic!("it is not here")
        };
        assert_eq!(writer.offset(), HELD as u64);
        writer.write(vec![0].into()).await.unwrap();
        writer.commit().await.unwrap();
        store.verify_blob(&wanted).await.unwrap();
    });
}

/// Its lease has gone with it: by now the content may be, too.
#[test]
fn a_change_of_names_that_is_dropped_while_it_waits_is_not_made() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    one_thread().block_on(async {
        store.put(blob(b"x")).await.unwrap();
        let set = |tag: &str| [NameChange::Set(name(&format!("app:{tag}")), described(b"x"))];
        let lock = fs::File::open(store.path().join("locks/index")).unwrap();
        lock.lock().unwrap();
        let dropped = set("dropped");
        let mut waiting: Pin<Box<dyn Future<Output = Result<()>>>> = Box::pin(store.update(&dropped));
        let once = tokio::time::timeout(Duration::from_millis(50), pin!(&mut waiting)).await;
        assert!(once.is_err(), "the lock is held");
        drop(waiting);
        drop(lock);
        store.update(&set("kept")).await.unwrap();
        let names: Vec<String> = store.list().await.unwrap().iter().map(|(name, _)| name.whole()).collect();
        assert_eq!(names, ["docker.io/library/app:kept"]);
    });
}
