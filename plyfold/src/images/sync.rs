//! Images of many places into one: all names or none, and nothing that is there already.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use plyfold_core::{
    CopyFrom, CopyJob, CopyOptions, Descriptor, Digest, Error, ErrorKind, Platforms, Reference, Result,
    Sparse, copied_descriptor, copy_from, reference,
};

use self::chosen::{Chosen, Selection, open_all, select};
use self::places::Places;
use self::target::Target;
use super::Images;
use crate::sync::{SyncChange, SyncList, SyncReport, SyncedName};

pub use self::options::{SyncOptions, SyncTarget};

mod chosen;
mod delta;
mod options;
mod places;
mod target;

/// Names that are resolved at the same time.
const LOOKS: usize = 8;

impl Images {
    /// Brings the images of a list, or all images of a place, to a target. An image whose name stands for the same there is left
    /// alone: each name is resolved once at both ends, and of an unchanged image nothing more is read. Of the others, blobs that
    /// the target has are not moved. All names are set at the end, together where the target can; a run that was ended goes on
    /// with the blobs that are there.
    ///
    /// # Errors
    /// [`SyncFault`](crate::SyncFault) for a pattern that matches nothing and for two images with one name; those of
    /// [`Backends::open`](crate::Backends::open) and [`copy_from`]: no name is set then, but by a registry, which
    /// sets one after the other, and whose error says how many it has set.
    pub async fn sync(
        &self,
        list: &SyncList,
        target: &SyncTarget,
        options: &SyncOptions,
    ) -> Result<SyncReport> {
        let operation = options.progress.operation();
        let options = SyncOptions { progress: operation.progress().clone(), ..options.clone() };
        operation.end(Box::pin(self.syncing(list, target, &options)).await)
    }

    async fn syncing(
        &self,
        list: &SyncList,
        target: &SyncTarget,
        options: &SyncOptions,
    ) -> Result<SyncReport> {
        let mut places = Places::new(self);
        let target = Target::open(&mut places, target).await?;
        // Before anything is read. Where nothing changes, nothing is written.
        let is_writable = match target.registry.check_target().await {
            Err(e) if *e.kind() != ErrorKind::Io => return Err(e),
            is_writable => is_writable,
        };
        if !options.since.is_empty() {
            target.archive()?;
        }
        let sources = open_all(places, list).await?;
        sources.iter().try_for_each(|source| target.check_is_outside(source))?;
        let Selection { images, mut missing, .. } = select(list, sources, &target, options).await?;
        let mut looks = stream::iter(images).map(|image| look(image, &target, options)).buffered(LOOKS);
        let mut found = Vec::new();
        while let Some(look) = looks.try_next().await? {
            match look {
                Look::Found(image) => found.push(*image),
                Look::Missing(name) => missing.push(name),
            }
        }
        drop(looks);
        if options.dry_run && found.iter().any(|found| is_copied(found, options)) {
            is_writable?;
        }
        // Two that have no name may become one, which the platforms choose of both.
        let mut taken = HashSet::new();
        found.retain(|one| one.name.target.digest().is_none() || taken.insert(one.name.target.whole()));
        let mut report = SyncReport::new(list, &target.text, options.dry_run, missing);
        if options.since.is_empty() {
            copy(&mut report, found, &target, options).await?;
        } else {
            Box::pin(self.delta(&mut report, found, &target, options)).await?;
        }
        Ok(report)
    }
}

/// An image, and what its name stands for at both ends.
struct Found {
    image: Chosen,
    name: SyncedName,
    /// Whether its name stands for the same at both ends, and all of it is there.
    is_there: bool,
}

impl Found {
    fn job(&self) -> CopyFrom<'_> {
        self.image.job(&self.name.target)
    }
}

enum Look {
    Found(Box<Found>),
    Missing(String),
}

/// Resolves a name at both ends.
async fn look(mut image: Chosen, target: &Target, options: &SyncOptions) -> Result<Look> {
    let (name, mut at) = (image.image.clone(), image.target.clone());
    let mut before = standing(&at, target, options).await?;
    let job = image.job(&at);
    let resolve = || resolved(&job, before.as_ref());
    let resolved = options.retry.run("manifest", &options.progress, resolve).await;
    let (after, root) = match resolved {
        Err(e) if image.optional && *e.kind() == ErrorKind::NotFound => {
            return Ok(Look::Missing(name.whole()));
        }
        resolved => resolved.map_err(|e| image.located(e))?,
    };
    let after = after.digest().clone();
    if at.digest().is_some_and(|digest| digest != after.as_ref()) {
        // What has no name is called by what is copied of it.
        at = reference::by_digest(&at, &after);
        before = standing(&at, target, options).await?;
    }
    // A tag may move from now on: what was found is copied.
    image.image = reference::by_digest(&name, root.digest());
    let change = SyncChange::of(before.as_ref(), &after);
    // On this machine a digest is found under whatever name, and is to stay when that name moves on.
    let has_own_name = at.digest().is_none() || target.is_registry();
    let is_there =
        change == SyncChange::Unchanged && has_own_name && is_complete(&image, &at, target).await?;
    let (absent, referrers) = (Vec::new(), None);
    let name =
        SyncedName { name, target: at, before, after, change, absent, moved: 0, present: 0, referrers };
    Ok(Look::Found(Box::new(Found { image, name, is_there })))
}

/// What a name stands for at the target.
async fn standing(at: &Reference, target: &Target, options: &SyncOptions) -> Result<Option<Digest>> {
    let found = options.retry.run("manifest", &options.progress, || target.registry.resolve(at)).await;
    let found = Error::found(found).map_err(|e| e.with_image(at).with_endpoint(&target.registry))?;
    Ok(found.map(|found| found.digest().clone()))
}

/// What the name of a job is to stand for, and what it stands for where the image comes from. Of an index that is rewritten only if
/// something of it is missing nothing is read where the target has all of it.
async fn resolved(job: &CopyFrom<'_>, before: Option<&Digest>) -> Result<(Descriptor, Descriptor)> {
    if matches!((&job.platforms, job.sparse), (Platforms::All, Sparse::Rewrite)) {
        let found = job.from.resolve(&job.job.image).await?;
        if before == Some(found.digest()) {
            return Ok((found.clone(), found));
        }
    }
    copied_descriptor(job).await
}

/// Whether all of an image is at the target. A layout, a store or an archive may lack some of it, as a store does after a pull
/// for one platform; it is on this machine, unlike a registry.
async fn is_complete(image: &Chosen, at: &Reference, target: &Target) -> Result<bool> {
    if target.is_registry() {
        return Ok(true);
    }
    let mut own = CopyFrom::new(&*target.registry, CopyJob { image: at.clone(), target: at.clone() });
    if image.sparse == Sparse::Keep && !matches!(image.platforms, Platforms::One(_)) {
        (own.platforms, own.sparse) = (image.platforms.clone(), image.sparse);
    }
    let looking = CopyOptions { dry_run: true, ..CopyOptions::default() };
    match copy_from(&[own], &*target.registry, &looking).await {
        Ok(looked) => Ok(looked.iter().all(|looked| looked.moved == 0 && looked.absent.is_empty())),
        Err(e) if *e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn is_copied(found: &Found, options: &SyncOptions) -> bool {
    options.refresh || !found.is_there
}

/// Copies what has changed.
async fn copy(
    report: &mut SyncReport,
    found: Vec<Found>,
    target: &Target,
    options: &SyncOptions,
) -> Result<()> {
    let is_copied = |found: &&Found| is_copied(found, options);
    let jobs: Vec<CopyFrom<'_>> = found.iter().filter(is_copied).map(Found::job).collect();
    let copying = CopyOptions {
        concurrency: options.concurrency,
        dry_run: options.dry_run,
        progress: options.progress.clone(),
        retry: options.retry,
        ..CopyOptions::default()
    };
    let copied =
        if jobs.is_empty() { Vec::new() } else { copy_from(&jobs, &*target.registry, &copying).await? };
    let mut copied = copied.into_iter();
    for found in &found {
        let mut name = found.name.clone();
        if let Some(copied) = is_copied(&found).then(|| copied.next()).flatten() {
            name.after = copied.descriptor.digest().clone();
            name.change = SyncChange::of(name.before.as_ref(), &name.after);
            (name.moved, name.present) = (copied.moved, copied.present);
            (name.absent, name.referrers) = (copied.absent, copied.referrers);
        }
        report.moved = report.moved.saturating_add(name.moved);
        report.present = report.present.saturating_add(name.present);
        report.names.push(name);
    }
    Ok(())
}
