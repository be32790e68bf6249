//! Disks that are full after any number of pages: writes that are refused, and writes that are taken in part.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold_core::{
    Advice, Blob, BlobRange, CacheProviderExt as _, Descriptor, Error, ErrorKind, ImageRegistry, RawManifest,
    Reference, Result, digest,
};
use rustix::fs::FallocateFlags;

use super::fixture::DurabilityFixture;
use super::image::NEW;
use super::scene::{self, Scene, Start, block};
use super::worker::{Origin, pull_from};
use crate::oracle::{Failure, Mount, Verdict};

/// The smallest page: with larger ones some sizes are tried twice.
const PAGE: u64 = 4096;

/// The pull has room for one page more each time, until it succeeds.
pub(super) fn a_disk_of_any_size_leaves_no_trace(fixture: &dyn DurabilityFixture) -> Verdict {
    let disk = Mount::new("tmpfs", "none", "size=32m")?;
    let scene = Scene::on(fixture, disk.path())?;
    let filler = disk.path().join("filler");
    // Near its end a write has many ways to fail; in the middle of a layer they are all alike.
    for (failures, pages) in (0..40).chain((40..).step_by(9)).enumerate() {
        let path = scene.store("filled", Start::Old)?;
        let registry = Filling { origin: Origin::of(NEW)?, filler: filler.clone(), left: pages * PAGE };
        let outcome = block(async { pull_from(&registry, NEW, &*fixture.open(&path).await?, 1).await })?;
        fs::remove_file(&filler)?;
        let judged = match outcome {
            Err(error) => fails_cleanly(&scene, &path, &error),
            Ok(_) if failures <= 40 => {
                Err(Failure::new(format!("{failures} failures are not all that there can be")))
            }
            Ok(_) => {
                scene.survives(&path, Start::Old.succeeded())?;
                break;
            }
        };
        judged.map_err(|why| Failure::new(format!("with {pages} pages: {why:?}")))?;
    }
    // The scene keeps its caches on the disk.
    drop(scene);
    disk.unmount()
}

fn fails_cleanly(scene: &Scene, path: &Path, error: &Error) -> Verdict {
    says_full(error)?;
    scene::nothing_in_progress(scene.fixture, path)?;
    scene.survives(path, Start::Old.failed())?;
    scene.heals(path, Start::Old)
}

fn says_full(error: &Error) -> Verdict {
    if *error.kind() == ErrorKind::Io && error.advice() == Some(&Advice::FreeSpace) {
        return Ok(());
    }
    Err(Failure::new(format!("no error of a full disk: {error:?}")))
}

pub(super) fn a_full_disk_leaves_no_trace(fixture: &dyn DurabilityFixture) -> Verdict {
    let disk = Mount::new("tmpfs", "none", "size=4m")?;
    let path = disk.path().join("store");
    let content = |size: usize| {
        let bytes = vec![7; size];
        let blob = Descriptor::new("application/octet-stream".into(), size as u64, digest::sha256(&bytes));
        Ok::<_, Failure>((blob.clone(), Blob::from_bytes(&blob, BlobRange::FULL, &bytes.into())?))
    };
    block(async {
        let cache = fixture.open(&path).await?;
        let (small, blob) = content(1000)?;
        cache.put(blob).await?;
        for size in [5 << 20, 64 << 20] {
            let (large, blob) = content(size)?;
            match cache.put(blob).await {
                Ok(()) => return Err(Failure::new(format!("{size} bytes are said to be stored"))),
                Err(error) => says_full(&error)?,
            }
            if cache.stat(large.digest()).await?.is_some() {
                return Err(Failure::new(format!("a blob of {size} bytes is visible")));
            }
            scene::nothing_in_progress(fixture, &path)?;
        }
        Ok(cache.verify_blob(&small).await?)
    })??;
    disk.unmount()
}

/// A registry that is read while another process fills the disk, after the pull has checked the free space.
#[derive(Clone, Debug)]
struct Filling {
    origin: Origin,
    filler: PathBuf,
    /// The room that it leaves, in bytes.
    left: u64,
}

#[async_trait]
impl ImageRegistry for Filling {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        self.origin.manifest(name).await
    }

    async fn blob(&self, name: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        if !self.filler.exists() && blob.media_type().as_ref().contains(".layer.") {
            let file = File::create(&self.filler)?;
            let room = rustix::fs::fstatvfs(&file).map_err(std::io::Error::from)?;
            let taken = (room.f_bavail * room.f_frsize).saturating_sub(self.left);
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, taken.max(1))
                .map_err(std::io::Error::from)?;
        }
        self.origin.blob(name, blob, range).await
    }
}

impl fmt::Display for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}
