//! Manifests and indexes in another form.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::asked::{Conversion, MediaForm};
use crate::copy::rewrite::{Entries, with_entries};
use crate::go_json::is_zero;
use crate::layer::Compression;
use crate::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, Document, RawManifest, canonical_json,
    check_is_image,
};
use crate::strict::invalid;
use crate::{Descriptor, MediaType, Result, platform};

/// The media types of layers that are tars: form, whether it may not be redistributed, and the type without a suffix.
const TARS: [(MediaForm, bool, &str); 4] = [
    (MediaForm::Docker, false, "application/vnd.docker.image.rootfs.diff.tar"),
    (MediaForm::Docker, true, "application/vnd.docker.image.rootfs.foreign.diff.tar"),
    (MediaForm::Oci, false, "application/vnd.oci.image.layer.v1.tar"),
    (MediaForm::Oci, true, "application/vnd.oci.image.layer.nondistributable.v1.tar"),
];
/// Annotations of a layer about its compressed bytes: of eStargz and of zstd:chunked.
const OF_BYTES: [&str; 3] =
    ["containerd.io/snapshot/stargz/", "io.containers.estargz.", "io.github.containers.zstd-chunked."];
/// The fields of a descriptor that Docker's form has. `data` repeats the content and may be left out.
const DOCKER_DESCRIPTOR: [&str; 5] = ["mediaType", "digest", "size", "urls", "data"];

/// What a layer's media type says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LayerType {
    form: MediaForm,
    is_foreign: bool,
    compression: Compression,
}

impl LayerType {
    /// `None` for what is no tar.
    pub(super) fn of(layer: &Descriptor) -> Option<Self> {
        let name = layer.media_type().as_ref();
        TARS.iter().find_map(|(form, is_foreign, base)| {
            let compression = match name.strip_prefix(base)? {
                "" => Compression::None,
                "+gzip" | ".gzip" => Compression::Gzip,
                "+zstd" | ".zstd" => Compression::Zstd,
                _ => return None,
            };
            Some(Self { form: *form, is_foreign: *is_foreign, compression })
        })
    }

    /// Its media type in a form; `None` where the form has none.
    fn name(self, form: MediaForm) -> Option<MediaType> {
        let (_, _, base) = TARS.iter().find(|(of, foreign, _)| (*of, *foreign) == (form, self.is_foreign))?;
        let suffix = match (form, self.compression) {
            // Docker's list of types has such layers as gzip alone.
            (MediaForm::Docker, Compression::None) if self.is_foreign && self.form != form => return None,
            (MediaForm::Docker, Compression::Zstd) => return None,
            (_, Compression::None) => "",
            (MediaForm::Docker, Compression::Gzip) => ".gzip",
            (MediaForm::Oci, Compression::Gzip) => "+gzip",
            (MediaForm::Oci, Compression::Zstd) => "+zstd",
        };
        Some(MediaType::from(&*format!("{base}{suffix}")))
    }
}

/// What becomes of a layer.
#[derive(Clone, Debug)]
pub(super) struct LayerPlan {
    pub(super) media_type: MediaType,
    /// Whether it gets other bytes.
    pub(super) is_made: bool,
}

/// What becomes of a layer of a manifest of the wanted form; `None` when the form has no type for it.
pub(super) fn plan(layer: &Descriptor, form: MediaForm, conversion: Conversion) -> Option<LayerPlan> {
    let kept = || LayerPlan { media_type: layer.media_type().clone(), is_made: false };
    let Some(mut kind) = LayerType::of(layer) else {
        let is_foreign_form = match conversion.form {
            Some(MediaForm::Docker) => true,
            Some(MediaForm::Oci) => layer.media_type().as_ref().starts_with("application/vnd.docker."),
            None => false,
        };
        return (!is_foreign_form).then(kept);
    };
    match conversion.compress {
        Some(how) if !kind.is_foreign && how.compression() != kind.compression => {
            kind.compression = how.compression();
            kind.name(form).map(|media_type| LayerPlan { media_type, is_made: true })
        }
        _ if conversion.form.is_none() => Some(kept()),
        _ => kind.name(form).map(|media_type| LayerPlan { media_type, is_made: false }),
    }
}

/// What of a document the form has no place for, each with its name.
pub(super) fn misfits(raw: &RawManifest, conversion: Conversion) -> Result<Vec<String>> {
    let of = MediaForm::of(raw.descriptor().media_type());
    let form = conversion.form.unwrap_or(of);
    let mut found = Vec::new();
    let document: Map<String, Value> = serde_json::from_slice(raw.bytes()).map_err(invalid)?;
    let becomes_docker = form == MediaForm::Docker && of != form;
    match raw.document() {
        Document::Index(index) => {
            let mut attestations = HashSet::new();
            for child in index.manifests().iter().filter(|_| becomes_docker) {
                if platform::is_attestation(child) {
                    attestations.insert(child.digest().as_ref());
                    found.push(format!("the attestation {}", child.digest()));
                } else if child.platform().is_none() {
                    found.push(format!("{} without a platform", child.digest()));
                }
            }
            if becomes_docker {
                fields(&document, &["schemaVersion", "mediaType", "manifests"], "the index", &mut found);
                entries(&document, "manifests", &["platform"], &attestations, &mut found);
            }
        }
        Document::Manifest(manifest) => {
            let is_image = check_is_image(manifest).is_ok();
            if !is_image && conversion.form.is_some() && (becomes_docker || of != form) {
                found.push(format!("the artifact {} ({})", raw.digest(), manifest.config().media_type()));
                return Ok(found);
            }
            if becomes_docker {
                let what = format!("the manifest {}", raw.digest());
                fields(&document, &["schemaVersion", "mediaType", "config", "layers"], &what, &mut found);
                entries(&document, "layers", &[], &HashSet::new(), &mut found);
            }
            for layer in manifest.layers().iter().filter(|_| is_image) {
                if plan(layer, form, conversion).is_none() {
                    found.push(format!("the layer {} ({})", layer.digest(), layer.media_type()));
                }
            }
        }
    }
    Ok(found)
}

/// The fields that are set, and not among those that there may be.
fn fields(of: &Map<String, Value>, may: &[&str], what: &str, found: &mut Vec<String>) {
    for (name, value) in of.iter().filter(|(name, value)| !may.contains(&name.as_str()) && !is_zero(value)) {
        let keys = match value {
            Value::Object(fields) if name == "annotations" => {
                format!(" ({})", fields.keys().cloned().collect::<Vec<_>>().join(", "))
            }
            _ => String::new(),
        };
        found.push(format!("{name}{keys} of {what}"));
    }
}

/// The same for a list of descriptors, but for attestations, which are named as such.
fn entries(
    of: &Map<String, Value>,
    list: &str,
    also: &[&str],
    attestations: &HashSet<&str>,
    found: &mut Vec<String>,
) {
    let may = [&DOCKER_DESCRIPTOR[..], also].concat();
    let config = of.get("config").into_iter();
    let listed = of.get(list).and_then(Value::as_array).into_iter().flatten();
    for entry in listed.chain(config).filter_map(Value::as_object) {
        let digest = entry.get("digest").and_then(Value::as_str).unwrap_or_default();
        if !attestations.contains(digest) {
            fields(entry, &may, digest, found);
        }
    }
}

/// A manifest in the wanted form, with these layers: itself when nothing changes.
pub(super) fn manifest(
    raw: &RawManifest,
    form: Option<MediaForm>,
    layers: &[Descriptor],
) -> Result<RawManifest> {
    let before = raw.image()?;
    let is_retyped = form.is_some() && check_is_image(before).is_ok();
    let mut document: Map<String, Value> = serde_json::from_slice(raw.bytes()).map_err(invalid)?;
    let mut changed = false;
    if let Some(Value::Array(entries)) = document.get_mut("layers") {
        for ((entry, old), new) in entries.iter_mut().zip(before.layers()).zip(layers) {
            changed |= old.digest() != new.digest() || old.media_type() != new.media_type();
            set(entry, old, new);
        }
    }
    let (mut config, mut media_type) = (before.config().clone(), raw.descriptor().media_type().clone());
    if let Some(form) = form.filter(|_| is_retyped) {
        let (of_manifest, of_config) = match form {
            MediaForm::Docker => (MediaType::from(DOCKER_MANIFEST), MediaType::from(DOCKER_CONFIG)),
            MediaForm::Oci => (MediaType::ImageManifest, MediaType::ImageConfig),
        };
        changed |= media_type != of_manifest || *config.media_type() != of_config;
        media_type = of_manifest;
        config.set_media_type(of_config);
        if let Some(entry) = document.get_mut("config") {
            set(entry, before.config(), &config);
        }
    }
    if !changed {
        return Ok(raw.clone());
    }
    finished(raw, document, &media_type)
}

/// An index in the wanted form, of these entries: itself when nothing changes.
pub(super) fn index(
    raw: &RawManifest,
    form: Option<MediaForm>,
    entries: Entries<'_>,
) -> Result<Option<RawManifest>> {
    let Some(made) = with_entries(raw, entries)? else { return Ok(None) };
    let media_type = match form {
        Some(MediaForm::Docker) => MediaType::from(DOCKER_MANIFEST_LIST),
        Some(MediaForm::Oci) => MediaType::ImageIndex,
        None => return Ok(Some(made)),
    };
    if *raw.descriptor().media_type() == media_type {
        return Ok(Some(made));
    }
    let document: Map<String, Value> = serde_json::from_slice(made.bytes()).map_err(invalid)?;
    finished(raw, document, &media_type).map(Some)
}

/// The document of another media type, without what Docker's form has no place for: that is empty by now.
fn finished(
    raw: &RawManifest,
    mut document: Map<String, Value>,
    media_type: &MediaType,
) -> Result<RawManifest> {
    let form = MediaForm::of(media_type);
    if document.contains_key("mediaType") || form != MediaForm::of(raw.descriptor().media_type()) {
        document.insert("mediaType".to_owned(), json!(media_type));
    }
    if form == MediaForm::Docker {
        document.retain(|_, value| !is_zero(value) || value.is_array());
        for value in document.values_mut() {
            let entries = if let Value::Array(entries) = value {
                entries.as_mut_slice()
            } else {
                std::slice::from_mut(value)
            };
            for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
                entry.retain(|name, value| name != "data" && (name == "size" || !is_zero(value)));
            }
        }
    }
    RawManifest::new(canonical_json(&Value::Object(document)), Some(media_type))
}

/// Puts a descriptor in place of another one in a document. Fields that plyfold does not know stay; what is about the bytes
/// before goes with them.
fn set(entry: &mut Value, old: &Descriptor, new: &Descriptor) {
    let Value::Object(entry) = entry else { return };
    entry.insert("mediaType".to_owned(), json!(new.media_type()));
    if old.digest() == new.digest() {
        return;
    }
    entry.insert("digest".to_owned(), json!(new.digest()));
    entry.insert("size".to_owned(), json!(new.size()));
    entry.remove("data");
    entry.remove("urls");
    if let Some(Value::Object(annotations)) = entry.get_mut("annotations") {
        annotations.retain(|name, _| !OF_BYTES.iter().any(|prefix| name.starts_with(prefix)));
        if annotations.is_empty() {
            entry.remove("annotations");
        }
    }
}
