//! Layouts of other tools, damaged or hostile (numbers are rows of the table of hostile inputs).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plyfold_conformance::samples::{self, Sample};
use plyfold_core::layout_index::image_in;
use plyfold_core::{BlobRange, ErrorKind, ImageRegistry, MediaType, Page, Result};
use plyfold_layout::{Config, Layout};
use tempfile::TempDir;

use super::{blob_path, described, fails, name};

const NAME: &str = "registry.example/library/app:1.2";

/// A sound layout with one image, to be damaged.
fn layout() -> (Layout, TempDir, Sample) {
    let (folder, sample) = (TempDir::new().unwrap(), samples::image());
    samples::write_layout(folder.path(), &[(NAME.to_owned(), &sample)]).unwrap();
    (Layout::new(folder.path(), Config::default()), folder, sample)
}

/// A layout whose `index.json` has these entries.
fn with_entries(entries: &[String]) -> (Layout, TempDir) {
    let (layout, folder, _) = layout();
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    fs::write(folder.path().join("index.json"), text).unwrap();
    (layout, folder)
}

/// An `index.json` entry for the sample's manifest.
fn entry(digest: &str, annotations: &str) -> String {
    let size = samples::image().top.size();
    let media_type = MediaType::ImageManifest;
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size},"annotations":{{{annotations}}}}}"#
    )
}

fn ref_name(text: &str) -> String {
    format!(r#""org.opencontainers.image.ref.name":{}"#, serde_json::Value::from(text))
}

/// The first layer of the image, to its end.
async fn read_layer(layout: &Layout, sample: &Sample) -> Result<()> {
    let layer = &sample.images[0].layers[0].descriptor;
    let mut blob = layout.blob(&name(NAME), layer, BlobRange::FULL).await?;
    while blob.chunk().await?.is_some() {}
    Ok(())
}

/// What may stand in the place of a file.
#[derive(Clone, Copy, Debug)]
enum Occupant {
    Directory,
    Link,
    Pipe,
    Socket,
}

impl Occupant {
    fn occupy(self, path: &Path, outside: &Path) {
        match self {
            Self::Directory => fs::create_dir(path).unwrap(),
            Self::Link => symlink(outside, path).unwrap(),
            Self::Pipe => mknod(path, rustix::fs::FileType::Fifo),
            Self::Socket => mknod(path, rustix::fs::FileType::Socket),
        }
    }
}

fn mknod(path: &Path, kind: rustix::fs::FileType) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

fn clear(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn rows_10_to_12_what_is_no_regular_file_is_refused_at_once() {
    let (layout, folder, sample) = layout();
    let layer = blob_path(folder.path(), sample.images[0].layers[0].descriptor.digest());
    let manifest = blob_path(folder.path(), sample.top.digest());
    let documents = ["index.json", "oci-layout"].map(|name| folder.path().join(name));
    for path in [&layer, &manifest, &documents[0], &documents[1]] {
        // The right content, but elsewhere.
        let outside = TempDir::new().unwrap();
        let content = outside.path().join("content");
        fs::rename(path, &content).unwrap();
        for what in [Occupant::Directory, Occupant::Link, Occupant::Pipe, Occupant::Socket] {
            what.occupy(path, &content);
            let read = async {
                layout.manifest(&name(NAME)).await?;
                read_layer(&layout, &sample).await
            };
            let outcome = tokio::time::timeout(Duration::from_secs(5), read).await;
            fails(outcome.unwrap_or_else(|_| panic!("a {what:?} blocks")), &ErrorKind::Corrupt);
            if matches!(what, Occupant::Link) {
                let trusting = Layout::new(folder.path(), Config { follow_symlinks: true });
                trusting.manifest(&name(NAME)).await.unwrap();
                read_layer(&trusting, &sample).await.unwrap();
            }
            clear(path);
        }
        fs::copy(&content, path).unwrap();
    }
    read_layer(&layout, &sample).await.unwrap();
}

#[tokio::test]
async fn folders_of_blobs_that_lead_outside_are_not_followed() {
    let (layout, folder, sample) = layout();
    for inner in ["blobs", "blobs/sha256"] {
        let (path, outside) = (folder.path().join(inner), TempDir::new().unwrap());
        fs::rename(&path, outside.path().join("moved")).unwrap();
        symlink(outside.path().join("moved"), &path).unwrap();
        fails(layout.manifest(&name(NAME)).await, &ErrorKind::Corrupt);
        fails(read_layer(&layout, &sample).await, &ErrorKind::Corrupt);
        let trusting = Layout::new(folder.path(), Config { follow_symlinks: true });
        trusting.manifest(&name(NAME)).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::rename(outside.path().join("moved"), &path).unwrap();
    }
}

/// Build systems such as Bazel link each blob to the place where it was made.
#[tokio::test]
async fn links_inside_the_layout_are_followed() {
    let (layout, folder, sample) = layout();
    let root = folder.path();
    let layer = blob_path(root, sample.images[0].layers[0].descriptor.digest());
    let manifest = blob_path(root, sample.top.digest());
    fs::create_dir_all(root.join("cas/deep")).unwrap();
    let read = || async {
        layout.manifest(&name(NAME)).await?;
        read_layer(&layout, &sample).await
    };
    for (place, path) in
        [&layer, &manifest, &root.join("index.json"), &root.join("oci-layout")].into_iter().enumerate()
    {
        let (target, hop) = (root.join(format!("cas/deep/{place}")), root.join(format!("cas/hop{place}")));
        fs::rename(path, &target).unwrap();
        let up = "../".repeat(path.strip_prefix(root).unwrap().components().count() - 1);
        for link in
            [format!("{up}cas/deep/{place}").into(), target.clone(), format!("{up}cas/hop{place}").into()]
        {
            let _ = (fs::remove_file(path), fs::remove_file(&hop));
            symlink(format!("deep/{place}"), &hop).unwrap();
            symlink(&link, path).unwrap();
            read().await.unwrap_or_else(|e| panic!("{}: {e:?}", link.display()));
        }
    }
    // Whole folders, too.
    fs::rename(root.join("blobs"), root.join("cas/blobs")).unwrap();
    symlink("cas/blobs", root.join("blobs")).unwrap();
    // The links of the blobs are relative to where they are now.
    fs::create_dir_all(root.join("cas/cas")).unwrap();
    symlink("../deep", root.join("cas/cas/deep")).unwrap();
    for place in 0..2 {
        symlink(format!("deep/{place}"), root.join(format!("cas/cas/hop{place}"))).unwrap();
    }
    read().await.unwrap();
}

/// No link leads out, at whichever step, and the refusal says what would follow it.
/// The kernel does not always know a path with `..` while another process renames anything.
#[tokio::test(flavor = "multi_thread")]
async fn links_are_followed_beside_renames() {
    let (layout, folder, sample) = layout();
    let layer = blob_path(folder.path(), sample.images[0].layers[0].descriptor.digest());
    fs::create_dir_all(folder.path().join("cas")).unwrap();
    fs::rename(&layer, folder.path().join("cas/layer")).unwrap();
    symlink("../../cas/layer", &layer).unwrap();
    let (other, is_over) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let [one, two] = ["one", "two"].map(|name| other.path().join(name));
    fs::write(&one, "").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                fs::rename(&one, &two).unwrap();
                fs::rename(&two, &one).unwrap();
            }
        });
        let read = async {
            for _ in 0..2000 {
                read_layer(&layout, &sample).await?;
            }
            Ok(())
        };
        let outcome: Result<()> =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(read));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
}

#[tokio::test]
async fn links_out_of_the_layout_are_refused_with_a_way_out() {
    let (layout, folder, sample) = layout();
    let root = folder.path();
    let outside = TempDir::new().unwrap();
    let layer = blob_path(root, sample.images[0].layers[0].descriptor.digest());
    fs::copy(&layer, outside.path().join("content")).unwrap();
    fs::create_dir(root.join("cas")).unwrap();
    fs::rename(&layer, root.join("cas/content")).unwrap();
    symlink(outside.path().join("content"), root.join("cas/out")).unwrap();
    symlink(outside.path(), root.join("cas/folder")).unwrap();
    symlink("loop", root.join("cas/loop")).unwrap();
    fs::create_dir(root.join("cas/directory")).unwrap();
    let name = root.file_name().unwrap().to_str().unwrap();
    let targets = [
        "../../cas/out".to_owned(),
        "../../cas/folder/content".to_owned(),
        "../../cas/loop".to_owned(),
        "../../cas/directory".to_owned(),
        "../../cas/nothing".to_owned(),
        "../../../etc/hostname".to_owned(),
        // Out of the layout and in again: where it is called otherwise, that is another file.
        format!("../../../{name}/cas/content"),
        "/proc/self/root/etc/hostname".to_owned(),
        outside.path().join("content").to_str().unwrap().to_owned(),
    ];
    for target in targets {
        symlink(&target, &layer).unwrap();
        let error = fails(read_layer(&layout, &sample).await, &ErrorKind::Corrupt);
        assert!(
            error.hint().is_some_and(|hint| hint.contains("follow-symlinks=true")),
            "{target}: {error:?}"
        );
        fs::remove_file(&layer).unwrap();
    }
}

#[tokio::test]
async fn rows_8_and_9_damaged_blobs_are_told_from_sound_ones() {
    let (layout, folder, sample) = layout();
    let layer = sample.images[0].layers[0].descriptor.clone();
    let path = blob_path(folder.path(), layer.digest());
    let sound = fs::read(&path).unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    for damaged in [&sound[..sound.len() - 1], &[], &flipped] {
        fs::write(&path, damaged).unwrap();
        let error = fails(read_layer(&layout, &sample).await, &ErrorKind::Corrupt);
        let mismatch = error.detail::<plyfold_core::Mismatch>().unwrap();
        assert_eq!(
            (mismatch.expected_size, mismatch.actual_size),
            (Some(layer.size()), damaged.len() as u64)
        );
        // The first byte of a range is no proof either, but its size is.
        let range = layout.blob(&name(NAME), &layer, BlobRange::new(0, 1)).await;
        assert_eq!(range.is_ok(), damaged.len() == sound.len());
    }
}

#[tokio::test]
async fn rows_13_to_15_digests_never_become_paths() {
    let good = samples::image().top.digest().to_string();
    for bad in [
        "sha256:../../../outside".to_owned(),
        good.to_uppercase(),
        good[..70].to_owned(),
        format!("{good}0"),
        format!("sha256:{}", "%2e".repeat(21)),
    ] {
        let (layout, _folder) = with_entries(&[entry(&bad, "")]);
        fails(layout.manifest(&name(NAME)).await, &ErrorKind::Corrupt);
    }
    // An algorithm that cannot be verified concerns its own image alone.
    let unknown = entry("blake3:00", &ref_name("new"));
    let (layout, folder) = with_entries(&[unknown, entry(&good, &ref_name("old"))]);
    let image = |tag: &str| image_in(folder.path(), tag).unwrap();
    fails(layout.manifest(&image("new")).await, &ErrorKind::Unsupported);
    layout.manifest(&image("old")).await.unwrap();
}

#[tokio::test]
async fn rows_19_and_20_only_a_layout_of_version_1_is_one() {
    let (layout, folder, _) = layout();
    let marker = folder.path().join("oci-layout");
    for (content, kind) in [
        (r#"{"imageLayoutVersion":"2.0.0"}"#, ErrorKind::Unsupported),
        ("{}", ErrorKind::Corrupt),
        ("", ErrorKind::Corrupt),
        (&*" ".repeat(1 << 20), ErrorKind::Limit),
    ] {
        fs::write(&marker, content).unwrap();
        fails(layout.manifest(&name(NAME)).await, &kind);
        fails(layout.repositories(Page::default()).await, &kind);
    }
    fs::remove_file(&marker).unwrap();
    fails(layout.manifest(&name(NAME)).await, &ErrorKind::Corrupt);

    let absent = Layout::new(folder.path().join("absent"), Config::default());
    fails(absent.manifest(&name(NAME)).await, &ErrorKind::NotFound);
    let file = Layout::new(folder.path().join("index.json"), Config::default());
    fails(file.manifest(&name(NAME)).await, &ErrorKind::Corrupt);
}

#[tokio::test]
async fn row_21_names_that_are_none_are_left_out_and_refused() {
    let good = samples::image().top.digest().to_string();
    let long = "a".repeat(1 << 20);
    let hostile = ["../../etc/passwd", "a\0b", "a\u{1b}[2J", &long, "", "A B", "UPPER/case"];
    let mut entries: Vec<_> = hostile.iter().map(|text| entry(&good, &ref_name(text))).collect();
    entries.push(entry(&good, &ref_name("good")));
    let (layout, folder) = with_entries(&entries);
    let repositories = layout.repositories(Page::default()).await.unwrap().names;
    assert_eq!(repositories.len(), 1);
    assert_eq!(layout.tags(&repositories[0], Page::default()).await.unwrap().names, ["good"]);
    for text in hostile.iter().filter(|text| !text.is_empty()) {
        fails(image_in(folder.path(), text), &ErrorKind::Config);
    }
}

#[tokio::test]
async fn row_22_a_name_that_stands_twice_is_ambiguous() {
    let good = samples::image().top.digest().to_string();
    let other = described(b"other").digest().to_string();
    let (layout, folder) = with_entries(&[entry(&good, &ref_name("v1")), entry(&other, &ref_name("v1"))]);
    let twice = image_in(folder.path(), "v1").unwrap();
    fails(layout.manifest(&twice).await, &ErrorKind::Ambiguous);
    let chosen = image_in(folder.path(), &format!("v1@{good}")).unwrap();
    layout.manifest(&chosen).await.unwrap();
}

#[tokio::test]
async fn row_25_a_manifest_is_not_read_beyond_its_limit() {
    let (layout, folder, sample) = layout();
    let manifest =
        fs::File::options().write(true).open(blob_path(folder.path(), sample.top.digest())).unwrap();
    manifest.set_len(5 << 20).unwrap();
    fails(layout.manifest(&name(NAME)).await, &ErrorKind::Limit);
    // A declared size allocates nothing.
    manifest.set_len(1 << 43).unwrap();
    fails(layout.manifest(&name(NAME)).await, &ErrorKind::Limit);
}
