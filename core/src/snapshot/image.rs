//! The image that disks are of.

use serde::{Deserialize, Serialize};

use super::fault::invalid;
use super::process::Process;
use crate::{Descriptor, Digest, Error, MediaType, Platform, Result, digest, reference};

/// Bytes of the name of an image and of a platform.
const TEXT_BYTES: usize = 1024;

/// An image that disks were made of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SnapshotImage {
    /// The name that it had.
    pub reference: String,
    /// The digest of its manifest, for one platform.
    pub digest: Digest,
    /// The media type of the manifest.
    pub media_type: MediaType,
    /// The bytes of the manifest.
    pub size: u64,
    /// The platform, as `os/arch[/variant]`.
    pub platform: String,
    /// What a machine with the disks runs; `None` where the image does not say it, as an artifact does not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<Process>,
}

impl SnapshotImage {
    /// An image by its name and the descriptor of its manifest for a platform.
    pub fn new(reference: impl Into<String>, manifest: &Descriptor, platform: &Platform) -> Self {
        Self {
            reference: reference.into(),
            digest: manifest.digest().clone(),
            media_type: manifest.media_type().clone(),
            size: manifest.size(),
            platform: platform.to_string(),
            process: None,
        }
    }

    /// The same with what a machine with the disks runs.
    #[must_use]
    pub fn with_process(mut self, process: Option<Process>) -> Self {
        self.process = process;
        self
    }

    /// Checks what is said of the image.
    pub(super) fn check(&self) -> Result<()> {
        digest::supported(&self.digest)?;
        let is_text =
            |text: &str| !text.is_empty() && text.len() <= TEXT_BYTES && !text.contains(char::is_control);
        if !is_text(&self.reference) || !is_text(self.media_type.as_ref()) || !is_text(&self.platform) {
            return Err(invalid(
                "the name, the type or the platform of the image is empty, too long or not text",
            ));
        }
        reference::parse(&self.reference).map_err(|e: Error| invalid(e.message()))?;
        check_size(self.size)
    }
}

/// Checks a size that a file can have.
pub(super) fn check_size(bytes: u64) -> Result<()> {
    match i64::try_from(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid(format!("{bytes} is not the size of a file"))),
    }
}
