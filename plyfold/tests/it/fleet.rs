//! Stores that machines share: `--store URI`, and `--fleet URI` behind a store.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use plyfold_conformance::samples;
use plyfold_conformance::server::{Fault, FaultServer, On};
use serde_json::Value;

use super::run::Place;

/// A place with a registry that has an image, and the image's name in the lines of runs.
fn place() -> (FaultServer, Place) {
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &samples::index());
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    (server, place)
}

const IMAGE: &str = "HOST:PORT/org/app:1 --platform linux/amd64";

/// The fleet of a place, a folder.
const FLEET: &str = "file://{}/fleet";

/// A run of a node: it has a store of its own in front of the fleet.
fn node(place: &Place, name: &str, line: &str) -> Value {
    let told = place.told(&format!("{line} --store {{}}/{name} --fleet {FLEET}"));
    assert_eq!(told.code, Some(0), "{line}: {told:?}");
    assert_eq!(told.warnings, 0, "{line}: {told:?}");
    told.document
}

/// What a run has written to standard error with `--json`, event by event.
fn events(output: &Output) -> Vec<Value> {
    let lines = output.stderr.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// A run of these words, in which `{}` and `HOST:PORT` stand for what they do in lines.
fn run(place: &Place, line: &str, environment: &[(&str, &str)]) -> Output {
    let folder = place.dir.path().to_str().unwrap();
    let line = line.replace("{}", folder).replace("HOST:PORT", &place.hosts[0]);
    let mut command = place.command(line.split_whitespace());
    for (name, value) in environment {
        command.env(name, value.replace("{}", folder));
    }
    command.output().unwrap()
}

/// All files below a folder, without the locks.
fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { pending.push(path) } else { names.push(path.display().to_string()) }
        }
    }
    names.retain(|name| !name.contains("plyfold-lock"));
    names.sort();
    names
}

/// The rights in a fleet that have not ended: leases say that they have, other objects become a few bytes, and records say that
/// nothing is written.
fn rights(fleet: &Path) -> Vec<String> {
    let is_open = |path: &String| {
        let content = fs::read(path).unwrap();
        let lease = serde_json::from_slice::<Value>(&content).unwrap_or_default();
        content.len() > 16 && lease["ended"] != true
    };
    let folders = ["leases", "flights", "transactions"].map(|name| fleet.join(name));
    let mut rights: Vec<String> = folders.iter().flat_map(|folder| files(folder)).filter(is_open).collect();
    let is_written =
        |path: &String| String::from_utf8_lossy(&fs::read(path).unwrap()).contains(r#""writing""#);
    rights.extend(files(&fleet.join("blobs")).into_iter().filter(is_written));
    rights
}

#[test]
fn a_second_node_fetches_and_converts_nothing() {
    let (server, place) = place();
    node(&place, "one", &format!("materialize {IMAGE} --as erofs --out {{}}/a"));
    assert!(server.requests().iter().any(|request| request.target.contains("/blobs/")));
    server.clear_requests();
    let output = run(
        &place,
        &format!("materialize {IMAGE} --as erofs --out {{}}/b --store {{}}/two --fleet {FLEET} --json"),
        &[],
    );
    assert!(output.status.success(), "{output:?}");
    let made = |name: &str| fs::read(place.dir.path().join(name).join("rootfs.erofs")).unwrap();
    assert!(made("a") == made("b"), "the disks of two nodes differ");
    // The name is in the fleet: the registry is not asked at all.
    assert_eq!(server.requests().len(), 0, "{:?}", server.requests());
    let events = events(&output);
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).cloned().collect::<Vec<_>>();
    let fleet = format!("file://{}/fleet", place.dir.path().display());
    let opened = of("blob-opened");
    assert!(!opened.is_empty() && opened.iter().all(|event| event["endpoint"] == fleet), "{opened:?}");
    // What is converted was read from the fleet, and is the same file.
    assert!(of("layer-done").iter().all(|event| event["cached"] == true), "{events:?}");
    // A third one, with the registry gone, and with the fleet gone after it.
    drop(server);
    node(&place, "three", &format!("materialize {IMAGE} --as raw --out {{}}/c"));
    fs::rename(place.dir.path().join("fleet"), place.dir.path().join("gone")).unwrap();
    node(&place, "three", &format!("pull {IMAGE}"));
    node(&place, "three", &format!("materialize {IMAGE} --as raw --out {{}}/d"));
    assert!(!place.dir.path().join("fleet").exists(), "a warm store asks the fleet for nothing");
}

#[test]
fn a_store_is_a_uri() {
    let (server, place) = place();
    let told = |line: &str| {
        let told = place.told(&format!("{line} --store {FLEET}"));
        assert_eq!(told.code, Some(0), "{line}: {told:?}");
        told.document
    };
    let pulled = told(&format!("pull {IMAGE}"));
    assert_eq!(pulled["store"], FLEET.replace("{}", place.dir.path().to_str().unwrap()));
    drop(server);
    let name = pulled["reference"].as_str().unwrap();
    assert_eq!(told("list")["images"][0]["reference"], name);
    assert_eq!(told(&format!("pin {name}"))["pinned"][0], name);
    assert_eq!(told("list")["images"][0]["pinned"], true);
    assert_eq!(told("gc --budget 1")["evicted"].as_array().unwrap().len(), 0);
    told(&format!("unpin {name}"));
    told(&format!("tag {name} a.example/again:1"));
    assert_eq!(told("verify")["damage"].as_array().unwrap().len(), 0);
    for (line, file) in [
        ("inspect a.example/again:1 --platform linux/amd64", None),
        ("ls -R a.example/again:1 --platform linux/amd64 --policy never", None),
        ("save a.example/again:1 --platform linux/amd64 --out {}/saved.tar", Some("saved.tar")),
        ("push a.example/again:1 oci:{}/layout:1 --platform linux/amd64", Some("layout/index.json")),
        ("sync store {}/site.tar", Some("site.tar")),
        (
            "materialize a.example/again:1 --platform linux/amd64 --as erofs --out {}/disks",
            Some("disks/rootfs.erofs"),
        ),
    ] {
        told(line);
        assert!(file.is_none_or(|file| place.dir.path().join(file).exists()), "{line}");
    }
    told(&format!("remove {name} a.example/again:1"));
    assert!(!told("gc")["blobs"].as_array().unwrap().is_empty());
    // And into it again.
    told("load {}/saved.tar");
    told("sync {}/site.tar store");
    assert_eq!(told("list")["images"].as_array().unwrap().len(), 2);
    // Its folder is no place for what is made of it.
    let within = place.told(&format!("save a.example/again:1 --out {{}}/fleet/x.tar --store {FLEET}"));
    assert!(within.is_refused("config"), "{within:?}");
}

/// Other machines would wait until the rights of a process that has ended expire.
#[test]
fn no_right_outlasts_the_program() {
    let (server, place) = place();
    let fleet = place.dir.path().join("fleet");
    for number in 0..5 {
        let told = place.told(&format!("pull {IMAGE} --store {{}}/{number} --fleet {FLEET}"));
        assert_eq!(told.code, Some(0), "{told:?}");
        assert_eq!(rights(&fleet), [""; 0], "run {number}");
    }
    // One that is interrupted in the middle of a blob.
    let content: Vec<u8> = (0..8_u32 << 20).map(|at| (at * 7 + at / 251) as u8).collect();
    let layer = samples::LayerBuilder::new().file("f", 0o644, &content).finish();
    let sample = samples::of_layers("interrupted", &[layer]);
    server.put("org/slow", "1", &sample);
    let blob = sample.images[0].layers[0].descriptor.digest();
    server.script(On::blob(blob).times(1), [Fault::Pace(64 << 10, Duration::from_millis(20))]);
    let image = format!("{}/org/slow:1", server.host());
    let (store, uri) = (place.path("slow"), FLEET.replace("{}", place.dir.path().to_str().unwrap()));
    let words = ["pull", &image, "--platform", "linux/amd64", "-q", "--store", &store, "--fleet", &uri];
    let mut child = place.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while rights(&fleet).is_empty() || server.served(blob).requests == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "the pull does not move");
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = format!("kill -s INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert!(!child.wait().unwrap().success());
    assert_eq!(rights(&fleet), [""; 0]);
}

/// Nothing is made where nothing is stored.
#[test]
fn a_store_that_is_absent_is_made_by_what_stores() {
    let (server, place) = place();
    for line in ["list", "verify", "gc", "ls HOST:PORT/org/app:1 --policy never"] {
        let told = place.told(&format!("{line} --store {FLEET}"));
        assert_eq!(
            (told.code, &told.error["kind"]),
            (Some(3), &Value::from("not-found")),
            "{line}: {told:?}"
        );
    }
    let failed = place.told(&format!("pull HOST:PORT/org/none:1 --store {FLEET}"));
    assert_eq!(failed.code, Some(3), "{failed:?}");
    // That of the environment counts as an empty one.
    let output = run(&place, "list --json", &[("PLYFOLD_STORE", FLEET)]);
    assert!(output.status.success(), "{output:?}");
    let looked = place.told(&format!("sync oci:examples/sample store --dry-run --store {FLEET}"));
    assert_eq!((looked.code, looked.warnings), (Some(0), 1), "{looked:?}");
    assert_eq!(files(&place.dir.path().join("fleet")), [""; 0]);
    server.clear_requests();
    let pulled = run(&place, &format!("pull {IMAGE} --json"), &[("PLYFOLD_STORE", FLEET)]);
    assert!(pulled.status.success(), "{pulled:?}");
    assert!(place.dir.path().join("fleet/plyfold.json").is_file());
}

#[test]
fn a_fleet_is_not_asked_where_nothing_may_be() {
    let (server, place) = place();
    node(&place, "one", &format!("pull {IMAGE}"));
    // A node that has nothing, and may ask for nothing.
    let never = place.told(&format!("pull {IMAGE} --policy never --store {{}}/two --fleet {FLEET}"));
    assert_eq!(never.code, Some(3), "{never:?}");
    fs::create_dir(place.dir.path().join("two")).unwrap();
    drop(server);
    // The environment names it, too.
    let line = format!("pull {IMAGE} --store {{}}/two --json");
    let output = run(&place, &line, &[("PLYFOLD_FLEET", FLEET)]);
    assert!(output.status.success(), "{output:?}");
    // Both have the names of both: what this machine lacks is listed as the fleet's.
    node(&place, "one", "tag HOST:PORT/org/app:1 a.example/other:1");
    let listed = node(&place, "two", "list");
    assert_eq!(listed["images"].as_array().unwrap().len(), 1);
    assert_eq!(listed["fleet"][0]["reference"], "a.example/other:1");
    let alone = place.told("list --store {}/two");
    assert_eq!(alone.document["fleet"], Value::Null);
}

#[test]
fn a_fleet_that_is_read_from_is_not_written() {
    let (server, place) = place();
    node(&place, "one", &format!("pull {IMAGE}"));
    let before = files(&place.dir.path().join("fleet"));
    drop(server);
    for line in [
        &format!("materialize {IMAGE} --as erofs --out {{}}/a"),
        "tag HOST:PORT/org/app:1 a.example/mine:1",
        "pin a.example/mine:1",
        "remove a.example/mine:1",
    ] {
        node(&place, "two", &format!("{line} --store-option read-only=true"));
    }
    assert_eq!(files(&place.dir.path().join("fleet")), before);
}

#[test]
fn what_is_no_place_is_refused_with_a_hint() {
    let (_server, place) = place();
    for line in [
        "list --store s4://bucket",
        "list --store other:place",
        "list --store s3:///prefix",
        "list --store file:relative",
        "list --store memory:///a",
        "list --store file:///nonexistent/a --store-option no-such=1",
        "list --store file:///nonexistent/a --store-option no-value",
        "list --store-option endpoint=http://127.0.0.1:1",
        "list --fleet {}/folder",
        "list --fleet s4://bucket",
        "list --fleet file://{}/fleet --store-option no-such=1",
        "list --fleet file://{}/fleet --store file://{}/fleet",
    ] {
        let told = place.told(line);
        assert_eq!(told.code, Some(2), "{line}: {told:?}");
        assert!(told.is_refused("config"), "{line}: {told:?}");
    }
    // A directory is one by its name.
    fs::create_dir(place.dir.path().join("s3:dir")).unwrap();
    let told = place.told(&format!("pull {IMAGE} --store {{}}/s3:dir"));
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(place.dir.path().join("s3:dir/index.json").is_file());
    // What is a fleet for the environment is not one in front of itself.
    let output = run(&place, &format!("list --store {FLEET} --json"), &[("PLYFOLD_FLEET", FLEET)]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

/// A port that nothing listens on, and one that never answers: one warning, and the store and the registry are used.
#[test]
fn a_fleet_that_cannot_be_reached_is_done_without() {
    let (server, place) = place();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let keys = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "none")];
    let fleet = |port: SocketAddr| {
        format!(
            "--fleet s3://bucket/fleet --store-option endpoint=http://{port} --store-option allow-http=true"
        )
    };
    let warnings = |output: &Output| {
        assert!(output.status.success(), "{output:?}");
        events(output).into_iter().filter(|event| event["event"] == "warning").count()
    };
    for (store, port) in [("closed", closed), ("silent", silent.local_addr().unwrap())] {
        let (start, fleet) = (Instant::now(), fleet(port));
        let line = format!(
            "materialize {IMAGE} --as erofs --out {{}}/of-{store} --json --store {{}}/{store} {fleet}"
        );
        let output = run(&place, &line, &keys);
        assert_eq!(warnings(&output), 1, "{output:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{store}: {:?}", start.elapsed());
    }
    // What is here by now is not asked for.
    drop(server);
    let output = run(&place, &format!("pull {IMAGE} --json --store {{}}/closed {}", fleet(closed)), &keys);
    assert_eq!(warnings(&output), 0, "{output:?}");
}
