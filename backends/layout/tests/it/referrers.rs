//! Loads and copies of many referrers: which files are opened and written, as the kernel tells it.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use plyfold_conformance::samples;
use plyfold_core::cache::list_images;
use plyfold_core::{
    CacheProvider as _, CacheProviderExt as _, CopyOptions, Descriptor, ErrorKind, ImageRegistry as _,
    LoadOptions, MediaType, Opened, RawManifest, copy, reference,
};
use plyfold_layout::{Config, Layout, Store};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{blob_path, name};

/// How often files in a folder are opened or replaced.
struct Watch(OwnedFd, ReadFlags);

impl Watch {
    fn on(folder: &Path, counted: ReadFlags) -> Self {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        // The kernel joins two equal events; there are others between them.
        let all = WatchFlags::OPEN | WatchFlags::CLOSE | WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, folder, all).unwrap();
        Self(watch, counted)
    }

    /// Events since the last question, of files whose names begin so.
    fn count(&self, start: &str) -> usize {
        let (mut buffer, mut count) = ([MaybeUninit::uninit(); 8 << 10], 0);
        let mut events = Reader::new(&self.0, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    let is_lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                    assert!(!is_lost, "more events than the kernel keeps");
                    if !event.events().contains(self.1) {
                        continue;
                    }
                    let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                    count += usize::from(name.is_some_and(|name| name.starts_with(start)));
                }
                Err(Errno::AGAIN) => return count,
                Err(e) => panic!("{e}"),
            }
        }
    }
}

/// A layout of one image and its referrers, each an entry without a name, as oras writes them. In a chain each refers to
/// the one before it. All manifests, the image's first.
fn layout(folder: &Path, count: usize, is_chain: bool) -> Vec<RawManifest> {
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let sample = samples::image();
    for blob in &sample.blobs {
        fs::write(blob_path(folder, blob.descriptor.digest()), &blob.bytes).unwrap();
    }
    let raw = RawManifest::new(sample.top_bytes().clone(), None).unwrap();
    let config = raw.image().unwrap().config().clone();
    let mut all = vec![raw];
    for number in 0..count {
        let subject = all[if is_chain { number } else { 0 }].descriptor();
        let (kind, digest, size) = (subject.media_type(), subject.digest(), subject.size());
        let document = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.example.note", "config": config, "layers": [],
            "subject": { "mediaType": kind, "digest": digest, "size": size },
            "annotations": { "number": number.to_string() },
        });
        let raw = RawManifest::new(document.to_string(), None).unwrap();
        fs::write(blob_path(folder, raw.digest()), raw.bytes()).unwrap();
        all.push(raw);
    }
    let mut entries: Vec<Value> =
        all.iter().map(|raw| serde_json::to_value(raw.descriptor()).unwrap()).collect();
    entries[0]["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    // The image last: what refers to it is loaded with it even so.
    entries.rotate_left(1);
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    // An index that has just been written is read each time.
    std::thread::sleep(Duration::from_millis(100));
    all
}

const COUNT: usize = 60;

#[tokio::test]
async fn many_referrers_are_read_and_listed_once() {
    for is_chain in [false, true] {
        let folder = TempDir::new().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let all = layout(&from, COUNT, is_chain);
        let store = Store::open(&to).unwrap();
        let opened = Watch::on(&from.join("blobs/sha256"), ReadFlags::OPEN);
        let written = Watch::on(&to, ReadFlags::MOVED_TO);
        let origin = Layout::new(&from, Config::default());
        let from = Opened { registry: Box::new(origin.clone()), reference: None };
        let loaded = store.image_load(&from, &LoadOptions::default()).await.unwrap();
        assert_eq!(loaded.len(), 1, "referrers are no images");
        let (opened, written) = (opened.count(""), written.count("index.json"));
        assert!(opened <= 6 * COUNT, "{opened} blobs are opened for {COUNT} referrers, chain: {is_chain}");
        assert_eq!(written, 1, "the image's name with those of the lists, chain: {is_chain}");
        let listed = |subject: &Descriptor| {
            let (registry, digest) = (store.as_registry(), subject.digest().clone());
            async move { registry.referrers(&name("a:1"), &digest, None).await.unwrap().len() }
        };
        let counts = if is_chain { [1, 1, 0] } else { [COUNT, 0, 0] };
        for (subject, count) in [&all[0], &all[1], &all[COUNT]].into_iter().zip(counts) {
            assert_eq!(listed(subject.descriptor()).await, count, "chain: {is_chain}");
        }

        // A copy into a layout, whose index has a name for the image and one for each list.
        let copied = Layout::new(folder.path().join("copied"), Config::default());
        let (image, target) = (from.registry.clone(), name("localhost/copied:1"));
        let options = CopyOptions { referrers: true, ..CopyOptions::default() };
        copied.lease(&[]).await.unwrap();
        let written = Watch::on(&folder.path().join("copied"), ReadFlags::MOVED_TO);
        let local = name("localhost/from:1");
        copy(&*image, &local, &copied, &target, &options).await.unwrap();
        assert_eq!(written.count("index.json"), 2, "chain: {is_chain}");
        let last = reference::by_digest(&target, all[COUNT].digest());
        assert_eq!(copied.manifest(&last).await.unwrap().bytes(), all[COUNT].bytes());
    }
}

/// What refers to an image that is there is no image by itself: it is not listed as one, and does not come when what refers to
/// images is left out. Chosen by its digest it does.
#[tokio::test]
async fn referrers_without_a_name_are_no_images() {
    for is_chain in [false, true] {
        let folder = TempDir::new().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let all = layout(&from, 3, is_chain);
        // As cosign names them.
        let mut index: Value = serde_json::from_slice(&fs::read(from.join("index.json")).unwrap()).unwrap();
        let mut entry = serde_json::to_value(all[1].descriptor()).unwrap();
        let tag = format!("{}.sig", all[0].digest().as_ref().replacen(':', "-", 1));
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        index["manifests"].as_array_mut().unwrap().push(entry);
        fs::write(from.join("index.json"), index.to_string()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let open =
            |reference| Opened { registry: Box::new(Layout::new(&from, Config::default())), reference };
        let listed = list_images(&open(None)).await.unwrap();
        let names: Vec<_> = listed.iter().map(|image| image.reference.whole()).collect();
        assert_eq!(names.iter().filter(|name| name.contains('@')).count(), 0, "{names:?}");
        let store = Store::open(&to).unwrap();
        let without = LoadOptions { referrers: false, ..LoadOptions::default() };
        let loaded = store.image_load(&open(None), &without).await.unwrap();
        let names: Vec<_> = loaded.iter().map(|loaded| loaded.reference.whole()).collect();
        assert_eq!(names, ["localhost/from:1"]);
        assert_eq!(store.list().await.unwrap().len(), 1);
        for raw in &all[1..] {
            assert_eq!(store.stat(raw.digest()).await.unwrap(), None, "a referrer");
        }
        let one = open(Some(reference::by_digest(&name("localhost/from:1"), all[2].digest())));
        let loaded = store.image_load(&one, &without).await.unwrap();
        assert_eq!(loaded[0].descriptor.digest(), all[2].digest());
    }
}

/// A question about one subject does not read what refers to others.
#[tokio::test]
async fn a_list_of_one_subject_reads_what_refers_to_it() {
    let folder = TempDir::new().unwrap();
    let all = layout(folder.path(), COUNT, true);
    let layout = Layout::new(folder.path(), Config::default());
    layout.referrers(&name("a:1"), all[0].digest(), None).await.unwrap();
    let opened = Watch::on(&folder.path().join("blobs/sha256"), ReadFlags::OPEN);
    let listed = layout.referrers(&name("a:1"), all[7].digest(), None).await.unwrap();
    assert_eq!(listed.iter().map(Descriptor::digest).collect::<Vec<_>>(), [all[8].digest()]);
    assert_eq!(opened.count(""), 1);
}

/// A manifest that `index.json` names and that is missing may be about the image, or is: the copy names it. Without it, and
/// without a list of it, all is copied.
#[tokio::test]
async fn a_missing_referrer_is_named() {
    for how in ["without a name", "in a list", "as a tag of cosign"] {
        let folder = TempDir::new().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let all = layout(&from, 3, false);
        let (missing, stem) = (&all[2], all[0].digest().as_ref().replacen(':', "-", 1));
        let mut index: Value = serde_json::from_slice(&fs::read(from.join("index.json")).unwrap()).unwrap();
        let entry = serde_json::to_value(missing.descriptor()).unwrap();
        let entries = index["manifests"].as_array_mut().unwrap();
        let named = |mut entry: Value, tag: String| {
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
            entry
        };
        if how != "without a name" {
            entries.retain(|old| old["digest"] != entry["digest"]);
        }
        if how == "in a list" {
            let list = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": [entry] });
            let list = RawManifest::new(list.to_string(), None).unwrap();
            fs::write(blob_path(&from, list.digest()), list.bytes()).unwrap();
            entries.push(named(serde_json::to_value(list.descriptor()).unwrap(), stem));
        } else if how == "as a tag of cosign" {
            entries.push(named(entry, format!("{stem}.sig")));
        }
        fs::write(from.join("index.json"), index.to_string()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let options = CopyOptions { referrers: true, ..CopyOptions::default() };
        let copied = async |from: &Path, to: &Path| {
            let (from, to) = (Layout::new(from, Config::default()), Layout::new(to, Config::default()));
            let copied = copy(&from, &name("localhost/from:1"), &to, &name("localhost/to:1"), &options).await;
            assert_eq!(to.resolve(&name("localhost/to:1")).await.unwrap().digest(), all[0].digest(), "{how}");
            copied
        };
        copied(&from, &folder.path().join("complete")).await.unwrap();
        fs::remove_file(blob_path(&from, missing.digest())).unwrap();
        let error = copied(&from, &to).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{how}: {error}");
        assert!(error.to_string().contains(missing.digest().as_ref()), "{how}: {error}");

        // A load says so as well, and brings nothing.
        let opened = Opened {
            registry: Box::new(Layout::new(&from, Config::default())),
            reference: Some(name("localhost/from:1")),
        };
        let store = Store::open(folder.path().join("store")).unwrap();
        let error = store.image_load(&opened, &LoadOptions::default()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{how}: {error}");
        assert!(error.to_string().contains(missing.digest().as_ref()), "{how}: {error}");
        assert_eq!(store.list().await.unwrap(), [], "{how}");
    }
}
