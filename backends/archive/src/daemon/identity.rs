//! What a daemon calls an image: the digest of its configuration, or that of a document where the daemon has the image store of
//! containerd.

use std::collections::HashSet;

use plyfold_core::manifest::{Document, limits};
use plyfold_core::{Descriptor, Digest, Error, ImageRegistry, RawManifest, Reference, Result, reference};

/// Documents that the indexes of one image list.
const LIMIT: usize = 1 << 16;

/// The ID that a daemon without containerd's image store gives to an image, or for an index the one with that store.
pub(super) fn id(raw: &RawManifest) -> Digest {
    raw.image().map_or_else(|_| raw.digest().clone(), |manifest| manifest.config().digest().clone())
}

/// Whether a daemon of either kind calls the image so.
pub(super) fn is_called(raw: &RawManifest, id: &str) -> bool {
    raw.digest().as_ref() == id || self::id(raw).as_ref() == id
}

/// What a daemon may call an image that was pushed, which it has one platform of at least.
#[derive(Debug, Default)]
pub(super) struct Identity {
    ids: HashSet<Digest>,
    /// What indexes list.
    listed: HashSet<Digest>,
    /// Whether a layer is compressed by zstd.
    pub(super) has_zstd: bool,
}

impl Identity {
    /// Of a document, and of all that indexes lead to from there.
    ///
    /// # Errors
    /// Those of reading the documents, `Limit`.
    pub(super) async fn of(from: &dyn ImageRegistry, name: &Reference, top: &RawManifest) -> Result<Self> {
        let mut identity = Self::default();
        let mut level = identity.document(top)?;
        for _ in 0..limits::NESTING {
            let mut next = Vec::new();
            for child in level {
                let raw = from.manifest(&reference::by_digest(name, &child)).await;
                if let Some(raw) = Error::found(raw)? {
                    next.extend(identity.document(&raw)?);
                }
            }
            level = next;
        }
        Ok(identity)
    }

    /// Whether a daemon may call the image so.
    pub(super) fn has(&self, id: &str) -> bool {
        self.ids.iter().any(|one| one.as_ref() == id)
    }

    /// Takes a document; what it lists, each document once.
    fn document(&mut self, raw: &RawManifest) -> Result<Vec<Digest>> {
        self.ids.extend([raw.digest().clone(), id(raw)]);
        let index = match raw.document() {
            Document::Index(index) => index,
            Document::Manifest(manifest) => {
                let is_zstd = |layer: &Descriptor| layer.media_type().as_ref().ends_with("+zstd");
                self.has_zstd |= manifest.layers().iter().any(is_zstd);
                return Ok(Vec::new());
            }
        };
        let children = index.manifests().iter().map(|child| child.digest().clone());
        let children = children.filter(|child| self.listed.insert(child.clone())).collect();
        if self.listed.len() > LIMIT {
            return Err(Error::limit(format!("the image has more than {LIMIT} documents")));
        }
        Ok(children)
    }
}
