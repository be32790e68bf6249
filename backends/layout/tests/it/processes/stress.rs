//! Collection in one process, pulls and readers in others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_core::{
    BlobRange, CacheProvider as _, CacheProviderExt as _, Collect, ImageSource as _, NameChange, PullOptions,
    pull,
};
use plyfold_erofs::ErofsLayer;
use plyfold_layout::{Config, Layout, Store};

use super::{Running, as_child, as_parent, child, run};
use crate::{blob, described, name, names_in};

/// What goes as soon as nothing needs it.
const AT_ONCE: Collect =
    Collect { budget: None, dry_run: false, grace: Duration::ZERO, resumable: Duration::from_secs(60) };
/// Processes that pull and remove, and images that each of them pulls.
const PULLERS: usize = 3;
const EACH: usize = 10;

/// An image that shares its lower layer with all others, and its upper one with one of each process.
fn sample(turn: usize) -> Sample {
    let layer = |text: &str| LayerBuilder::new().file("f", 0o644, text.repeat(9000).as_bytes()).finish();
    samples::of_layers("collected", &[layer("base"), layer(&format!("turn {turn}"))])
}

fn image(number: usize, turn: usize) -> String {
    format!("registry.example/puller{number}:{turn}")
}

async fn assert_whole(store: &Store, image: &str) {
    let source = store.new_source(&name(image), &"linux/amd64".parse().unwrap()).await.unwrap();
    for blob in source.raw().references() {
        store.verify_blob(&blob).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_vs_pull_vs_remove_stress() {
    let done = |store: &Path| store.with_extension("done");
    if let Some((store, number)) = as_child() {
        if number < PULLERS {
            return pull_and_remove(&store, number).await;
        }
        while !done(store.path()).exists() {
            store.collect(&AT_ONCE).await.unwrap();
        }
        return;
    }
    let (_folder, path) = as_parent();
    let samples: Vec<_> = (0..EACH).map(sample).collect();
    let of = |number| (0..EACH).map(move |turn| (image(number, turn), turn));
    let all: Vec<_> = (0..PULLERS).flat_map(of).map(|(image, turn)| (image, &samples[turn])).collect();
    samples::write_layout(&origin(&path), &all).unwrap();
    let test = |number| child("stress::gc_vs_pull_vs_remove_stress", &path, number);
    let collectors: Vec<_> = (0..2).map(|number| Running(test(PULLERS + number).spawn().unwrap())).collect();
    run((0..PULLERS).map(test));
    std::fs::write(done(&path), "").unwrap();
    for collector in collectors {
        collector.said();
    }

    let store = Store::open(&path).unwrap();
    store.collect(&AT_ONCE).await.unwrap();
    let mut needed = BTreeSet::new();
    for (image, sample) in all.iter().filter(|(image, _)| stays(image)) {
        assert_whole(&store, image).await;
        needed.extend(sample.blobs.iter().map(|blob| blob.descriptor.digest().digest().to_owned()));
    }
    assert_eq!(store.list().await.unwrap().len(), PULLERS * EACH / 2);
    assert_eq!(
        names_in(&path.join("blobs/sha256")),
        Vec::from_iter(needed),
        "what is there and what is needed"
    );
    assert_eq!(names_in(&path.join("ingest")), [""; 0]);
    assert_eq!(names_in(&path.join("quarantine")), [""; 0]);
}

fn origin(store: &Path) -> PathBuf {
    store.with_extension("origin")
}

/// Every second image loses its name again.
fn stays(image: &str) -> bool {
    image.ends_with(['0', '2', '4', '6', '8'])
}

async fn pull_and_remove(store: &Store, number: usize) {
    let layout = Layout::new(origin(store.path()), Config::default());
    let options = PullOptions {
        materializer: Some(Box::new(ErofsLayer::default())),
        platform: "linux/amd64".parse().unwrap(),
        ..PullOptions::default()
    };
    for turn in 0..EACH {
        let image = image(number, turn);
        let pulled = pull(&layout, &name(&image), store, &options).await.unwrap();
        // A name is there, so nothing goes.
        assert_whole(store, &image).await;
        for layer in pulled.layers {
            let artifact = layer.artifact.unwrap();
            assert_eq!(std::fs::metadata(artifact.path().unwrap()).unwrap().len(), artifact.size());
        }
        if !stays(&image) {
            store.remove(&name(&image)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_reader_survives_remove() {
    let content = vec![3; 5 << 20];
    if let Some((store, _)) = as_child() {
        store.remove(&name("app")).await.unwrap();
        store.collect(&AT_ONCE).await.unwrap();
        return;
    }
    let (_folder, path) = as_parent();
    let store = Store::open(&path).unwrap();
    store.put(blob(&content)).await.unwrap();
    store.update(&[NameChange::Set(name("app"), described(&content))]).await.unwrap();
    let mut reading = store.open(&described(&content), BlobRange::FULL).await.unwrap();
    let mut read = reading.chunk().await.unwrap().unwrap().len();
    run([child("stress::open_reader_survives_remove", &path, 0)]);
    assert_eq!(store.stat(described(&content).digest()).await.unwrap(), None);
    while let Some(chunk) = reading.chunk().await.unwrap() {
        read += chunk.len();
    }
    assert_eq!(read, content.len());
}
