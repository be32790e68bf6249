//! What can be set with `-o key=value`.

use serde::{Deserialize, Serialize};

/// The configuration of the archive backend.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Whether an archive that is written has Docker's list, `manifest.json`, also where it had none: Docker without the
    /// containerd store, and podman of several images, read nothing else.
    pub docker_list: bool,
    /// Bytes that an archive may have in the temporary directory (`TMPDIR`), which takes what a compressed one expands to
    /// and what comes through a pipe.
    pub spool_limit: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { docker_list: true, spool_limit: 64 << 30 }
    }
}
