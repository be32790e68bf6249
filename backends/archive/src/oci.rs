//! The OCI layout as a tar: oci-archive, and `docker save` since version 25.

use std::path::Path;

use bytes::Bytes;
use plyfold_core::layout_index::{INDEX_LIMIT, LAYOUT_LIMIT, LayoutIndex, check_layout};
use plyfold_core::manifest::limits;
use plyfold_core::{Descriptor, Digest, RawManifest, Reference, Result, reference};

use crate::members::{Member, Members};

/// The images of an oci-archive.
#[derive(Debug)]
pub(crate) struct OciImages {
    members: Members,
    index: LayoutIndex,
    /// `index.json` as it stands in the archive: it may be an image itself.
    bytes: Bytes,
}

impl OciImages {
    /// Reads `oci-layout` and `index.json`; `None` when one of them is missing.
    pub(crate) fn read(members: &Members, path: &Path) -> Result<Option<Self>> {
        let Some(layout) = members.document("oci-layout", LAYOUT_LIMIT)? else { return Ok(None) };
        let Some(bytes) = members.document("index.json", INDEX_LIMIT)? else { return Ok(None) };
        check_layout(&layout)?;
        let index = LayoutIndex::parse(&bytes, path)?;
        Ok(Some(Self { members: members.clone(), index, bytes }))
    }

    /// Docker 25.0 lists an image without a tag in `manifest.json` alone.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.entries().next().is_none()
    }

    pub(crate) fn names(&self) -> Vec<Reference> {
        self.index.references()
    }

    pub(crate) fn manifest(&self, reference: &Reference) -> Result<Option<RawManifest>> {
        let digest = reference::digest_of(reference)?;
        let descriptor = match &digest {
            Some(digest) => self.index.entry(digest).cloned(),
            None => self.index.find(reference)?,
        };
        if let Some(descriptor) = descriptor {
            if let Some(image) = self.index.as_image(descriptor.digest(), &self.bytes) {
                return image.map(Some);
            }
            return self.described(&descriptor);
        }
        // A child of an index: nothing here says its type or size, its own bytes do.
        let Some(digest) = digest else { return Ok(None) };
        let content = self.members.document(&blob_name(&digest), limits::MANIFEST)?;
        content.map(|bytes| RawManifest::verified(bytes, None, &digest)).transpose()
    }

    pub(crate) fn member(&self, digest: &Digest) -> Result<Option<Member>> {
        self.members.find(&blob_name(digest))
    }

    fn described(&self, descriptor: &Descriptor) -> Result<Option<RawManifest>> {
        plyfold_core::digest::supported(descriptor.digest())?;
        let content = self.members.document(&blob_name(descriptor.digest()), limits::MANIFEST)?;
        content.map(|bytes| RawManifest::described(bytes, descriptor)).transpose()
    }
}

/// OCI image spec, `image-layout.md#blobs`. A parsed digest has no characters that could lead elsewhere.
fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}
