//! Failures of the disk at every system call on the cache.

use super::blow::Blow;
use super::fixture::DurabilityFixture;
use super::scene::{Scene, Start};
use super::steps::sweeps;
use super::strike::is_optional;
use super::trace::Call;
use crate::oracle::Verdict;

/// Writes that the disk takes in part are in `a_disk_of_any_size_leaves_no_trace`.
pub(super) fn enospc_eio_short_write_clean_fail(fixture: &dyn DurabilityFixture) -> Verdict {
    let scene = Scene::new(fixture)?;
    let sweeps = sweeps(&scene).filter(|sweep| !matches!(sweep.start, Start::Both));
    sweeps.into_iter().try_for_each(|sweep| sweep.run("refusals", refusals))
}

pub(super) fn a_collection_that_is_refused_leaves_whole_images(fixture: &dyn DurabilityFixture) -> Verdict {
    let scene = Scene::new(fixture)?;
    let mut sweeps = sweeps(&scene).filter(|sweep| matches!(sweep.start, Start::Both));
    sweeps.try_for_each(|sweep| sweep.run("refusals", refusals))
}

/// What may happen to calls of one name on one file.
fn refusals(calls: &[&Call]) -> Vec<Blow> {
    let Some(call) = calls.first() else { return Vec::new() };
    let full = Blow::Error("ENOSPC");
    let broken = Blow::Error("EIO");
    match &*call.name {
        name if name.starts_with("open") => {
            let (opens, makes) = (calls.iter().any(|call| call.opens), calls.iter().any(|call| !call.opens));
            [(makes, full), (opens, broken)].into_iter().filter_map(|(is, blow)| is.then_some(blow)).collect()
        }
        "creat" | "mkdir" | "mkdirat" => vec![full],
        "fchmod" | "flock" | "ftruncate" => vec![broken],
        name if is_optional(name) => vec![broken],
        _ => vec![broken, full],
    }
}
