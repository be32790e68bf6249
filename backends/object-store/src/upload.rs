//! Content on its way into an object, in parts: at most two are in memory, the one that is filled and the one that is sent.

use std::fmt;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _};
use plyfold_core::{Error, ErrorKind, Result, Size};
use tokio::task::JoinHandle;

use crate::background;
use crate::bucket::Bucket;

/// Bytes of a part: the fewest that S3 allows.
const PART: u64 = 5 << 20;
/// Bytes of a part of content that would have too many of those.
const LARGE_PART: u64 = 32 << 20;
/// Parts of an object: the most that S3 allows.
const PARTS: u64 = 10_000;

/// An object that is being written. Nothing of it can be seen before [`finish`](Self::finish).
pub(crate) struct Upload {
    bucket: Bucket,
    path: Path,
    part: usize,
    /// How many were sent.
    parts: u64,
    filling: BytesMut,
    sent: Option<Box<dyn MultipartUpload>>,
    sending: Option<JoinHandle<object_store::Result<()>>>,
    is_finished: bool,
}

impl Upload {
    /// Of content that is said to have this size.
    pub(crate) fn new(bucket: &Bucket, path: Path, size: u64) -> Self {
        let part = if size <= PART * PARTS { PART } else { LARGE_PART };
        let (filling, part) = (BytesMut::new(), part as usize);
        Self {
            bucket: bucket.clone(),
            path,
            part,
            parts: 0,
            filling,
            sent: None,
            sending: None,
            is_finished: false,
        }
    }

    /// What is written and not sent yet, if nothing was sent.
    pub(crate) fn unsent(&self) -> Option<&[u8]> {
        self.sent.is_none().then_some(&self.filling)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Limit`](ErrorKind::Limit) for more than an object may have, and those of the service.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.part - self.filling.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() == self.part {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Makes all of it one object.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        if self.sent.is_none() {
            let content = std::mem::take(&mut self.filling).freeze();
            self.is_finished = true;
            let put = self.bucket.store().put(&self.path, content.into()).await;
            return put.map(drop).map_err(|e| self.failed(e));
        }
        let size = self.parts * self.part as u64 + self.filling.len() as u64;
        if !self.filling.is_empty() {
            self.send().await?;
        }
        self.sent().await?;
        let Some(mut upload) = self.sent.take() else { return Ok(()) };
        self.is_finished = true;
        let error = match upload.complete().await {
            Ok(_) => return Ok(()),
            Err(e) => self.failed(e),
        };
        // The answer may have been lost: an upload that is complete is not known any more when the request is sent again.
        match self.bucket.look(&self.path).await {
            Ok(Some((_, found))) if found == size => Ok(()),
            _ => Err(error),
        }
    }

    /// Sends the part that was filled, when the one before has arrived.
    async fn send(&mut self) -> Result<()> {
        self.sent().await?;
        if self.parts == PARTS {
            let most = Size(self.part as u64 * PARTS);
            return Err(Error::limit(format!("more than the {most} that an object is written with"))
                .with_endpoint(&self.bucket));
        }
        self.parts += 1;
        let part: Bytes = self.filling.split().freeze();
        let mut upload = match self.sent.take() {
            Some(upload) => upload,
            None => self.bucket.store().put_multipart(&self.path).await.map_err(|e| self.failed(e))?,
        };
        self.sending = Some(background::handle()?.spawn(upload.put_part(part.into())));
        self.sent = Some(upload);
        Ok(())
    }

    /// Waits for the part that is being sent.
    async fn sent(&mut self) -> Result<()> {
        let Some(sending) = self.sending.take() else { return Ok(()) };
        match sending.await {
            Ok(sent) => sent.map_err(|e| self.failed(e)),
            Err(e) => {
                Err(Error::new(ErrorKind::Internal, "a task that sends a part has ended").with_source(e))
            }
        }
    }

    fn failed(&self, error: object_store::Error) -> Error {
        let failed = self.bucket.failed(error, "writing content").with_context("object", &self.path);
        match failed.kind() {
            // Not the content that is to be stored: the upload, which the service has given up.
            ErrorKind::NotFound if failed.hint().is_none() => {
                Error::new(ErrorKind::Unavailable, "the service has given up an upload")
                    .with_endpoint(&self.bucket)
                    .with_context("object", &self.path)
                    .with_source(failed)
            }
            _ => failed,
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(sending) = self.sending.take() {
            sending.abort();
        }
        // A finished object is removed by who knows whether it is used.
        let Some(mut upload) = self.sent.take().filter(|_| !self.is_finished) else { return };
        let path = self.path.clone();
        background::remove(async move {
            if let Err(e) = upload.abort().await {
                tracing::debug!("parts of {path} stay until the service removes them: {e}");
            }
        });
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({})", self.path)
    }
}
