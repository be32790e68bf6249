//! Options of backends and materializers, by name.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::iter;

use serde::Serialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_json::Value;

use crate::{Advice, Error, Result};

crate::fault! {
    /// Why options are refused. As an error, a fault of one option has its name in the context `option`.
    pub enum OptionFault;
    /// The text, which has no `=`:
    Syntax(String) => (Config, "invalid option {0:?}"),
    /// An option that there is not: its name, and the reason:
    Unknown(String, String) => (Config, "invalid option: {1}") in "option",
    /// An option whose value is refused: its name, and the reason:
    Value(String, String) => (Config, "invalid option `{0}`: {1}") in "option",
    /// Options that do not fit together, or one that is missing, for this reason:
    Together(String) => (Config, "invalid option: {0}"),
}

/// Options of a backend or of a materializer, as `key=value`.
///
/// A value that is JSON (`true`, `3`, `["a","b"]`) is taken as such, anything else is a string, also `null` and a number
/// that JSON would write in another way (`007`, `1e5`); a key given several times is a list. Where a string is wanted,
/// `true` and `3` are strings.
///
/// `Debug` shows the keys alone: a value may be a secret.
#[derive(Clone, Default, Eq, PartialEq, Serialize)]
pub struct Options(BTreeMap<String, Value>);

impl Options {
    /// Options out of `key=value` texts.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a text without `=`.
    ///
    /// ```
    /// use plyfold_core::Options;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Config { retries: u32, mirror: Vec<String>, label: Option<String> }
    ///
    /// let options = Options::parse(["retries=3", "mirror=a", "mirror=b", "label=2024"])?;
    /// let config: Config = options.config()?;
    /// assert_eq!((config.retries, config.mirror.len()), (3, 2));
    /// assert_eq!(config.label.as_deref(), Some("2024"));
    /// # Ok::<(), plyfold_core::Error>(())
    /// ```
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut map: BTreeMap<String, Value> = BTreeMap::new();
        for pair in pairs {
            let (key, text) = pair.split_once('=').ok_or_else(|| {
                Error::from(OptionFault::Syntax(pair.to_owned())).with_advice(Advice::WriteOption)
            })?;
            let value = serde_json::from_str(text).ok().filter(|value: &Value| {
                // It may be meant as a string: keep it byte for byte.
                !value.is_null() && value.as_number().is_none_or(|number| number.to_string() == text)
            });
            let value = value.unwrap_or_else(|| Value::String(text.to_owned()));
            match map.get_mut(key) {
                Some(Value::Array(list)) => list.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
                None => drop(map.insert(key.to_owned(), value)),
            }
        }
        Ok(Self(map))
    }

    /// The options as a configuration.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) with an [`OptionFault`] for an unknown key, a value of another type, and
    /// several values for one; its context `option` names the one that is wrong.
    ///
    /// A value that has the right type and is wrong is for the caller to refuse:
    ///
    /// ```
    /// use plyfold_core::{Error, OptionFault};
    ///
    /// let error = Error::from(OptionFault::Value("align".into(), "7 is not a power of two".into()));
    /// assert_eq!(error.message(), "invalid option `align`: 7 is not a power of two");
    /// assert_eq!(error.context("option"), Some("align"));
    /// ```
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        let (reading, is_read) = (Cell::new(None), Cell::new(false));
        let mut entries = self.0.iter();
        let noted = iter::from_fn(|| {
            let entry = entries.next();
            reading.set(entry.map(|(key, _)| key));
            is_read.set(false);
            entry.map(|(key, value)| (key.as_str(), Written { value, is_read: &is_read }))
        });
        T::deserialize(MapDeserializer::new(noted)).map_err(|e: serde_json::Error| {
            let why = e.to_string();
            let fault = match reading.get().map(|key| (key, is_read.get())) {
                Some((key, true)) => OptionFault::Value(key.clone(), why),
                Some((key, false)) => OptionFault::Unknown(key.clone(), why),
                None => OptionFault::Together(why),
            };
            fault.into()
        })
    }

    /// Refuses every option, for what has none.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when there is one.
    pub fn refuse(&self) -> Result<()> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.config().map(|Nothing {}| ())
    }

    /// The same without the option of this name.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        let mut others = self.clone();
        others.0.remove(key);
        others
    }

    /// Whether there is an option of this name.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A value as it was written: where a text is wanted, `2024` and `true` are texts. It notes that it is read, to tell an
/// error of it from one of its key.
struct Written<'a> {
    value: &'a Value,
    is_read: &'a Cell<bool>,
}

impl<'a> IntoDeserializer<'a, serde_json::Error> for Written<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self.is_read.set(true);
        self
    }
}

/// Methods for types of one value: what is not of the type is refused without the names of Rust's types.
macro_rules! single {
    ($($is:ident $what:literal: $($method:ident)+;)+) => {
        $($(fn $method<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
            match self.value {
                Value::Array(values) => Err(several(values)),
                value if value.$is() => value.deserialize_any(visitor),
                value => Err(de::Error::custom(format!("{value} is not {}", $what))),
            }
        })+)+
    };
}

fn several(values: &[Value]) -> serde_json::Error {
    de::Error::custom(format!("it takes one value, and is given {}", values.len()))
}

impl<'de> Deserializer<'de> for Written<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        match self.value {
            Value::Array(items) => {
                let items = items.iter().map(|value| Written { value, ..self });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        match self.value {
            Value::Array(values) => Err(several(values)),
            Value::Bool(_) | Value::Number(_) => visitor.visit_string(self.value.to_string()),
            value => value.deserialize_string(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        self.value.deserialize_enum(name, variants, visitor)
    }

    single! {
        is_boolean "`true` or `false`": deserialize_bool;
        is_number "a number": deserialize_f32 deserialize_f64;
        is_i64 "a whole number": deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64;
        is_u64 "a whole number, 0 or more": deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64;
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        align: u64,
        delta: i32,
        label: String,
        many: Vec<String>,
        sparse: bool,
    }

    impl Default for Config {
        fn default() -> Self {
            Self { align: 1, delta: 0, label: String::new(), many: Vec::new(), sparse: true }
        }
    }

    #[test]
    fn a_refused_value_is_named_in_plain_words() {
        for (pairs, key, said) in [
            (&["align=512", "align=1024"][..], "align", "it takes one value, and is given 2"),
            (&["label=a", "label=b"], "label", "it takes one value, and is given 2"),
            (&["sparse=[true]"], "sparse", "it takes one value, and is given 1"),
            (&["align=x"], "align", r#""x" is not a whole number, 0 or more"#),
            (&["align=-1"], "align", "-1 is not a whole number, 0 or more"),
            (&["delta=0.5"], "delta", "0.5 is not a whole number"),
            (&["sparse=yes"], "sparse", r#""yes" is not `true` or `false`"#),
        ] {
            let error = Options::parse(pairs.iter().copied()).unwrap().config::<Config>().unwrap_err();
            assert_eq!(error.message(), format!("invalid option `{key}`: {said}"));
            assert_eq!(error.context("option"), Some(key));
            assert!(matches!(error.detail(), Some(OptionFault::Value(name, _)) if name == key));
        }
        let config: Config = Options::parse(["many=a", "many=b", "delta=-3"]).unwrap().config().unwrap();
        assert_eq!((config.align, config.delta, config.many.len(), config.sparse), (1, -3, 2, true));
    }

    #[test]
    fn debug_shows_names_and_no_values() {
        let options = Options::parse(["password=hunter2", "retries=3", "header=a", "header=b"]).unwrap();
        let shown = format!("{options:?}");
        assert!(shown.contains("password") && shown.contains("retries"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains('3'), "{shown}");
    }
}
