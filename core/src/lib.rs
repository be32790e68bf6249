//! The nouns, traits and pipeline of plyfold: images from any backend, verified, into block devices.

pub mod digest;
pub mod layer;

mod blob;
mod error;
mod materializer;

pub use blob::{Blob, BlobRange, BlobReader};
pub use error::{Error, ErrorKind, Mismatch, Result, printable};
pub use materializer::{Format, LayerArtifact, Materializer, Output};
pub use oci_spec::image::{Descriptor, Digest, MediaType};
