//! A file that comes in parts.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, PutMode, PutPayload, PutResult, Result, UploadPart};
use tempfile::NamedTempFile;

use super::folder::{Folder, NAME, blocking, failed};

/// A temporary file that becomes an object.
#[derive(Debug)]
pub(super) struct FileUpload {
    folder: Arc<Folder>,
    location: Path,
    file: Option<NamedTempFile>,
    written: Arc<File>,
    length: u64,
}

impl FileUpload {
    pub(super) fn new(folder: &Arc<Folder>, location: &Path) -> Result<Self> {
        let file = folder.temporary(location)?;
        let written = file.as_file().try_clone().map_err(|e| failed("making a temporary file", e))?;
        let (folder, location) = (folder.clone(), location.clone());
        Ok(Self { folder, location, file: Some(file), written: Arc::new(written), length: 0 })
    }
}

#[async_trait]
impl MultipartUpload for FileUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, start) = (self.written.clone(), self.length);
        self.length += data.content_length() as u64;
        Box::pin(blocking(move || {
            let mut at = start;
            for part in &data {
                file.write_all_at(part, at).map_err(|e| failed("writing a file", e))?;
                at += part.len() as u64;
            }
            Ok(())
        }))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let ended = || Error::Generic { store: NAME, source: "the upload has ended".into() };
        let file = self.file.take().ok_or_else(ended)?;
        let (folder, location) = (self.folder.clone(), self.location.clone());
        blocking(move || folder.publish(file, &location, &PutMode::Overwrite)).await
    }

    async fn abort(&mut self) -> Result<()> {
        let file = self.file.take();
        blocking(move || {
            drop(file);
            Ok(())
        })
        .await
    }
}
