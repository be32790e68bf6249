//! The backend against the suite's loopback registry, honest and scripted.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod auth;
mod blobs;
mod bound;
mod faults;
mod fixture;
mod front;
mod hostile;
mod hosts;
mod listing;
mod push;
mod secrets;
mod tls;
mod transfers;

mod suite {
    use plyfold_conformance::fixtures::Server;
    use plyfold_core::{ImageRegistry, Result};

    async fn connect(host: String) -> Result<Box<dyn ImageRegistry>> {
        Ok(Box::new(crate::open(&host, |_| ())))
    }

    plyfold_conformance::registry_suite!(Server::new(connect));
    plyfold_conformance::hostile_suite!(Server::new(connect));
}

mod http_suite {
    plyfold_conformance::http_suite!(crate::fixture::Http);
}

use std::fmt::Debug;
use std::path::PathBuf;

use plyfold_conformance::samples::Sample;
use plyfold_conformance::server::{FaultServer, Options};
use plyfold_core::{Error, ErrorKind, Reference, Result, reference};
use plyfold_registry::{Config, Registry, Secret};

/// A server with one image, `library/app:1.2`, and its name.
fn serve(options: Options, sample: &Sample) -> (FaultServer, Reference) {
    let server = FaultServer::with(options).unwrap();
    server.put("library/app", "1.2", sample);
    let name = reference::parse(&format!("{}/library/app:1.2", server.host())).unwrap();
    (server, name)
}

/// A registry at `host`, without the credentials of the user who runs the tests.
fn open(host: &str, change: impl FnOnce(&mut Config)) -> Registry {
    let mut config = Config {
        docker_config: Some(PathBuf::from("/nonexistent")),
        hosts_dir: Vec::new(),
        ..Config::default()
    };
    change(&mut config);
    Registry::new(host, &config).unwrap()
}

fn with_login(config: &mut Config) {
    config.username = Some(Secret::new("user"));
    config.password = Some(Secret::new("s3cret-word"));
}

#[track_caller]
fn assert_kind<T: Debug>(outcome: Result<T>, kind: &ErrorKind) -> Error {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret-word"), "{error:?}");
    error
}
