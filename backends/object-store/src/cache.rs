//! The cache: what it is opened from, and its methods.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::path::Path;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, CachedNames, Collect, Collected,
    Descriptor, Digest, Error, ErrorKind, Ingest, Lease, NameChange, Page, Reference, Result, Usage,
    Verified, Verify,
};
use serde::Deserialize;

use crate::bucket::{Bucket, Expected, token};
use crate::config::Config;
use crate::shared::Shared;
use crate::{
    artifact, background, collect, content, flight, lease, name_list, service, stored_artifact, update,
    verify,
};

/// What the objects of a prefix are, and which version of this crate reads them.
const FORMAT: u32 = 1;

/// The object that says so.
const MARKER: &str = "plyfold.json";

/// Images in a bucket, which many machines use at once. Clones share connections.
#[derive(Clone, Debug)]
pub struct ObjectStoreCache(Shared);

impl ObjectStoreCache {
    /// Opens `s3://BUCKET/PREFIX`, `gs://`, `az://`, `file:///FOLDER` or `memory:///NAME`. Credentials are taken from the
    /// environment and from the options, as `object_store` does.
    ///
    /// The first writer of a prefix asks the service whether it writes on conditions. One that does not is opened to read
    /// from: [`is_read_only`](CacheProvider::is_read_only).
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a URI or an option that is wrong, [`Unsupported`](ErrorKind::Unsupported) for
    /// what another version has written, and those of the service: [`Auth`](ErrorKind::Auth),
    /// [`Denied`](ErrorKind::Denied), [`NotFound`](ErrorKind::NotFound), [`Unavailable`](ErrorKind::Unavailable).
    pub async fn open(uri: &str, config: &Config) -> Result<Self> {
        Self::on_bucket(service::open(uri, config)?, config).await
    }

    /// The same where a machine has written before; nothing is written.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`NotFound`](ErrorKind::NotFound) where no machine has written.
    pub async fn open_existing(uri: &str, config: &Config) -> Result<Self> {
        let bucket = service::open(uri, config)?;
        if !is_there(&bucket).await? {
            return Err(Error::not_found("there is no cache").with_endpoint(&bucket));
        }
        Ok(Self::new(bucket, config, config.read_only.then_some(READ_ONLY)))
    }

    /// The same in a store that the program has made, such as one with other retries. `uri` stands in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn on(store: Arc<dyn ObjectStore>, prefix: &Path, uri: &str, config: &Config) -> Result<Self> {
        Self::on_bucket(Bucket::new(store, prefix, uri), config).await
    }

    async fn on_bucket(bucket: Bucket, config: &Config) -> Result<Self> {
        let refusal = writing_is_refused(&bucket, config).await?;
        Ok(Self::new(bucket, config, refusal.as_deref()))
    }

    fn new(bucket: Bucket, config: &Config, refusal: Option<&str>) -> Self {
        Self(Shared {
            bucket,
            queues: Arc::default(),
            expiry: config.expiry(),
            scratch: config.scratch.clone(),
            refusal: refusal.map(Arc::from),
            looks: false,
        })
    }

    /// The same that looks at content without using it.
    fn looking(&self) -> Self {
        Self(Shared { looks: true, ..self.0.clone() })
    }
}

/// Why nothing is written, where that was asked for.
const READ_ONLY: &str = "the cache is opened to read from";

/// Whether a machine has written here, in the format of this program.
async fn is_there(bucket: &Bucket) -> Result<bool> {
    #[derive(Deserialize)]
    struct Marker {
        version: u32,
    }
    let path = bucket.path(MARKER)?;
    let Some(found) = bucket.read(&path, 4096).await? else { return Ok(false) };
    let marker = serde_json::from_slice::<Marker>(&found.bytes).map_err(|e| {
        let error = bucket.damaged("an object is not what marks a cache of plyfold");
        error.with_context("object", &path).with_source(e)
    })?;
    if marker.version != FORMAT {
        let message =
            format!("the cache has format {}, and this program reads format {FORMAT}", marker.version);
        let error = Error::unsupported(message).with_endpoint(bucket);
        return Err(error.with_hint("use the same version on all machines, or another prefix for this one"));
    }
    Ok(true)
}

/// Why nothing can be written here; `None` where it can.
async fn writing_is_refused(bucket: &Bucket, config: &Config) -> Result<Option<String>> {
    let is_there = is_there(bucket).await?;
    if config.read_only {
        return Ok(Some(READ_ONLY.to_owned()));
    }
    if is_there {
        return Ok(None);
    }
    let why = match flight::probe(bucket).await {
        Ok(None) => {
            let body = serde_json::json!({ "version": FORMAT, "token": token() }).to_string();
            bucket.swap(&bucket.path(MARKER)?, &Expected::Absent, body.into()).await?;
            return Ok(None);
        }
        Ok(Some(why)) => why.to_owned(),
        Err(e) if matches!(e.kind(), ErrorKind::Denied | ErrorKind::Unsupported) => e.to_string(),
        Err(e) => return Err(e),
    };
    Ok(Some(format!("nothing can be written to this cache: {why}")))
}

#[async_trait]
impl CacheProvider for ObjectStoreCache {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        content::stat(&self.0, digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        content::open(&self.0, blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        content::ingest(&self.0, blob).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        content::quarantine(&self.0, digest).await
    }

    async fn find_descriptor(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        name_list::find(self, &self.0.bucket, reference).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        Ok(name_list::described(name_list::all(&self.0.bucket).await?))
    }

    async fn list_page(&self, page: &Page) -> Result<CachedNames> {
        name_list::cached(&self.0.bucket, page).await
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        update::update(&self.0, changes).await
    }

    async fn pins(&self) -> Result<Vec<Reference>> {
        let names = name_list::all(&self.0.bucket).await?;
        Ok(names.into_iter().filter(|(_, image)| image.pinned).map(|(name, _)| name).collect())
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        artifact::artifact(&self.0, key).await
    }

    async fn find_artifact(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
        Ok(stored_artifact::find(&self.0, key).await?.map(|found| Box::new(found) as _))
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        lease::lease(&self.0, content).await
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        match self.0.refusal {
            Some(_) => Ok(Lease::none()),
            None => flight::single_flight(&self.0, work).await,
        }
    }

    async fn settle(&self) {
        background::settled().await;
    }

    async fn usage(&self) -> Result<Usage> {
        background::settled().await;
        collect::usage(&self.looking(), &self.looking().0).await
    }

    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        collect::collect(&self.looking(), &self.looking().0, policy).await
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        verify::verify(&self.looking(), &self.looking().0, what).await
    }

    fn scratch(&self) -> Option<PathBuf> {
        self.0.scratch.clone()
    }

    fn is_read_only(&self) -> bool {
        self.0.refusal.is_some()
    }
}

impl fmt::Display for ObjectStoreCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bucket.fmt(f)
    }
}
