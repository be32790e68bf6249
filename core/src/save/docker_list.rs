//! `manifest.json`: Docker's list of the images in an archive.

use std::collections::HashMap;

use oci_spec::image::ImageManifest;
use serde_json::{Map, Value, json};

use crate::layout_index::blob_name;
use crate::manifest::{canonical_json, limits};
use crate::{Digest, Error, Reference, Result, reference};

/// Docker's list of the images in an archive: for each its config, its layers and its tags.
///
/// ```
/// use plyfold_core::save::DockerList;
///
/// let list = DockerList::parse(br#"[{"Config":"a.json","RepoTags":["app:1"],"Layers":[]}]"#)?;
/// assert_eq!(list.to_bytes(), br#"[{"Config":"a.json","Layers":[],"RepoTags":["app:1"]}]"#);
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct DockerList(Vec<Map<String, Value>>);

impl DockerList {
    /// The list of an archive that is changed: its items stay as they are.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for what is no such list, [`Limit`](crate::ErrorKind::Limit) when it is too long.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let at = |e: Error| e.with_context("document", "manifest.json");
        if bytes.len() as u64 > limits::MANIFEST {
            return Err(at(Error::limit("the list of images is too long")));
        }
        let invalid = |e| at(Error::corrupt("invalid document").with_source(e));
        let items: Option<Vec<Option<Map<String, Value>>>> =
            serde_json::from_slice(bytes).map_err(invalid)?;
        Ok(Self(items.unwrap_or_default().into_iter().flatten().collect()))
    }

    /// Lists an image whose blobs are those of a layout, once; with a name that has a tag no other image has that tag any more.
    pub fn set(&mut self, name: &Reference, manifest: &ImageManifest) {
        let path = |digest: &Digest| Value::String(blob_name(digest));
        let layers = manifest.layers().iter().map(|layer| path(layer.digest()));
        self.insert(name, path(manifest.config().digest()), layers.collect());
    }

    /// As [`set`](Self::set), with the names of config and layers in the archive.
    pub(super) fn insert(&mut self, name: &Reference, config: Value, layers: Value) {
        let tag = name.digest().is_none().then(|| reference::familiar(name));
        if let Some(tag) = &tag {
            self.remove(tag);
        }
        let is_same = |item: &Map<String, Value>| {
            item.get("Config") == Some(&config) && item.get("Layers") == Some(&layers)
        };
        let at = self.0.iter().position(is_same).unwrap_or(self.0.len());
        if at == self.0.len() {
            let item = [("Config", config), ("Layers", layers), ("RepoTags", json!([]))];
            self.0.push(item.map(|(key, value)| (key.to_owned(), value)).into_iter().collect());
        }
        if let (Some(item), Some(tag)) = (self.0.get_mut(at), tag) {
            let mut tags: Vec<Value> =
                item.get("RepoTags").and_then(Value::as_array).cloned().unwrap_or_default();
            tags.push(Value::String(tag));
            tags.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            item.insert("RepoTags".to_owned(), Value::Array(tags));
        }
    }

    /// Gives a name to the only image that is listed, if it has none.
    pub fn name_only(&mut self, name: &Reference) {
        let [only] = self.0.as_mut_slice() else { return };
        if only.get("RepoTags").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            only.insert("RepoTags".to_owned(), json!([reference::familiar(name)]));
        }
    }

    /// Takes a tag from its image, which is not listed any more if it has no other.
    pub fn forget(&mut self, name: &Reference) {
        self.remove(&reference::familiar(name));
    }

    fn remove(&mut self, tag: &str) {
        let parsed = reference::parse(tag).ok();
        let is_it = |text: &Value| {
            let text = text.as_str().unwrap_or_default();
            text == tag || parsed.is_some() && reference::parse(text).ok() == parsed
        };
        self.0.retain_mut(|item| {
            let Some(Value::Array(tags)) = item.get_mut("RepoTags") else { return true };
            let before = tags.len();
            tags.retain(|text| !is_it(text));
            before == tags.len() || !tags.is_empty()
        });
    }

    /// Whether it lists no image.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The document: the same bytes for the same images, in whatever order they were listed. Where a tag is that of several
    /// images, as it may be in the list of another program, the order stays: the last one has the tag.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut items: Vec<Value> = self.0.iter().cloned().map(Value::Object).collect();
        if !self.has_shared_tags() {
            items.sort_by_cached_key(|item| {
                [&item["RepoTags"], &item["Config"], &item["Layers"]].map(Value::to_string)
            });
        }
        canonical_json(&Value::Array(items))
    }

    fn has_shared_tags(&self) -> bool {
        let mut owners = HashMap::new();
        self.0.iter().enumerate().any(|(place, item)| {
            let tags = item.get("RepoTags").and_then(Value::as_array).into_iter().flatten();
            let mut names = tags.filter_map(|tag| reference::parse(tag.as_str()?).ok());
            names.any(|name| *owners.entry(name).or_insert(place) != place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Descriptor, MediaType, digest};

    fn manifest(config: &[u8]) -> ImageManifest {
        let blob =
            |media_type, bytes: &[u8]| Descriptor::new(media_type, bytes.len() as u64, digest::sha256(bytes));
        let text = json!({
            "schemaVersion": 2,
            "config": blob(MediaType::ImageConfig, config),
            "layers": [blob(MediaType::ImageLayerGzip, b"layer")],
        });
        serde_json::from_value(text).unwrap()
    }

    fn tags(list: &DockerList) -> String {
        let items: Vec<Value> = serde_json::from_slice(&list.to_bytes()).unwrap();
        items.iter().map(|item| item["RepoTags"].to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_tag_is_one_images_and_names_are_those_that_docker_shows() {
        let (one, two) = (manifest(b"one"), manifest(b"two"));
        let name = |text: &str| reference::parse(text).unwrap();
        let mut list = DockerList::default();
        for text in ["docker.io/org/app:1", "alpine:3", "alpine:2", "ghcr.io/org/app:1"] {
            list.set(&name(text), &one);
        }
        assert_eq!(tags(&list), r#"["alpine:2","alpine:3","ghcr.io/org/app:1","org/app:1"]"#);
        list.set(&name("alpine:3"), &two);
        assert_eq!(tags(&list), r#"["alpine:2","ghcr.io/org/app:1","org/app:1"] ["alpine:3"]"#);
        list.set(&name("alpine:3"), &one);
        assert_eq!(
            tags(&list),
            r#"["alpine:2","alpine:3","ghcr.io/org/app:1","org/app:1"]"#,
            "the other has no tag left"
        );
        let by_digest = name(&format!("alpine@{}", digest::sha256(b"two")));
        list.set(&by_digest, &two);
        list.set(&by_digest, &two);
        assert_eq!(tags(&list), r#"["alpine:2","alpine:3","ghcr.io/org/app:1","org/app:1"] []"#);
    }

    #[test]
    fn a_short_name_is_the_same_name() {
        for (name, shown) in [
            ("alpine", "alpine:latest"),
            ("docker.io/library/a/b:1", "library/a/b:1"),
            ("docker.io/a.b/c:1", "docker.io/a.b/c:1"),
            ("localhost/a:1", "localhost/a:1"),
        ] {
            let name = reference::parse(name).unwrap();
            assert_eq!(reference::familiar(&name), shown);
            assert_eq!(reference::parse(shown).unwrap(), name);
        }
    }

    #[test]
    fn items_of_others_stay() {
        let old = br#"[{"Config":"c.json","RepoTags":["docker.io/library/alpine:3","b:1"],"Layers":["l/layer.tar"],"Parent":"x"},null]"#;
        let mut list = DockerList::parse(old).unwrap();
        list.set(&reference::parse("alpine:3").unwrap(), &manifest(b"one"));
        let items: Vec<Value> = serde_json::from_slice(&list.to_bytes()).unwrap();
        assert_eq!(items[1]["Parent"], "x");
        assert_eq!(tags(&list), r#"["alpine:3"] ["b:1"]"#);
        assert!(DockerList::parse(b"{}").is_err());
        // Of several images with a tag the last has it.
        for second in ["b:1", "docker.io/library/b:1"] {
            let old =
                json!([{ "Config": "2", "RepoTags": ["b:1"] }, { "Config": "1", "RepoTags": [second] }]);
            let mut list = DockerList::parse(old.to_string().as_bytes()).unwrap();
            list.set(&reference::parse("alpine:3").unwrap(), &manifest(b"one"));
            let items: Vec<Value> = serde_json::from_slice(&list.to_bytes()).unwrap();
            assert_eq!((&items[0]["Config"], &items[1]["Config"]), (&json!("2"), &json!("1")), "{second}");
        }
        assert!(DockerList::parse(b"null").unwrap().is_empty());
    }
}
