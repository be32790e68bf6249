//! The order that loses nothing, on any file system that keeps what `fsync` promises.

use std::path::Path;

use plyfold_core::{CacheProviderExt as _, reference};

use super::fixture::{DurabilityFixture, Role};
use super::image::{NEW, OLD};
use super::scene::{self, Scene, Start, block};
use super::trace::{Call, record};
use crate::oracle::{Failure, Verdict};

/// A power cut on ext4 or XFS cannot show each step: their journals keep the order of names by themselves.
pub(super) fn every_name_comes_after_what_it_needs(fixture: &dyn DurabilityFixture) -> Verdict {
    let scene = Scene::new(fixture)?;
    for (name, start, image) in [("fresh", Start::Nothing, OLD), ("filled", Start::Old, NEW)] {
        let calls = record(fixture, &scene.store(name, start)?, image)?;
        for call in &calls {
            judge(fixture, call, &calls)
                .map_err(|why| Failure::new(format!("{name}: {why}: {call:?}\n{calls:#?}")))?;
        }
        let named = calls.iter().filter(|call| call.to.is_some()).count();
        // Four blobs at least, and the name of the image.
        assert!(named > 4, "{named} names are not all that such a pull makes");
    }
    Ok(())
}

pub(super) fn a_name_waits_for_content_that_was_here_before(fixture: &dyn DurabilityFixture) -> Verdict {
    let scene = Scene::new(fixture)?;
    let path = scene.store("unnamed", Start::Old)?;
    block(async { fixture.open(&path).await?.remove(&reference::parse(OLD)?).await })??;
    let calls = record(fixture, &path, OLD)?;
    let blobs = Path::new("blobs/sha256");
    let named = calls.iter().find(|call| call.to.as_deref() == Some(Path::new("index.json")));
    let named = named.ok_or_else(|| Failure::new("no name is set"))?;
    let waits = |call: &Call| call.syncs() && call.path == blobs && call.until < named.from;
    if calls.iter().any(waits) {
        return Ok(());
    }
    Err(Failure::new(format!("the folder is not synced before the name is set: {calls:#?}")))
}

fn judge(fixture: &dyn DurabilityFixture, call: &Call, calls: &[Call]) -> Result<(), &'static str> {
    let synced = |path: &Path, after: usize, before: usize| {
        let syncs = |other: &&Call| other.syncs() && other.path == path;
        calls.iter().filter(syncs).any(|sync| sync.from > after && sync.until < before)
    };
    let role = |path: &Path| scene::role(fixture, path);
    let stays = |path: &Path| matches!(role(path), Role::Content | Role::Checksum(_));
    if call.writes() && !call.is_report() && stays(&call.path) {
        return Err("it is written where it can be seen");
    }
    let made = match (&*call.name, &call.to) {
        ("mkdir" | "mkdirat", _) if stays(&call.path) => &call.path,
        (_, Some(to)) if !stays(to) => return Ok(()),
        (_, Some(to)) => {
            let writes = |other: &&Call| other.path == call.path && other.from < call.from && other.writes();
            let last =
                calls.iter().filter(writes).map(|write| write.until).max().ok_or("nothing was written")?;
            if !synced(&call.path, last, call.from) {
                return Err("the content is not synced when it gets its name");
            }
            to
        }
        _ => return Ok(()),
    };
    let folder = made.parent().unwrap_or(Path::new(""));
    // The names of images rest on all that came before, the report on everything. An artifact and its checksum need no order: one
    // without the other, or with another one, is not used.
    let rests = |other: &&Call| {
        let is_names = |to: &Path| to == Path::new("index.json");
        other.from > call.until && (other.is_report() || other.to.as_deref().is_some_and(is_names))
    };
    let next = calls.iter().find(rests).ok_or("nothing comes after it")?;
    if synced(folder, call.until, next.from) { Ok(()) } else { Err("its folder is not synced in time") }
}
