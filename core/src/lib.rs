//! The nouns, traits and pipeline of plyfold: images from any backend, verified, into block devices.
//!
//! - [`ImageRegistry`]: where images come from and go to.
//! - [`CacheProvider`]: where they are kept.
//! - [`ImageSource`]: one image, opened for reading.
//! - [`Materializer`]: layers or a whole image in, block-device files out.
//! - [`Backends`]: which of the first are linked into this program, by URI scheme.
//! - [`Caches`]: which caches are linked into it, by URI scheme.
//! - [`Materializers`]: which formats are linked into it, by name.
//! - [`pull`](fn@pull): the engine that joins them.

pub mod attestation;
pub mod backend;
pub mod block_sums;
pub mod blocking;
pub mod cache;
pub mod copy;
pub mod digest;
pub mod durable;
pub mod edit;
pub mod files;
pub mod layer;
pub mod layout_index;
pub mod manifest;
pub mod manual;
pub mod materialize;
pub mod memory;
pub mod package;
pub mod page_buffer;
pub mod platform;
pub mod progress;
pub mod provider;
pub mod pull;
mod read_at;
pub mod reference;
pub mod referrers;
mod refusal;
mod registry;
pub mod runtime_spec;
pub mod save;
pub mod snapshot;
pub mod source;
mod source_tars;
pub mod stall;
mod stored_blob;
mod tiered;
pub mod tree;
pub mod worker;

mod advice;
mod artifact;
mod beneath;
mod beside;
mod blob;
mod caches;
mod credential;
mod differences;
mod error;
mod fault;
mod flat_image;
mod flatten;
mod format;
mod go_json;
mod hash_tree;
mod holes;
mod materializer;
mod materializers;
mod options;
mod range_write;
mod resumed;
mod root_hashes;
mod select;
mod shared;
mod size;
mod strict;
mod tar_out;
pub mod xxh3;

/// The documents of the OCI specifications, as the rest of the ecosystem holds them.
pub use oci_spec;

#[doc(hidden)]
pub use async_trait::async_trait;
#[doc(hidden)]
pub use inventory;

pub use advice::Advice;
pub use artifact::{
    Artifact, ArtifactHandle, ArtifactKey, ArtifactReader, ArtifactWriter, KernelVersion, LocalArtifact,
    Made, seek_to,
};
pub use attestation::{Attestation, AttestationFault, AttestationKind, AttestationOrigin, ImageAttestations};
pub use backend::{Backend, Backends, Location, OpenRequest, Opened};
pub use beneath::{Beneath, Irregular};
pub use blob::{Blob, BlobRange, BlobReader};
pub use cache::{
    BlobWriter, CacheProvider, CacheProviderExt, CachedNames, Collect, Collected, Completeness, Ingest,
    Lease, ListedImage, LoadOptions, Loaded, NameChange, Usage, Verified, Verify,
};
pub use caches::{CacheEntry, CacheRequest, Caches, OpenCache};
pub use copy::{
    Conversion, ConversionFault, Copied, CopyFault, CopyFrom, CopyJob, CopyOptions, MediaForm, Platforms,
    Recompression, Sparse, copied_descriptor, copy, copy_all, copy_from,
};
pub use credential::{Credential, Secret};
pub use differences::{Difference, Differences, FileChange, FileField};
pub use error::{Error, ErrorKind, Result, printable};
pub use fault::{Fault, Mismatch};
pub use flat_image::{FlatImage, FlatOptions};
pub use flatten::flatten;
pub use format::{Format, Output};
pub use hash_tree::{HashTree, HashedPartition, PartitionRange, TreePlace};
pub use holes::{data_from, is_zero, reopened};
pub use manifest::{Document, RawConfig, RawManifest};
pub use materialize::{MadeFile, MadeImage, materialize};
pub use materializer::{Input, InputArtifact, Materializer, OneFile, OutputSpec, Role, Sink};
pub use materializers::{FormatEntry, Materializers};
pub use oci_spec::image::{Descriptor, Digest, MediaType};
pub use options::{OptionFault, Options};
pub use package::PackageResolver;
pub use platform::Platform;
pub use progress::Progress;
pub use provider::{ImageProvider, PulledImage};
pub use pull::{PullNaming, PullOptions, PullPolicy, PullResult, PulledLayer, pull};
pub use range_write::RangeWrite;
pub use read_at::{ReadAt, Slice};
pub use reference::Reference;
pub use registry::{
    Capabilities, ImageRegistry, ImageRegistryExt, Names, Page, PushSession, TagTable, TransferFault,
};
pub use root_hashes::{HashTreeFault, HashedDisk, HashedFormat, HashedImage, RootHashes};
pub use save::TarReader;
pub use shared::Shared;
pub use size::Size;
pub use source::{ImageSource, ImageSourceExt, RegistrySource};
pub use source_tars::ImageSourceTars;
pub use strict::DocumentFault;
pub use tiered::Tiered;
