//! Copies and their ends: names, options, and what needs no store.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use plyfold_conformance::samples::{self, LayerBuilder, docker_archive};
use plyfold_conformance::server::{Auth, Fault, FaultServer, Login, On, Options};

use super::run::{Place, check, failure};

#[test]
fn copies_go_where_they_are_told() {
    let auth = Auth::Basic(Login::new("me", "secret"));
    let server = FaultServer::with(Options { auth, ..Options::default() }).unwrap();
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    let sample = "copy oci:examples/sample --platform linux/amd64";
    let login = "-o username=me -o password=secret";
    let lines = [
        format!("{sample} oci:{{}}/layout"),
        format!("{sample} oci:{{}}/layout:1"),
        format!("{sample} oci:{{}}/layout:2 -v"),
        // There is one image now, without a name.
        format!("{sample} oci:{{}}/layout"),
        format!("{sample} oci-archive:{{}}/new.tar:1"),
        format!("{sample} {{}}/layout:1 -v"),
        format!("{sample} HOST:PORT/org/app:1 {login} -q"),
        format!("{sample} HOST:PORT/org/app:1 -o depth=3"),
        format!("{sample} HOST:PORT"),
        format!("copy HOST:PORT/org/app:1 registry.invalid/org/app:1 {login}"),
        format!("copy HOST:PORT/org/app:1 HOST:PORT/org/other:1 {login} -q"),
        format!("tags HOST:PORT/ {login}"),
        "delete docker-archive:{}/new.tar:app:1".to_owned(),
    ];
    check("copies", &lines.map(|line| place.run(&line)));
}

#[test]
fn some_platforms_of_an_index_are_copied() {
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &samples::index());
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    let (image, platforms) = ("HOST:PORT/org/app:1", "--platform linux/amd64 --platform linux/arm64");
    let lines = [
        format!("copy {image} oci:{{}}/part:1 {platforms} -q"),
        format!("copy {image} oci:{{}}/part:1 {platforms} --sparse keep -q"),
        format!("copy {image} oci:{{}}/part:2 {platforms} --sparse rewrite -q"),
        "copy oci:{}/part:2 oci:{}/part:3 -q".to_owned(),
        "load {}/part -q".to_owned(),
        format!("copy {image} oci:{{}}/part:4 --platform linux/amd64 --platform linux/s390x -q"),
        format!("pull {image} {platforms}"),
    ];
    check("platforms", &lines.map(|line| place.run(&line)));
}

/// In /proc no directory can be made.
#[test]
fn only_verbs_about_the_store_need_one() {
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &samples::image());
    let place = Place::new();
    let image = format!("{}/org/app:1", server.host());
    let layout = format!("oci:{}:1", place.path("layout"));
    let run = |arguments: &[&str]| {
        let output = place.command(arguments).env("PLYFOLD_STORE", "/proc/none/store").output().unwrap();
        failure(&output)
    };
    let (code, said) = run(&["pull", &image, "-q"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("error: making the directory /proc/none"), "{said}");
    for arguments in [
        &["tags", &image][..],
        &["inspect", "--remote", &image, "--platform", "linux/amd64"],
        &["copy", &image, &layout],
        &["delete", &image],
    ] {
        let (code, said) = run(arguments);
        assert_eq!(code, Some(0), "{said}");
    }
}

fn archive(content: &[u8]) -> Vec<u8> {
    let image = samples::of_layers("app", &[LayerBuilder::new().file("a", 0o644, content).finish()]);
    docker_archive(&[("a.example/app:1".to_owned(), &image)])
}

/// Two archives may give one name: each is what it holds, and not what another one held.
#[test]
fn what_is_on_this_machine_is_asked_each_time() {
    let place = Place::new();
    let export = |archive: &[u8]| {
        fs::write(place.path("app.tar"), archive).unwrap();
        let uri = format!("docker-archive:{}", place.path("app.tar"));
        let output =
            place.command(["export", &uri, "--platform", "linux/amd64", "--out", "-"]).output().unwrap();
        assert!(output.status.success(), "{:?}", failure(&output));
        output.stdout
    };
    let (one, other) = (export(&archive(b"one")), export(&archive(b"other")));
    let holds = |tar: &[u8], content: &[u8]| tar.windows(content.len()).any(|window| window == content);
    assert!(holds(&one, b"one") && !holds(&one, b"other"));
    assert!(holds(&other, b"other") && !holds(&other, b"one"));
    // A name is asked for only if something is missing.
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &samples::image());
    let image = format!("{}/org/app:1", server.host());
    let pull = || place.command(["pull", &image, "--platform", "linux/amd64"]).output().unwrap();
    assert!(pull().status.success());
    server.clear_requests();
    server.script(On::any(), [Fault::Status(500)]);
    assert!(pull().status.success());
    assert!(server.requests().is_empty());
}

#[test]
fn archives_and_tars_go_through_pipes() {
    let place = Place::new();
    let loaded = place.run_fed("load - -q --platform linux/amd64", &archive(b"piped"));
    assert!(
        loaded.starts_with("$ plyfold load - -q --platform linux/amd64\n[exit 0]\n-- out\na.example/app:1")
    );
    let listed = place.run_fed("load - --list", &archive(b"piped"));
    assert!(listed.contains("[exit 0]") && listed.contains("\na.example/app:1  sha256:"), "{listed}");
    for (image, code) in [("a.example/app:1", 0), ("@0", 0), ("@7", 3), ("a.example/other:1", 3)] {
        let chosen = place.run_fed(&format!("load - -q --image {image}"), &archive(b"piped"));
        assert!(chosen.contains(&format!("[exit {code}]")), "{chosen}");
    }
    // What is said names standard input, and no file that was made for it.
    for (input, code) in [(archive(b"told"), "[exit 0]"), (b"no archive\n".repeat(100), "[exit 5]")] {
        let told = place.run_fed("load - --json --platform linux/amd64", &input);
        let temporary = std::env::temp_dir().join(".tmp").display().to_string();
        assert!(told.contains(code) && told.contains("/dev/stdin") && !told.contains(&temporary), "{told}");
    }
    let export = |out: &str| {
        ["export", "a.example/app:1", "--platform", "linux/amd64", "--out", out].map(str::to_owned)
    };
    let piped = place.command(export("-")).output().unwrap();
    assert!(place.command(export(&place.path("rootfs.tar"))).status().unwrap().success());
    assert!(piped.stdout == fs::read(place.path("rootfs.tar")).unwrap());
    // A reader that has seen enough is no failure.
    let mut child = place.command(export("-")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
    for line in ["export a.example/app:1 --out - --json", "disk --size 64M --out -"] {
        assert!(place.run(line).contains("[exit 2]"), "{}", place.run(line));
    }
    assert_eq!(place.files(), ["rootfs.tar"]);
}

#[test]
fn a_disk_that_was_written_to_is_never_replaced() {
    let place = Place::new();
    let disk = place.path("disk.ext4");
    let make = |size: &str| place.command(["disk", "--size", size, "--out", &disk]).output().unwrap();
    assert!(make("64M").status.success() && make("64M").status.success());
    assert_eq!(make("65M").status.code(), Some(2));
    let mut bytes = fs::read(&disk).unwrap();
    // s_mnt_count, offset 52 of the superblock at 1024: a kernel has mounted it.
    bytes[1024 + 52] += 1;
    fs::write(&disk, &bytes).unwrap();
    let (code, said) = failure(&make("64M"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("disk.ext4"), "{said}");
    assert!(fs::read(&disk).unwrap() == bytes);
}
