//! Mounts and loop devices that end with their value.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::need::Need;
use super::run::Run;
use super::verdict::Failure;

/// A mounted file system, on a folder of its own, until it is dropped.
#[derive(Debug)]
pub struct Mount {
    folder: TempDir,
    mounted: bool,
}

impl Mount {
    /// Mounts `source` as `file_system` with `mount`'s options, such as `loop,ro`.
    ///
    /// # Errors
    /// Those of [`Run::success`].
    pub fn new(file_system: &str, source: impl AsRef<OsStr>, options: &str) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let command = Run::new("mount").args(["-t", file_system, "-o", options]).arg(source);
        command.arg(folder.path()).success()?;
        Ok(Self { folder, mounted: true })
    }

    /// Mounts an overlay of `lowers`, the top one first, with `upper/` and `work/` of `disk` if there is one.
    ///
    /// # Errors
    /// Those of [`Run::success`].
    pub fn overlay(lowers: &[&Path], disk: Option<&Path>) -> Result<Self, Failure> {
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.display().to_string()).collect();
        let lower = format!("lowerdir={}", lowers.join(":"));
        let upper = disk.map(Path::display).map(|disk| format!(",upperdir={disk}/upper,workdir={disk}/work"));
        Self::new("overlay", "overlay", &(lower + &upper.unwrap_or_default()))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Unmounts it now, so that what was written is in the file or device.
    ///
    /// # Errors
    /// Those of [`Run::success`], such as for a file that is still open.
    pub fn unmount(mut self) -> Result<(), Failure> {
        // A process that another test starts just now has our files too, until it is what it is to be.
        for _ in 0..20 {
            if Run::new("umount").arg(self.path()).success().is_ok() {
                self.mounted = false;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Run::new("umount").arg(self.path()).success()?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted && Run::new("umount").arg(self.path()).success().is_err() {
            // Lazily: the folder must not be removed with the file system in it.
            let _ = Run::new("umount").arg("-l").arg(self.path()).output();
        }
    }
}

/// A disk whose power can be cut: its file system stops at once, and loses what was not synced.
#[derive(Debug)]
pub struct PowerDisk {
    folder: TempDir,
    file_system: &'static str,
}

impl PowerDisk {
    /// What disks with ext4 need.
    pub const EXT4: [Need; 3] = [Need::Mounts, Need::MKFS_EXT4, Need::XFS_IO];
    /// What disks with XFS need.
    pub const XFS: [Need; 4] = [Need::Mounts, Need::FileSystem("xfs"), Need::MKFS_XFS, Need::XFS_IO];

    /// Makes a disk of so many bytes, `ext4` or `xfs`, in a file.
    ///
    /// # Errors
    /// Those of [`Run::success`], and of the file.
    pub fn new(file_system: &'static str, bytes: u64) -> Result<Self, Failure> {
        let disk = Self { folder: TempDir::new()?, file_system };
        File::create(disk.file())?.set_len(bytes)?;
        let options: &[&str] = match file_system {
            "ext4" => &["-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0"],
            _ => &[],
        };
        Run::new(&format!("mkfs.{file_system}")).arg("-q").args(options).arg(disk.file()).success()?;
        Ok(disk)
    }

    /// Mounts it, after a power cut too. Nothing is written back by a timer, only on request.
    ///
    /// # Errors
    /// Those of [`Mount::new`].
    pub fn mount(&self) -> Result<Mount, Failure> {
        let options = if self.file_system == "ext4" { "loop,commit=1000" } else { "loop" };
        Mount::new(self.file_system, self.file(), options)
    }

    /// Cuts the power of a mounted disk, which can then be unmounted.
    ///
    /// # Errors
    /// Those of [`Run::success`].
    pub fn cut(disk: &Mount) -> Result<(), Failure> {
        Run::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(disk.path()).success()?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("disk")
    }
}

/// A file as a read-only block device, until it is dropped.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `file` to a free loop device.
    ///
    /// # Errors
    /// Those of [`Run::success`].
    pub fn new(file: &Path) -> Result<Self, Failure> {
        let said = Run::new("losetup").args(["--find", "--show", "--read-only"]).arg(file).success()?;
        Ok(Self { path: said.stdout.trim().into() })
    }

    /// The same with its partitions: those that the kernel finds, or `partx` where the kernel knows no such table.
    ///
    /// # Errors
    /// Those of [`Run::success`].
    pub fn with_partitions(file: &Path) -> Result<Self, Failure> {
        let options = ["--find", "--show", "--read-only", "--partscan"];
        let said = Run::new("losetup").args(options).arg(file).success()?;
        let device = Self { path: said.stdout.trim().into() };
        if !device.partition(1).exists() {
            Run::new("partx").arg("--add").arg(&device.path).success()?;
        }
        Ok(device)
    }

    /// A partition, by its number from 1 on.
    pub fn partition(&self, number: usize) -> PathBuf {
        format!("{}p{number}", self.path.display()).into()
    }

    /// The device, such as `/dev/loop3`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Run::new("losetup").arg("--detach").arg(&self.path).output();
    }
}
