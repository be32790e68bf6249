//! `login` and `logout`, as the user and the next program see them.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use plyfold_conformance::samples;
use plyfold_conformance::server::{Auth, FaultServer, Login, Options};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use super::run::{Place, check};

const PASSWORD: &str = "s3cret-word";

fn serve(auth: Auth) -> (FaultServer, Place) {
    let server = FaultServer::with(Options { auth, ..Options::default() }).unwrap();
    server.put("org/app", "1", &samples::image());
    let place = Place { hosts: vec![server.host().to_owned()], ..Place::new() };
    (server, place)
}

fn locked() -> (FaultServer, Place) {
    serve(Auth::Basic(Login::new("me", PASSWORD)))
}

#[test]
fn credentials_are_tried_stored_used_and_forgotten() {
    let (_server, place) = locked();
    let pull = "pull HOST:PORT/org/app:1 --platform linux/amd64 -q -o auth-file={}/auth.json";
    let fed = |line: &str, input: &str| place.run_fed(line, input.as_bytes());
    let runs = [
        place.run("login HOST:PORT --authfile {}/auth.json"),
        place.run("login HOST:PORT -u me --authfile {}/auth.json"),
        fed("login HOST:PORT -u me --password-stdin --authfile {}/auth.json", "wrong\n"),
        place.run("logout HOST:PORT --authfile {}/auth.json"),
        fed("login HOST:PORT -u me --password-stdin --authfile {}/auth.json", &format!("{PASSWORD}\n")),
        place.run(pull),
        fed(
            "login HOST:PORT -u me --password-stdin --authfile {}/auth.json --json",
            &format!("{PASSWORD}\r\n"),
        ),
        place.run("logout HOST:PORT --authfile {}/auth.json --json"),
        place.run("remove HOST:PORT/org/app:1"),
        place.run(pull),
        fed("login user@host/path -u me --password-stdin --authfile {}/auth.json", "x"),
    ];
    for run in &runs {
        assert!(!run.contains(PASSWORD), "{run}");
    }
    check("login", &runs);
}

#[test]
fn a_registry_that_asks_for_nothing_says_so() {
    let (_server, place) = serve(Auth::Anonymous);
    let line = "login HOST:PORT -u me --password-stdin --authfile {}/auth.json --json";
    let run = place.run_fed(line, b"anything");
    assert!(run.contains(r#""checked": false"#), "{run}");
}

/// What Docker has written stays, and the file is the user's alone.
#[test]
fn the_file_is_docker_s_own() {
    let (_server, place) = locked();
    let folder = place.dir.path().join("docker");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("config.json");
    fs::write(&file, r#"{"HttpHeaders":{"X":"y"},"auths":{"other.lan":{"auth":"b3RoZXI6cHc="}}}"#).unwrap();
    let arguments = ["login", &place.hosts[0], "-u", "me", "--password-stdin"];
    let mut command = place.command(arguments);
    command.env("DOCKER_CONFIG", &folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(document["HttpHeaders"]["X"], "y");
    assert_eq!(document["auths"]["other.lan"]["auth"], "b3RoZXI6cHc=");
    assert_eq!(document["auths"][&place.hosts[0]]["auth"], "bWU6czNjcmV0LXdvcmQ=");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let image = format!("{}/org/app:1", place.hosts[0]);
    let mut pull = place.command(["pull", &image, "--platform", "linux/amd64"]);
    assert!(pull.env("DOCKER_CONFIG", &folder).output().unwrap().status.success());
}

/// podman's file is read before Docker's: an old login there is still used, and `login` warns about it.
#[test]
fn another_login_that_is_read_first_is_told() {
    let (_server, place) = locked();
    let host = &place.hosts[0];
    let (home, older) = (place.dir.path().join("home"), place.dir.path().join("run/containers/auth.json"));
    fs::create_dir_all(older.parent().unwrap()).unwrap();
    let login = |more: &[&str]| {
        let arguments = ["login", host, "-u", "me", "--password-stdin"];
        let mut command = place.command(arguments.iter().chain(more));
        command.env("HOME", &home).env("XDG_RUNTIME_DIR", place.dir.path().join("run"));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output
    };
    for (auth, is_told) in [("bWU6b2xk", true), ("bWU6czNjcmV0LXdvcmQ=", false)] {
        fs::write(&older, format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#)).unwrap();
        let document: Value = serde_json::from_slice(&login(&["--json"]).stdout).unwrap();
        assert_eq!(document["shadowed_by"].as_str(), is_told.then(|| older.to_str().unwrap()), "{auth}");
        let said = String::from_utf8(login(&[]).stderr).unwrap();
        assert_eq!(said.contains("is read first: plyfold logout"), is_told, "{said}");
    }
}

/// On a terminal both are asked for, and the password is not shown.
#[test]
fn a_terminal_does_not_show_the_password() {
    let (_server, place) = locked();
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let path = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(path).unwrap();
    let authfile = place.path("auth.json");
    let mut command = place.command(["login", &place.hosts[0], "--authfile", &authfile]);
    command.stdin(terminal.try_clone().unwrap()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = child.stderr.take().unwrap();
    let mut typed = File::from(controller.as_fd().try_clone_to_owned().unwrap());
    let mut wait_for = |question: &str| {
        let mut text = String::new();
        while !text.ends_with(question) {
            let mut byte = [0];
            assert_eq!(said.read(&mut byte).unwrap(), 1, "it ended after {text:?}");
            text.push(char::from(byte[0]));
        }
    };
    wait_for("user name: ");
    typed.write_all(b"me\n").unwrap();
    wait_for("password: ");
    typed.write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    // What the terminal has shown, up to a mark of our own.
    typed.write_all(b"mark\n").unwrap();
    let mut shown = String::new();
    while !shown.contains("mark") {
        let mut bytes = [0; 64];
        let count = typed.read(&mut bytes).unwrap();
        shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    assert!(shown.starts_with("me"), "{shown:?}");
    assert!(!shown.contains(PASSWORD), "{shown:?}");
    assert!(fs::read_to_string(authfile).unwrap().contains("bWU6czNjcmV0LXdvcmQ="));
}
