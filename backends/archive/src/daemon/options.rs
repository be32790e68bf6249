//! How a daemon is reached.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use plyfold_core::{OptionFault, Result};
use serde::{Deserialize, Serialize};

use super::fault::DaemonFault;
use crate::Config;

/// Where the daemon's socket is, unless something else is said.
const SOCKET: &str = "/var/run/docker.sock";

/// The configuration of a Docker daemon's backend.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DaemonConfig {
    /// Its socket. `None` is that of the environment variable `DOCKER_HOST`, or else `/var/run/docker.sock`.
    pub socket: Option<PathBuf>,
    /// Bytes that the images may have in the temporary directory (`TMPDIR`).
    pub spool_limit: u64,
    /// Seconds that an answer is waited for, and what of it comes next. One that takes longer is asked for whether it is there:
    /// a daemon may be busy for minutes before it begins to send a large image.
    pub timeout: u64,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self { socket: None, spool_limit: Config::default().spool_limit, timeout: 30 }
    }
}

impl DaemonConfig {
    /// The socket.
    ///
    /// # Errors
    /// `Unsupported` for a `DOCKER_HOST` that is no Unix socket.
    pub(super) fn socket(&self, docker_host: Option<OsString>) -> Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let Some(host) = docker_host.filter(|host| !host.is_empty()) else { return Ok(SOCKET.into()) };
        let host = host.to_string_lossy();
        match host.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(path.into()),
            _ => Err(DaemonFault::Host(plyfold_core::printable(&host)).into()),
        }
    }

    pub(super) fn timeout(&self) -> Result<Duration> {
        if self.timeout == 0 {
            return Err(OptionFault::Value("timeout".to_owned(), "0 is too small".to_owned()).into());
        }
        Ok(Duration::from_secs(self.timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets() {
        let of = |host: Option<&str>| DaemonConfig::default().socket(host.map(OsString::from));
        assert_eq!(of(None).unwrap(), PathBuf::from(SOCKET));
        assert_eq!(of(Some("")).unwrap(), PathBuf::from(SOCKET));
        assert_eq!(
            of(Some("unix:///run/user/1000/docker.sock")).unwrap(),
            PathBuf::from("/run/user/1000/docker.sock")
        );
        for host in
            ["tcp://127.0.0.1:2375", "ssh://host", "npipe:////./pipe/docker", "unix://relative", "/a/path"]
        {
            let error = of(Some(host)).unwrap_err();
            assert!(matches!(error.detail(), Some(DaemonFault::Host(_))), "{host}: {error}");
        }
        let given = DaemonConfig { socket: Some("/a".into()), ..DaemonConfig::default() };
        assert_eq!(given.socket(Some("tcp://x".into())).unwrap(), PathBuf::from("/a"));
    }
}
