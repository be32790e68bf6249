//! A sync as one archive that leaves out what its receiver has.

use plyfold_core::save::{Contents, SaveImage, SaveOptions};
use plyfold_core::{Error, Platforms, Result, reference};

use super::super::Images;
use super::target::Target;
use super::{Found, SyncOptions};
use crate::atomic_file::{AtomicFile, FileOptions};
use crate::blocking::blocking;
use crate::sync::{SyncChange, SyncReport, SyncedName};

impl Images {
    /// Writes the archive anew, with every image.
    pub(super) async fn delta(
        &self,
        report: &mut SyncReport,
        found: Vec<Found>,
        target: &Target,
        options: &SyncOptions,
    ) -> Result<()> {
        let path = target.archive()?;
        let referrers = uniform(&found)?;
        let images = found.iter().map(|found| {
            // One image of an index is saved by its own digest.
            let image = reference::by_digest(&found.image.image, &found.name.after);
            SaveImage::new(found.image.registry.clone(), image).named(found.name.target.clone())
        });
        let saving = SaveOptions {
            progress: options.progress.clone(),
            referrers,
            retry: options.retry,
            scratch: Some(self.temporary()),
            since: options.since.clone(),
            ..SaveOptions::default()
        };
        let contents = Contents::of(images.collect(), &saving).await?;
        (report.moved, report.left_out) = (contents.sizes().iter().sum(), contents.left_out());
        report.since = options.since.iter().map(|base| base.name().to_owned()).collect();
        // The archive is new, whatever was in its place.
        let named = |(found, moved): (Found, &u64)| SyncedName {
            before: None,
            change: SyncChange::Added,
            moved: *moved,
            ..found.name
        };
        report.names = found.into_iter().zip(contents.sizes()).map(named).collect();
        if options.dry_run {
            return Ok(());
        }
        blocking(move |stop| {
            let mut out = AtomicFile::create(&path, FileOptions::default(), stop)?;
            contents.write(&mut out, stop)?;
            out.publish()
        })
        .await
        .map(drop)
    }
}

/// Whether what refers to the images comes: an archive is written with all or without. Parts of indexes are for copies.
fn uniform(found: &[Found]) -> Result<bool> {
    let referrers = found.first().is_some_and(|found| found.image.referrers);
    let other = found.iter().find(|found| {
        let is_part = matches!(found.image.platforms, Platforms::Some(_))
            || found.image.platforms == Platforms::All
                && found.image.image.digest() != Some(found.name.after.as_ref());
        found.image.referrers != referrers || is_part
    });
    match other {
        None => Ok(referrers),
        Some(other) => Err(Error::unsupported(
            "an archive that leaves out what its receiver has takes the same of every image: \
             all platforms or one, with what refers to it or without",
        )
        .with_image(&other.name.name)),
    }
}
