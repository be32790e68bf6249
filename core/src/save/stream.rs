//! A tar as a stream.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::blocking::{Stop, StopOnDrop};
use crate::range_write::RangeWrite;
use crate::worker::Workers;
use crate::{Error, ErrorKind, Result};

/// Bytes that are handed over at a time, and how many such pieces wait for the reader.
const PIECE: usize = 256 << 10;
const IN_FLIGHT: usize = 4;

/// A tar that is written while it is read: a stream of its bytes, and a reader of them.
///
/// An error never looks like the end: it is the last item of the stream, and of the reader what every further read returns; the
/// end-of-archive blocks do not come before it. Dropping it ends what writes it.
#[derive(Debug)]
pub struct TarReader {
    receiver: mpsc::Receiver<Result<Bytes>>,
    /// What a reader has not taken yet.
    left: Bytes,
    state: State,
    // The order counts: the work is stopped first, then waited for.
    _stop: StopOnDrop,
    _workers: Workers,
}

#[derive(Debug)]
enum State {
    Ended,
    Failed(Error),
    Open,
}

impl TarReader {
    /// What `write` writes, on a thread of its own.
    pub(crate) fn of(
        name: &str,
        write: impl FnOnce(&mut Pieces, &Stop) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let (workers, stop) = (Workers::new(), StopOnDrop::default());
        let flag = stop.0.clone();
        workers.start(name, move || {
            let mut pieces = Pieces { sender, piece: Vec::new() };
            let written = write(&mut pieces, &flag)
                .and_then(|()| pieces.send().map_err(|e| Error::io("writing the tar", e)));
            // An explicit end: a sender that is dropped without it was cancelled, not complete.
            let _ = pieces.sender.blocking_send(written.map(|()| Bytes::new()));
        })?;
        Ok(Self { receiver, left: Bytes::new(), state: State::Open, _stop: stop, _workers: workers })
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        match &self.state {
            State::Ended => return Poll::Ready(Ok(None)),
            State::Failed(error) => return Poll::Ready(Err(error.bare())),
            State::Open => {}
        }
        let cancelled = || Err(Error::new(ErrorKind::Cancelled, "the tar was not written to its end"));
        let piece = ready!(self.receiver.poll_recv(cx)).unwrap_or_else(cancelled);
        Poll::Ready(match piece {
            Ok(piece) if piece.is_empty() => {
                self.state = State::Ended;
                Ok(None)
            }
            Ok(piece) => Ok(Some(piece)),
            Err(error) => {
                self.state = State::Failed(error.bare());
                Err(error)
            }
        })
    }
}

impl Stream for TarReader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.left.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.left))));
        }
        let has_failed = matches!(self.state, State::Failed(_));
        // A stream ends after its error, which its reader has.
        if has_failed { Poll::Ready(None) } else { self.poll_piece(cx).map(Result::transpose) }
    }
}

impl AsyncRead for TarReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            match ready!(self.poll_piece(cx)) {
                Ok(piece) => self.left = piece.unwrap_or_default(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        let count = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left[..count]);
        self.left.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// The writing side of a [`TarReader`].
#[derive(Debug)]
pub(crate) struct Pieces {
    sender: mpsc::Sender<Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE);
        }
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl RangeWrite for Pieces {}
