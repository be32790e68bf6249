//! Snapshots: the disks of one image, with what guests have written, as a document that names each file by its digest.
//!
//! A [`Snapshot`] says which image the disks are of, and what each file is: name, role, format, size and digest. What
//! guests write to is stored as a [`Delta`]: the blocks that are not as they were made. A snapshot is
//!
//! - a directory: the document as [`DOCUMENT`], and each file beside it;
//! - an OCI artifact: the document is the config of a [manifest](Snapshot::manifest), each file one of its layers. So it
//!   has one digest wherever it is, and every registry, layout and cache can hold it.
//!
//! What is read here is bounded and strict: a document with an unknown field, a name that is a path, or a size that
//! cannot be, is refused.

pub use check::{DOCUMENT, MAX_FILES};
pub use document::{Base, Content, Delta, MEDIA_TYPE, Snapshot, SnapshotFile};
pub use empty::EmptyDisk;
pub use fault::SnapshotFault;
pub use image::SnapshotImage;
pub use manifest::is_snapshot;
pub use process::Process;
pub use record::{RECORD, SetFile, SetRecord};

pub mod delta;

mod check;
mod document;
mod empty;
mod fault;
mod image;
mod manifest;
mod process;
mod record;
mod roles;
mod tree_form;

#[cfg(test)]
mod tests;
