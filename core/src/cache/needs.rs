//! What a name needs.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use futures_util::future::BoxFuture;

use super::{CacheProvider, content};
use crate::digest::chain_id;
use crate::layer::Compression;
use crate::manifest::{Document, RawManifest, is_document, is_foreign, limits};
use crate::{Descriptor, Digest, Error, ErrorKind, Result};

/// Everything that some descriptors lead to: nested indexes, manifests, configs and layers, here or not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Needs {
    /// The blobs.
    pub blobs: HashMap<Digest, Need>,
    /// Documents that are here and damaged: what they lead to is not known.
    pub damaged: HashSet<Digest>,
    /// What artifacts are made from: the layers' `diff_id`s, the [ChainID](chain_id) of each image, and layers that are
    /// compressed by gzip, which have an [index](crate::layer::gzip_index).
    pub contents: HashSet<Digest>,
    /// Which of the documents are referrers, and their subjects. A referrer does not need its subject.
    pub subjects: HashMap<Digest, Digest>,
}

/// One blob that is needed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Need {
    /// The descriptor that asked for it first.
    pub descriptor: Descriptor,
    /// Whether its absence is damage. The children of an index may be absent: an image is pulled for one platform. So
    /// may layers that may not be redistributed.
    pub required: bool,
}

impl Needs {
    /// What `descriptor` leads to, as far as its documents are in `cache`.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit), with the digest as context `blob`, for indexes nested too deep;
    /// [`Io`](crate::ErrorKind::Io), and those of the cache when it cannot be asked. Damage is not an error: see
    /// [`Needs::damaged`].
    pub async fn of(cache: &dyn CacheProvider, descriptor: &Descriptor) -> Result<Self> {
        let mut needs = Self::default();
        needs.include(cache, descriptor).await?;
        Ok(needs)
    }

    /// Adds what one more descriptor leads to.
    ///
    /// # Errors
    /// As [`Needs::of`].
    pub async fn include(&mut self, cache: &dyn CacheProvider, descriptor: &Descriptor) -> Result<()> {
        self.add(cache, descriptor, true, limits::NESTING).await
    }

    /// Blobs, and what artifacts are made from: what a [lease](CacheProvider::lease) takes.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.blobs.keys().chain(&self.contents).cloned()
    }

    /// Blobs that are required and not here with the right size, sorted.
    ///
    /// # Errors
    /// As [`CacheProvider::stat`].
    pub async fn missing(&self, cache: &dyn CacheProvider) -> Result<Vec<Digest>> {
        self.absent(cache, |need| need.required).await
    }

    /// As [`Needs::missing`], the children of indexes included: what a whole image of all platforms lacks.
    ///
    /// # Errors
    /// As [`CacheProvider::stat`].
    pub async fn missing_of_all(&self, cache: &dyn CacheProvider) -> Result<Vec<Digest>> {
        self.absent(cache, |need| !is_foreign(need.descriptor.media_type())).await
    }

    async fn absent(&self, cache: &dyn CacheProvider, counts: impl Fn(&Need) -> bool) -> Result<Vec<Digest>> {
        let counted = self.blobs.values().filter(|need| counts(need)).map(|need| need.descriptor.clone());
        let mut missing = content::absent(cache, counted.collect::<Vec<_>>()).await?;
        missing.sort_by_cached_key(ToString::to_string);
        Ok(missing)
    }

    /// Whether any of these digests is needed.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest) || self.contents.contains(digest)
    }

    fn add<'a>(
        &'a mut self,
        cache: &'a dyn CacheProvider,
        descriptor: &'a Descriptor,
        required: bool,
        depth: usize,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if !self.note(descriptor, required) {
                return Ok(());
            }
            let media_type = descriptor.media_type();
            if !is_document(media_type) {
                return Ok(());
            }
            let raw = match read(cache, descriptor).await {
                Ok(raw) => raw,
                Err(e) if *e.kind() == ErrorKind::NotFound => return Ok(()),
                Err(e) if !is_of_content(&e) => return Err(e),
                Err(_) => {
                    self.damaged.insert(descriptor.digest().clone());
                    return Ok(());
                }
            };
            if let Some(subject) = raw.subject() {
                self.subjects.insert(descriptor.digest().clone(), subject.digest().clone());
            }
            let Document::Index(index) = raw.document() else { return self.add_image(cache, &raw).await };
            if depth == 0 {
                let message = format!("indexes are nested more than {} deep", limits::NESTING);
                return Err(Error::limit(message).with_context("blob", descriptor.digest()));
            }
            for child in index.manifests() {
                self.add(cache, child, false, depth - 1).await?;
            }
            Ok(())
        })
    }

    async fn add_image(&mut self, cache: &dyn CacheProvider, raw: &RawManifest) -> Result<()> {
        for blob in raw.references() {
            self.note(&blob, !is_foreign(blob.media_type()));
            if Compression::by_media_type(blob.media_type()) == Some(Compression::Gzip) {
                self.contents.insert(blob.digest().clone());
            }
        }
        match content::config(cache, raw.image()?).await {
            Ok(config) => {
                let diff_ids = config.map_or_else(|| Ok(Vec::new()), |config| config.diff_ids())?;
                self.contents.extend(chain_id(&diff_ids));
                self.contents.extend(diff_ids);
            }
            Err(e) if *e.kind() != ErrorKind::NotFound && !is_of_content(&e) => return Err(e),
            // One that is absent or damaged leads to no artifacts; they can be made again.
            Err(_) => {}
        }
        Ok(())
    }

    /// Whether this is the first that asks for the blob.
    fn note(&mut self, descriptor: &Descriptor, required: bool) -> bool {
        match self.blobs.entry(descriptor.digest().clone()) {
            Entry::Occupied(mut known) => {
                known.get_mut().required |= required;
                false
            }
            Entry::Vacant(place) => {
                place.insert(Need { descriptor: descriptor.clone(), required });
                true
            }
        }
    }
}

/// Whether an error tells what the content is like, and not that it could not be read.
fn is_of_content(error: &Error) -> bool {
    use ErrorKind::{Ambiguous, Config, Corrupt, Limit, Unsupported};
    matches!(error.kind(), Ambiguous | Config | Corrupt | Limit | Unsupported)
}

/// A document that is here. Its references are followed if its digest is right, even when the descriptor has a wrong
/// size.
async fn read(cache: &dyn CacheProvider, descriptor: &Descriptor) -> Result<RawManifest> {
    let held = match content::as_held(cache, descriptor).await? {
        Some(held) if held.size() != descriptor.size() => held,
        _ => descriptor.clone(),
    };
    RawManifest::described(content::read(cache, &held, limits::MANIFEST).await?, &held)
}
