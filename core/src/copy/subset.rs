//! What of an index is for some platforms.

use std::collections::HashSet;

use crate::manifest::{Document, RawManifest};
use crate::registry::ImageRegistry;
use crate::{Descriptor, Digest, Platform, Reference, Result, select};

/// On the descriptor of an attestation that `BuildKit` puts beside an image: the digest of that image.
pub(crate) const SUBJECT: &str = "vnd.docker.reference.digest";

/// The image for each of these platforms that `root` leads to, the indexes on the way, and their attestations of all
/// that.
pub(crate) async fn chosen(
    from: &dyn ImageRegistry,
    image: &Reference,
    root: &RawManifest,
    platforms: &[Platform],
) -> Result<HashSet<Digest>> {
    let (mut chosen, mut indexes) = (HashSet::new(), Vec::new());
    for platform in platforms {
        let found = select::find_in(from, image, root.clone(), platform).await?;
        chosen.insert(found.raw.digest().clone());
        let fresh = found.indexes.into_iter().filter(|index| chosen.insert(index.digest().clone()));
        indexes.extend(fresh.collect::<Vec<_>>());
    }
    let children = indexes.iter().filter_map(|raw| match raw.document() {
        Document::Index(index) => Some(index.manifests()),
        Document::Manifest(_) => None,
    });
    let attestations: Vec<(&Digest, Digest)> =
        children.flatten().filter_map(|child| Some((child.digest(), subject(child)?))).collect();
    loop {
        let before = chosen.len();
        for (attestation, subject) in &attestations {
            if chosen.contains(subject) {
                chosen.insert((*attestation).clone());
            }
        }
        if chosen.len() == before {
            return Ok(chosen);
        }
    }
}

/// The image that an attestation beside it is about.
fn subject(child: &Descriptor) -> Option<Digest> {
    annotation(child, SUBJECT)?.parse().ok()
}

pub(crate) fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}
