//! The strict pass over a document's raw bytes, before any typed parser sees them.
//!
//! JSON parsers disagree about duplicate keys and letter case (CVE-2021-41190 is such a disagreement), so one
//! digest could mean two images. This pass refuses what two parsers could read in two ways: duplicate keys,
//! known keys in another letter case, `layers` beside `manifests`, sizes that are not natural numbers.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::{Digest, Error, MediaType, Result};

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
    ManifestAndIndex => (Ambiguous, "ambiguous document: a manifest and an index at once"),
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

/// Which document the bytes should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Schema {
    /// An image configuration.
    Config,
    /// A manifest or an index.
    Manifest,
}

/// Reads all of `bytes` as one JSON object without building it.
///
/// # Errors
/// `Ambiguous` for content with two readings, `Corrupt` for what is not valid JSON or not a valid descriptor.
pub(crate) fn check(bytes: &[u8], schema: Schema) -> Result<()> {
    let scope = match schema {
        Schema::Config => Scope::Config,
        Schema::Manifest => Scope::Manifest,
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let ambiguous = Cell::new(false);
    let top = Value { scope, top: true, key: "", ambiguous: &ambiguous };
    top.deserialize(&mut json).and_then(|_| json.end()).map_err(|e| {
        if ambiguous.get() { DocumentFault::Ambiguous(e.to_string()).into() } else { invalid(e) }
    })
}

/// Where in a document a value stands, for the keys that are known there.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Scope {
    Config,
    Descriptor,
    Free,
    Manifest,
    Platform,
    Rootfs,
}

impl Scope {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Config => {
                &["architecture", "config", "history", "os", "os.features", "os.version", "rootfs", "variant"]
            }
            Self::Descriptor => {
                &["annotations", "artifactType", "data", "digest", "mediaType", "platform", "size", "urls"]
            }
            Self::Free => &[],
            Self::Manifest => &[
                "annotations",
                "artifactType",
                "config",
                "layers",
                "manifests",
                "mediaType",
                "schemaVersion",
                "subject",
            ],
            Self::Platform => &["architecture", "os", "os.features", "os.version", "variant"],
            Self::Rootfs => &["diff_ids", "type"],
        }
    }

    fn child(self, key: &str) -> Self {
        match (self, key) {
            (Self::Manifest, "config" | "layers" | "manifests" | "subject") => Self::Descriptor,
            (Self::Descriptor, "platform") => Self::Platform,
            (Self::Config, "rootfs") => Self::Rootfs,
            _ => Self::Free,
        }
    }
}

#[derive(Clone, Copy)]
struct Value<'a> {
    scope: Scope,
    top: bool,
    key: &'a str,
    /// Set with the error of an ambiguity; serde's errors are text only.
    ambiguous: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    /// Whether it is something else than `null`.
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_> {
    fn scalar<E: serde::de::Error>(&self, what: &str) -> Result<(), E> {
        if self.top {
            return Err(E::custom(format!("expected an object, found {what}")));
        }
        if self.key == "size" {
            return Err(E::custom(format!("invalid descriptor: size is {what}, not a number of bytes")));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<bool, E> {
        self.scalar("null").map(|()| false)
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<bool, E> {
        self.scalar("a boolean").map(|()| true)
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<bool, E> {
        self.scalar("a string").map(|()| true)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<bool, E> {
        self.scalar(&number.to_string()).map(|()| true)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<bool, E> {
        self.scalar(&number.to_string()).map(|()| true)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<bool, E> {
        if self.key == "size" && i64::try_from(number).is_ok() {
            return Ok(true);
        }
        self.scalar(&number.to_string()).map(|()| true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        self.scalar("an array")?;
        while items.next_element_seed(Value { top: false, key: "", ..self })?.is_some() {}
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        if self.key == "size" {
            return Err(A::Error::custom("invalid descriptor: size is an object, not a number of bytes"));
        }
        let known = self.scope.keys();
        // Go's tools write `null` for a field that is not set.
        let (mut seen, mut set) = (HashSet::new(), HashSet::new());
        while let Some(key) = map.next_key::<String>()? {
            let twin = known.iter().find(|name| name.eq_ignore_ascii_case(&key) && **name != key);
            if let Some(twin) = twin {
                self.ambiguous.set(true);
                return Err(A::Error::custom(format!("key {key:?} differs from {twin:?} in case only")));
            }
            let sized = self.scope == Scope::Descriptor && key == "size";
            let child = self.scope.child(&key);
            let key_of_value = if sized { "size" } else { "" };
            if map.next_value_seed(Value { scope: child, top: false, key: key_of_value, ..self })? {
                set.insert(key.clone());
            }
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
        }
        if self.scope == Scope::Manifest && set.contains("layers") && set.contains("manifests") {
            self.ambiguous.set(true);
            return Err(A::Error::custom("it has both \"layers\" and \"manifests\""));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn verdicts() {
        let nested = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
        let deep = format!("{{\"annotations\":{nested}}}");
        let cases: &[(&str, Option<ErrorKind>)] = &[
            (r#"{"schemaVersion":2,"layers":[],"annotations":{"a":"1","A":"2"}}"#, None),
            (r#"{"layers":[],"manifests":[]}"#, Some(ErrorKind::Ambiguous)),
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
            let outcome = check(text.as_bytes(), Schema::Manifest).err().map(|e| e.kind().clone());
            assert_eq!(outcome, *kind, "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn configs_may_hold_any_label_but_not_two_rootfs() {
        assert!(check(br#"{"config":{"Labels":{"a":"","A":""}},"rootfs":{}}"#, Schema::Config).is_ok());
        let twice = check(br#"{"rootfs":{"diff_ids":[],"Diff_IDs":[]}}"#, Schema::Config).unwrap_err();
        assert_eq!(*twice.kind(), ErrorKind::Ambiguous);
    }
}
