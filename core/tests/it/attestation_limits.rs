//! How many attestations are found, and what is not fetched for them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use plyfold_core::attestation::limits;
use plyfold_core::manifest::limits::LAYERS;
use plyfold_core::{
    AttestationFault, Blob, BlobRange, Descriptor, Digest, ErrorKind, ImageAttestations, ImageSource,
    MediaType, RawManifest, RegistrySource, Result,
};
use serde_json::json;

use crate::attestations::{IN_TOTO, Place, SPDX, statement};
use crate::fixture::{descriptor, name, put_document};

/// Referrers of these attestations, as many in each as a manifest may have.
fn put_many(place: &Place, numbers: Range<usize>) {
    let layers: Vec<_> = numbers.map(|number| descriptor(IN_TOTO, number.to_string().as_bytes())).collect();
    for layers in layers.chunks(LAYERS) {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(), "subject": place.image,
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"), "layers": layers,
        });
        put_document(&place.registry, &name("r.example/app:many"), MediaType::ImageManifest, &manifest);
    }
}

#[tokio::test]
async fn many_attestations_share_one_source_and_too_many_are_refused() {
    let place = Place::new().with_size().await;
    put_many(&place, 0..limits::ATTESTATIONS);
    let copies = Arc::default();
    let source = Copied { of: place.source().await, copies: Arc::clone(&copies) };
    let found = source.attestations().await.unwrap();
    assert_eq!(found.len(), limits::ATTESTATIONS);
    assert_eq!(copies.load(Ordering::Relaxed), 1, "copies of the source");
    put_many(&place, limits::ATTESTATIONS..limits::ATTESTATIONS + 1);
    let error = place.source().await.attestations().await.unwrap_err();
    assert!(matches!(error.detail(), Some(AttestationFault::Many(_))), "{error:?}");
    assert_eq!(*error.kind(), ErrorKind::Limit, "{error}");
}

#[tokio::test]
async fn names_of_types_are_bounded() {
    let long = "x".repeat(limits::TYPE + 1);
    let of_manifest = json!({ "annotations": { "predicateType": long } });
    let of_content = statement(&Place::new().digest, &long, "{}");
    for (fields, content) in [(of_manifest, "{}"), (json!({}), of_content.as_str())] {
        let place = Place::new().with_size().await;
        let mut all = json!({ "artifactType": IN_TOTO, "subject": place.image });
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        place.put("r.example/app:long", IN_TOTO, content, &all);
        let error = place.source().await.sboms().await.unwrap_err();
        assert!(matches!(error.detail(), Some(AttestationFault::Many(_))), "{error:?}");
    }
}

#[tokio::test]
async fn signatures_are_not_fetched_and_do_not_count() {
    let place = Place::new().with_size().await;
    let types = [
        "application/vnd.cncf.notary.signature",
        "application/vnd.dev.cosign.artifact.sig.v1+json",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
    ];
    for number in 0..=limits::MANIFESTS {
        let kind = types[number % types.len()];
        let mut fields = json!({ "artifactType": kind, "subject": place.image });
        if number % types.len() == 2 {
            fields["annotations"] = json!({ "dev.sigstore.bundle.content": "message-signature" });
        }
        let content = format!("{{\"number\":{number}}}");
        place.put(&format!("r.example/app:s{number}"), kind, &content, &fields);
    }
    // Tools give artifacts types of their own.
    let own = json!({ "artifactType": "sbom/example", "subject": place.image });
    place.put("r.example/app:own", "application/spdx+json", SPDX, &own);
    let found = place.source().await.sboms().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].predicate().await.unwrap(), SPDX);
}

/// A source that counts how often it is copied.
#[derive(Debug)]
struct Copied {
    of: RegistrySource,
    copies: Arc<AtomicUsize>,
}

impl Clone for Copied {
    fn clone(&self) -> Self {
        self.copies.fetch_add(1, Ordering::Relaxed);
        Self { of: self.of.clone(), copies: Arc::clone(&self.copies) }
    }
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.of.fmt(f)
    }
}

#[async_trait]
impl ImageSource for Copied {
    fn raw(&self) -> &RawManifest {
        self.of.raw()
    }

    async fn blob(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.of.blob(blob, range).await
    }

    async fn referring(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.of.referring(subject).await
    }

    async fn document(&self, document: &Descriptor) -> Result<RawManifest> {
        self.of.document(document).await
    }
}
