//! `s3s-fs`, with a lock for each object.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::BytesMut;
use futures::TryStreamExt as _;
use s3s::dto::*;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Locks: objects that share one wait for each other.
const LOCKS: usize = 256;

/// Files, and who may touch them.
pub(crate) struct Locked {
    files: Arc<FileSystem>,
    locks: Vec<Arc<Mutex<()>>>,
}

impl Locked {
    pub(crate) fn new(files: FileSystem) -> Self {
        Self { files: Arc::new(files), locks: (0..LOCKS).map(|_| Arc::default()).collect() }
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
    get_object(GetObjectInput) -> GetObjectOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
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
