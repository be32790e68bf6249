//! Options of backends and materializers, by name.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::iter;

use serde::Serialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_json::Value;

use crate::{Advice, Error, Result};

crate::fault! {
    /// Why options are refused: with the name of the option and the reason.
    pub enum OptionFault;
    Syntax(String) => (Config, "invalid option {0:?}"),
    Unknown(String, String) => (Config, "invalid option: {1}"),
    Value(String, String) => (Config, "invalid option: {1}"),
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
    /// [`Config`](crate::ErrorKind::Config) for an unknown key or a value of another type; its context `option` names
    /// the one that is wrong.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        let reading = Cell::new(None);
        let mut entries = self.0.iter();
        let noted = iter::from_fn(|| {
            let entry = entries.next();
            reading.set(entry.map(|(key, _)| (key, false)));
            entry.map(|(key, value)| (key.as_str(), Noted { key, value, reading: &reading }))
        });
        T::deserialize(MapDeserializer::new(noted)).map_err(|e: serde_json::Error| {
            let Some((key, is_value)) = reading.get() else {
                return OptionFault::Together(e.to_string()).into();
            };
            let fault = if is_value { OptionFault::Value } else { OptionFault::Unknown };
            Error::from(fault(key.clone(), e.to_string())).with_context("option", key)
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

/// A value that notes that it is read, to tell an error of it from one of its key.
struct Noted<'a> {
    key: &'a String,
    value: &'a Value,
    /// The option that is read, and whether its value is.
    reading: &'a Cell<Option<(&'a String, bool)>>,
}

impl<'a> IntoDeserializer<'a, serde_json::Error> for Noted<'a> {
    type Deserializer = Written<'a>;

    fn into_deserializer(self) -> Written<'a> {
        self.reading.set(Some((self.key, true)));
        Written(self.value)
    }
}

/// A value as it was written: where a text is wanted, `2024` and `true` are texts.
struct Written<'a>(&'a Value);

impl<'a> IntoDeserializer<'a, serde_json::Error> for Written<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Written<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Written))),
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        match self.0 {
            Value::Bool(_) | Value::Number(_) => visitor.visit_string(self.0.to_string()),
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
        self.0.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct
        map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_no_values() {
        let options = Options::parse(["password=hunter2", "retries=3", "header=a", "header=b"]).unwrap();
        let shown = format!("{options:?}");
        assert!(shown.contains("password") && shown.contains("retries"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains('3'), "{shown}");
    }
}
