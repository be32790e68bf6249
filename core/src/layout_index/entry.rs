//! One entry of `index.json`: kept as the text that it was read as.

use std::collections::BTreeMap;
use std::fmt;
use std::iter;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

use crate::{Descriptor, Reference, Result, go_json, platform, reference, strict};

/// The full name of an image, as containerd and Docker write it.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The tag of an image, or its full name: tools disagree (OCI image spec, `annotations.md`).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Marks a name that is never evicted.
pub const PINNED: &str = "dev.plyfold.image.pinned";

#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// As it was written.
    pub(super) raw: Box<RawValue>,
    pub(super) descriptor: Descriptor,
    pub(super) name: Option<Reference>,
    /// What [`REF_NAME`] says, when it is a tag.
    pub(super) tag: Option<String>,
}

impl Entry {
    /// An entry out of a document that is damaged elsewhere.
    pub(super) fn alone(raw: &RawValue, place: &Path) -> Option<Self> {
        strict::check(raw.get().as_bytes(), &go_json::DESCRIPTOR).ok()?;
        Self::parse(raw, place).ok()?
    }

    /// `None` for an entry that says nothing, such as `null`.
    pub(super) fn parse(raw: &RawValue, place: &Path) -> Result<Option<Self>> {
        let Some(descriptor) = strict::descriptor(raw.get())? else { return Ok(None) };
        let mut entry = Self { raw: raw.to_owned(), descriptor, name: None, tag: None };
        let ref_name = entry.annotation(REF_NAME);
        let tag = ref_name.filter(|text| reference::is_tag(text)).map(str::to_owned);
        entry.name = match (entry.annotation(CONTAINERD_NAME), &tag, ref_name) {
            (Some(full), _, _) | (None, None, Some(full)) => reference::parse(full).ok(),
            (None, Some(tag), _) => reference::local(place, tag).ok(),
            (None, None, None) => None,
        };
        entry.tag = tag;
        Ok(Some(entry))
    }

    /// The value of an annotation; an empty one is none.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        let value = self.descriptor.annotations().as_ref()?.get(key).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// Changes one annotation, and nothing else of what the entry says.
    pub(super) fn annotate(&mut self, key: &str, value: Option<&str>) {
        let mut annotations = self.descriptor.annotations().clone().unwrap_or_default();
        match value {
            Some(value) => annotations.insert(key.to_owned(), value.to_owned()),
            None => annotations.remove(key),
        };
        let fields: Option<BTreeMap<&str, &RawValue>> = serde_json::from_str(self.raw.get()).ok();
        if let Some(mut fields) = fields {
            let annotations = written(&annotations.iter().collect::<BTreeMap<_, _>>());
            fields.insert("annotations", &annotations);
            self.raw = written(&fields);
        }
        self.descriptor.set_annotations(Some(annotations));
    }

    /// Whether it belongs to another image, as the attestations of `BuildKit` do.
    pub(super) fn is_attestation(&self) -> bool {
        platform::is_attestation(&self.descriptor)
    }

    /// What no other entry of an index of one image has: the platform; `None` without one.
    pub(super) fn place_in_index(&self) -> Option<String> {
        let platform = self.descriptor.platform().as_ref()?;
        if self.is_attestation() {
            return Some(self.descriptor.digest().to_string());
        }
        serde_json::to_string(platform).ok()
    }

    pub(super) fn has_name(&self) -> bool {
        self.annotation(CONTAINERD_NAME).or(self.annotation(REF_NAME)).is_some()
    }

    /// The descriptor without the annotations that belong to the name.
    pub(super) fn plain(&self) -> Descriptor {
        let mut annotations = self.descriptor.annotations().clone().unwrap_or_default();
        annotations.remove(CONTAINERD_NAME);
        annotations.remove(REF_NAME);
        annotations.remove(PINNED);
        let mut plain = self.descriptor.clone();
        plain.set_annotations(Some(annotations).filter(|left| !left.is_empty()));
        plain
    }
}

/// JSON as it will stand in the file. Nothing that is written here lacks a form in JSON.
pub(super) fn written(value: &impl serde::Serialize) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The fields of a JSON object in their order, also those that stand twice.
pub(super) struct Fields<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                iter::from_fn(|| map.next_entry().transpose()).collect::<Result<_, _>>().map(Fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}
