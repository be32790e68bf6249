//! Any layout directory as a registry: `oci:DIRECTORY[:IMAGE]`.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::cache::MissingBlob;
use plyfold_core::layout_index::IndexReferrers;
use plyfold_core::manifest::{RawManifest, limits};
use plyfold_core::{
    Backend, Blob, BlobRange, CacheProvider, CacheProviderExt, Capabilities, Descriptor, Digest, Error,
    ErrorKind, ImageRegistry, Lease, Location, MediaType, Names, Opened, Options, Page, Reference, Result,
    layout_index, reference, referrers,
};

use crate::config::Config;
use crate::root::Root;
use crate::store::Store;

plyfold_core::register!(Backend {
    schemes: &["oci"],
    package: env!("CARGO_PKG_NAME"),
    summary: "OCI layout directories, also those of skopeo, crane, buildah, umoci and docker",
    syntax: "oci:DIRECTORY[:TAG|:NAME][@DIGEST]",
    options: "follow-symlinks=true",
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
    let config: Config = options.config()?;
    let (path, image) = location.path_and_image();
    if path.is_empty() {
        return Err(Error::config(format!("invalid image URI {location}: no directory"))
            .with_hint("write oci:DIRECTORY:TAG"));
    }
    let layout = Layout::new(path, config);
    let reference = image.map(|image| layout_index::image_in(path.as_ref(), image)).transpose()?;
    Ok(Opened { registry: Box::new(layout), reference })
}

/// What of one state of `index.json` refers to others without a list.
type Unlisted = (crate::root::Names, IndexReferrers);

/// An OCI layout directory of any tool. Clones share a handle.
///
/// A layout has one set of blobs for all its names: a digest is found under every repository.
/// Blobs are pushed as the [`Store`] writes them; the layout is made by the first push when there is none.
#[derive(Clone, Debug)]
pub struct Layout {
    store: Store,
    /// As read last.
    unlisted: Arc<Mutex<Option<Arc<Unlisted>>>>,
}

impl Layout {
    /// The layout at `path`, which is looked at only when it is used.
    pub fn new(path: impl Into<PathBuf>, config: Config) -> Self {
        let store = Store::on(Root::new(path.into(), false, config.follow_symlinks));
        Self { store, unlisted: Arc::default() }
    }

    async fn prepare(&self) -> Result<()> {
        let store = self.store.clone();
        self.store.work(move |_| store.prepare()).await
    }

    /// The entries without a name that refer to others, as `index.json` is now.
    async fn unlisted(&self) -> Result<Arc<Unlisted>> {
        let known = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let read = self.store.work(move |root| {
            let names = root.index()?;
            let known = known.filter(|known| Arc::ptr_eq(&known.0, &names));
            Ok(known.unwrap_or_else(|| {
                let read = IndexReferrers::read(&names.0, |entry| document(root, entry));
                Arc::new((names, read))
            }))
        });
        let read = read.await?;
        *self.unlisted.lock().unwrap_or_else(PoisonError::into_inner) = Some(read.clone());
        Ok(read)
    }

    /// Stores documents under their names; of those that `is_top` says also one without a tag is listed, by its digest.
    async fn name(&self, names: &[(Reference, RawManifest)], absent: &[Digest], is_top: bool) -> Result<()> {
        let mut stored = Vec::with_capacity(names.len());
        for (name, manifest) in names {
            let digest = reference::digest_of(name)?.unwrap_or_else(|| manifest.digest().clone());
            let media_type = manifest.descriptor().media_type();
            let manifest = RawManifest::verified(manifest.bytes().clone(), Some(media_type), &digest);
            stored.push((name, manifest.map_err(|e| e.with_image(name))?));
        }
        self.prepare().await?;
        let digests: Vec<Digest> = stored.iter().map(|(_, manifest)| manifest.digest().clone()).collect();
        let _stored = self.store.lease(&digests).await?;
        let (mut tops, mut known) = (Vec::with_capacity(names.len()), HashSet::new());
        for (name, manifest) in &stored {
            if known.insert(manifest.digest()) {
                let content = Blob::from_bytes(manifest.descriptor(), BlobRange::FULL, manifest.bytes())?;
                self.store.put(content).await?;
            }
            // Before the names: when a list cannot be written, they stay as they were.
            let listed = self.store.list_referrers(name, std::slice::from_ref(manifest)).await;
            listed.map_err(|e| e.with_image(name))?;
            let repository = reference::repository_of(name);
            let name = match name.tag() {
                Some(tag) => reference::parse(&format!("{repository}:{tag}"))?,
                None if is_top => reference::by_digest(name, manifest.digest()),
                // It is content alone, such as the child of an index that gets its name last.
                None => continue,
            };
            tops.push((name, manifest.descriptor().clone()));
        }
        self.store.name_whole(&tops, absent).await
    }
}

#[async_trait]
impl ImageRegistry for Layout {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        let wanted = reference::digest_of(name)?;
        let image = name.clone();
        self.store
            .work(move |root| manifest(root, &image, wanted.as_ref()))
            .await
            .map_err(|e| e.with_image(name))
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        // What is kept with a file is not to be believed of a directory of others.
        Ok(self.store.open(blob, range).await?.with_xxh3(None))
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        let wanted = repository.to_owned();
        let found = self.store.work(move |root| Ok(root.index()?.0.tag_table().tags(&wanted, &page)));
        found
            .await?
            .ok_or_else(|| Error::not_found(format!("no such repository {repository}")).with_endpoint(self))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        self.store.work(move |root| Ok(root.index()?.0.tag_table().repositories(&page))).await
    }

    async fn untagged(&self) -> Result<Vec<Reference>> {
        let unlisted = self.unlisted().await?;
        let mut untagged = unlisted.0.0.untagged();
        // What refers to an image comes with it.
        unlisted.1.sort(&mut untagged);
        Ok(untagged)
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let (list, of) = (reference::referrers_of(reference, subject), subject.clone());
        let unlisted = self.unlisted().await?;
        let found = self
            .store
            .work(move |root| unlisted.1.of(&unlisted.0.0, (&list, &of), |entry| document(root, entry)));
        let mut found = found.await?;
        found.retain(|entry| referrers::is_of_type(entry, artifact_type));
        Ok(found)
    }

    async fn push_blob(&self, _: &Reference, blob: Blob) -> Result<()> {
        self.prepare().await?;
        self.store.put_resumable(blob).await
    }

    async fn partial_blob(&self, _: &Reference, blob: &Descriptor) -> Result<u64> {
        self.store.partial(blob.digest()).await
    }

    async fn has_blob(&self, _: &Reference, blob: &Descriptor) -> Result<bool> {
        match self.store.stat(blob.digest()).await {
            Ok(found) => Ok(found == Some(blob.size())),
            // The push may make the directory.
            Err(e) if *e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn mount_blob(&self, name: &Reference, blob: &Descriptor, _: &Reference) -> Result<bool> {
        self.prepare().await?;
        self.has_blob(name, blob).await
    }

    async fn push_manifest(&self, name: &Reference, manifest: &RawManifest) -> Result<()> {
        self.name(&[(name.clone(), manifest.clone())], &[], false).await
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        self.name(names, &[], true).await
    }

    async fn push_sparse(&self, names: &[(Reference, RawManifest)], absent: &[Digest]) -> Result<()> {
        self.name(names, absent, false).await
    }

    async fn push_referrers(&self, repository: &Reference, manifests: &[RawManifest]) -> Result<()> {
        self.prepare().await?;
        let digests: Vec<Digest> = manifests.iter().map(|manifest| manifest.digest().clone()).collect();
        let _stored = self.store.lease(&digests).await?;
        for manifest in manifests {
            let content = Blob::from_bytes(manifest.descriptor(), BlobRange::FULL, manifest.bytes())?;
            self.store.put(content).await?;
        }
        self.store.list_referrers(repository, manifests).await.map_err(|e| e.with_image(repository))
    }

    async fn check_target(&self) -> Result<()> {
        let store = self.store.clone();
        self.store.work(move |_| store.check()).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.prepare().await?;
        self.store.lease(content).await
    }

    async fn delete(&self, name: &Reference) -> Result<()> {
        self.store.delete(name).await.map_err(|e| e.with_image(name).with_endpoint(self))
    }
}

fn manifest(root: &Root, name: &Reference, wanted: Option<&Digest>) -> Result<RawManifest> {
    let names = root.index()?;
    let (index, bytes) = (&names.0, &names.1);
    let content = |digest: &Digest| -> Result<Bytes> {
        let found = root.read_blob(digest, limits::MANIFEST)?;
        found.ok_or_else(|| {
            let error = Error::not_found(format!("no manifest {digest}")).with_context("blob", digest);
            error.with_detail(MissingBlob(digest.clone()))
        })
    };
    if let Some(digest) = wanted {
        let entry = index.entry(digest);
        let declared = entry.map(Descriptor::media_type);
        let platform = entry.and_then(|entry| entry.platform().clone());
        let itself = index.as_image(digest, bytes);
        return itself.unwrap_or_else(|| {
            Ok(RawManifest::verified(content(digest)?, declared, digest)?.with_platform(platform))
        });
    }
    let Some(found) = index.find_tag(name)? else {
        let error = Error::not_found("no such name in the layout");
        return Err(match index.first_names() {
            [] => error.with_hint("no image in it has a name: choose one by DIRECTORY@DIGEST"),
            names => error.with_hint(format!("it holds {}", names.join(", "))),
        });
    };
    let itself = index.as_image(found.digest(), bytes);
    itself.unwrap_or_else(|| RawManifest::described(content(found.digest())?, &found))
}

/// A document that is here.
fn document(root: &Root, entry: &Descriptor) -> Result<Option<RawManifest>> {
    let bytes = root.read_blob(entry.digest(), limits::MANIFEST)?;
    bytes.map(|bytes| RawManifest::described(bytes, entry)).transpose()
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use plyfold_core::Backends;

    use super::*;

    #[tokio::test]
    async fn uris() {
        let backends = Backends::linked().unwrap();
        let hex = "0".repeat(64);
        for (uri, place, whole) in [
            ("oci:/srv/base".to_owned(), "oci:/srv/base", None),
            ("oci:/srv/base:".to_owned(), "oci:/srv/base", None),
            ("oci:base:3.20".to_owned(), "oci:base", Some("localhost/base:3.20".to_owned())),
            ("oci:base:alpine:3".to_owned(), "oci:base", Some("docker.io/library/alpine:3".to_owned())),
            (format!("oci:base@sha256:{hex}"), "oci:base", Some(format!("localhost/base@sha256:{hex}"))),
            (
                format!("oci:base:v1@sha256:{hex}"),
                "oci:base",
                Some(format!("localhost/base:v1@sha256:{hex}")),
            ),
        ] {
            let opened = backends.open(&uri, &Options::default()).await.unwrap();
            assert_eq!(opened.registry.to_string(), place);
            assert_eq!(opened.reference.map(|reference| reference.whole()), whole, "{uri}");
        }
        for uri in ["oci:", "oci:base:../../etc/passwd", "oci:base:a b", "oci:base:x@sha256:00"] {
            let error = backends.open(uri, &Options::default()).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Config, "{uri}");
        }
        let trusting = Options::parse(["follow-symlinks=true"]).unwrap();
        backends.open("oci:base", &trusting).await.unwrap();
        let unknown = Options::parse(["colour=red"]).unwrap();
        assert_eq!(*backends.open("oci:base", &unknown).await.unwrap_err().kind(), ErrorKind::Config);
    }
}
