//! This backend as the rules about HTTP open it.

use std::path::PathBuf;

use async_trait::async_trait;
use plyfold_conformance::{HttpSetup, HttpStage};
use plyfold_core::{ImageRegistry, Result};
use plyfold_registry::{Config, Registry, Secret};

pub(crate) struct Http;

#[async_trait]
impl HttpStage for Http {
    async fn open(&self, setup: &HttpSetup) -> Result<Box<dyn ImageRegistry>> {
        let stored = setup.docker_config.clone();
        let config = Config {
            docker_config: Some(stored.unwrap_or_else(|| PathBuf::from("/nonexistent"))),
            username: setup.login.as_ref().map(|login| Secret::new(&*login.user)),
            password: setup.login.as_ref().map(|login| Secret::new(&*login.password)),
            ..Config::default()
        };
        Ok(Box::new(Registry::new(&setup.host, &config)?))
    }
}
