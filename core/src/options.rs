//! Options of backends and materializers, by name.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::iter;

use serde::Serialize;
use serde::de::value::{BorrowedStrDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_json::Value;

use crate::refusal::Refusal;
use crate::{Advice, Error};

crate::fault! {
    /// Why options are refused. As an error, a fault of one option has its name in the context `option`.
    pub enum OptionFault;
    /// The text, which has no `=`:
    Syntax(String) => (Config, "invalid option {0:?}"),
    /// An option that there is not: its name, and those that there are:
    Unknown(String, String) => (Config, "there is no option `{0}`: {1}") in "option",
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
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> crate::Result<Self> {
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
    pub fn config<T: DeserializeOwned>(&self) -> crate::Result<T> {
        let (reading, is_read) = (Cell::new(None), Cell::new(false));
        let mut entries = self.0.iter();
        let noted = iter::from_fn(|| {
            let entry = entries.next();
            reading.set(entry.map(|(key, _)| key));
            is_read.set(false);
            entry.map(|(key, value)| (key.as_str(), Written { value, is_read: &is_read }))
        });
        T::deserialize(MapDeserializer::new(noted)).map_err(|Refusal(why)| {
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
    pub fn refuse(&self) -> crate::Result<()> {
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

/// The error with those that have the option, or the value of it, if it is of one that there is not: out of names with what
/// they take, such as `align=BYTES, depth=NUMBER, place=above|below`.
pub(crate) fn with_those_that_have(
    error: Error,
    given: &Options,
    what: &str,
    entries: impl Iterator<Item = (&'static str, &'static str)>,
) -> Error {
    let (key, value) = match error.detail() {
        Some(OptionFault::Unknown(key, _)) => (key, None),
        Some(OptionFault::Value(key, _)) => match given.0.get(key) {
            Some(Value::String(value)) => (key, Some(value)),
            _ => return error,
        },
        _ => return error,
    };
    let has_value = |values: &str| {
        value.is_none_or(|value| values.contains('|') && values.split('|').any(|one| one == value))
    };
    let has = |options: &str| {
        let mut options = options.split(", ").filter_map(|option| option.split_once('='));
        options.any(|(name, values)| name == key && has_value(values))
    };
    let names: Vec<&str> = entries.filter(|(_, options)| has(options)).map(|(name, _)| name).collect();
    let hint = match (&*names, value) {
        ([], _) => return error,
        ([one], Some(value)) => format!("{key}={value} is of the {what} {one}"),
        (_, Some(value)) => format!("{key}={value} is of the {what}s {}", names.join(", ")),
        ([one], None) => format!("the {what} {one} has the option `{key}`"),
        (_, None) => format!("the {what}s {} have the option `{key}`", names.join(", ")),
    };
    error.with_hint(hint)
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

impl<'a> IntoDeserializer<'a, Refusal> for Written<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self.is_read.set(true);
        self
    }
}

/// Methods for types of one value: what is not of the type is refused without the names of Rust's types.
macro_rules! single {
    ($($is:ident $what:literal: $($method:ident)+;)+) => {
        $($(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            match self.value {
                Value::Array(values) => Err(several(values)),
                value if value.$is() => self.deserialize_any(visitor),
                value => Err(de::Error::custom(format!("{value} is not {}", $what))),
            }
        })+)+
    };
}

fn several(values: &[Value]) -> Refusal {
    de::Error::custom(format!("it takes one value, and is given {}", values.len()))
}

impl<'de> Deserializer<'de> for Written<'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let nested = |value| Written { value, ..self };
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (_, Some(number)) => visitor.visit_i64(number),
                _ => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(nested))),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (key.as_str(), nested(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Array(values) => Err(several(values)),
            Value::Bool(_) | Value::Number(_) => visitor.visit_string(self.value.to_string()),
            Value::String(text) => visitor.visit_borrowed_str(text),
            value => Err(de::Error::custom(format!("{value} is not a text"))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_string(visitor)
    }

    /// A list: one value is a list of it.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Array(_) => self.deserialize_any(visitor),
            _ => visitor.visit_seq(SeqDeserializer::new(iter::once(self))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    /// One of several words.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Array(values) => Err(several(values)),
            Value::String(text) => visitor.visit_enum(BorrowedStrDeserializer::new(text)),
            value => Err(de::Error::unknown_variant(&value.to_string(), known)),
        }
    }

    single! {
        is_boolean "`true` or `false`": deserialize_bool;
        is_number "a number": deserialize_f32 deserialize_f64;
        is_i64 "a whole number": deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64;
        is_u64 "a whole number, 0 or more": deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64;
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        align: u64,
        delta: i32,
        label: String,
        many: Vec<String>,
        small: u8,
        some: NonZero<u32>,
        sparse: bool,
        verity: Option<Verity>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Verity {
        Append,
        Apart,
    }

    impl Default for Config {
        fn default() -> Self {
            let (label, many, some) = (String::new(), Vec::new(), NonZero::<u32>::MIN);
            Self { align: 1, delta: 0, label, many, small: 0, some, sparse: true, verity: None }
        }
    }

    #[test]
    fn a_value_that_another_one_has_is_found() {
        let entries = [
            ("one", "verity=append|apart"),
            ("two", "align=BYTES, verity=append|beside"),
            ("three", "verity=beside"),
        ];
        for (pair, said) in [
            ("verity=beside", Some("verity=beside is of the format two")),
            ("verity=append", Some("verity=append is of the formats one, two")),
            ("verity=inside", None),
            ("verity=3", None),
        ] {
            let options = Options::parse([pair]).unwrap();
            let error = Error::from(OptionFault::Value("verity".to_owned(), "refused".to_owned()));
            let error = with_those_that_have(error, &options, "format", entries.into_iter());
            assert_eq!(error.hint(), said, "{pair}");
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
            (&["verity=inside"], "verity", "\"inside\" is not `append` or `apart`"),
            (&["verity=3"], "verity", "\"3\" is not `append` or `apart`"),
            (&["verity=append", "verity=apart"], "verity", "it takes one value, and is given 2"),
            (
                &["align=18446744073709551616"],
                "align",
                "\"18446744073709551616\" is not a whole number, 0 or more",
            ),
            (&["small=300"], "small", "300 is too large"),
            (&["small=-1"], "small", "-1 is not a whole number, 0 or more"),
            (&["some=0"], "some", "0 is too small"),
            (&["label={}"], "label", "{} is not a text"),
            (&["many=a", "many={}"], "many", "{} is not a text"),
        ] {
            let error = Options::parse(pairs.iter().copied()).unwrap().config::<Config>().unwrap_err();
            assert_eq!(error.message(), format!("invalid option `{key}`: {said}"));
            assert_eq!(error.context("option"), Some(key));
            assert!(matches!(error.detail(), Some(OptionFault::Value(name, _)) if name == key));
        }
        let config: Config = Options::parse(["many=a", "many=b", "delta=-3"]).unwrap().config().unwrap();
        assert_eq!((config.align, config.delta, config.many.len(), config.sparse), (1, -3, 2, true));
        let config: Config =
            Options::parse(["many=a", "small=255", "verity=apart"]).unwrap().config().unwrap();
        assert_eq!(
            (config.many, config.small, config.verity),
            (vec!["a".to_owned()], 255, Some(Verity::Apart))
        );
    }

    #[test]
    fn what_there_is_not_is_said_with_what_there_is() {
        let said = |refused: crate::Result<()>| refused.unwrap_err().message().to_owned();
        let options = Options::parse(["depth=3"]).unwrap();
        assert_eq!(said(options.refuse()), "there is no option `depth`: there are none");
        assert_eq!(
            said(options.config::<Config>().map(drop)),
            "there is no option `depth`: there are `align`, `delta`, `label`, `many`, `small`, `some`, `sparse` and `verity`"
        );
    }

    #[test]
    fn debug_shows_names_and_no_values() {
        let options = Options::parse(["password=hunter2", "retries=3", "header=a", "header=b"]).unwrap();
        let shown = format!("{options:?}");
        assert!(shown.contains("password") && shown.contains("retries"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains('3'), "{shown}");
    }
}
