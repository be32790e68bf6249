//! The copy engine: an image from one backend into another, digests unchanged.

pub(crate) mod convert;
mod documents;
pub(crate) mod ends;
mod engine;
mod options;
pub(crate) mod subset;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use self::ends::{Counts, Ends};
use self::engine::Copier;
use crate::manifest::RawManifest;
use crate::registry::{ImageRegistry, PushSession};
use crate::{Advice, Descriptor, Digest, Error, ErrorKind, Reference, Result, reference};

pub use self::convert::asked::{Conversion, ConversionFault, MediaForm, Recompression};
pub use self::options::{Copied, CopyFault, CopyJob, CopyOptions, Platforms, Sparse};

/// Copies an image between backends. Blobs come first, then manifests, then indexes; the name is set last. Every
/// document is carried on byte for byte, so that digests and signatures survive (rule X 99
/// `copy_a_to_b_preserves_digests_or_refuses`), unless a [conversion](CopyOptions::conversion) is asked for (rule X 277
/// `a_conversion_is_asked_for`). All of it is one [`PushSession`]: a name is set only when everything is
/// there, also beside a collection or a repair of the target.
///
/// The last progress event is [`Event::Finished`](crate::progress::Event::Finished), always: also when the future is dropped,
/// unless it was never polled.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported) at once when the target stores nothing; [`ConversionFault`] as detail for a
/// conversion that cannot be; otherwise those of both
/// backends, with the image in their context. The target's name is not touched then, but by
/// [`NotFound`](crate::ErrorKind::NotFound) for [referrers](CopyOptions::referrers) that are missing.
pub async fn copy(
    from: &dyn ImageRegistry,
    image: &Reference,
    to: &dyn ImageRegistry,
    target: &Reference,
    options: &CopyOptions,
) -> Result<Descriptor> {
    let operation = options.progress.operation();
    let options = &CopyOptions { progress: operation.progress().clone(), ..options.clone() };
    operation
        .end(copy_without(from, image, to, target, options, Vec::new()).await)
        .map(|copied| copied.descriptor)
}

/// Copies several images from one backend into another, as [`copy`] does for one. All their content comes first, and each
/// blob is moved once. Then all names are set by one [`push_names`](ImageRegistry::push_names): with an error none is, where
/// the target can [set several in one step](crate::Capabilities::atomic_names).
///
/// # Errors
/// As [`copy`]; [`Config`](crate::ErrorKind::Config) for two jobs with one target.
pub async fn copy_all(
    from: &dyn ImageRegistry,
    jobs: &[CopyJob],
    to: &dyn ImageRegistry,
    options: &CopyOptions,
) -> Result<Vec<Copied>> {
    let operation = options.progress.operation();
    let options = &CopyOptions { progress: operation.progress().clone(), ..options.clone() };
    let copied = match Box::pin(copying(from, jobs, to, options, &[])).await {
        Err(e) if *e.kind() == ErrorKind::NotFound => Err(against(from, e).await),
        copied => copied,
    };
    operation.end(copied)
}

/// The error of content that is not there, with what a delta leaves it to.
async fn against(from: &dyn ImageRegistry, error: Error) -> Error {
    match from.bases().await {
        Ok(bases) if !bases.is_empty() => error.with_advice(Advice::LoadBase { bases }),
        _ => error,
    }
}

/// As [`copy`], without some documents that the index lists, and that are not in the source. No last event.
pub(crate) async fn copy_without(
    from: &dyn ImageRegistry,
    image: &Reference,
    to: &dyn ImageRegistry,
    target: &Reference,
    options: &CopyOptions,
    absent: Vec<Digest>,
) -> Result<Copied> {
    let jobs = [CopyJob { image: image.clone(), target: target.clone() }];
    let copied = Box::pin(copying(from, &jobs, to, options, &absent)).await?;
    copied.into_iter().next().ok_or_else(|| Error::config("nothing is copied"))
}

async fn copying(
    from: &dyn ImageRegistry,
    jobs: &[CopyJob],
    to: &dyn ImageRegistry,
    options: &CopyOptions,
    absent: &[Digest],
) -> Result<Vec<Copied>> {
    check(options)?;
    let mut targets = HashSet::new();
    let mut sessions: HashMap<String, PushSession<'_>> = HashMap::new();
    for CopyJob { image, target } in jobs {
        if !targets.insert(target.whole()) {
            return Err(Error::config("two images are to be copied to one name").with_image(target));
        }
        if let Entry::Vacant(place) = sessions.entry(reference::repository_of(target)) {
            place.insert(PushSession::begin(to, target)?);
        }
        if options.referrers && !from.capabilities().referrers {
            return Err(from.unsupported("list referrers").with_image(image));
        }
        if options.referrers && !to.capabilities().referrers {
            return Err(to.unsupported("list referrers").with_image(target));
        }
    }
    let all = Counts::default();
    let counts: Vec<Counts> = jobs.iter().map(|_| all.beside()).collect();
    let copiers = jobs.iter().zip(&counts).filter_map(|(CopyJob { image, target }, counts)| {
        let session = sessions.get(&reference::repository_of(target))?;
        Some(Copier::new(Ends { from, image, to, target, session, options, counts }))
    });
    let mut copiers: Vec<Copier<'_>> = copiers.collect();
    let (mut raws, mut originals) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
    for copier in &mut copiers {
        copier.leave_out(absent)?;
        let (raw, original) = copier.bring().await?;
        raws.push(raw);
        originals.push(original);
    }
    name(&copiers, &raws).await?;
    if options.referrers {
        // All that there is comes before what is missing is named.
        let mut complete = Ok(());
        for copier in &copiers {
            complete = complete.and(copier.all_referrers().await);
        }
        complete?;
    }
    let copied =
        jobs.iter().zip(&raws).zip(originals).zip(&counts).map(|(((job, raw), original), counts)| {
            let (moved, present) = counts.bytes();
            Copied {
                target: job.target.clone(),
                descriptor: raw.descriptor().clone(),
                original,
                moved,
                present,
            }
        });
    Ok(copied.collect())
}

/// Refuses what no copy can do.
fn check(options: &CopyOptions) -> Result<()> {
    let Some(conversion) = &options.conversion else { return Ok(()) };
    conversion.check()?;
    match options.sparse {
        _ if options.referrers => Err(ConversionFault::Referrers.into()),
        Sparse::Keep => Err(ConversionFault::Sparse.into()),
        Sparse::Refuse | Sparse::Rewrite => Ok(()),
    }
}

/// Sets the names of all images, and stores again what they need when that is gone.
async fn name(copiers: &[Copier<'_>], raws: &[RawManifest]) -> Result<()> {
    let Some(first) = copiers.first() else { return Ok(()) };
    let to = first.ends.to;
    let names: Vec<(Reference, RawManifest)> =
        copiers.iter().zip(raws).map(|(copier, raw)| (copier.ends.target.clone(), raw.clone())).collect();
    let attempt = || async {
        for (copier, (name, raw)) in copiers.iter().zip(&names) {
            copier.ends.session.complete(name, raw).await?;
        }
        let absent: Vec<Digest> = copiers.iter().flat_map(Copier::left_out).cloned().collect();
        if absent.is_empty() { to.push_names(&names).await } else { to.push_sparse(&names, &absent).await }
    };
    let repair = || async {
        for (copier, raw) in copiers.iter().zip(raws) {
            copier.repair(raw).await?;
        }
        Ok(())
    };
    let at = |e: Error| match copiers {
        [_] => e.with_image(first.ends.target).with_endpoint(to),
        _ => e.with_endpoint(to),
    };
    first.ends.repairing(attempt, repair, at).await?;
    for (copier, raw) in copiers.iter().zip(raws) {
        copier.ends.session.named(raw).await;
        copier.stored(raw);
    }
    Ok(())
}
