//! Blobs on their way into the store.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::digest::{self, Hasher};
use plyfold_core::worker::Workers;
use plyfold_core::xxh3::Xxh3;
use plyfold_core::{BlobWriter, Descriptor, Digest, Error, ErrorKind, Ingest, Mismatch, Result};
use tokio::sync::{mpsc, oneshot};

use super::paths::name_of;
use super::quarantine::quarantine;
use super::queue::Queued;
use super::xxh3;
use crate::durable::{self, Temp};
use crate::early_sync::EarlySync;
use crate::root::{PathKind, Root};

/// Chunks between the download and the thread that hashes and writes them. Backends yield at most some hundred
/// KiB at a time.
const IN_FLIGHT: usize = 8;
/// Small chunks are written together.
const BUFFER: usize = 256 << 10;

/// Begins to write a blob; `None` while another writer has it.
pub(super) fn begin(root: &Arc<Root>, blob: &Descriptor, queued: &Queued) -> Result<Option<Ingest>> {
    let present = || Ok::<_, Error>(root.stat_blob(blob.digest())? == PathKind::File(blob.size()));
    if present()? {
        return Ok(Some(Ingest::Present));
    }
    let Some(temp) = Temp::claim(root, &name_of(blob.digest()))? else { return Ok(None) };
    // The writer before may have been done between the two looks.
    if present()? {
        return Ok(Some(Ingest::Present));
    }
    if let PathKind::Irregular(_) = root.stat_blob(blob.digest())? {
        quarantine(root, blob.digest())?;
    }
    let partial = Partial::resume(root.clone(), blob.clone(), temp)?;
    Ok(Some(Ingest::Vacant(Box::new(DiskWriter::start(partial, queued.clone())?))))
}

/// The async end of a thread that hashes and writes one blob.
///
/// A thread of its own and not one of the runtime's pool: it lives as long as its download, and a pool that is
/// full of waiting writers would have no thread for their input.
#[derive(Debug)]
struct DiskWriter {
    blob: Descriptor,
    offset: u64,
    /// Whether the thread keeps the bytes when the writer is dropped.
    resumable: Arc<AtomicBool>,
    steps: Option<mpsc::Sender<Step>>,
    outcome: oneshot::Receiver<Result<()>>,
    /// The thread: told to end when the last step has been sent.
    workers: Workers,
}

#[derive(Debug)]
enum Step {
    Commit,
    Restart,
    Suspend,
    Write(Bytes),
}

impl DiskWriter {
    fn start(partial: Partial, queued: Queued) -> Result<Self> {
        let (blob, offset) = (partial.blob.clone(), partial.length);
        let (steps, received) = mpsc::channel(IN_FLIGHT);
        // The bytes of an earlier attempt are kept even when this writer is dropped before it begins.
        let resumable = Arc::new(AtomicBool::new(offset > 0));
        let kept = Arc::clone(&resumable);
        let (done, outcome) = oneshot::channel();
        let workers = Workers::new();
        workers.start("plyfold-ingest", move || {
            let outcome = partial.run(received, &kept);
            // Remove the temporary file before the next one in the queue looks for it.
            drop(queued);
            // The receiver is gone when the writer was dropped.
            let _ = done.send(outcome);
        })?;
        Ok(Self { blob, offset, resumable, steps: Some(steps), outcome, workers })
    }

    async fn send(&mut self, step: Step) -> Result<()> {
        let Some(steps) = &self.steps else { return Err(ended()) };
        if steps.send(step).await.is_ok() {
            return Ok(());
        }
        self.steps = None;
        (&mut self.outcome).await.unwrap_or_else(|_| Err(ended())).and(Err(ended()))
    }

    /// The last step: dropping the future does not stop it.
    async fn end(mut self, step: Step) -> Result<()> {
        self.send(step).await?;
        let outcome = (&mut self.outcome).await.unwrap_or_else(|_| Err(ended()));
        self.workers.done();
        outcome
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Internal, "the thread that writes a blob has ended")
}

#[async_trait]
impl BlobWriter for DiskWriter {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let length = self.offset + bytes.len() as u64;
        if length > self.blob.size() {
            return Err(mismatch(&self.blob, None, length));
        }
        self.send(Step::Write(bytes)).await?;
        self.offset = length;
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.send(Step::Restart).await?;
        self.offset = 0;
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.end(Step::Commit).await
    }

    async fn discard(mut self: Box<Self>) {
        self.steps = None;
        self.workers.ended().await;
    }

    fn set_resumable(&mut self, resumable: bool) {
        self.resumable.store(resumable, Ordering::Release);
    }

    async fn suspend(self: Box<Self>) -> Result<()> {
        self.end(Step::Suspend).await
    }
}

/// The part of a blob that is in its temporary file, and its hash.
struct Partial {
    root: Arc<Root>,
    blob: Descriptor,
    temp: Temp,
    file: BufWriter<File>,
    hasher: Hasher,
    xxh3: Xxh3,
    length: u64,
    early: EarlySync,
}

impl Partial {
    /// Takes over what an earlier writer has left, and hashes it again.
    fn resume(root: Arc<Root>, blob: Descriptor, mut temp: Temp) -> Result<Self> {
        let at = |e| Error::io("reading a partial download", e);
        let hasher = Hasher::like(blob.digest())?;
        let held = temp.file().metadata().map_err(at)?.len();
        let file = BufWriter::with_capacity(BUFFER, temp.share()?);
        let xxh3 = Xxh3::default();
        let mut partial =
            Self { root, blob, temp, file, hasher, xxh3, length: 0, early: EarlySync::default() };
        if held > partial.blob.size() {
            partial.restart()?;
            return Ok(partial);
        }
        if held > 0 {
            let Self { temp, hasher, xxh3, .. } = &mut partial;
            let read = digest::read_all(temp.file(), |bytes| {
                hasher.update(bytes);
                xxh3.update(bytes);
            });
            partial.length = read.map_err(at)?;
        }
        Ok(partial)
    }

    fn run(mut self, mut steps: mpsc::Receiver<Step>, resumable: &AtomicBool) -> Result<()> {
        while let Some(step) = steps.blocking_recv() {
            match step {
                Step::Commit => return self.publish(),
                Step::Restart => self.restart()?,
                Step::Suspend => return self.suspend(),
                Step::Write(bytes) => self.write(&bytes)?,
            }
        }
        if resumable.load(Ordering::Acquire) { self.suspend() } else { Ok(()) }
    }

    fn suspend(mut self) -> Result<()> {
        self.flush()?;
        // An empty file cannot be resumed.
        if self.length > 0 {
            self.temp.keep();
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.xxh3.update(bytes);
        self.length += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|e| self.at(e))?;
        self.early.wrote(self.file.get_ref(), bytes.len() as u64);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|e| self.at(e))
    }

    fn restart(&mut self) -> Result<()> {
        self.flush()?;
        self.length = 0;
        self.hasher = Hasher::like(self.blob.digest())?;
        self.xxh3 = Xxh3::default();
        let file = self.temp.file();
        let emptied = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(|e| self.at(e))
    }

    fn publish(mut self) -> Result<()> {
        self.flush()?;
        self.early.finish().map_err(|e| self.at(e))?;
        let Self { root, blob, mut temp, file: _held, hasher, xxh3, length, early: _ended } = self;
        let actual = hasher.finish();
        if length != blob.size() || actual != *blob.digest() {
            return Err(mismatch(&blob, Some(actual), length));
        }
        let keeping = |e| Error::io(format!("writing {}", blob.digest()), e);
        xxh3::keep(temp.file(), xxh3.finish()).map_err(keeping)?;
        durable::folder(&root, &["blobs", blob.digest().algorithm().as_ref()], root.private)?;
        temp.publish(&root.blob_path(blob.digest()), root.mode(0o444))
    }

    fn at(&self, e: io::Error) -> Error {
        Error::io(format!("writing {}", self.blob.digest()), e)
    }
}

fn mismatch(blob: &Descriptor, actual: Option<Digest>, actual_size: u64) -> Error {
    Error::from(Mismatch {
        expected: blob.digest().clone(),
        actual,
        expected_size: Some(blob.size()),
        actual_size,
    })
}
