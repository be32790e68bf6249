//! Blobs that are read to their verified ends by threads, whatever their source does meanwhile.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::blocking::Stop;
use crate::digest::Hasher;
use crate::progress::Progress;
use crate::pull::{Retry, Row};
use crate::{Blob, BlobRange, Descriptor, Digest, Mismatch, Result};

/// What opens a blob of an image.
pub(crate) type Open = Box<dyn Fn(Descriptor, BlobRange) -> BoxFuture<'static, Result<Blob>> + Send>;

/// Opens blobs again when an attempt fails, for as long as the work is not cancelled.
pub(crate) struct BlobOpener {
    pub(crate) open: Open,
    pub(crate) retry: Retry,
    pub(crate) progress: Progress,
    pub(crate) runtime: Handle,
    pub(crate) stop: Stop,
}

impl BlobOpener {
    /// Opens a blob from a byte on.
    pub(crate) fn open(&self, blob: &Descriptor, from: u64, row: &mut Row) -> Result<Blob> {
        let range = if from == 0 { BlobRange::FULL } else { BlobRange::from_start(from) };
        loop {
            let opened = row.attempt((self.open)(blob.clone(), range));
            match self.stop.wait(&self.runtime, opened) {
                Err(e) => {
                    let pause = self.retry.pause(row, e, blob.digest().as_ref(), &self.progress);
                    self.stop.wait(&self.runtime, pause)?;
                }
                opened => return opened,
            }
        }
    }

    /// All of a blob that was opened at its beginning, after so many failures.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a digest of an unknown algorithm.
    pub(crate) fn resumed(self, first: Blob, row: Row) -> Result<ResumedBlob> {
        let blob = first.descriptor().clone();
        Ok(ResumedBlob {
            hasher: Some(Hasher::like(blob.digest())?),
            actual: None,
            current: first.unverified(),
            opener: self,
            blob,
            row,
            done: 0,
            since: 0,
            left: Bytes::new(),
        })
    }
}

/// A blob that goes on where an attempt failed. Its end is verified.
pub(crate) struct ResumedBlob {
    opener: BlobOpener,
    blob: Descriptor,
    current: Blob,
    /// Of all bytes until the end.
    hasher: Option<Hasher>,
    /// What they hash to, at the end.
    actual: Option<Digest>,
    row: Row,
    /// Bytes that were read.
    done: u64,
    /// Of these, since the last failure.
    since: u64,
    /// What a reader has not taken yet.
    left: Bytes,
}

impl ResumedBlob {
    /// The next bytes; `None` at the verified end. Waits for them.
    pub(crate) fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let BlobOpener { retry, progress, runtime, stop, .. } = &self.opener;
            match stop.wait(runtime, self.current.chunk()) {
                Ok(Some(chunk)) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&chunk);
                    }
                    self.done += chunk.len() as u64;
                    self.since += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(None) => return self.end().map(|()| None),
                Err(e) => {
                    if self.since >= Retry::PROGRESS {
                        self.row = Row::default();
                    }
                    self.since = 0;
                    let pause = retry.pause(&mut self.row, e, self.blob.digest().as_ref(), progress);
                    stop.wait(runtime, pause)?;
                    let opened = self.opener.open(&self.blob, self.done, &mut self.row)?;
                    self.current = opened.continuing(self.done)?.unverified();
                }
            }
        }
    }

    /// How many bytes were read.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    fn end(&mut self) -> Result<()> {
        if let Some(hasher) = self.hasher.take() {
            self.actual = Some(hasher.finish());
        }
        if self.actual.as_ref() == Some(self.blob.digest()) && self.done == self.blob.size() {
            return Ok(());
        }
        Err(Mismatch::of(&self.blob, self.actual.clone(), self.done).into())
    }
}

impl Read for ResumedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() {
            self.left = self.chunk()?.unwrap_or_default();
        }
        let count = self.left.len().min(buffer.len());
        self.left.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, digest};

    #[test]
    fn a_wrong_end_is_an_error_however_often_it_is_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let blob = Descriptor::new("text/plain".into(), 1, digest::sha256(b"a"));
        let read = |blob: &Descriptor, range| Blob::from_bytes(blob, range, &Bytes::from_static(b"b"));
        let first = read(&blob, BlobRange::FULL).unwrap();
        let opener = BlobOpener {
            open: Box::new(move |blob, range| Box::pin(async move { read(&blob, range) })),
            retry: Retry::default(),
            progress: Progress::none(),
            runtime: runtime.handle().clone(),
            stop: Stop::default(),
        };
        let mut resumed = opener.resumed(first, Row::default()).unwrap();
        assert_eq!(resumed.chunk().unwrap().unwrap(), "b");
        for _ in 0..3 {
            assert_eq!(*resumed.chunk().unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
