//! The suite's own tests: the samples are what they were, the server is honest until told otherwise.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../shared/broken_store.rs"]
mod broken_store;
mod catalogue;
mod memory;
mod mutants;
mod not_judged;
mod samples;
mod server;
mod tiered;
