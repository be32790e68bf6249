//! The conformance suite of plyfold backends and materializers: rules that third parties run on their own.
//!
//! A backend's whole test file is one macro call with a fixture, which makes a `#[test]` of every rule:
//!
//! ```no_run
//! plyfold_conformance::registry_suite!(plyfold_conformance::fixtures::Memory);
//! ```
//!
//! - [`samples`]: deterministic images, from the usual to the odd.
//! - [`server`]: a loopback registry with scripted faults.
//! - [`fixtures`]: media with samples in them, for backends that read such media.
//! - [`oracle`]: the tools and kernels of others as judges, in tests that say what they need.
//! - [`durability`]: what crashes, full disks and power cuts leave of caches that are OCI layout directories.
//! - [`rules`]: the catalogue. Rules about what a backend lacks are not skipped: they check that it says so. Where a
//!   fixture gives a rule nothing to judge, the test says *not judged*, and the fixture has to list the rule
//!   ([`Fixture::not_judged`]): no rule passes without a look.

pub mod durability;
pub mod fixtures;
pub mod hostile;
pub mod oracle;
pub mod rules;
pub mod samples;
pub mod server;
pub mod tree;

mod child;
mod fixture;
mod http;
mod judged;
mod macros;
mod rule;
mod suite;

pub use child::is_child;
pub use fixture::{
    ArchiveFixture, BackendUnderTest, CacheFixture, CacheMedium, CacheUnderTest, Client, Condition,
    CoreClient, DiskFixture, Fidelity, Fixture, FixtureImage, FormatFidelity, LayoutFixture,
    MaterializerFixture, ReadBack, RetryAfter, path_of,
};
pub use http::{HttpFixture, HttpSetup, Mirror};
pub use rule::{JudgedFixture, Rule, Verdict};
