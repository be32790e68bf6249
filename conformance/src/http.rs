//! How the rules about HTTP open a backend: a registry, its mirrors, and what is known about credentials.

use std::path::PathBuf;

use async_trait::async_trait;
use plyfold_core::{ImageRegistry, Reference, Result, reference};

use crate::server::{FaultServer, Login};
use crate::{Client, CoreClient};

/// A backend that speaks the distribution API over HTTP: what [`http_suite!`](crate::http_suite) judges.
///
/// The servers are those of the suite, plain HTTP on 127.0.0.1. Nothing but the set-up may decide what the backend
/// does: no environment variable, no file of the user who runs the tests.
#[async_trait]
pub trait HttpFixture: Send + Sync {
    /// Opens the backend. No I/O over the network.
    ///
    /// # Errors
    /// None for a sound set-up: the rules take an error for a broken rule.
    async fn open(&self, setup: &HttpSetup) -> Result<Box<dyn ImageRegistry>>;

    /// What is derived from the backend. Only mutants replace it.
    fn client(&self) -> Box<dyn Client> {
        Box::new(CoreClient)
    }

    /// As [`Fixture::not_judged`](crate::Fixture::not_judged).
    fn not_judged(&self) -> &'static [&'static str] {
        &[]
    }

    /// As [`Fixture::exceptions`](crate::Fixture::exceptions).
    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// The options of a backend for one registry.
#[derive(Clone, Debug, Default)]
pub struct HttpSetup {
    /// The registry, as `HOST:PORT`.
    pub host: String,
    /// What is asked before the registry, in order.
    pub mirrors: Vec<Mirror>,
    /// The user name and password for `host`, and for no other.
    pub login: Option<Login>,
    /// A folder with Docker's `config.json`; `None` when there are no stored credentials.
    pub docker_config: Option<PathBuf>,
    /// A folder with programs `docker-credential-NAME`.
    pub helpers: Option<PathBuf>,
    /// Header fields of every request to `host`, and to no other.
    pub header: Vec<(String, String)>,
    /// The URL of the proxy for `host`, and for no other; it is used although the hosts are on the loopback interface.
    pub proxy: Option<String>,
}

/// A place that has content of a registry.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Where, as `HOST:PORT`.
    pub host: String,
    /// Whether it is trusted to say what a tag points at.
    pub resolve: bool,
}

impl HttpSetup {
    /// A registry alone, without credentials.
    pub fn of(server: &FaultServer) -> Self {
        Self { host: server.host().to_owned(), ..Self::default() }
    }

    /// The same with a user name and a password.
    #[must_use]
    pub fn with_login(mut self, login: &Login) -> Self {
        self.login = Some(login.clone());
        self
    }

    /// The same with one mirror more, after the others.
    #[must_use]
    pub fn with_mirror(mut self, mirror: &FaultServer, resolve: bool) -> Self {
        self.mirrors.push(Mirror { host: mirror.host().to_owned(), resolve });
        self
    }

    /// A repository of this registry with a tag or a digest, such as `library/app:1.2`.
    ///
    /// # Panics
    /// When that makes no reference: a mistake in the calling test.
    pub fn reference(&self, name: &str) -> Reference {
        reference::parse(&format!("{}/{name}", self.host)).expect("a valid reference")
    }
}
