//! Reading files again, on all cores, at the speed of the disk.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use plyfold_core::block_sums::{self, Reading};
use plyfold_core::blocking::Stop;
use plyfold_core::cache::DamagedPart;
use plyfold_core::digest::Hasher;
use plyfold_core::page_buffer::PageBuffer;
use plyfold_core::worker::cores;
use plyfold_core::{Digest, Error, ErrorKind, Mismatch, Result};
use rustix::fs::Advice;
use rustix::io::Errno;

use super::items::{Item, identity};
use super::{checksum, remains, sidecar};
use crate::files;
use crate::root::describe;

/// What is read at once by each thread, and all that it holds.
const CHUNK: usize = 1 << 20;
/// Artifacts from this size on are read one after the other, each by all threads.
const LARGE: u64 = 32 << 20;

/// The result of reading an item.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is not what it should be: why, in one line.
    Damaged(String),
    /// It was removed or replaced meanwhile.
    Gone,
    /// It is still being made.
    Unfinished,
    /// Its content is right, but its mode was changed: to what, and what it was recorded with.
    OtherMode(u32, u32),
    /// It is incomplete and has no owner: a killed writer has left it.
    Remains,
    /// It is what it should be.
    Sound,
}

/// Observes the reading.
pub(super) struct Watch<'a> {
    /// Called when so many more bytes have been read.
    pub(super) read: &'a (dyn Fn(u64) + Sync),
    pub(super) stop: &'a Stop,
}

/// Reads every item to its end and hands its verdict to `each`. The largest artifacts come first, each read by all threads; then
/// each thread reads items of its own, the largest first, so that no thread is left with one of them when the others are done.
///
/// # Errors
/// The first of a thread, after which none begins another item: `Io` when reading fails for another reason than what
/// is stored, `Cancelled`, and those of `each`.
pub(super) fn read_all(
    mut items: Vec<Item>,
    watch: &Watch<'_>,
    each: impl Fn(Item, Verdict) -> Result<()> + Sync,
) -> Result<()> {
    items.sort_by_key(|item| std::cmp::Reverse(item.size));
    let cores = cores();
    let is_large = |item: &Item| item.size >= LARGE && matches!(item.part, DamagedPart::Artifact(..));
    let (large, items): (Vec<_>, Vec<_>) = items.into_iter().partition(is_large);
    for item in large {
        let verdict = watch.verdict(&item, &mut Vec::new(), cores)?;
        each(item, verdict)?;
    }
    let threads = cores.min(items.len());
    let (next, failed, outcome) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(Ok(())));
    let work = || {
        let mut chunk = PageBuffer::new(CHUNK);
        while !failed.load(Ordering::Relaxed)
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let read = watch.verdict(item, &mut chunk, 1);
            if let Err(e) = read.and_then(|verdict| each(item.clone(), verdict)) {
                failed.store(true, Ordering::Relaxed);
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Err(e);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // With fewer threads it takes longer, and works.
            let _ = thread::Builder::new().name("plyfold-verify".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Watch<'_> {
    fn verdict(&self, item: &Item, chunk: &mut [u8], threads: usize) -> Result<Verdict> {
        if !item.kind.is_file() {
            return Ok(Verdict::Damaged(format!("not a regular file but {}", describe(item.kind))));
        }
        match self.content(item, chunk, threads) {
            Err(e) if is_of_the_content(&e) => Ok(Verdict::Damaged(one_line(&e))),
            outcome => outcome,
        }
    }

    fn content(&self, item: &Item, chunk: &mut [u8], threads: usize) -> Result<Verdict> {
        let Some(file) = open(item)? else { return Ok(Verdict::Gone) };
        if let DamagedPart::Blob(digest) = &item.part {
            return Ok(self.mismatch(&file, digest, chunk)?.map_or(Verdict::Sound, Verdict::Damaged));
        }
        if !files::is_locked(file.try_lock_shared()).map_err(|e| Error::io("locking an artifact", e))? {
            return Ok(Verdict::Unfinished);
        }
        if remains::has_no_checksum(&item.path)? {
            return Ok(Verdict::Remains);
        }
        let Some((checksum, sums)) = checksum::read_with_sums(&item.path)? else {
            return Ok(Verdict::Damaged("it has no checksum that can be read".to_owned()));
        };
        if !sidecar::is_sound(&item.path, &checksum.made)? {
            let why = format!("its {} file is missing or another one", sidecar::SUFFIX);
            return Ok(Verdict::Damaged(why));
        }
        let found = metadata(&file)?;
        let damage = if checksum.size == item.size {
            let reading = Reading { threads, stop: self.stop, read: self.read };
            block_sums::mismatch(&block_sums::damaged(&file, &sums, &reading)?)
        } else {
            let (size, recorded) = (item.size, checksum.size);
            Some(format!("size mismatch: recorded with {recorded} bytes, it has {size}"))
        };
        Ok(match (damage, checksum.other_mode(&found)) {
            (Some(why), _) => Verdict::Damaged(why + &linked(found.nlink())),
            (None, Some((mode, recorded))) => Verdict::OtherMode(mode, recorded),
            (None, None) => Verdict::Sound,
        })
    }

    /// What is wrong with a file's bytes, if they are not those of the digest.
    fn mismatch(&self, mut file: &File, expected: &Digest, chunk: &mut [u8]) -> Result<Option<String>> {
        let (mut hasher, mut size) = (Hasher::like(expected)?, 0);
        // The kernel then reads ahead twice as far. The advice may fail without harm.
        let _ = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
        loop {
            self.stop.check()?;
            let count = match file.read(chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("it cannot be read", e)),
            };
            hasher.update(&chunk[..count]);
            size += count as u64;
            (self.read)(count as u64);
        }
        let (expected, actual) = (expected.clone(), hasher.finish());
        let is_right = actual == expected;
        let mismatch = Mismatch { expected, actual: Some(actual), expected_size: None, actual_size: size };
        Ok((!is_right).then(|| Error::from(mismatch).message().to_owned()))
    }
}

/// What is to be known of an artifact that has so many names: a write to one of them has changed them all.
fn linked(names: u64) -> String {
    match names {
        0 | 1 => String::new(),
        2 => "; another file is a hard link to it, and has the same content".to_owned(),
        names => format!("; {} other files are hard links to it, and have the same content", names - 1),
    }
}

/// Opens an item's file; `None` when it is gone, or another one by now.
pub(super) fn open(item: &Item) -> Result<Option<File>> {
    let opened = files::open(&item.path).map_err(|e| Error::io("it cannot be opened", e))?;
    let Some(file) = opened else { return Ok(None) };
    Ok((identity(&metadata(&file)?) == item.identity).then_some(file))
}

fn metadata(file: &File) -> Result<Metadata> {
    file.metadata().map_err(|e| Error::io("looking at an open file", e))
}

/// Whether an error is about the stored file: the disk cannot read it, or the user may not.
fn is_of_the_content(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let errno = source.and_then(Errno::from_io_error);
    *error.kind() == ErrorKind::Corrupt
        || matches!(errno, Some(Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::ACCESS | Errno::PERM))
}

fn one_line(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{}: {source}", error.message()),
        None => error.message().to_owned(),
    }
}
