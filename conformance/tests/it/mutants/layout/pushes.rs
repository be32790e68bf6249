//! Mutants of pushes into a layout directory.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold_core::layout_index::LayoutIndex;
use plyfold_core::{
    Blob, BlobRange, Capabilities, Descriptor, Digest, ErrorKind, ImageRegistry, Lease, MediaType, Names,
    Page, RawManifest, Reference, Result, reference,
};
use plyfold_layout::Layout;

use super::{LayoutFault, foreign};

/// The layout with a fault of its pushes, or as it is.
pub(super) fn broken(fault: LayoutFault, directory: &Path, inner: Layout) -> Box<dyn ImageRegistry> {
    match fault {
        LayoutFault::DeletesLeased | LayoutFault::NamesUnchecked | LayoutFault::PushesUnleased => {
            Box::new(BrokenPushes { inner, fault, directory: directory.to_owned() })
        }
        _ => Box::new(inner),
    }
}

#[derive(Clone, Debug)]
struct BrokenPushes {
    inner: Layout,
    fault: LayoutFault,
    directory: PathBuf,
}

#[async_trait]
impl ImageRegistry for BrokenPushes {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        self.inner.manifest(name).await
    }

    async fn blob(&self, name: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.inner.blob(name, blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        self.inner.tags(repository, page).await
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        self.inner.referrers(name, subject, artifact_type).await
    }

    async fn push_blob(&self, name: &Reference, blob: Blob) -> Result<()> {
        self.inner.push_blob(name, blob).await
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor) -> Result<bool> {
        self.inner.has_blob(name, blob).await
    }

    async fn mount_blob(&self, name: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool> {
        self.inner.mount_blob(name, blob, from).await
    }

    async fn push_manifest(&self, name: &Reference, manifest: &RawManifest) -> Result<()> {
        match self.inner.push_manifest(name, manifest).await {
            Err(e) if self.fault == LayoutFault::NamesUnchecked && *e.kind() == ErrorKind::NotFound => {
                self.inner.push_manifest(&reference::by_digest(name, manifest.digest()), manifest).await?;
                let path = self.directory.join("index.json");
                let mut index = LayoutIndex::parse(&fs::read(&path).unwrap(), &self.directory)?;
                index.set(name, manifest.descriptor(), false);
                fs::write(path, index.to_bytes()).unwrap();
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        if self.fault == LayoutFault::PushesUnleased {
            return Ok(Lease::none());
        }
        self.inner.lease(content).await
    }

    async fn delete(&self, name: &Reference) -> Result<()> {
        let outcome = self.inner.delete(name).await;
        if let (LayoutFault::DeletesLeased, Some(digest)) = (self.fault, reference::digest_of(name)?) {
            let _ = fs::remove_file(foreign::blob_path(&self.directory, &digest));
            return Ok(());
        }
        outcome
    }
}

impl fmt::Display for BrokenPushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant {:?}", self.fault)
    }
}
