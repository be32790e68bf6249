//! The conformance suite on buckets, and what only many machines can get wrong.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

mod dying;
mod entries;
mod folder;
mod medium;
mod memory;
mod mutants;
mod objects;
mod wrapped;
