//! EROFS images from OCI layers.
//!
//! - [`ErofsLayer`] writes one layer as an image that stacks as an overlayfs lower. Layers that are EROFS images already
//!   are kept as they are, and read by every format.
//! - [`ErofsTar`] makes one of a layer's tar, which stays as it is behind an index.
//! - [`ErofsMerged`] joins layer images into one image that holds metadata only.
//! - [`ErofsFlat`] writes a whole image as one that needs no other.
//! - [`ErofsPatch`] appends changes to a finished image.
//! - [`Reader`] reads all of them, [`ErofsFiles`] shows their files one by one, [`Summary`] what their superblocks say.
//!
//! Images are deterministic: the same layers and [`Options`] give the same bytes everywhere. Only
//! flat images and layers can be compressed, by [`Compression`].

mod bodies;
mod compress;
mod content;
mod data;
mod directory;
mod fault;
mod files;
mod flat;
mod format;
mod formats;
mod inodes;
mod layer;
mod layer_reader;
mod layout;
mod merge;
mod native;
mod options;
mod overlay;
mod patch;
mod places;
mod reader;
mod shown;
mod stream;
mod summary;
mod tar_index;
mod writer;
mod xattr;

pub use compress::algorithm::{Algorithm, Compression};
pub use content::Content;
pub use fault::ErofsFault;
pub use files::ErofsFiles;
pub use flat::ErofsFlat;
pub use layer::ErofsLayer;
pub use merge::ErofsMerged;
pub use options::Options;
pub use patch::{ErofsPatch, Patched};
pub use reader::Reader;
pub use shown::{OverlayDifference, OverlayDifferences, OverlayFault};
pub use summary::{DeviceSummary, Summary};
pub use tar_index::ErofsTar;
