//! The hashes of a layer's blob and of its tar: a chunk of one and a chunk of the other at once, which takes little more time
//! than one of them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use zlib_rs::crc32::crc32;

use super::fault::LayerFault;
use super::pool::{BATCH, Chunk, Edges, READ};
use super::{Compression, LayerOptions};
use crate::digest::Hasher;
use crate::{Descriptor, Digest, Error, Result};

/// So many chunks of the blob are hashed without one of the tar, which is waited for otherwise. Fewer than a pool has.
const ALONE: usize = READ / 2;

/// The hashes, and the chunks that are not hashed yet. Any thread may hash the next ones.
pub(super) struct Hashes {
    hashers: Mutex<Hashers>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Chunks hold buffers of pools, which bound their number.
#[derive(Default)]
struct Queue {
    blob: VecDeque<Arc<Chunk>>,
    /// What is blob and tar is here.
    tar: VecDeque<Arc<Chunk>>,
    /// Whether a thread waits for chunks.
    is_awaited: bool,
    is_closed: bool,
}

/// What is hashed at once.
struct Chunks {
    blob: Option<Arc<Chunk>>,
    tar: Option<Arc<Chunk>>,
}

/// What is hashed.
pub(super) struct Hashers {
    blob: Option<Hasher>,
    tar: Option<Hasher>,
    /// One digest is that of both.
    is_plain: bool,
    /// The CRC-32 of the gzip member so far.
    crc: Option<u32>,
    /// Whether that of a member was not what it had to be.
    is_broken: bool,
}

/// The digests that were asked for.
pub(super) struct Digests {
    pub(super) blob: Option<Digest>,
    pub(super) tar: Option<Digest>,
}

impl Hashers {
    /// Those that are asked for: by the algorithm of what is expected, by sha256 when nothing is. What is both blob and tar is
    /// hashed once, if both digests are by one algorithm.
    pub(super) fn new(compression: Compression, options: &LayerOptions) -> Result<Self> {
        let (blob, diff_id) = (options.blob.as_ref().map(Descriptor::digest), options.diff_id.as_ref());
        let is_plain = compression == Compression::None;
        let is_once = is_plain && options.hashes_blob() && algorithm_of(blob) == algorithm_of(diff_id);
        let hasher = |is_wanted: bool, expected: Option<&Digest>| {
            is_wanted.then(|| expected.map_or_else(|| Ok(Hasher::sha256()), Hasher::like)).transpose()
        };
        let blob = hasher(options.hashes_blob(), blob)?;
        let tar = hasher(options.hashes_tar() && !is_once, diff_id)?;
        let crc = (compression == Compression::Gzip).then_some(0);
        Ok(Self { blob, tar, is_plain, crc, is_broken: false })
    }

    fn update(&mut self, chunks: &Chunks) {
        let (of_blob, of_tar) = (&chunks.blob, &chunks.tar);
        let blob = self.blob.as_mut().zip(if self.is_plain { of_tar.as_deref() } else { of_blob.as_deref() });
        let tar = self.tar.as_mut().zip(of_tar.as_deref());
        match (blob, tar) {
            (Some((blob, of_blob)), Some((tar, of_tar))) => {
                Hasher::update_two([blob, tar], [of_blob, of_tar]);
            }
            (blob, tar) => blob.into_iter().chain(tar).for_each(|(hasher, chunk)| hasher.update(chunk)),
        }
        if let (Some(crc), Some(chunk)) = (&mut self.crc, of_tar) {
            let Edges { end, begin } = chunk.members;
            let ending = &chunk[..end.map_or(chunk.len(), |(at, _)| at)];
            if let Some((_, expected)) = end {
                self.is_broken |= crc32(*crc, ending) != expected;
            }
            *crc = match begin {
                Some(at) => crc32(0, &chunk[at..]),
                None => crc32(*crc, ending),
            };
        }
    }

    fn finish(&mut self) -> Digests {
        let (blob, tar) = (self.blob.take().map(Hasher::finish), self.tar.take().map(Hasher::finish));
        if !self.is_plain {
            return Digests { blob, tar };
        }
        Digests { blob: blob.clone().or_else(|| tar.clone()), tar: tar.or(blob) }
    }
}

impl Queue {
    /// What is hashed next, if more than so many chunks of the tar wait, or many of the blob.
    fn next(&mut self, more_than: usize) -> Option<Chunks> {
        if self.tar.len() > more_than {
            return Some(Chunks { blob: self.blob.pop_front(), tar: self.tar.pop_front() });
        }
        let blob = if self.blob.len() >= ALONE { self.blob.pop_front() } else { None };
        blob.map(|blob| Chunks { blob: Some(blob), tar: None })
    }

    /// What is hashed next when nothing more comes.
    fn last(&mut self) -> Option<Chunks> {
        let (blob, tar) = (self.blob.pop_front(), self.tar.pop_front());
        (blob.is_some() || tar.is_some()).then_some(Chunks { blob, tar })
    }
}

impl Hashes {
    pub(super) fn new(hashers: Hashers) -> Arc<Self> {
        let (hashers, queue, changed) = (Mutex::new(hashers), Mutex::default(), Condvar::new());
        Arc::new(Self { hashers, queue, changed })
    }

    /// Adds the next chunk of the blob.
    pub(super) fn add_blob(&self, chunk: &Arc<Chunk>) {
        self.queue().blob.push_back(chunk.clone());
    }

    /// Adds the next chunk of the tar, which is the blob, too, if it is not compressed.
    pub(super) fn add_tar(&self, chunk: &Arc<Chunk>) {
        let mut queue = self.queue();
        queue.tar.push_back(chunk.clone());
        if queue.is_awaited && queue.tar.len() >= BATCH {
            queue.is_awaited = false;
            self.changed.notify_one();
        }
    }

    /// Hashes the next chunks, if more than so many of the tar wait; `false` when there are none, or another thread hashes.
    pub(super) fn help(&self, more_than: usize) -> bool {
        let Ok(mut hashers) = self.hashers.try_lock() else { return false };
        let next = self.queue().next(more_than);
        let Some(chunks) = next else { return false };
        hashers.update(&chunks);
        true
    }

    /// Whether nothing waits that can be hashed now.
    pub(super) fn is_done(&self) -> bool {
        let queue = self.queue();
        queue.tar.is_empty() && queue.blob.len() < ALONE
    }

    /// Hashes what comes on a thread of its own, if anything is hashed, until the result is dropped.
    ///
    /// # Errors
    /// `Io` when no thread can be started.
    pub(super) fn on_thread(self: &Arc<Self>) -> Result<Option<HashThread>> {
        if self.hashers.lock().is_ok_and(|hashers| hashers.blob.is_none() && hashers.tar.is_none()) {
            return Ok(None);
        }
        let hashes = self.clone();
        let thread = thread::Builder::new().name("layer-hash".to_owned()).spawn(move || hashes.run());
        thread.map_err(|e| Error::io("starting a thread", e))?;
        Ok(Some(HashThread(self.clone())))
    }

    fn run(&self) {
        while self.wait() {
            // Another thread may hash now: that is waited for, too.
            let Ok(mut hashers) = self.hashers.lock() else { return };
            self.drain(&mut hashers, |queue| queue.next(0));
        }
    }

    /// Hashes chunks of the queue until there is no next one.
    fn drain(&self, hashers: &mut Hashers, next: impl Fn(&mut Queue) -> Option<Chunks>) {
        while let Some(chunks) = { next(&mut self.queue()) } {
            hashers.update(&chunks);
        }
    }

    /// Waits until there are enough chunks to be woken for; `false` when no more are hashed here.
    fn wait(&self) -> bool {
        let mut queue = self.queue();
        queue.is_awaited = true;
        let is_idle = |queue: &mut Queue| queue.tar.len() < BATCH && !queue.is_closed;
        queue = self.changed.wait_while(queue, is_idle).unwrap_or_else(PoisonError::into_inner);
        queue.is_awaited = false;
        !queue.is_closed
    }

    /// Hashes what is left, and yields the digests.
    ///
    /// # Errors
    /// `Internal` when a thread has panicked within a hash; as [`check`](Self::check).
    pub(super) fn finish(&self) -> Result<Digests> {
        self.queue().is_closed = true;
        Ok(self.whole()?.finish())
    }

    /// Compares the checksums of all chunks so far: what is wrong with one came before any other error.
    ///
    /// # Errors
    /// `Corrupt` when the CRC-32 of a gzip member is not what it has to be.
    pub(super) fn check(&self) -> Result<()> {
        self.whole().map(drop)
    }

    /// The hashes, of all chunks so far.
    fn whole(&self) -> Result<MutexGuard<'_, Hashers>> {
        let mut hashers = self.hashers.lock().map_err(|_| LayerFault::Thread)?;
        self.drain(&mut hashers, Queue::last);
        if hashers.is_broken { Err(LayerFault::GZIP_BROKEN.into()) } else { Ok(hashers) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that hashes. It ends when this is dropped.
pub(super) struct HashThread(Arc<Hashes>);

impl Drop for HashThread {
    fn drop(&mut self) {
        self.0.queue().is_closed = true;
        self.0.changed.notify_one();
    }
}

/// What a stream is hashed by.
fn algorithm_of(expected: Option<&Digest>) -> &str {
    expected.map_or("sha256", |digest| digest.algorithm().as_ref())
}
