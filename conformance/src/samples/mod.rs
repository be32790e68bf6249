//! Sample images: deterministic, in memory, with everything there is to know about them.
//!
//! A sample is a set of blobs and the descriptor of the document on top. Documents are written as text, with
//! spaces and orders that no serialiser would choose, so that a backend that parses and writes them again is
//! caught. Digests are pinned by a test.
//!
//! ```
//! use plyfold_conformance::samples;
//!
//! let sample = samples::index();
//! assert!(sample.images.iter().any(|image| image.platform == "linux/arm64/v8"));
//! assert_eq!(samples::index().top, sample.top);
//! ```

mod compress;
mod draft;
mod image;
mod layer;
mod media;
mod odd;
mod rootfs;

use bytes::Bytes;
use plyfold_core::{Descriptor, Digest};

pub use self::compress::{gzip, zstd};
pub use self::image::{
    attestations_only, deep_index, descriptor_without_platform, docker_image, image, index, large_manifest,
    lying_child_size, mislabelled, multi_member_gzip, nested_index, of_layers, repeated_layer, sha512,
    uncompressed, variants, wide_index, wrong_diff_id, zstandard,
};
pub use self::layer::{LayerBuilder, MTIME};
pub use self::media::{docker_archive, hybrid_archive, oci_archive, write_layout};
pub use self::odd::{
    artifact, artifact_index, artifact_without_layers, bad_digest, custom_fields, empty_blob, empty_index,
    index_subject, inline_data, missing_subject, no_layers, non_distributable, schema1, sparse_index,
    subject, unknown_document,
};
pub use self::rootfs::{ROOTFS_TREE, huge_file, rootfs};

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

/// One blob and its descriptor. In [`bad_digest`] the two disagree.
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

/// Every sample that is a valid set of documents, whole or not.
pub fn all() -> Vec<Sample> {
    let mut samples = whole();
    samples.extend([bad_digest(), missing_subject(), sparse_index()]);
    samples
}

/// The samples whose every blob is there and sound.
pub fn whole() -> Vec<Sample> {
    vec![
        artifact(),
        artifact_index(),
        artifact_without_layers(),
        custom_fields(),
        descriptor_without_platform(),
        docker_image(),
        empty_blob(),
        empty_index(),
        image(),
        index(),
        index_subject(),
        inline_data(),
        large_manifest(),
        multi_member_gzip(),
        nested_index(),
        no_layers(),
        non_distributable(),
        repeated_layer(),
        sha512(),
        subject(),
        uncompressed(),
        zstandard(),
    ]
}
