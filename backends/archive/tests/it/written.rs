//! Archives that are written to: what stays, what the lists say, and what is refused.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use plyfold_archive::{Archive, Config};
use plyfold_conformance::fixtures::Memory;
use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::{Fixture as _, FixtureImage};
use plyfold_core::copy::{CopyJob, CopyOptions, copy, copy_all};
use plyfold_core::{
    Backends, Error, ErrorKind, ImageRegistry as _, ImageRegistryExt as _, Opened, Options, Reference,
    Result, digest, reference,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::build::{OnDisk, Tar, config, config_name, layer, manifest};

pub(crate) const NAME: &str = "registry.example/org/app:1";

pub(crate) fn name(text: &str) -> Reference {
    reference::parse(text).unwrap()
}

pub(crate) fn open(path: &Path) -> Archive {
    Archive::new(path, Config::default())
}

/// Copies a sample into an archive.
pub(crate) async fn push(archive: &Archive, to: &str, sample: &Sample) -> Result<()> {
    let from = Memory.open(&[FixtureImage::new(NAME, sample)]).await;
    copy(&*from.registry, &name(NAME), archive, &name(to), &CopyOptions::default()).await.map(drop)
}

pub(crate) fn new() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.tar");
    (folder, path)
}

/// The names of the members, and one of them.
pub(crate) fn members(path: &Path, wanted: &str) -> (Vec<String>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let (mut names, mut content) = (Vec::new(), Vec::new());
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        if name == wanted {
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        }
        names.push(name);
    }
    (names, content)
}

/// The tags of each item of Docker's list.
fn tags(path: &Path) -> Vec<Value> {
    let items: Vec<Value> = serde_json::from_slice(&members(path, "manifest.json").1).unwrap();
    items.iter().map(|item| item["RepoTags"].clone()).collect()
}

/// The old form keeps its members and gets a layout, which has its own names for what both have.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_the_old_form_becomes_one_of_both() {
    let old = Tar::new()
        .file("abc/layer.tar", layer())
        .link("def/layer.tar", "../abc/layer.tar")
        .file(&config_name(), config())
        .file("repositories", "{}")
        .file("manifest.json", manifest(&["example.com/old:1"], "def/layer.tar"));
    let disk = OnDisk::new(&old.bytes());
    let before = disk.archive().fetch_raw(&name("example.com/old:1")).await.unwrap();
    push(&disk.archive(), NAME, &samples::index()).await.unwrap();
    // The image of the old form under a name of the layout: its blobs have other names there.
    let (from, archive) = (disk.archive(), disk.archive());
    let again = name("example.com/again:1");
    let options = CopyOptions::default();
    copy(&from, &name("example.com/old:1"), &archive, &again, &options).await.unwrap();
    let archive = disk.archive();
    for (text, digest) in [
        ("example.com/old:1", before.digest()),
        ("example.com/again:1", before.digest()),
        (NAME, samples::index().top.digest()),
    ] {
        assert_eq!(archive.fetch_raw(&name(text)).await.unwrap().digest(), digest, "{text}");
        archive.image(&name(text), &"linux/amd64".parse().unwrap()).await.unwrap();
    }
    let (names, _) = members(&disk.path, "");
    assert!(names.contains(&"def/layer.tar".to_owned()) && !names.contains(&"repositories".to_owned()));
    let plain = plyfold_core::layout_index::blob_name(&digest::sha256(&layer()));
    assert!(names.contains(&plain), "{names:?}");
}

/// Names of the old form stand for what they did, also when an image of the same config is added under another name.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_the_old_form_stands_for_the_same_image() {
    const OLD: &str = "example.com/app:arm64";
    let index = samples::index();
    let (mut one, mut alone) = (index.clone(), index.clone());
    one.images.truncate(1);
    alone.top = index.images[0].manifest.clone();
    let by_digest = format!("example.com/app@{}", alone.top.digest());
    for untagged in [false, true] {
        let bytes = samples::docker_archive(&[(if untagged { String::new() } else { OLD.to_owned() }, &one)]);
        for (to, sample) in [
            ("example.com/app:multi", &index),
            ("example.com/app:other", &alone),
            ("localhost/archive:bare", &index),
            (by_digest.as_str(), &alone),
        ] {
            let disk = OnDisk::new(&bytes);
            let archive = disk.archive();
            // Of an archive's only image.
            let derived = reference::local(&disk.path, "latest").unwrap();
            let old = &if untagged { derived } else { name(OLD) };
            let before = archive.fetch_raw(old).await.unwrap();
            push(&disk.archive(), to, sample).await.unwrap();
            let archive = disk.archive();
            let after = archive.fetch_raw(old).await.unwrap();
            assert_eq!(after.digest(), before.digest(), "{to}");
            archive.image(old, &index.images[0].platform.parse().unwrap()).await.unwrap();
            assert_eq!(archive.fetch_raw(&name(to)).await.unwrap().digest(), sample.top.digest(), "{to}");
            // Once more, which finds a layout, and to the old name itself.
            push(&disk.archive(), "example.com/app:again", &index).await.unwrap();
            assert_eq!(disk.archive().fetch_raw(old).await.unwrap().digest(), before.digest(), "{to}");
            push(&disk.archive(), OLD, &index).await.unwrap();
            assert_eq!(disk.archive().fetch_raw(&name(OLD)).await.unwrap().digest(), index.top.digest());
        }
    }
}

/// Of several images with one name the last has it, also when the list is written again.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_several_images_stays_with_its_image() {
    let mut other: Value = serde_json::from_slice(&config()).unwrap();
    let mut configs = vec![config()];
    for number in 0..3 {
        other["author"] = json!(number.to_string());
        configs.push(other.to_string().into_bytes());
    }
    let file = |config: &Vec<u8>| format!("{}.json", digest::sha256(config).digest());
    let image =
        |config| json!({ "Config": file(config), "RepoTags": ["a.b/c:1"], "Layers": ["l/layer.tar"] });
    let mut images: Vec<Value> = configs.iter().map(image).collect();
    // Whatever their order is.
    for last in 0..images.len() {
        images.rotate_left(last);
        let list = [&images[..], &[json!({ "RepoTags": ["a.b/broken:1"] })]].concat();
        let tar = Tar::new().file("l/layer.tar", layer());
        let tar = configs.iter().fold(tar, |tar, config| tar.file(&file(config), config));
        let disk = OnDisk::new(&tar.file("manifest.json", json!(list).to_string()).bytes());
        let before = disk.archive().fetch_raw(&name("a.b/c:1")).await.unwrap();
        push(&disk.archive(), NAME, &samples::no_layers()).await.unwrap();
        let after = disk.archive().fetch_raw(&name("a.b/c:1")).await.unwrap();
        assert_eq!(after.digest(), before.digest(), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_list_has_the_images_of_all_names_and_no_others() {
    let (_folder, path) = new();
    // What was there had no such list.
    let there = samples::oci_archive(&[("example.com/first:1".to_owned(), &samples::zstandard())]);
    fs::write(&path, there).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    push(&open(&path), NAME, &samples::index()).await.unwrap();
    push(&open(&path), "example.com/artifact:1", &samples::artifact()).await.unwrap();
    assert_eq!(tags(&path), [json!(["example.com/first:1"]), json!([NAME])]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    // A name that an image had, and an artifact has.
    push(&open(&path), "example.com/first:1", &samples::artifact()).await.unwrap();
    assert_eq!(tags(&path), [json!([NAME])]);
    let artifact = samples::artifact();
    let found = open(&path).fetch_raw(&name("example.com/first:1")).await.unwrap();
    assert_eq!(found.digest(), artifact.top.digest());
    // By digest alone it is listed without a tag.
    let image = samples::uncompressed();
    let by_digest = format!("registry.example/org/app@{}", image.top.digest());
    push(&open(&path), &by_digest, &image).await.unwrap();
    assert_eq!(tags(&path), [json!([NAME]), json!([])]);
    let untagged = open(&path).untagged().await.unwrap();
    assert_eq!(untagged.len(), 1, "{untagged:?}");
    assert_eq!(untagged[0].whole(), by_digest);
}

/// Without a tag an image keeps its repository, and has no other name.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_by_digest_keeps_its_repository() {
    let (_folder, path) = new();
    let images = |path: &Path| {
        let opened = Opened { registry: Box::new(open(path)), reference: None };
        async move { opened.images().await.unwrap() }
    };
    let mut expected = Vec::new();
    for (repository, sample) in [("registry.example/org/app", samples::image()), ("b", samples::index())] {
        let by_digest = name(&format!("{repository}@{}", sample.top.digest()));
        push(&open(&path), &by_digest.whole(), &sample).await.unwrap();
        let before = fs::read(&path).unwrap();
        push(&open(&path), &by_digest.whole(), &sample).await.unwrap();
        assert!(fs::read(&path).unwrap() == before, "a second time it is there");
        assert_eq!(open(&path).fetch_raw(&by_digest).await.unwrap().digest(), sample.top.digest());
        expected.push(by_digest);
        expected.sort_by_key(Reference::whole);
        assert_eq!(images(&path).await, expected);
    }
    // As in a layout: for containerd it is the name of an image that was pulled by its digest.
    let index: Value = serde_json::from_slice(&members(&path, "index.json").1).unwrap();
    for (entry, name) in index["manifests"].as_array().unwrap().iter().zip(&expected) {
        for key in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
            assert_eq!(entry["annotations"][key], name.whole());
        }
    }
    assert_eq!(tags(&path), [json!([]), json!([])]);
    // On the way to another one and back.
    let (_second, other) = new();
    for name in &expected {
        copy(&open(&path), name, &open(&other), name, &CopyOptions::default()).await.unwrap();
    }
    assert_eq!(images(&other).await, expected);
}

/// A list that is not wanted is not added; one that is there goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_layout_without_dockers_list_is_written_on_request() {
    let (folder, path) = new();
    let backends = Backends::linked().unwrap();
    let options = Options::parse(["docker-list=false"]).unwrap();
    let opened = backends.open(&format!("oci-archive:{}:1", path.display()), &options).await.unwrap();
    let from = Memory.open(&[FixtureImage::new(NAME, &samples::image())]).await;
    let (own, plain) = (opened.reference.clone().unwrap(), CopyOptions::default());
    copy(&*from.registry, &name(NAME), &opened.registry, &own, &plain).await.unwrap();
    let (names, index) = members(&path, "index.json");
    assert!(!names.contains(&"manifest.json".to_owned()), "{names:?}");
    // A tag of the archive alone stays one.
    let index: Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["manifests"][0]["annotations"], json!({ "org.opencontainers.image.ref.name": "1" }));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_copy_again_writes_nothing_and_several_are_one() {
    let (_folder, path) = new();
    let (image, index) = (samples::image(), samples::index());
    let from =
        Memory.open(&[FixtureImage::new(NAME, &image), FixtureImage::new("a.example/b:2", &index)]).await;
    let jobs: Vec<_> =
        from.references.iter().map(|one| CopyJob { image: one.clone(), target: one.clone() }).collect();
    let options = CopyOptions::default();
    copy_all(&*from.registry, &jobs, &open(&path), &options).await.unwrap();
    let written = fs::metadata(&path).unwrap();
    copy_all(&*from.registry, &jobs, &open(&path), &options).await.unwrap();
    let again = fs::metadata(&path).unwrap();
    assert_eq!((written.ino(), written.mtime_nsec()), (again.ino(), again.mtime_nsec()));
    // From an archive into itself.
    copy(&open(&path), &name(NAME), &open(&path), &name("a.example/c:3"), &options).await.unwrap();
    assert_eq!(open(&path).fetch_raw(&name("a.example/c:3")).await.unwrap().digest(), image.top.digest());
    // The same images in the same order are the same bytes.
    let (_other, second) = new();
    copy_all(&*from.registry, &jobs, &open(&second), &options).await.unwrap();
    let (_third, third) = new();
    copy_all(&*from.registry, &jobs, &open(&third), &options).await.unwrap();
    assert!(fs::read(&second).unwrap() == fs::read(&third).unwrap());
}

/// A hard link stands behind what it leads to, also by another link: otherwise `tar -x` fails.
#[tokio::test(flavor = "multi_thread")]
async fn hard_links_stand_behind_their_targets() {
    let old = Tar::new()
        .file("c/layer.tar", layer())
        .hard_link("b/layer.tar", "c/layer.tar")
        .hard_link("a/layer.tar", "b/layer.tar")
        .file(&config_name(), config())
        .file("manifest.json", manifest(&["example.com/old:1"], "a/layer.tar"));
    let disk = OnDisk::new(&old.bytes());
    push(&disk.archive(), NAME, &samples::image()).await.unwrap();
    let (names, _) = members(&disk.path, "");
    let at =
        ["c", "b", "a"].map(|folder| names.iter().position(|name| *name == format!("{folder}/layer.tar")));
    assert!(at[0].is_some() && at.is_sorted(), "{names:?}");
    disk.archive().image(&name("example.com/old:1"), &"linux/amd64".parse().unwrap()).await.unwrap();
}

/// A delta stays one: what it lacks is in its document.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_a_delta_stays() {
    let delta = r#"{"schemaVersion":1,"since":["base"],"absent":[]}"#;
    let old = Tar::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", r#"{"schemaVersion":2,"manifests":[]}"#)
        .file("plyfold-delta.json", delta);
    let disk = OnDisk::new(&old.bytes());
    push(&disk.archive(), NAME, &samples::image()).await.unwrap();
    assert_eq!(disk.archive().bases().await.unwrap(), ["base"]);
    assert_eq!(members(&disk.path, "plyfold-delta.json").1, delta.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_archive_is_refused_and_stays() {
    let (folder, path) = new();
    let image = samples::image();
    let refused = |path: &Path| {
        let (archive, image) = (open(path), image.clone());
        async move { push(&archive, NAME, &image).await.unwrap_err() }
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let plain = samples::oci_archive(&[(NAME.to_owned(), &samples::zstandard())]);
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    for (content, kind) in
        [(gzip.finish().unwrap(), ErrorKind::Unsupported), (b"no tar at all".to_vec(), ErrorKind::Corrupt)]
    {
        fs::write(&path, &content).unwrap();
        assert_eq!(*refused(&path).await.kind(), kind);
        assert!(fs::read(&path).unwrap() == content);
    }
    fs::write(&path, &plain).unwrap();
    let link = folder.path().join("link.tar");
    symlink(&path, &link).unwrap();
    assert_eq!(*refused(&link).await.kind(), ErrorKind::Config);
    assert!(fs::read(&path).unwrap() == plain);
    // A pipe with a writer would be read, as an archive that is there, and never end.
    let pipe = folder.path().join("pipe.tar");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _held = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), refused(&pipe)).await;
    assert_eq!(*ended.expect("a pipe is refused at once").kind(), ErrorKind::Config);
    fs::remove_file(&pipe).unwrap();
    let nowhere = folder.path().join("no/such/folder.tar");
    assert_eq!(*refused(&nowhere).await.kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
}

/// One writer at a time; the next one begins when the first has set its names or is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_waits_and_sees_what_the_first_wrote() {
    let (_folder, path) = new();
    let of = |text: &'static str| {
        samples::of_layers(text, &[LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish()])
    };
    let (one, two) = (of("one"), of("two"));
    let first = open(&path);
    let blob = &one.blobs[0];
    let begin =
        || plyfold_core::Blob::from_bytes(&blob.descriptor, plyfold_core::BlobRange::FULL, &blob.bytes);
    first.push_blob(&name(NAME), begin().unwrap()).await.unwrap();
    let error: Error = push(&open(&path), "a.example/two:1", &two).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error:?}");
    let second = open(&path);
    let waits = tokio::spawn(async move { push(&second, "a.example/two:1", &two).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    push(&first, NAME, &one).await.unwrap();
    waits.await.unwrap().unwrap();
    for text in [NAME, "a.example/two:1"] {
        open(&path).fetch_raw(&name(text)).await.unwrap();
    }
}

/// What a writer has left is used if it is asked for and sound, and otherwise goes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_writer_has_left_is_verified_and_is_no_part_of_another_image() {
    let (folder, path) = new();
    let of = |text: &'static str| {
        samples::of_layers(text, &[LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish()])
    };
    let (one, two) = (of("one"), of("two"));
    let part = folder.path().join(".images.tar.plyfold-part");
    let leave = |sample: Sample| {
        let archive = open(&path);
        async move {
            for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
                let range = plyfold_core::BlobRange::FULL;
                let blob = plyfold_core::Blob::from_bytes(&blob.descriptor, range, &blob.bytes).unwrap();
                archive.push_blob(&name(NAME), blob).await.unwrap();
            }
        }
    };
    // Of another image.
    leave(one.clone()).await;
    assert!(part.exists());
    push(&open(&path), NAME, &two).await.unwrap();
    let (names, _) = members(&path, "");
    for blob in &one.blobs {
        let member = plyfold_core::layout_index::blob_name(blob.descriptor.digest());
        let is_shared = two.blob(blob.descriptor.digest()).is_some();
        assert_eq!(names.contains(&member), is_shared, "{names:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    // A damaged one.
    leave(one.clone()).await;
    let mut bytes = fs::read(&part).unwrap();
    let layer = one.blob(one.images[0].layers[0].descriptor.digest()).unwrap();
    let at = bytes.windows(layer.len()).position(|window| window == &layer[..]).unwrap();
    bytes[at] ^= 1;
    fs::write(&part, bytes).unwrap();
    push(&open(&path), "a.example/one:1", &one).await.unwrap();
    for (text, sample) in [(NAME, &two), ("a.example/one:1", &one)] {
        let memory = plyfold_core::memory::MemoryRegistry::new("back");
        let copied = copy(&open(&path), &name(text), &memory, &name(text), &CopyOptions::default()).await;
        assert_eq!(copied.unwrap().digest(), sample.top.digest());
    }
    assert!(!part.exists());
}

/// Another program that replaces the archive meanwhile keeps what it wrote.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_came_meanwhile_is_added_to() {
    let (_folder, path) = new();
    let archive = open(&path);
    let image = samples::image();
    let blob = &image.blobs[0];
    let blob = plyfold_core::Blob::from_bytes(&blob.descriptor, plyfold_core::BlobRange::FULL, &blob.bytes);
    archive.push_blob(&name(NAME), blob.unwrap()).await.unwrap();
    let other = samples::zstandard();
    fs::write(&path, samples::oci_archive(&[("a.example/other:1".to_owned(), &other)])).unwrap();
    push(&archive, NAME, &image).await.unwrap();
    for (text, sample) in [(NAME, &image), ("a.example/other:1", &other)] {
        assert_eq!(open(&path).fetch_raw(&name(text)).await.unwrap().digest(), sample.top.digest());
    }
}
