//! The members of an archive as `docker save` wrote it before version 25.

use std::collections::HashSet;

use serde_json::Value;

use super::docker_list::DockerList;
use super::gather::{Gathered, SaveImage};
use super::member::{Member, Members};
use super::options::{SaveFault, SaveOptions};
use crate::layout_index::blob_name;
use crate::manifest::{Document, RawConfig, RawManifest, check_is_image};
use crate::{Descriptor, Digest, Result, platform, select};

/// What an archive of this form has: no `repositories` and no folders of layers, which only Docker before 1.10 reads.
pub(super) async fn members(
    gathered: &Gathered,
    images: &[SaveImage],
    options: &SaveOptions,
) -> Result<Members> {
    if options.referrers {
        return Err(SaveFault::Holds("referrers").into());
    }
    if !options.since.is_empty() {
        return Err(SaveFault::Holds("part of an image").into());
    }
    let (mut members, mut list) = (Members::new(), DockerList::default());
    for (name, descriptor) in &gathered.names {
        let Some((_, at, raw)) = gathered.images.iter().find(|image| image.0 == *name) else {
            return Err(refused(gathered, descriptor)?.with_image(name));
        };
        if raw.digest() != descriptor.digest()
            && !is_only(gathered, raw.digest(), descriptor, &mut HashSet::new())
        {
            return Err(crate::Error::from(SaveFault::Index).with_image(name));
        }
        let (manifest, image) = (raw.image()?, &images[*at]);
        let reading = || select::read_config(&*image.registry, &image.image, manifest);
        let config: RawConfig = options.retry.run("config", &options.progress, reading).await?;
        let file = |digest: &Digest, ending: &str| format!("{}.{ending}", digest.digest());
        let mut layers = Vec::new();
        for (layer, diff_id) in manifest.layers().iter().zip(config.diff_ids()?) {
            let path = file(&diff_id, "tar");
            let member = if *layer.digest() == diff_id {
                Member::Blob(layer.clone(), *at)
            } else {
                Member::Layer(layer.clone(), *at, diff_id)
            };
            members.entry(path.clone()).or_insert(member);
            layers.push(Value::String(path));
        }
        let path = file(config.descriptor().digest(), "json");
        members.insert(path.clone(), Member::Bytes(config.bytes().clone()));
        list.insert(name, Value::String(path), Value::Array(layers));
    }
    members.insert("manifest.json".to_owned(), Member::Bytes(list.to_bytes().into()));
    Ok(members)
}

/// Whether an index leads to this image and to no other that is there. What attests to it is none.
fn is_only(gathered: &Gathered, image: &Digest, of: &Descriptor, seen: &mut HashSet<Digest>) -> bool {
    if of.digest() == image || platform::is_attestation(of) || !seen.insert(of.digest().clone()) {
        return true;
    }
    let Some(bytes) = gathered.documents.get(&blob_name(of.digest())) else { return true };
    match RawManifest::described(bytes.clone(), of).as_ref().map(RawManifest::document) {
        Ok(Document::Index(index)) => {
            index.manifests().iter().all(|child| is_only(gathered, image, child, seen))
        }
        _ => false,
    }
}

/// The error for a name that no image has.
fn refused(gathered: &Gathered, descriptor: &Descriptor) -> Result<crate::Error> {
    let bytes = gathered.documents.get(&blob_name(descriptor.digest()));
    let bytes = bytes.cloned().unwrap_or_default();
    let raw = RawManifest::described(bytes, descriptor)?;
    match raw.image().map(|manifest| (check_is_image(manifest), manifest)) {
        Ok((Err(_), manifest)) => {
            let kind = manifest.artifact_type().as_ref().unwrap_or(manifest.config().media_type());
            Ok(SaveFault::Artifact(kind.clone()).into())
        }
        _ => Ok(SaveFault::Index.into()),
    }
}
