//! Caches that are OCI layout directories through crashes: processes killed at any system call, disks that refuse and
//! disks that are full, power cuts (rules D 127, D 129 and D 132).
//!
//! What the other suites judge in one process, this one judges in workers: the test binary runs itself, under strace or
//! on a disk of its own, and looks at what is left. So it stands among the [oracles](crate::oracle), in
//! `tests/oracles/main.rs` with `harness = false`, and a missing program is reported like any other need:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use plyfold_conformance::durability::{DurabilityFixture, Role};
//! use plyfold_core::{CacheProvider, Result, memory::MemoryCache};
//!
//! struct Directories;
//!
//! #[async_trait::async_trait]
//! impl DurabilityFixture for Directories {
//!     async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>> {
//!         // … the cache under test, in this directory.
//! #       let _ = directory;
//! #       Ok(Box::new(MemoryCache::new()?))
//!     }
//!
//!     fn role(&self, path: &Path) -> Role {
//!         if path.starts_with("tmp") { Role::Temporary } else { Role::Content }
//!     }
//! }
//!
//! plyfold_conformance::oracle_tests! {
//!     durability Directories;
//! }
//! ```
//!
//! More tests may follow, as [`oracle_tests!`](crate::oracle_tests) takes them. The cache stores blobs at
//! `blobs/<algorithm>/<hex>` and names in `index.json`, as layouts do; what else is in its directory, the fixture says.
//! What a failure must leave is asked of the cache itself, and of the files: a blob that can be seen has the content of
//! its name, before the cache is opened again.

mod artifact;
mod blow;
mod fixture;
mod image;
mod kills;
mod order;
mod power;
mod refusals;
mod room;
mod scene;
mod steps;
mod strike;
mod trace;
mod worker;

use crate::oracle::{Check, Failure, Need, Verdict};
use crate::rule::{judged, names, settle};

pub use fixture::{DurabilityFixture, Role};
pub use worker::child;

/// One test of a rule about durability.
#[derive(Clone, Copy, Debug)]
pub struct DurabilityTest {
    /// Group and number of the rule in the catalogue.
    pub id: &'static str,
    /// The rule's name.
    pub rule: &'static str,
    /// The test's name.
    pub name: &'static str,
    /// What it demands.
    pub text: &'static str,
    /// What has to be there for it to run.
    pub needs: &'static [Need],
    judge: fn(&dyn DurabilityFixture) -> Verdict,
}

impl DurabilityTest {
    /// Judges a fixture, which `main` has offered to [`child`].
    ///
    /// # Errors
    /// A [`Failure`] with the rule's id, the test's name and text, and what went wrong. When something is not judged
    /// and the fixture does not list the test, and when it lists a test that is judged, or one that there is not.
    pub fn judge(&self, fixture: &dyn DurabilityFixture) -> Verdict {
        let Self { id, name, text, .. } = self;
        let (outcome, verdict) = judged(|| (self.judge)(fixture));
        let broken = |why| Failure::new(format!("{id} `{name}` is broken\n  {text}\n{why:?}"));
        outcome.map_err(broken)?;
        settle(fixture, format_args!("{id} `{name}`"), name, &verdict, String::new).map_err(Failure::new)
    }
}

const KILLS: (&str, &str) = ("D 127", "kill_at_every_syscall_leaves_openable_store");
const POWER: (&str, &str) = ("D 129", "visible_blob_is_always_whole_after_power_cut");
const REFUSALS: (&str, &str) = ("D 132", "enospc_eio_short_write_clean_fail");

macro_rules! tests {
    ($d:tt $($rule:ident $module:ident::$judge:ident $needs:expr; $text:literal,)+) => {
        const TESTS: &[DurabilityTest] = &[$(DurabilityTest {
            id: $rule.0,
            rule: $rule.1,
            name: stringify!($judge),
            text: $text,
            needs: &$needs,
            judge: $module::$judge,
        }),+];
        names! { $d __durability_tests: $($judge)+ }
    };
}

tests! {
    $
    KILLS kills::kill_at_every_syscall_leaves_openable_store [Need::Tracing];
        "killed at any call, an open, a pull or a collection leaves whole images, and can be done again",
    POWER order::every_name_comes_after_what_it_needs [Need::Tracing];
        "content is synced before its name, a name's folder before what rests on it, everything before success",
    POWER order::a_name_waits_for_content_that_was_here_before [Need::Tracing];
        "content that another process has shown is in its folder for good before a name stands for it",
    POWER power::power_cut_on_ext4_loses_nothing [Need::Mounts, Need::MKFS_EXT4, Need::XFS_IO];
        "after a power cut on ext4 everything visible is complete, and everything reported as stored is there",
    POWER power::power_cut_on_xfs_loses_nothing [
        Need::Mounts, Need::FileSystem("xfs"), Need::MKFS_XFS, Need::XFS_IO
    ];
        "after a power cut on XFS everything visible is complete, and everything reported as stored is there",
    REFUSALS refusals::enospc_eio_short_write_clean_fail [Need::Tracing];
        "a pull or an open whose call is refused fails as Io, once, and leaves what was there before",
    REFUSALS refusals::a_collection_that_is_refused_leaves_whole_images [Need::Tracing];
        "a collection whose call is refused fails as Io or does without, and can be done again",
    REFUSALS room::a_disk_of_any_size_leaves_no_trace [Need::Mounts];
        "a disk that is full after any number of pages is an error that says so, and nothing is left",
    REFUSALS room::a_full_disk_leaves_no_trace [Need::Mounts];
        "a blob that does not fit is an error that says so, and nothing is left of it",
}

/// The tests, in the order of the catalogue.
pub fn tests() -> impl Iterator<Item = DurabilityTest> {
    TESTS.iter().copied()
}

/// The test `name` as one of a test binary, where `run` judges it.
///
/// # Panics
/// When there is none: a mistake in the macro that calls this.
#[doc(hidden)]
pub fn check(name: &'static str, run: fn() -> Verdict) -> Check {
    let test = find(name);
    Check { name, needs: test.needs, run }
}

/// Judges a fixture by the test `name`.
///
/// # Errors
/// Those of [`DurabilityTest::judge`].
///
/// # Panics
/// When there is none: a mistake in the macro that calls this.
#[doc(hidden)]
pub fn judge(fixture: &dyn DurabilityFixture, name: &str) -> Verdict {
    find(name).judge(fixture)
}

fn find(name: &str) -> DurabilityTest {
    tests().find(|test| test.name == name).expect("the suite has this test")
}
