//! What proves to a backend who asks.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A credential for one registry, such as a program that serves several tenants gives with each
/// [call](crate::PullOptions::credential). `Debug` shows no secret.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Credential {
    /// None: what is stored on this machine is not used either.
    Anonymous,
    /// A user name and a password.
    Basic(Secret, Secret),
    /// A token that the registry's token server turns into others ("identity token").
    IdentityToken(Secret),
    /// A token for the registry itself.
    RegistryToken(Secret),
}

impl Credential {
    /// A user name and a password.
    pub fn basic(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Basic(Secret::new(user), Secret::new(password))
    }
}

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
        String::deserialize(deserializer)
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a secret is not a text"))
    }
}
