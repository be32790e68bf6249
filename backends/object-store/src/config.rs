//! How a cache is opened: the URI, the options, and what the service says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// The shortest time after which a right expires, in seconds.
pub(crate) const SHORTEST_LEASE: u64 = 1;

/// How a cache in a bucket is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Config {
    /// After so many seconds the right of a machine that was not heard of is another's. It is renewed four times within them.
    /// The same on all machines; at least 1.
    pub lease_seconds: u64,
    /// Nothing is written: names and content are read.
    pub read_only: bool,
    /// A folder for artifacts that are being made, on a disk with room for them. The default is that for temporary files.
    pub scratch: Option<PathBuf>,
    /// Options of the service, by the names that `object_store` has for them, such as `endpoint` and `region`.
    #[serde(flatten)]
    pub service: BTreeMap<String, Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self { lease_seconds: 30, read_only: false, scratch: None, service: BTreeMap::new() }
    }
}

impl Config {
    /// After this long a right that is not renewed is another's.
    pub(crate) fn expiry(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.max(SHORTEST_LEASE))
    }
}
