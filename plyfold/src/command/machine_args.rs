//! The grammar of virtual machines.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as Group, ValueEnum};

/// Options of `materialize` for a virtual machine.
#[derive(Debug, Group)]
pub(crate) struct BootOptions {
    /// Start QEMU with the disks, its console on this terminal, and run the image's command, whose exit code this one then is;
    /// Ctrl-A X ends it
    #[arg(long)]
    pub(crate) boot: bool,
    /// The kernel to boot [default: that which runs here, else the newest in /boot]
    #[arg(long, requires = "boot", value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The initramfs to boot [default: one with busybox, made in memory]
    #[arg(long, requires = "boot", value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// More options for QEMU, such as -m 4G
    #[arg(last = true, requires = "boot", value_name = "QEMU OPTION")]
    pub(crate) qemu: Vec<OsString>,
}

/// Options of `boot`.
#[derive(Debug, Group)]
pub(crate) struct Boot {
    /// The directory with the disks
    pub(crate) disks: PathBuf,
    /// Start no machine that does not verify what it reads of the disks
    #[arg(long, value_name = "WHEN", value_enum)]
    pub(crate) verity: Option<HashTrees>,
    /// The kernel to boot [default: that which runs here, else the newest in /boot]
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The initramfs to boot [default: one with busybox, made in memory]
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// More options for QEMU, such as -m 4G
    #[arg(last = true, value_name = "QEMU OPTION")]
    pub(crate) qemu: Vec<OsString>,
}

/// What `--verity` asks for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum HashTrees {
    /// Each file that is read as a disk has one; an upper is written to, and has none
    Require,
}
