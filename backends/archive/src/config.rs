//! What can be set with `-o key=value`.

use serde::{Deserialize, Serialize};

/// The configuration of the archive backend.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Bytes that an archive may have in the temporary directory (`TMPDIR`), which takes what a compressed one expands to
    /// and what comes through a pipe.
    pub spool_limit: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { spool_limit: 64 << 30 }
    }
}
