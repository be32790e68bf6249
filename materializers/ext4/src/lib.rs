//! ext4 disks without mkfs: whole images and empty overlay uppers.
//!
//! [`Ext4Rootfs`] writes a file system of a whole image, and [`resize()`] grows one. [`Ext4Upper`] writes the upper disk of a container or guest: an ext4 file system that holds `upper/` (with the
//! mode, owner and time of the image's root), `work/` and `lost+found/`, and nothing else. A 1 TiB disk takes
//! about 1 MiB of the host and a few milliseconds, because only what differs from zero is written: the
//! superblock and group descriptors with one backup, group 0's bitmaps, one block of inodes, the directories and
//! the journal's superblock. All other groups are flagged uninitialised, and their inode tables zeroed, so
//! neither e2fsck nor the guest's lazy initialisation writes to them.
//!
//! ```
//! use plyfold_core::Materializer as _;
//! use plyfold_ext4::Ext4Upper;
//!
//! let mut disk = tempfile::tempfile()?;
//! Ext4Upper::new(8 << 30)?.label("upper")?.join(&[], &mut disk)?;
//! assert_eq!(disk.metadata()?.len(), 8 << 30);
//! # Ok::<(), plyfold_core::Error>(())
//! ```
//!
//! A whole image:
//!
//! ```
//! use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
//! use plyfold_core::tree::MergedTree;
//! use plyfold_core::{Materializer as _, Role};
//! use plyfold_ext4::Ext4Rootfs;
//!
//! # let layer = std::io::Cursor::new(tar::Builder::new(Vec::new()).into_inner()?);
//! # let scratch = tempfile::tempdir()?;
//! let layers = [LayerTar::new(layer, LayerOptions::default())];
//! let image = MergedTree::read(layers, TreeLimits::default(), scratch.path())?;
//! let rootfs = Ext4Rootfs::new().size(8 << 30)?;
//! let mut disk = tempfile::tempfile()?;
//! rootfs.image(&image, &mut disk)?;
//! rootfs.adapt(Role::Image, &mut disk)?;
//! assert_eq!(disk.metadata()?.len(), 8 << 30);
//! # Ok::<(), plyfold_core::Error>(())
//! ```
//!
//! The format is that of the kernel's `Documentation/filesystems/ext4/`, whose names the code uses. Its features
//! are `has_journal` (optional), `ext_attr`, `dir_index`, `sparse_super2`, `filetype`, `extent`, `64bit`,
//! `flex_bg`, `large_file`, `huge_file`, `dir_nlink`, `extra_isize` and `metadata_csum`: Linux 3.18 and
//! e2fsprogs 1.43 read it. A populated one has `ea_inode` where extended attributes need it, and one that was grown beyond
//! its table of descriptors (8 GiB and more) has `meta_bg`.
//!
//! # Reading a disk
//! [`Summary`] says what is in a superblock, and [`Ext4Files`] shows the files of any ext4 file system, one by one.
//!
//! # Growing a disk
//! [`resize()`] it while it is not mounted; so does `resize2fs` after `e2fsck -f`. The kernel refuses to grow a mounted
//! file system that has `sparse_super2`; there is no `resize_inode`.

mod attributes;
mod data;
mod directory;
mod disk;
mod extents;
mod fault;
mod fields;
mod files;
mod format;
mod formats;
mod geometry;
mod hash;
mod index;
mod inode_table;
mod journal;
mod journal_form;
mod journal_runs;
mod layout;
mod mapping;
mod materializer;
mod names;
mod plan;
mod populate;
mod reader;
mod replayed;
mod resize;
mod rootfs;
mod space;
mod summary;
mod superblock;
mod tree;
mod upper;
mod volume;
mod writer;
mod xattr;

pub use fault::Ext4Fault;
pub use files::Ext4Files;
pub use resize::resize;
pub use rootfs::{Ext4Rootfs, Journal, MAX_JOURNAL, MIN_JOURNAL};
pub use summary::Summary;
pub use upper::{Ext4Upper, MAX_SIZE, MIN_SIZE};
