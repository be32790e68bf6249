//! Large files go to the disk while they are being written.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use plyfold_core::block_sums::SummedFile;
use plyfold_core::{Output, RangeWrite};

/// Bytes that are written between two syncs. Smaller files are synced once, at their end.
const STEP: u64 = 32 << 20;

/// Syncs a file now and then, on a thread of its own, so that the sync at its end has little left to do.
#[derive(Debug, Default)]
pub(crate) struct EarlySync {
    /// Bytes since the last sync was asked for.
    written: u64,
    thread: Option<Syncer>,
}

#[derive(Debug)]
struct Syncer {
    asked: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl EarlySync {
    /// Says that so many more bytes were written to the file, always the same one.
    pub(crate) fn wrote(&mut self, file: &File, count: u64) {
        self.written += count;
        if self.written < STEP {
            return;
        }
        self.written = 0;
        if self.thread.is_none() {
            // Without a thread the sync at the end takes longer.
            self.thread = Syncer::start(file).ok();
        }
        if let Some(syncer) = &self.thread {
            // One that is still at work syncs these bytes later.
            let _ = syncer.asked.try_send(());
        }
    }

    /// Waits for the thread. The sync at the end is still to come.
    ///
    /// # Errors
    /// That of a sync: the kernel reports it once, and not to the sync at the end.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let Some(Syncer { asked, thread }) = self.thread.take() else { return Ok(()) };
        drop(asked);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread that syncs has panicked")))
    }
}

/// The thread holds the lock on the file as long as it lives.
impl Drop for EarlySync {
    fn drop(&mut self) {
        if let Err(e) = self.finish() {
            tracing::debug!("syncing a file that is given up: {e}");
        }
    }
}

/// A file that is summed and synced while it is written.
#[derive(Debug)]
pub(crate) struct EarlyFile {
    summed: SummedFile,
    early: EarlySync,
}

impl EarlyFile {
    pub(crate) fn new(file: File) -> Self {
        Self { summed: SummedFile::new(file), early: EarlySync::default() }
    }

    /// The file, of which what was written last is not synced.
    ///
    /// # Errors
    /// As [`EarlySync::finish`].
    pub(crate) fn finish(mut self) -> io::Result<SummedFile> {
        self.early.finish()?;
        Ok(self.summed)
    }

    fn wrote(&mut self, count: usize) -> usize {
        self.early.wrote(self.summed.file(), count as u64);
        count
    }
}

impl Read for EarlyFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.summed.read(buffer)
    }
}

impl Write for EarlyFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.summed.write(buffer)?;
        Ok(self.wrote(count))
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.summed.write_vectored(buffers)?;
        Ok(self.wrote(count))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.summed.flush()
    }
}

impl Seek for EarlyFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.summed.seek(position)
    }
}

impl RangeWrite for EarlyFile {
    fn copy_range(&mut self, source: &File, from: u64, length: u64) -> io::Result<()> {
        self.summed.copy_range(source, from, length)
    }
}

impl Output for EarlyFile {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.summed.set_len(length)
    }

    fn data_from(&mut self, offset: u64) -> io::Result<Option<u64>> {
        self.summed.data_from(offset)
    }
}

impl Syncer {
    fn start(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let (asked, wanted) = mpsc::sync_channel(1);
        let sync = move || wanted.iter().try_for_each(|()| file.sync_data());
        let thread = thread::Builder::new().name("plyfold-sync".to_owned()).spawn(sync)?;
        Ok(Self { asked, thread })
    }
}
