//! This backend as the suites open it.

use async_trait::async_trait;
use oci_client::Client;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use plyfold_conformance::fixtures::Server;
use plyfold_conformance::{BackendUnderTest, Condition, Fixture, FixtureImage, HttpFixture, HttpSetup};
use plyfold_core::{Error, ImageRegistry, Result};
use plyfold_oci_client::OciClient;

use crate::exceptions;

pub(crate) fn client() -> Client {
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    Client::try_from(config).unwrap()
}

/// The suite's server, read by this backend.
pub(crate) struct Peer(Server);

impl Peer {
    pub(crate) fn new() -> Self {
        async fn connect(host: String) -> Result<Box<dyn ImageRegistry>> {
            Ok(Box::new(OciClient::new(client(), host)))
        }
        Self(Server::new(connect))
    }
}

#[async_trait]
impl Fixture for Peer {
    fn holds_any_host(&self) -> bool {
        self.0.holds_any_host()
    }

    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
        self.0.open(images).await
    }

    async fn open_under(&self, image: &FixtureImage<'_>, condition: Condition) -> Option<BackendUnderTest> {
        self.0.open_under(image, condition).await
    }

    fn not_judged(&self) -> &'static [&'static str] {
        self.0.not_judged()
    }

    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        exceptions::REGISTRY
    }
}

/// Registries over HTTP; what the client has no place for is an error.
pub(crate) struct Http;

#[async_trait]
impl HttpFixture for Http {
    async fn open(&self, setup: &HttpSetup) -> Result<Box<dyn ImageRegistry>> {
        let (mirrors, header) = (!setup.mirrors.is_empty(), !setup.header.is_empty());
        if mirrors || header || setup.docker_config.is_some() || setup.proxy.is_some() {
            return Err(Error::unsupported(
                "the client has no mirrors, header fields and stored credentials",
            ));
        }
        let registry = OciClient::new(client(), setup.host.clone());
        Ok(Box::new(match &setup.login {
            Some(login) => {
                registry.with_auth(RegistryAuth::Basic(login.user.clone(), login.password.clone()))
            }
            None => registry,
        }))
    }

    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        exceptions::HTTP
    }
}
