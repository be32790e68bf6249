//! The uncompressed bytes of a layer, as they are read: made by another thread, or by this one.

use std::io::{Read, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use super::LayerOptions;
use super::fault::LayerFault;
use super::hashes::Hashes;
use super::input::Input;
use super::link::{Link, Maker, Reader};
use super::maker::ChunkMaker;
use super::piece::{Piece, Totals};
use super::plain::Plain;
use super::pool::Chunk;
use super::spans::Spans;
use crate::{Error, Result};

/// The uncompressed bytes of a layer; the end proves both digests.
///
/// Dropping it stops its thread at its next step.
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
    /// Nothing is read yet.
    New(Option<Box<(Input, LayerOptions)>>),
    /// This thread: nothing is inflated, or so little so far that a thread would cost more than it saves.
    Here(Box<ChunkMaker>, Link),
    /// A thread that inflates; this one reads ahead of it, and hashes.
    Thread(Reader, Arc<Input>, Arc<Hashes>),
    /// A plain tar, by this thread, without hashes.
    Plain(Plain),
    /// Threads that decode a span each, and one that hashes.
    Spans(Box<Spans>),
}

impl Pieces {
    /// The next piece; a panic of the source is an error, on whichever thread it is read.
    fn next(&mut self) -> Result<Piece<Totals>> {
        let next = catch_unwind(AssertUnwindSafe(|| self.make()));
        next.unwrap_or_else(|_| Err(LayerFault::Thread.into()))
    }

    fn make(&mut self) -> Result<Piece<Totals>> {
        match self {
            Self::New(layer) => {
                let (source, options) = *layer.take().ok_or(LayerFault::Thread)?;
                let link = Link::default();
                *self = Self::Here(Box::new(ChunkMaker::new(source, options, &link)?), link);
                self.make()
            }
            Self::Here(maker, link) if !maker.is_long() => {
                let piece = maker.next(link)?;
                // The chunk is still in the caches of this core.
                maker.hash();
                Ok(piece)
            }
            Self::Here(..) => {
                self.start()?;
                self.make()
            }
            Self::Thread(Reader(link), source, hashes) => {
                link.next(|later| source.help(link) || hashes.help(later))
            }
            Self::Plain(plain) => plain.next(),
            Self::Spans(spans) => spans.next(),
        }
    }

    /// Goes on on a thread.
    fn start(&mut self) -> Result<()> {
        let Self::Here(maker, link) = std::mem::replace(self, Self::New(None)) else { return Ok(()) };
        let (link, source, hashes) = (Arc::new(link), maker.source().clone(), maker.hashes().clone());
        let end = Maker(link.clone());
        let started = thread::Builder::new().name("layer-inflate".to_owned()).spawn(move || end.run(*maker));
        started.map_err(|e| Error::io("starting a thread", e))?;
        *self = Self::Thread(Reader(link), source, hashes);
        Ok(())
    }
}

impl Maker {
    /// Makes all chunks.
    fn run(self, mut maker: ChunkMaker) {
        loop {
            match maker.next(&self.0) {
                Ok(Piece::Data(chunk)) => self.0.put(chunk),
                Ok(Piece::End(totals)) => return self.0.end(Ok(totals)),
                Err(e) => return self.0.end(Err(e)),
            }
        }
    }
}

impl Uncompressed {
    /// A layer of which nothing is read before the first bytes are asked for.
    pub(super) fn new(source: impl Read + Send + 'static, options: &LayerOptions) -> Self {
        Self::of(Pieces::New(Some(Box::new((Input::new(Box::new(source), options), options.clone())))))
    }

    /// A plain tar of which nothing is hashed: what is skipped is not read.
    pub(super) fn plain(
        source: impl Read + Seek + Send + 'static,
        size: u64,
        options: &LayerOptions,
    ) -> Self {
        Self::of(Pieces::Plain(Plain::new(source, size, options.limits.clone())))
    }

    /// A gzip layer with an index.
    pub(super) fn spans(spans: Spans) -> Self {
        Self::of(Pieces::Spans(Box::new(spans)))
    }

    fn of(pieces: Pieces) -> Self {
        Self { pieces, chunk: None, at: 0, before: 0, copy: None, totals: None }
    }

    /// Waits until there are bytes to see and returns how many, 0 at the verified end.
    pub(super) fn ready(&mut self) -> Result<usize> {
        while self.peek().is_empty() && self.totals.is_none() {
            self.give_back()?;
            match self.pieces.next()? {
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
