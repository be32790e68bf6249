//! EROFS images from OCI layers.
//!
//! - [`ErofsLayer`] writes one layer as an image that stacks as an overlayfs lower.
//! - [`ErofsMerged`] joins layer images into one image that holds metadata only.
//! - [`Reader`] reads both.
//!
//! Images are uncompressed and deterministic: the same layer and [`Options`] give the same bytes everywhere.

mod content;
mod data;
mod directory;
mod fault;
mod format;
mod formats;
mod layer;
mod merge;
mod options;
mod overlay;
mod reader;
mod shown;
mod stream;
mod writer;
mod xattr;

pub use content::Content;
pub use fault::ErofsFault;
pub use layer::ErofsLayer;
pub use merge::ErofsMerged;
pub use options::Options;
pub use reader::Reader;
pub use shown::{OverlayDifference, OverlayDifferences, OverlayFault};
