//! ext4 disks without mkfs: an empty overlay upper.
//!
//! [`Ext4Upper`] writes the upper disk of a container or guest: an ext4 file system that holds `upper/` (with the
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
//! The format is that of the kernel's `Documentation/filesystems/ext4/`, whose names the code uses. Its features
//! are `has_journal` (optional), `ext_attr`, `dir_index`, `sparse_super2`, `filetype`, `extent`, `64bit`,
//! `flex_bg`, `large_file`, `huge_file`, `dir_nlink`, `extra_isize` and `metadata_csum`: Linux 3.18 and
//! e2fsprogs 1.43 read it.
//!
//! # Growing a disk
//! Lengthen the file, then `e2fsck -f` and `resize2fs` it while it is not mounted. The kernel refuses to grow a
//! mounted file system that has `sparse_super2`; there is no `resize_inode`.

mod fault;
mod format;
mod group;
mod layout;
mod materializer;
mod upper;
mod writer;
mod xattr;

pub use fault::Ext4Fault;
pub use upper::{Ext4Upper, MAX_SIZE, MIN_SIZE};
