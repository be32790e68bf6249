//! Images that are made of layers alone.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{ConfigChange, Edit, Edited, NewLayer, edited};
use crate::manifest::{RawConfig, RawManifest, canonical_json};
use crate::{Descriptor, MediaType, Platform, Result, digest};

/// An image of layers that others have packed, such as the tar of a root file system: an OCI manifest and its configuration.
/// No clock is read: the same layers, platform and configuration are the same image.
#[derive(Clone, Debug)]
pub struct NewImage {
    manifest: RawManifest,
    config: (Descriptor, Bytes),
}

impl NewImage {
    /// Of layers, the lowest first, and what is set of the configuration.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) with an [`EditFault`](super::EditFault) for what cannot be set.
    pub fn of(platform: &Platform, layers: Vec<NewLayer>, config: &ConfigChange) -> Result<Self> {
        let mut document = json!({
            "architecture": platform.architecture(),
            "os": platform.os(),
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        if let Some(variant) = platform.variant() {
            document["variant"] = json!(variant);
        }
        let none = Bytes::from(canonical_json(&document));
        let raw = RawManifest::new(canonical_json(&manifest_of(&none)), None)?;
        let none = RawConfig::new(raw.image()?, none)?;
        let is_empty = layers.is_empty() && config.is_empty();
        let edit = Edit { layers, config: config.clone(), ..Edit::default() };
        if is_empty {
            return Ok(Self { config: (none.descriptor().clone(), none.bytes().clone()), manifest: raw });
        }
        let Edited { config, manifest, .. } = edited(&raw, &none, &edit)?;
        Ok(Self { manifest, config })
    }

    /// The manifest.
    pub fn manifest(&self) -> &RawManifest {
        &self.manifest
    }

    /// The configuration, as it stands in the manifest, and its bytes.
    pub fn config(&self) -> (&Descriptor, &Bytes) {
        (&self.config.0, &self.config.1)
    }
}

/// A manifest without layers.
fn manifest_of(config: &Bytes) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest,
        "config": { "mediaType": MediaType::ImageConfig, "digest": digest::sha256(config), "size": config.len() },
        "layers": [],
    })
}
