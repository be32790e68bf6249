//! What a machine with an image's disks runs.

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

/// The process of an image, by the names of the runtime specification (`config.md`, "Process").
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The program and its arguments: the entrypoint of the image, then its command. An image may have neither.
    pub args: Vec<String>,
    /// The environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// The working directory; empty where the image names none.
    pub cwd: String,
    /// The user; empty where the image names none.
    pub user: String,
}

impl Process {
    /// The bytes of all its text. Linux starts no program with more arguments than this (`_STK_LIM / 4 * 3`).
    const LONGEST: usize = 6 << 20 >> 1;

    /// That of a configuration (image-spec `config.md`, `config`); `None` for one that is too long to be started.
    pub fn of(configuration: &ImageConfiguration) -> Option<Self> {
        let config = configuration.config().clone().unwrap_or_default();
        let list = |of: &Option<Vec<String>>| of.clone().unwrap_or_default();
        let process = Self {
            args: [list(config.entrypoint()), list(config.cmd())].concat(),
            env: list(config.env()),
            cwd: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
        };
        let texts = process.args.iter().chain(&process.env).chain([&process.cwd, &process.user]);
        let length = texts.fold(0, |sum: usize, text| sum.saturating_add(text.len() + 1));
        (length <= Self::LONGEST).then_some(process)
    }
}
