//! From a compressed layer blob to verified entries: decompression, tar dialects, limits, whiteouts.
//!
//! ```text
//! source ─► read, inflate ─► LayerTar (tar entries and their data, on the caller's thread)
//!                  └───► hashes ◄───┘
//! ```
//! Two threads work on a layer: one inflates, the caller's parses and writes. The chunks between them are buffers
//! of a pool that go round, so memory is bounded for a layer of any size and nothing is copied on the way. The caller's thread
//! reads ahead of the other, and whichever of the two would wait hashes chunks instead: one of the blob and one of the tar at
//! once, which takes little more time than one of them. The first 2 MiB of a layer are inflated by the caller's thread, so that
//! a small layer has no thread of its own. An error of the thread, a panic included, reaches the caller as an error in place of
//! the end.
//!
//! A layer that is no tar, such as an EROFS image, goes through the same threads and checks, and comes out of a
//! [`LayerTar`] as the same entries: see [`LayerForm`].
//!
//! ```
//! use plyfold_core::layer::{LayerOptions, LayerTar};
//!
//! let empty_tar: &[u8] = &[0; 1024];
//! let mut tar = LayerTar::new(empty_tar, LayerOptions::default())?;
//! while let Some(entry) = tar.next_entry()? {
//!     loop {
//!         let bytes = tar.data()?;
//!         if bytes.is_empty() {
//!             break;
//!         }
//!         let count = bytes.len();
//!         tar.consume(count);
//!     }
//! }
//! assert_eq!(tar.finish()?.size, 1024);
//! # Ok::<(), plyfold_core::Error>(())
//! ```

pub mod gzip_index;
pub mod whiteout;

mod assemble;
mod budget;
mod codec;
mod entry;
mod fault;
mod form;
mod gunzip;
mod hashes;
mod header;
mod input;
mod limits;
mod link;
mod maker;
mod native;
mod options;
mod pax;
mod piece;
mod pipeline;
mod plain;
mod pool;
mod reader;
mod spans;
mod sparse;

pub(crate) use budget::Grant;
pub use budget::{TreeBudget, TreeShare};
pub(crate) use entry::join;
pub use entry::{DataExtent, Entry, EntryKind, FileKind, ImagePath, Metadata, Timestamp};
pub use fault::{LayerFault, TarFault};
pub use form::{LayerEntries, LayerForm};
pub use limits::{LayerLimits, TreeLimits};
pub use options::{Compression, Hashing, LayerOptions, LayerSummary, Warning};
pub use reader::LayerTar;
