//! The strict pass over a document's raw bytes, before any typed parser sees them.
//!
//! JSON parsers disagree about duplicate keys and letter case (CVE-2021-41190 is such a disagreement), so one
//! digest could mean two images. This pass refuses what two parsers could read in two ways: duplicate keys,
//! known keys in another letter case, `layers` or `config` beside `manifests`, sizes that are not natural numbers. What
//! it does not refuse it hands over as the document's [`Shape`] says.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use oci_spec::image::Platform;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::go_json::{DESCRIPTOR, Shape};
use crate::{Descriptor, Digest, Error, MediaType, Result};

crate::fault! {
    /// What is wrong with a manifest, an index, a configuration or a list of names.
    pub enum DocumentFault;
    Ambiguous(String) => (Ambiguous, "ambiguous document: {0}",
        "two readers would see two different images; the publisher has to build it again"),
    Config(String) => (Corrupt, "invalid image configuration: {0}"),
    DockerSchema1 => (Unsupported, "Docker schema 1 manifests are not supported",
        "push the image again with any current tool; schema 1 has been deprecated since 2017"),
    Index(Digest) => (Unsupported, "{0} is an index, not an image"),
    Invalid(String) => (Corrupt, "invalid document: {0}"),
    LayoutVersion(String) => (Unsupported, "OCI layout version {0:?} is not supported",
        "plyfold reads version 1"),
    Long(String) => (Limit, "{0}"),
    MediaType(String) => (Corrupt, "media type mismatch: {0}"),
    NoLayout(String) => (Corrupt, "not an OCI layout: {0}",
        "a layout holds the files oci-layout and index.json beside the folder blobs"),
    NotAnImage(MediaType) => (Unsupported, "not an image: its config is {0}",
        "artifacts can be pulled and copied, but they hold no root file system"),
    Other(MediaType) => (Unsupported, "{0} is neither an image nor an index"),
}

/// The error of a document of another form than it should have.
#[expect(clippy::needless_pass_by_value, reason = "made for `map_err`")]
pub(crate) fn invalid(why: impl ToString) -> Error {
    DocumentFault::Invalid(why.to_string()).into()
}

/// Checks all of `bytes` as one JSON object of a shape, without building it.
///
/// # Errors
/// `Ambiguous` for content with two readings, `Corrupt` for what is not valid JSON or not a valid descriptor.
pub(crate) fn check(bytes: &[u8], shape: &'static Shape) -> Result<()> {
    pass(bytes, shape, false).map(drop)
}

/// As [`check`], and builds what the shape knows; null when nothing of it is set.
///
/// # Errors
/// As [`check`].
pub(crate) fn read(bytes: &[u8], shape: &'static Shape) -> Result<Value> {
    Ok(shape.settled(pass(bytes, shape, true)?).unwrap_or_default())
}

/// A descriptor out of a document that was checked; `None` for one that says nothing, such as `null`.
///
/// # Errors
/// As [`check`].
pub(crate) fn descriptor(json: &str) -> Result<Option<Descriptor>> {
    let is_whole =
        |one: &Platform| !one.os().to_string().is_empty() && !one.architecture().to_string().is_empty();
    match serde_json::from_str::<Option<Descriptor>>(json) {
        Ok(plain) if plain.iter().filter_map(|one| one.platform().as_ref()).all(is_whole) => Ok(plain),
        // Slower: a list of ten thousand entries is read often.
        _ => serde_json::from_value(read(json.as_bytes(), &DESCRIPTOR)?).map_err(invalid),
    }
}

fn pass(bytes: &[u8], shape: &'static Shape, keep: bool) -> Result<Value> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let ambiguous = Cell::new(false);
    let top = json.deserialize_map(Reader { shape, keep, ambiguous: &ambiguous });
    top.and_then(|value| json.end().map(|()| value)).map_err(|e| {
        if ambiguous.get() { DocumentFault::Ambiguous(e.to_string()).into() } else { invalid(e) }
    })
}

/// Reads a value of a shape, which its reader [settles](Shape::settled).
#[derive(Clone, Copy)]
struct Reader<'a> {
    shape: &'static Shape,
    /// Whether it is built, or only checked: then lists and objects are empty.
    keep: bool,
    /// Set with the error of an ambiguity; serde's errors are text only.
    ambiguous: &'a Cell<bool>,
}

impl Reader<'_> {
    fn ambiguity<E: serde::de::Error>(&self, why: impl fmt::Display) -> E {
        self.ambiguous.set(true);
        E::custom(why)
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let value = deserializer.deserialize_any(self)?;
        if matches!(self.shape, Shape::Size) && value.as_i64().is_none_or(i64::is_negative) {
            let what = value.to_string();
            return Err(D::Error::custom(format!(
                "invalid descriptor: size is {what:.40}, not a number of bytes"
            )));
        }
        Ok(value)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let shape = self.shape.item();
        let mut list = Vec::new();
        while let Some(value) = items.next_element_seed(Self { shape, ..self })? {
            let value = shape.settled(value).or_else(|| self.shape.keeps_unset().then(|| shape.zero()));
            list.extend(value.filter(|_| self.keep));
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        // Each key, and whether its value is something else than `null`, which Go's tools write for what is not set.
        let mut seen = HashMap::new();
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if let Some(twin) = self.shape.twin(&key) {
                return Err(self.ambiguity(format!("key {key:?} differs from {twin:?} in case only")));
            }
            let shape = self.shape.field(&key);
            let (keep, shape) = (self.keep && shape.is_some(), shape.unwrap_or(&Shape::Any));
            let value = map.next_value_seed(Self { shape, keep, ..self })?;
            let is_set = !value.is_null();
            if keep {
                let value = shape.settled(value).or_else(|| self.shape.keeps_unset().then(|| shape.zero()));
                fields.extend(value.map(|value| (key.clone(), value)));
            }
            if let (key, Some(_)) = (key.clone(), seen.insert(key, is_set)) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
        }
        let is_set = |key| seen.get(key) == Some(&true);
        if matches!(self.shape, Shape::Document(_))
            && is_set("manifests")
            && let Some(other) = ["layers", "config"].into_iter().find(|key| is_set(key))
        {
            return Err(self.ambiguity(format!("it has both {other:?} and \"manifests\"")));
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::go_json::{CONFIG, DOCUMENT};

    #[test]
    fn verdicts() {
        let nested = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
        let deep = format!("{{\"annotations\":{nested}}}");
        let cases: &[(&str, Option<ErrorKind>)] = &[
            (r#"{"schemaVersion":2,"layers":[],"annotations":{"a":"1","A":"2"}}"#, None),
            (r#"{"layers":[],"manifests":[]}"#, Some(ErrorKind::Ambiguous)),
            (r#"{"config":{},"manifests":[]}"#, Some(ErrorKind::Ambiguous)),
            (r#"{"config":{},"manifests":null}"#, None),
            (r#"{"Layers":[]}"#, Some(ErrorKind::Ambiguous)),
            (r#"{"layers":[],"MANIFESTS":[]}"#, Some(ErrorKind::Ambiguous)),
            (r#"{"layers":[{"Digest":"x"}]}"#, Some(ErrorKind::Ambiguous)),
            (r#"{"manifests":[{"platform":{"OS":"linux"}}]}"#, Some(ErrorKind::Ambiguous)),
            (r#"{"layers":[],"layers":[]}"#, Some(ErrorKind::Corrupt)),
            (r#"{"annotations":{"a":"1","a":"2"}}"#, Some(ErrorKind::Corrupt)),
            (r#"{"layers":[{"size":-1}]}"#, Some(ErrorKind::Corrupt)),
            (r#"{"layers":[{"size":1.5}]}"#, Some(ErrorKind::Corrupt)),
            (r#"{"layers":[{"size":"12"}]}"#, Some(ErrorKind::Corrupt)),
            (r#"{"layers":[{"size":18446744073709551616}]}"#, Some(ErrorKind::Corrupt)),
            (r#"{"layers":[{"size":9223372036854775808}]}"#, Some(ErrorKind::Corrupt)),
            (r#"{"layers":[{"size":{}}]}"#, Some(ErrorKind::Corrupt)),
            (r#"{"config":{"size":9223372036854775807}}"#, None),
            (r#"{"layers":[]} trailing"#, Some(ErrorKind::Corrupt)),
            ("<html>login</html>", Some(ErrorKind::Corrupt)),
            ("[]", Some(ErrorKind::Corrupt)),
            ("", Some(ErrorKind::Corrupt)),
            (&deep, Some(ErrorKind::Corrupt)),
        ];
        for (text, kind) in cases {
            let outcome = check(text.as_bytes(), &DOCUMENT).err().map(|e| e.kind().clone());
            assert_eq!(outcome, *kind, "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn configs_may_hold_any_label_but_not_two_rootfs() {
        assert!(check(br#"{"config":{"Labels":{"a":"","A":""}},"rootfs":{}}"#, &CONFIG).is_ok());
        let twice = check(br#"{"rootfs":{"diff_ids":[],"Diff_IDs":[]}}"#, &CONFIG).unwrap_err();
        assert_eq!(*twice.kind(), ErrorKind::Ambiguous);
    }
}
