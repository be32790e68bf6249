//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args as Group, Parser, Subcommand};

use super::size;

/// Container images into block devices that virtual machines and kernels mount.
#[derive(Debug, Parser)]
#[command(name = "plyfold", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "IMAGE is scheme:rest (`plyfold backends` lists the schemes) or a name: `alpine` is \
    registry:docker.io/library/alpine:latest.\n\
    Exit codes: 0 success, 1 failure, 2 usage, 3 not found, 4 access denied, 5 corrupt content.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Group)]
pub(crate) struct Global {
    /// Write one JSON document to standard output, and errors as JSON to standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show warnings and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Show what was there already, too
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make an empty ext4 disk, to be the upper of an overlay
    Disk(Disk),
    /// List the backends and their schemes
    Backends,
    /// Write a completion script for a shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Options of `disk`.
#[derive(Debug, Group)]
pub(crate) struct Disk {
    /// The disk's size, such as 512M, 8G or 1TiB
    #[arg(long, value_parser = size::parse)]
    pub(crate) size: u64,
    /// The file to write
    #[arg(long, value_name = "FILE.ext4")]
    pub(crate) out: PathBuf,
}
