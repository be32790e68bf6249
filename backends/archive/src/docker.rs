//! The form of `docker save` before version 25: `manifest.json`, configs, uncompressed layers.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

use plyfold_core::digest::{self, Hasher};
use plyfold_core::manifest::{canonical_json, limits};
use plyfold_core::oci_spec::image::ImageConfiguration;
use plyfold_core::{
    Digest, Error, ErrorKind, MediaType, RawManifest, Reference, Result, printable, reference,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::members::{Member, Members};

/// Images of one archive.
const IMAGES: usize = 4096;

/// The images of a docker-archive.
#[derive(Debug)]
pub(crate) struct DockerImages {
    members: Members,
    images: Vec<Named>,
    blobs: HashMap<Digest, Member>,
}

/// One image and its names. An image that is broken is an error when it is asked for; the others can be read.
#[derive(Debug)]
struct Named {
    names: Vec<Reference>,
    image: Image,
    manifest: Option<RawManifest>,
}

/// One image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

impl DockerImages {
    /// Reads `manifest.json` and every config; `None` when this is no docker-archive.
    pub(crate) fn read(members: &Members, path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = members.document("manifest.json", limits::MANIFEST)? else { return Ok(None) };
        let mut found = Self { members: members.clone(), images: Vec::new(), blobs: HashMap::new() };
        for image in parse(&bytes)? {
            let names = names_of(&image, path);
            let manifest = match read_image(members, &image) {
                Ok((manifest, blobs)) => {
                    found.blobs.extend(blobs);
                    Some(manifest)
                }
                // What this machine cannot read is nothing to say about the image.
                Err(e) if *e.kind() == ErrorKind::Io => return Err(e),
                Err(e) => {
                    tracing::warn!("an image in {} cannot be read: {e}", path.display());
                    None
                }
            };
            found.images.push(Named { names, image, manifest });
        }
        Ok(Some(found))
    }

    pub(crate) fn names(&self) -> Vec<Reference> {
        self.images.iter().flat_map(|named| &named.names).cloned().collect()
    }

    pub(crate) fn manifest(&self, reference: &Reference) -> Result<Option<RawManifest>> {
        if let Some(digest) = reference::digest_of(reference)? {
            let mut manifests = self.images.iter().filter_map(|named| named.manifest.as_ref());
            return Ok(manifests.find(|manifest| *manifest.digest() == digest).cloned());
        }
        let mut found = self.images.iter().filter(|named| named.names.contains(reference));
        let Some(first) = found.next() else { return Ok(None) };
        if found.any(|other| other.manifest != first.manifest) {
            return Err(Error::ambiguous("the name stands for several images").with_hint(
                "choose one by its digest; `plyfold load` with the whole archive takes them all",
            ));
        }
        match &first.manifest {
            Some(manifest) => Ok(Some(manifest.clone())),
            None => read_image(&self.members, &first.image).map(|(manifest, _)| Some(manifest)),
        }
    }

    pub(crate) fn member(&self, digest: &Digest) -> Option<Member> {
        self.blobs.get(digest).cloned()
    }
}

/// Makes up an image's manifest, with where its blobs lie.
fn read_image(members: &Members, image: &Image) -> Result<(RawManifest, HashMap<Digest, Member>)> {
    let at = |e: Error| e.with_context("config", printable(&image.config));
    let missing = |name: &str| Error::not_found(format!("{} is not in the archive", printable(name)));
    let config = members.document(&image.config, limits::CONFIG).map_err(at)?;
    let config = config.ok_or_else(|| missing(&image.config))?;
    let id = digest::sha256(&config);
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if stem != id.digest() {
        tracing::warn!("config {} is not named by its digest; it is {id}", printable(&image.config));
    }
    let invalid = |e: serde_json::Error| at(Error::corrupt("invalid image configuration").with_source(e));
    let document: ImageConfiguration = serde_json::from_slice(&config).map_err(invalid)?;
    let diff_ids = document.rootfs().diff_ids();
    let layers = image.layers.as_deref().unwrap_or_default();
    if layers.len() != diff_ids.len() {
        let (ids, layers) = (diff_ids.len(), layers.len());
        let message = format!("invalid image configuration: {ids} diff_ids for {layers} layers");
        return Err(at(Error::corrupt(message)));
    }
    if layers.len() > limits::LAYERS {
        let (count, limit) = (layers.len(), limits::LAYERS);
        return Err(at(Error::limit(format!("the image has {count} layers, the limit is {limit}"))));
    }
    let mut blobs = HashMap::new();
    let mut descriptors = Vec::new();
    for (name, diff_id) in layers.iter().zip(diff_ids) {
        let layer = members.find(name).map_err(at)?.ok_or_else(|| at(missing(name)))?;
        let (media_type, digest) = describe(&layer, &digest::parse(diff_id).map_err(at)?)?;
        descriptors.push(descriptor(&media_type, &digest, layer.size));
        blobs.insert(digest, layer);
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "config": descriptor(&MediaType::ImageConfig, &id, config.len() as u64),
        "layers": descriptors,
    });
    if let Some(member) = members.find(&image.config)? {
        blobs.insert(id, member);
    }
    Ok((RawManifest::new(canonical_json(&manifest), None)?, blobs))
}

/// A layer is plain and its digest its `diff_id`; tools that compress layers all the same are read by magic, and
/// then the digest is that of the compressed bytes.
fn describe(layer: &Member, diff_id: &Digest) -> Result<(MediaType, Digest)> {
    let reading = |e| Error::io("reading the archive", e);
    let mut magic = Vec::new();
    layer.reader(0).take(4).read_to_end(&mut magic).map_err(reading)?;
    let media_type = match magic.as_slice() {
        [0x1f, 0x8b, ..] => MediaType::ImageLayerGzip,
        [0x28, 0xb5, 0x2f, 0xfd] => MediaType::ImageLayerZstd,
        _ => return Ok((MediaType::ImageLayer, diff_id.clone())),
    };
    let (mut hasher, mut reader, mut chunk) = (Hasher::sha256(), layer.reader(0), vec![0; 256 << 10]);
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok((media_type, hasher.finish())),
            Ok(count) => hasher.update(&chunk[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(reading(e)),
        }
    }
}

fn descriptor(media_type: &MediaType, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": media_type.to_string(), "digest": digest.to_string(), "size": size })
}

fn parse(bytes: &[u8]) -> Result<Vec<Image>> {
    let at = |e: Error| e.with_context("document", "manifest.json");
    let invalid = |e: serde_json::Error| at(Error::corrupt("invalid document").with_source(e));
    let images: Vec<Image> = serde_json::from_slice(bytes).map_err(invalid)?;
    let keys: Vec<Map<String, Value>> = serde_json::from_slice(bytes).map_err(invalid)?;
    for key in keys.iter().flat_map(Map::keys) {
        for known in ["Config", "Layers", "RepoTags"] {
            if key != known && key.eq_ignore_ascii_case(known) {
                let message = format!("ambiguous document: key {key:?} differs from {known:?} in case only");
                return Err(at(Error::ambiguous(message)));
            }
        }
    }
    if images.len() > IMAGES {
        return Err(at(Error::limit(format!("it has {} images, the limit is {IMAGES}", images.len()))));
    }
    if images.is_empty() {
        return Err(at(Error::corrupt("the archive holds no image")));
    }
    Ok(images)
}

/// An image's names. One that has none is named after the file; what is no reference is left out.
fn names_of(image: &Image, path: &Path) -> Vec<Reference> {
    let tags = image.repo_tags.as_deref().unwrap_or_default();
    if tags.is_empty() {
        return reference::local(path, "latest").into_iter().collect();
    }
    let parsed = tags.iter().filter_map(|tag| {
        let name = reference::parse(tag);
        if let Err(e) = &name {
            tracing::warn!("a name in {} is left out: {e}", path.display());
        }
        name.ok()
    });
    parsed.collect()
}
