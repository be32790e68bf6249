//! A thread that decodes every so many-th span of a gzip blob.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::GzipIndex;
use super::decoder::Decoder;
use crate::layer::gunzip::Sum;
use crate::layer::header::BLOCK;
use crate::layer::pool::{CHUNK, Chunk, Pool};
use crate::{Error, ReadAt, Result};

/// Buffers of one thread: more than most spans have, so that one is decoded while that of another thread is read.
const BUFFERS: usize = 18;
/// Buffers of all threads together: 24 MiB.
const ALL_BUFFERS: usize = 96;

/// The side of the reader. The thread ends when it is dropped.
pub(super) struct Worker {
    pub(super) pieces: Receiver<Result<Piece>>,
}

/// Some bytes of a span.
pub(super) struct Piece {
    pub(super) chunk: Arc<Chunk>,
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
        let work = move || {
            let pool = Pool::new(BUFFERS.min(ALL_BUFFERS / step.max(1)));
            if let Err(e) = run(&*file, &index, (number, step), &pool, &sender) {
                // A reader that is gone needs no error.
                let _ = sender.send(Err(e));
            }
        };
        let started = thread::Builder::new().name("layer-gunzip".to_owned()).spawn(work);
        started.map_err(|e| Error::io("starting a thread", e))?;
        Ok(Self { pieces })
    }
}

fn run(
    file: &dyn ReadAt,
    index: &GzipIndex,
    (first, step): (usize, usize),
    pool: &Pool,
    pieces: &Sender<Result<Piece>>,
) -> Result<()> {
    let mut decoder = Decoder::new(index.blob_size);
    for number in (first..index.spans()).step_by(step) {
        let Some((begin, end)) = index.span(number) else { break };
        decoder.enter(file, begin)?;
        // All chunks but the first one begin with a block of the tar, as those of a decoder without an index do.
        let (mut room, mut ends) = (CHUNK - begin.offset as usize % BLOCK, false);
        while !ends {
            let mut chunk = pool.next();
            let length;
            (length, ends) = decoder.fill(file, &mut chunk.room()[..room], end)?;
            chunk.filled(length);
            room = CHUNK;
            let piece = Piece { chunk: Arc::new(chunk), taken: decoder.taken(), sum: decoder.last(), ends };
            if pieces.send(Ok(piece)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
