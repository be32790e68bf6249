//! The backend: references in, manifests out.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::{
    Advice, Backend, Blob, BlobRange, Capabilities, Credential, Descriptor, Digest, Error, ImageRegistry,
    MediaType, Names, OpenRequest, Opened, Page, RawManifest, Reference, Result, reference,
};

use crate::Config;
use crate::auth::Credentials;
use crate::client::Client;

plyfold_core::register!(Backend {
    schemes: &["registry", "docker"],
    package: env!("CARGO_PKG_NAME"),
    summary: "OCI distribution registries over HTTP",
    syntax: "registry:HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], or registry:HOST[:PORT]/ for the registry itself",
    options: "anonymous=true, auth-file=FILE, ca=FILE, client-cert=FILE, client-key=FILE, connect-timeout=SECONDS, \
              docker-config=DIR, helper-path=DIR, helper-timeout=SECONDS, hosts=JSON, hosts-dir=DIR, https=HOST, \
              max-connections=NUMBER, parallel-ranges=NUMBER, password=TEXT, plain-http=HOST, read-timeout=SECONDS, \
              requests-per-second=NUMBER, trusted-realm=HOST, upload-chunk=MIB, user-agent=TEXT, username=TEXT",
    capabilities: CAPABILITIES,
    takes_credentials: true,
    open: |request| Box::pin(async move { open(&request) }),
});

const CAPABILITIES: Capabilities = Capabilities {
    atomic_names: false,
    delete: true,
    mount: true,
    partial_blobs: false,
    push: true,
    referrers: true,
    repositories: true,
    sparse: true,
    tags: true,
};

fn open(request: &OpenRequest) -> Result<Opened> {
    let config: Config = request.options.config()?;
    let place = &request.location.rest;
    let reference = if place.ends_with('/') { None } else { Some(reference::parse(place)?) };
    let host = reference.as_ref().map_or(place.trim_end_matches('/'), Reference::registry);
    config.check()?;
    let credentials = Credentials::new(&config, host)?;
    let credentials = match &request.credential {
        Some(credential) => credentials.for_calls(credential.clone()),
        None => credentials,
    };
    let client = Client::shared(&config, host, credentials, request)?;
    Ok(Opened { registry: Box::new(Registry { home: host.into(), client: Arc::new(client) }), reference })
}

/// An OCI registry. Clones share connections and tokens.
///
/// References to other registries are served too, by the same options; only the configured user name, password and
/// client certificate are for the one named here alone.
///
/// ```
/// use plyfold_registry::{Config, Registry};
///
/// let registry = Registry::new("localhost:5000", &Config::default())?;
/// assert_eq!(registry.to_string(), "registry:localhost:5000");
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    home: Arc<str>,
    client: Arc<Client>,
}

impl Registry {
    /// The registry at `host` or `host:port`. No I/O over the network.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a host that is none, also in a list of hosts, for a folder of
    /// `hosts_dir` that is none, and for certificates that cannot be read.
    pub fn new(host: &str, config: &Config) -> Result<Self> {
        config.check()?;
        let client = Client::new(config, host, Credentials::new(config, host)?)?;
        Ok(Self { home: host.into(), client: Arc::new(client) })
    }

    /// The same registry for who has this credential: connections and limits are shared, tokens are not. No other host
    /// gets a credential, and manifests, tags and lists come from the registry itself, not from its mirrors.
    #[must_use]
    pub fn with_credential(&self, credential: Credential) -> Self {
        Self { home: Arc::clone(&self.home), client: Arc::new(self.client.for_calls(credential)) }
    }

    /// What is added to every error: the image and this registry.
    fn at<'a>(&'a self, reference: &'a Reference) -> impl Fn(Error) -> Error + 'a {
        move |e| e.with_image(reference).with_endpoint(self)
    }
}

#[async_trait]
impl ImageRegistry for Registry {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.client.read_manifest(reference).await.map_err(self.at(reference))
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let opened = self.client.read_blob(reference, blob, range).await;
        opened.map_err(|e| self.at(reference)(e).with_context("blob", blob.digest()))
    }

    async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        match self.client.head_manifest(reference).await.map_err(self.at(reference))? {
            Some(descriptor) => Ok(descriptor),
            None => Ok(self.manifest(reference).await?.descriptor().clone()),
        }
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn concurrency(&self) -> usize {
        self.client.site.limits.connections()
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        self.client
            .list_tags(repository, &page)
            .await
            .map_err(|e| e.with_image(repository).with_endpoint(self))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        self.client.list_repositories(&self.home, &page).await.map_err(|e| e.with_endpoint(self))
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        self.client.list_referrers(reference, subject, artifact_type).await.map_err(self.at(reference))
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        let digest = blob.descriptor().digest().clone();
        let pushed = self.client.write_blob(reference, blob).await;
        pushed.map_err(|e| self.at(reference)(e).with_context("blob", digest))
    }

    async fn mount_blob(&self, reference: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool> {
        let mounted = self.client.mount(reference, blob, from).await;
        mounted.map_err(|e| self.at(reference)(e).with_context("blob", blob.digest()))
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        self.client.write_manifest(reference, manifest).await.map_err(self.at(reference))
    }

    /// Many registries refuse it.
    async fn push_sparse(&self, names: &[(Reference, RawManifest)], _: &[Digest]) -> Result<()> {
        self.push_names(names).await.map_err(|e| e.with_advice(Advice::RewriteIndex))
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        let found = self.client.stat_blob(reference, blob).await;
        found.map_err(|e| self.at(reference)(e).with_context("blob", blob.digest()))
    }

    async fn delete(&self, reference: &Reference) -> Result<()> {
        self.client.remove(reference).await.map_err(self.at(reference))
    }

    async fn delete_blob(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        self.client.remove_blob(reference, digest).await.map_err(self.at(reference))
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry:{}", self.home)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("home", &self.home).finish_non_exhaustive()
    }
}
