//! Checksums of the blocks of a file: the XXH3 of each MiB, taken while the file is written.
//!
//! They find damage and say where it is. Like [`Xxh3`](crate::xxh3::Xxh3) they are no digest: who wants to can make other bytes with the
//! same checksums.

mod blocks;
mod checksum;
mod reading;
mod segments;
mod sums;
mod writing;

pub use checksum::Checksum;
pub use reading::{Reading, damaged, of_file};
pub use segments::BLOCK;
pub use sums::{BlockSums, SumsInOrder, mismatch};
pub use writing::SummedFile;
