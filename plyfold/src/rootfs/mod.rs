//! An image's root file system as files that a kernel or a virtual machine takes as disks.

use std::path::Path;

use plyfold_core::snapshot::SnapshotImage;
use plyfold_core::{
    CacheProvider, CacheProviderExt as _, Descriptor, Error, ImageSource as _, Input, MadeFile, MadeImage,
    Materializer, MediaType, PullOptions, Result, RootHashes, materialize,
};
#[cfg(feature = "erofs")]
use plyfold_erofs::OverlayDifferences;

use self::scratch_cache::ScratchCache;
use crate::blocking::alone;
use crate::{Images, PulledImage};

pub use self::disk_set::DiskSet;
pub use self::disks::{Disk, Disks};
pub use self::options::Rootfs;
pub use self::verified::VerifiedFile;

mod boot;
mod compose;
mod disk_set;
mod disks;
mod guide;
mod joined;
mod options;
#[cfg(feature = "erofs")]
mod overlay;
mod own_vmdk;
mod scratch_cache;
mod set;
pub mod snapshot;
mod verified;

impl Images {
    /// What is made of each layer for a format, if its input are layers: given to a pull, it is made while they are
    /// downloaded.
    ///
    /// # Errors
    /// As [`Materializers::chain`](crate::Materializers::chain).
    pub fn layer_materializer(&self, rootfs: &Rootfs) -> Result<Option<Box<dyn Materializer>>> {
        let chain = self.materializers().chain(rootfs.format.clone())?;
        Ok(chain.into_iter().next_back().filter(|lowest| lowest.input() == Input::Layer))
    }

    /// Makes disks of a pulled image in the directory `out`, which is created when there is none.
    ///
    /// What is made is kept in the cache, and put into `out` without copying where the file system can: as clones, else
    /// as hard links, all with the mode 0444; a disk that is to be written to, such as `rootfs.ext4`, is a clone or a copy.
    /// **A file that may be a hard link must not be written to**;
    /// [`FileOptions::copy`](crate::atomic_file::FileOptions::copy) asks for files of `out`'s own, with their mode and owner.
    ///
    /// The names `layer-NUMBER.erofs`, `layer-NUMBER.erofs.dmverity`, `merged.erofs` and `rootfs.vmdk` in `out` are those of an older set
    /// where its record, `.plyfold-image`, has them, which says which image they are of; so are `rootfs.ext4`, `upper.ext4` and the
    /// names of other formats that the older set has listed in `.plyfold-set`, unless that file is a copy. Files of an older
    /// set are removed when the new one is complete, except a `rootfs.ext4` and an `upper.ext4` that the new one does not
    /// replace. Anything else in `out` stays, and a file that would be in the way of a new one is refused.
    ///
    /// With a cache that cannot be written, what is missing is made for this call alone.
    ///
    /// The image is the one that was pulled, even when its name has been moved or removed since.
    ///
    /// Several calls, in whatever process, may have one `out`: their sets appear one after the other, by a lock on the folder.
    /// [`Disks::notes`] says so where it cannot be locked.
    ///
    /// On an error, also of a full disk, and when the future is dropped, `out` is as it was: nothing, or the whole
    /// older set. On success the set is on the disk, unless
    /// [`FileOptions::sync`](crate::atomic_file::FileOptions::sync) is off. Across a power cut a folder that is new, or that has an older set and nothing else, has all of the old or all of the new: the new folder
    /// takes the place of the old one in one step. Where that cannot be (other files are in `out`, it is the current
    /// directory or a mount point, nothing may be written beside it, the file system cannot exchange names) files are
    /// replaced one by one, and a power cut between two of them leaves a part of the old set or of the new one, never
    /// files of both; those that refer to others, such as `merged.erofs` and `rootfs.vmdk`, come last.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when `out` has a `rootfs.ext4` or an `upper.ext4` that has been written to, or a file that is in
    /// the way, or an upper cannot have that size; [`NotFound`](crate::ErrorKind::NotFound) when its content is not in
    /// the cache any more; those of the materializers; [`Io`](crate::ErrorKind::Io); [`Timeout`](crate::ErrorKind::Timeout)
    /// when another program has had `out` locked for five minutes.
    pub async fn materialize(&self, image: &PulledImage, rootfs: &Rootfs, out: &Path) -> Result<Disks> {
        let plan = compose::CompositionPlan::new(rootfs, out)?;
        let cache = self.writable_cache(|cache| ScratchCache::beside(cache, out))?;
        let at = |e: Error| e.with_image(&image.reference);
        let made = self.make(image, rootfs, &*rootfs.format, &cache).await?;
        #[cfg(feature = "erofs")]
        let (made, differences) = self.shown(image, rootfs, made, &cache).await.map_err(at)?;
        let platform = image.made_for();
        let platform = platform.as_ref().unwrap_or(&image.platform);
        let of = SnapshotImage::new(image.reference.whole(), image.descriptor(), platform);
        let of = of.with_process(image.process());
        let composed = alone("plyfold-disks", move |stop| {
            let disks = plan.compose(&made, of, stop)?;
            // Held until the files are in their place.
            drop(cache);
            #[cfg(feature = "erofs")]
            let disks = Disks { overlay_differences: differences, ..disks };
            Ok(disks)
        });
        composed.await.map_err(at)
    }

    /// The root hashes of what [`materialize`](Self::materialize) makes of a pulled image. What they are of is made, or
    /// found in the cache, and put nowhere else.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) with a [`HashTreeFault`](crate::HashTreeFault) for a format without hash
    /// trees; otherwise as [`materialize`](Self::materialize).
    pub async fn root_hashes(&self, image: &PulledImage, rootfs: &Rootfs) -> Result<RootHashes> {
        rootfs.check_hash_trees()?;
        let cache = self.writable_cache(|cache| ScratchCache::within(cache, &self.temporary()))?;
        let at = |e: Error| e.with_image(&image.reference);
        let made = self.make(image, rootfs, &*rootfs.format, &cache).await?;
        #[cfg(feature = "erofs")]
        let (made, _) = self.shown(image, rootfs, made, &cache).await.map_err(at)?;
        let is_wanted = |file: &MadeFile| rootfs.is_of_set(file, &made);
        RootHashes::of(&self.source(image), &made, is_wanted).map_err(at)
    }

    /// Keeps root hashes in the cache as a referrer of their image, and returns the referrer's manifest: a push or a copy
    /// [with referrers](crate::CopyOptions::referrers) has it, too.
    ///
    /// # Errors
    /// Those of [`CacheProviderExt::attach`](crate::CacheProviderExt::attach).
    pub async fn attach(&self, image: &PulledImage, hashes: &RootHashes) -> Result<Descriptor> {
        let media_type = MediaType::Other(RootHashes::MEDIA_TYPE.to_owned());
        let (source, document) = (self.source(image), hashes.document()?);
        let cache = self.cache();
        let subject = source.raw().descriptor();
        cache.attach(&image.reference, subject, &media_type, document.as_bytes()).await
    }

    /// The cache, or one `around` it where nothing can be stored in it.
    fn writable_cache(
        &self,
        around: impl FnOnce(Box<dyn CacheProvider>) -> Result<ScratchCache>,
    ) -> Result<Box<dyn CacheProvider>> {
        let cache = self.cache();
        Ok(if cache.is_read_only() { Box::new(around(cache)?) } else { cache })
    }

    async fn make(
        &self,
        image: &PulledImage,
        rootfs: &Rootfs,
        format: &dyn Materializer,
        cache: &dyn CacheProvider,
    ) -> Result<MadeImage> {
        let (limits, budget) = (rootfs.limits.clone(), rootfs.budget.clone());
        let options = PullOptions { limits, budget, scratch: self.scratch.clone(), ..PullOptions::default() };
        materialize(&self.source(image), cache, format, self.materializers(), &options).await
    }

    /// What overlayfs would show otherwise of layers, and what is shown: where there is something, the merged image of
    /// them.
    #[cfg(feature = "erofs")]
    async fn shown(
        &self,
        image: &PulledImage,
        rootfs: &Rootfs,
        made: MadeImage,
        cache: &dyn CacheProvider,
    ) -> Result<(MadeImage, OverlayDifferences)> {
        if ![options::LAYERS, options::TARS].contains(&made.format.name) {
            return Ok((made, OverlayDifferences::default()));
        }
        let differences = overlay::differences(&made, rootfs).await?;
        if differences.count == 0 || made.format.name == options::TARS {
            return Ok((made, differences));
        }
        let merged = match rootfs.merged(self.materializers()) {
            Ok(format) => self.make(image, rootfs, &*format, cache).await,
            Err(e) => Err(e),
        };
        match merged {
            // Compressed layers, and those that came as EROFS images, may be no parts of a merged one.
            Err(e) if overlay::is_unmerged(&e) => Ok((made, differences)),
            merged => {
                let merged = merged?;
                overlay::check_same(&made, &merged)?;
                Ok((merged, differences))
            }
        }
    }
}
