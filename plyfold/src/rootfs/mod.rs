//! An image's root file system as files that a kernel or a virtual machine takes as disks.

use std::path::{Path, PathBuf};

use plyfold_core::layer::{LayerLimits, TreeBudget};
use plyfold_core::{
    CacheProvider, Error, Input, KernelVersion, MadeImage, MaterializeOptions, Materializer, Materializers,
    Options, PullOptions, Result, Role, materialize,
};
use plyfold_erofs::{ErofsLayer, ErofsMerged, OverlayDifferences};

use self::scratch_cache::ScratchCache;
use crate::atomic_file::FileOptions;
use crate::blocking::alone;
use crate::{Images, PulledImage};

mod compose;
mod guide;
mod overlay;
mod scratch_cache;
mod set;

/// The formats whose files overlayfs can stack, or that have them beside each other.
const STACKABLE: [&str; 3] = [LAYERS, MERGED, VMDK];
const LAYERS: &str = "erofs-layers";
const MERGED: &str = "erofs-merged";
const VMDK: &str = "vmdk";

/// What [`Images::materialize`] makes of an image: any format, and how its files are written.
#[derive(Clone, Debug)]
pub struct Rootfs {
    format: Box<dyn Materializer>,
    /// Those that the format was opened with.
    options: Options,
    upper: Option<u64>,
    files: FileOptions,
    strict: bool,
    limits: LayerLimits,
    budget: TreeBudget,
}

impl Rootfs {
    /// The files of a format, and of those that it is made from.
    pub fn of(format: Box<dyn Materializer>) -> Self {
        Self {
            format,
            options: Options::default(),
            upper: None,
            files: FileOptions::new(),
            strict: false,
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
    pub fn erofs_layers() -> Self {
        Self::of(Box::new(ErofsLayer::default()))
    }

    /// The layers' images, and one image of metadata that shows them merged, with the layers as its devices.
    pub fn erofs_merged() -> Self {
        Self::of(Box::new(ErofsMerged::default()))
    }

    /// As [`Rootfs::erofs_merged`], joined to one disk by a VMDK descriptor.
    #[cfg(feature = "vmdk")]
    pub fn vmdk() -> Self {
        Self::of(Box::new(plyfold_vmdk::Vmdk::new()))
    }

    /// Adds an empty ext4 disk of this many bytes, to be the upper of an overlay over EROFS images. Its `upper/` has
    /// the mode, the owner and the time of the image's root.
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
    /// other formats than `erofs-layers`.
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

    /// What is made.
    pub fn format(&self) -> &dyn Materializer {
        &*self.format
    }

    /// Checks what can be checked without an image, before one is pulled.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when an upper cannot have its size, or the format no upper, or links another
    /// mode than the store's.
    pub fn check(&self) -> Result<()> {
        compose::Plan::new(self, Path::new("")).map(drop)
    }

    /// The merged image of the same layers.
    fn merged(&self, formats: &Materializers) -> Result<Box<dyn Materializer>> {
        if self.options.is_empty() {
            return Ok(Box::new(ErofsMerged::default()));
        }
        formats.open(MERGED, &self.options)
    }
}

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
    /// Its size in bytes.
    pub size: u64,
}

/// The files that [`Images::materialize`] has made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Disks {
    /// All the files, each behind those that it refers to; the upper is the last.
    pub files: Vec<Disk>,
    /// The layers' EROFS images, bottom first: `layer-00.erofs`, `layer-01.erofs`, …
    pub layers: Vec<PathBuf>,
    /// The merged image, `merged.erofs`, whose devices are the layers in their order.
    pub merged: Option<PathBuf>,
    /// `rootfs.vmdk`: the merged image and the layers as one disk, named relative to it.
    pub vmdk: Option<PathBuf>,
    /// `upper.ext4`.
    pub upper: Option<PathBuf>,
    /// The oldest Linux that can mount all of it, where the materializers say so.
    pub kernel: Option<KernelVersion>,
    /// What the materializers say about the image, such as content that the format cannot hold.
    pub notes: Vec<String>,
    /// What overlayfs would show otherwise than the image is, if it stacked the layers: nothing for most images, and
    /// looked for only where the layers alone were asked for.
    pub overlay_differences: OverlayDifferences,
}

impl Disks {
    /// Whether they are EROFS images, which [`Disks::mount_script`] mounts.
    pub fn is_stackable(&self) -> bool {
        !self.layers.is_empty()
    }

    /// The paths of all the files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }
}

impl Images {
    /// What is made of each layer for a format, if its input are layers: given to a pull, it is made while they are
    /// downloaded.
    ///
    /// # Errors
    /// As [`Materializers::chain`].
    pub fn layer_materializer(&self, rootfs: &Rootfs) -> Result<Option<Box<dyn Materializer>>> {
        let chain = self.materializers().chain(rootfs.format.clone())?;
        Ok(chain.into_iter().next_back().filter(|lowest| lowest.input() == Input::Layer))
    }

    /// Makes disks of a pulled image in the directory `out`, which is created when there is none.
    ///
    /// What is made is kept in the cache, and put into `out` without copying where the file system can: as clones, else
    /// as hard links, all with the mode 0444. **A file that may be a hard link must not be written to**;
    /// [`FileOptions::copy`] asks for files of `out`'s own, with their mode and owner.
    ///
    /// The names `layer-NUMBER.erofs`, `merged.erofs`, `rootfs.vmdk` and `upper.ext4` in `out` are those of the set, and
    /// so are the names of other formats that the older set has listed in `.plyfold-set`: files of an older set go when
    /// the new one is whole, except an `upper.ext4` that the new one does not replace. Anything else in `out` stays, and
    /// a file that would be in the way of a new one is refused.
    ///
    /// With a cache that cannot be written, what is missing is made for this call alone.
    ///
    /// The image is the one that was pulled, even when its name has been moved or removed since.
    ///
    /// On an error, also of a full disk, and when the future is dropped, `out` is as it was: nothing, or the whole
    /// older set. On success the set is on the disk, unless [`FileOptions::sync`] is off. Across a power cut a folder
    /// that is new, or that has an older set and nothing else, has all of the old or all of the new: the new folder
    /// takes the place of the old one in one step. Where that cannot be (other files are in `out`, it is the current
    /// directory or a mount point, nothing may be written beside it, the file system cannot exchange names) files are
    /// replaced one by one, and a power cut between two of them leaves a part of the old set or of the new one, never
    /// files of both; those that refer to others, such as `merged.erofs` and `rootfs.vmdk`, come last.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when `out` has an `upper.ext4` that has been written to, or a file that is in
    /// the way, or an upper cannot have that size; [`NotFound`](crate::ErrorKind::NotFound) when its content is not in
    /// the cache any more; those of the materializers; [`Io`](crate::ErrorKind::Io).
    pub async fn materialize(&self, image: &PulledImage, rootfs: &Rootfs, out: &Path) -> Result<Disks> {
        let plan = compose::Plan::new(rootfs, out)?;
        let mut cache = self.cache();
        if cache.is_read_only() {
            cache = Box::new(ScratchCache::new(cache, out, rootfs.files.sync)?);
        }
        let at = |e: Error| e.with_image(&image.reference);
        let mut made = self.make(image, rootfs, &*rootfs.format, &cache).await?;
        let differences = match rootfs.format.format().name {
            LAYERS => overlay::differences(&made, rootfs).await.map_err(at)?,
            _ => OverlayDifferences::default(),
        };
        let shows_layers = made.format.name == LAYERS;
        let mut merged = None;
        if shows_layers && (differences.count > 0 || rootfs.upper.is_some()) {
            let of_same = self.make(image, rootfs, &*rootfs.merged(self.materializers())?, &cache).await?;
            overlay::check_same(&made, &of_same).map_err(at)?;
            merged = Some(of_same);
        }
        let with_root = merged.clone();
        if let Some(merged) = merged.filter(|_| differences.count > 0) {
            made = merged;
        }
        let composed = alone(move |stop| {
            let disks = plan.compose(&made, with_root.as_ref().unwrap_or(&made), differences, stop);
            // Held until the files are in their place.
            drop(cache);
            disks
        });
        composed.await.map_err(at)
    }

    async fn make(
        &self,
        image: &PulledImage,
        rootfs: &Rootfs,
        format: &dyn Materializer,
        cache: &dyn CacheProvider,
    ) -> Result<MadeImage> {
        let (limits, budget) = (rootfs.limits.clone(), rootfs.budget.clone());
        let pull = PullOptions { limits, budget, ..PullOptions::default() };
        let options = MaterializeOptions { pull, scratch: self.scratch_folder() };
        materialize(&self.source(image), cache, format, self.materializers(), &options).await
    }
}
