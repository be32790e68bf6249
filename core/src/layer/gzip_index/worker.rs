//! A thread that decodes every so many-th span of a gzip blob.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::GzipIndex;
use super::decoder::Decoder;
use crate::layer::gunzip::Sum;
use crate::{Error, ReadAt, Result};

/// Bytes of one buffer.
pub(super) const BUFFER: usize = 256 << 10;
/// Buffers of one thread: more than most spans have, so that one is decoded while that of another thread is read.
const BUFFERS: usize = 18;
/// Buffers of all threads together: 24 MiB.
const ALL_BUFFERS: usize = 96;

/// The side of the reader. The thread ends when it is dropped.
pub(super) struct Worker {
    pub(super) pieces: Receiver<Result<Piece>>,
    pub(super) give_back: Sender<Vec<u8>>,
}

/// Some bytes of a span.
pub(super) struct Piece {
    pub(super) buffer: Vec<u8>,
    pub(super) length: usize,
    /// How many bytes of the blob are decoded then.
    pub(super) taken: u64,
    /// CRC-32 and length of the member up to the last of the bytes.
    pub(super) sum: Sum,
    /// Whether the span ends, as its index says.
    pub(super) ends: bool,
}

impl Worker {
    /// Starts a thread that decodes the span of this number, and each `step`-th one behind it.
    pub(super) fn start(
        file: Arc<dyn ReadAt + Send + Sync>,
        index: Arc<GzipIndex>,
        number: usize,
        step: usize,
    ) -> Result<Self> {
        let (sender, pieces) = mpsc::channel();
        let (give_back, free) = mpsc::channel();
        let work = move || {
            let buffers = Buffers { free, unmade: BUFFERS.min(ALL_BUFFERS / step.max(1)) };
            if let Err(e) = run(&*file, &index, (number, step), buffers, &sender) {
                // A reader that is gone needs no error.
                let _ = sender.send(Err(e));
            }
        };
        let started = thread::Builder::new().name("layer-gunzip".to_owned()).spawn(work);
        started.map_err(|e| Error::io("starting a thread", e))?;
        Ok(Self { pieces, give_back })
    }
}

fn run(
    file: &dyn ReadAt,
    index: &GzipIndex,
    (first, step): (usize, usize),
    mut buffers: Buffers,
    pieces: &Sender<Result<Piece>>,
) -> Result<()> {
    let mut decoder = Decoder::new(index.blob_size);
    for number in (first..index.spans()).step_by(step) {
        let Some((begin, end)) = index.span(number) else { break };
        decoder.enter(file, begin)?;
        let mut ends = false;
        while !ends {
            let Some(mut buffer) = buffers.take() else { return Ok(()) };
            let length;
            (length, ends) = decoder.fill(file, &mut buffer, end)?;
            let piece = Piece { buffer, length, taken: decoder.taken(), sum: decoder.last(), ends };
            if pieces.send(Ok(piece)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The buffers of one thread, which go round.
struct Buffers {
    free: Receiver<Vec<u8>>,
    unmade: usize,
}

impl Buffers {
    /// One that is free; `None` when the reader is gone.
    fn take(&mut self) -> Option<Vec<u8>> {
        match self.free.try_recv() {
            Ok(buffer) => Some(buffer),
            Err(_) if self.unmade > 0 => {
                self.unmade -= 1;
                Some(vec![0; BUFFER])
            }
            Err(_) => self.free.recv().ok(),
        }
    }
}
