//! Documents as Go's tools write them. Go's `encoding/json` writes a list or a table that was never set as `null`, and
//! reads `null` as "not set" whatever the field holds: `null`, empty and absent are one. An empty text is not set
//! either.

use serde_json::{Map, Value};

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// A text that is empty when it is absent.
    Always,
    /// As it stands.
    Any,
    /// As `Object`, and absent when nothing in it is set.
    Descriptor(&'static [Field]),
    /// As `Object`: an index or a manifest, never both.
    Document(&'static [Field]),
    /// As `List`, without the items that are not set.
    Entries(&'static Self),
    /// As `Object`, but what differs from these fields in letter case is another field.
    Free(&'static [Field]),
    List(&'static Self),
    /// A text that is absent when it is empty.
    Name,
    /// Only these fields; others are passed over.
    Object(&'static [Field]),
    /// As `Object`, and absent unless it names an operating system and an architecture.
    Platform(&'static [Field]),
    /// A number of bytes.
    Size,
    /// Values of one shape by name.
    Table(&'static Self),
    Text,
    /// The version of a manifest or an index: 2 where the document does not say it. Go's readers do not look at it.
    Version,
}

type Field = (&'static str, Shape);

use Shape::{
    Always, Any, Descriptor, Document, Entries, Free, List, Name, Object, Platform, Size, Table, Text,
    Version,
};

const ANNOTATIONS: Shape = Table(&Text);

/// Fields of a platform whose names oci-spec spells differently from the specification (`image-index.md`, property
/// `platform`): the specification's, then its own.
pub(crate) const PLATFORM_NAMES: [(&str, &str); 2] =
    [("os.features", "os_features"), ("os.version", "os_version")];

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
    ("mediaType", Always),
    ("platform", PLATFORM),
    ("size", Size),
    ("urls", List(&Text)),
]);

pub(crate) const DOCUMENT: Shape = Document(&[
    ("annotations", ANNOTATIONS),
    ("artifactType", Name),
    ("config", DESCRIPTOR),
    ("layers", List(&DESCRIPTOR)),
    ("manifests", Entries(&DESCRIPTOR)),
    ("mediaType", Name),
    ("schemaVersion", Version),
    ("subject", DESCRIPTOR),
]);

pub(crate) const CONFIG: Shape = Object(&[
    ("architecture", Always),
    ("author", Any),
    ("config", PROCESS),
    ("created", Any),
    ("history", List(&HISTORY)),
    ("os", Always),
    ("os.features", List(&Text)),
    ("os.version", Any),
    ("rootfs", Object(&[("diff_ids", List(&Text)), ("type", Any)])),
    ("variant", Any),
]);

const HISTORY: Shape =
    Free(&[("author", Any), ("comment", Any), ("created", Any), ("created_by", Any), ("empty_layer", Any)]);

const PROCESS: Shape = Free(&[
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

impl Shape {
    /// What is in a list or a table in place of `null`.
    pub(crate) fn zero(&self) -> Value {
        match self {
            Any | Size => Value::Null,
            Entries(_) | List(_) => Value::Array(Vec::new()),
            Descriptor(_) | Document(_) | Free(_) | Object(_) | Platform(_) | Table(_) => Map::new().into(),
            Always | Name | Text => Value::String(String::new()),
            Version => 2.into(),
        }
    }

    /// What stands for `null` within it, as opposed to a field that is not set: the items of lists and the values of tables.
    pub(crate) fn keeps_unset(&self) -> bool {
        matches!(self, Any | List(_) | Table(_))
    }

    /// The shape of its items. In what is no list it does not matter.
    pub(crate) fn item(&self) -> &'static Self {
        match self {
            Entries(item) | List(item) => item,
            _ => &Any,
        }
    }

    /// The shape of a field; `None` for one that is passed over.
    pub(crate) fn field(&self, key: &str) -> Option<&'static Self> {
        match self {
            Any => Some(&Any),
            Table(value) => Some(value),
            _ => self.fields().iter().find(|(name, _)| *name == key).map(|(_, shape)| shape),
        }
    }

    /// The known field that this key differs from in letter case only.
    pub(crate) fn twin(&self, key: &str) -> Option<&'static str> {
        let known = if matches!(self, Free(_)) { &[] } else { self.fields() };
        known.iter().map(|(name, _)| *name).find(|name| name.eq_ignore_ascii_case(key) && *name != key)
    }

    fn fields(&self) -> &'static [Field] {
        match self {
            Descriptor(known) | Document(known) | Free(known) | Object(known) | Platform(known) => known,
            _ => &[],
        }
    }

    /// A value of this shape whose own values are settled, with what is absent and has to be there; `None` for a field
    /// that is not set.
    pub(crate) fn settled(&self, mut value: Value) -> Option<Value> {
        match (self, &mut value) {
            (Entries(_) | List(_) | Table(_), Value::Null) => return Some(self.zero()),
            (_, Value::Null) => return None,
            (Name, text) if text == "" => return None,
            (Version, number) if *number == 0 => return None,
            (Descriptor(_), Value::Object(fields)) if fields.values().all(is_zero) => return None,
            (Platform(_), Value::Object(fields))
                if ["os", "architecture"]
                    .iter()
                    .any(|name| fields.get(*name).is_none_or(|text| text == "")) =>
            {
                return None;
            }
            (Platform(_), Value::Object(fields)) => {
                for (of_spec, own) in PLATFORM_NAMES {
                    if let Some(value) = fields.remove(of_spec) {
                        fields.insert(own.to_owned(), value);
                    }
                }
            }
            (_, Value::Object(fields)) => {
                let needed = self.fields().iter().filter(|(_, shape)| matches!(shape, Always | Version));
                for (name, shape) in needed {
                    fields.entry(*name).or_insert_with(|| shape.zero());
                }
            }
            _ => {}
        }
        Some(value)
    }
}

/// Whether a field holds what Go's zero value is written as.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Bool(set) => !set,
        Value::Null => true,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
    }
}
