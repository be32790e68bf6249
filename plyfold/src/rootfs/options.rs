//! Which files are made of an image, and how they are written.

use plyfold_core::layer::{LayerLimits, TreeBudget};
use plyfold_core::{HashTreeFault, MadeFile, MadeImage, Materializer, Materializers, Options, Result};
#[cfg(feature = "erofs")]
use plyfold_erofs::{ErofsFlat, ErofsLayer, ErofsMerged, ErofsTar};

use crate::atomic_file::FileOptions;
#[cfg(doc)]
use crate::{Disks, Images};

pub(super) const EXT4: &str = "ext4";
pub(super) const FLAT: &str = "erofs";
pub(super) const GPT: &str = "gpt";
pub(super) const LAYERS: &str = "erofs-layers";
pub(super) const MERGED: &str = "erofs-merged";
pub(super) const TARS: &str = "erofs-tar";
pub(super) const RAW: &str = "raw";
pub(super) const VMDK: &str = "vmdk";
pub(super) const VMDK_GPT: &str = "vmdk-gpt";
pub(super) const VMDK_STREAM: &str = "vmdk-stream";

/// What [`Images::materialize`] makes of an image: any format, and how its files are written.
#[derive(Clone, Debug)]
pub struct Rootfs {
    pub(super) format: Box<dyn Materializer>,
    /// Those that the format was opened with.
    #[cfg_attr(
        not(feature = "erofs"),
        expect(dead_code, reason = "only a merged image is opened with them again")
    )]
    pub(super) options: Options,
    pub(super) upper: Option<u64>,
    pub(super) files: FileOptions,
    pub(super) strict: bool,
    pub(super) verified: bool,
    pub(super) limits: LayerLimits,
    pub(super) budget: TreeBudget,
}

impl Rootfs {
    /// The formats that are one disk with the whole root file system.
    #[cfg(feature = "command")]
    pub(crate) const ONE_DISK: [&'static str; 7] = [FLAT, EXT4, GPT, RAW, VMDK, VMDK_GPT, VMDK_STREAM];

    /// Whether a virtual machine can boot from what is made.
    #[cfg(feature = "command")]
    pub(crate) fn is_one_disk(&self) -> bool {
        Self::ONE_DISK.contains(&self.format.format().name)
    }

    /// Whether each disk has to have a hash tree.
    #[cfg(feature = "command")]
    pub(crate) fn is_verified(&self) -> bool {
        self.verified
    }

    /// The files of a format, and of those that it is made from.
    pub fn of(format: Box<dyn Materializer>) -> Self {
        Self {
            format,
            options: Options::default(),
            upper: None,
            files: FileOptions::default(),
            strict: false,
            verified: false,
            limits: LayerLimits::default(),
            budget: TreeBudget::default(),
        }
    }

    /// The same by the name of the format, with its options.
    ///
    /// # Errors
    /// As [`Materializers::open`].
    pub fn named(name: &str, options: &Options, formats: &Materializers) -> Result<Self> {
        Ok(Self { options: options.clone(), ..Self::of(formats.open(name, options)?) })
    }

    /// One EROFS image for each layer, with whiteouts in overlayfs' form.
    ///
    /// Overlayfs cannot show every image as it is: it knows no hard links between layers, merges the root of every
    /// layer, and takes a directory that no entry made for one that was. For such an image
    /// [`Disks::overlay_differences`] says what it would show otherwise, and the merged image is made, too:
    /// [`Disks::mount_script`] mounts that one.
    #[cfg(feature = "erofs")]
    pub fn erofs_layers() -> Self {
        Self::of(Box::new(ErofsLayer::default()))
    }

    /// As [`Rootfs::erofs_layers`], of the layers' tars as they are, each behind an index: the `diff_id` of a layer stays
    /// checkable. No merged image is made of them.
    #[cfg(feature = "erofs")]
    pub fn erofs_tar() -> Self {
        Self::of(Box::new(ErofsTar::default()))
    }

    /// The layers' images, and one image of metadata that shows them merged, with the layers as its devices.
    #[cfg(feature = "erofs")]
    pub fn erofs_merged() -> Self {
        Self::of(Box::new(ErofsMerged::default()))
    }

    /// One EROFS image of the whole root file system, which needs no layer and no overlay.
    #[cfg(feature = "erofs")]
    pub fn erofs_flat() -> Self {
        Self::of(Box::new(ErofsFlat::default()))
    }

    /// One ext4 file system of the whole root file system, which can be written to: a copy of the output's own. With a hash tree
    /// it is read-only.
    #[cfg(feature = "ext4")]
    pub fn ext4(rootfs: plyfold_ext4::Ext4Rootfs) -> Self {
        Self::of(Box::new(rootfs))
    }

    /// As [`Rootfs::erofs_merged`], joined to one disk by a VMDK descriptor.
    #[cfg(feature = "vmdk")]
    pub fn vmdk() -> Self {
        Self::of(Box::new(plyfold_vmdk::Vmdk::new()))
    }

    /// The merged image and the layers as one raw disk, in a single file: for Firecracker and others that take no VMDK.
    #[cfg(feature = "disk")]
    pub fn raw() -> Self {
        Self::of(Box::new(plyfold_disk::Raw::default()))
    }

    /// The merged image and each layer as a partition of one raw disk, in a single file.
    #[cfg(feature = "disk")]
    pub fn gpt() -> Self {
        Self::of(Box::new(plyfold_disk::Gpt::default()))
    }

    /// The disk of [`Rootfs::gpt`] as a VMDK descriptor that names the merged image and the layers, which are not copied.
    #[cfg(feature = "disk")]
    pub fn vmdk_gpt() -> Self {
        Self::of(Box::new(plyfold_disk::VmdkGpt::default()))
    }

    /// One disk as a compressed VMDK in a single file, for uploads: by default that of [`Rootfs::raw`].
    #[cfg(feature = "vmdk")]
    pub fn vmdk_stream(stream: plyfold_vmdk::VmdkStream) -> Self {
        Self::of(Box::new(stream))
    }

    /// Adds an empty ext4 disk of this many bytes, to be the upper of an overlay over EROFS images. Its `upper/` has
    /// the mode, the owner and the time of the image's root.
    #[cfg(all(feature = "erofs", feature = "ext4"))]
    #[must_use]
    pub fn upper(mut self, bytes: u64) -> Self {
        self.upper = Some(bytes);
        self
    }

    /// How the files are written: durably or not, as links or as copies, whose they are.
    #[must_use]
    pub fn files(mut self, options: FileOptions) -> Self {
        self.files = options;
        self
    }

    /// Refuses an image that overlayfs cannot show as it is, in place of adding a merged image or of saying so. Without an
    /// effect on other formats than `erofs-layers` and `erofs-tar`.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Refuses a format that makes no hash tree, before anything is made, and a set with a file without one. An upper is
    /// written to, so it has none.
    #[must_use]
    pub fn verified(mut self, verified: bool) -> Self {
        self.verified = verified;
        self
    }

    /// Bounds on the layers, and on what the metadata of all of them together takes in memory. They change no file.
    #[must_use]
    pub fn limits(mut self, limits: LayerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The memory that the metadata of layers and images shares with other conversions, by default with all of the
    /// process.
    #[must_use]
    pub fn budget(mut self, budget: TreeBudget) -> Self {
        self.budget = budget;
        self
    }

    /// What is made.
    pub fn format(&self) -> &dyn Materializer {
        &*self.format
    }

    /// Checks that the format makes hash trees.
    pub(super) fn check_hash_trees(&self) -> Result<()> {
        if self.format.has_hash_tree() {
            return Ok(());
        }
        Err(HashTreeFault::Missing(format!("the format {}", self.format.format().name)).into())
    }

    /// Whether a file that was made for the format is one of the set.
    pub(super) fn is_of_set(&self, file: &MadeFile, made: &MadeImage) -> bool {
        !self.format.is_self_contained() || file.format.name == made.format.name
    }

    /// The merged image of the same layers.
    #[cfg(feature = "erofs")]
    pub(super) fn merged(&self, formats: &Materializers) -> Result<Box<dyn Materializer>> {
        if self.options.is_empty() {
            return Ok(Box::new(ErofsMerged::default()));
        }
        formats.open(MERGED, &self.options)
    }
}
