//! What the rules about HTTP need: servers, credentials in all their forms, and what was asked for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use plyfold_core::{BlobRange, ImageRegistry, Reference};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::probe::{read, sound};
use crate::samples::Sample;
use crate::server::{Auth, Exchange, FaultServer, Login, Options};
use crate::{HttpFixture, HttpSetup};

pub(super) const USER: &str = "user-5d0c";
/// What no error, no `Debug` and no other server may ever see.
pub(super) const PASSWORD: &str = "pw-7b1e4c";
/// The two as `auth` of Docker's `config.json`, and behind `Basic`.
pub(super) const LOGIN: &str = "dXNlci01ZDBjOnB3LTdiMWU0Yw==";
/// How long tokens are good for: longer than any rule takes.
pub(super) const LIFE: Duration = Duration::from_secs(300);

/// A server that has the sample as `library/app:1.2`.
pub(super) fn serve(auth: Auth, sample: &Sample) -> FaultServer {
    let server = FaultServer::with(Options { auth, ..Options::default() });
    let server = server.expect("the loopback interface has a free port");
    server.put("library/app", "1.2", sample);
    server
}

/// The name of what [`serve`] stores.
pub(super) fn by_tag(setup: &HttpSetup) -> Reference {
    setup.reference("library/app:1.2")
}

pub(super) fn login() -> Login {
    Login::new(USER, PASSWORD)
}

pub(super) fn bearer() -> Auth {
    Auth::Bearer { login: Some(login()), ttl: LIFE, realm: None }
}

pub(super) async fn opened(fixture: &dyn HttpFixture, setup: &HttpSetup) -> Box<dyn ImageRegistry> {
    sound(fixture.open(setup).await)
}

/// A folder whose `config.json` has this entry for the server.
pub(super) fn stored(server: &FaultServer, entry: &Value) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), &json!({ "auths": { server.host(): entry } }));
    folder
}

pub(super) fn write(folder: &Path, config: &Value) {
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file can be written");
}

/// A shell script that can be started.
pub(super) fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    // Written by another process: a descriptor for writing that a fork inherits makes the script busy.
    let written = Command::new("sh")
        .args(["-c", r#"printf '%s' "$1" > "$2""#, "sh", &format!("#!/bin/sh\n{script}\n")])
        .arg(&path)
        .status();
    assert!(written.is_ok_and(|status| status.success()), "a script can be written");
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&path, mode).expect("a file's mode can be set");
}

/// Reads every blob of the sample that is no manifest, whole.
pub(super) async fn read_all(registry: &dyn ImageRegistry, name: &Reference, sample: &Sample) {
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        let content = read(registry.blob(name, &blob.descriptor, BlobRange::FULL).await).await;
        assert!(sound(content) == blob.bytes, "the bytes of {}", blob.descriptor.digest());
    }
}

/// The requests for tokens.
pub(super) fn tokens(server: &FaultServer) -> Vec<Exchange> {
    server.requests().into_iter().filter(|exchange| exchange.target.starts_with("/token")).collect()
}

/// The `Authorization` headers of requests whose target contains `text`.
pub(super) fn bearers(requests: &[Exchange], text: &str) -> Vec<String> {
    let of = requests.iter().filter(|exchange| exchange.target.contains(text));
    of.filter_map(|exchange| exchange.header("authorization").map(str::to_owned)).collect()
}
