//! The backend: references in, manifests out.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oci_client::secrets::RegistryAuth;
use plyfold_core::backend::{Backend, Location, Opened, Options};
use plyfold_core::manifest::{is_document, limits};
use plyfold_core::{
    Blob, BlobRange, Capabilities, Descriptor, Digest, Error, ErrorKind, ImageRegistry, MediaType, Mismatch,
    Names, Page, RawManifest, Reference, Result, digest, reference,
};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode};

use crate::auth::{Access, Credential, Credentials};
use crate::client::{Client, Target};
use crate::response::text;
use crate::{Config, errors};

plyfold_core::register!(Backend {
    schemes: &["registry", "docker"],
    package: env!("CARGO_PKG_NAME"),
    summary: "OCI distribution registries over HTTP",
    syntax: "registry:HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], or registry:HOST[:PORT]/ for the registry itself",
    capabilities: CAPABILITIES,
    open: |location, options| Box::pin(async move { open(&location, &options) }),
});

const CAPABILITIES: Capabilities =
    Capabilities { delete: true, mount: true, push: true, referrers: true, repositories: true, tags: true };

/// Every type of manifest there is: a registry that is asked for `*/*` may answer 404 for the types of its choice.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

fn open(location: &Location, options: &Options) -> Result<Opened> {
    let config: Config = options.config()?;
    if let Some(host) = location.rest.strip_suffix('/') {
        return Ok(Opened { registry: Box::new(Registry::new(host, &config)?), reference: None });
    }
    let reference = reference::parse(&location.rest)?;
    let registry = Registry::new(reference.registry(), &config)?;
    Ok(Opened { registry: Box::new(registry), reference: Some(reference) })
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
    pub(crate) home: Arc<str>,
    pub(crate) client: Arc<Client>,
    config: Arc<Config>,
}

impl Registry {
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The registry at `host` or `host:port`. No I/O over the network.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a host that is none, also in a list of hosts, for a folder of
    /// `hosts_dir` that is none, and for certificates that cannot be read.
    pub fn new(host: &str, config: &Config) -> Result<Self> {
        config.check()?;
        Self::with_credentials(host, config, Credentials::new(config, host)?)
    }

    /// The same with the credentials of a program that uses `oci-client`, in place of any other.
    ///
    /// # Errors
    /// Those of [`Registry::new`].
    pub fn with_auth(&self, auth: RegistryAuth) -> Result<Self> {
        let mut credentials = self.client.auth().credentials().clone();
        credentials.set_own(Credential::from_auth(auth));
        Self::with_credentials(&self.home, &self.config, credentials)
    }

    fn with_credentials(host: &str, config: &Config, credentials: Credentials) -> Result<Self> {
        let client = Client::new(config, host, credentials)?;
        // Fail at once for a host or a configuration that is not valid.
        client.registry(host, "", Access::Catalog)?;
        Ok(Self { home: host.into(), client: Arc::new(client), config: Arc::new(config.clone()) })
    }

    /// Whether the registry accepts the credentials that it asks for; `false` when it asks for none.
    ///
    /// # Errors
    /// [`Auth`](plyfold_core::ErrorKind::Auth) when it refuses them, and those of the request.
    pub(crate) async fn check_login(&self) -> Result<bool> {
        let target = self.client.registry(&self.home, "", Access::Login)?;
        let at = |e: Error| e.with_endpoint(self);
        let response = self.client.send(&target, target.request(Method::GET, "")).await.map_err(at)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let refused = Error::new(ErrorKind::Auth, "the registry refuses this user name or password");
            return Err(at(
                refused.with_hint("many registries want an access token in place of the password")
            ));
        }
        if !response.status().is_success() {
            return Err(at(errors::status(response, "login").await));
        }
        Ok(self.client.auth().granted(&target.scope, false).await.is_some())
    }

    /// What is added to every error: the image and this registry.
    pub(crate) fn at<'a>(&'a self, reference: &'a Reference) -> impl Fn(Error) -> Error + 'a {
        move |e| e.with_image(reference).with_endpoint(self)
    }

    pub(crate) async fn read_manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let wanted = reference::digest_of(reference)?;
        let (target, reference) = &self.client.target(reference, Access::Pull)?;
        let request = manifest_request(target, Method::GET, reference);
        let (wanted, name) = (wanted.as_ref(), name_of(reference));
        let read = |response, _| self.verified_manifest(response, wanted, &name);
        self.client.ask(target, request, read).await
    }

    /// The manifest in an answer. What a mirror says is checked before the next one is passed over.
    pub(crate) async fn verified_manifest(
        &self,
        response: Response,
        wanted: Option<&Digest>,
        name: &str,
    ) -> Result<RawManifest> {
        let media_type = media_type(&response);
        let stated = stated_digest(&response);
        let bytes = self.client.document(response, limits::MANIFEST, name).await?;
        let raw = match wanted.or(stated.as_ref()) {
            Some(digest) => RawManifest::verified(bytes, media_type.as_ref(), digest)?,
            None => RawManifest::new(bytes, media_type.as_ref())?,
        };
        // A digest of another algorithm says nothing about this one: registries answer sha256 to a sha512 request.
        match stated.filter(|stated| stated.algorithm() == raw.digest().algorithm()) {
            Some(stated) if stated != *raw.digest() => Err(Error::mismatch(Mismatch {
                expected: stated,
                actual: Some(raw.digest().clone()),
                expected_size: None,
                actual_size: raw.bytes().len() as u64,
            })),
            _ => Ok(raw),
        }
    }

    /// The descriptor as HEAD tells it; `None` when GET has to decide.
    async fn head_manifest(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let wanted = reference::digest_of(reference)?;
        let (target, reference) = &self.client.target(reference, Access::Pull)?;
        let request = manifest_request(target, Method::HEAD, reference);
        let (wanted, name) = (wanted.as_ref(), name_of(reference));
        let name = name.as_str();
        let read = |response: Response, is_last: bool| async move {
            match response.status() {
                StatusCode::OK => Ok(described(&response, wanted)),
                // A mirror without it is skipped. The registry's 404 may be about HEAD and not about the
                // name: GET decides, and its body has the reason.
                StatusCode::NOT_FOUND if !is_last => Err(errors::status(response, name).await),
                status if errors::is_lack(status) || errors::is_signed_for_get(&response) => Ok(None),
                _ => Err(errors::status(response, name).await),
            }
        };
        self.client.ask(target, request, read).await
    }
}

/// The descriptor that an answer to HEAD stands for; `None` when it says too little.
fn described(response: &Response, wanted: Option<&Digest>) -> Option<Descriptor> {
    let stated = stated_digest(response);
    let contradicts = |wanted: &Digest| {
        stated.as_ref().is_some_and(|stated| stated.algorithm() == wanted.algorithm() && stated != wanted)
    };
    if wanted.is_some_and(contradicts) {
        return None;
    }
    // `content_length()` is that of the body, which HEAD does not have.
    let size = text(response.headers(), CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
    let size = size.filter(|size| (1..=limits::MANIFEST).contains(size))?;
    let media_type = media_type(response).filter(is_document)?;
    Some(Descriptor::new(media_type, size, wanted.cloned().or(stated)?))
}

#[async_trait]
impl ImageRegistry for Registry {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.read_manifest(reference).await.map_err(self.at(reference))
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let opened = self.read_blob(reference, blob, range).await;
        opened.map_err(|e| self.at(reference)(e).with_context("blob", blob.digest()))
    }

    async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        match self.head_manifest(reference).await.map_err(self.at(reference))? {
            Some(descriptor) => Ok(descriptor),
            None => Ok(self.manifest(reference).await?.descriptor().clone()),
        }
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn concurrency(&self) -> usize {
        self.client.limits.connections()
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        self.list_tags(repository, &page).await.map_err(|e| e.with_image(repository).with_endpoint(self))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        self.list_repositories(&page).await.map_err(|e| e.with_endpoint(self))
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        self.list_referrers(reference, subject, artifact_type).await.map_err(self.at(reference))
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        let digest = blob.descriptor().digest().clone();
        let pushed = self.write_blob(reference, blob).await;
        pushed.map_err(|e| self.at(reference)(e).with_context("blob", digest))
    }

    async fn mount_blob(&self, reference: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool> {
        let mounted = self.mount(reference, blob, from).await;
        mounted.map_err(|e| self.at(reference)(e).with_context("blob", blob.digest()))
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        self.write_manifest(reference, manifest).await.map_err(self.at(reference))
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        let found = self.stat_blob(reference, blob).await;
        found.map_err(|e| self.at(reference)(e).with_context("blob", blob.digest()))
    }

    async fn delete(&self, reference: &Reference) -> Result<()> {
        self.remove(reference).await.map_err(self.at(reference))
    }

    async fn delete_blob(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        self.remove_blob(reference, digest).await.map_err(self.at(reference))
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry:{}", self.home)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("home", &self.home)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Asks for a manifest by the reference's digest, or else by its tag.
pub(crate) fn manifest_request(target: &Target, method: Method, reference: &Reference) -> Request {
    let mut request = target.request(method, &manifest_path(reference));
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
    request
}

/// The path of a manifest below its repository. The digest wins over the tag (rule R 7).
pub(crate) fn manifest_path(reference: &Reference) -> String {
    format!("manifests/{}", reference.digest().or(reference.tag()).unwrap_or("latest"))
}

pub(crate) fn name_of(reference: &Reference) -> String {
    format!("manifest {}", reference.digest().or(reference.tag()).unwrap_or("latest"))
}

/// `Content-Type` without its parameters.
pub(crate) fn media_type(response: &Response) -> Option<MediaType> {
    let text = text(response.headers(), CONTENT_TYPE.as_str())?;
    Some(MediaType::from(text.split(';').next().unwrap_or_default().trim()))
}

/// `Docker-Content-Digest`, if it is a digest that can be checked.
pub(crate) fn stated_digest(response: &Response) -> Option<Digest> {
    digest::parse(text(response.headers(), "docker-content-digest")?).ok()
}

#[cfg(test)]
mod tests {
    use plyfold_core::manifest::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST};

    use super::*;

    #[test]
    fn all_four_types_of_manifest_are_asked_for() {
        let asked: Vec<MediaType> = MANIFESTS.split(", ").map(MediaType::from).collect();
        let docker = [DOCKER_MANIFEST, DOCKER_MANIFEST_LIST].map(MediaType::from);
        assert_eq!(asked[..2], [MediaType::ImageManifest, MediaType::ImageIndex]);
        assert_eq!(asked[2..], docker);
    }
}
