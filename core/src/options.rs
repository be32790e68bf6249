//! Options of backends and materializers, by name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Advice, Error, Result};

/// What the message of a refused option begins with.
const INVALID: &str = "invalid option: ";

/// Options of a backend or of a materializer, as `key=value`.
///
/// A value that is JSON (`true`, `3`, `["a","b"]`) is taken as such, anything else is a string, also a number that
/// JSON would write in another way (`007`, `1e5`); a key given several times is a list.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Options(BTreeMap<String, serde_json::Value>);

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
    /// struct Config { retries: u32, mirror: Vec<String> }
    ///
    /// let options = Options::parse(["retries=3", "mirror=a", "mirror=b"])?;
    /// let config: Config = options.config()?;
    /// assert_eq!((config.retries, config.mirror.len()), (3, 2));
    /// # Ok::<(), plyfold_core::Error>(())
    /// ```
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        use serde_json::Value;
        let mut map: BTreeMap<String, Value> = BTreeMap::new();
        for pair in pairs {
            let (key, text) = pair.split_once('=').ok_or_else(|| {
                Error::config(format!("invalid option {pair:?}")).with_advice(Advice::WriteOption)
            })?;
            let value = serde_json::from_str(text).ok().filter(|value: &Value| {
                // It may be meant as a string: keep it byte for byte.
                value.as_number().is_none_or(|number| number.to_string() == text)
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
        self.read().map_err(|message| {
            let error = Error::config(format!("{INVALID}{message}"));
            // Ignoring any error here would change the result, so all of them are reported.
            let is_culprit = |key: &&String| self.without(key).read::<T>().err().as_ref() != Some(&message);
            match self.0.keys().find(is_culprit) {
                Some(key) => error.with_context("option", key),
                None => error,
            }
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

    fn read<T: DeserializeOwned>(&self) -> std::result::Result<T, String> {
        let object = self.0.clone().into_iter().collect();
        serde_json::from_value(serde_json::Value::Object(object)).map_err(|e| e.to_string())
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

    /// The option that was refused because there is none of that name, if that is what `error` says.
    pub fn unknown_in(error: &Error) -> Option<&str> {
        let message = error.message().strip_prefix(INVALID);
        let is_unknown = message.is_some_and(|message| message.starts_with("unknown field"));
        error.contexts().find(|(key, _)| is_unknown && *key == "option").map(|(_, name)| name)
    }
}
