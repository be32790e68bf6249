//! The form of `docker save` before version 25: `manifest.json`, configs, uncompressed layers.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::path::Path;

use plyfold_core::digest::{self, Hasher};
use plyfold_core::manifest::{canonical_json, configuration, limits};
use plyfold_core::{
    Digest, Error, ErrorKind, MediaType, RawManifest, Reference, Result, printable, reference,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::members::{Member, Members};

/// Images of one archive.
const IMAGES: usize = 4096;

/// One image of `manifest.json`.
#[derive(Debug)]
pub(crate) struct DockerImage {
    /// By tag.
    pub(crate) names: Vec<Reference>,
    /// What it is called by its digest, where it has no name: after a name that has a digest in place of a tag, or that
    /// another image has.
    pub(crate) origin: Option<Reference>,
    listed: Listed,
    /// What `index.json` has for the image: the digest of the entry.
    pub(crate) known: Option<Digest>,
    /// Otherwise the entries of `index.json` that it takes the place of, because they lack its layers: Docker 25.0.0 writes
    /// manifests without any.
    pub(crate) replaces: Vec<Digest>,
    /// And the manifest that is generated for it then. `None` for an image that is broken, which is an error when it
    /// is asked for; the others can be read.
    pub(crate) manifest: Option<RawManifest>,
}

/// What in `index.json` has each config.
pub(crate) type Configs = HashMap<Digest, Vec<Configured>>;

/// What `index.json` says about its entries.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) configs: Configs,
    /// The names of each entry that has any, but for one that is derived from the archive's.
    pub(crate) names: HashMap<Digest, EntryNames>,
}

/// The names of an entry of `index.json`.
#[derive(Debug, Default)]
pub(crate) struct EntryNames {
    whole: HashSet<Reference>,
    /// Tags of names that are a tag alone.
    local: HashSet<String>,
    has_tag: bool,
}

impl EntryNames {
    /// Adds a name; `local` is the repository of names that are a tag alone.
    pub(crate) fn add(&mut self, name: Reference, local: &str) {
        if let Some(tag) = name.tag() {
            self.has_tag = true;
            if reference::repository_of(&name) == local {
                self.local.insert(tag.to_owned());
            }
        }
        self.whole.insert(name);
    }
}

impl Known {
    /// Whether an entry may be the image that `manifest.json` has under these names. Where each list has other names it is not:
    /// an image was added that has the same config, and the names of the one before stay what they are.
    fn may_be(&self, entry: &Digest, tags: &[Reference]) -> bool {
        let Some(names) = self.names.get(entry) else { return true };
        if tags.is_empty() {
            return !names.has_tag;
        }
        tags.iter()
            .any(|name| names.whole.contains(name) || name.tag().is_some_and(|tag| names.local.contains(tag)))
    }
}

/// A manifest with some config.
#[derive(Debug)]
pub(crate) struct Configured {
    /// The entry: the manifest, or an index that leads to it.
    pub(crate) entry: Digest,
    /// How many the manifest lists.
    pub(crate) layers: usize,
    /// The indexes between the two.
    pub(crate) depth: usize,
}

/// One image as it stands in `manifest.json`.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(default)]
    config: Option<String>,
    #[serde(default)]
    layers: Option<Vec<Option<String>>>,
    #[serde(default)]
    repo_tags: Option<Vec<Option<String>>>,
}

/// Reads `manifest.json` and every config; `None` when there is no such list. `known` has the configs of `index.json`
/// with their entries. Adds the content of the other images to `blobs`.
pub(crate) fn read(
    members: &Members,
    path: &Path,
    known: impl FnOnce() -> Result<Known>,
    blobs: &mut HashMap<Digest, Member>,
) -> Result<Option<Vec<DockerImage>>> {
    let Some(bytes) = members.document("manifest.json", limits::MANIFEST)? else { return Ok(None) };
    let known = known()?;
    let images = parse(&bytes)?.into_iter().map(|listed| {
        let (names, origin) = names_of(&listed, path);
        let (known, replaces) = known_entry(members, (&listed, &names), &known);
        if known.is_some() {
            return Ok(DockerImage { names, origin, listed, known, replaces, manifest: None });
        }
        let manifest = match read_image(members, &listed) {
            Ok((manifest, content)) => {
                blobs.extend(content);
                Some(manifest)
            }
            // An I/O error is not a fault of the image.
            Err(e) if *e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                tracing::warn!("an image in {} cannot be read: {e}", path.display());
                None
            }
        };
        Ok(DockerImage { names, origin, listed, known, replaces, manifest })
    });
    let mut images: Vec<DockerImage> = images.collect::<Result<_>>()?;
    settle_names(&mut images, path);
    Ok(Some(images))
}

impl DockerImage {
    /// Its digest, where it can be read.
    fn digest(&self) -> Option<&Digest> {
        self.known.as_ref().or_else(|| self.manifest.as_ref().map(RawManifest::digest))
    }

    /// The manifest that is generated for it.
    ///
    /// # Errors
    /// What is broken about the image.
    pub(crate) fn read_manifest(&self, members: &Members) -> Result<RawManifest> {
        match &self.manifest {
            Some(manifest) => Ok(manifest.clone()),
            None => read_image(members, &self.listed).map(|(manifest, _)| manifest),
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.digest() == other.digest() && (self.digest().is_some() || self.listed == other.listed)
    }
}

/// Gives each name to one image, as `docker load` does: the last of several has it.
fn settle_names(images: &mut [DockerImage], path: &Path) {
    let mut owners: HashMap<Reference, usize> = HashMap::new();
    for place in (0..images.len()).rev() {
        let (earlier, later) = images.split_at_mut(place + 1);
        let Some(image) = earlier.last_mut() else { continue };
        for name in std::mem::take(&mut image.names) {
            let owner = *owners.entry(name.clone()).or_insert(place);
            if owner.checked_sub(place + 1).and_then(|at| later.get(at)).is_none_or(|owner| owner.is(image)) {
                image.names.push(name);
                continue;
            }
            let what = image.digest().map_or_else(|| "another".to_owned(), Digest::to_string);
            let (path, name) = (path.display(), image.origin.insert(name).whole());
            tracing::warn!(
                "{path}: {name} stands for several images: the last has the name, {what} is kept by its digest"
            );
        }
    }
}

/// The entry of `index.json` with the same config and all layers of it; otherwise entries with that config which are
/// manifests of their own, without these layers.
fn known_entry(
    members: &Members,
    (image, names): (&Listed, &[Reference]),
    known: &Known,
) -> (Option<Digest>, Vec<Digest>) {
    let (nothing, configs) = ((None, Vec::new()), &known.configs);
    let Some(name) = image.config.as_deref().filter(|_| !configs.is_empty()) else { return nothing };
    let Ok(Some(config)) = members.document(name, limits::CONFIG) else { return nothing };
    let by_name = || configs.get(&named(name, &config)?);
    let Some(found) = configs.get(&digest::sha256(&config)).or_else(by_name) else { return nothing };
    let found = found.iter().filter(|one| known.may_be(&one.entry, names));
    // What cannot be read is an error of the image, whichever list it is read from.
    let layers = configuration(&config).map(|config| config.rootfs().diff_ids().len()).ok();
    match found.clone().find(|one| layers.is_none_or(|layers| layers == one.layers)) {
        Some(complete) => (Some(complete.entry.clone()), Vec::new()),
        None => (None, found.filter(|one| one.depth == 0).map(|one| one.entry.clone()).collect()),
    }
}

/// The digest that a blob of a layout is named by, if it is right.
fn named(name: &str, content: &[u8]) -> Option<Digest> {
    let digest = digest::parse(&name.strip_prefix("blobs/")?.replacen('/', ":", 1)).ok()?;
    let mut hasher = Hasher::like(&digest).ok()?;
    hasher.update(content);
    (hasher.finish() == digest).then_some(digest)
}

/// Whether a config has the name that docker (`HEX.json`), crane (`sha256:HEX`) or a layout (`blobs/sha256/HEX`) gives it.
fn is_named_by(name: &str, id: &Digest) -> bool {
    let stem = name.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    stem == id.digest() || stem == id.as_ref()
}

/// Generates an image's manifest, with the places of its blobs.
fn read_image(members: &Members, image: &Listed) -> Result<(RawManifest, HashMap<Digest, Member>)> {
    let config_name = image.config.as_deref().unwrap_or_default();
    let at = |e: Error| e.with_context("config", printable(config_name));
    let missing = |name: &str| match name {
        "" => Error::not_found("an image in manifest.json names no config, or a layer without a name"),
        name => Error::not_found(format!("{} is not in the archive", printable(name))),
    };
    let config = members.document(config_name, limits::CONFIG).map_err(at)?;
    let config = config.ok_or_else(|| at(missing(config_name)))?;
    let id = digest::sha256(&config);
    if !is_named_by(config_name, &id) {
        tracing::warn!("config {} is not named by its digest; it is {id}", printable(config_name));
    }
    let document = configuration(&config).map_err(at)?;
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
        let name = name.as_deref().unwrap_or_default();
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
    if let Some(member) = members.find(config_name)? {
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
    let mut hasher = Hasher::sha256();
    hasher.read_all(layer.reader(0)).map_err(reading)?;
    Ok((media_type, hasher.finish()))
}

fn descriptor(media_type: &MediaType, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": media_type.to_string(), "digest": digest.to_string(), "size": size })
}

fn parse(bytes: &[u8]) -> Result<Vec<Listed>> {
    let at = |e: Error| e.with_context("document", "manifest.json");
    let invalid = |e: serde_json::Error| at(Error::corrupt("invalid document").with_source(e));
    // Go's readers take null for what is not set, also in the list: such an item is no image.
    let images: Option<Vec<Option<Listed>>> = serde_json::from_slice(bytes).map_err(invalid)?;
    let images = images.unwrap_or_default().into_iter().flatten();
    let images: Vec<Listed> = images.filter(|image| *image != Listed::default()).collect();
    let keys: Option<Vec<Option<Map<String, Value>>>> = serde_json::from_slice(bytes).map_err(invalid)?;
    let keys = keys.unwrap_or_default();
    for key in keys.iter().flatten().flat_map(Map::keys) {
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
    Ok(images)
}

/// An image's names by tag, and the first with a digest in place of one. A digest behind a tag goes: what is in an
/// archive has another one than it had in a registry. What is no reference is left out.
fn names_of(image: &Listed, path: &Path) -> (Vec<Reference>, Option<Reference>) {
    let tags = image.repo_tags.as_deref().unwrap_or_default();
    let (mut names, mut origin) = (Vec::new(), None);
    for text in tags.iter().flatten().filter(|text| !text.is_empty()) {
        let by_tag = |name: &Reference| match name.tag() {
            Some(tag) => reference::parse(&format!("{}:{tag}", reference::repository_of(name))).map(Some),
            None => Ok(None),
        };
        match reference::parse(text).and_then(|name| Ok((by_tag(&name)?, name))) {
            Ok((Some(name), _)) => names.push(name),
            Ok((None, name)) => drop(origin.get_or_insert(name)),
            Err(e) => tracing::warn!("a name in {} is left out: {e}", path.display()),
        }
    }
    (names, origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_named_as_every_writer_does() {
        let id = digest::sha256(b"{}");
        let hex = id.digest();
        for name in [format!("{hex}.json"), format!("sha256:{hex}"), format!("blobs/sha256/{hex}")] {
            assert!(is_named_by(&name, &id), "{name}");
        }
        for name in ["config.json", "", &format!("{hex}0.json")] {
            assert!(!is_named_by(name, &id), "{name}");
        }
    }
}
