//! A merged EROFS image and its layers in one file, for machine monitors that take neither a VMDK nor many disks.
//!
//! | format | file | how a guest mounts it | from Linux |
//! |---|---|---|---|
//! | [`Raw`] | the image, then each layer where the image's device table says, then zeros up to 2 MiB | `mount -t erofs /dev/vda` | 6.4 |
//! | [`Gpt`] | a partition for the image, and one for each layer | `mount -t erofs -o device=/dev/vda2,… /dev/vda1`, or the layers alone by overlayfs | 5.16, the layers 5.4 |
//! | [`VmdkGpt`] | the same partitions as a VMDK descriptor of the files, and `partitions.gpt` with the tables | as [`Gpt`] | as [`Gpt`] |
//!
//! The first two are made of finished files by [`RangeWrite::copy_range`](plyfold_core::RangeWrite::copy_range): on file systems with
//! reflinks they share the layers' blocks.
//!
//! ```
//! # use plyfold_conformance::samples::LayerBuilder;
//! # use plyfold_core::layer::{LayerOptions, LayerTar};
//! use plyfold_core::{InputArtifact, Materializer as _};
//! use plyfold_disk::Raw;
//! use plyfold_erofs::{ErofsLayer, ErofsMerged};
//!
//! # let folder = tempfile::tempdir()?;
//! # let create = |name| std::fs::File::create_new(folder.path().join(name));
//! # let tar = std::io::Cursor::new(LayerBuilder::new().file("motd", 0o644, b"hello").finish());
//! # let mut tar = LayerTar::new(tar, LayerOptions::default())?;
//! ErofsLayer::default().layer(&mut tar, &mut create("layer.erofs")?)?;
//! let layer = InputArtifact::local(&folder.path().join("layer.erofs"), None)?;
//! ErofsMerged::default().join(&[layer.clone()], &mut create("merged.erofs")?)?;
//! let merged = InputArtifact::local(&folder.path().join("merged.erofs"), None)?;
//!
//! let mut disk = create("rootfs.raw")?;
//! let made = Raw::default().join(&[merged, layer], &mut disk)?;
//! assert_eq!(made.kernel.map(|kernel| kernel.to_string()).as_deref(), Some("6.4"));
//! assert_eq!(disk.metadata()?.len(), 2 << 20);
//! # Ok::<(), plyfold_core::Error>(())
//! ```

mod blocks;
mod fault;
mod flat;
mod formats;
mod over_files;
mod partitions;
mod parts;
mod raw;
mod reader;
mod table;

pub use fault::DiskFault;
pub use over_files::VmdkGpt;
pub use partitions::Gpt;
pub use parts::PartitionTrees;
pub use raw::Raw;
pub use reader::{Partitions, has_partitions};
pub use table::{PartitionInfo, PartitionTable};
