//! Waiting for others, and who waits for whom when work is given up.

use std::fs::{self, File, Permissions};
use std::future::{Future, poll_fn};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use plyfold_core::{
    Artifact, ArtifactKey, BlobWriter, CacheProvider as _, Descriptor, ErrorKind, Format, ImageRegistry as _,
    Ingest, Made, digest,
};
use plyfold_layout::{Config, Layout, Store};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::{described, fails, name, names_in};

/// More than anything here takes, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

fn fresh() -> (Store, TempDir) {
    let folder = TempDir::new().unwrap();
    (Store::open(folder.path().join("store")).unwrap(), folder)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn vacant(store: &Store, blob: &Descriptor) -> Box<dyn BlobWriter> {
    match store.ingest(blob).await.unwrap() {
        Ingest::Vacant(writer) => writer,
        Ingest::Present => panic!("nothing is stored"),
    }
}

/// A writer whose thread has more to do than a moment.
async fn busy(store: &Store) -> Box<dyn BlobWriter> {
    const PIECES: u64 = 8;
    let piece = Bytes::from(vec![7; 16 << 20]);
    let size = piece.len() as u64 * PIECES;
    let blob = Descriptor::new("application/octet-stream".into(), size, digest::sha256(b"something else"));
    let mut writer = vacant(store, &blob).await;
    for _ in 0..PIECES {
        writer.write(piece.clone()).await.unwrap();
    }
    writer
}

#[test]
fn a_writer_that_is_dropped_keeps_nobody_waiting_and_the_runtime_ends_after_it() {
    let (store, _folder) = fresh();
    let ingest = store.path().join("ingest");
    let runtime = runtime();
    runtime.block_on(async {
        let writer = busy(&store).await;
        drop(writer);
        assert_eq!(names_in(&ingest).len(), 1, "async code has waited for a thread");
    });
    drop(runtime);
    assert_eq!(names_in(&ingest), [""; 0]);
}

#[test]
fn a_writer_that_is_discarded_has_left_nothing() {
    let (store, _folder) = fresh();
    runtime().block_on(async {
        busy(&store).await.discard().await;
        assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
    });
}

#[test]
fn a_transfer_without_a_byte_is_nothing_to_go_on_from() {
    let (store, _folder) = fresh();
    runtime().block_on(async {
        vacant(&store, &described(b"nothing of it comes")).await.suspend().await.unwrap();
        assert_eq!(names_in(&store.path().join("ingest")), [""; 0]);
    });
}

/// Counts how often a future is woken.
async fn counted<F: Future>(future: F, polls: Arc<AtomicUsize>) -> F::Output {
    let mut future = Box::pin(future);
    poll_fn(|context| {
        polls.fetch_add(1, Ordering::Relaxed);
        future.as_mut().poll(context)
    })
    .await
}

/// Lets `wait` wait for half a second; then `release` ends what it waits for, and it ends. Who asks again and again is
/// woken again and again.
async fn sleeps<T: Send + 'static>(
    what: &str,
    wait: impl Future<Output = T> + Send + 'static,
    release: impl FnOnce(),
) -> T {
    let polls = Arc::new(AtomicUsize::new(0));
    let waiting = tokio::spawn(counted(wait, polls.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "{what}: it does not wait");
    // Once to begin, and once when the first look has been taken on another thread.
    let woken = polls.load(Ordering::Relaxed);
    assert!(woken <= 3, "{what}: woken {woken} times");
    release();
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("{what}: for ever")).unwrap()
}

/// Also with a handle of its own for each.
#[test]
fn who_waits_within_a_process_is_woken_once() {
    let (store, folder) = fresh();
    let other = Store::open(folder.path().join("store")).unwrap();
    runtime().block_on(async {
        for waiting in [store.clone(), other] {
            let blob = described(b"one blob");
            let writer = vacant(&store, &blob).await;
            let (cache, wanted) = (waiting.clone(), blob.clone());
            let begun = sleeps("a blob", async move { cache.ingest(&wanted).await }, || drop(writer)).await;
            drop(begun.unwrap());

            let format = Format { name: "test", version: 1, options: String::new(), extension: "img" };
            let key = ArtifactKey::layer(format, digest::sha256(b"layer"));
            let Artifact::Vacant(maker) = store.artifact(&key).await.unwrap() else { panic!("none is made") };
            let (cache, wanted) = (waiting.clone(), key.clone());
            let begun = sleeps("an artifact", async move { cache.artifact(&wanted).await }, || drop(maker));
            assert!(matches!(begun.await.unwrap(), Artifact::Vacant(_)));

            let turn = store.single_flight("some work").await.unwrap();
            let cache = waiting.clone();
            sleeps("a turn", async move { cache.single_flight("some work").await }, || drop(turn))
                .await
                .unwrap();
        }
    });
}

/// A file that another process owns: a lock belongs to who has opened the file.
fn owned(path: &Path) -> File {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    file.lock().unwrap();
    file
}

#[test]
fn who_waits_for_another_process_sleeps_until_it_is_done() {
    let (store, _folder) = fresh();
    runtime().block_on(async {
        let blob = described(b"one blob");
        let path = store.path().join("ingest").join(format!("sha256-{}", blob.digest().digest()));
        let theirs = owned(&path);
        let (cache, wanted) = (store.clone(), blob.clone());
        let begun = sleeps("a blob", async move { cache.ingest(&wanted).await }, || drop(theirs)).await;
        drop(begun.unwrap());

        let theirs = owned(&store.path().join("ingest/collector"));
        let cache = store.clone();
        let content = [blob.digest().clone()];
        let lease = sleeps("a lease", async move { cache.lease(&content).await }, || drop(theirs)).await;
        assert!(!lease.unwrap().is_none());

        // A cancelled waiter does not block others.
        let theirs = owned(&path);
        tokio::time::timeout(Duration::from_millis(50), store.ingest(&blob)).await.unwrap_err();
        drop(theirs);
        drop(tokio::time::timeout(LONG, store.ingest(&blob)).await.unwrap().unwrap());
    });
}

/// Root may read everything, unless it gives that up; threads that are started later have no more rights.
fn without_privileges() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    set_capabilities(None, sets).unwrap();
}

/// A path that cannot be opened, until it is dropped.
struct Closed<'a>(&'a Path, u32);

impl<'a> Closed<'a> {
    fn new(path: &'a Path) -> Self {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
        Self(path, mode)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        fs::set_permissions(self.0, Permissions::from_mode(self.1)).unwrap();
    }
}

#[test]
fn what_cannot_be_looked_at_is_not_absent() {
    without_privileges();
    let (store, _folder) = fresh();
    runtime().block_on(async {
        let format = Format { name: "test", version: 1, options: String::new(), extension: "img" };
        let key = ArtifactKey::layer(format, digest::sha256(b"layer"));
        let Artifact::Vacant(mut maker) = store.artifact(&key).await.unwrap() else { panic!("none is made") };
        std::io::Write::write_all(maker.output(), b"made").unwrap();
        let made = maker.commit(&Made::default()).unwrap();
        let (path, size) = (made.path().unwrap().to_owned(), made.size());
        let mut checksum = path.clone().into_os_string();
        checksum.push(".checksum");
        for closed in [Path::new(&checksum), path.parent().unwrap()] {
            let _closed = Closed::new(closed);
            fails(store.artifact(&key).await, &ErrorKind::Io);
        }
        assert!(
            matches!(store.artifact(&key).await.unwrap(), Artifact::Present(held) if held.size() == size)
        );

        let blob = described(b"one blob");
        {
            let ingest = store.path().join("ingest");
            let _closed = Closed::new(&ingest);
            fails(store.partial(blob.digest()).await, &ErrorKind::Io);
        }
        let blobs = store.path().join("blobs");
        let layout = Layout::new(store.path(), Config::default());
        let _closed = Closed::new(&blobs);
        fails(store.stat(blob.digest()).await, &ErrorKind::Io);
        fails(layout.has_blob(&name("app:1"), &blob).await, &ErrorKind::Io);
        let nowhere = Layout::new(store.path().join("nowhere"), Config::default());
        assert!(!nowhere.has_blob(&name("app:1"), &blob).await.unwrap());
    });
}
