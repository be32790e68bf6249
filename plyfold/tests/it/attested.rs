//! SBOMs and provenance of images, wherever they are.

use std::time::Duration;

use plyfold::pull::Retry;
use plyfold::{Advice, Error, Images, LoadOptions, PullOptions, PullPolicy, digest};
use plyfold_conformance::samples::{self, ATTESTED, LayerBuilder};
use plyfold_conformance::server::FaultServer;

use super::run::{Place, check};

const AMD64: &str = "--platform linux/amd64";

#[test]
fn runs_are_as_they_were() {
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &samples::attested());
    server.put("org/plain", "1", &samples::image());
    server.put("org/referred", "1", &samples::attested_image());
    for (number, referrer) in samples::attestation_referrers().iter().enumerate() {
        server.put("org/referred", &format!("r{number}"), referrer);
    }
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    samples::write_layout(
        &place.dir.path().join("layout"),
        &[("localhost/app:1".to_owned(), &samples::attested())],
    )
    .unwrap();
    let lines = [
        format!("sbom HOST:PORT/org/app:1 {AMD64}"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --list"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --format cyclonedx"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --digest 74559e"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --digest sha256:74559e247a31 --format spdx"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --digest 74559e --list"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --digest 4559e"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --digest 74559e --format cyclonedx"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --all --format spdx"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --provenance"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --provenance --format raw"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --provenance --format spdx"),
        "sbom HOST:PORT/org/app:1 --platform linux/arm64".to_owned(),
        "sbom HOST:PORT/org/app:1 --platform linux/arm64 --format cyclonedx".to_owned(),
        "sbom HOST:PORT/org/app:1 --platform linux/arm64 --provenance".to_owned(),
        format!("sbom HOST:PORT/org/plain:1 {AMD64}"),
        format!("sbom HOST:PORT/org/none:1 {AMD64}"),
        format!("sbom HOST:PORT/org/referred:1 {AMD64} --list --json"),
        format!("sbom HOST:PORT/org/referred:1 {AMD64} --all"),
        format!("sbom HOST:PORT/org/referred:1 {AMD64} --provenance"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --policy never"),
        format!("pull HOST:PORT/org/app:1 {AMD64} -q"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --policy never"),
        format!("sbom HOST:PORT/org/app:1 {AMD64} --format cyclonedx"),
        format!("sbom oci:{{}}/layout:localhost/app:1 {AMD64} --format cyclonedx"),
        "load {}/layout -q".to_owned(),
        format!("sbom localhost/app:1 {AMD64} --policy never --format cyclonedx"),
        "sbom localhost/app:1 --platform linux/arm64 --policy never --provenance".to_owned(),
        "sbom localhost/none:1 --policy never".to_owned(),
        "attest HOST:PORT/org/app:1".to_owned(),
    ];
    check("sbom", &lines.map(|line| place.run(&line)));
}

/// What the name stands for in the registry by now is another image.
#[tokio::test(flavor = "multi_thread")]
async fn what_attests_to_the_image_in_the_cache_is_asked_for_by_its_digest() {
    let server = FaultServer::start().unwrap();
    let sample = samples::attested();
    server.put("org/app", "1", &sample);
    let folder = tempfile::tempdir().unwrap();
    let images = Images::open(folder.path().join("store")).await.unwrap();
    let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
    let name = format!("{}/org/app:1", server.host());
    let pulled = images.pull(&name, options.clone()).await.unwrap();
    server.put("org/app", "1", &samples::image());
    server.clear_requests();
    let found = images.sboms(&name, &options).await.unwrap();
    let subjects: Vec<_> = found.iter().map(|one| one.subject().clone()).collect();
    assert_eq!(subjects, [pulled.manifest.clone(), pulled.manifest.clone(), pulled.manifest.clone()]);
    // Layers are not fetched, and statements when they are asked for.
    let blobs =
        |server: &FaultServer| server.requests().iter().filter(|x| x.target.contains("/blobs/")).count();
    assert_eq!(blobs(&server), 0);
    assert_eq!(found[0].predicate().await.unwrap(), ATTESTED[0].1);
    assert_eq!(blobs(&server), 1);
    // The registry itself has another image by now.
    let always = PullOptions { policy: PullPolicy::Always, ..options.clone() };
    assert!(images.sboms(&name, &always).await.unwrap().is_empty());
    let never = PullOptions { policy: PullPolicy::Never, ..options };
    assert!(images.provenance(&name, &never).await.is_err(), "the index lists what is not here");
    assert_eq!(digest::sha256(&found[0].statement().await.unwrap()), *found[0].content().digest());
}

/// The store has the image with its index, which lists no provenance of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_gone_does_not_hide_that_the_store_has_none() {
    let server = FaultServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let images = Images::open(folder.path().join("store")).await.unwrap();
    let name = format!("{}/org/app:1", server.host());
    let layout = folder.path().join("layout");
    samples::write_layout(&layout, &[(name.clone(), &samples::attested())]).unwrap();
    images.load(&format!("oci:{}", layout.display()), LoadOptions::default()).await.unwrap();
    drop(server);
    let platform = "linux/arm64".parse().unwrap();
    let retry = Retry { total: Duration::ZERO, ..Retry::default() };
    let options = PullOptions { platform, retry, ..PullOptions::default() };
    assert_eq!(images.sboms(&name, &options).await.unwrap().len(), 1);
    let error = images.provenance(&name, &options).await.unwrap_err();
    assert!(error.message().starts_with("the store has no provenance of the image"), "{error}");
    assert!(error.is_retryable(), "{error:?}");
    let reason = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<Error>());
    assert_eq!(reason.map(Error::kind), Some(error.kind()), "{error:?}");
    let never = PullOptions { policy: PullPolicy::Never, ..options };
    assert!(images.provenance(&name, &never).await.unwrap().is_empty());
    let error = images.provenance(&name.replace(":1", ":2"), &never).await.unwrap_err();
    assert_eq!(error.advice(), Some(&Advice::Pull { image: name.replace(":1", ":2") }), "{error:?}");
}

/// Attestations stand in the index, which does not come with one image of it.
#[test]
fn an_image_that_leaves_its_index_leaves_its_attestations_with_a_warning() {
    let place = Place::new();
    let name = "localhost/app:1";
    samples::write_layout(place.path("layout").as_ref(), &[(name.to_owned(), &samples::attested())]).unwrap();
    std::fs::write(place.path("layer.tar"), LayerBuilder::new().file("a", 0o644, b"a").finish()).unwrap();
    assert_eq!(place.told("load {}/layout").code, Some(0));
    for (at, line) in [
        "config localhost/app:1 --tag new:1 --user 1",
        "append localhost/app:1 {}/layer.tar --tag new:2",
        "copy oci:{}/layout:localhost/app:1 oci:{}/copied:1",
        "copy oci:{}/layout:localhost/app:1 oci:{}/copied:2 --compress zstd",
        "push localhost/app:1 oci:{}/copied:3",
        "save localhost/app:1 --out {}/saved.tar",
        "save oci:{}/layout:localhost/app:1 --out {}/saved.tar",
    ]
    .iter()
    .enumerate()
    {
        let one = place.told(&format!("{line} {AMD64}"));
        assert_eq!((one.code, one.warnings), (Some(0), 1), "{line}: {one:?}");
        // Those that make other images leave out all attestations.
        let all = place.told(line);
        assert_eq!(
            (all.code, all.warnings),
            (Some(0), usize::from([0, 1, 3].contains(&at))),
            "{line}: {all:?}"
        );
    }
}
