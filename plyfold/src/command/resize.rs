//! `resize`: an ext4 disk of plyfold's, made larger.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::blocking::blocking;
use crate::disk_file::{self, DiskFormat, open_error};
use crate::in_use::DiskUser;
use crate::materializers::ext4;
use crate::{Error, Result};
use serde_json::json;

use super::disk_args::Resize;
use super::size::Size;
use super::terminal::Terminal;

/// Grows the disk in a file, in its place.
pub(crate) async fn grow(options: Resize, terminal: Terminal) -> Result<()> {
    let Resize { file, size, no_sync } = options;
    let path = file.clone();
    let grown = blocking(move |stop| {
        check_format(&file)?;
        let mut disk = open(&file)?;
        stop.check()?;
        let old = ext4::resize(&mut disk, size)?;
        if !no_sync {
            disk.sync_all().map_err(|e| Error::io("syncing the disk", e))?;
        }
        Ok(old)
    });
    let old = grown.await.map_err(|e| e.with_context("path", path.display()))?;
    let text = || format!("{}  {} ext4, was {}\n", path.display(), Size(size), Size(old));
    terminal.show(&json!({ "path": path.display().to_string(), "size": size, "old_size": old }), text)
}

/// Refuses what has no free room that could grow, also where the file is read-only.
fn check_format(path: &Path) -> Result<()> {
    let form = match disk_file::format_of(path) {
        Ok(Some(DiskFormat::Erofs)) => "an EROFS image, which is as large as what is in it",
        Ok(Some(DiskFormat::Gpt)) => "a disk with partitions, which are as large as what is in them",
        Ok(Some(DiskFormat::Vmdk | DiskFormat::SparseVmdk)) => "a VMDK",
        // Errors are those of opening it.
        _ => return Ok(()),
    };
    let error = Error::unsupported(format!("only an ext4 disk can be resized, and this is {form}"));
    Err(error.with_hint(
        "`plyfold disk` makes an ext4 disk to write to above it, `--as ext4` one of the whole image",
    ))
}

fn open(path: &Path) -> Result<File> {
    let opened = File::options().read(true).write(true).open(path);
    let file = opened.map_err(|e| open_error("opening the disk", e))?;
    let found = file.metadata().map_err(|e| Error::io("looking at the disk", e))?;
    if !found.is_file() {
        return Err(Error::config("the disk is not a regular file"));
    }
    // Root may write to it all the same: it may be a link to an artifact of a store.
    if found.permissions().mode() & 0o222 == 0 {
        return Err(Error::config("the disk is read-only").with_hint("resize a copy of it"));
    }
    match DiskUser::of(&file) {
        None => Ok(file),
        Some(user) => Err(user.refusal()),
    }
}
