//! dm-verity hash trees of block devices: made, and verified.
//!
//! A hash tree lets the kernel verify every block of a read-only disk when it is read, against one root hash. The trees
//! are those of `veritysetup format`: hash type 1, sha256, and the salt in front of every block. They stand in a file of
//! their own, or behind the data in the same file, with a superblock or without one.
//!
//! ```
//! use std::io::Write as _;
//! use plyfold_core::blocking::Stop;
//! use plyfold_verity::{Parameters, TreeLayout, Work};
//!
//! let (mut data, mut tree) = (tempfile::tempfile()?, tempfile::tempfile()?);
//! data.write_all(&[7; 3 * 4096])?;
//! let (stop, layout) = (Stop::default(), TreeLayout::beside(Parameters::default(), 3 * 4096)?);
//! let root = layout.write(&data, &mut tree, None, &Work::new(&stop))?;
//! layout.verify(&root, &data, &tree, &Work::new(&stop))?;
//! assert_eq!(root.to_string(), "aed04f3cdf7ce0126bcfcabf9c7ce59c288b4725336a515b11fb11843489e9fc");
//! # Ok::<(), plyfold_core::Error>(())
//! ```
//!
//! The default [`Parameters`] are those of containerd's EROFS snapshotter. [`with_tree`] gives what a materializer writes
//! such a tree, [`tree_of`] that of a disk whose bytes are in other files, and [`HashTree`](plyfold_core::HashTree) is what is kept of it.
//!
//! Blocks are hashed on all cores; the tree is the same for any number of threads, and memory is a few MiB for data of any
//! size. The format is that of the kernel's `Documentation/admin-guide/device-mapper/verity.rst` and of
//! cryptsetup's wiki.

mod build;
mod fault;
mod find;
mod hashed_image;
mod hex;
mod layout;
mod leaf_hasher;
mod leaves;
mod parameters;
mod pool;
mod root_hash;
mod spool;
mod superblock;
mod table;
mod tree_uuid;
mod verify;
mod with_tree;
mod work;

pub use fault::VerityFault;
pub use layout::TreeLayout;
pub use parameters::Parameters;
pub use root_hash::RootHash;
pub use tree_uuid::Uuid;
pub use with_tree::{tree_key, tree_of, tree_outputs, with_tree};
pub use work::Work;
