//! The documents of a changed image.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::change::{list, object};
use super::{ConfigChange, Edit, EditFault, NewLayer};
use crate::layer::{Compression, LayerForm};
use crate::manifest::{DOCKER_MANIFEST, RawConfig, RawManifest, canonical_json};
use crate::strict::invalid;
use crate::{Descriptor, MediaType, Result, digest};

/// The documents of an image that was changed.
pub(crate) struct Edited {
    pub(crate) config: (Descriptor, Bytes),
    pub(crate) manifest: RawManifest,
    /// What was to be removed, and was not there.
    pub(crate) not_there: BTreeSet<String>,
    /// Whether it is another image than before.
    pub(crate) is_changed: bool,
}

/// The image of `raw` and `config`, changed.
pub(crate) fn edited(raw: &RawManifest, config: &RawConfig, edit: &Edit) -> Result<Edited> {
    let manifest = raw.image()?;
    let is_docker = raw.descriptor().media_type().as_ref() == DOCKER_MANIFEST;
    if let Some(layer) = manifest.layers().iter().find(|layer| !matches!(LayerForm::of(layer), Ok(None)))
        && !edit.layers.is_empty()
    {
        return Err(EditFault::LayerForm(layer.media_type().to_string()).into());
    }
    let not_there = not_there(raw, config, &edit.config)?;
    if is_docker && !edit.config.annotations.is_empty() {
        return Err(EditFault::DockerAnnotation.into());
    }
    if edit.layers.is_empty() && changes_nothing(raw, config, &edit.config)? {
        let config = (config.descriptor().clone(), config.bytes().clone());
        return Ok(Edited { config, manifest: raw.clone(), not_there, is_changed: false });
    }
    let layers: Vec<Descriptor> =
        edit.layers.iter().map(|layer| described(layer, is_docker)).collect::<Result<_>>()?;
    let bytes = Bytes::from(config_of(config, edit)?);
    let mut entry = config.descriptor().clone();
    entry.set_digest(digest::sha256(&bytes));
    entry.set_size(bytes.len() as u64);
    let document = manifest_of(raw, &entry, &layers, &edit.config)?;
    let manifest = RawManifest::new(document, Some(raw.descriptor().media_type()))?;
    // As every reader will see it.
    RawConfig::new(manifest.image()?, bytes.clone())?;
    Ok(Edited { config: (entry, bytes), manifest, not_there, is_changed: true })
}

fn not_there(raw: &RawManifest, config: &RawConfig, change: &ConfigChange) -> Result<BTreeSet<String>> {
    let document = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(invalid);
    change.not_there(&document(config.bytes())?, &document(raw.bytes())?)
}

/// Whether the documents say already what they are to say.
fn changes_nothing(raw: &RawManifest, config: &RawConfig, change: &ConfigChange) -> Result<bool> {
    let document = |bytes: &[u8]| serde_json::from_slice::<Map<String, Value>>(bytes).map_err(invalid);
    let (config, manifest) = (document(config.bytes())?, document(raw.bytes())?);
    let (mut configured, mut annotated) = (config.clone(), manifest.clone());
    change.apply(&mut configured)?;
    change.annotate(&mut annotated)?;
    Ok(said(config.get("config")) == said(configured.get("config"))
        && said(manifest.get("annotations")) == said(annotated.get("annotations")))
}

/// What an object says: without what is empty, which stands for nothing.
fn said(of: Option<&Value>) -> Map<String, Value> {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    };
    let mut object = of.and_then(Value::as_object).cloned().unwrap_or_default();
    object.retain(|_, value| !is_empty(value));
    object
}

fn described(layer: &NewLayer, is_docker: bool) -> Result<Descriptor> {
    const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    let media_type = match layer.compression() {
        Compression::Zstd if is_docker => return Err(EditFault::DockerZstd(layer.place().to_owned()).into()),
        Compression::Gzip if is_docker => MediaType::from(&*format!("{DOCKER}.gzip")),
        Compression::None if is_docker => MediaType::from(DOCKER),
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::None => MediaType::ImageLayer,
        Compression::Zstd => MediaType::ImageLayerZstd,
    };
    Ok(layer.descriptor(media_type))
}

/// The configuration, with a `diff_id` and an item of the history for each new layer.
fn config_of(config: &RawConfig, edit: &Edit) -> Result<Vec<u8>> {
    let mut document: Map<String, Value> = serde_json::from_slice(config.bytes()).map_err(invalid)?;
    if !edit.config.is_empty() {
        edit.config.apply(&mut document)?;
    }
    let diff_ids = list(object(&mut document, "rootfs")?, "diff_ids")?;
    let before = diff_ids.len();
    diff_ids.extend(edit.layers.iter().map(|layer| json!(layer.diff_id())));
    let created_by = if edit.created_by.is_empty() { "plyfold" } else { &edit.created_by };
    let mut item = Map::new();
    item.insert("created_by".to_owned(), json!(created_by));
    if let Some(created) = document.get("created").filter(|created| created.is_string()) {
        item.insert("created".to_owned(), created.clone());
    }
    let history = list(&mut document, "history")?;
    let is_of_layer = |item: &&Value| item.get("empty_layer") != Some(&Value::Bool(true));
    if edit.layers.is_empty() {
        item.insert("empty_layer".to_owned(), json!(true));
        history.push(Value::Object(item));
    } else if history.iter().filter(is_of_layer).count() == before {
        // Elsewhere items would be taken for those of other layers.
        history.extend(edit.layers.iter().map(|_| Value::Object(item.clone())));
    }
    if history.is_empty() {
        document.remove("history");
    }
    Ok(canonical_json(&Value::Object(document)))
}

/// The manifest with another configuration, and layers added. Fields that plyfold does not know stay.
fn manifest_of(
    raw: &RawManifest,
    config: &Descriptor,
    layers: &[Descriptor],
    change: &ConfigChange,
) -> Result<Vec<u8>> {
    let mut document: Map<String, Value> = serde_json::from_slice(raw.bytes()).map_err(invalid)?;
    let entry = object(&mut document, "config")?;
    entry.insert("digest".to_owned(), json!(config.digest()));
    entry.insert("size".to_owned(), json!(config.size()));
    entry.remove("data");
    list(&mut document, "layers")?.extend(layers.iter().map(|layer| json!(layer)));
    change.annotate(&mut document)?;
    Ok(canonical_json(&Value::Object(document)))
}
