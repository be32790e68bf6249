//! Integration tests of the core crate, over the backend and the cache in memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

mod attestation_limits;
mod attestations;
mod block_sums;
mod caches;
mod collect;
mod conversion;
mod copy;
mod corruption;
mod ended;
mod events;
mod features;
mod fixture;
mod forms;
mod go_documents;
mod in_hand;
mod index_walks;
mod layer;
mod layer_files;
mod listing;
mod load;
mod local_errors;
mod lookup;
mod lost;
mod materialize;
mod package;
mod parsers;
mod pull;
mod reference;
mod referrers;
mod runtime_spec;
mod seams;
mod session;
mod source;
mod tars;
mod tiered;
mod verbs;
