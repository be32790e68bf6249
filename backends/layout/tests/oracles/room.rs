//! Disks that are full after any number of pages: writes that are refused, and writes that are taken in part.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold_conformance::oracle::{Failure, Mount, Verdict};
use plyfold_core::{
    Blob, BlobRange, Descriptor, Error, ErrorKind, ImageRegistry, RawManifest, Reference, Result,
};
use plyfold_layout::{Layout, Store};
use rustix::fs::FallocateFlags;

use crate::scene::{self, NEW, Scene, Start};
use crate::{block, worker};

/// The smallest page: with larger ones some sizes are tried twice.
const PAGE: u64 = 4096;

/// Rule D 132, the short writes: the pull has room for one page more each time, until it succeeds.
pub(crate) fn a_disk_of_any_size_leaves_no_trace() -> Verdict {
    let disk = Mount::new("tmpfs", "none", "size=32m")?;
    let scene = Scene::on(disk.path())?;
    let filler = disk.path().join("filler");
    // Near its end a write has many ways to fail; in the middle of a layer they are all alike.
    for (failures, pages) in (0..40).chain((40..).step_by(9)).enumerate() {
        let path = scene.store("filled", Start::Old)?;
        let registry = Filling { layout: scene.layout(), filler: filler.clone(), left: pages * PAGE };
        let outcome = block(async { worker::pull(&registry, NEW, &Store::open(&path)?, 1).await })?;
        fs::remove_file(&filler)?;
        let Err(error) = outcome else {
            assert!(failures > 40, "{failures} failures are not all that there can be");
            scene::whole(&Store::open(&path)?, NEW)?;
            break;
        };
        let judged = judge(&scene, &path, &error);
        judged.map_err(|why| Failure::new(format!("with {pages} pages: {why:?}")))?;
    }
    // The scene keeps its stores on the disk.
    drop(scene);
    disk.unmount()
}

fn judge(scene: &Scene, path: &Path, error: &Error) -> Verdict {
    if *error.kind() != ErrorKind::Io || !error.hint().is_some_and(|hint| hint.contains("full")) {
        return Err(Failure::new(format!("{error:?}")));
    }
    scene::nothing_in_progress(path)?;
    scene.survives(path, true)?;
    scene.heals(path)
}

/// A layout that is read while somebody else fills the disk, after the pull has asked how much room there is.
#[derive(Clone, Debug)]
struct Filling {
    layout: Layout,
    filler: PathBuf,
    /// The room that it leaves, in bytes.
    left: u64,
}

#[async_trait]
impl ImageRegistry for Filling {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        self.layout.manifest(name).await
    }

    async fn blob(&self, name: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        if !self.filler.exists() && blob.media_type().as_ref().contains(".layer.") {
            let file = File::create(&self.filler)?;
            let room = rustix::fs::fstatvfs(&file).map_err(std::io::Error::from)?;
            let taken = (room.f_bavail * room.f_frsize).saturating_sub(self.left);
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, taken.max(1))
                .map_err(std::io::Error::from)?;
        }
        self.layout.blob(name, blob, range).await
    }
}

impl fmt::Display for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layout.fmt(f)
    }
}
