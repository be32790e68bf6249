//! Collection on disk: what stays, what goes, and what is left when it is cut off.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use plyfold_core::layout_index::LayoutIndex;
use plyfold_core::{
    Advice, Artifact, ArtifactKey, CacheProvider as _, CacheProviderExt as _, Collect, Collected, Descriptor,
    Digest, ErrorKind, Format, Ingest, Made, MediaType, NameChange, digest,
};
use plyfold_layout::Store;
use tempfile::TempDir;

use super::{blob_path, described, fails, name, names_in};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn fresh() -> (Store, TempDir) {
    let folder = TempDir::new().unwrap();
    (Store::open(folder.path().join("store")).unwrap(), folder)
}

/// One image: what a name stands for, and every blob, the top last.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) top: Descriptor,
    pub(crate) blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl Image {
    /// An image of these layers, stored as they are.
    pub(crate) fn new(layers: &[&[u8]]) -> Self {
        Self::about(layers, None)
    }

    /// An image with a subject.
    fn about(layers: &[&[u8]], subject: Option<&Descriptor>) -> Self {
        let diff_ids: Vec<String> =
            layers.iter().map(|layer| format!("{:?}", digest::sha256(layer).to_string())).collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let mut blobs: Vec<(Descriptor, Vec<u8>)> =
            layers.iter().map(|layer| typed("application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let config = typed("application/vnd.oci.image.config.v1+json", config.as_bytes());
        let list = blobs.iter().map(|(layer, _)| json(layer)).collect::<Vec<_>>().join(",");
        let subject = subject.map(|subject| format!(r#","subject":{}"#, json(subject))).unwrap_or_default();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{list}]{subject}}}"#,
            json(&config.0)
        );
        blobs.push(config);
        Self::topped(blobs, typed(MANIFEST, text.as_bytes()))
    }

    /// An index of images.
    fn index(children: &[Image]) -> Self {
        let list = children.iter().map(|child| json(&child.top)).collect::<Vec<_>>().join(",");
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{list}]}}"#);
        let blobs = children.iter().flat_map(|child| child.blobs.clone()).collect();
        Self::topped(blobs, typed(INDEX, text.as_bytes()))
    }

    fn topped(mut blobs: Vec<(Descriptor, Vec<u8>)>, top: (Descriptor, Vec<u8>)) -> Self {
        blobs.push(top.clone());
        Self { top: top.0, blobs }
    }

    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.blobs.iter().map(|(blob, _)| blob.digest().clone()).collect()
    }

    fn size(&self) -> u64 {
        self.blobs.iter().map(|(blob, _)| blob.size()).sum()
    }

    pub(crate) async fn store(&self, store: &Store) {
        for (_, content) in &self.blobs {
            store.put(super::blob(content)).await.unwrap();
        }
    }

    pub(crate) async fn named(self, store: &Store, text: &str) -> Self {
        self.store(store).await;
        store.update(&[NameChange::Set(name(text), self.top.clone())]).await.unwrap();
        self
    }
}

fn typed(media_type: &str, content: &[u8]) -> (Descriptor, Vec<u8>) {
    let described =
        Descriptor::new(MediaType::from(media_type), content.len() as u64, digest::sha256(content));
    (described, content.to_vec())
}

fn json(descriptor: &Descriptor) -> String {
    let (media_type, digest, size) = (descriptor.media_type(), descriptor.digest(), descriptor.size());
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

/// The digests of every blob in the store, sorted.
fn stored(store: &Store) -> Vec<String> {
    names_in(&store.path().join("blobs/sha256"))
}

fn sorted<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Vec<String> {
    let mut hex: Vec<String> = digests.into_iter().map(|digest| digest.digest().to_owned()).collect();
    hex.sort();
    hex.dedup();
    hex
}

async fn listed(store: &Store) -> Vec<String> {
    store.list().await.unwrap().iter().map(|(name, _)| name.tag().unwrap_or_default().to_owned()).collect()
}

/// Every file of the store.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Collects, after a dry run that must say the same and change nothing.
async fn collect(store: &Store, policy: &Collect) -> Collected {
    let before = files(store.path());
    let dry = store.collect(&Collect { dry_run: true, ..policy.clone() }).await.unwrap();
    // The files of the locks are there from then on.
    let mut after = files(store.path());
    after.retain(|path| before.contains(path) || !path.starts_with(store.path().join("locks")));
    assert_eq!(after, before, "a dry run removes nothing");
    let collected = store.collect(policy).await.unwrap();
    assert_eq!(collected, dry);
    let blobs: u64 =
        files(&store.path().join("blobs")).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let artifacts = store.path().join("artifacts");
    let artifacts = if artifacts.exists() { files(&artifacts) } else { Vec::new() };
    let artifacts = artifacts.iter().filter(|path| path.extension().is_some_and(|end| end == "erofs"));
    let artifacts: u64 = artifacts.map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(collected.kept, blobs + artifacts, "what is kept is counted");
    collected
}

fn set_age(path: &Path, age: Duration) {
    let file = fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

/// As if an image had been used that long ago.
fn used(store: &Store, image: &Image, age: u64) {
    for digest in image.digests() {
        set_age(&blob_path(store.path(), &digest), Duration::from_secs(age));
    }
}

#[tokio::test]
async fn what_names_lead_to_stays() {
    let (store, _folder) = fresh();
    let single = Image::new(&[b"shared", b"one"]).named(&store, "app:single").await;
    let inner = Image::index(&[Image::new(&[b"shared", b"arm"]), Image::new(&[b"amd"])]);
    let nested = Image::index(&[inner]).named(&store, "app:nested").await;
    // A referrer that no name leads to, one of a child deep inside, and one of a referrer.
    let signature = Image::about(&[b"signature"], Some(&single.top));
    let sbom = Image::about(&[b"sbom"], Some(&nested.blobs[2].0));
    let approval = Image::about(&[b"approval"], Some(&sbom.top));
    for referrer in [&signature, &sbom, &approval] {
        referrer.store(&store).await;
    }
    let orphan = Image::about(&[b"orphan"], Some(&described(b"never here")));
    orphan.store(&store).await;
    let loose = Image::new(&[b"loose"]);
    loose.store(&store).await;

    let collected = collect(&store, &Collect::default()).await;
    let gone = [orphan.digests(), loose.digests()].concat();
    assert_eq!(sorted(&collected.blobs), sorted(&gone));
    assert_eq!(collected.freed, orphan.size() + loose.size());
    let kept = [&single, &nested, &signature, &sbom, &approval].map(Image::digests).concat();
    assert_eq!(stored(&store), sorted(&kept));
    assert_eq!(collect(&store, &Collect::default()).await.blobs, []);

    // With its last name goes what is about it, and what it shares stays.
    store.remove(&name("app:single")).await.unwrap();
    collect(&store, &Collect::default()).await;
    let kept = [&nested, &sbom, &approval].map(Image::digests).concat();
    assert_eq!(stored(&store), sorted(&kept));
    store.remove(&name("app:nested")).await.unwrap();
    let collected = collect(&store, &Collect::default()).await;
    assert_eq!((stored(&store), collected.kept), (Vec::new(), 0));
}

#[tokio::test]
async fn what_is_leased_stays_with_what_it_leads_to() {
    let (store, _folder) = fresh();
    let image = Image::new(&[b"one", b"two"]);
    image.store(&store).await;
    let top = store.lease(&[image.top.digest().clone()]).await.unwrap();
    assert_eq!(collect(&store, &Collect::default()).await.blobs, []);
    let layer = store.lease(&[image.digests()[0].clone()]).await.unwrap();
    drop(top);
    collect(&store, &Collect::default()).await;
    assert_eq!(stored(&store), sorted(&image.digests()[..1]));
    drop(layer);
    collect(&store, &Collect::default()).await;
    assert_eq!(stored(&store), [""; 0]);
}

#[tokio::test]
async fn a_budget_is_met_by_names_that_were_not_used_for_longest() {
    let (store, _folder) = fresh();
    let mut images = Vec::new();
    for (age, tag) in ["newest", "leased", "middle", "old", "pinned"].into_iter().enumerate() {
        let layer = vec![age as u8; 1000];
        let image = Image::new(&[b"shared", &layer]).named(&store, &format!("app:{tag}")).await;
        used(&store, &image, (age as u64 + 1) * 1000);
        images.push(image);
    }
    store
        .update(&[
            NameChange::Pin(name("app:pinned")),
            NameChange::Set(name("app:alias"), images[4].top.clone()),
        ])
        .await
        .unwrap();
    let _lease = store.lease(&[images[1].digests()[1].clone()]).await.unwrap();
    let size = |count: usize| images[..count].iter().map(Image::size).sum::<u64>() - (count as u64 - 1) * 6;
    let total = size(5);
    let policy = |budget| Collect { budget: Some(budget), ..Collect::default() };

    assert_eq!(collect(&store, &policy(total)).await.evicted, []);
    let collected = collect(&store, &policy(total - 1)).await;
    assert_eq!(collected.evicted, [name("app:old")]);
    assert_eq!(collected.freed, images[3].size() - 6, "what is shared stays");
    // What cannot go stays, however small the budget is; the alias of a pinned image frees nothing.
    let collected = collect(&store, &policy(0)).await;
    assert_eq!(collected.evicted, [name("app:middle"), name("app:newest")]);
    assert_eq!(listed(&store).await, ["alias", "leased", "pinned"]);
    assert_eq!(store.pins().await.unwrap(), [name("app:pinned")]);
    store.update(&[NameChange::Unpin(name("app:pinned"))]).await.unwrap();
    // Both names of one content go, or neither frees anything.
    let collected = collect(&store, &policy(images[1].size())).await;
    assert_eq!(collected.evicted, [name("app:alias"), name("app:pinned")]);
}

#[tokio::test]
async fn grace_protects_what_is_recent_and_what_it_leads_to() {
    let (store, _folder) = fresh();
    let image = Image::new(&[b"layer"]);
    let named = Image::new(&[b"named"]).named(&store, "app:1").await;
    image.store(&store).await;
    used(&store, &image, 10_000);
    used(&store, &named, 10_000);
    let hour = Collect { grace: Duration::from_secs(3600), budget: Some(0), ..Collect::default() };
    set_age(&blob_path(store.path(), image.top.digest()), Duration::ZERO);
    set_age(&blob_path(store.path(), named.top.digest()), Duration::ZERO);
    let collected = collect(&store, &hour).await;
    assert_eq!((collected.evicted, collected.blobs), (Vec::new(), Vec::new()));
    used(&store, &image, 3700);
    used(&store, &named, 3700);
    let collected = collect(&store, &hour).await;
    assert_eq!((collected.evicted, collected.blobs.len()), (vec![name("app:1")], 6));
}

const FORMAT: Format = Format { name: "test", version: 1, options: String::new(), extension: "erofs" };

async fn artifact(store: &Store, layer: &[u8], format: Format) -> PathBuf {
    let key = ArtifactKey::layer(format, digest::sha256(layer));
    match store.artifact(&key).await.unwrap() {
        Artifact::Present(artifact) => artifact.path().unwrap().to_owned(),
        Artifact::Vacant(mut writer) => {
            std::io::Write::write_all(writer.output(), b"an artifact").unwrap();
            writer.commit(&Made::default()).unwrap().path().unwrap().to_owned()
        }
    }
}

#[tokio::test]
async fn artifacts_go_with_their_layers() {
    let (store, _folder) = fresh();
    Image::new(&[b"kept", b"shared"]).named(&store, "app:1").await;
    Image::new(&[b"gone", b"shared"]).named(&store, "app:2").await;
    let old = Format { version: 0, ..FORMAT };
    let mut paths = Vec::new();
    for layer in ["kept", "shared", "gone", "leased", "nobody's"] {
        paths.push(artifact(&store, layer.as_bytes(), FORMAT).await);
    }
    let other = artifact(&store, b"shared", old.clone()).await;
    let other_gone = artifact(&store, b"gone", old).await;
    // Files of other programs are kept.
    let foreign = paths[0].with_file_name("notes.txt");
    fs::write(&foreign, "mine").unwrap();
    let lone_seal = PathBuf::from(format!("{}.checksum", paths[4].display()));
    assert!(lone_seal.exists());

    let lease = store.lease(&[digest::sha256(b"leased")]).await.unwrap();
    store.remove(&name("app:2")).await.unwrap();
    let collected = collect(&store, &Collect::default()).await;
    assert_eq!(collected.artifacts, 3);
    let here = |path: &PathBuf| path.exists();
    assert_eq!(paths.iter().map(here).collect::<Vec<_>>(), [true, true, false, true, false]);
    assert!(other.exists() && !other_gone.exists() && foreign.exists() && !lone_seal.exists());
    drop(lease);
    fs::remove_file(&paths[3]).unwrap();
    let collected = collect(&store, &Collect::default()).await;
    assert_eq!((collected.artifacts, collected.remains), (0, 1), "another process has removed the last one");
    assert!(!PathBuf::from(format!("{}.checksum", paths[3].display())).exists());
    assert_eq!(artifact(&store, b"kept", FORMAT).await, paths[0], "what is left is whole");
}

#[tokio::test]
async fn a_damaged_document_stops_a_collection_before_it_begins() {
    let (store, _folder) = fresh();
    let image = Image::new(&[b"layer"]).named(&store, "app:1").await;
    let loose = Image::new(&[b"loose"]);
    loose.store(&store).await;
    let path = blob_path(store.path(), image.top.digest());
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b'x'; image.top.size() as usize]).unwrap();
    let before = stored(&store);
    let error = fails(store.collect(&Collect::default()).await, &ErrorKind::Corrupt);
    assert_eq!(error.context("image"), Some("docker.io/library/app:1"));
    assert_eq!(error.context("blob"), Some(image.top.digest().as_ref()));
    assert_eq!(error.advice(), Some(&Advice::RepairContent), "{error}");
    assert_eq!(stored(&store), before);
    // The list does not stop.
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.images.len(), usage.unused), (1, 0));
    // Damage in unreferenced content is not an error.
    store.remove(&name("app:1")).await.unwrap();
    store.collect(&Collect::default()).await.unwrap();
    assert_eq!(stored(&store), [""; 0]);
}

#[tokio::test]
async fn entries_without_a_name_are_kept_and_referrers_among_them_go_with_their_subject() {
    let (store, _folder) = fresh();
    let (subject, loose) = (Image::new(&[b"subject"]), Image::new(&[b"loose"]));
    let referrer = Image::about(&[b"referrer"], Some(&subject.top));
    let misnamed = Image::about(&[b"misnamed"], Some(&subject.top));
    for image in [&subject, &loose, &referrer, &misnamed] {
        image.store(&store).await;
    }
    let entry = |image: &Image, annotation: &str| {
        let entry = json(&image.top);
        format!(r#"{},"annotations":{{{annotation}}}}}"#, &entry[..entry.len() - 1])
    };
    let name_of = |text: &str| format!(r#""org.opencontainers.image.ref.name":"{text}""#);
    let entries = [
        entry(&subject, &name_of("docker.io/library/app:1")),
        entry(&loose, ""),
        entry(&referrer, r#""kept":"as it is""#),
        entry(&misnamed, &name_of("No Reference!")),
    ];
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    fs::write(store.path().join("index.json"), &text).unwrap();

    assert_eq!(collect(&store, &Collect::default()).await.blobs, []);
    assert_eq!(fs::read_to_string(store.path().join("index.json")).unwrap(), text, "nothing was to change");
    store.remove(&name("app:1")).await.unwrap();
    let collected = collect(&store, &Collect::default()).await;
    assert_eq!(sorted(&collected.blobs), sorted(&[subject.digests(), referrer.digests()].concat()));
    let index = fs::read(store.path().join("index.json")).unwrap();
    let index = LayoutIndex::parse(&index, store.path()).unwrap();
    let left: Vec<&Digest> = index.entries().map(Descriptor::digest).collect();
    assert_eq!(sorted(left), sorted([loose.top.digest(), misnamed.top.digest()]));
}

#[tokio::test]
async fn remains_of_the_dead_go_and_what_lives_stays() {
    let (store, folder) = fresh();
    let ingest = store.path().join("ingest");
    let partial = |content: &[u8]| ingest.join(format!("sha256-{}", digest::sha256(content).digest()));
    store.put(super::blob(b"here")).await.unwrap();
    let _here = store.lease(&[digest::sha256(b"here")]).await.unwrap();
    let Ingest::Vacant(mut writer) = store.ingest(&described(b"in flight")).await.unwrap() else { panic!() };
    writer.write(b"in"[..].into()).await.unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    for (path, age) in [
        (partial(b"young"), day / 2),
        (partial(b"old"), 2 * day),
        (partial(b"leased"), 2 * day),
        (partial(b"here"), Duration::ZERO),
        (ingest.join("index.json"), Duration::ZERO),
        (ingest.join("lease-1-2-3"), Duration::ZERO),
    ] {
        fs::write(&path, "rest").unwrap();
        set_age(&path, age);
    }
    set_age(&partial(b"in flight"), 2 * day);
    let _lease = store.lease(&[digest::sha256(b"leased")]).await.unwrap();
    fs::create_dir_all(store.path().join("quarantine")).unwrap();
    for file in ["sha256-0.txt", "index.json.0"] {
        fs::write(store.path().join("quarantine").join(file), "set aside").unwrap();
    }
    let before = names_in(&ingest).len();
    let collected = collect(&store, &Collect { resumable: day, ..Collect::default() }).await;
    assert_eq!((collected.remains, collected.freed), (3, 16));
    assert_eq!((collected.partials, collected.resumable), (vec![digest::sha256(b"old")], 8));
    assert_eq!(names_in(&ingest).len(), before - 4);
    for (content, stays) in
        [("young", true), ("old", false), ("leased", true), ("here", false), ("in flight", true)]
    {
        assert_eq!(partial(content.as_bytes()).exists(), stays, "{content}");
    }
    assert_eq!(names_in(&store.path().join("quarantine")).len(), 2);
    // Longer grace is longer patience.
    let patient = Collect { grace: 3 * day, ..Collect::default() };
    fs::write(partial(b"old"), "rest").unwrap();
    set_age(&partial(b"old"), 2 * day);
    assert_eq!(collect(&store, &patient).await.partials, []);
    let impatient = collect(&store, &Collect::default()).await;
    assert_eq!((impatient.partials.len(), impatient.remains), (2, 0), "without patience nothing waits");
    assert!(partial(b"leased").exists() && partial(b"in flight").exists());
    writer.write(b" flight"[..].into()).await.unwrap();
    writer.commit().await.unwrap();
    drop(folder);
}

#[tokio::test]
async fn files_that_are_no_blobs_are_left_alone() {
    let (store, _folder) = fresh();
    Image::new(&[b"loose"]).store(&store).await;
    let blobs = store.path().join("blobs");
    let hex = "0".repeat(64);
    fs::create_dir(blobs.join("blake3")).unwrap();
    fs::create_dir(blobs.join("sha256").join(&hex)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", blobs.join("sha256").join("1".repeat(64))).unwrap();
    for odd in ["blake3/0", "sha256/README", "sha256/ABCDEF", "note"] {
        fs::write(blobs.join(odd), "x").unwrap();
    }
    let collected = store.collect(&Collect::default()).await.unwrap();
    assert_eq!((collected.blobs.len(), collected.kept), (3, 0));
    assert_eq!(names_in(&blobs.join("sha256")).len(), 4);
    assert!(blobs.join("blake3/0").exists() && blobs.join("note").exists());
}

#[tokio::test]
async fn usage_counts_what_is_shared_once() {
    let (store, _folder) = fresh();
    let one = Image::new(&[b"shared", b"the first"]).named(&store, "app:1").await;
    let two = Image::new(&[b"shared", b"the second"]).named(&store, "app:2").await;
    let loose = Image::new(&[b"loose"]);
    loose.store(&store).await;
    artifact(&store, b"the first", FORMAT).await;
    artifact(&store, b"nobody's", FORMAT).await;
    store.update(&[NameChange::Pin(name("app:2"))]).await.unwrap();
    let usage = store.usage().await.unwrap();
    assert_eq!(usage.blobs, one.size() + two.size() - 6 + loose.size());
    assert_eq!(usage.artifacts, 22);
    assert_eq!(usage.unused, loose.size() + 11);
    let [first, second] = usage.images.as_slice() else { panic!("{usage:?}") };
    assert_eq!((first.size, first.unique, first.pinned), (one.size() + 11, one.size() + 11 - 6, false));
    assert_eq!((second.size, second.unique, second.pinned), (two.size(), two.size() - 6, true));
    assert!(first.used.unwrap() <= second.used.unwrap());
    let lease = store.lease(&loose.digests()).await.unwrap();
    assert_eq!(store.usage().await.unwrap().unused, 11);
    drop(lease);
    assert_eq!(store.collect(&Collect::default()).await.unwrap().freed, usage.unused);
}
