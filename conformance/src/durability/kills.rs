//! kill -9 at every system call that changes the cache.

use super::blow::Blow;
use super::fixture::DurabilityFixture;
use super::scene::Scene;
use super::steps::sweeps;
use super::trace::Call;
use crate::oracle::Verdict;

/// With it go D 128 `index_old_or_new_never_torn` and D 131 `stale_lock_of_dead_owner_recovered`.
pub(super) fn kill_at_every_syscall_leaves_openable_store(fixture: &dyn DurabilityFixture) -> Verdict {
    let scene = Scene::new(fixture)?;
    let kills = |calls: &[&Call]| {
        let changes = calls.iter().any(|call| !call.opens);
        if changes { vec![Blow::Kill] } else { Vec::new() }
    };
    sweeps(&scene).try_for_each(|sweep| sweep.run("kills", kills))
}
