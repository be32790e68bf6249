//! The conformance suite on buckets, and what only many machines can get wrong.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

mod backpressure;
mod clocks;
mod content;
mod corrupt;
mod dying;
mod entries;
mod folder;
mod foreign;
mod front;
mod many;
mod medium;
mod memory;
mod mutants;
mod network;
mod nodes;
mod objects;
mod processes;
mod ranges;
mod refused;
mod wrapped;
