//! The images of an archive or a layout, as a load would take them.

use std::collections::{BTreeSet, HashSet};

use super::LoadOptions;
use crate::backend::Opened;
use crate::beside::is_beside;
use crate::manifest::{Document, RawManifest, is_document, limits};
use crate::registry::PushSession;
use crate::{BlobRange, Descriptor, Error, Platform, Reference, Result, select};

/// An image of an archive or a layout.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListedImage {
    /// Its name there, or its digest.
    pub reference: Reference,
    /// What it is: an index or a manifest.
    pub descriptor: Descriptor,
    /// The platforms for which there is a manifest, sorted; none for an artifact.
    pub platforms: Vec<String>,
    /// Bytes of all that it leads to, as far as the documents are there, each digest once.
    pub size: u64,
    /// Bytes of the layers and configs among them that are not there: a delta archive leaves out what the receiver has.
    pub missing: u64,
}

/// The images of an opened archive or layout, or the one that was chosen. Layers are not read.
///
/// # Errors
/// As [`Opened::images`], and those of its documents; [`NotFound`](crate::ErrorKind::NotFound) when there is no image.
pub async fn list_images(from: &Opened) -> Result<Vec<ListedImage>> {
    let names = super::wanted(from, &LoadOptions::default()).await?;
    if names.is_empty() {
        return Err(from.nameless());
    }
    let is_delta = !from.registry.bases().await?.is_empty();
    let mut listed = Vec::with_capacity(names.len());
    for name in names {
        listed.extend(image(from, &name, is_delta).await.map_err(|e| e.with_image(&name))?);
    }
    Ok(listed)
}

/// `None` for what comes with an image.
async fn image(from: &Opened, name: &Reference, is_delta: bool) -> Result<Option<ListedImage>> {
    let top = select::raw(&from.registry, name).await?;
    if from.reference.is_none() && is_beside(&*from.registry, name, &top).await? {
        return Ok(None);
    }
    let descriptor = top.descriptor().clone();
    let (mut platforms, mut known) = (BTreeSet::new(), HashSet::new());
    let (mut size, mut missing) = (descriptor.size(), 0_u64);
    known.insert(descriptor.digest().clone());
    let mut left = vec![(top, None::<Platform>, limits::NESTING)];
    while let Some((raw, platform, depth)) = left.pop() {
        if matches!(raw.document(), Document::Manifest(_)) {
            platforms.extend(platform_of(from, name, &raw, platform).await?);
        }
        for blob in raw.references() {
            if !known.insert(blob.digest().clone()) {
                continue;
            }
            if known.len() > PushSession::LIMIT {
                let message = format!("the image has more than {} blobs and manifests", PushSession::LIMIT);
                return Err(Error::limit(message));
            }
            if !is_document(blob.media_type()) {
                size = size.saturating_add(blob.size());
                // Opened, and not read.
                if is_delta && Error::found(from.registry.blob(name, &blob, BlobRange::FULL).await)?.is_none()
                {
                    missing = missing.saturating_add(blob.size());
                }
            } else if depth > 0
                && let Some(child) = Error::found(select::child(&from.registry, name, &blob).await)?
            {
                size = size.saturating_add(blob.size());
                left.push((child, blob.platform().as_ref().map(Platform::from), depth - 1));
            }
        }
    }
    let platforms = platforms.into_iter().collect();
    Ok(Some(ListedImage { reference: name.clone(), descriptor, platforms, size, missing }))
}

/// What an image is for, by the index that lists it or by its config; `None` for artifacts and attestations.
async fn platform_of(
    from: &Opened,
    name: &Reference,
    raw: &RawManifest,
    listed: Option<Platform>,
) -> Result<Option<String>> {
    if let Some(platform) = listed {
        return Ok(Some(platform)
            .filter(|platform| !platform.is_unknown())
            .map(|platform| platform.to_string()));
    }
    // A config that is missing or no config is the matter of a load.
    let config = select::read_config(&from.registry, name, raw.image()?).await.ok();
    Ok(config.map(|config| config.platform_or(raw.platform()).to_string()))
}
