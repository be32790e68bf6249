//! A snapshot as an OCI artifact (image-spec, manifest.md, "Guidelines for Artifact Usage").

use oci_spec::image::ImageManifest;
use serde_json::json;

use super::document::{MEDIA_TYPE, Snapshot};
use super::fault::{SnapshotFault, invalid};
use crate::digest::{Hasher, sha256};
use crate::manifest::{RawManifest, canonical_json, limits};
use crate::{Descriptor, MediaType, Mismatch, Result, Size};

/// The media type of a file of a snapshot.
const FILE: &str = "application/vnd.plyfold.snapshot.file.v1";
/// The media type of a delta of a snapshot.
const DELTA: &str = "application/vnd.plyfold.snapshot.delta.v1";
/// Where tools such as oras find a file's name.
const TITLE: &str = "org.opencontainers.image.title";
/// Annotations for the image that something is based on (annotations.md).
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Whether a manifest is that of a snapshot.
pub fn is_snapshot(manifest: &ImageManifest) -> bool {
    let named = manifest.artifact_type().as_ref().unwrap_or(manifest.config().media_type());
    named.as_ref() == MEDIA_TYPE
}

impl Snapshot {
    /// The manifest of the snapshot as an artifact, whose config is [the document](Self::to_json), and whose layers are
    /// the files in their order. The same snapshot has the same manifest.
    ///
    /// With `attached` the image is its subject: registries list it as a referrer of the image, which is kept and
    /// copied with the image.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) when it would be longer than registries take.
    pub fn manifest(&self, attached: bool) -> Result<RawManifest> {
        let document = self.to_json();
        let layer = |file: &super::SnapshotFile| {
            let (digest, size) = file.stored();
            let media_type = if file.file.writable { DELTA } else { FILE };
            let name = file.file.stored_name();
            json!({ "mediaType": media_type, "digest": digest, "size": size, "annotations": { TITLE: name } })
        };
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "artifactType": MEDIA_TYPE,
            "config": { "mediaType": MEDIA_TYPE, "digest": sha256(&document), "size": document.len() },
            "layers": self.files.iter().map(layer).collect::<Vec<_>>(),
            "annotations": { BASE_NAME: self.image.reference, BASE_DIGEST: self.image.digest },
        });
        if attached {
            let image = &self.image;
            manifest["subject"] =
                json!({ "mediaType": image.media_type, "digest": image.digest, "size": image.size });
        }
        RawManifest::new(canonical_json(&manifest), Some(&MediaType::ImageManifest))
    }

    /// The descriptor of the document that the manifest of a snapshot names.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for the manifest of something else,
    /// [`Limit`](crate::ErrorKind::Limit) for a document that is too long.
    pub fn document_of(manifest: &RawManifest) -> Result<Descriptor> {
        let image = manifest.image()?;
        let config = image.config();
        if !is_snapshot(image) || config.media_type().as_ref() != MEDIA_TYPE {
            let other = image.artifact_type().as_ref().filter(|other| other.as_ref() != MEDIA_TYPE);
            let other = other.unwrap_or(config.media_type());
            return Err(SnapshotFault::Foreign(other.to_string()).into());
        }
        if config.size() > limits::CONFIG {
            let sizes = Size(config.size()).beyond(Size(limits::CONFIG));
            return Err(SnapshotFault::Long(format!("the document of the snapshot declares {sizes}")).into());
        }
        Ok(config.clone())
    }

    /// The snapshot of a manifest and of the document that it names: both say the same.
    ///
    /// # Errors
    /// As [`Snapshot::document_of`] and [`Snapshot::parse`]; [`Corrupt`](crate::ErrorKind::Corrupt) when the document is
    /// another one, or the manifest has other layers than the document files.
    pub fn of_manifest(manifest: &RawManifest, document: &[u8]) -> Result<Self> {
        let config = Self::document_of(manifest)?;
        let mut hasher = Hasher::like(config.digest())?;
        hasher.update(document);
        let digest = hasher.finish();
        if config.digest() != &digest {
            return Err(Mismatch::of(&config, Some(digest), document.len() as u64).into());
        }
        let snapshot = Self::parse(document)?;
        let layers = manifest.image()?.layers().iter().map(|layer| (layer.digest(), layer.size()));
        if !layers.eq(snapshot.files.iter().map(super::SnapshotFile::stored)) {
            return Err(invalid("the layers of its manifest are not the files of its document"));
        }
        Ok(snapshot)
    }
}
