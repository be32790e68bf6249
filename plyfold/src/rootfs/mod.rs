//! An image's root file system as files that a kernel or a virtual machine takes as disks.

use std::path::{Path, PathBuf};

use plyfold_core::layer::{LayerLimits, TreeBudget};
use plyfold_core::{Materializer, PullOptions, Result, pull};
use plyfold_erofs::{ErofsLayer, OverlayDifferences};

use self::beside::Beside;
use crate::whole::{FileOptions, alone};
use crate::{CacheProvider, Images, PulledImage};

mod beside;
mod compose;
mod guide;
mod set;

/// What [`Images::materialize`] makes of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rootfs {
    form: Form,
    upper: Option<u64>,
    files: FileOptions,
    strict: bool,
    limits: LayerLimits,
    budget: TreeBudget,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    ErofsLayers,
    ErofsMerged,
    #[cfg(feature = "vmdk")]
    Vmdk,
}

impl Rootfs {
    /// One EROFS image for each layer, with whiteouts in overlayfs' form.
    ///
    /// Overlayfs cannot show every image as it is: it knows no hard links between layers, merges the root of every
    /// layer, and takes a directory that no entry made for one that was. For such an image
    /// [`Disks::overlay_differences`] says what it would show otherwise, and the merged image is made, too:
    /// [`Disks::mount_script`] mounts that one.
    pub fn erofs_layers() -> Self {
        Self::of(Form::ErofsLayers)
    }

    /// The layers' images, and one image of metadata that shows them merged, with the layers as its devices.
    pub fn erofs_merged() -> Self {
        Self::of(Form::ErofsMerged)
    }

    /// As [`Rootfs::erofs_merged`], joined to one disk by a VMDK descriptor.
    #[cfg(feature = "vmdk")]
    pub fn vmdk() -> Self {
        Self::of(Form::Vmdk)
    }

    /// Adds an empty ext4 disk of this many bytes, to be the upper of an overlay. Its `upper/` has the mode, the
    /// owner and the time of the image's root.
    #[cfg(feature = "ext4")]
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

    /// Refuses an image that overlayfs cannot show as it is, in place of adding a merged image. Without an effect on
    /// forms with a merged image.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
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

    fn of(form: Form) -> Self {
        Self {
            form,
            upper: None,
            files: FileOptions::new(),
            strict: false,
            limits: LayerLimits::default(),
            budget: TreeBudget::default(),
        }
    }

    /// Checks what can be checked without an image, before one is pulled.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when an upper cannot have its size, or links another mode than the store's.
    pub fn check(&self) -> Result<()> {
        compose::Plan::new(self, Path::new("")).map(drop)
    }

    /// What makes the layers' images: given to a pull, they are made while the layers are downloaded.
    pub fn layer_materializer(&self) -> Box<dyn Materializer> {
        Box::new(ErofsLayer::default())
    }
}

/// The files that [`Images::materialize`] has made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Disks {
    /// The layers' EROFS images, bottom first: `layer-00.erofs`, `layer-01.erofs`, …
    pub layers: Vec<PathBuf>,
    /// The merged image, `merged.erofs`, whose devices are the layers in their order.
    pub merged: Option<PathBuf>,
    /// `rootfs.vmdk`: the merged image and the layers as one disk, named relative to it.
    pub vmdk: Option<PathBuf>,
    /// `upper.ext4`.
    pub upper: Option<PathBuf>,
    /// What overlayfs would show otherwise than the image is, if it stacked the layers: nothing for most images, and
    /// not looked for where a merged image was asked for.
    pub overlay_differences: OverlayDifferences,
}

impl Disks {
    /// All the files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let others = [&self.merged, &self.vmdk, &self.upper].into_iter().flatten();
        self.layers.iter().chain(others).map(PathBuf::as_path)
    }
}

impl Images {
    /// Makes disks of a pulled image in the directory `out`, which is created when there is none.
    ///
    /// The layers' images are kept in the store, and put into `out` without copying where the file system can: as
    /// clones, else as hard links, all with the mode 0444. **A file that may be a hard link must not be written to**;
    /// [`FileOptions::copy`] asks for files of `out`'s own, with their mode and owner.
    ///
    /// The names `layer-NUMBER.erofs`, `merged.erofs`, `rootfs.vmdk` and `upper.ext4` in `out` are those of the set:
    /// files of an older set go when the new one is whole, except an `upper.ext4` that the new one does not replace.
    /// Anything else in `out` stays.
    ///
    /// With a store that cannot be written, what is missing of the layers' images is made for this call alone.
    ///
    /// The image is the one that was pulled, even when its name has been moved or removed since.
    ///
    /// On an error, also of a full disk, and when the future is dropped, `out` is as it was: nothing, or the whole
    /// older set. On success the set is on the disk, unless [`FileOptions::sync`] is off. Across a power cut a folder
    /// that is new, or that has an older set and nothing else, has all of the old or all of the new: the new folder
    /// takes the place of the old one in one step. Where that cannot be (other files are in `out`, it is the current
    /// directory or a mount point, nothing may be written beside it, the file system cannot exchange names) files are
    /// replaced one by one, and a power cut between two of them leaves a part of the old set or of the new one, never
    /// files of both; `merged.erofs` and `rootfs.vmdk` come last.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when `out` has an `upper.ext4` that has been written to, or an upper
    /// cannot have that size; [`NotFound`](crate::ErrorKind::NotFound) when its content is not in the store any more;
    /// those of the materializers; [`Io`](crate::ErrorKind::Io).
    pub async fn materialize(&self, image: &PulledImage, rootfs: &Rootfs, out: &Path) -> Result<Disks> {
        let plan = compose::Plan::new(rootfs, out)?;
        let options = PullOptions {
            materializer: Some(rootfs.layer_materializer()),
            limits: rootfs.limits.clone(),
            budget: rootfs.budget.clone(),
            ..PullOptions::default()
        };
        let mut cache = self.cache();
        if cache.is_read_only() {
            cache = Box::new(Beside::new(cache, out, rootfs.files.sync)?);
        }
        let layers = pull::materialize(&self.source(image), &cache, &options).await?;
        let layers = compose::artifacts(&layers).map_err(|e| e.with_image(&image.reference))?;
        let composed = alone(move |stop| {
            let disks = plan.compose(&layers, stop);
            // Held until the files are in their place.
            drop(cache);
            disks
        });
        composed.await.map_err(|e| e.with_image(&image.reference))
    }
}
