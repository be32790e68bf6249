//! VMDK descriptors that join several extents into one disk.
//!
//! A virtual machine monitor has few disk slots; an image has many layers. A VMDK descriptor is a text file that
//! puts the layer files end to end, without copying them, so that a merged EROFS image and the layers that it
//! refers to are one disk of the guest. [`Vmdk`] writes descriptors, [`Descriptor`] reads them back, and
//! [`FlatDisk`] the disk.
//!
//! ```
//! use plyfold_core::{InputArtifact, LocalArtifact, Made, Materializer as _, OneFile, Role};
//! use plyfold_vmdk::{Descriptor, Vmdk};
//!
//! let extent = |path: &str, size| {
//!     let file = LocalArtifact::new(path.into(), size, Made::default());
//!     InputArtifact::new(path, Role::Image, Box::new(file), None)
//! };
//! let mut file = tempfile::tempfile()?;
//! let extents = [extent("merged.erofs", 8192), extent("layers/base.erofs", 4096)];
//! Vmdk::new().join(&extents, &mut OneFile(Role::Descriptor, &mut file))?;
//!
//! let text = std::io::read_to_string({ use std::io::Seek as _; file.rewind()?; file })?;
//! assert!(text.contains("RW 16 FLAT \"merged.erofs\" 0\nRW 8 FLAT \"layers/base.erofs\" 0\n"));
//! assert_eq!(Descriptor::parse(&text)?.size(), 12288);
//! # Ok::<(), plyfold_core::Error>(())
//! ```
//!
//! qemu does not guess the format of a file it is given: open it with
//! `file.filename=disk.vmdk,format=vmdk,readonly=on`.
//!
//! # What is written, and why no more
//! Readers differ. qemu skips `ZERO` and `RDONLY` extents without an error, so that the disk shrinks and what
//! follows moves; libkrun supports them. Neither is written here, nor read: a gap is a real file. qemu takes the
//! first `CID=` it sees, even that of `parentCID=`, so `CID` stands first. It cuts a path at a quote or after 511
//! bytes, and a descriptor at 1 MiB; it takes `name:rest` for a protocol. Such paths are refused, and those
//! that may leave the descriptor's folder: a disk can be moved with its folder, and one that others made reads no other
//! file. A file that is shorter than its extent reads as zeros, which [`Descriptor::check`] finds.
//!
//! # One file, for uploads
//! [`VmdkStream`] compresses a disk into one file in the form that is called `streamOptimized`, and [`SparseDisk`] reads
//! such files. Grains carry checksums of their content, and readers check them.

mod descriptor;
mod disk;
mod format;
mod own;
mod sparse;
mod writer;

pub use descriptor::{Descriptor, Extent, MAX_DESCRIPTOR, SECTOR};
pub use disk::FlatDisk;
pub use own::check_stream;
pub use sparse::{SparseDisk, SparseSummary, VmdkStream};
pub use writer::Vmdk;
