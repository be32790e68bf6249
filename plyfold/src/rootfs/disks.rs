//! The files that were made of an image.

use std::path::{Path, PathBuf};

use plyfold_core::block_sums::Checksum;
use plyfold_core::snapshot::SetFile;
use plyfold_core::{Digest, HashTree, HashedPartition, KernelVersion, Role};
#[cfg(feature = "erofs")]
use plyfold_erofs::OverlayDifferences;

#[cfg(doc)]
use crate::Images;

/// A file of a set.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Disk {
    /// Where it is.
    pub path: PathBuf,
    /// What it is for.
    pub role: Role,
    /// The [name](plyfold_core::Format::name) of its format.
    pub format: String,
    /// All that its bytes depend on beside the image: name, version and options of its format.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// The checksum of its bytes, unless guests write to it.
    pub checksum: Option<Checksum>,
    /// The layer that it was made from, if it was made from one.
    pub diff_id: Option<Digest>,
    /// Whether guests write to it.
    pub writable: bool,
    /// Its hash tree, if it is an image with one.
    pub hash_tree: Option<HashTree>,
    /// The partitions whose images have hash trees, if it is a disk with such.
    pub partitions: Vec<HashedPartition>,
}

impl Disk {
    /// A file of which nothing is recorded.
    #[cfg(any(test, feature = "command"))]
    pub(crate) fn plain(path: PathBuf, role: Role, format: &str, size: u64) -> Self {
        Self::of(&SetFile::new("", role, format, format), path, size)
    }

    /// A file as it is recorded.
    pub(crate) fn of(record: &SetFile, path: PathBuf, size: u64) -> Self {
        let SetFile { role, format, key, writable, checksum, diff_id, hash_tree, partitions, .. } =
            record.clone();
        Self { path, role, format, key, size, checksum, diff_id, writable, hash_tree, partitions }
    }
}

/// The files that [`Images::materialize`] has made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Disks {
    /// All the files, each behind those that it refers to; the upper is the last.
    pub files: Vec<Disk>,
    /// The layers' EROFS images, bottom first: `layer-00.erofs`, `layer-01.erofs`, …; those of `erofs-tar` have the layers'
    /// tars in them.
    pub layers: Vec<PathBuf>,
    /// `rootfs.erofs`: the whole root file system as one EROFS image, which needs no layers.
    pub flat: Option<PathBuf>,
    /// `rootfs.ext4`: the whole root file system as one ext4 disk, to be written to unless it has a hash tree.
    pub ext4: Option<PathBuf>,
    /// The merged image, `merged.erofs`, whose devices are the layers in their order.
    pub merged: Option<PathBuf>,
    /// `rootfs.vmdk`: the merged image and the layers as one disk, named relative to it.
    pub vmdk: Option<PathBuf>,
    /// `rootfs.vmdk` of `vmdk-stream`: one disk, compressed in a file of its own.
    pub stream: Option<PathBuf>,
    /// `partitions.gpt`: what makes partitions of them on that disk, where there are such.
    pub partitions: Option<PathBuf>,
    /// `rootfs.raw`: the merged image and the layers as one raw disk.
    pub raw: Option<PathBuf>,
    /// `rootfs.gpt`: the merged image, then each layer as a partition of one raw disk, bottom first.
    pub gpt: Option<PathBuf>,
    /// `upper.ext4`.
    pub upper: Option<PathBuf>,
    /// The oldest Linux that can mount all of it, where the materializers say so.
    pub kernel: Option<KernelVersion>,
    /// What the materializers say about the image, such as content that the format cannot hold.
    pub notes: Vec<String>,
    /// What overlayfs would show otherwise than the image is, if it stacked the layers: nothing for most images, and
    /// looked for only where the layers alone were asked for.
    #[cfg(feature = "erofs")]
    pub overlay_differences: OverlayDifferences,
}

impl Disks {
    /// Whether they are EROFS images, over which there may be an upper.
    pub fn is_stackable(&self) -> bool {
        let single = [&self.flat, &self.raw, &self.gpt].into_iter().any(Option::is_some);
        single || !self.layers.is_empty()
    }

    /// Whether [`Disks::mount_script`] knows how to mount them: EROFS images, or an ext4 disk.
    pub fn is_mountable(&self) -> bool {
        self.is_stackable() || self.ext4.is_some()
    }

    /// Whether guests write to the disk of the root file system.
    pub(super) fn is_root_written(&self) -> bool {
        let is_verified =
            |path: &PathBuf| self.files.iter().any(|disk| disk.path == *path && disk.hash_tree.is_some());
        self.ext4.as_ref().is_some_and(|path| !is_verified(path))
    }

    /// The partitions of a disk whose images have hash trees, in the order of their numbers.
    pub fn verified_partitions(&self) -> &[HashedPartition] {
        let mut partitions = self.files.iter().map(|disk| disk.partitions.as_slice());
        partitions.find(|partitions| !partitions.is_empty()).unwrap_or_default()
    }

    /// The partitions of file systems, where others have their hash trees.
    pub(super) fn image_partitions(&self) -> Option<usize> {
        let partitions = self.verified_partitions();
        let is_apart = partitions.iter().any(|of| of.image.number != of.holder.number);
        is_apart.then_some(partitions.len())
    }

    /// The paths of all the files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }
}
