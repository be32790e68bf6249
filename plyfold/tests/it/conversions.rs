//! Copies that change an image on request.

use plyfold_conformance::samples::{self, write_layout};
use plyfold_conformance::server::FaultServer;

use super::run::{Place, check};

#[test]
fn runs_are_as_they_were() {
    let server = FaultServer::start().unwrap();
    server.put("org/app", "index", &samples::index());
    server.put("org/app", "attested", &samples::attested());
    server.put("org/app", "docker", &samples::docker_image());
    server.put("org/app", "zstd", &samples::zstandard());
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    let lines = [
        "copy oci:examples/sample oci:{}/layout:zstd --compress zstd --platform linux/amd64",
        "copy oci:examples/sample oci:{}/layout:again --compress zstd --platform linux/amd64 -q --json",
        "copy oci:{}/layout:zstd oci-archive:{}/back.tar:1 --compress gzip -q",
        "copy HOST:PORT/org/app:index oci:{}/layout:index --compress zstd -q",
        "copy HOST:PORT/org/app:index oci:{}/layout:kept --compress gzip -q --json",
        "copy HOST:PORT/org/app:docker oci:{}/layout:oci --format oci -q",
        "copy HOST:PORT/org/app:zstd HOST:PORT/org/app:converted --format docker --compress gzip:9 -q",
        "copy HOST:PORT/org/app:zstd oci:{}/layout:refused --format docker",
        "copy HOST:PORT/org/app:attested oci:{}/layout:refused --format docker",
        "copy HOST:PORT/org/app:docker oci:{}/layout:refused --compress zstd",
        "copy HOST:PORT/org/app:zstd oci:{}/layout:refused --format docker --compress zstd",
        "copy HOST:PORT/org/app:zstd oci:{}/layout:refused --compress gzip --referrers",
        "copy HOST:PORT/org/app:zstd oci:{}/layout:refused --compress gzip --sparse keep",
        "copy HOST:PORT/org/app:zstd oci:{}/layout:refused --compress lzma",
        "copy HOST:PORT/org/app:zstd oci:{}/layout:refused --compress gzip:10",
        "tags oci:{}/layout",
        "load examples/sample -q",
        "push localhost/sample:latest oci:{}/pushed:1 --format docker --compress gzip -q",
        "push localhost/sample:latest oci:{}/pushed:2 --rewrite-index --referrers --compress gzip",
    ];
    check("conversions", &lines.map(|line| place.run(line)));
}

/// In an archive, in a layout and in a registry it is the same image.
#[test]
fn a_conversion_has_the_same_digest_everywhere() {
    let server = FaultServer::start().unwrap();
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    let layout = place.dir.path().join("layout");
    write_layout(&layout, &[("1".to_owned(), &samples::index())]).unwrap();
    let digest = |target: &str| {
        let said = place.run(&format!("copy oci:{{}}/layout:1 {target} --compress zstd -q"));
        let digest = said.split("sha256:").nth(1).and_then(|rest| rest.get(..64));
        digest.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let targets =
        ["oci:{}/other:1", "oci-archive:{}/a.tar:1", "docker-archive:{}/b.tar:app:1", "HOST:PORT/org/app:1"];
    let digests = targets.map(digest);
    assert!(digests.iter().all(|one| *one == digests[0]), "{digests:?}");
}
