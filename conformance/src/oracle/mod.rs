//! External oracles: the tools and kernels of others, as judges of what plyfold writes.
//!
//! A test that needs one cannot be an ordinary `#[test]`, which can only pass or fail: without the tool it has
//! done neither. Such tests stand in a binary of their own, `tests/oracles/main.rs` with `harness = false`, and
//! say what they need:
//!
//! ```no_run
//! use plyfold_conformance::oracle::{Need, Run, Verdict};
//!
//! plyfold_conformance::oracle_tests! {
//!     fsck_is_clean needs [Need::E2FSCK];
//! }
//!
//! fn fsck_is_clean() -> Verdict {
//!     let disk = tempfile::NamedTempFile::new()?;
//!     // … write a file system into it …
//!     Run::new("e2fsck").arg("-fn").arg(disk.path()).success()?;
//!     Ok(())
//! }
//! ```
//!
//! `cargo test` and `cargo nextest` then report a test whose need is not met as *ignored*, with the reason in its
//! name: `[e2fsck is missing: install e2fsprogs] fsck_is_clean`. With `PLYFOLD_ORACLES=require` in the environment
//! it fails instead; `.ci/run` sets that. A test that runs a program which its needs do not declare fails everywhere.
//!
//! The rest of the module is what such tests have in common: [`Run`] a command with a time limit, a [`Mount`] or
//! [`LoopDevice`] that goes away when it is dropped, a [`Guest`] that boots, and the first [`Difference`] of two directory trees.

mod difference;
mod guest;
mod mount;
mod need;
mod probe;
mod run;
mod suite;
pub(crate) mod tree;
mod verdict;

pub use difference::{Aspect, Difference, difference};
pub use guest::Guest;
pub use mount::{LoopDevice, Mount, PowerDisk};
pub use need::{Need, debian_root};
pub use run::{Captured, Run};
pub use suite::run;
pub use tree::xattrs;
pub use verdict::{Check, Failure, Verdict};
