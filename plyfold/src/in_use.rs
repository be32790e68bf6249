//! Disks that another program or the kernel has open.

use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use plyfold_core::Error;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

/// Who has a disk open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum DiskUser {
    /// A program that locks it, as machine monitors do (`fcntl_locking(2)`).
    Locked,
    /// A loop device, which locks nothing.
    Loop(String),
}

impl DiskUser {
    /// That of a disk which is open here for writing. If there is none, this process has it locked until it closes the file.
    pub(crate) fn of(disk: &File) -> Option<Self> {
        // Any other error is that of a file system that has no locks.
        if let Err(Errno::AGAIN | Errno::ACCESS) = fcntl_lock(disk, FlockOperation::NonBlockingLockExclusive)
        {
            return Some(Self::Locked);
        }
        Self::loop_device(disk)
    }

    /// That of a disk which is open here for reading. Locks are not seen by a user who may not write to it.
    pub(crate) fn of_read(disk: &File) -> Option<Self> {
        // A lock against all others takes a file that is open for writing.
        let same = format!("/proc/self/fd/{}", disk.as_raw_fd());
        match File::options().read(true).write(true).open(same) {
            Ok(disk) => Self::of(&disk),
            Err(_) => Self::loop_device(disk),
        }
    }

    /// The error of a disk that has to be at rest.
    pub(crate) fn refusal(&self) -> Error {
        let hint = match self {
            Self::Locked => "shut the machine down first".to_owned(),
            Self::Loop(device) => format!("unmount it, then `losetup -d {device}`"),
        };
        Error::config(self.to_string()).with_hint(hint)
    }

    fn loop_device(disk: &File) -> Option<Self> {
        let disk = disk.metadata().ok()?;
        fs::read_dir("/sys/block").ok()?.flatten().find_map(|device| {
            let backing = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
            let found = Path::new(backing.trim_end_matches('\n')).metadata().ok()?;
            let is_same = (found.dev(), found.ino()) == (disk.dev(), disk.ino());
            is_same.then(|| Self::Loop(format!("/dev/{}", device.file_name().display())))
        })
    }
}

impl fmt::Display for DiskUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("another program has the disk open, such as a virtual machine"),
            Self::Loop(device) => write!(f, "the disk is attached to {device}"),
        }
    }
}
