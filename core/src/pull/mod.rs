//! The pull engine: an image from any backend into any cache, and on the way into block devices.
//!
//! ```text
//! backend ─ blob ─┬─► BlobWriter (hash, size, durable, visible)          one pass over the bytes,
//!                 └─► channel ─► LayerTar (diff_id) ─► Materializer      a bounded channel between stages
//! ```
//! Blobs come first, then config and manifest, then indexes, names last: everything that is visible is complete.

mod by_index;
mod cached_documents;
mod conversion;
mod download;
mod engine;
mod lookup;
mod options;
mod retry;
mod run;
mod writers;

pub use options::{PullNaming, PullOptions, PullPolicy, PullResult, PulledLayer};
pub(crate) use retry::may_be_of_part;
pub use retry::{Retry, Row};
pub use run::pull;

pub(crate) use engine::Engine;
pub(crate) use writers::{Finished, Writers};
