//! What becomes of a store that is not there.

use std::path::Path;
use std::{fs, io};

use super::args::Verb;
use super::context::backends;
use super::image::Image;
use super::reading::Policy;
use super::snapshot_args::Snapshot;
use super::store_place::StorePlace;
use super::sync_args::STORE;
use crate::Error;

/// What a verb does with the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StoreUse {
    /// May store something: the store is made then.
    Makes,
    /// Works on what is there.
    Needs,
    /// May read what is there, and stores nothing.
    Reads,
}

impl StoreUse {
    pub(crate) fn of(verb: &Verb) -> Self {
        let needs = |needs| if needs { Self::Needs } else { Self::Makes };
        let is_never = |policy: Option<Policy>| policy == Some(Policy::Never);
        match verb {
            Verb::Append(_)
            | Verb::Config(_)
            | Verb::Gc { .. }
            | Verb::List { .. }
            | Verb::Pin { .. }
            | Verb::Push(_)
            | Verb::Remove { .. }
            | Verb::Snapshot(Snapshot::List { .. } | Snapshot::Remove { .. })
            | Verb::Tag { .. }
            | Verb::Unpin { .. }
            | Verb::Verify { .. } => Self::Needs,
            Verb::Cat(options) => needs(is_never(options.reading.policy)),
            Verb::Diff(options) => needs(is_never(options.reading.policy)),
            Verb::Inspect(options) => needs(!options.runtime_spec),
            Verb::Load(options) => {
                if options.list {
                    Self::Reads
                } else {
                    Self::Makes
                }
            }
            Verb::Pull(options) => needs(is_never(options.policy)),
            Verb::Ls(options) => needs(options.image.is_none() || is_never(options.reading.policy)),
            Verb::Save(options) => needs(options.images.iter().all(|image| is_name(image))),
            Verb::Sbom(options) => {
                if is_never(options.policy) {
                    Self::Needs
                } else {
                    Self::Reads
                }
            }
            Verb::Sync(options) if options.source == STORE => Self::Needs,
            Verb::Sync(options) if options.dry_run || options.target != STORE => Self::Reads,
            _ => Self::Makes,
        }
    }
}

/// Whether it is a name, which can only be in the store, and not the URI or the path of another place.
fn is_name(image: &str) -> bool {
    let read = backends().and_then(|backends| Image::parse(image, &backends));
    read.is_ok_and(|image| matches!(image, Image::Name(_)))
}

/// Whether no store is at this path: nothing at all, or an empty directory.
pub(crate) fn is_absent(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether a verb may ask more than this machine: not with the policy that asks nothing.
pub(crate) fn asks(verb: &Verb) -> bool {
    let policy = match verb {
        Verb::Cat(options) => options.reading.policy,
        Verb::Diff(options) => options.reading.policy,
        Verb::Ls(options) => options.reading.policy,
        Verb::Pull(options) => options.policy,
        Verb::Sbom(options) => options.policy,
        _ => None,
    };
    policy != Some(Policy::Never)
}

/// The error that no store is at the place that was given.
pub(crate) fn not_there(place: &StorePlace) -> Error {
    let key = match place {
        StorePlace::Directory(_) => "path",
        StorePlace::Uri(_) => "endpoint",
    };
    Error::not_found("there is no store")
        .with_context(key, place)
        .with_hint("check --store and PLYFOLD_STORE; `plyfold pull` and `plyfold load` make a store there")
}
