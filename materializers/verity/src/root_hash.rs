//! The root hash.

use std::fmt;
use std::str::FromStr;

use plyfold_core::{Error, Result};

use crate::fault::VerityFault;
use crate::hex;

/// The one digest that all data is verified against. It is what has to come from a trusted place.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RootHash([u8; 32]);

impl RootHash {
    /// Of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(&self.0))
    }
}

impl FromStr for RootHash {
    type Err = Error;

    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for anything else.
    fn from_str(text: &str) -> Result<Self> {
        let bytes = hex::decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| VerityFault::RootHash(text.to_owned()).into())
    }
}
