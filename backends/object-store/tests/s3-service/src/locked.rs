//! `s3s-fs`, with a lock for each object.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{TryStreamExt as _, stream};
use s3s::dto::*;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// Locks: objects that share one wait for each other.
const LOCKS: usize = 256;

/// Files, and who may touch them.
pub(crate) struct Locked {
    files: Arc<FileSystem>,
    folder: PathBuf,
    locks: Vec<Arc<Mutex<()>>>,
}

impl Locked {
    /// Of the objects below a folder.
    pub(crate) fn new(files: FileSystem, folder: &Path) -> Self {
        let locks = (0..LOCKS).map(|_| Arc::default()).collect();
        Self { files: Arc::new(files), folder: folder.to_owned(), locks }
    }

    /// Waits until no other request touches any of these objects.
    async fn lock<'a>(&self, objects: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<OwnedMutexGuard<()>> {
        let number = |object: (&str, &str)| {
            let mut hasher = DefaultHasher::new();
            object.hash(&mut hasher);
            (hasher.finish() % LOCKS as u64) as usize
        };
        let mut numbers: Vec<_> = objects.into_iter().map(number).collect();
        // In one order, so that two requests never wait for each other.
        numbers.sort_unstable();
        numbers.dedup();
        let mut held = Vec::new();
        for number in numbers {
            held.push(self.locks[number].clone().lock_owned().await);
        }
        held
    }
}

/// Carries a request out by the method of the same name, with these objects locked, whatever becomes of the client.
macro_rules! locked {
    ($self:ident, $request:ident, $method:ident, $objects:expr) => {{
        let (files, held) = ($self.files.clone(), $self.lock($objects).await);
        let carried_out = tokio::spawn(async move {
            let outcome = files.$method($request).await;
            drop(held);
            outcome
        });
        carried_out.await.map_err(|e| s3_error!(e, InternalError))?
    }};
}

/// Methods that touch one object.
macro_rules! of_one_object {
    ($($method:ident($input:ident) -> $output:ident;)+) => {
        #[async_trait::async_trait]
        impl S3 for Locked {
            $(async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
                locked!(self, request, $method, [(&*bucket, &*key)])
            })+

            async fn put_object(
                &self,
                mut request: S3Request<PutObjectInput>,
            ) -> S3Result<S3Response<PutObjectOutput>> {
                request.input.body = taken(request.input.body).await?;
                let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
                locked!(self, request, put_object, [(&*bucket, &*key)])
            }

            async fn upload_part(
                &self,
                mut request: S3Request<UploadPartInput>,
            ) -> S3Result<S3Response<UploadPartOutput>> {
                request.input.body = taken(request.input.body).await?;
                let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
                locked!(self, request, upload_part, [(&*bucket, &*key)])
            }

            async fn get_object(
                &self,
                request: S3Request<GetObjectInput>,
            ) -> S3Result<S3Response<GetObjectOutput>> {
                let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
                let (files, path) = (self.files.clone(), self.folder.join(&bucket).join(&key));
                let _held = self.lock([(&*bucket, &*key)]).await;
                let mut found = files.get_object(request).await?;
                found.output.body = Some(read(&path, &found.output)?);
                Ok(found)
            }

            async fn delete_objects(
                &self,
                request: S3Request<DeleteObjectsInput>,
            ) -> S3Result<S3Response<DeleteObjectsOutput>> {
                let bucket = request.input.bucket.clone();
                let keys: Vec<_> = request.input.delete.objects.iter().map(|object| object.key.clone()).collect();
                locked!(self, request, delete_objects, keys.iter().map(|key| (&*bucket, &**key)))
            }

            async fn list_objects_v2(
                &self,
                request: S3Request<ListObjectsV2Input>,
            ) -> S3Result<S3Response<ListObjectsV2Output>> {
                self.files.list_objects_v2(request).await
            }

            async fn create_bucket(
                &self,
                request: S3Request<CreateBucketInput>,
            ) -> S3Result<S3Response<CreateBucketOutput>> {
                self.files.create_bucket(request).await
            }
        }
    };
}

of_one_object! {
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
}

/// The bytes of an answer, which `s3s-fs` reads 4 KiB at a time: a client would measure that. The file is replaced and never
/// changed, so what was opened is the object of this answer.
fn read(path: &Path, answer: &GetObjectOutput) -> S3Result<StreamingBlob> {
    let range = answer.content_range.as_deref().and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    let start = range.map_or(Ok(0), str::parse).map_err(|e| s3_error!(e, InternalError))?;
    let left = answer.content_length.unwrap_or_default() as usize;
    let mut file = File::open(path).map_err(|e| s3_error!(e, NoSuchKey))?;
    file.seek(SeekFrom::Start(start)).map_err(|e| s3_error!(e, InternalError))?;
    let bytes = stream::try_unfold((file, left), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = move || -> io::Result<_> {
            let mut piece = vec![0; left.min(PIECE)];
            file.read_exact(&mut piece)?;
            Ok((Bytes::from(piece), file))
        };
        let (piece, file) = spawn_blocking(read).await.map_err(io::Error::other)??;
        let left = left - piece.len();
        Ok::<_, io::Error>(Some((piece, (file, left))))
    });
    Ok(StreamingBlob::wrap(bytes))
}

/// A body that is here to its end.
async fn taken(body: Option<StreamingBlob>) -> S3Result<Option<StreamingBlob>> {
    let Some(body) = body else { return Ok(None) };
    let taken = body.try_fold(BytesMut::new(), async |mut taken, bytes| {
        taken.extend_from_slice(&bytes);
        Ok(taken)
    });
    let taken = taken.await.map_err(|_| s3_error!(IncompleteBody))?;
    Ok(Some(StreamingBlob::from(Body::from(taken.freeze()))))
}
