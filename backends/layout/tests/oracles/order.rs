//! The order that loses nothing, on any file system that keeps what `fsync` promises.

use std::path::Path;

use plyfold_conformance::oracle::{Failure, Verdict};
use plyfold_core::{CacheProviderExt as _, reference};
use plyfold_layout::Store;

use crate::block;
use crate::scene::{NEW, OLD, Scene, Start};
use crate::trace::{Call, record};

/// Content before its name, names before what leads to them, all of it before success is reported.
///
/// A power cut on ext4 or XFS cannot show each step: their journals keep the order of names by themselves.
pub(crate) fn every_name_comes_after_what_it_needs() -> Verdict {
    let scene = Scene::new()?;
    for (name, start, image) in [("fresh", Start::Nothing, OLD), ("filled", Start::Old, NEW)] {
        let calls = record(&scene, &scene.store(name, start)?, image)?;
        for call in &calls {
            judge(call, &calls)
                .map_err(|why| Failure::new(format!("{name}: {why}: {call:?}\n{calls:#?}")))?;
        }
        let renames = calls.iter().filter(|call| call.to.is_some()).count();
        assert!(renames > 8, "{renames} names are not all that such a pull makes");
    }
    Ok(())
}

/// Content that another process has shown may not be in its folder for good yet.
pub(crate) fn a_name_waits_for_content_that_was_here_before() -> Verdict {
    let scene = Scene::new()?;
    let path = scene.store("unnamed", Start::Old)?;
    block(Store::open(&path)?.remove(&reference::parse(OLD)?))??;
    let calls = record(&scene, &path, OLD)?;
    let blobs = Path::new("blobs/sha256");
    assert!(!calls.iter().any(|call| call.to.as_ref().is_some_and(|to| to.starts_with(blobs))), "{calls:#?}");
    let named = calls.iter().find(|call| call.to.as_deref() == Some(Path::new("index.json")));
    let named = named.ok_or_else(|| Failure::new("no name is set"))?;
    let syncs = |call: &&Call| call.name.ends_with("sync") && call.path == blobs && call.until < named.from;
    match calls.iter().find(syncs) {
        Some(_) => Ok(()),
        None => Err(Failure::new(format!("the folder is not synced: {calls:#?}"))),
    }
}

fn judge(call: &Call, calls: &[Call]) -> Result<(), &'static str> {
    let synced = |path: &Path, after: usize, before: usize| {
        let syncs = |other: &&Call| other.name.ends_with("sync") && other.path == path;
        calls.iter().filter(syncs).any(|sync| sync.from > after && sync.until < before)
    };
    let made = match (&*call.name, &call.to) {
        ("mkdir" | "mkdirat", _) => &call.path,
        (_, Some(to)) => {
            let writes = |other: &&Call| other.path == call.path && other.from < call.from && changes(other);
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
    // The names of images rest on all that came before, the seal on the artifact, the report on everything.
    let rests = |other: &&Call| {
        let seal = other.to.as_ref().is_some_and(|to| to.as_os_str() == &*format!("{}.seal", made.display()));
        let index = other.to.as_ref().is_some_and(|to| to == Path::new("index.json"));
        other.from > call.until && (seal || index || other.path == Path::new("reported"))
    };
    let next = calls.iter().find(rests).ok_or("nothing comes after it")?;
    if synced(folder, call.until, next.from) { Ok(()) } else { Err("its folder is not synced in time") }
}

fn changes(call: &Call) -> bool {
    ["write", "trunc", "falloc", "copy"].iter().any(|part| call.name.contains(part))
}
