//! A blob that is being stored.

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::digest::Hasher;
use plyfold_core::{BlobWriter, Descriptor, Error, ErrorKind, Mismatch, Result};

use crate::claim::Claim;
use crate::record::{self, INLINE, Record, Slot};
use crate::shared::Shared;
use crate::upload::Upload;

/// A blob whose bytes come: nothing of it can be seen before all of it is verified.
#[derive(Debug)]
pub(crate) struct BlobUpload {
    shared: Shared,
    blob: Descriptor,
    claim: Claim,
    hasher: Hasher,
    written: u64,
    upload: Upload,
}

impl BlobUpload {
    pub(crate) fn new(shared: &Shared, blob: &Descriptor, claim: Claim) -> Result<Self> {
        let upload = Upload::new(&shared.bucket, claim.data()?, blob.size());
        let hasher = Hasher::like(blob.digest())?;
        Ok(Self { shared: shared.clone(), blob: blob.clone(), claim, hasher, written: 0, upload })
    }

    /// Another has taken over, because this one was not heard of for long enough; what it has stored is as good.
    async fn after_loss(shared: &Shared, blob: &Descriptor) -> Result<()> {
        let path = record::of_blob(&shared.bucket, blob.digest())?;
        match Slot::read(&shared.bucket, &path).await?.with_content() {
            Some(found) if found.record.size == blob.size() => Ok(()),
            _ => {
                let message = "another writer has taken over: this one did not renew its right in time";
                let error = Error::new(ErrorKind::Unavailable, message).with_context("blob", blob.digest());
                Err(error.with_endpoint(&shared.bucket))
            }
        }
    }
}

#[async_trait]
impl BlobWriter for BlobUpload {
    fn offset(&self) -> u64 {
        self.written
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let size = self.written + bytes.len() as u64;
        if size > self.blob.size() {
            return Err(Mismatch::of(&self.blob, None, size).into());
        }
        self.hasher.update(&bytes);
        self.written = size;
        self.upload.write(&bytes).await
    }

    async fn restart(&mut self) -> Result<()> {
        self.upload = Upload::new(&self.shared.bucket, self.claim.data()?, self.blob.size());
        self.hasher = Hasher::like(self.blob.digest())?;
        self.written = 0;
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { shared, blob, claim, hasher, written, mut upload } = *self;
        let actual = hasher.finish();
        if written != blob.size() || actual != *blob.digest() {
            drop(upload);
            claim.give_up().await;
            return Err(Mismatch::of(&blob, Some(actual), written).into());
        }
        let inline = upload.unsent().filter(|_| written <= INLINE).map(Bytes::copy_from_slice);
        let record = if let Some(content) = inline {
            Record::inline(content)
        } else {
            upload.finish().await?;
            Record::live(written, &claim.id)
        };
        if claim.publish(&record).await? {
            return Ok(());
        }
        Self::after_loss(&shared, &blob).await
    }

    async fn discard(self: Box<Self>) {
        let Self { claim, upload, .. } = *self;
        drop(upload);
        claim.give_up().await;
    }

    /// An interrupted download begins again at 0: no service reads back what an unfinished upload has, and the digest of
    /// it would have to be computed again.
    async fn suspend(self: Box<Self>) -> Result<()> {
        self.discard().await;
        Ok(())
    }
}
