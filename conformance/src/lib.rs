//! The conformance suite of plyfold backends and materializers: rules that third parties run on their own.
//!
//! A backend's whole test file is one macro call with a stage, which makes a `#[test]` of every rule:
//!
//! ```no_run
//! plyfold_conformance::registry_suite!(plyfold_conformance::stages::Memory);
//! ```
//!
//! - [`samples`]: deterministic images, from the usual to the odd.
//! - [`server`]: a loopback registry with scripted faults.
//! - [`stages`]: media with samples in them, for backends that read such media.
//! - [`oracle`]: the tools and kernels of others as judges, in tests that say what they need.
//! - [`durability`]: what crashes, full disks and power cuts leave of caches that are OCI layout directories.
//! - [`rules`]: the catalogue. Rules about what a backend lacks are not skipped: they check that it says so. Where a
//!   stage gives a rule nothing to judge, the test says *not judged*, and the stage has to list the rule
//!   ([`Stage::not_judged`]): no rule passes without a look.

pub mod durability;
pub mod hostile;
pub mod oracle;
pub mod rules;
pub mod samples;
pub mod server;
pub mod stages;
pub mod tree;

mod http;
mod judged;
mod macros;
mod rule;
mod stage;
mod suite;

pub use http::{HttpSetup, HttpStage, Mirror};
pub use rule::{JudgedStage, Rule, Verdict};
pub use stage::{
    CacheMedium, CacheStage, CacheSubject, Client, Condition, CoreClient, Fidelity, FormatFidelity,
    LayoutStage, MaterializerStage, RetryAfter, Stage, Staged, Subject, path_of,
};
