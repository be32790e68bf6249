//! What can be set of an image that is made of a tar.

use plyfold_core::edit::{ConfigChange, NewImage};
use plyfold_core::{OptionFault, Platform, Result};
use serde::Deserialize;

use crate::Config;

/// The options of `tar:`: the configuration of the image, as a Dockerfile has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TarOptions {
    cmd: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    env: Vec<String>,
    expose: Vec<String>,
    label: Vec<String>,
    platform: Option<String>,
    spool_limit: Option<u64>,
    stop_signal: Option<String>,
    user: Option<String>,
    volume: Vec<String>,
    workdir: Option<String>,
}

impl TarOptions {
    /// How the file is read.
    pub(super) fn reading(&self) -> Config {
        let usual = Config::default();
        Config { spool_limit: self.spool_limit.unwrap_or(usual.spool_limit), ..usual }
    }

    /// The platform of the image: that of this machine without its level of features, which the tar does not depend on, unless
    /// one is given.
    pub(super) fn platform(&self) -> Result<Platform> {
        let host = Platform::host();
        let Some(text) = &self.platform else {
            return Ok(Platform::new(host.os(), host.architecture(), None));
        };
        text.parse().map_err(|e: plyfold_core::Error| wrong("platform", e.message()))
    }

    /// The configuration of what runs in the image.
    ///
    /// # Errors
    /// `Config` with the option that is wrong.
    pub(super) fn config(&self) -> Result<ConfigChange> {
        let none = ConfigChange::default;
        let (env, labels) = (pairs("env", &self.env)?, pairs("label", &self.label)?);
        let parts = [
            ("cmd", ConfigChange { cmd: self.cmd.clone(), ..none() }),
            ("entrypoint", ConfigChange { entrypoint: self.entrypoint.clone(), ..none() }),
            ("env", ConfigChange { env: env.clone(), ..none() }),
            ("expose", ConfigChange { ports: self.expose.clone(), ..none() }),
            ("label", ConfigChange { labels: labels.clone(), ..none() }),
            ("stop-signal", ConfigChange { stop_signal: self.stop_signal.clone(), ..none() }),
            ("user", ConfigChange { user: self.user.clone(), ..none() }),
            ("volume", ConfigChange { volumes: self.volume.clone(), ..none() }),
            ("workdir", ConfigChange { workdir: self.workdir.clone(), ..none() }),
        ];
        for (option, part) in parts {
            let checked = NewImage::of(&Platform::host(), Vec::new(), &part);
            checked.map_err(|e| e.with_context("option", option))?;
        }
        Ok(ConfigChange {
            cmd: self.cmd.clone(),
            entrypoint: self.entrypoint.clone(),
            env,
            labels,
            ports: self.expose.clone(),
            stop_signal: self.stop_signal.clone(),
            user: self.user.clone(),
            volumes: self.volume.clone(),
            workdir: self.workdir.clone(),
            ..none()
        })
    }
}

/// `NAME=VALUE` of each.
fn pairs(option: &str, texts: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(wrong(option, &format!("{text:?} is not NAME=VALUE"))),
    };
    texts.iter().map(pair).collect()
}

fn wrong(option: &str, why: &str) -> plyfold_core::Error {
    OptionFault::Value(option.to_owned(), why.to_owned()).into()
}
