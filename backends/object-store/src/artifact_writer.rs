//! An artifact that is being made: in a file without a name, because materializers write in any order.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use plyfold_core::block_sums::{Reading, SummedFile};
use plyfold_core::blocking::{Stop, blocking};
use plyfold_core::{ArtifactHandle, ArtifactKey, ArtifactWriter, Error, ErrorKind, Made, Output, Result};

use crate::background;
use crate::claim::Claim;
use crate::record::{ArtifactRecord, Record};
use crate::shared::Shared;
use crate::stored_artifact::{self, StoredArtifact};
use crate::upload::Upload;

/// Bytes that are read from the file at once.
const CHUNK: usize = 1 << 20;

/// An artifact in the making.
#[derive(Debug)]
pub(crate) struct ArtifactUpload {
    shared: Shared,
    key: ArtifactKey,
    claim: Claim,
    file: File,
    written: SummedFile,
    stop: Stop,
}

impl ArtifactUpload {
    pub(crate) fn new(shared: &Shared, key: &ArtifactKey, claim: Claim) -> Result<Self> {
        let file = match &shared.scratch {
            Some(folder) => tempfile::tempfile_in(folder),
            None => tempfile::tempfile(),
        };
        let making = |e| Error::io("making a temporary file", e);
        let file = file.map_err(making)?;
        let written = SummedFile::new(file.try_clone().map_err(making)?);
        Ok(Self { shared: shared.clone(), key: key.clone(), claim, file, written, stop: Stop::default() })
    }
}

impl ArtifactWriter for ArtifactUpload {
    fn output(&mut self) -> &mut dyn Output {
        &mut self.written
    }

    fn stop_with(&mut self, stop: &Stop) {
        self.stop = stop.clone();
    }

    fn commit(self: Box<Self>, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
        let Self { shared, key, claim, file, written, stop } = *self;
        let sums = written.sums(&Reading::on_all_cores(&stop))?;
        let made = made.bounded();
        background::wait(async move {
            let data = claim.data()?;
            let sent = Upload::new(&shared.bucket, data.clone(), sums.size());
            upload(sent, Arc::new(file), sums.size(), &stop).await?;
            let record =
                Record::live(sums.size(), &claim.id).with_artifact(ArtifactRecord::new(&key, &made, &sums));
            let bucket = shared.bucket.clone();
            if claim.publish(&record).await? {
                return Ok(Box::new(StoredArtifact::of(&bucket, data, made, sums)) as Box<dyn ArtifactHandle>);
            }
            // Who has taken over has made the same file, or is making it.
            if let Some(found) = stored_artifact::find(&shared, &key).await? {
                return Ok(Box::new(found) as _);
            }
            let message = "another maker has taken over: this one did not renew its right in time";
            Err(Error::new(ErrorKind::Unavailable, message).with_endpoint(&bucket))
        })
    }
}

/// Sends a file.
async fn upload(mut upload: Upload, file: Arc<File>, size: u64, stop: &Stop) -> Result<()> {
    let mut at = 0;
    while at < size {
        stop.check()?;
        let (file, length) = (file.clone(), (size - at).min(CHUNK as u64) as usize);
        let chunk = blocking(move |_| {
            let mut chunk = vec![0; length];
            file.read_exact_at(&mut chunk, at).map_err(|e| Error::io("reading an artifact", e))?;
            Ok(chunk)
        });
        upload.write(&chunk.await?).await?;
        at += length as u64;
    }
    upload.finish().await
}
