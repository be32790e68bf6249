//! Reading files again, on all cores, at the speed of the disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZero;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use plyfold_core::blocking::Stop;
use plyfold_core::cache::DamagedPart;
use plyfold_core::digest::Hasher;
use plyfold_core::{Digest, Error, ErrorKind, Mismatch, Result};
use rustix::fs::Advice;
use rustix::io::Errno;

use super::items::{Item, identity};
use super::{checksum, remains};
use crate::files;
use crate::root::{Root, describe};

/// What is read at once by each thread, and all that it holds.
const CHUNK: usize = 1 << 20;

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

/// Reads every item to its end and hands its verdict to `each`. The largest come first, so that no thread is left
/// with one of them when the others are done.
///
/// # Errors
/// The first of a thread, after which none begins another item: `Io` when reading fails for another reason than what
/// is stored, `Cancelled`, and those of `each`.
pub(super) fn read_all(
    root: &Root,
    mut items: Vec<Item>,
    watch: &Watch<'_>,
    each: impl Fn(Item, Verdict) -> Result<()> + Sync,
) -> Result<()> {
    items.sort_by_key(|item| std::cmp::Reverse(item.size));
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let (next, failed, outcome) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(Ok(())));
    let work = || {
        let mut chunk = vec![0; CHUNK];
        while !failed.load(Ordering::Relaxed)
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let read = Reading { root, watch }.verdict(item, &mut chunk);
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

struct Reading<'a> {
    root: &'a Root,
    watch: &'a Watch<'a>,
}

impl Reading<'_> {
    fn verdict(&self, item: &Item, chunk: &mut [u8]) -> Result<Verdict> {
        if !item.kind.is_file() {
            return Ok(Verdict::Damaged(format!("not a regular file but {}", describe(item.kind))));
        }
        let outcome = match &item.part {
            DamagedPart::Blob(digest) => self.blob(digest, item, chunk),
            _ => self.artifact(item, chunk),
        };
        match outcome {
            Err(e) if is_of_the_content(&e) => Ok(Verdict::Damaged(one_line(&e))),
            outcome => outcome,
        }
    }

    fn blob(&self, digest: &Digest, item: &Item, chunk: &mut [u8]) -> Result<Verdict> {
        let Some((file, _)) = self.root.open_file(digest)? else { return Ok(Verdict::Gone) };
        if !is(&file, item)? {
            return Ok(Verdict::Gone);
        }
        let (actual, size) = self.hash(file, digest, chunk)?;
        Ok(if actual == *digest { Verdict::Sound } else { mismatch(digest, actual, size) })
    }

    fn artifact(&self, item: &Item, chunk: &mut [u8]) -> Result<Verdict> {
        let Some(file) = open(&item.path)? else { return Ok(Verdict::Gone) };
        if !is(&file, item)? {
            return Ok(Verdict::Gone);
        }
        if !files::is_locked(file.try_lock_shared()).map_err(|e| Error::io("locking an artifact", e))? {
            return Ok(Verdict::Unfinished);
        }
        if remains::has_no_checksum(&item.path)? {
            return Ok(Verdict::Remains);
        }
        let Some(checksum) = checksum::read(&item.path)? else {
            return Ok(Verdict::Damaged("it has no checksum that can be read".to_owned()));
        };
        let found = file.metadata().map_err(|e| Error::io("looking at an open file", e))?;
        let names = found.nlink();
        if checksum.size != item.size {
            let (size, recorded) = (item.size, checksum.size);
            let why = format!("size mismatch: recorded with {recorded} bytes, it has {size}");
            return Ok(Verdict::Damaged(why + &linked(names)));
        }
        let (actual, size) = self.hash(file, &checksum.digest, chunk)?;
        Ok(match mismatch(&checksum.digest, actual.clone(), size) {
            _ if actual == checksum.digest => match checksum.other_mode(&found) {
                Some((mode, recorded)) => Verdict::OtherMode(mode, recorded),
                None => Verdict::Sound,
            },
            Verdict::Damaged(why) => Verdict::Damaged(why + &linked(names)),
            other => other,
        })
    }

    /// The digest of a file's bytes, and how many they are.
    fn hash(&self, mut file: File, like: &Digest, chunk: &mut [u8]) -> Result<(Digest, u64)> {
        let mut hasher = Hasher::like(like)?;
        // The kernel then reads ahead twice as far. The advice may fail without harm.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        let mut size = 0;
        loop {
            self.watch.stop.check()?;
            let count = match file.read(chunk) {
                Ok(0) => return Ok((hasher.finish(), size)),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("it cannot be read", e)),
            };
            hasher.update(&chunk[..count]);
            size += count as u64;
            (self.watch.read)(count as u64);
        }
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

/// Opens a file that may have been replaced by anything since it was looked at.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    files::open(path).map_err(|e| Error::io("it cannot be opened", e))
}

pub(super) fn is(file: &File, item: &Item) -> Result<bool> {
    let metadata = file.metadata().map_err(|e| Error::io("looking at an open file", e))?;
    Ok(identity(&metadata) == item.identity)
}

fn mismatch(expected: &Digest, actual: Digest, size: u64) -> Verdict {
    let mismatch =
        Mismatch { expected: expected.clone(), actual: Some(actual), expected_size: None, actual_size: size };
    Verdict::Damaged(Error::from(mismatch).message().to_owned())
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
