//! Images in memory: the smallest backend and the smallest cache, for tests and for short-lived programs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{Backend, Location, Opened};
use crate::manifest::{RawManifest, is_foreign};
use crate::options::Options;
use crate::registry::{Capabilities, ImageRegistry, Names, Page};
use crate::{
    Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, MediaType, Reference, Result, digest, reference,
    referrers,
};

pub use state::MemoryCache;

mod cache;
mod collect;
mod state;

crate::register!(Backend {
    schemes: &["memory"],
    package: env!("CARGO_PKG_NAME"),
    summary: "images in this process's memory, shared by name",
    syntax: "memory:NAME[:IMAGE]",
    options: "",
    capabilities: CAPABILITIES,
    takes_credentials: false,
    open: |request| Box::pin(async move { open(&request.location, &request.options) }),
});

const CAPABILITIES: Capabilities = Capabilities {
    atomic_names: true,
    delete: true,
    mount: true,
    partial_blobs: true,
    push: true,
    referrers: true,
    repositories: true,
    sparse: true,
    tags: true,
};

fn open(location: &Location, options: &Options) -> Result<Opened> {
    static NAMED: LazyLock<Mutex<HashMap<String, MemoryRegistry>>> = LazyLock::new(Mutex::default);
    options.refuse()?;
    let (name, image) = location.path_and_image();
    let reference = image.map(reference::parse).transpose()?;
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    let registry = named.entry(name.to_owned()).or_insert_with(|| MemoryRegistry::new(name)).clone();
    Ok(Opened { registry: Box::new(registry), reference })
}

/// A registry in memory. Clones share content.
#[derive(Clone)]
pub struct MemoryRegistry {
    name: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    /// What pushes that were cut have left of blobs.
    parts: HashMap<Digest, Vec<u8>>,
}

#[derive(Default)]
struct Repository {
    blobs: HashMap<Digest, Bytes>,
    manifests: HashMap<Digest, (MediaType, Bytes)>,
    tags: BTreeMap<String, Digest>,
}

impl MemoryRegistry {
    /// An empty registry whose URI is `memory:name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), state: Arc::default() }
    }

    /// Stores a blob without asking whether it hashes to `digest`: a test may want damaged content. Reading it
    /// fails.
    pub fn insert_blob(&self, repository: &Reference, digest: Digest, content: impl Into<Bytes>) {
        self.lock().repository_mut(repository).blobs.insert(digest, content.into());
    }

    /// Stores a manifest, valid or not, under `digest`, and under the reference's tag if it has one.
    pub fn insert_manifest(
        &self,
        reference: &Reference,
        media_type: MediaType,
        digest: &Digest,
        content: impl Into<Bytes>,
    ) {
        self.lock().insert_manifest(reference, media_type, digest, content.into());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one insertion or removal, so a poisoned lock is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tag is set only when everything is here that its manifest refers to.
    fn check_here(
        &self,
        state: &State,
        (reference, manifest): (&Reference, &RawManifest),
        absent: &[Digest],
    ) -> Result<()> {
        if reference.tag().is_none() {
            return Ok(());
        }
        let here = state.repository(reference);
        let is_here = |digest| {
            absent.contains(digest)
                || here.is_some_and(|here| {
                    here.blobs.contains_key(digest) || here.manifests.contains_key(digest)
                })
        };
        let required = manifest.references();
        match required.iter().find(|blob| !is_foreign(blob.media_type()) && !is_here(blob.digest())) {
            None => Ok(()),
            Some(absent) => Err(self.missing(format!("content {}", absent.digest()), reference)),
        }
    }

    fn missing(&self, what: impl fmt::Display, reference: &Reference) -> Error {
        Error::not_found(format!("no such {what}")).with_image(reference).with_endpoint(self)
    }
}

impl State {
    fn insert_manifest(&mut self, name: &Reference, media_type: MediaType, digest: &Digest, content: Bytes) {
        let repository = self.repository_mut(name);
        repository.manifests.insert(digest.clone(), (media_type, content));
        if let Some(tag) = name.tag() {
            repository.tags.insert(tag.to_owned(), digest.clone());
        }
    }

    fn repository(&self, reference: &Reference) -> Option<&Repository> {
        self.repositories.get(&reference::repository_of(reference))
    }

    fn repository_mut(&mut self, reference: &Reference) -> &mut Repository {
        self.repositories.entry(reference::repository_of(reference)).or_default()
    }
}

impl Repository {
    fn digest_of(&self, reference: &Reference) -> Result<Option<Digest>> {
        let by_digest = reference::digest_of(reference)?;
        Ok(by_digest.or_else(|| self.tags.get(reference.tag().unwrap_or_default()).cloned()))
    }
}

#[async_trait]
impl ImageRegistry for MemoryRegistry {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let state = self.lock();
        let repository = state.repository(reference).ok_or_else(|| self.missing("repository", reference))?;
        let digest = repository.digest_of(reference)?;
        let found = digest.as_ref().and_then(|digest| repository.manifests.get_key_value(digest));
        let (digest, (media_type, bytes)) = found.ok_or_else(|| self.missing("manifest", reference))?;
        RawManifest::verified(bytes.clone(), Some(media_type), digest)
            .map_err(|e| e.with_image(reference).with_endpoint(self))
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        digest::supported(blob.digest())?;
        let state = self.lock();
        let content = state.repository(reference).and_then(|repository| repository.blobs.get(blob.digest()));
        let content = content.ok_or_else(|| self.missing(format!("blob {}", blob.digest()), reference))?;
        Blob::from_bytes(blob, range, content)
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        let state = self.lock();
        let Some(found) = state.repositories.get(repository) else {
            return Err(Error::not_found(format!("no such repository {repository}")).with_endpoint(self));
        };
        Ok(page.of(found.tags.keys()))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        Ok(page.of(self.lock().repositories.keys()))
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let state = self.lock();
        let manifests = state.repository(reference).into_iter().flat_map(|repository| &repository.manifests);
        let mut found = Vec::new();
        for (digest, (media_type, bytes)) in manifests {
            // Damaged ones refer to nothing.
            let Ok(raw) = RawManifest::verified(bytes.clone(), Some(media_type), digest) else { continue };
            if raw.subject().is_some_and(|of| of.digest() == subject) {
                found.push(referrers::descriptor(&raw));
            }
        }
        found.retain(|entry| referrers::is_of_type(entry, artifact_type));
        found.sort_by_cached_key(|entry| entry.digest().to_string());
        Ok(found)
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        let (descriptor, from) = (blob.descriptor().clone(), blob.offset());
        let digest = descriptor.digest();
        let mut content = self.lock().parts.remove(digest).unwrap_or_default();
        if from == 0 {
            content.clear();
        }
        let mut blob = blob.continuing(content.len() as u64)?;
        let outcome = loop {
            match blob.chunk().await {
                Ok(Some(chunk)) => content.extend_from_slice(&chunk),
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        if let Err(e) = outcome {
            if *e.kind() != ErrorKind::Corrupt {
                self.lock().parts.insert(digest.clone(), content);
            }
            return Err(e);
        }
        let mut content = Bytes::from(content);
        if from > 0 {
            // A blob from its first byte on was verified by its own end.
            let joined = Blob::from_bytes(&descriptor, BlobRange::FULL, &content)?;
            content = joined.bytes(descriptor.size()).await?;
        }
        self.insert_blob(reference, digest.clone(), content);
        Ok(())
    }

    async fn partial_blob(&self, _: &Reference, blob: &Descriptor) -> Result<u64> {
        Ok(self.lock().parts.get(blob.digest()).map_or(0, |part| part.len() as u64))
    }

    async fn mount_blob(&self, reference: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool> {
        let mut state = self.lock();
        let found =
            state.repository(from).and_then(|repository| repository.blobs.get(blob.digest()).cloned());
        let Some(content) = found else { return Ok(false) };
        state.repository_mut(reference).blobs.insert(blob.digest().clone(), content);
        Ok(true)
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        self.push_names(&[(reference.clone(), manifest.clone())]).await
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        self.push_sparse(names, &[]).await
    }

    async fn push_sparse(&self, names: &[(Reference, RawManifest)], absent: &[Digest]) -> Result<()> {
        let mut state = self.lock();
        let mut verified = Vec::with_capacity(names.len());
        for (name, manifest) in names {
            let media_type = manifest.descriptor().media_type();
            let digest = reference::digest_of(name)?.unwrap_or_else(|| manifest.digest().clone());
            let manifest = RawManifest::verified(manifest.bytes().clone(), Some(media_type), &digest);
            let manifest = manifest.map_err(|e| e.with_image(name))?;
            self.check_here(&state, (name, &manifest), absent)?;
            verified.push((name, manifest));
        }
        for (name, manifest) in verified {
            let media_type = manifest.descriptor().media_type().clone();
            state.insert_manifest(name, media_type, manifest.digest(), manifest.bytes().clone());
        }
        Ok(())
    }

    async fn delete(&self, reference: &Reference) -> Result<()> {
        let mut state = self.lock();
        let repository = state.repository_mut(reference);
        let removed = match reference::digest_of(reference)? {
            Some(digest) => {
                repository.tags.retain(|_, named| *named != digest);
                repository.manifests.remove(&digest).is_some()
            }
            None => repository.tags.remove(reference.tag().unwrap_or_default()).is_some(),
        };
        drop(state);
        if removed { Ok(()) } else { Err(self.missing("manifest", reference)) }
    }
}

impl fmt::Display for MemoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory:{}", self.name)
    }
}

impl fmt::Debug for MemoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryRegistry({})", self.name)
    }
}
