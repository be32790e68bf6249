//! This backend as the rules about HTTP open it.

use std::path::PathBuf;

use async_trait::async_trait;
use plyfold_conformance::{HttpFixture, HttpSetup};
use plyfold_core::{ImageRegistry, Result};
use plyfold_registry::{Config, Host, HostCapability, Hosts, Registry, Secret};

pub(crate) struct Http;

#[async_trait]
impl HttpFixture for Http {
    async fn open(&self, setup: &HttpSetup) -> Result<Box<dyn ImageRegistry>> {
        let stored = setup.docker_config.clone();
        let mirrors = setup.mirrors.iter().map(|mirror| {
            let mut capabilities = vec![HostCapability::Pull];
            capabilities.extend(mirror.resolve.then_some(HostCapability::Resolve));
            (format!("http://{}", mirror.host), Host { capabilities: Some(capabilities), ..Host::default() })
        });
        let mut own = Host { proxy: setup.proxy.as_deref().map(Secret::new), ..Host::default() };
        for (name, value) in &setup.header {
            own.header.entry(name.clone()).or_default().push(Secret::new(&**value));
        }
        let hosts = Hosts { host: mirrors.collect(), own, ..Hosts::default() };
        let config = Config {
            hosts: [(setup.host.clone(), hosts)].into(),
            hosts_dir: Vec::new(),
            helper_path: setup.helpers.clone(),
            docker_config: Some(stored.unwrap_or_else(|| PathBuf::from("/nonexistent"))),
            username: setup.login.as_ref().map(|login| Secret::new(&*login.user)),
            password: setup.login.as_ref().map(|login| Secret::new(&*login.password)),
            ..Config::default()
        };
        Ok(Box::new(Registry::new(&setup.host, &config)?))
    }
}
