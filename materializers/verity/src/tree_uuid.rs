//! The UUID in a superblock.

use std::fmt;
use std::str::FromStr;

use plyfold_core::{Error, Result};

use crate::fault::VerityFault;
use crate::root_hash::RootHash;

/// The UUID in a superblock. No digest covers it, and the kernel does not read it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// Of these bytes.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for zeros, which containerd refuses to read.
    pub fn new(bytes: [u8; 16]) -> Result<Self> {
        if bytes == [0; 16] { Err(VerityFault::NilUuid.into()) } else { Ok(Self(bytes)) }
    }

    /// Of a tree with this root hash: version 5 (RFC 9562 5.5) of `dm-verity:ROOT` in the namespace of URLs.
    pub fn derived(root: &RootHash) -> Self {
        let name = format!("dm-verity:{root}");
        Self(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).into_bytes())
    }

    /// As a superblock has it, also zeros.
    pub(crate) fn read(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl FromStr for Uuid {
    type Err = Error;

    /// Reads the form with hyphens, or 32 hexadecimal digits.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for anything else, and for zeros.
    fn from_str(text: &str) -> Result<Self> {
        let read = uuid::Uuid::try_parse(text);
        Self::new(read.map_err(|_| Error::from(VerityFault::UuidText(text.to_owned())))?.into_bytes())
    }
}
