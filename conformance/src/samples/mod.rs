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

mod attested;
mod compress;
mod draft;
mod edge_cases;
mod image;
mod layer;
mod media;
mod native;
mod rootfs;
mod sample;

pub use self::attested::{ATTESTED, ATTESTED_ARM64, attestation_referrers, attested, attested_image};
pub use self::compress::{gzip, zstd};
pub use self::edge_cases::{
    artifact, artifact_index, artifact_without_layers, bad_digest, custom_fields, empty_blob, empty_index,
    index_subject, inline_data, missing_subject, no_layers, non_distributable, schema1, sparse_index,
    subject, unknown_document,
};
pub use self::image::{
    attestations_only, deep_index, descriptor_without_platform, docker_image, image, index, index_of_indexes,
    large_manifest, lying_child_size, mislabelled, multi_member_gzip, nested_index, of_layers, of_process,
    repeated_layer, sha512, uncompressed, variants, wide_index, wrong_diff_id, zstandard,
};
pub use self::layer::{LayerBuilder, MTIME};
pub use self::media::{docker_archive, hybrid_archive, oci_archive, write_directory, write_layout};
pub use self::native::native_layers;
pub use self::rootfs::{ROOTFS_TREE, huge_file, rootfs};
pub use self::sample::{Sample, SampleBlob, SampleImage, SampleLayer};

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
        attested(),
        custom_fields(),
        descriptor_without_platform(),
        docker_image(),
        empty_blob(),
        empty_index(),
        image(),
        index(),
        index_of_indexes(),
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
