//! How options and files of other tools may write a value.

use std::time::Duration;

use plyfold_core::Secret;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A value, or a list of values.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "neither a text of the right form nor a list of them")]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match Option::deserialize(deserializer)? {
        // Go's tools write an empty list as `null`.
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    })
}

/// A list that may be empty: as an option, by an empty text.
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let mut list: Vec<String> = one_or_many(deserializer)?;
    list.retain(|entry| !entry.is_empty());
    Ok(Some(list))
}

/// An option that is a text, also when it looks like a number: `-o` keeps those as they are written.
pub(crate) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value @ (Value::Number(_) | Value::Bool(_)) => Ok(Some(Secret::new(value.to_string()))),
        value => Secret::deserialize(value).map(Some).map_err(D::Error::custom),
    }
}

pub(crate) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = u32::deserialize(deserializer)?;
    Ok(Duration::from_secs(seconds.max(1).into()))
}
