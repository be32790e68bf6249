//! What a sample is.

use bytes::Bytes;
use plyfold_core::{Descriptor, Digest};

/// One sample: blobs, the document on top, and the images that can be reached from it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The sample's name.
    pub name: &'static str,
    /// The document that a tag points at.
    pub top: Descriptor,
    /// All blobs, each after the blobs that it refers to.
    pub blobs: Vec<SampleBlob>,
    /// The images below the top document, in the order of the indexes; no artifacts.
    pub images: Vec<SampleImage>,
    /// The image that the top document names as its subject, if it is there.
    pub subject: Option<SampleImage>,
}

impl Sample {
    /// The content stored under a digest.
    pub fn blob(&self, digest: &Digest) -> Option<&Bytes> {
        self.blobs.iter().find(|blob| blob.descriptor.digest() == digest).map(|blob| &blob.bytes)
    }

    /// The bytes of the top document.
    ///
    /// # Panics
    /// Never: a sample holds its top document.
    pub fn top_bytes(&self) -> &Bytes {
        self.blob(self.top.digest()).expect("a sample holds its top document")
    }

    /// The image for a platform, as `os/arch[/variant]`.
    ///
    /// # Panics
    /// When the sample has none: a mistake in the calling test.
    pub fn image_for(&self, platform: &str) -> &SampleImage {
        let image = self.images.iter().find(|image| image.platform == platform);
        image.unwrap_or_else(|| panic!("the sample {} has no image for {platform}", self.name))
    }
}

/// One blob and its descriptor. In [`bad_digest`](super::bad_digest) the two disagree.
#[derive(Clone, Debug)]
pub struct SampleBlob {
    /// Media type, digest and size; nothing else.
    pub descriptor: Descriptor,
    /// The content.
    pub bytes: Bytes,
}

impl SampleBlob {
    /// Whether a registry stores it as a manifest: an image manifest or an index of either dialect.
    pub fn is_manifest(&self) -> bool {
        let media_type = self.descriptor.media_type().as_ref();
        media_type.contains(".manifest.") || media_type.contains(".index.")
    }
}

/// One image of a sample.
#[derive(Clone, Debug)]
pub struct SampleImage {
    /// `os/arch[/variant]`, as its config says.
    pub platform: String,
    /// The manifest.
    pub manifest: Descriptor,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<SampleLayer>,
}

/// One layer of an image.
#[derive(Clone, Debug)]
pub struct SampleLayer {
    /// The blob as stored, possibly compressed.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The uncompressed tar.
    pub tar: Bytes,
}
