//! Room on the disk that a store keeps for itself, so that names can be removed and leases taken when the disk is full.
//!
//! It is a file of blocks that nothing is written to. On a full disk it becomes smaller, as far as a write needs, and with the next
//! change of names on a disk with space it has its size again. Blobs and artifacts never get its room.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use plyfold_core::{Error, ErrorKind, Result};
use rustix::fs::FallocateFlags;

use crate::files;
use crate::root::Root;

/// Room for leases, beside that for a new `index.json`.
const ROOM: u64 = 1 << 20;
/// By how much the file becomes smaller at a time.
const STEP: u64 = 256 << 10;
/// How many times its size the disk has free when it is made.
const FREE: u64 = 16;

fn path(root: &Root) -> PathBuf {
    root.path().join("locks").join("reserve")
}

/// Reserves room for one more document of this size, where the disk has plenty. Best effort: not every file system can.
pub(crate) fn keep(root: &Root, document: u64) {
    let wanted = ROOM.saturating_add(document).next_multiple_of(STEP);
    let there = files::look(&path(root)).ok().flatten();
    // A hole is no room.
    let has = there.map_or(0, |found| found.len().min(found.blocks().saturating_mul(512)));
    if !root.private || has >= wanted {
        return;
    }
    let Ok(Some(free)) = root.free() else { return };
    if free < wanted.saturating_mul(FREE) {
        return;
    }
    if let Ok(file) = files::open_or_create(&path(root))
        && let Err(e) = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, wanted)
    {
        tracing::debug!("reserving room on the disk: {e}");
    }
}

/// Does work that writes little, and again with some of the room for as long as the disk is full and there is some.
pub(crate) fn with_room<T>(root: &Root, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match work() {
            Err(e) if is_full(&e) && release(root) => {}
            done => return done,
        }
    }
}

/// Frees some of the room; whether there was any.
fn release(root: &Root) -> bool {
    let release = || -> io::Result<bool> {
        let Some(file) = files::open_to_write(&path(root))? else { return Ok(false) };
        let size = file.metadata()?.len();
        shrink(&file, size).map(|()| size > 0)
    };
    release().unwrap_or(false)
}

fn shrink(file: &File, size: u64) -> io::Result<()> {
    file.set_len(size.saturating_sub(STEP))?;
    // Some file systems free blocks only then.
    file.sync_all()
}

fn is_full(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    *error.kind() == ErrorKind::Io && source.is_some_and(|source| full.contains(&source.kind()))
}
