//! Pushes: what is leased, and when a name is set.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, Capabilities, Descriptor, Digest, ErrorKind, ImageRegistry, Lease, MediaType,
    PushSession, RawManifest, Reference, Result, digest,
};

use super::fixture::name;

/// A registry that sees to it that what is pushed is leased, and counts the leases.
#[derive(Clone, Debug)]
struct Leasing {
    inner: MemoryRegistry,
    leases: Arc<Mutex<Leases>>,
}

#[derive(Debug, Default)]
struct Leases {
    open: Vec<Arc<Vec<Digest>>>,
    /// The most that were open at once, and digests of all of them together.
    most: usize,
    written: usize,
}

impl Leasing {
    fn new() -> Self {
        Self { inner: MemoryRegistry::new("leasing"), leases: Arc::default() }
    }

    fn leased(&self) -> HashSet<Digest> {
        let leases = self.leases.lock().unwrap();
        // One more holder than this list: the lease itself.
        let open = leases.open.iter().filter(|lease| Arc::strong_count(lease) > 1);
        open.flat_map(|lease| lease.iter().cloned()).collect()
    }

    fn assert_leased(&self, digest: &Digest) {
        assert!(self.leased().contains(digest), "{digest} is not leased");
    }
}

#[async_trait]
impl ImageRegistry for Leasing {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.inner.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.inner.blob(reference, blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn has_blob(&self, _: &Reference, blob: &Descriptor) -> Result<bool> {
        self.assert_leased(blob.digest());
        Ok(false)
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        self.assert_leased(blob.descriptor().digest());
        self.inner.push_blob(reference, blob).await
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        self.assert_leased(manifest.digest());
        for blob in manifest.requirements() {
            self.assert_leased(blob.digest());
        }
        self.inner.push_manifest(reference, manifest).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        let lease = Arc::new(content.to_vec());
        let mut leases = self.leases.lock().unwrap();
        leases.open.retain(|lease| Arc::strong_count(lease) > 1);
        leases.open.push(lease.clone());
        leases.most = leases.most.max(leases.open.len());
        leases.written += content.len();
        Ok(Lease::new(lease))
    }
}

impl fmt::Display for Leasing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

fn described(media_type: &str, content: &str) -> Descriptor {
    Descriptor::new(MediaType::from(media_type), content.len() as u64, digest::sha256(content.as_bytes()))
}

fn blob(descriptor: &Descriptor, content: &str) -> Blob {
    Blob::from_bytes(descriptor, BlobRange::FULL, &content.to_owned().into()).unwrap()
}

/// An artifact with these layers.
fn manifest(layers: &[Descriptor]) -> RawManifest {
    let json = |blob: &Descriptor| serde_json::to_string(blob).unwrap();
    let layers: Vec<_> = layers.iter().map(json).collect();
    let config = json(&described("application/x.test", "config"));
    let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","));
    RawManifest::new(text, None).unwrap()
}

#[tokio::test]
async fn what_is_pushed_is_leased_before_it_is_looked_for_by_few_leases() {
    const BLOBS: usize = 1000;
    let (registry, target) = (Leasing::new(), name("example.com/app:1"));
    let session = PushSession::begin(&registry, &target).unwrap();
    for number in 0..BLOBS {
        let content = number.to_string();
        let descriptor = described("application/x.test", &content);
        assert!(!session.has_blob(&descriptor).await.unwrap());
        session.put_blob(blob(&descriptor, &content)).await.unwrap();
    }
    let raw = manifest(&[described("application/x.test", "7"), described("application/x.test", "999")]);
    session.expect(&raw).await.unwrap();
    session.put_blob(blob(&described("application/x.test", "config"), "config")).await.unwrap();
    session.finish(&target, &raw).await.unwrap();
    assert_eq!(registry.leased().len(), BLOBS + 2, "everything stays until the end");
    let (most, written) = {
        let leases = registry.leases.lock().unwrap();
        (leases.most, leases.written)
    };
    assert!(most <= 12, "{most} leases at once, each an open file");
    assert!(written <= 12 * BLOBS, "{written} digests written");
    drop(session);
    assert_eq!(registry.leased().len(), 0);
}

#[tokio::test]
async fn a_name_is_set_after_all_that_it_needs() {
    let (registry, target) = (Leasing::new(), name("example.com/app:1"));
    let session = PushSession::begin(&registry, &target).unwrap();
    let layer = described("application/x.test", "layer");
    let elsewhere = described("application/vnd.oci.image.layer.nondistributable.v1.tar", "elsewhere");
    let raw = manifest(&[layer.clone(), elsewhere]);
    session.put_blob(blob(&described("application/x.test", "config"), "config")).await.unwrap();
    let error = session.finish(&target, &raw).await.unwrap_err();
    assert_eq!((error.kind(), error.context("blob")), (&ErrorKind::NotFound, Some(layer.digest().as_ref())));
    assert!(registry.manifest(&target).await.is_err());
    session.put_blob(blob(&layer, "layer")).await.unwrap();
    session.finish(&target, &raw).await.unwrap();
    assert_eq!(registry.manifest(&target).await.unwrap(), raw);
    // An index waits for its manifests.
    let index = |child: &Descriptor| {
        let child = serde_json::to_string(child).unwrap();
        RawManifest::new(format!(r#"{{"schemaVersion":2,"manifests":[{child}]}}"#), None).unwrap()
    };
    session.finish(&target, &index(raw.descriptor())).await.unwrap();
    let other = manifest(&[]);
    let early = session.finish(&target, &index(other.descriptor())).await;
    assert_eq!(*early.unwrap_err().kind(), ErrorKind::NotFound);
    session.put_manifest(&other).await.unwrap();
    session.finish(&target, &index(other.descriptor())).await.unwrap();
}
