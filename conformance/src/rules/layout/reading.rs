//! C 73: reading leaves no trace, and asks for no right to leave one.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfold_core::{
    BlobRange, CacheProvider, CacheProviderExt, ErrorKind, ImageRegistry, ImageRegistryExt, Page,
    PullOptions, PullPolicy, Verify, pull, reference,
};

use super::place::Place;
use super::setup::{NO_REGISTRY, name, set, whole};
use crate::LayoutFixture;
use crate::rule::not_judged;
use crate::rules::probe::{NAME, sound};
use crate::samples::{self, Sample};

/// Longer than the ticks in which file systems keep time.
const TICKS: Duration = Duration::from_millis(60);

pub(super) async fn read_only_directory_usable(fixture: &dyn LayoutFixture) {
    let sample = samples::index();
    // A layout of another tool, by a handle that was opened for reading.
    let theirs = Place::new();
    samples::write_layout(&theirs.path, &[(NAME.to_owned(), &sample)]).expect("a layout can be written");
    let read_only = ReadOnlyTree::new(&theirs.path);
    let before = Traces::of(&theirs.path, "");
    if let Some(registry) = fixture.registry(&theirs.path).await {
        read(&*registry, &sample).await;
        before.assert_none_since(&theirs.path, "", "reading as a registry");
    } else {
        not_judged(NO_REGISTRY);
    }
    // As a cache: where the directory can be written after all, as by root, it may keep notes beside the layout.
    let layout = Traces::of(&theirs.path, "blobs");
    let cache = sound(fixture.open(&theirs.path).await);
    use_as_cache(&*cache, &sample).await;
    if read_only.binds {
        before.assert_none_since(&theirs.path, "", "reading as a cache");
    }
    layout.assert_none_since(&theirs.path, "blobs", "reading as a cache");
    drop((cache, read_only));

    // A layout of its own, which it has seen before: opening it once more leaves nothing either.
    let ours = Place::new();
    let cache = sound(fixture.open(&ours.path).await);
    for blob in &sample.blobs {
        sound(cache.put(whole(&blob.descriptor, &blob.bytes)).await);
    }
    set(&*cache, NAME, &sample.top).await;
    drop(cache);
    let read_only = ReadOnlyTree::new(&ours.path);
    let before = Traces::of(&ours.path, "");
    let cache = sound(fixture.open(&ours.path).await);
    use_as_cache(&*cache, &sample).await;
    before.assert_none_since(&ours.path, "", "opening and reading its own layout");

    // A pull that needs nothing does not fail because it cannot note what it uses.
    let options = PullOptions { platform: amd64(), policy: PullPolicy::Never, ..PullOptions::default() };
    let registry = dyn_clone::clone_box(&*cache).as_registry();
    let pulled = sound(pull(&registry, &name(NAME), &*cache, &options).await);
    assert_eq!(pulled.layers.len(), 2);
    if read_only.binds {
        let refused = cache.put(whole(&super::setup::described(b"new"), &b"new"[..].into())).await;
        assert!(refused.is_err_and(|e| *e.kind() == ErrorKind::Io), "nothing can be stored here");
    }
}

fn amd64() -> plyfold_core::Platform {
    sound("linux/amd64".parse())
}

async fn read(registry: &dyn ImageRegistry, sample: &Sample) {
    let capabilities = registry.capabilities();
    if capabilities.repositories && capabilities.tags {
        let repositories = sound(registry.repositories(Page::default()).await).names;
        for repository in &repositories {
            sound(registry.tags(repository, Page::default()).await);
        }
    }
    let image = name(NAME);
    sound(registry.resolve(&image).await);
    assert_eq!(sound(registry.manifest(&image).await).bytes(), sample.top_bytes());
    sound(registry.fetch_config(&image, &amd64()).await);
    for blob in &sample.blobs {
        if blob.is_manifest() {
            sound(registry.manifest(&reference::by_digest(&image, blob.descriptor.digest())).await);
        } else {
            sound(
                sound(registry.blob(&image, &blob.descriptor, BlobRange::FULL).await).bytes(u64::MAX).await,
            );
        }
    }
}

async fn use_as_cache(cache: &dyn CacheProvider, sample: &Sample) {
    let cache = dyn_clone::clone_box(cache);
    assert_eq!(sound(cache.list().await).len(), 1);
    sound(cache.pins().await);
    let found = sound(cache.find_descriptor(&name(NAME)).await).expect("the name is here");
    assert_eq!(found.digest(), sample.top.digest());
    assert!(sound(cache.image_in_cache(&name(NAME), &amd64()).await));
    for blob in &sample.blobs {
        assert_eq!(sound(cache.stat(blob.descriptor.digest()).await), Some(blob.descriptor.size()));
        sound(cache.verify_blob(&blob.descriptor).await);
    }
    assert_eq!(sound(cache.verify(&Verify::default()).await).damage, []);
}

/// A directory without the right to write, for who is bound by modes.
struct ReadOnlyTree {
    folders: Vec<PathBuf>,
    binds: bool,
}

impl ReadOnlyTree {
    fn new(path: &Path) -> Self {
        std::thread::sleep(TICKS);
        let mut folders = Vec::new();
        for (inner, trace) in Traces::of(path, "").0 {
            let mode = if trace.is_folder { 0o555 } else { 0o444 };
            fs::set_permissions(path.join(&inner), Permissions::from_mode(mode)).expect("modes can be set");
            folders.extend(trace.is_folder.then(|| path.join(inner)));
        }
        // Who may write all the same leaves no other trace than the time, which is put back.
        let binds = fs::File::create_new(path.join("probe")).is_err();
        let _ = fs::remove_file(path.join("probe"));
        std::thread::sleep(TICKS);
        Self { folders, binds }
    }
}

impl Drop for ReadOnlyTree {
    fn drop(&mut self) {
        for folder in &self.folders {
            let _ = fs::set_permissions(folder, Permissions::from_mode(0o755));
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Trace {
    is_folder: bool,
    mode: u32,
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What any write changes of a directory, at any depth.
struct Traces(BTreeMap<PathBuf, Trace>);

impl Traces {
    /// Of what is below `inner`, and of the documents at the top.
    fn of(path: &Path, inner: &str) -> Self {
        let mut traces = BTreeMap::new();
        let mut open = vec![path.join(inner), path.join("index.json"), path.join("oci-layout")];
        while let Some(next) = open.pop() {
            let found = fs::symlink_metadata(&next).expect("what is here can be looked at");
            if found.is_dir() {
                let entries = fs::read_dir(&next).expect("folders can be read");
                open.extend(entries.map(|entry| entry.expect("folders can be read").path()));
            }
            let trace = Trace {
                is_folder: found.is_dir(),
                mode: found.mode(),
                file: (found.dev(), found.ino()),
                size: found.size(),
                modified: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
            };
            let inside = next.strip_prefix(path).expect("it is in the directory");
            traces.insert(inside.to_owned(), trace);
        }
        Self(traces)
    }

    #[track_caller]
    fn assert_none_since(&self, path: &Path, inner: &str, what: &str) {
        let now = Self::of(path, inner).0;
        let changed =
            self.0.iter().filter(|(file, trace)| now.get(*file) != Some(*trace)).map(|(file, _)| file);
        let changed: Vec<_> = changed.chain(now.keys().filter(|file| !self.0.contains_key(*file))).collect();
        assert!(changed.is_empty(), "{what} has changed {changed:?}");
    }
}
