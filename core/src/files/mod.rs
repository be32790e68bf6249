//! The files of an image or of a disk, one by one: read without mounting anything, and without root.
//!
//! [`Files`] is what all of them have in common: paths in, facts and bytes out. [`LayerFiles`] are those of an image, out
//! of its layers; crates of formats have those of their disks.

mod info;
mod layers;
mod tree;

pub use info::{FileInfo, FileType, Files, FilesFault};
pub use layers::{LayerFiles, TarPlace};
pub use tree::TreeFiles;
