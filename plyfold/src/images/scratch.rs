//! Pulled images as an OCI layout, for caches that are none.

use std::path::{Path, PathBuf};

use plyfold_core::manifest::limits;
use plyfold_core::{
    CacheProvider, CacheProviderExt as _, Collect, Lease, Platform, PullOptions, PullPolicy, PullResult,
    RawManifest, Result,
};
use plyfold_layout::Store;

use crate::blocking::blocking;

/// The layout within a scratch folder. Several processes may share it: what is pulled is leased there, too.
async fn layout(scratch: &Path) -> Result<Store> {
    let folder = scratch.join("layout");
    blocking(move |_| Store::open(folder)).await
}

/// Copies a pulled image into the layout: where that is, and what keeps the image in it.
pub(super) async fn copy(
    cache: Box<dyn CacheProvider>,
    scratch: &Path,
    image: &PullResult,
    platform: &Platform,
) -> Result<(PathBuf, Lease)> {
    let layout = layout(scratch).await?;
    // The name may stand for another image by now.
    let content = cache.content(&image.descriptor, limits::MANIFEST).await?;
    let root = RawManifest::described(content, &image.descriptor)?;
    let from = cache.as_registry().fixed(image.reference.clone(), root);
    let options =
        PullOptions { platform: platform.clone(), policy: PullPolicy::Always, ..PullOptions::default() };
    let copied = layout.image_pull(&from, &image.reference, &options).await?;
    Ok((layout.path().to_owned(), copied.lease))
}

/// Removes the copies of images that no process holds any more.
pub(super) async fn collect(scratch: &Path, dry_run: bool) -> Result<()> {
    if !scratch.join("layout").is_dir() {
        return Ok(());
    }
    let policy = Collect { budget: Some(0), dry_run, ..Collect::default() };
    layout(scratch).await?.collect(&policy).await.map(drop)
}
