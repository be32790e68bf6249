//! Text that is never printed.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A user name, password or token. `Debug` shows that there is one, not which.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for where it has to go.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Texts only. serde's own message for another type would quote the value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer) {
            Ok(serde_json::Value::String(text)) => Ok(Self(text)),
            _ => Err(not_text()),
        }
    }
}

/// An option that is a text, also when it looks like a number: `-o` keeps those as they are written.
pub(crate) fn option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    match serde_json::Value::deserialize(deserializer) {
        Ok(serde_json::Value::String(text)) => Ok(Some(Secret(text))),
        Ok(serde_json::Value::Null) => Ok(None),
        Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => {
            Ok(Some(Secret(value.to_string())))
        }
        _ => Err(not_text()),
    }
}

fn not_text<E: serde::de::Error>() -> E {
    E::custom("a user name, password or header field is not a text")
}
