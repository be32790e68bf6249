//! The conformance suite of plyfold backends and materializers: rules that third parties run on their own.

pub mod samples;
pub mod server;
