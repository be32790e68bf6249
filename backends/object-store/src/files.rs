//! Files of a folder as objects, with conditional puts: `file:`.
//!
//! The file system of `object_store` itself does not replace a file on a condition, and brings `nix`. Here each object is a
//! file of its own name; a put is a temporary file that is renamed, and one that has a condition compares while it holds a
//! lock of the folder (`flock`, which NFS has, too). What is written is on the disk before it has its name.

mod folder;
mod multipart;
mod walk;

use std::fmt;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use folder::{Folder, blocking, failed};
use multipart::FileUpload;
use walk::Walk;

pub(crate) use folder::NAME;

/// Bytes of a file that are read at once.
const CHUNK: u64 = 256 << 10;
/// Entries of a listing that are read at once.
const BATCH: usize = 256;

/// A folder whose files are objects.
#[derive(Clone, Debug)]
pub(crate) struct Files(Arc<Folder>);

impl Files {
    /// The folder at a path, which the first write makes.
    pub(crate) fn new(root: &FilePath) -> Self {
        Self(Arc::new(Folder::new(root)))
    }
}

#[async_trait]
impl ObjectStore for Files {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (folder, location) = (self.0.clone(), location.clone());
        blocking(move || {
            let parts: Vec<&[u8]> = payload.iter().map(|part| &**part).collect();
            folder.put(&location, &parts, &opts.mode)
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (folder, location) = (self.0.clone(), location.clone());
        blocking(move || Ok(Box::new(FileUpload::new(&folder, &location)?) as _)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (folder, location) = (self.0.clone(), location.clone());
        let (file, meta) = blocking(move || folder.open(&location)).await?;
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => {
                range.as_range(meta.size).map_err(|e| failed("reading a range", std::io::Error::other(e)))?
            }
            None => 0..meta.size,
        };
        let end = if options.head { range.start } else { range.end };
        let file = Arc::new(file);
        let chunks = stream::try_unfold(range.start, move |at| {
            let file = file.clone();
            async move {
                if at >= end {
                    return Ok(None);
                }
                let chunk = blocking(move || folder::chunk(&file, at, (end - at).min(CHUNK))).await?;
                let next = at + chunk.len() as u64;
                Ok(Some((chunk, next)))
            }
        });
        Ok(GetResult {
            payload: GetResultPayload::Stream(chunks.boxed()),
            meta,
            range,
            attributes: object_store::Attributes::default(),
            extensions: object_store::Extensions::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let folder = self.0.clone();
        let removed = locations.and_then(move |location| {
            let folder = folder.clone();
            blocking(move || folder.remove(&location).map(|()| location))
        });
        removed.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.walk(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.walk(prefix, Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (folder, prefix) = (self.0.clone(), prefix.cloned().unwrap_or_default());
        blocking(move || folder.list(&prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (folder, from, to) = (self.0.clone(), from.clone(), to.clone());
        let mode = match options.mode {
            CopyMode::Create => PutMode::Create,
            CopyMode::Overwrite => PutMode::Overwrite,
        };
        blocking(move || folder.copy(&from, &to, &mode)).await
    }
}

impl Files {
    /// In the order of the paths: a batch is in memory.
    fn walk(&self, prefix: Option<&Path>, after: Option<Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let walk = Walk::new(self.0.clone(), prefix.cloned().unwrap_or_default(), after);
        let walk = Arc::new(Mutex::new(walk));
        let batches = stream::try_unfold(walk, |walk| async move {
            let own = walk.clone();
            let batch =
                blocking(move || own.lock().unwrap_or_else(PoisonError::into_inner).batch(BATCH)).await?;
            Ok::<_, object_store::Error>(
                (!batch.is_empty()).then(|| (stream::iter(batch.into_iter().map(Ok)), walk)),
            )
        });
        batches.try_flatten().boxed()
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
