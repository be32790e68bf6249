//! Where attestations are.

use std::collections::HashSet;
use std::sync::Arc;

use oci_spec::image::ImageManifest;

use super::fault::{AttestationFault, limits};
use super::one::{Attestation, AttestationOrigin};
use super::statement::{is_content, long, type_of};

use crate::copy::subset::{annotation, subject};
use crate::manifest::{Document, RawManifest, is_document};
use crate::platform::is_attestation;
use crate::source::{ImageSource, ImageSourceExt as _};
use crate::{Descriptor, Digest, Result, Size, reference, referrers};

/// On the layers of an attestation: the type of the predicate (`BuildKit`, `docs/attestations/attestation-storage.md`).
const OF_LAYER: [&str; 2] = ["in-toto.io/predicate-type", "predicateType"];
/// The same on a manifest around sigstore's bundle, beside the kind of what the bundle holds.
const OF_BUNDLE: &str = "dev.sigstore.bundle.predicateType";
const BUNDLE_CONTENT: &str = "dev.sigstore.bundle.content";
const ENVELOPE: &str = "dsse-envelope";
/// Types of artifacts that are signatures of the image itself: of Notation, and of cosign as a referrer and as a layer.
const SIGNATURES: [&str; 3] = [
    "application/vnd.cncf.notary.signature",
    "application/vnd.dev.cosign.artifact.sig.v1+json",
    "application/vnd.dev.cosign.simplesigning.v1+json",
];

/// All that attests to an image.
pub(super) async fn all(source: &dyn ImageSource) -> Result<Vec<Attestation>> {
    let mut found = Found {
        source: Arc::from(dyn_clone::clone_box(source)),
        manifests: HashSet::new(),
        contents: HashSet::new(),
        size: 0,
        list: vec![],
    };
    let image = source.descriptor().digest();
    for raw in source.indexes() {
        let Document::Index(index) = raw.document() else { continue };
        let children = index.manifests().iter();
        for child in children.filter(|child| is_attestation(child) && subject(child).as_ref() == Some(image))
        {
            found.read(child, AttestationOrigin::Index, image).await?;
        }
    }
    let outer = source.indexes().iter().rev().map(RawManifest::digest);
    for subject in std::iter::once(image).chain(outer) {
        for referrer in source.referring(subject).await? {
            if is_document(referrer.media_type()) && may_attest(&referrer) {
                found.read(&referrer, AttestationOrigin::Referrer, subject).await?;
            }
        }
        for tag in reference::cosign_tags(subject).filter(|tag| tag.rsplit('.').next() != Some("sig")) {
            if let Some(raw) = source.of_tag(&tag).await? {
                found.take(&raw, AttestationOrigin::CosignTag, subject)?;
            }
        }
    }
    Ok(found.list)
}

/// What was found so far.
struct Found {
    source: Arc<dyn ImageSource>,
    /// Manifests that were looked at.
    manifests: HashSet<Digest>,
    /// What is in the list.
    contents: HashSet<Digest>,
    /// Bytes of the manifests.
    size: usize,
    list: Vec<Attestation>,
}

impl Found {
    async fn read(&mut self, manifest: &Descriptor, origin: AttestationOrigin, of: &Digest) -> Result<()> {
        if self.manifests.contains(manifest.digest()) {
            return Ok(());
        }
        let raw = self.source.document(manifest).await?;
        if origin == AttestationOrigin::Referrer {
            referrers::check_subject(&raw, of)?;
        }
        self.take(&raw, origin, of)
    }

    /// Takes what attests to something of what a manifest holds.
    fn take(&mut self, raw: &RawManifest, origin: AttestationOrigin, of: &Digest) -> Result<()> {
        if !self.manifests.insert(raw.digest().clone()) {
            return Ok(());
        }
        self.size += raw.bytes().len();
        if self.manifests.len() > limits::MANIFESTS || self.size > limits::DOCUMENTS {
            let size = Size(limits::DOCUMENTS as u64);
            let text = format!("more than {} manifests, or {size} of them, refer to {of}", limits::MANIFESTS);
            return Err(AttestationFault::Many(text).into());
        }
        let Document::Manifest(manifest) = raw.document() else { return Ok(()) };
        for layer in manifest.layers() {
            let Some((media_type, predicate_type)) = attested(manifest, layer) else { continue };
            let types = [Some(media_type), predicate_type, Some(raw.descriptor().media_type().as_ref())];
            if types.into_iter().flatten().any(|name| name.len() > limits::TYPE) {
                return Err(long());
            }
            if self.contents.insert(layer.digest().clone()) {
                if self.list.len() == limits::ATTESTATIONS {
                    let text = format!("more than {} attestations refer to {of}", limits::ATTESTATIONS);
                    return Err(AttestationFault::Many(text).into());
                }
                self.list.push(Attestation {
                    manifest: raw.descriptor().clone(),
                    content: Descriptor::new(media_type.into(), layer.size(), layer.digest().clone()),
                    predicate_type: predicate_type.map(str::to_owned),
                    origin,
                    subject: of.clone(),
                    source: Arc::clone(&self.source),
                });
            }
        }
        Ok(())
    }
}

/// Whether a referrer may have what attests to something, as far as the list says it: what it says is no promise, and many
/// artifacts have a type of their own around an SBOM.
fn may_attest(referrer: &Descriptor) -> bool {
    let is_signature =
        referrer.artifact_type().as_ref().is_some_and(|name| SIGNATURES.contains(&name.as_ref()));
    !is_signature && annotation(referrer, BUNDLE_CONTENT).is_none_or(|content| content == ENVELOPE)
}

/// The type of a layer that attests to something, and the type of its predicate where that is known.
fn attested<'a>(manifest: &'a ImageManifest, layer: &'a Descriptor) -> Option<(&'a str, Option<&'a str>)> {
    let own = |key: &str| manifest.annotations().as_ref()?.get(key).map(String::as_str);
    if own(BUNDLE_CONTENT).is_some_and(|content| content != ENVELOPE) {
        return None;
    }
    // Tools that attach files give these the type of a layer, and their own to the artifact.
    let artifact = manifest.artifact_type().as_ref().map(AsRef::as_ref);
    let types = std::iter::once(layer.media_type().as_ref()).chain(artifact);
    let media_type = types.into_iter().find(|name| is_content(name))?;
    let said = OF_LAYER.iter().find_map(|key| annotation(layer, key).or_else(|| own(key)));
    let said = said.or_else(|| own(OF_BUNDLE)).or_else(|| type_of(media_type));
    Some((media_type, said))
}
