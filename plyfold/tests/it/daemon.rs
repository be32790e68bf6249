//! The command and a Docker daemon that is not there; what one does is judged in the crate of its backend.

use super::baseline;
use super::run::Place;

#[test]
fn runs_are_as_they_were() {
    let place = Place::new();
    let text = [
        place.run("pull docker-daemon:alpine:3.20 -o socket={}/none"),
        place.run("tags docker-daemon: -o socket={}/none"),
        place.run("tags docker-daemon:alpine -o socket={}/none --json"),
        place.run("copy oci:examples/sample:latest docker-daemon:app:1 -o socket={}/none -q"),
        place.run("copy docker-daemon:app:1 oci:{}/layout:1 -o socket={}/none -q"),
        place.run("inspect docker-daemon:app@sha256:0000000000000000000000000000000000000000000000000000000000000000"),
        place.run("inspect docker-daemon:UPPER"),
        place.run("tags docker-daemon: -o timeout=0"),
        place.run("tags oci:"),
    ]
    .concat();
    baseline::check("plyfold/tests/it/runs/daemon.txt", text.as_bytes());
    let output =
        place.command(["pull", "docker-daemon:alpine"]).env("DOCKER_HOST", "tcp://127.0.0.1:2375").output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(said.contains("tcp://127.0.0.1:2375") && said.contains("docker save"), "{said}");
}
