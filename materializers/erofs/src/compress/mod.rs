//! Compressed files: how Linux finds the clusters of one, and what makes them.
//!
//! A file is cut into extents. Each is compressed on its own, into a cluster of whole blocks. For each block of the file
//! an index says where the extent starts that has it.

pub(crate) mod algorithm;
pub(crate) mod buffers;
pub(crate) mod clusters;
pub(crate) mod codec;
pub(crate) mod extents;
pub(crate) mod format;
mod high_compression;
pub(crate) mod index;
pub(crate) mod pool;
pub(crate) mod segment;
mod sequences;
