//! The copy engine: images from backends into another, digests unchanged.

pub(crate) mod convert;
mod documents;
pub(crate) mod ends;
mod engine;
mod options;
pub(crate) mod rewrite;
pub(crate) mod subset;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use self::ends::{Counts, Ends};
use self::engine::Copier;
use crate::manifest::RawManifest;
use crate::progress::Event;
use crate::registry::{ImageRegistry, PushSession};
use crate::{Advice, Descriptor, Digest, Error, ErrorKind, Reference, Result, Size, reference, select};

pub use self::convert::asked::{Conversion, ConversionFault, MediaForm, Recompression};
pub use self::options::{Copied, CopyFault, CopyFrom, CopyJob, CopyOptions, Platforms, Sparse};

/// Copies an image between backends. Blobs come first, then manifests, then indexes; the name is set last. Every
/// document is carried on byte for byte, so that digests and signatures survive (rule X 99
/// `copy_a_to_b_preserves_digests_or_refuses`), unless a [conversion](CopyOptions::conversion) is asked for (rule X 277
/// `a_conversion_is_asked_for`). All of it is one [`PushSession`]: a name is set only when everything is
/// there, also beside a collection or a repair of the target.
///
/// A blob of which a copy before has left a part at the target is continued (rule X 278 `a_push_goes_on_where_it_stopped`).
///
/// The last progress event is [`Event::Finished`], always: also when the future is dropped,
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
    let options = CopyOptions { progress: operation.progress().clone(), ..options.clone() };
    operation.end(Box::pin(copying(&of_one(from, jobs, &options), to, Order::Names, &[])).await)
}

/// Copies images of several backends into one, as [`copy_all`] does for one backend, and what refers to them before the names:
/// these are set last, all together with the tags of cosign. With an error no image has a new name, where the target can
/// [set several in one step](crate::Capabilities::atomic_names); also by referrers that are missing in a source.
///
/// What of each image is copied is in its [`CopyFrom`], not in `options`.
///
/// # Contract
/// X 279 `images_of_several_places_are_named_last`.
///
/// # Errors
/// As [`copy_all`].
pub async fn copy_from(
    jobs: &[CopyFrom<'_>],
    to: &dyn ImageRegistry,
    options: &CopyOptions,
) -> Result<Vec<Copied>> {
    let operation = options.progress.operation();
    let own = |job: &CopyFrom<'_>| CopyOptions {
        platforms: job.platforms.clone(),
        progress: operation.progress().clone(),
        referrers: job.referrers,
        sparse: job.sparse,
        ..options.clone()
    };
    let jobs = jobs.iter().map(|job| Placed { from: job.from, job: &job.job, options: own(job) });
    let jobs: Vec<Placed<'_>> = jobs.collect();
    operation.end(Box::pin(copying(&jobs, to, Order::Referrers, &[])).await)
}

/// What the target's name is to stand for after a copy, and what the source's name stands for. Documents are read only where not
/// all of an index is copied.
///
/// # Errors
/// Those of the source; [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound).
pub async fn copied_descriptor(job: &CopyFrom<'_>) -> Result<(Descriptor, Descriptor)> {
    let (from, image) = (job.from, &job.job.image);
    let (copied, root) = match (&job.platforms, job.sparse) {
        (Platforms::One(platform), _) => {
            let found = select::find(from, image, platform).await?;
            let root = found.indexes.first().unwrap_or(&found.raw).descriptor().clone();
            (found.raw.descriptor().clone(), root)
        }
        (Platforms::All | Platforms::Some(_), Sparse::Rewrite) => {
            let root = select::raw(from, image).await?;
            let part = if let Platforms::Some(platforms) = &job.platforms {
                let chosen = subset::chosen(from, image, &root, platforms).await?;
                subset::part(from, image, &root, &chosen).await?
            } else {
                subset::there(from, image, &root).await?
            };
            (part.root.descriptor().clone(), root.descriptor().clone())
        }
        _ => {
            let found = from.resolve(image).await.map_err(|e| e.with_image(image))?;
            (found.clone(), found)
        }
    };
    Ok((copied, root))
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
    let copied = Box::pin(copying(&of_one(from, &jobs, options), to, Order::Names, &absent)).await?;
    copied.into_iter().next().ok_or_else(|| Error::config("nothing is copied"))
}

/// Bytes of the documents that get names together: they are kept in memory until then.
const NAMED: u64 = 64 << 20;

/// What comes first when all content is there.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Order {
    Names,
    Referrers,
}

/// One image, and how it is copied.
struct Placed<'a> {
    from: &'a dyn ImageRegistry,
    job: &'a CopyJob,
    options: CopyOptions,
}

fn of_one<'a>(from: &'a dyn ImageRegistry, jobs: &'a [CopyJob], options: &CopyOptions) -> Vec<Placed<'a>> {
    jobs.iter().map(|job| Placed { from, job, options: options.clone() }).collect()
}

async fn copying(
    jobs: &[Placed<'_>],
    to: &dyn ImageRegistry,
    order: Order,
    absent: &[Digest],
) -> Result<Vec<Copied>> {
    for Placed { options, .. } in jobs {
        check(options)?;
    }
    let sessions = sessions(jobs, to)?;
    let all = Counts::default();
    let counts: Vec<Counts> = jobs.iter().map(|_| all.beside()).collect();
    let copiers = jobs.iter().zip(&counts).filter_map(|(Placed { from, job, options }, counts)| {
        let session = sessions.get(&reference::repository_of(&job.target))?;
        let ends = Ends { from: *from, image: &job.image, to, target: &job.target, session, options, counts };
        Some(Copier::new(ends, order == Order::Referrers))
    });
    let mut copiers: Vec<Copier<'_>> = copiers.collect();
    let (mut raws, mut originals) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
    let mut bytes = 0;
    for copier in &mut copiers {
        copier.leave_out(absent)?;
        let (raw, original) = against(copier.ends.from, copier.bring().await).await?;
        bytes += raw.descriptor().size();
        if bytes > NAMED {
            let message = format!("more than {} of manifests and indexes get names together", Size(NAMED));
            return Err(Error::limit(message).with_image(copier.ends.image));
        }
        raws.push(raw);
        originals.push(original);
    }
    if order == Order::Names {
        name(&copiers, &raws).await?;
    }
    // All that there is comes before what is missing is named.
    let mut complete = Ok(());
    for (copier, raw) in copiers.iter().zip(&raws).filter(|(copier, _)| copier.ends.options.referrers) {
        copier.meet(raw);
        complete = complete.and(against(copier.ends.from, copier.all_referrers().await).await);
    }
    complete?;
    if order == Order::Referrers {
        name(&copiers, &raws).await?;
    }
    let copied = copiers.iter().zip(&raws).zip(originals).map(|((copier, raw), original)| {
        let (moved, present) = copier.ends.counts.bytes();
        let (target, descriptor) = (copier.ends.target.clone(), raw.descriptor().clone());
        let (absent, referrers) = copier.found();
        if !absent.is_empty() {
            let (image, count) = (copier.ends.image, absent.len());
            let message = format!("{image}: not in the source, and left out of the index: {count} documents");
            copier.ends.options.progress.emit(Event::Warning { message });
        }
        Copied { target, descriptor, original, absent, moved, present, referrers }
    });
    Ok(copied.collect())
}

/// Says of content that is not there what a delta leaves it to.
async fn against<T>(from: &dyn ImageRegistry, outcome: Result<T>) -> Result<T> {
    match outcome {
        Err(error) if *error.kind() == ErrorKind::NotFound => Err(match from.bases().await {
            Ok(bases) if !bases.is_empty() => error.with_advice(Advice::LoadBase { bases }),
            _ => error,
        }),
        outcome => outcome,
    }
}

/// A session for each repository of the target.
fn sessions<'a>(
    jobs: &'a [Placed<'_>],
    to: &'a dyn ImageRegistry,
) -> Result<HashMap<String, PushSession<'a>>> {
    let mut targets = HashSet::new();
    let mut sessions = HashMap::new();
    for Placed { from, job: CopyJob { image, target }, options } in jobs {
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
    Ok(sessions)
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

/// The error of a target that does not take an index of which not all is there: most registries refuse it, each by an error of
/// its own, of which the reader cannot know that.
fn of_sparse(error: Error) -> Error {
    use ErrorKind::{Config, Corrupt, NotFound, Unsupported};

    if !matches!(error.kind(), Config | Corrupt | NotFound | Unsupported) {
        return error;
    }
    let message = "the target refuses an index of which not all is there";
    Error::unsupported(message).with_source(error).with_advice(Advice::RewriteIndex)
}

/// Sets the names of all images, with the tags of cosign that wait for that, and stores again what they need when that is gone.
async fn name(copiers: &[Copier<'_>], raws: &[RawManifest]) -> Result<()> {
    let Some(first) = copiers.first().filter(|first| !first.ends.options.dry_run) else { return Ok(()) };
    let to = first.ends.to;
    let tops =
        copiers.iter().zip(raws).map(|(copier, raw)| (copier, (copier.ends.target.clone(), raw.clone())));
    let tags = copiers.iter().flat_map(|copier| copier.take_tags().into_iter().map(move |tag| (copier, tag)));
    let mut known = HashSet::new();
    let (of, names): (Vec<&Copier<'_>>, Vec<(Reference, RawManifest)>) =
        tops.chain(tags).filter(|(_, (name, _))| known.insert(name.whole())).unzip();
    let absent: Vec<Digest> = copiers.iter().flat_map(Copier::left_out).collect();
    let attempt = || async {
        for (copier, (name, raw)) in of.iter().zip(&names) {
            copier.ends.session.complete(name, raw).await?;
        }
        if absent.is_empty() { to.push_names(&names).await } else { to.push_sparse(&names, &absent).await }
    };
    let repair = || async {
        for (copier, (_, raw)) in of.iter().zip(&names) {
            copier.repair(raw).await?;
        }
        Ok(())
    };
    let at = |e: Error| {
        let error = if absent.is_empty() { e } else { of_sparse(e) };
        let error = if copiers.len() == 1 { error.with_image(first.ends.target) } else { error };
        error.with_endpoint(to)
    };
    first.ends.repairing(attempt, repair, at).await?;
    for (copier, (_, raw)) in of.iter().zip(&names) {
        copier.ends.session.named(raw).await;
    }
    Ok(())
}
