//! The store: a layout that keeps what has been pulled.

mod artifact;
mod boot;
mod checksum;
mod collect;
mod delete;
mod handle;
mod holdings;
mod index;
mod ingest;
mod items;
mod lease;
mod marker;
mod paths;
mod provider;
mod quarantine;
mod queue;
mod reading;
mod remains;
mod sidecar;
mod verify;
mod xxh3;

pub use handle::Store;
