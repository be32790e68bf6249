//! VMDKs in one binary file: a descriptor, and grains of 64 KiB that tables point to (VMware, "Virtual Disk Format 5.0",
//! "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents").

mod disk;
mod grains;
mod header;
mod stream;
mod writer;

pub use disk::{SparseDisk, SparseSummary};
pub use stream::VmdkStream;
pub(crate) use writer::is_framed;
