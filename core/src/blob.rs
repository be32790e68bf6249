//! Blobs: content that verifies itself while it is read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::digest::Hasher;
use crate::page_buffer::PageBuffer;
use crate::{Descriptor, Digest, Error, ErrorKind, Mismatch, Result, Size};

/// Bytes moved per step between a file and a stream.
const CHUNK: usize = 256 << 10;
/// Chunks in flight between two threads: with [`CHUNK`] this bounds memory for any blob size.
const IN_FLIGHT: usize = 4;

/// Which bytes of a blob to read; the end is exclusive.
///
/// ```
/// use plyfold_core::BlobRange;
///
/// assert_eq!(BlobRange::from_start(10).resolve(100)?, 10..100);
/// assert_eq!(BlobRange::new(10, 20).resolve(100)?, 10..20);
/// assert!(BlobRange::new(90, 101).resolve(100).is_err());
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BlobRange {
    start: u64,
    end: Option<u64>,
}

impl BlobRange {
    /// The whole blob: the only range that is verified.
    pub const FULL: Self = Self { start: 0, end: None };

    /// Bytes `start` up to, not including, `end`.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end: Some(end) }
    }

    /// Everything from `start` on.
    pub const fn from_start(start: u64) -> Self {
        Self { start, end: None }
    }

    /// Whether this is the whole of a blob of any size.
    pub const fn is_full(self) -> bool {
        self.start == 0 && self.end.is_none()
    }

    /// The range within a blob of `size` bytes.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when it reaches beyond the blob or ends before it starts.
    pub fn resolve(self, size: u64) -> Result<std::ops::Range<u64>> {
        let end = self.end.unwrap_or(size);
        if self.start > end || end > size {
            return Err(Error::config(format!(
                "range {}..{end} is not within a blob of {size} bytes",
                self.start
            )));
        }
        Ok(self.start..end)
    }
}

/// A blob, or a range of one, being read.
///
/// A whole blob ends in an error instead of its end when digest or size disagree with the descriptor, and
/// never yields a byte past the descriptor's size: no caller can skip the check by accident. A range cannot be
/// verified; it is bounded by its length, and [`Blob::is_verified`] says so.
pub struct Blob {
    descriptor: Descriptor,
    offset: u64,
    read: u64,
    length: u64,
    endpoint: Option<String>,
    hasher: Option<Hasher>,
    stream: Option<BoxStream<'static, Result<Bytes>>>,
    file: Option<File>,
    xxh3: Option<u64>,
}

impl Blob {
    /// A whole blob out of a stream of its bytes.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when the digest's algorithm cannot be verified.
    pub fn new(
        descriptor: &Descriptor,
        stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<Self> {
        Self::ranged(descriptor, 0..descriptor.size(), stream)
    }

    /// A range of a blob. A backend that cannot start at the wanted byte starts earlier and says so by
    /// `range.start`; the reader looks at [`Blob::offset`].
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when `range` is the whole blob and its digest's algorithm
    /// cannot be verified.
    pub fn ranged(
        descriptor: &Descriptor,
        range: std::ops::Range<u64>,
        stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<Self> {
        let is_whole = range == (0..descriptor.size());
        Ok(Self {
            endpoint: None,
            file: None,
            xxh3: None,
            hasher: is_whole.then(|| Hasher::like(descriptor.digest())).transpose()?,
            length: range.end.saturating_sub(range.start),
            offset: range.start,
            read: 0,
            descriptor: descriptor.clone(),
            stream: Some(stream.boxed()),
        })
    }

    /// A blob, or a range of it, out of bytes in memory.
    ///
    /// # Errors
    /// As [`Blob::ranged`]; [`Corrupt`](crate::ErrorKind::Corrupt) when `bytes` is too short for the range.
    pub fn from_bytes(descriptor: &Descriptor, range: BlobRange, bytes: &Bytes) -> Result<Self> {
        let range = range.resolve(descriptor.size())?;
        // A full read gets everything there is, so that surplus bytes are seen and refused.
        let part = if range == (0..descriptor.size()) {
            bytes.clone()
        } else {
            let held = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            bytes.slice(held(range.start)..held(range.end))
        };
        Self::ranged(descriptor, range, stream::iter((!part.is_empty()).then_some(Ok(part))))
    }

    /// A blob, or a range of it, out of a blocking reader that stands at the range's first byte.
    /// Nothing is read before the first bytes are asked for. Then the reader runs on blocking threads, at most 1 MiB
    /// ahead, and none of them ever waits for the reader of the blob; dropping the blob stops it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`Blob::ranged`].
    pub fn from_reader(
        descriptor: &Descriptor,
        range: BlobRange,
        reader: impl Read + Send + 'static,
    ) -> Result<Self> {
        let range = range.resolve(descriptor.size())?;
        // One byte more than a whole blob shows a file that is longer than its descriptor says.
        let is_whole = range == (0..descriptor.size());
        let left = (range.end - range.start).saturating_add(u64::from(is_whole));
        let runtime = Handle::current();
        // Who takes the blob's file in place of its bytes has nothing read.
        let bursts = stream::unfold(Some(Ahead::Unread(reader, left)), move |ahead| {
            let runtime = runtime.clone();
            async move {
                let read = |reader, left| runtime.spawn_blocking(move || Burst::read(reader, left));
                let burst = match ahead? {
                    Ahead::Unread(reader, left) => read(reader, left),
                    Ahead::Reading(burst) => burst,
                };
                let broken = |e| Error::new(ErrorKind::Internal, "reading a blob was aborted").with_source(e);
                let Burst { chunks, rest } = match burst.await.map_err(broken) {
                    Ok(burst) => burst,
                    Err(e) => return Some((vec![Err(e)], None)),
                };
                Some((chunks, rest.map(|(reader, left)| Ahead::Reading(read(reader, left)))))
            }
        });
        Self::ranged(descriptor, range, bursts.flat_map(stream::iter))
    }

    /// What is being read.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Sets the endpoint that serves these bytes, if it is not the backend itself but a host that the backend was
    /// redirected to.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl fmt::Display) -> Self {
        self.endpoint = Some(endpoint.to_string());
        self
    }

    /// The endpoint that serves these bytes, if the backend has set it.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Says that the blob is a file of this machine, whole and as it is: its first byte is the file's.
    #[must_use]
    pub fn with_file(mut self, file: File) -> Self {
        self.file = Some(file);
        self
    }

    /// The file of [`with_file`](Self::with_file), if the backend has told. Its bytes are not verified before this blob is
    /// read to its end, and others may write to it.
    pub fn take_file(&mut self) -> Option<File> {
        self.file.take()
    }

    /// Says what [checksum](crate::xxh3::Xxh3) all of the blob had when its digest was last verified, where only
    /// who keeps the blob can have written that.
    #[must_use]
    pub fn with_xxh3(mut self, xxh3: Option<u64>) -> Self {
        self.xxh3 = xxh3;
        self
    }

    /// The checksum of [`with_xxh3`](Self::with_xxh3).
    pub fn xxh3(&self) -> Option<u64> {
        self.xxh3
    }

    /// Where in the blob the first byte of this read stands.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the end of this stream proves the content.
    pub fn is_verified(&self) -> bool {
        self.hasher.is_some()
    }

    /// Gives up verification, for a reader that hashes the bytes itself (such as
    /// [`BlobWriter`](crate::BlobWriter)). The size is still enforced.
    #[must_use]
    pub fn unverified(mut self) -> Self {
        self.hasher = None;
        self
    }

    /// The same from a later byte on, for who has what comes before it: that is passed over, and the end proves nothing alone.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the blob begins behind that byte.
    pub fn continuing(self, there: u64) -> Result<Self> {
        let Some(mut known) = there.checked_sub(self.offset) else {
            return Err(Error::new(ErrorKind::Unavailable, "the beginning of the blob is no longer there"));
        };
        if known == 0 {
            return Ok(self);
        }
        let (descriptor, end) = (self.descriptor.clone(), self.offset.saturating_add(self.length));
        let rest = self.unverified().try_filter_map(move |mut chunk| {
            let skipped = usize::try_from(known).unwrap_or(usize::MAX).min(chunk.len());
            known -= skipped as u64;
            chunk.advance(skipped);
            std::future::ready(Ok((!chunk.is_empty()).then_some(chunk)))
        });
        Self::ranged(&descriptor, there..end, rest)
    }

    /// The next bytes, `None` at the verified end.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) with a [`Mismatch`](crate::Mismatch) when content and descriptor disagree,
    /// otherwise what the backend reports.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.next().await.transpose()
    }

    /// The whole content, for documents; at most `limit` bytes.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) when the descriptor declares more, otherwise as [`Blob::chunk`].
    pub async fn bytes(mut self, limit: u64) -> Result<Bytes> {
        if self.length > limit {
            let digest = self.descriptor.digest();
            let sizes = Size(self.length).beyond(Size(limit));
            return Err(Error::limit(format!("{digest} declares {sizes}")));
        }
        let mut content = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            content.extend_from_slice(&chunk);
        }
        Ok(content.into())
    }

    /// A blocking reader of this blob for another thread, at most 1 MiB behind the stream. Must be called
    /// within a tokio runtime. Dropping the reader stops the stream.
    pub fn into_reader(mut self) -> BlobReader {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(async move {
            while let Some(item) = self.next().await {
                let stop = item.is_err();
                if sender.send(item).await.is_err() || stop {
                    return;
                }
            }
            // An explicit end marker: a sender that is dropped without it was cancelled, not complete.
            let _ = sender.send(Ok(Bytes::new())).await;
        });
        BlobReader::new(receiver)
    }

    fn end(&mut self) -> Result<()> {
        self.stream = None;
        let actual = self.hasher.take().map(Hasher::finish);
        let is_complete = self.read == self.length;
        if is_complete && actual.as_ref().is_none_or(|actual| actual == self.descriptor.digest()) {
            return Ok(());
        }
        Err(self.mismatch(actual.filter(|_| is_complete)))
    }

    fn mismatch(&self, actual: Option<Digest>) -> Error {
        Mismatch::of(&self.descriptor, actual, self.offset + self.read).into()
    }
}

impl Stream for Blob {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
            match ready!(stream.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => {
                    self.read += chunk.len() as u64;
                    if self.read > self.length {
                        self.stream = None;
                        return Poll::Ready(Some(Err(self.mismatch(None))));
                    }
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&chunk);
                    }
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Some(Err(e)) => {
                    self.stream = None;
                    return Poll::Ready(Some(Err(e)));
                }
                None => return Poll::Ready(self.end().err().map(Err)),
            }
        }
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("digest", self.descriptor.digest())
            .field("offset", &self.offset)
            .field("read", &self.read)
            .field("length", &self.length)
            .field("verified", &self.is_verified())
            .finish_non_exhaustive()
    }
}

/// The next burst.
enum Ahead<R> {
    /// The reader, and how many bytes it has to read.
    Unread(R, u64),
    Reading(JoinHandle<Burst<R>>),
}

/// What is read of a file at a time: while one burst is consumed, the next one is read.
struct Burst<R> {
    chunks: Vec<Result<Bytes>>,
    /// The reader, and how many bytes it has to read; `None` at the end.
    rest: Option<(R, u64)>,
}

impl<R: Read> Burst<R> {
    fn read(mut reader: R, mut left: u64) -> Self {
        let mut chunks = Vec::with_capacity(IN_FLIGHT / 2);
        while left > 0 && chunks.len() < IN_FLIGHT / 2 {
            let mut chunk = PageBuffer::new(usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
            match reader.read(&mut chunk) {
                Ok(0) => return Self { chunks, rest: None },
                Ok(count) => {
                    left -= count as u64;
                    chunks.push(Ok(Bytes::from_owner(chunk).slice(..count)));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    chunks.push(Err(Error::io("reading a blob", e)));
                    return Self { chunks, rest: None };
                }
            }
        }
        Self { chunks, rest: (left > 0).then_some((reader, left)) }
    }
}

/// The blocking side of a channel of chunks: made by [`Blob::into_reader`] or fed by the pull engine.
///
/// The end is explicit. When the sender is dropped without it, the reader ends in an error of kind
/// [`Cancelled`](crate::ErrorKind::Cancelled), never in an early end of file.
#[derive(Debug)]
pub struct BlobReader {
    receiver: mpsc::Receiver<Result<Bytes>>,
    chunk: Bytes,
    ended: bool,
}

impl BlobReader {
    /// A reader of what `receiver` yields; an empty chunk is the end.
    pub(crate) fn new(receiver: mpsc::Receiver<Result<Bytes>>) -> Self {
        Self { receiver, chunk: Bytes::new(), ended: false }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Ok(chunk)) => {
                    self.ended = chunk.is_empty();
                    self.chunk = chunk;
                }
                Some(Err(e)) => return Err(e.into()),
                None => {
                    let cancelled = Error::new(ErrorKind::Cancelled, "the transfer was cancelled");
                    return Err(cancelled.into());
                }
            }
        }
        let count = self.chunk.len().min(buf.len());
        self.chunk.copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}
