//! The store in processes that die, on disks that refuse and through power cuts.

use std::path::Path;

use async_trait::async_trait;
use plyfold_conformance::durability::{DurabilityFixture, Role};
use plyfold_core::{CacheProvider, Result};
use plyfold_layout::Store;

pub(crate) struct Stores;

#[async_trait]
impl DurabilityFixture for Stores {
    async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>> {
        Ok(Box::new(Store::open(directory)?))
    }

    fn role(&self, path: &Path) -> Role {
        match path.extension() {
            _ if path == Path::new("locks/boot") => Role::Note,
            _ if path.starts_with("locks") => Role::Lock,
            _ if path.starts_with("ingest") => Role::Temporary,
            Some(checksum) if checksum == "checksum" => Role::Checksum(path.with_extension("")),
            _ => Role::Content,
        }
    }

    fn blocking_threads(&self) -> usize {
        1
    }
}
