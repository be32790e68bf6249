//! The backend against the suites about registries, hostile documents and HTTP.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod exceptions;
mod fixture;
#[expect(dead_code, reason = "its own `main` builds the client; here the tests do")]
#[path = "../../examples/pull.rs"]
mod pull;
mod transfers;

use std::process::{Command, ExitCode};
use std::{env, fs};

use libtest_mimic::{Arguments, Trial};
use plyfold_conformance::{hostile, rules};

use crate::fixture::{Http, Peer};

/// `reqwest` panics on a machine without any CA, although nothing here is verified: this process gives one to another,
/// which runs the tests.
fn main() -> ExitCode {
    if env::var_os("SSL_CERT_FILE").is_none() {
        let ca = tempfile::NamedTempFile::new().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&ca, made.cert.pem()).unwrap();
        let mut child = Command::new(env::current_exe().unwrap());
        let status = child.args(env::args_os().skip(1)).env("SSL_CERT_FILE", ca.path()).status().unwrap();
        return u8::try_from(status.code().unwrap_or(1)).unwrap_or(1).into();
    }
    // It takes whichever provider the process has, and panics without one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut trials: Vec<Trial> = Vec::new();
    let mut test = |group: &str, name: &str, check: Box<dyn FnOnce() + Send>| {
        trials.push(Trial::test(format!("{group}::{name}"), || {
            check();
            Ok(())
        }));
    };
    for rule in rules::registry() {
        test("suite", rule.name, Box::new(move || rule.judge(&Peer::new())));
    }
    for row in hostile::rows() {
        test("suite", row.name, Box::new(move || row.judge(&Peer::new())));
    }
    for rule in rules::http() {
        test("http_suite", rule.name, Box::new(move || rule.judge(&Http)));
    }
    for (name, check) in transfers::TESTS {
        test("transfers", name, Box::new(check));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
