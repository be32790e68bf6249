//! The threads between a layer's bytes and its tar: read, hash, inflate.

use std::io::{self, Read, Seek, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use super::codec::Codec;
use super::fault::LayerFault;
use super::piece::{Measured, Piece, Totals, check_size};
use super::plain::Plain;
use super::pool::{Chunk, Pool};
use super::{Compression, LayerLimits, LayerOptions};
use crate::digest::Hasher;
use crate::{Descriptor, Digest, Error, Mismatch, Result, Size};

/// The ratio is not checked below this size of the output: a layer of zeros of this size does no harm.
const RATIO_FLOOR: u64 = 1 << 30;

/// The uncompressed bytes of a layer, made by other threads; the end proves both digests.
///
/// Dropping it stops the threads at their next step.
pub(super) struct Uncompressed {
    pieces: Pieces,
    chunk: Option<Arc<Chunk>>,
    /// Bytes of `chunk` that are consumed.
    at: usize,
    /// Bytes of the chunks before it.
    before: u64,
    /// What gets every byte, too.
    copy: Option<Box<dyn Write + Send>>,
    totals: Option<Totals>,
}

/// Where the bytes come from.
enum Pieces {
    /// The last of the threads. All of them end when this is dropped.
    Threads { pieces: Receiver<Result<Piece<Totals>>>, _alive: Arc<()> },
    /// A plain tar, by this thread.
    Plain(Plain),
}

impl Uncompressed {
    /// Starts the threads.
    pub(super) fn start(source: impl Read + Send + 'static, options: &LayerOptions) -> Result<Self> {
        let (next, pieces) = mpsc::channel();
        let alive = Arc::new(());
        let source = Source { reader: source, pool: Pool::new(), consumer: Arc::downgrade(&alive), size: 0 };
        let options = options.clone();
        spawn("layer-read", move || report(&next.clone(), source.run(&options, next)))?;
        Ok(Self::of(Pieces::Threads { pieces, _alive: alive }))
    }

    /// A plain tar of which nothing is hashed: what is skipped is not read.
    pub(super) fn plain(
        source: impl Read + Seek + Send + 'static,
        size: u64,
        options: &LayerOptions,
    ) -> Self {
        Self::of(Pieces::Plain(Plain::new(source, size, options.limits.clone())))
    }

    fn of(pieces: Pieces) -> Self {
        Self { pieces, chunk: None, at: 0, before: 0, copy: None, totals: None }
    }

    /// Waits until there are bytes to see and returns how many, 0 at the verified end.
    pub(super) fn ready(&mut self) -> Result<usize> {
        while self.peek().is_empty() && self.totals.is_none() {
            self.give_back()?;
            let next = match &mut self.pieces {
                Pieces::Threads { pieces, .. } => pieces.recv().map_err(|_| LayerFault::Thread)?,
                Pieces::Plain(plain) => plain.next(),
            };
            match next? {
                Piece::Data(chunk) => self.chunk = Some(chunk),
                Piece::End(totals) => self.totals = Some(totals),
            }
        }
        Ok(self.peek().len())
    }

    /// The consumed buffer goes back before the wait for the next one.
    fn give_back(&mut self) -> Result<()> {
        if let Some(chunk) = self.chunk.take() {
            self.before += chunk.len() as u64;
            if let Some(copy) = &mut self.copy {
                copy.write_all(&chunk).map_err(|e| Error::io("copying a layer's tar", e))?;
            }
        }
        self.at = 0;
        Ok(())
    }

    /// Moves past at most so many bytes, which are not looked at; how many, 0 at the verified end.
    pub(super) fn skip(&mut self, wanted: u64) -> Result<u64> {
        if self.peek().is_empty()
            && self.copy.is_none()
            && let Pieces::Plain(plain) = &mut self.pieces
        {
            let skipped = plain.skip(wanted)?;
            if skipped > 0 {
                self.give_back()?;
                self.before += skipped;
                return Ok(skipped);
            }
        }
        let count = self.ready()?.min(usize::try_from(wanted).unwrap_or(usize::MAX));
        self.consume(count);
        Ok(count as u64)
    }

    /// The bytes that [`Uncompressed::ready`] announced.
    pub(super) fn peek(&self) -> &[u8] {
        self.chunk.as_ref().map_or(&[], |chunk| &chunk[self.at..])
    }

    /// Marks the first `count` bytes as used.
    pub(super) fn consume(&mut self, count: usize) {
        self.at += count;
    }

    /// How many bytes are used.
    pub(super) fn position(&self) -> u64 {
        self.before + self.at as u64
    }

    /// Gives every byte to `copy`, too, chunk by chunk as they are used; whether that is all of them.
    pub(super) fn copy_to(&mut self, copy: Box<dyn Write + Send>) -> bool {
        self.copy = Some(copy);
        self.before == 0
    }

    /// Size and digests, once the end of the stream is reached.
    pub(super) fn totals(&self) -> Option<&Totals> {
        self.totals.as_ref()
    }
}

type Link<E> = Sender<Result<Piece<E>>>;

/// The reading stage.
struct Source<R> {
    reader: R,
    pool: Pool,
    /// Dropped when the layer is no longer read.
    consumer: Weak<()>,
    size: u64,
}

impl<R: Read> Source<R> {
    /// Reads everything: straight to the consumer, or to an inflating thread before it.
    fn run(mut self, options: &LayerOptions, next: Link<Totals>) -> Result<()> {
        let first = self.chunk(options)?;
        let compression = Compression::by_magic(first.as_deref().unwrap_or_default());
        match Codec::new(compression)? {
            None => self.pass_on(first, options, &next),
            Some(codec) => self.inflate(first, options, Inflate { codec, compression, next }),
        }
    }

    /// A plain tar: its own digest is the `diff_id`, if both are by one algorithm, so that it is hashed once.
    fn pass_on(mut self, first: Option<Chunk>, options: &LayerOptions, next: &Link<Totals>) -> Result<()> {
        let (blob, diff_id) = (options.blob.as_ref().map(Descriptor::digest), options.diff_id.as_ref());
        let mut hashes = Vec::new();
        if options.hashes_blob() {
            hashes.push(Hash::start(blob)?);
        }
        if options.hashes_tar() && (hashes.is_empty() || algorithm_of(blob) != algorithm_of(diff_id)) {
            hashes.push(Hash::start(diff_id)?);
        }
        let mut outlet = Outlet { next, hashes, size: 0 };
        let mut chunk = first;
        while let Some(full) = chunk {
            check_size(outlet.size + full.len() as u64, &options.limits)?;
            outlet.put(full)?;
            chunk = self.chunk(options)?;
        }
        let (blob, tar) = outlet.measured()?;
        finish(next, options, Totals { compression: Compression::None, blob, tar })
    }

    /// A compressed tar.
    fn inflate(mut self, first: Option<Chunk>, options: &LayerOptions, stage: Inflate) -> Result<()> {
        let (sender, compressed) = mpsc::channel();
        let expected = options.blob.as_ref().map(|blob| blob.digest().clone());
        let hash = options.hashes_blob().then(|| Hash::start(expected.as_ref())).transpose()?;
        let mut outlet = Outlet { next: &sender, hashes: hash.into_iter().collect(), size: 0 };
        {
            let options = options.clone();
            spawn("layer-inflate", move || report(&stage.next.clone(), stage.run(&compressed, &options)))?;
        }
        // From here on the inflating thread reports: an error of this one is a piece of its input.
        let result = (|| {
            let mut chunk = first;
            while let Some(full) = chunk {
                outlet.put(full)?;
                chunk = self.chunk(options)?;
            }
            Ok(outlet.measured()?.0)
        })();
        let _ = sender.send(result.map(Piece::End));
        Ok(())
    }

    /// The next bytes, `None` at the end.
    fn chunk(&mut self, options: &LayerOptions) -> Result<Option<Chunk>> {
        let mut chunk = self.pool.take();
        while !chunk.is_full() {
            if self.consumer.strong_count() == 0 {
                return Err(LayerFault::Cancelled.into());
            }
            match self.reader.read(chunk.room()) {
                Ok(0) => break,
                Ok(count) => chunk.filled(count),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("reading a layer", e)),
            }
        }
        self.size += chunk.len() as u64;
        match &options.blob {
            Some(blob) if self.size > blob.size() => Err(Mismatch::of(blob, None, self.size).into()),
            _ => Ok((!chunk.is_empty()).then_some(chunk)),
        }
    }
}

/// The inflating stage.
struct Inflate {
    codec: Codec,
    compression: Compression,
    next: Link<Totals>,
}

impl Inflate {
    fn run(mut self, compressed: &Receiver<Result<Piece<Measured>>>, options: &LayerOptions) -> Result<()> {
        let hash = options.hashes_tar().then(|| Hash::start(options.diff_id.as_ref())).transpose()?;
        let mut outlet = Outlet { next: &self.next, hashes: hash.into_iter().collect(), size: 0 };
        let mut pool = Pool::new();
        let mut output = pool.take();
        let mut taken = 0;
        let blob = loop {
            let input = match compressed.recv().map_err(|_| LayerFault::Thread)?? {
                Piece::Data(chunk) => chunk,
                Piece::End(blob) => break blob,
            };
            let mut at = 0;
            loop {
                let step = self.codec.step(&input[at..], output.room())?;
                at += step.read;
                output.filled(step.written);
                if output.is_full() {
                    let size = outlet.size + output.len() as u64;
                    check_size(size, &options.limits)?;
                    check_ratio(size, taken + at as u64, &options.limits)?;
                    outlet.put(output)?;
                    output = pool.take();
                } else if at == input.len() {
                    // There was room left: the decoder holds nothing back.
                    break;
                }
            }
            taken += input.len() as u64;
        };
        self.codec.finish()?;
        check_size(outlet.size + output.len() as u64, &options.limits)?;
        if !output.is_empty() {
            outlet.put(output)?;
        }
        let tar = outlet.measured()?.1;
        finish(&self.next, options, Totals { compression: self.compression, blob, tar })
    }
}

/// Where a stage's chunks go: to the next stage and to be hashed.
struct Outlet<'a, E> {
    next: &'a Link<E>,
    /// At most two; the last is the one that the next stage's stream is known by.
    hashes: Vec<Hash>,
    size: u64,
}

impl<E> Outlet<'_, E> {
    fn put(&mut self, chunk: Chunk) -> Result<()> {
        self.size += chunk.len() as u64;
        let chunk = Arc::new(chunk);
        for hash in &self.hashes {
            // A hash thread that has panicked is detected when its digest is collected.
            let _ = hash.chunks.send(chunk.clone());
        }
        self.next.send(Ok(Piece::Data(chunk))).map_err(|_| LayerFault::Cancelled.into())
    }

    /// Size and digest, by the first hash and by the last.
    fn measured(&mut self) -> Result<(Measured, Measured)> {
        let size = self.size;
        let digests = self.hashes.drain(..).map(Hash::finish).collect::<Result<Vec<_>>>()?;
        let by = |digest: Option<&Digest>| Measured { size, digest: digest.cloned() };
        Ok((by(digests.first()), by(digests.last())))
    }
}

/// A thread that hashes what it is sent.
struct Hash {
    chunks: Sender<Arc<Chunk>>,
    thread: JoinHandle<Digest>,
}

impl Hash {
    /// By the algorithm of `expected`, by sha256 when nothing is.
    fn start(expected: Option<&Digest>) -> Result<Self> {
        let mut hasher = expected.map_or_else(|| Ok(Hasher::sha256()), Hasher::like)?;
        let (chunks, received) = mpsc::channel::<Arc<Chunk>>();
        let thread = spawn("layer-hash", move || {
            for chunk in received {
                hasher.update(&chunk);
            }
            hasher.finish()
        })?;
        Ok(Self { chunks, thread })
    }

    fn finish(self) -> Result<Digest> {
        drop(self.chunks);
        self.thread.join().map_err(|_| LayerFault::Thread.into())
    }
}

/// What a stream is hashed by: by what it is expected to hash to, else by sha256.
fn algorithm_of(expected: Option<&Digest>) -> &str {
    expected.map_or("sha256", |digest| digest.algorithm().as_ref())
}

/// Hands over the end, if it is what was promised.
fn finish(next: &Link<Totals>, options: &LayerOptions, totals: Totals) -> Result<()> {
    if let Some(blob) = &options.blob {
        check(&totals.blob, blob.digest(), Some(blob.size()))?;
    }
    if let Some(diff_id) = &options.diff_id {
        check(&totals.tar, diff_id, None).map_err(|e| e.with_context("checking", "diff_id"))?;
    }
    next.send(Ok(Piece::End(totals))).map_err(|_| LayerFault::Cancelled.into())
}

fn check(measured: &Measured, expected: &Digest, expected_size: Option<u64>) -> Result<()> {
    let complete = expected_size.is_none_or(|size| size == measured.size);
    if complete && measured.digest.as_ref() == Some(expected) {
        return Ok(());
    }
    Err(Error::from(Mismatch {
        expected: expected.clone(),
        actual: measured.digest.clone().filter(|_| complete),
        expected_size,
        actual_size: measured.size,
    }))
}

fn check_ratio(size: u64, compressed: u64, limits: &LayerLimits) -> Result<()> {
    if size <= RATIO_FLOOR || size / limits.ratio.max(1) <= compressed {
        return Ok(());
    }
    Err(LayerFault::Ratio(Size(compressed), Size(size), limits.ratio).into())
}

/// Passes on a stage's error. The receiver may be gone.
fn report<E>(next: &Link<E>, result: Result<()>) {
    if let Err(e) = result {
        let _ = next.send(Err(e));
    }
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|e| Error::io("starting a thread", e))
}
