//! Several processes that pull one image from a server that counts, fails and lies.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::server::{Fault, FaultServer, On};
use plyfold_core::{
    CacheProviderExt as _, Descriptor, ErrorKind, ImageSource as _, PullOptions, PullResult, Reference,
    Result, digest, pull, reference,
};
use plyfold_erofs::ErofsLayer;
use plyfold_layout::Store;
use plyfold_registry::{Config, Registry};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{HOST, Running, as_child, as_parent, child, run};

/// What a child prints for each pull that succeeds, and for each that gets wrong bytes.
const DONE: &str = "PULLED";
const CORRUPT: &str = "CORRUPT";

/// A registry with one image whose layers have these sizes.
fn serve(sizes: &[usize]) -> (FaultServer, Sample) {
    let layers = sizes.iter().map(|size| LayerBuilder::new().file("f", 0o644, &noise(*size)).finish());
    let sample = samples::of_layers("pulled", &layers.collect::<Vec<_>>());
    let server = FaultServer::start().unwrap();
    server.put("library/app", "1", &sample);
    (server, sample)
}

/// Content in which no part is like another.
fn noise(size: usize) -> Vec<u8> {
    let block = |number: u64| digest::sha256(&[number.to_le_bytes(), (size as u64).to_le_bytes()].concat());
    let blocks = (0..size.div_ceil(64) as u64).flat_map(|number| block(number).digest().as_bytes().to_vec());
    blocks.take(size).collect()
}

fn image(host: &str) -> Reference {
    reference::parse(&format!("{host}/library/app:1")).unwrap()
}

async fn pull_into(store: &Store) -> Result<PullResult> {
    let host = std::env::var(HOST).unwrap();
    let options = PullOptions {
        materializer: Some(Box::new(ErofsLayer::default())),
        platform: "linux/amd64".parse().unwrap(),
        ..PullOptions::default()
    };
    let registry = Registry::new(&host, &Config { anonymous: true, ..Config::default() })?;
    pull(&registry, &image(&host), store, &options).await
}

/// Pulls in so many tasks at once, and says how each one ended.
async fn pull_in_tasks(store: Store, tasks: usize) {
    let mut pulls = JoinSet::new();
    for _ in 0..tasks {
        let store = store.clone();
        pulls.spawn(async move { pull_into(&store).await });
    }
    while let Some(outcome) = pulls.join_next().await {
        match outcome.unwrap() {
            Ok(pulled) => {
                assert!(pulled.layers.iter().all(|layer| layer.artifact.is_some()));
                say(DONE);
            }
            Err(e) if *e.kind() == ErrorKind::Corrupt => say(CORRUPT),
            Err(e) => panic!("{e}"),
        }
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn say(word: &str) {
    println!("{word}");
}

/// A store, and the children that pull into it from the server.
struct Scene {
    server: FaultServer,
    sample: Sample,
    path: PathBuf,
    _folder: TempDir,
}

impl Scene {
    fn new(sizes: &[usize]) -> Self {
        let ((server, sample), (folder, path)) = (serve(sizes), as_parent());
        Self { server, sample, path, _folder: folder }
    }

    fn child(&self, test: &str, number: usize) -> Command {
        let mut command = child(&format!("pulls::{test}"), &self.path, number);
        command.env(HOST, self.server.host());
        command
    }

    fn layer(&self, index: usize) -> &Descriptor {
        &self.sample.images[0].layers[index].descriptor
    }

    /// Every byte of the image is there and right, and nothing else.
    async fn assert_whole(&self) {
        let store = Store::open(&self.path).unwrap();
        let source =
            store.new_source(&image(self.server.host()), &"linux/amd64".parse().unwrap()).await.unwrap();
        for blob in source.raw().references() {
            store.verify_blob(&blob).await.unwrap();
        }
        assert_eq!(crate::names_in(&self.path.join("ingest")), [""; 0]);
        assert_eq!(crate::names_in(&self.path.join("quarantine")), [""; 0]);
    }
}

fn count(said: &[String], word: &str) -> usize {
    said.iter().map(|text| text.matches(word).count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_digest_is_fetched_once_by_many_tasks_of_many_processes() {
    const TASKS: usize = 64;
    const PROCESSES: usize = 8;
    if let Some((store, _)) = as_child() {
        return pull_in_tasks(store, TASKS).await;
    }
    let scene = Scene::new(&[200_000, 1000, 500_000]);
    let test = "each_digest_is_fetched_once_by_many_tasks_of_many_processes";
    let said = run((0..PROCESSES).map(|number| scene.child(test, number)));
    assert_eq!(count(&said, DONE), TASKS * PROCESSES);
    for blob in scene.sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        let served = scene.server.served(blob.descriptor.digest());
        assert_eq!((served.requests, served.bytes), (1, blob.descriptor.size()), "{:?}", blob.descriptor);
    }
    let requests = scene.server.requests();
    let manifests = requests.iter().filter(|exchange| exchange.target.contains("/manifests/"));
    assert_eq!(manifests.count(), 1, "{requests:#?}");
    scene.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_winner_is_succeeded_where_it_stopped() {
    /// The most bytes between the server and the file when a process is killed.
    const IN_FLIGHT: u64 = 1 << 20;
    if let Some((store, _)) = as_child() {
        return pull_in_tasks(store, 4).await;
    }
    let scene = Scene::new(&[8 << 20]);
    let size = scene.layer(0).size();
    // The first answer stops in the middle, and its connection stays open.
    scene.server.script(On::blob(scene.layer(0).digest()).times(1), [Fault::StallAt(5 << 20)]);
    let test = "a_killed_winner_is_succeeded_where_it_stopped";
    let winner = Running(scene.child(test, 0).spawn().unwrap());
    let partial = scene.path.join("ingest").join(format!("sha256-{}", scene.layer(0).digest().digest()));
    while std::fs::metadata(&partial).map_or(0, |partial| partial.len()) < 4 << 20 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let survivors: Vec<_> =
        (1..4).map(|number| Running(scene.child(test, number).spawn().unwrap())).collect();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(scene.server.served(scene.layer(0).digest()).requests, 1, "the winner lives");
    drop(winner);
    let said: Vec<_> = survivors.into_iter().map(Running::said).collect();
    assert_eq!(count(&said, DONE), 12);
    let served = scene.server.served(scene.layer(0).digest());
    assert_eq!(served.requests, 2);
    assert!(served.bytes <= size + IN_FLIGHT, "{} bytes went out for {size}", served.bytes);
    scene.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_for_one_are_no_harm_to_the_others() {
    if let Some((store, _)) = as_child() {
        return pull_in_tasks(store, 4).await;
    }
    let scene = Scene::new(&[200_000, 100_000]);
    scene.server.script(On::blob(scene.layer(0).digest()).times(1), [Fault::Flip(100_000)]);
    let said = run((0..4).map(|number| scene.child("wrong_bytes_for_one_are_no_harm_to_the_others", number)));
    assert_eq!((count(&said, CORRUPT), count(&said, DONE)), (1, 15));
    assert_eq!(scene.server.served(scene.layer(0).digest()).requests, 2);
    scene.assert_whole().await;
}
