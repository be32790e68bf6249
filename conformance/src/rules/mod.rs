//! The catalogue: every rule with its text and its check.
//!
//! Groups: R pulls from registries, S image sources, X equivalence of backends, E error kinds, C caches,
//! K concurrency and D damage in caches, M materializers. The rules of [`durability`](crate::durability) are in group D;
//! hostile inputs have names and no numbers.
//!
#![doc = include_str!("catalogue.md")]
#![expect(clippy::doc_markdown, reason = "the table has the texts of the rules as they are")]

mod archives;
mod attestations;
mod cache;
mod cut;
mod disk;
mod endpoints;
mod equivalence;
mod errors;
mod layout;
mod listing;
mod materializer;
mod origin;
mod probe;
mod pull;
mod pushes;
mod secrets;
mod source;
mod tars;
mod transfers;

use crate::{
    ArchiveFixture, CacheFixture, DiskFixture, Fixture, HttpFixture, LayoutFixture, MaterializerFixture, Rule,
};

/// The rules about image registries, in the order of the catalogue.
pub fn registry() -> impl Iterator<Item = Rule<dyn Fixture>> {
    [
        pull::RULES,
        source::RULES,
        tars::RULES,
        attestations::RULES,
        equivalence::RULES,
        errors::RULES,
        pushes::RULES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The rules about archives, in the order of the catalogue.
pub fn archive() -> impl Iterator<Item = Rule<dyn ArchiveFixture>> {
    archives::RULES.iter().copied()
}

/// The rules about caches, subject by subject.
pub fn cache() -> impl Iterator<Item = Rule<dyn CacheFixture>> {
    cache::RULES.iter().copied().flatten().copied()
}

/// The rules about caches that are OCI layout directories, in the order of the catalogue.
pub fn layout() -> impl Iterator<Item = Rule<dyn LayoutFixture>> {
    layout::RULES.iter().copied()
}

/// The rules about materializers, in the order of the catalogue.
pub fn materializer() -> impl Iterator<Item = Rule<dyn MaterializerFixture>> {
    materializer::RULES.iter().copied()
}

/// The rules about materializers of disks of one kind, in the order of the catalogue.
pub fn disk() -> impl Iterator<Item = Rule<dyn DiskFixture>> {
    disk::RULES.iter().copied()
}

/// The rules about registries that are reached over HTTP, in the order of the catalogue.
pub fn http() -> impl Iterator<Item = Rule<dyn HttpFixture>> {
    [transfers::RULES, endpoints::RULES, secrets::RULES, listing::RULES].into_iter().flatten().copied()
}

/// What the rules about HTTP use for secrets: a test can look for them in its logs.
pub const SECRETS: [&str; 3] = [origin::PASSWORD, origin::LOGIN, secrets::SIGNATURE];
