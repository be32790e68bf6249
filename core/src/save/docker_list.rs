//! `manifest.json`: Docker's list of the images in an archive.

use std::collections::{HashMap, HashSet};

use oci_spec::image::ImageManifest;
use serde_json::{Map, Value, json};

use crate::layout_index::blob_name;
use crate::manifest::{canonical_json, limits};
use crate::{Digest, Error, Reference, Result, reference};

/// Docker's list of the images in an archive: for each its config, its layers and its tags, each with its registry:
/// podman would take `org/app:1` for `localhost/org/app:1`.
///
/// ```
/// use plyfold_core::save::DockerList;
///
/// let list = DockerList::parse(br#"[{"Config":"a.json","RepoTags":["app:1"],"Layers":[]}]"#)?;
/// assert_eq!(list.to_bytes(), br#"[{"Config":"a.json","Layers":[],"RepoTags":["app:1"]}]"#);
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct DockerList {
    /// `None` for an image that is no longer listed.
    items: Vec<Option<Map<String, Value>>>,
    /// Where each name is, with the tag as it is written: with tens of thousands of names each change is to take the same time.
    names: HashMap<String, Vec<(usize, String)>>,
    /// The first item of each image.
    images: HashMap<String, usize>,
    /// The items whose tags are sorted at the end.
    changed: HashSet<usize>,
}

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
        let mut list = Self::default();
        for item in items.unwrap_or_default().into_iter().flatten() {
            list.push(item);
        }
        Ok(list)
    }

    /// Adds an item; where it is.
    fn push(&mut self, item: Map<String, Value>) -> usize {
        let at = self.items.len();
        for tag in tags(&item) {
            self.names.entry(name_of(tag)).or_default().push((at, tag.to_owned()));
        }
        self.images.entry(image_of(&item)).or_insert(at);
        self.items.push(Some(item));
        at
    }

    /// Lists an image whose blobs are those of a layout, once; with a name that has a tag no other image has that tag any more.
    pub fn set(&mut self, name: &Reference, manifest: &ImageManifest) {
        let path = |digest: &Digest| Value::String(blob_name(digest));
        let layers = manifest.layers().iter().map(|layer| path(layer.digest()));
        self.insert(name, path(manifest.config().digest()), layers.collect());
    }

    /// As [`set`](Self::set), with the names of config and layers in the archive.
    pub(super) fn insert(&mut self, name: &Reference, config: Value, layers: Value) {
        let item = [("Config", config), ("Layers", layers), ("RepoTags", json!([]))];
        let item: Map<String, Value> = item.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        let image = image_of(&item);
        let tag = name.digest().is_none().then(|| name.whole());
        if let Some(tag) = &tag {
            let there = self.names.get(&name_of(tag)).map(Vec::as_slice);
            if let (Some([(at, text)]), Some(place)) = (there, self.images.get(&image))
                && (at, text) == (place, tag)
            {
                self.changed.insert(*at);
                return;
            }
            self.remove(tag);
        }
        let at = self.images.get(&image).copied().unwrap_or_else(|| self.push(item));
        if let Some(tag) = tag {
            self.tag(at, tag);
        }
    }

    fn tag(&mut self, at: usize, tag: String) {
        let Some(Some(item)) = self.items.get_mut(at) else { return };
        let there = item.entry("RepoTags").or_insert(Value::Null);
        match there {
            Value::Array(tags) => tags.push(Value::String(tag.clone())),
            other => *other = json!([tag]),
        }
        self.changed.insert(at);
        self.names.entry(name_of(&tag)).or_default().push((at, tag));
    }

    /// Gives a name to the only image that is listed, if it has none.
    pub fn name_only(&mut self, name: &Reference) {
        let mut listed = self.items.iter().enumerate().filter_map(|(at, item)| Some((at, item.as_ref()?)));
        if let (Some((at, only)), None) = (listed.next(), listed.next())
            && tags(only).next().is_none()
        {
            self.tag(at, name.whole());
        }
    }

    /// Takes a tag from its image, which is not listed any more if it has no other.
    pub fn forget(&mut self, name: &Reference) {
        self.remove(&name.whole());
    }

    fn remove(&mut self, tag: &str) {
        for (at, text) in self.names.remove(&name_of(tag)).unwrap_or_default() {
            let Some(slot) = self.items.get_mut(at) else { continue };
            let Some(Value::Array(tags)) = slot.as_mut().and_then(|item| item.get_mut("RepoTags")) else {
                continue;
            };
            tags.retain(|tag| tag.as_str() != Some(&text));
            if tags.is_empty()
                && let Some(item) = slot.take()
            {
                let image = image_of(&item);
                if self.images.get(&image) == Some(&at) {
                    self.images.remove(&image);
                }
            }
        }
    }

    /// Whether it lists no image.
    pub fn is_empty(&self) -> bool {
        self.items.iter().all(Option::is_none)
    }

    /// The document: the same bytes for the same images, in whatever order they were listed. Where a tag is that of several
    /// images, as it may be in the list of another program, the order stays: the last one has the tag.
    pub fn to_bytes(&self) -> Vec<u8> {
        let item = |(at, item): (usize, &Option<Map<String, Value>>)| {
            let mut item = item.clone()?;
            if let (true, Some(Value::Array(tags))) = (self.changed.contains(&at), item.get_mut("RepoTags")) {
                tags.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            }
            Some(Value::Object(item))
        };
        let mut items: Vec<Value> = self.items.iter().enumerate().filter_map(item).collect();
        if !self.has_shared_tags() {
            items.sort_by_cached_key(|item| {
                [&item["RepoTags"], &item["Config"], &item["Layers"]].map(Value::to_string)
            });
        }
        canonical_json(&Value::Array(items))
    }

    fn has_shared_tags(&self) -> bool {
        let mut owners = HashMap::new();
        self.items.iter().flatten().enumerate().any(|(place, item)| {
            let mut names = tags(item).filter_map(|tag| reference::parse(tag).ok());
            names.any(|name| *owners.entry(name).or_insert(place) != place)
        })
    }
}

/// The tags of an item.
fn tags(item: &Map<String, Value>) -> impl Iterator<Item = &str> {
    item.get("RepoTags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The name that a tag stands for, or what is no name as it is.
fn name_of(tag: &str) -> String {
    reference::parse(tag).map_or_else(|_| tag.to_owned(), |name| name.whole())
}

/// What an image consists of.
fn image_of(item: &Map<String, Value>) -> String {
    ["Config", "Layers"].map(|key| item.get(key).unwrap_or(&Value::Null).to_string()).join(" ")
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

    fn shown(list: &DockerList) -> String {
        let items: Vec<Value> = serde_json::from_slice(&list.to_bytes()).unwrap();
        items.iter().map(|item| item["RepoTags"].to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_tag_is_one_images_and_has_its_registry() {
        let (one, two) = (manifest(b"one"), manifest(b"two"));
        let name = |text: &str| reference::parse(text).unwrap();
        let mut list = DockerList::default();
        for text in ["org/app:1", "a.lan/app:3", "a.lan/app:2", "docker.io/alpine"] {
            list.set(&name(text), &one);
        }
        assert_eq!(
            shown(&list),
            r#"["a.lan/app:2","a.lan/app:3","docker.io/library/alpine:latest","docker.io/org/app:1"]"#
        );
        list.set(&name("a.lan/app:3"), &two);
        assert_eq!(
            shown(&list),
            r#"["a.lan/app:2","docker.io/library/alpine:latest","docker.io/org/app:1"] ["a.lan/app:3"]"#
        );
        list.set(&name("a.lan/app:3"), &one);
        assert_eq!(
            shown(&list),
            r#"["a.lan/app:2","a.lan/app:3","docker.io/library/alpine:latest","docker.io/org/app:1"]"#,
            "the other has no tag left"
        );
        let by_digest = name(&format!("a.lan/app@{}", digest::sha256(b"two")));
        list.set(&by_digest, &two);
        list.set(&by_digest, &two);
        assert_eq!(
            shown(&list),
            r#"["a.lan/app:2","a.lan/app:3","docker.io/library/alpine:latest","docker.io/org/app:1"] []"#
        );
    }

    /// Compared with each other they would take minutes.
    #[test]
    fn thousands_of_names_are_set_and_moved() {
        let start = std::time::Instant::now();
        let (one, two) = (manifest(b"one"), manifest(b"two"));
        let names: Vec<Reference> =
            (0..6_000).map(|at| reference::parse(&format!("a.example/b:t{at:04}")).unwrap()).collect();
        let mut list = DockerList::default();
        for image in [&one, &one, &two] {
            for name in &names {
                list.set(name, image);
            }
            let items: Vec<Value> = serde_json::from_slice(&list.to_bytes()).unwrap();
            let [item] = items.as_slice() else { panic!("{} items", items.len()) };
            assert_eq!(item["Config"], blob_name(image.config().digest()));
            let expected: Vec<String> = names.iter().map(Reference::whole).collect();
            assert_eq!(item["RepoTags"], json!(expected));
        }
        for name in &names {
            list.forget(name);
        }
        assert!(list.is_empty());
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
    }

    #[test]
    fn items_of_others_stay() {
        let old = br#"[{"Config":"c.json","RepoTags":["docker.io/library/alpine:3","b:1"],"Layers":["l/layer.tar"],"Parent":"x"},null]"#;
        let mut list = DockerList::parse(old).unwrap();
        list.set(&reference::parse("alpine:3").unwrap(), &manifest(b"one"));
        let items: Vec<Value> = serde_json::from_slice(&list.to_bytes()).unwrap();
        assert_eq!(items[0]["Parent"], "x");
        assert_eq!(shown(&list), r#"["b:1"] ["docker.io/library/alpine:3"]"#);
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
