//! The grammar of `snapshot`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::atomic_file::Owner;
use clap::Subcommand;

use super::written_files::{Durably, mode, owner};

/// What `snapshot` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Save the disks in a directory that `materialize` has made, with what a guest has written to them
    #[command(
        after_help = "A guest's disk is saved as the blocks that differ from the empty disk that it was. The virtual machine is to be \
        off, and a disk that was mounted unmounted: with --live it may be paused. Disks that change meanwhile are an error. Of a \
        guest that was killed the disk is saved as it is, and a warning says so: its journal is replayed when it is mounted.\n\n\
        Examples:\n  plyfold snapshot save vm1 app-state:1\n  plyfold snapshot save vm1 --out snapshots/1\n  plyfold snapshot save vm1 registry:registry.lan:5000/app:state-1 --attach"
    )]
    Save {
        /// The directory with the disks
        disks: PathBuf,
        /// The name in the store, one that is not taken; or the URI of another place, such as oci:DIRECTORY:TAG
        #[arg(required_unless_present = "out")]
        name: Option<String>,
        /// Save to this new directory instead: each file, and snapshot.json, which names them by their digests
        #[arg(long, value_name = "DIR", conflicts_with = "name")]
        out: Option<PathBuf>,
        /// Make it a referrer of its image: registries list it with the image when it is in the same repository,
        /// `push --referrers` and `copy --referrers` have it, and `gc` keeps it as long as the image
        #[arg(long, conflicts_with = "out")]
        attach: bool,
        /// Save disks that a machine has open, too, as a power cut would leave them: it has to be paused, or not to write
        #[arg(long)]
        live: bool,
        #[command(flatten)]
        durably: Durably,
    },
    /// Make the disks of a snapshot again, by the names that they had; every file is verified before one appears
    #[command(
        after_help = "Examples:\n  plyfold snapshot load app-state:1 --out vm2\n  plyfold snapshot load snapshots/1 --out vm2\n  plyfold snapshot load registry.lan:5000/app-state:1 --out vm2"
    )]
    Load {
        /// A snapshot in the store, else one that is pulled by this name or URI; or the directory of one
        image: OsString,
        /// The directory to write to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The permissions of the files, such as 640 [default: 444, those of disks that guests write to as the umask says]
        #[arg(long, value_parser = mode)]
        mode: Option<u32>,
        /// The owner of the files, by name or number
        #[arg(long, value_name = "USER[:GROUP]", value_parser = owner)]
        owner: Option<Owner>,
        #[command(flatten)]
        durably: Durably,
    },
    /// Read all of a snapshot, and say whether every file is the one that was saved
    #[command(
        after_help = "Exit code 0 says that it can be loaded, 3 that a file is missing, 5 that one was altered."
    )]
    Verify {
        /// A snapshot in the store, else one that is pulled by this name or URI; or the directory of one
        image: OsString,
    },
    /// List the snapshots in the store, the bytes that are stored of each, and the image that it is of
    #[command(visible_alias = "ls")]
    List {
        /// Show whole digests and names
        #[arg(long)]
        no_trunc: bool,
    },
    /// Remove snapshots from the store; `gc` removes their content
    #[command(visible_alias = "rm")]
    Remove {
        /// Which snapshots: all of the names go or, when one is not there or no snapshot, none
        #[arg(required = true, value_name = "NAME")]
        images: Vec<String>,
    },
}
