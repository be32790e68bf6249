//! Documents as Go's tools write them. Go's `encoding/json` writes a list or a table that was never set as `null`, and
//! reads `null` as "not set" whatever the field holds: `null`, empty and absent are one. An empty text is not set
//! either.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// As it stands.
    Any,
    /// As `Object`, and absent when nothing in it is set.
    Descriptor(&'static [(&'static str, Self)]),
    /// As `List`, without the items that are not set.
    Entries(&'static Self),
    List(&'static Self),
    /// A text that is absent when it is empty.
    Name,
    /// Only these fields; others are passed over.
    Object(&'static [(&'static str, Self)]),
    /// As `Object`, and absent unless it names an operating system and an architecture.
    Platform(&'static [(&'static str, Self)]),
    /// Values of one shape by name.
    Table(&'static Self),
    Text,
    /// A text that is empty when it is absent.
    Type,
    /// The version of a manifest or an index: 2 where the document does not say it. Go's readers do not look at it.
    Version,
}

use Shape::{Any, Descriptor, Entries, List, Name, Object, Platform, Table, Text, Type, Version};

const ANNOTATIONS: Shape = Table(&Text);

const PLATFORM: Shape = Platform(&[
    ("architecture", Any),
    ("features", List(&Text)),
    ("os", Any),
    ("os.features", List(&Text)),
    ("os.version", Any),
    ("variant", Any),
]);

pub(crate) const DESCRIPTOR: Shape = Descriptor(&[
    ("annotations", ANNOTATIONS),
    ("artifactType", Name),
    ("data", Any),
    ("digest", Any),
    ("mediaType", Type),
    ("platform", PLATFORM),
    ("size", Any),
    ("urls", List(&Text)),
]);

pub(crate) const INDEX: Shape = Object(&[
    ("annotations", ANNOTATIONS),
    ("artifactType", Name),
    ("manifests", Entries(&DESCRIPTOR)),
    ("mediaType", Name),
    ("schemaVersion", Version),
    ("subject", DESCRIPTOR),
]);

pub(crate) const MANIFEST: Shape = Object(&[
    ("annotations", ANNOTATIONS),
    ("artifactType", Name),
    ("config", DESCRIPTOR),
    ("layers", List(&DESCRIPTOR)),
    ("mediaType", Name),
    ("schemaVersion", Version),
    ("subject", DESCRIPTOR),
]);

pub(crate) const CONFIG: Shape = Object(&[
    ("architecture", Any),
    ("author", Any),
    ("config", PROCESS),
    ("created", Any),
    ("history", List(&HISTORY)),
    ("os", Any),
    ("os.features", List(&Text)),
    ("os.version", Any),
    ("rootfs", Object(&[("diff_ids", List(&Text)), ("type", Any)])),
    ("variant", Any),
]);

const HISTORY: Shape =
    Object(&[("author", Any), ("comment", Any), ("created", Any), ("created_by", Any), ("empty_layer", Any)]);

const PROCESS: Shape = Object(&[
    ("Cmd", List(&Text)),
    ("Entrypoint", List(&Text)),
    ("Env", List(&Text)),
    ("ExposedPorts", Table(&Object(&[]))),
    ("Labels", Table(&Text)),
    ("StopSignal", Any),
    ("User", Any),
    ("Volumes", Table(&Object(&[]))),
    ("WorkingDir", Any),
]);

/// Reads a document of a shape.
///
/// # Errors
/// What is no JSON, or has another type than `T` where it is not `null`.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8], shape: &'static Shape) -> serde_json::Result<T> {
    serde_json::from_value(value(bytes, shape)?)
}

/// As [`read`], before it has a type.
///
/// # Errors
/// What is no JSON.
pub(crate) fn value(bytes: &[u8], shape: &'static Shape) -> serde_json::Result<Value> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Seed(shape).deserialize(&mut json)?;
    json.end()?;
    Ok(value.unwrap_or(Value::Null))
}

/// Yields `None` where a field of this shape is not set.
struct Seed(&'static Shape);

impl Shape {
    /// What is in a list or a table in place of `null`.
    fn zero(&self) -> Value {
        match self {
            Any => Value::Null,
            Entries(_) | List(_) => Value::Array(Vec::new()),
            Descriptor(_) | Object(_) | Platform(_) | Table(_) => Value::Object(Map::new()),
            Name | Text | Type => Value::String(String::new()),
            Version => 2.into(),
        }
    }

    /// A field that is `null`.
    fn unset(&self) -> Option<Value> {
        matches!(self, Entries(_) | List(_) | Table(_)).then(|| self.zero())
    }

    /// A field that is not there, where the reader of the whole document needs one.
    fn absent(&self) -> Option<Value> {
        matches!(self, Type | Version).then(|| self.zero())
    }
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.0.unset())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        let is_unset = matches!(self.0, Version) && value == 0;
        Ok((!is_unset).then(|| value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Number::from_f64(value).map(|number| Some(number.into())).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        let is_unset = matches!(self.0, Name) && value.is_empty();
        Ok((!is_unset).then(|| value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let item = match self.0 {
            Entries(item) | List(item) => *item,
            Any => &Any,
            // The wrong type in any case; what is in it does not matter.
            Descriptor(_) | Name | Object(_) | Platform(_) | Table(_) | Text | Type | Version => &Object(&[]),
        };
        let mut list = Vec::new();
        while let Some(value) = items.next_element_seed(Seed(item))? {
            match value {
                None if matches!(self.0, Entries(_)) => {}
                value => list.push(value.unwrap_or_else(|| item.zero())),
            }
        }
        Ok(Some(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let shape = match self.0 {
                Descriptor(known) | Object(known) | Platform(known) => {
                    known.iter().find(|(name, _)| *name == key).map(|(_, shape)| shape)
                }
                Table(value) => Some(*value),
                Any => Some(&Any),
                Entries(_) | List(_) | Name | Text | Type | Version => None,
            };
            let Some(shape) = shape else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            let in_table = matches!(self.0, Table(_) | Any);
            match fields.next_value_seed(Seed(shape))? {
                Some(value) => drop(map.insert(key, value)),
                None if in_table => drop(map.insert(key, shape.zero())),
                None => {}
            }
        }
        if matches!(self.0, Descriptor(_)) && map.values().all(is_zero) {
            return Ok(None);
        }
        if let Descriptor(known) | Object(known) = self.0 {
            for (name, shape) in *known {
                if let Some(value) = shape.absent().filter(|_| !map.contains_key(*name)) {
                    map.insert((*name).to_owned(), value);
                }
            }
        }
        let names_one = |key| map.get(key).is_some_and(|value| *value != "");
        if matches!(self.0, Platform(_)) && !(names_one("os") && names_one("architecture")) {
            return Ok(None);
        }
        Ok(Some(Value::Object(map)))
    }
}

/// Whether a field holds what Go's zero value is written as.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Bool(set) => !set,
        Value::Null => true,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
    }
}
