//! Credential helpers: programs named `docker-credential-NAME` that keep secrets for Docker.
//!
//! The protocol is that of docker-credential-helpers: `get` with the server on standard input answers with JSON on
//! standard output, `store` takes such JSON, `erase` a server. Nothing that a helper writes ever gets into an error: it
//! may be a secret.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use plyfold_core::{Credential, Error, ErrorKind, Result, Secret};
use serde::Deserialize;
use serde_json::json;

use super::grant::login;
use crate::Config;

/// Bytes of a helper's answer that are read.
const ANSWER: u64 = 64 << 10;
/// What helpers write to standard output, with a failing exit code, when they have no credential.
const NOT_FOUND: &[u8] = b"credentials not found in native keychain";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: Option<Secret>,
    secret: Option<Secret>,
}

/// How helpers are asked.
#[derive(Clone, Debug)]
pub(super) struct Helpers {
    /// Where they are; `None` is `$PATH`.
    path: Option<PathBuf>,
    /// How long one may take.
    timeout: Duration,
}

impl Helpers {
    pub(super) fn new(config: &Config) -> Self {
        Self { path: config.helper_path.clone(), timeout: config.helper_timeout }
    }

    /// Asks the helper `name` for the credential of `server`.
    ///
    /// # Errors
    /// `Auth` when it is not there, hangs, fails or answers with anything else than a credential.
    pub(super) fn credential(&self, name: &str, server: &str) -> Result<Option<Credential>> {
        let Some(answer) = self.ask(name, "get", server)? else { return Ok(None) };
        let parsed: Answer =
            serde_json::from_slice(&answer).map_err(|_| failed(name, "its answer is no credential"))?;
        let given = |secret: Option<Secret>| secret.unwrap_or_else(|| Secret::new(""));
        let (username, secret) = (given(parsed.username), given(parsed.secret));
        Ok(match (username.reveal(), secret.reveal()) {
            // Some helpers answer so when they have no credential.
            ("", "") => None,
            _ => Some(login(username, secret)),
        })
    }

    /// Hands a credential over.
    ///
    /// # Errors
    /// As [`Helpers::credential`].
    pub(super) fn store(&self, name: &str, server: &str, user: &Secret, secret: &Secret) -> Result<()> {
        let entry = json!({ "ServerURL": server, "Username": user.reveal(), "Secret": secret.reveal() });
        let stored = self.ask(name, "store", &entry.to_string())?;
        stored.map(drop).ok_or_else(|| failed(name, "it has no credential for this registry"))
    }

    /// Erases a credential; returns whether there was one.
    ///
    /// # Errors
    /// As [`Helpers::credential`].
    pub(super) fn erase(&self, name: &str, server: &str) -> Result<bool> {
        Ok(self.ask(name, "erase", server)?.is_some())
    }

    /// Runs a helper; `None` when it answers that it has no such credential.
    fn ask(&self, name: &str, verb: &str, input: &str) -> Result<Option<Vec<u8>>> {
        let known = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        if name.is_empty() || !name.bytes().all(known) {
            return Err(
                failed(name, "its name is not valid").with_hint("it is the NAME of docker-credential-NAME")
            );
        }
        let program = format!("docker-credential-{name}");
        let program = self.path.as_ref().map_or_else(|| program.clone().into(), |path| path.join(&program));
        let deadline = Instant::now() + self.timeout;
        let mut command = Command::new(program);
        command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => failed(name, "it is not installed").with_hint(format!(
                "put docker-credential-{name} into PATH, or take it out of Docker's config.json"
            )),
            _ => failed(name, "it cannot be started").with_source(e),
        })?;
        let mut child = Killed(child);
        if let Some(mut stdin) = child.0.stdin.take() {
            let input = input.to_owned();
            // Not joined: one that does not read its input may still answer, and a pipe takes 64 KiB.
            thread::spawn(move || {
                let _ = stdin.write_all(input.as_bytes());
            });
        }
        let answer =
            answer(&mut child.0, deadline).ok_or_else(|| failed(name, "it does not answer in time"))?;
        if answer.len() as u64 > ANSWER {
            return Err(failed(name, "its answer is too long"));
        }
        let status = ended(&mut child.0, name, deadline)?;
        match status.success() {
            true => Ok(Some(answer)),
            false if answer.trim_ascii() == NOT_FOUND => Ok(None),
            false => Err(failed(name, &format!("it failed ({status})"))),
        }
    }
}

fn ended(child: &mut Child, name: &str, deadline: Instant) -> Result<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) => return Err(failed(name, "it does not end in time")),
            Err(e) => return Err(failed(name, "it cannot be waited for").with_source(e)),
        }
    }
}

/// What the helper writes, up to a byte more than it may; `None` when it is not done by `deadline`.
fn answer(child: &mut Child, deadline: Instant) -> Option<Vec<u8>> {
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    // Not joined: a grandchild may keep the pipe open for ever.
    thread::spawn(move || {
        let mut answer = Vec::new();
        if stdout.take(ANSWER + 1).read_to_end(&mut answer).is_ok() {
            let _ = sender.send(answer);
        }
    });
    receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

/// A child process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn failed(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Auth, format!("the credential helper {name:?} failed: {why}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    /// Asks a shell script.
    fn asked(script: &str) -> Result<Option<Credential>> {
        helpers(scripted(script).path()).credential("test", "r.example")
    }

    /// A folder with a shell script for a helper.
    fn scripted(script: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-credential-test");
        // Written by another process: a descriptor for writing that a fork inherits makes the script busy.
        let written = Command::new("sh")
            .args(["-c", r#"printf '%s' "$1" > "$2""#, "sh", &format!("#!/bin/sh\n{script}\n")])
            .arg(&path)
            .status();
        assert!(written.unwrap().success());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        folder
    }

    fn helpers(path: &Path) -> Helpers {
        Helpers { path: Some(path.to_owned()), timeout: Duration::from_secs(2) }
    }

    #[test]
    fn a_helper_is_asked_for_the_server_and_answers() {
        let script = r#"read -r server; [ "$1" = get ] && printf '{"ServerURL":"%s","Username":"%s","Secret":"s3"}' "$server" "$server""#;
        let basic = Credential::Basic(Secret::new("r.example"), Secret::new("s3"));
        assert_eq!(asked(script).unwrap(), Some(basic));
        let token = r#"printf '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(asked(token).unwrap(), Some(Credential::IdentityToken(Secret::new("t"))));
        assert_eq!(asked("echo credentials not found in native keychain; exit 1").unwrap(), None);
        // A helper of one registry that is asked for another: it succeeds with nothing.
        assert_eq!(asked(r#"printf '{"ServerURL":"","Username":"","Secret":""}'"#).unwrap(), None);
    }

    /// Row 74 of the catalogue of bad inputs.
    #[test]
    fn a_broken_helper_is_an_error_in_bounded_time_that_tells_no_secret() {
        for script in [
            "echo hunter2; exit 1",
            "echo hunter2",
            r#"printf '{"Username":"u","Secret":["hunter2"]}'"#,
            "sleep 60",
            "sleep 60 & exec >&-; wait",
            "while :; do echo hunter2hunter2hunter2hunter2hunter2hunter2; done",
            "exit 0",
        ] {
            let start = Instant::now();
            let error = asked(script).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Auth, "{script}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{script}: {error:?}");
            assert!(start.elapsed() < Duration::from_secs(20), "{script}");
        }
        let folder = scripted("sleep 20");
        let start = Instant::now();
        let long = Secret::new("hunter2".repeat(20_000));
        let error = helpers(folder.path()).store("test", "r.example", &Secret::new("u"), &long).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(10) && !format!("{error:?}").contains("hunter2"));
        for name in ["", "../../bin/sh", "a b", "no-such-helper-anywhere"] {
            let error = helpers(Path::new("/nonexistent")).credential(name, "r.example").unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Auth, "{name}");
            assert!(error.hint().is_some(), "{name}");
        }
    }
}
