//! Options for the files that verbs write.

use crate::atomic_file::{FileOptions, Owner};
use clap::Args as Group;

use super::hints;

/// Whether to wait for the disk: an option of every verb that writes files.
#[derive(Clone, Copy, Debug, Group)]
pub(crate) struct Durably {
    /// Do not wait until the output is on the disk: a power cut soon afterwards may lose it
    #[arg(long)]
    no_sync: bool,
}

impl Durably {
    pub(crate) fn options(self) -> FileOptions {
        FileOptions { sync: !self.no_sync, ..FileOptions::default() }
    }
}

pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "write three octal digits, such as 640".to_owned())
}

pub(crate) fn owner(text: &str) -> Result<Owner, String> {
    text.parse().map_err(|e| hints::on_one_line(&e))
}
