//! Every way into a store, each in a process of its own, beside one that collects all the time.

use std::path::{Path, PathBuf};

use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_core::copy::{CopyOptions, copy};
use plyfold_core::{
    CacheProvider as _, CacheProviderExt as _, Collect, LoadOptions, Opened, PullOptions, pull,
};
use plyfold_layout::{Config, Layout, Store};

use super::{Running, as_child, as_parent, child, run};
use crate::{name, names_in};

/// How many images go each way: the environment may ask for more.
const IMAGES: &str = "PLYFOLD_PUSHES";
/// Images at the origin. Later rounds bring them again, when they have lost their names.
const ORIGINALS: usize = 10;
const WAYS: [&str; 4] = ["copy", "push", "pull", "load"];

fn images() -> usize {
    std::env::var(IMAGES).map_or(20, |text| text.parse().expect("a number of images"))
}

/// An image that shares its lower layer with all others.
fn sample(turn: usize) -> Sample {
    let layer = |text: &str| LayerBuilder::new().file("f", 0o644, text.repeat(9000).as_bytes()).finish();
    samples::of_layers("pushed", &[layer("base"), layer(&format!("turn {turn}"))])
}

/// The name of an image that goes one way. The content is the same for all ways.
fn image(way: &str, turn: usize) -> String {
    format!("registry.example/{way}:{}", turn % ORIGINALS)
}

/// Beside the store, so that each child finds it.
fn beside(store: &Path, what: &str) -> PathBuf {
    store.with_extension(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_pushes_pulls_and_loads_leave_whole_images_beside_a_collector() {
    if let Some((store, number)) = as_child() {
        match WAYS.get(number) {
            Some(way) => bring(&store, way).await,
            None => collect_until_told(&store).await,
        }
        return;
    }
    let (_folder, path) = as_parent();
    let samples: Vec<_> = (0..ORIGINALS).map(sample).collect();
    let of = |way| samples.iter().enumerate().map(move |(turn, sample)| (image(way, turn), sample));
    let all: Vec<_> = WAYS.into_iter().flat_map(of).collect();
    samples::write_layout(&beside(&path, "origin"), &all).unwrap();
    drop(Store::open(&path).unwrap());
    let test = "pushes::copies_pushes_pulls_and_loads_leave_whole_images_beside_a_collector";
    let collector = Running(child(test, &path, WAYS.len()).spawn().unwrap());
    let said = run((0..WAYS.len()).map(|number| child(test, &path, number)));
    std::fs::write(beside(&path, "done"), "").unwrap();
    collector.said();
    for (way, said) in WAYS.iter().zip(said) {
        let (whole, incomplete) = (said.matches("WHOLE").count(), said.matches("INCOMPLETE").count());
        assert_eq!((whole, incomplete), (images(), 0), "by {way}: {said}");
    }
    assert_eq!(names_in(&path.join("quarantine")), [""; 0]);
}

/// Brings images in one way, checks that each is complete, and removes it, so that the next one finds content that
/// has no name.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
async fn bring(store: &Store, way: &str) {
    let from = beside(store.path(), "origin");
    let (origin, target) =
        (Layout::new(&from, Config::default()), Layout::new(store.path(), Config::default()));
    let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
    let samples: Vec<_> = (0..ORIGINALS).map(sample).collect();
    for turn in 0..images() {
        let image = name(&image(way, turn));
        match way {
            "copy" => drop(copy(&origin, &image, &target, &image, &CopyOptions::default()).await.unwrap()),
            "push" => {
                let source = Store::open(&from).unwrap();
                drop(source.push(&image, &target, &image, &CopyOptions::default()).await.unwrap());
            }
            "pull" => drop(pull(&origin, &image, store, &options).await.unwrap()),
            _ => {
                let opened = Opened { registry: Box::new(origin.clone()), reference: Some(image.clone()) };
                drop(store.image_load(&opened, &LoadOptions::default()).await.unwrap());
            }
        }
        // The name is there, so nothing of it may go.
        let mut whole = true;
        for blob in &samples[turn % ORIGINALS].blobs {
            whole &= store.verify_blob(&blob.descriptor).await.is_ok();
        }
        println!("{} {image}", if whole { "WHOLE" } else { "INCOMPLETE" });
        store.remove(&image).await.unwrap();
    }
}

async fn collect_until_told(store: &Store) {
    while !beside(store.path(), "done").exists() {
        store.collect(&Collect::default()).await.unwrap();
    }
}
