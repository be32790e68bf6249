//! The suite of durability can fail: for each of its tests there are mutants that it catches.

mod careless;

use std::process::ExitCode;

use plyfold_conformance::durability::{self, DurabilityFixture};
use plyfold_conformance::oracle::{Failure, Verdict};

use self::careless::{Careless, Fault};

/// For each test the faults that it must catch, and words of what it says about each.
const MUTANTS: &[(&str, &[(Fault, &str)])] = &[
    (
        "kill_at_every_syscall_leaves_openable_store",
        &[(Fault::ContentBeforeNames, "old:1 was lost"), (Fault::NamesInPlace, "index.json")],
    ),
    (
        "every_name_comes_after_what_it_needs",
        &[
            (Fault::BlobUnsynced, "the content is not synced when it gets its name"),
            (Fault::FolderUnsynced, "its folder is not synced in time"),
            (Fault::NamesInPlace, "it is written where it can be seen"),
        ],
    ),
    (
        "a_name_waits_for_content_that_was_here_before",
        &[
            (Fault::ListsWhatIsJudged, "and all of it is judged"),
            (Fault::NamesDoNotWait, "the folder is not synced before the name is set"),
        ],
    ),
    ("power_cut_on_ext4_loses_nothing", &[(Fault::BlobUnsynced, "is visible and has the content")]),
    ("power_cut_on_xfs_loses_nothing", &[(Fault::FolderUnsynced, "was lost")]),
    (
        "enospc_eio_short_write_clean_fail",
        &[(Fault::RefusalsSwallowed, "no clean error"), (Fault::TempLeft, "is left")],
    ),
    (
        "a_collection_that_is_refused_leaves_whole_images",
        &[
            (Fault::CollectsNothing, "is not judged: the cache does not collect"),
            (Fault::TrashKept, "+trash/"),
        ],
    ),
    ("a_disk_of_any_size_leaves_no_trace", &[(Fault::WritesUnchecked, "is visible and has the content")]),
    ("a_full_disk_leaves_no_trace", &[(Fault::TempLeft, "is left")]),
];

pub(crate) fn child() -> Option<ExitCode> {
    let faults = MUTANTS.iter().flat_map(|(_, faults)| faults.iter());
    let mutants = faults.map(|(fault, _)| &*Box::leak(Box::new(Careless(*fault))));
    let fixtures: Vec<&'static dyn DurabilityFixture> = mutants.map(|mutant| mutant as _).collect();
    durability::child(&fixtures)
}

pub(crate) fn every_test_of_durability_has_a_mutant() -> Verdict {
    let tests: Vec<_> = durability::tests().map(|test| test.name).collect();
    let judged: Vec<_> =
        MUTANTS.iter().filter(|(_, faults)| !faults.is_empty()).map(|(name, _)| *name).collect();
    if judged == tests { Ok(()) } else { Err(Failure::new(format!("{judged:?} are not {tests:?}"))) }
}

pub(crate) fn what_a_tracer_shows_is_caught() -> Verdict {
    caught(&[
        "kill_at_every_syscall_leaves_openable_store",
        "every_name_comes_after_what_it_needs",
        "a_name_waits_for_content_that_was_here_before",
        "enospc_eio_short_write_clean_fail",
        "a_collection_that_is_refused_leaves_whole_images",
    ])
}

pub(crate) fn what_a_power_cut_loses_is_caught() -> Verdict {
    caught(&["power_cut_on_ext4_loses_nothing", "power_cut_on_xfs_loses_nothing"])
}

pub(crate) fn what_a_full_disk_leaves_is_caught() -> Verdict {
    caught(&["a_disk_of_any_size_leaves_no_trace", "a_full_disk_leaves_no_trace"])
}

fn caught(names: &[&str]) -> Verdict {
    for test in durability::tests().filter(|test| names.contains(&test.name)) {
        let faults =
            MUTANTS.iter().filter(|(name, _)| *name == test.name).flat_map(|(_, faults)| faults.iter());
        for (fault, words) in faults {
            match test.judge(&Careless(*fault)) {
                Ok(()) => return Err(Failure::new(format!("{} passes with {fault:?}", test.name))),
                Err(why) if !format!("{why:?}").contains(words) => {
                    return Err(Failure::new(format!("not {words:?} with {fault:?}: {why:?}")));
                }
                Err(_) => {}
            }
        }
    }
    Ok(())
}
