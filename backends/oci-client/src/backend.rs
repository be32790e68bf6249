//! The backend: the methods of a registry, each by a method of the client.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use oci_client::Client;
use oci_client::client::{BlobResponse, SizedStream};
use oci_client::errors::OciDistributionError as ClientError;
use oci_client::secrets::RegistryAuth;
use plyfold_core::manifest::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST};
use plyfold_core::referrers::is_of_type;
use plyfold_core::{
    Blob, BlobRange, Capabilities, Descriptor, Digest, Error, ErrorKind, ImageRegistry, MediaType, Names,
    Page, RawManifest, Reference, Result, digest, reference,
};

use crate::client::Session;
use crate::error;

/// Every type of manifest there is.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
];

/// Bytes of one part of an upload: the client sends a request for each piece that it is given.
const PART: usize = 4 << 20;

/// Registries, by an [`oci_client::Client`]. Clones share it.
///
/// References to other registries are served too, with what the client itself knows of them.
#[derive(Clone)]
pub struct OciClient(Arc<Session>);

impl OciClient {
    /// The client as it is, for the registry at `registry` (`host` or `host:port`). No I/O.
    pub fn new(client: Client, registry: impl Into<String>) -> Self {
        Self(Arc::new(Session { client, home: registry.into(), auth: RegistryAuth::Anonymous }))
    }

    /// The same with credentials for its registry, and for no other; those that the client has stored go first.
    #[must_use]
    pub fn with_auth(&self, auth: RegistryAuth) -> Self {
        Self(Arc::new(Session { auth, ..(*self.0).clone() }))
    }

    /// What is added to every error: the image and this registry.
    fn at<'a>(&'a self, reference: &'a Reference) -> impl Fn(Error) -> Error + 'a {
        move |e| e.with_image(reference).with_endpoint(self)
    }

    async fn open(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        digest::supported(blob.digest())?;
        let (range, name) = (range.resolve(blob.size())?, blob.digest().as_ref());
        let session = &self.0;
        if range == (0..blob.size()) {
            return self.whole(reference, blob).await;
        }
        let length = range.end - range.start;
        if length == 0 {
            return Blob::ranged(blob, range, stream::empty());
        }
        let part = session.client.pull_blob_stream_partial(reference, name, range.start, Some(length));
        match session.wait(reference, part).await {
            Ok(BlobResponse::Partial(part)) => match part.content_length.filter(|sent| *sent != length) {
                Some(sent) => {
                    let message = format!("the registry sends {sent} bytes for a range of {length} bytes");
                    Err(Error::new(ErrorKind::Unavailable, message))
                }
                None => Blob::ranged(blob, range, content(part)),
            },
            // The end may be the blob's: then it is verified.
            Ok(BlobResponse::Full(whole)) => {
                Blob::ranged(blob, 0..range.end, first(content(whole), range.end))
            }
            // The range cannot be satisfied: a shorter blob than the descriptor says, or a registry without ranges.
            Err(e) if *e.kind() == ErrorKind::Unsupported => self.whole(reference, blob).await,
            Err(e) => Err(e),
        }
    }

    async fn whole(&self, reference: &Reference, blob: &Descriptor) -> Result<Blob> {
        let whole = self.0.client.pull_blob_stream(reference, blob.digest().as_ref());
        Blob::new(blob, content(self.0.wait(reference, whole).await?))
    }

    async fn upload(&self, reference: &Reference, blob: Blob) -> Result<()> {
        let descriptor = blob.descriptor().clone();
        let fault = Arc::new(Mutex::new(None));
        let parts = parts(blob, Arc::clone(&fault));
        let (name, size) = (descriptor.digest().as_ref(), Some(descriptor.size()));
        let pushed =
            self.0.wait(reference, self.0.client.push_blob_stream(reference, parts, name, size)).await;
        // The client's error says less than that of the blob which ended the upload.
        let fault = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        fault.map_or(pushed.map(drop), Err)
    }
}

#[async_trait]
impl ImageRegistry for OciClient {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let session = &self.0;
        let pulled = session.client.pull_manifest_raw(reference, session.auth(reference), &MANIFESTS);
        let read = async {
            let wanted = reference::digest_of(reference)?;
            let (bytes, stated) = session.wait(reference, pulled).await?;
            RawManifest::verified(bytes, None, &wanted.map_or_else(|| digest::parse(&stated), Ok)?)
        };
        read.await.map_err(self.at(reference))
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let opened = self.open(reference, blob, range).await;
        opened.map_err(|e| self.at(reference)(e).with_context("blob", blob.digest()))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_names: false,
            delete: false,
            mount: true,
            partial_blobs: false,
            push: true,
            referrers: true,
            repositories: true,
            sparse: false,
            tags: true,
        }
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        let session = &self.0;
        let list = async {
            let name = reference::parse(repository)?;
            if reference::repository_of(&name) != repository || name.digest().is_some() {
                return Err(Error::config(format!("{repository:?} is not a repository")));
            }
            let (auth, after) = (session.auth(&name), page.after.as_deref());
            let listed =
                session.wait(&name, session.client.list_tags(&name, auth, page.limit, after)).await?;
            match listed.tags.iter().find(|tag| !reference::is_tag(tag)) {
                Some(tag) => {
                    Err(Error::corrupt(format!("the registry lists a tag that is not valid: {tag:?}")))
                }
                None => Ok(names(listed.tags, &page)),
            }
        };
        list.await.map_err(|e| e.with_image(repository).with_endpoint(self))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        let session = &self.0;
        let name = Reference::with_tag(session.home.clone(), "catalog".to_owned(), "latest".to_owned());
        // What comes before a name is the registry's host.
        let after = page
            .after
            .as_deref()
            .map(|after| after.strip_prefix(&format!("{}/", session.home)).unwrap_or(after));
        let listed = session.client.catalog(&name, session.auth(&name), page.limit, after);
        let listed = session.wait(&name, listed).await.map_err(|e| e.with_endpoint(self))?;
        let full = listed.repositories.iter().map(|repository| {
            let name = reference::parse(&format!("{}/{repository}", session.home)).map_err(|e| {
                Error::corrupt(format!("the registry lists a repository that is not valid: {repository:?}"))
                    .with_source(e)
            })?;
            Ok(reference::repository_of(&name))
        });
        Ok(names(full.collect::<Result<_>>().map_err(|e| e.with_endpoint(self))?, &page))
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let session = &self.0;
        let list = async {
            digest::supported(subject)?;
            let subject = reference::by_digest(reference, subject);
            let listed = session.client.pull_referrers(&subject, artifact_type.map(AsRef::as_ref));
            let mut found = Vec::new();
            for entry in session.wait(&subject, listed).await?.manifests {
                let descriptor = serde_json::to_value(entry).and_then(serde_json::from_value::<Descriptor>);
                let descriptor = descriptor.map_err(|e| {
                    Error::corrupt("the list of referrers has an invalid entry").with_source(e)
                })?;
                digest::supported(descriptor.digest())?;
                found.push(descriptor);
            }
            // A registry may ignore the filter.
            found.retain(|entry| is_of_type(entry, artifact_type));
            Ok(found)
        };
        list.await.map_err(self.at(reference))
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        let digest = blob.descriptor().digest().clone();
        let pushed = self.upload(reference, blob).await;
        pushed.map_err(|e| self.at(reference)(e).with_context("blob", digest))
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        let found = self.0.client.blob_exists(reference, blob.digest().as_ref());
        self.0
            .wait(reference, found)
            .await
            .map_err(|e| self.at(reference)(e).with_context("blob", blob.digest()))
    }

    async fn mount_blob(&self, reference: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool> {
        if from.registry() != reference.registry() {
            return Ok(false);
        }
        let mount = async {
            match self.0.client.mount_blob(reference, from, blob.digest().as_ref()).await {
                Ok(()) | Err(ClientError::RegistryNoLocationError) => Ok(true),
                // The registry has started an upload instead.
                Err(ClientError::SpecViolationError(_)) => Ok(false),
                Err(e) => Err(e),
            }
        };
        self.0
            .wait(reference, mount)
            .await
            .map_err(|e| self.at(reference)(e).with_context("blob", blob.digest()))
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        let push = async {
            let media_type = manifest.descriptor().media_type().as_ref();
            let media_type = media_type
                .parse()
                .map_err(|e| Error::corrupt(format!("the manifest's media type is not one: {e}")))?;
            // The client puts a digest before a tag, which would not be set then.
            let target = match reference.tag() {
                Some(tag) => Reference::with_tag(
                    reference.registry().to_owned(),
                    reference.repository().to_owned(),
                    tag.to_owned(),
                ),
                None => reference.clone(),
            };
            let pushed = self.0.client.push_manifest_raw(&target, manifest.bytes().clone(), media_type);
            self.0.wait(&target, pushed).await.map(drop)
        };
        push.await.map_err(self.at(reference))
    }
}

impl fmt::Display for OciClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci-client:{}", self.0.home)
    }
}

impl fmt::Debug for OciClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OciClient").field(&self.0.home).field(&self.0.auth).finish_non_exhaustive()
    }
}

/// The bytes of an answer. Where the client finds them to be wrong they end, and the [`Blob`] says what is wrong.
fn content(answer: SizedStream) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let wanted = answer.take_while(|item| {
        let wrong = item.as_ref().err().is_some_and(error::is_verification);
        std::future::ready(!wrong)
    });
    wanted.map(|item| item.map_err(error::of_body))
}

/// The bytes of `content` up to `end`.
fn first(
    content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    end: u64,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    content.scan(end, |left, item| {
        let part = item.map(|mut chunk| {
            chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= chunk.len() as u64;
            chunk
        });
        std::future::ready(Some(part).filter(|part| !part.as_ref().is_ok_and(Bytes::is_empty)))
    })
}

/// The blob in parts for the client; the error that ends it goes into `fault`.
fn parts(
    blob: Blob,
    fault: Arc<Mutex<Option<Error>>>,
) -> impl Stream<Item = std::result::Result<Bytes, ClientError>> + Send + 'static {
    stream::unfold(Some((blob, BytesMut::new())), move |left| {
        let fault = Arc::clone(&fault);
        async move {
            let (mut blob, mut held) = left?;
            while held.len() < PART {
                match blob.chunk().await {
                    Ok(Some(chunk)) => held.extend_from_slice(&chunk),
                    Ok(None) => return (!held.is_empty()).then(|| (Ok(held.freeze()), None)),
                    Err(e) => {
                        *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        return Some((Err(ClientError::GenericError(None)), None));
                    }
                }
            }
            Some((Ok(held.split_to(PART).freeze()), Some((blob, held))))
        }
    })
}

/// A page of names, sorted, without those of the page before. The client does not tell whether there are more: the page
/// behind the last name does.
fn names(mut names: Vec<String>, page: &Page) -> Names {
    names.sort_unstable();
    names.dedup();
    names.retain(|name| page.after.as_ref().is_none_or(|after| name > after));
    names.truncate(page.limit.map_or(usize::MAX, |limit| limit.max(1)));
    let next = names.last().cloned();
    Names { names, next }
}
