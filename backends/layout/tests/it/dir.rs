//! What only the directory of one image can get wrong.

use std::fs;
use std::path::Path;

use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Backends, Blob, BlobRange, CopyOptions, Descriptor, ErrorKind, ImageRegistry as _, Options, RawManifest,
    Reference, copy, reference,
};
use plyfold_layout::{Config, Directory};
use tempfile::TempDir;

use super::{blob, described, fails, name, names_in};

const NAME: &str = "registry.example/org/app:1";
/// What `docker save` lists.
const LIST: &str = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":[]}]"#;

fn directory(path: &Path) -> Directory {
    Directory::new(path, Config::default()).unwrap()
}

/// Copies a sample into a directory.
async fn copied(sample: &Sample, to: &Directory) -> plyfold_core::Result<Descriptor> {
    let (memory, from) = (MemoryRegistry::new("origin"), name(NAME));
    for blob in &sample.blobs {
        let (digest, bytes) = (blob.descriptor.digest().clone(), blob.bytes.clone());
        if !blob.is_manifest() {
            memory.insert_blob(&from, digest, bytes);
            continue;
        }
        let kind = blob.descriptor.media_type().clone();
        if digest == *sample.top.digest() {
            memory.insert_manifest(&from, kind, &digest, bytes);
        } else {
            memory.insert_manifest(&reference::by_digest(&from, &digest), kind, &digest, bytes);
        }
    }
    copy(&memory, &from, to, to.name(), &CopyOptions::default()).await
}

/// The names that the files of a sample have.
fn files_of(sample: &Sample) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    samples::write_directory(folder.path(), sample).unwrap();
    names_in(folder.path())
}

fn content(sample: &Sample, of: &Descriptor) -> Blob {
    Blob::from_bytes(of, BlobRange::FULL, sample.blob(of.digest()).unwrap()).unwrap()
}

fn one_layer(text: &'static str) -> Sample {
    samples::of_layers(text, &[LayerBuilder::new().file("f", 0o644, text.as_bytes()).finish()])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_takes_the_place_of_the_one_before_and_of_its_signatures() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some/where");
    let to = directory(&path);
    let (index, image) = (samples::index(), one_layer("second"));
    copied(&index, &to).await.unwrap();
    assert_eq!(names_in(&path), files_of(&index));
    let child = index.images[0].manifest.digest().digest();
    for signature in ["signature-1".to_owned(), "signature-22".to_owned(), format!("{child}.signature-1")] {
        fs::write(path.join(signature), "signed").unwrap();
    }
    // The same image again keeps them.
    copied(&index, &to).await.unwrap();
    assert_eq!(names_in(&path).len(), files_of(&index).len() + 3);
    fs::write(path.join("signature-of-mine"), "a file of the user").unwrap();
    fs::write(path.join(format!(".{child}.plyfold-part")), "left by a killed process").unwrap();
    copied(&image, &to).await.unwrap();
    let mut left = files_of(&image);
    left.push("signature-of-mine".to_owned());
    left.sort();
    assert_eq!(names_in(&path), left);
    assert_eq!(fs::read_to_string(path.join("version")).unwrap(), "Directory Transport Version: 1.1\n");
    // What both images need stays.
    copied(&index, &to).await.unwrap();
    copied(&one_of(&index), &to).await.unwrap();
    let copy = directory(&path);
    let top = copy.manifest(copy.name()).await.unwrap();
    for layer in top.references() {
        copy.blob(copy.name(), &layer, BlobRange::FULL).await.unwrap().bytes(1 << 20).await.unwrap();
    }
}

/// The first image of an index, as a sample of its own.
fn one_of(index: &Sample) -> Sample {
    let mut sample = index.clone();
    let image = &index.images[0];
    sample.top = image.manifest.clone();
    let raw = RawManifest::new(index.blob(image.manifest.digest()).unwrap().clone(), None).unwrap();
    let needed = raw.references();
    let is_needed =
        |blob: &Descriptor| blob == &image.manifest || needed.iter().any(|one| one.digest() == blob.digest());
    sample.blobs.retain(|blob| is_needed(&blob.descriptor));
    sample
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_fails_leaves_the_image_before() {
    let folder = TempDir::new().unwrap();
    let to = directory(folder.path());
    copied(&one_layer("first"), &to).await.unwrap();
    let before = names_in(folder.path());
    let second = one_layer("second");
    let raw = RawManifest::new(second.top_bytes().clone(), None).unwrap();
    fails(to.push_manifest(to.name(), &raw).await, &ErrorKind::NotFound);
    let other = reference::parse("localhost/other:latest").unwrap();
    fails(to.push_manifest(&other, &raw).await, &ErrorKind::Unsupported);
    let stream = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"half"))]);
    let layer = second.images[0].layers[0].descriptor.clone();
    fails(to.push_blob(to.name(), Blob::new(&layer, stream).unwrap()).await, &ErrorKind::Corrupt);
    assert_eq!(names_in(folder.path()), before);
}

/// Its size is right: nothing else would find the damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_copied_again() {
    let folder = TempDir::new().unwrap();
    let image = one_layer("image");
    copied(&image, &directory(folder.path())).await.unwrap();
    let layer = &image.images[0].layers[0].descriptor;
    let path = folder.path().join(layer.digest().digest());
    let before = fs::read(&path).unwrap();
    fs::write(&path, vec![0; before.len()]).unwrap();
    copied(&image, &directory(folder.path())).await.unwrap();
    assert!(fs::read(&path).unwrap() == before);
    // Also for an image that shares it.
    fs::write(&path, vec![0; before.len()]).unwrap();
    let to = directory(folder.path());
    to.push_blob(to.name(), content(&image, layer)).await.unwrap();
    assert!(fs::read(&path).unwrap() == before);
}

/// Another program that copies into the directory has finished some blobs, and will name them.
#[tokio::test(flavor = "multi_thread")]
async fn what_other_programs_write_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let (image, other) = (one_layer("image"), one_layer("other"));
    copied(&image, &directory(folder.path())).await.unwrap();
    let layer = &other.images[0].layers[0].descriptor;
    let theirs = folder.path().join(layer.digest().digest());
    fs::write(&theirs, other.blob(layer.digest()).unwrap()).unwrap();
    fs::write(folder.path().join("c".repeat(64)), "a file of the user").unwrap();
    copied(&image, &directory(folder.path())).await.unwrap();
    let third = one_layer("third");
    copied(&third, &directory(folder.path())).await.unwrap();
    let mut expected = files_of(&third);
    expected.extend([layer.digest().digest().to_owned(), "c".repeat(64)]);
    expected.sort();
    assert_eq!(names_in(folder.path()), expected);
    // It replaces what a cancelled copy has left.
    fs::remove_file(&theirs).unwrap();
    let cancelled = directory(folder.path());
    cancelled.push_blob(cancelled.name(), content(&other, layer)).await.unwrap();
    drop(cancelled);
    fs::write(folder.path().join("new"), other.blob(layer.digest()).unwrap()).unwrap();
    fs::rename(folder.path().join("new"), &theirs).unwrap();
    copied(&image, &directory(folder.path())).await.unwrap();
    assert!(theirs.exists());
}

/// What stands in the place of the record and is not this user's own file is neither written nor in the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_others_is_not_written() {
    let image = one_layer("image");
    let (outside, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (victim, record) = (outside.path().join("victim"), folder.path().join(".plyfold-written"));
    fs::write(&victim, "as it was").unwrap();
    let link: fn(&Path, &Path) -> std::io::Result<()> = |from, to| fs::hard_link(from, to);
    for made in [link, |from, to| std::os::unix::fs::symlink(from, to), |_, to| fs::create_dir(to)] {
        made(&victim, &record).unwrap();
        copied(&image, &directory(folder.path())).await.unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
        let _ = fs::remove_file(&record);
    }
}

/// It is removed with the next image, unless a copy that has not ended may need it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_copy_has_left_is_removed() {
    let folder = TempDir::new().unwrap();
    let (image, other, third) = (one_layer("image"), one_layer("other"), samples::index());
    let push = async |to: &Directory, sample: &Sample| {
        for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
            to.push_blob(to.name(), content(sample, &blob.descriptor)).await.unwrap();
        }
    };
    let cancelled = directory(folder.path());
    push(&cancelled, &other).await;
    drop(cancelled);
    let running = directory(folder.path());
    push(&running, &third).await;
    fs::write(folder.path().join("a".repeat(63)), "a file of the user").unwrap();
    copied(&image, &directory(folder.path())).await.unwrap();
    for sample in [&other, &third] {
        let blob = sample.images[0].layers[0].descriptor.digest();
        assert!(folder.path().join(blob.digest()).exists(), "a copy has not ended");
    }
    copied(&third, &running).await.unwrap();
    let mut expected = files_of(&third);
    expected.push("a".repeat(63));
    expected.sort();
    assert_eq!(names_in(folder.path()), expected);
    // With the same image again, too.
    push(&directory(folder.path()), &other).await;
    copied(&third, &directory(folder.path())).await.unwrap();
    assert_eq!(names_in(folder.path()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_directory_of_an_image_is_left_alone() {
    type Files = &'static [(&'static str, &'static str)];
    let cases: [(Files, ErrorKind, ErrorKind); 5] = [
        (&[("notes", "mine")], ErrorKind::NotFound, ErrorKind::Config),
        (
            &[("version", "Directory Transport Version: 2.0\n")],
            ErrorKind::Unsupported,
            ErrorKind::Unsupported,
        ),
        (&[("version", "3"), ("manifest.json", "{}")], ErrorKind::Unsupported, ErrorKind::Unsupported),
        (&[("manifest.json", LIST)], ErrorKind::Corrupt, ErrorKind::Config),
        (&[("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)], ErrorKind::NotFound, ErrorKind::Config),
    ];
    for (files, read, written) in cases {
        let folder = TempDir::new().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let before = names_in(folder.path());
        let place = directory(folder.path());
        let error = fails(place.manifest(place.name()).await, &read);
        assert_eq!(error.hint().is_some(), files[0].0 != "notes", "{error}");
        fails(place.push_blob(place.name(), blob(b"content")).await, &written);
        assert_eq!(names_in(folder.path()), before, "{files:?}");
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("image.tar");
    fs::write(&file, "a tar").unwrap();
    let place = directory(&file);
    fails(place.manifest(place.name()).await, &ErrorKind::Corrupt);
    let error = fails(copied(&one_layer("image"), &place).await, &ErrorKind::Corrupt);
    assert!(error.hint().is_some_and(|hint| hint.contains("oci-archive:")), "{error:?}");
    let nowhere = directory(&folder.path().join("nowhere"));
    fails(nowhere.manifest(nowhere.name()).await, &ErrorKind::NotFound);
    assert!(!nowhere.has_blob(nowhere.name(), &described(b"content")).await.unwrap());
    assert_eq!(names_in(folder.path()), ["image.tar"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_read_as_a_layout_says_what_it_is() {
    let folder = TempDir::new().unwrap();
    let layout = plyfold_layout::Layout::new(folder.path(), Config::default());
    fs::write(folder.path().join("notes"), "mine").unwrap();
    let read = async || fails(layout.untagged().await, &ErrorKind::Corrupt);
    assert!(read().await.hint().is_some_and(|hint| hint.contains("oci-layout")));
    samples::write_directory(folder.path(), &one_layer("image")).unwrap();
    assert!(read().await.hint().is_some_and(|hint| hint.contains("dir:")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_a_version_is_read() {
    let (folder, sample) = (TempDir::new().unwrap(), one_layer("old"));
    samples::write_directory(folder.path(), &sample).unwrap();
    fs::remove_file(folder.path().join("version")).unwrap();
    let uri = format!("dir:{}", folder.path().display());
    let opened = Backends::linked().unwrap().open(&uri, &Options::default()).await.unwrap();
    let name: Reference = opened.reference().await.unwrap();
    assert_eq!(opened.registry.manifest(&name).await.unwrap().digest(), sample.top.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_of_the_directory_is_read() {
    let (folder, sample) = (TempDir::new().unwrap(), one_layer("linked"));
    let path = folder.path().join("image");
    samples::write_directory(&path, &sample).unwrap();
    let layer = sample.images[0].layers[0].descriptor.clone();
    let hex = layer.digest().digest();
    fs::rename(path.join(hex), folder.path().join("outside")).unwrap();
    std::os::unix::fs::symlink("../outside", path.join(hex)).unwrap();
    let place = directory(&path);
    fails(place.blob(place.name(), &layer, BlobRange::FULL).await, &ErrorKind::Corrupt);
    let trusted = Directory::new(&path, Config { follow_symlinks: true }).unwrap();
    let content = trusted.blob(trusted.name(), &layer, BlobRange::FULL).await.unwrap();
    assert_eq!(content.bytes(1 << 20).await.unwrap(), *sample.blob(layer.digest()).unwrap());
    // A pipe would hang its reader.
    fs::remove_file(path.join("manifest.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path.join("manifest.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fails(place.manifest(place.name()).await, &ErrorKind::Corrupt);
}

/// Two processes that store into one directory: each image that it has is complete.
#[tokio::test(flavor = "multi_thread")]
async fn copies_at_the_same_time_leave_a_complete_image() {
    let folder = TempDir::new().unwrap();
    let samples: Vec<Sample> =
        ["a", "b", "c", "d"].map(one_layer).into_iter().chain([samples::index()]).collect();
    let tasks: Vec<_> = samples
        .into_iter()
        .map(|sample| {
            let path = folder.path().join("image");
            tokio::spawn(async move { copied(&sample, &directory(&path)).await })
        })
        .collect();
    for task in tasks {
        // What another copy has removed is said to be missing.
        if let Err(e) = task.await.unwrap() {
            assert_eq!(*e.kind(), ErrorKind::NotFound, "{e}");
        }
    }
    let place = directory(&folder.path().join("image"));
    let memory = MemoryRegistry::new("out");
    copy(&place, place.name(), &memory, &name(NAME), &CopyOptions::default()).await.unwrap();
}
