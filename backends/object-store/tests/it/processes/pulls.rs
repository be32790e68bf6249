//! Several processes that pull one image from a registry that counts.

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_conformance::server::FaultServer;
use plyfold_core::{CacheProvider as _, PullOptions, Verify, digest, pull, reference};
use plyfold_erofs::ErofsLayer;
use plyfold_registry::{Config, Registry};

use super::{HOST, as_child, child, run, say};
use crate::front::Front;
use crate::medium::Medium;

const PROCESSES: usize = 8;

/// Content in which no part is like another.
fn noise(size: usize) -> Vec<u8> {
    let block = |number: u64| digest::sha256(&[number.to_le_bytes(), (size as u64).to_le_bytes()].concat());
    let blocks = (0..size.div_ceil(64) as u64).flat_map(|number| block(number).digest().as_bytes().to_vec());
    blocks.take(size).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_downloads_and_makes_everything_once() {
    if let Some((cache, _)) = as_child().await {
        let host = std::env::var(HOST).unwrap();
        let options = PullOptions {
            materializer: Some(Box::new(ErofsLayer::default())),
            platform: "linux/amd64".parse().unwrap(),
            ..PullOptions::default()
        };
        let registry = Registry::new(&host, &Config { anonymous: true, ..Config::default() }).unwrap();
        let image = reference::parse(&format!("{host}/library/app:1")).unwrap();
        let pulled = pull(&registry, &image, &cache, &options).await.unwrap();
        assert!(pulled.layers.iter().all(|layer| layer.artifact.is_some()));
        say("PULLED");
        return cache.settle().await;
    }
    let sizes = [200_000, 1000, 6 << 20];
    let layers = sizes.map(|size| LayerBuilder::new().file("f", 0o644, &noise(size)).finish());
    let sample = samples::of_layers("pulled", &layers);
    let registry = FaultServer::start().unwrap();
    registry.put("library/app", "1", &sample);
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let test = "pulls::a_fleet_downloads_and_makes_everything_once";
    let commands = (0..PROCESSES).map(|number| {
        let mut command = child(test, &service, number);
        command.env(HOST, registry.host());
        command
    });
    let said = run(commands);
    assert!(said.iter().all(|said| said.contains("PULLED")));
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        let served = registry.served(blob.descriptor.digest());
        assert_eq!((served.requests, served.bytes), (1, blob.descriptor.size()), "{:?}", blob.descriptor);
    }
    // Parts of an upload are puts as well: each object is counted once.
    let written = |folder: &str| {
        let folder = format!("/a/fleet/data/{folder}/");
        let is_put = |(method, target): &&(String, String)| method == "PUT" && target.contains(&folder);
        let paths = service
            .requests()
            .iter()
            .filter(is_put)
            .map(|(_, target)| target.split('?').next().unwrap_or_default().to_owned())
            .collect::<std::collections::BTreeSet<_>>();
        paths.len()
    };
    assert_eq!(written("artifacts"), sizes.len(), "artifacts are written once");
    assert_eq!(written("blobs"), 2, "of the layers, one is small");
    let cache = service.cache().await.unwrap();
    assert_eq!(cache.verify(&Verify::default()).await.unwrap().damage, []);
    assert_eq!(medium.left(), [""; 0]);
}
