//! Images back into trees, and their files' data.
//!
//! Nothing on disk is trusted: every offset is checked against the image's size, every directory is visited once,
//! and the ranges that all inodes use may not exceed the image and its metabox in sum. Time is bounded by the size of the
//! image, whatever it says, and memory by [`TreeLimits`](plyfold_core::layer::TreeLimits).

mod apart;
mod chunks;
mod compressed;
mod data;
mod devices;
mod image;
mod node;
mod plain;
mod source;
mod walk;
mod xattrs;

pub(crate) use compressed::KeptFile;
pub use image::Reader;
pub(crate) use source::ImageBytes;
