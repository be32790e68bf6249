//! The verbs about registries, and pulls that end before their time.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_conformance::server::{Fault, FaultServer, On};

use super::run::{Place, check};

#[test]
fn images_in_registries() {
    let server = FaultServer::start().unwrap();
    let sample = samples::index();
    for tag in ["1", "1.2", "latest"] {
        server.put("org/app", tag, &sample);
    }
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    let other = format!("HOST:PORT/org/app@{}", sample.top.digest());
    let lines = [
        "tags HOST:PORT/org/app".to_owned(),
        "tags HOST:PORT/org/app --json".to_owned(),
        "tags registry:HOST:PORT/".to_owned(),
        "tags HOST:PORT/org/none".to_owned(),
        "pull HOST:PORT/org/app:lates".to_owned(),
        "inspect --remote HOST:PORT/org/app:1.3".to_owned(),
        "copy HOST:PORT/org/app:nightly HOST:PORT/org/copied:1".to_owned(),
        "pull HOST:PORT/org/none:1".to_owned(),
        "inspect HOST:PORT/org/app:1 --platform linux/amd64".to_owned(),
        "inspect HOST:PORT/org/app:1 --platform linux/amd64 --remote".to_owned(),
        "copy HOST:PORT/org/app:1 HOST:PORT/org/copied:1".to_owned(),
        "copy HOST:PORT/org/app:1 HOST:PORT/org/copied:amd64 --platform linux/amd64 --referrers".to_owned(),
        "copy HOST:PORT/org/app:1 oci:{}/layout:app --platform linux/amd64 --json".to_owned(),
        "pull HOST:PORT/org/app:1 --platform linux/amd64 -q".to_owned(),
        "push HOST:PORT/org/app:1 HOST:PORT/org/pushed:1".to_owned(),
        "push HOST:PORT/org/app:1 HOST:PORT/org/pushed:1 --platform linux/amd64".to_owned(),
        "push HOST:PORT/org/app:1 HOST:PORT/org/pushed:2 --rewrite-index --json".to_owned(),
        "tags HOST:PORT/org/pushed".to_owned(),
        "delete HOST:PORT/org/app".to_owned(),
        "delete HOST:PORT/org/app --blob".to_owned(),
        "delete HOST:PORT/org/app:1.2".to_owned(),
        "tags HOST:PORT/org/app".to_owned(),
        format!("delete {other} --json"),
        "tags HOST:PORT/org/app".to_owned(),
        format!("delete {other} --blob"),
    ];
    check("registries", &lines.map(|line| place.run(&line)));
    // Showing an image is reading its manifests and its config, no layer.
    let layers = &sample.image_for("linux/amd64").layers;
    place.run("inspect HOST:PORT/org/copied:1 --platform linux/amd64 --remote");
    let last = server.requests();
    let shown = last.iter().rev().take_while(|x| !x.target.contains("/tags/"));
    let of_layers = |target: &str| layers.iter().any(|l| target.ends_with(l.descriptor.digest().as_ref()));
    assert!(shown.filter(|x| x.target.contains("org/copied")).all(|x| !of_layers(&x.target)));
}

/// Root hashes that are attached to an image go with it, where that is asked for.
#[test]
fn root_hashes_are_pushed_with_their_image() {
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &samples::index());
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    let lines = [
        "verity HOST:PORT/org/app:1 --platform linux/amd64 --as erofs --attach --json",
        // The same document is kept once.
        "verity HOST:PORT/org/app:1 --platform linux/amd64 --as erofs --attach --json",
        "verity HOST:PORT/org/app:1 --platform linux/amd64 --as raw --attach",
        "verity HOST:PORT/org/app:1 --platform linux/amd64 --as raw --attach --out {}/none",
        "list --json",
        "push HOST:PORT/org/app:1 HOST:PORT/org/plain:1 --platform linux/amd64",
        "push HOST:PORT/org/app:1 HOST:PORT/org/pushed:1 --platform linux/amd64 --referrers",
    ];
    check("attached", &lines.map(|line| place.run(line)));
    let manifests = |repository: &str| {
        let target = format!("/v2/org/{repository}/manifests/sha256:");
        let requests = server.requests();
        let puts = requests.iter().filter(|x| x.method == "PUT" && x.target.starts_with(&target));
        puts.map(|x| x.target.replace(repository, "")).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(manifests("pushed").difference(&manifests("plain")).count(), 2);
    // Another registry gets them from that one.
    place.run("copy HOST:PORT/org/pushed:1 HOST:PORT/org/copied:1 --referrers");
    assert_eq!(manifests("copied"), manifests("pushed"));
    // Layout directories keep them on the way, and so does another store.
    for line in [
        "copy HOST:PORT/org/pushed:1 oci:{}/layout:1 --referrers",
        "copy oci:{}/layout:1 oci:{}/second:1 --referrers",
        "copy oci:{}/second:1 HOST:PORT/org/back:1 --referrers",
        "load oci:{}/second --store {}/other",
        "push localhost/second:1 HOST:PORT/org/loaded:1 --referrers --store {}/other",
    ] {
        place.run(line);
    }
    assert_eq!(manifests("back"), manifests("pushed"));
    assert_eq!(manifests("loaded"), manifests("pushed"));
}

/// `HTTP_PROXY` is for every host but those of `NO_PROXY`, and what it is asked for is another host's.
#[test]
fn the_proxy_of_the_environment() {
    let proxy = FaultServer::start().unwrap();
    let place = Place::new();
    for (exceptions, through) in [
        ("other.invalid", true),
        ("other.invalid,registry.invalid", false),
        ("registry.invalid:80", false),
        ("registry.invalid:5000", true),
    ] {
        proxy.clear_requests();
        let arguments = ["tags", "registry.invalid/org/app", "-o", "plain-http=registry.invalid", "--json"];
        let mut tags = place.command(arguments);
        tags.env("HTTP_PROXY", format!("http://me:s3cret-word@{}", proxy.host())).env("NO_PROXY", exceptions);
        let said = tags.output().unwrap();
        assert!(!said.status.success());
        assert!(!String::from_utf8_lossy(&said.stderr).contains("s3cret-word"));
        let asked = proxy.requests();
        assert_eq!(!asked.is_empty(), through, "{asked:?}");
        for request in asked {
            assert!(
                request.target.starts_with("http://registry.invalid/v2/org/app/tags/list"),
                "{request:?}"
            );
            assert_eq!(request.header("proxy-authorization"), Some("Basic bWU6czNjcmV0LXdvcmQ="));
        }
    }
}

/// A listing that leads back to where it was ends.
#[test]
fn pages_in_a_circle() {
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &samples::image());
    let place = Place::new();
    for body in [r#"{"tags":["1"]}"#, r#"{"tags":[]}"#] {
        server.clear_scripts();
        for (on, to) in [("list?last=b", "a"), ("list", "b")] {
            let link = format!("</v2/org/app/tags/list?last={to}>; rel=next");
            server.script(On::target(on), [Fault::Body(body.into()), Fault::Header("Link", Some(link))]);
        }
        let repository = format!("{}/org/app", server.host());
        let said = place.command(["tags", &repository]).output().unwrap();
        assert!(!said.status.success());
        assert!(String::from_utf8_lossy(&said.stderr).contains("form a loop"), "{said:?}");
    }
}

/// The size of the layer of a pull that is interrupted, in bytes.
const SIZE: u64 = 16 << 20;

/// A pull that ends in the middle, by itself or not, costs the next one little more than the rest.
#[test]
fn what_has_come_is_not_fetched_again() {
    let mut content = vec![0; SIZE as usize - 3 * 512];
    for (at, byte) in content.iter_mut().enumerate() {
        *byte = (at * 7 + at / 251) as u8;
    }
    let sample =
        samples::of_layers("interrupted", &[LayerBuilder::new().file("f", 0o644, &content).finish()]);
    let layer = sample.images[0].layers[0].descriptor.digest();
    for signal in ["KILL", "INT"] {
        let server = FaultServer::start().unwrap();
        server.put("org/app", "1", &sample);
        server.script(On::blob(layer).times(1), [Fault::Pace(64 << 10, Duration::from_millis(4))]);
        let place = Place::new();
        let image = format!("{}/org/app:1", server.host());
        let pull = || place.command(["pull", &image, "--platform", "linux/amd64", "-q"]);
        let mut child = Running(pull().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let start = Instant::now();
        // What is on its way is not there yet: on a busy machine that is much.
        while largest_in(&place.dir.path().join("store/ingest")) < SIZE / 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "the pull does not move");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The shell's own `kill`: not every machine has the program.
        let kill = format!("kill -s {signal} {}", child.0.id());
        let killed = std::process::Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(killed.success() && !child.0.wait().unwrap().success(), "the pull is interrupted");
        server.clear_requests();
        let again = pull().output().unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        let fetched = server.served(layer).bytes;
        assert!(fetched <= SIZE * 55 / 100, "{signal}: {fetched} bytes of {SIZE}");
        assert!(fetched > SIZE * 10 / 100, "{signal}: it was interrupted in the middle");
    }
}

/// The bytes of the largest file of a directory, which may not be there yet.
fn largest_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).max().unwrap_or(0)
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
