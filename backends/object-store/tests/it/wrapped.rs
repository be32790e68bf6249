//! A store whose service fails, or keeps no promise.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What is wrong with the service.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing: requests are counted.
    Counts(Arc<AtomicUsize>),
    /// Its machine stops after so many writes, and never goes on.
    DiesAfter(Arc<AtomicUsize>),
    /// It replaces objects whatever the condition.
    IgnoresConditions,
    /// Listings do not have what was put this short a time ago.
    ListsLate(Duration),
    /// It makes each put, and says for each second one that it failed.
    LosesAnswers(Arc<AtomicUsize>),
}

/// A store around another one.
#[derive(Clone, Debug)]
pub(crate) struct Wrapped {
    inner: Arc<dyn ObjectStore>,
    fault: Fault,
}

impl Wrapped {
    pub(crate) fn around(inner: Arc<dyn ObjectStore>, fault: Fault) -> Arc<dyn ObjectStore> {
        Arc::new(Self { inner, fault })
    }

    fn count(&self) {
        if let Fault::Counts(requests) = &self.fault {
            requests.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// One more write.
    fn write(&self) -> Result<()> {
        self.count();
        let Fault::DiesAfter(left) = &self.fault else { return Ok(()) };
        let lived = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        lived.map(drop).map_err(|_| dead())
    }

    fn read(&self) -> Result<()> {
        self.count();
        match &self.fault {
            Fault::DiesAfter(left) if left.load(Ordering::SeqCst) == 0 => Err(dead()),
            _ => Ok(()),
        }
    }

    fn listed(
        &self,
        objects: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count();
        match self.fault {
            Fault::ListsLate(by) => {
                let is_old = move |object: &ObjectMeta| {
                    let age = SystemTime::now().duration_since(object.last_modified.into());
                    std::future::ready(age.is_ok_and(|age| age > by))
                };
                objects.try_filter(is_old).boxed()
            }
            _ => objects,
        }
    }
}

fn dead() -> Error {
    Error::Generic { store: "wrapped", source: "the machine has stopped".into() }
}

#[async_trait]
impl ObjectStore for Wrapped {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        self.write()?;
        if let Fault::IgnoresConditions = self.fault {
            opts.mode = PutMode::Overwrite;
            // As long as a request takes.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let put = self.inner.put_opts(location, payload, opts).await?;
        match &self.fault {
            Fault::LosesAnswers(puts) if puts.fetch_add(1, Ordering::SeqCst) % 2 == 1 => Err(dead()),
            _ => Ok(put),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.write()?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.read()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (store, inner) = (self.clone(), self.inner.clone());
        let allowed = locations.map(move |location| store.write().and(location));
        inner.delete_stream(allowed.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.write()?;
        self.inner.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrapped {}", self.inner)
    }
}
