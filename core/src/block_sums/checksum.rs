//! One checksum of all blocks of a file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::xxh3::Xxh3;
use crate::{Error, Result};

/// One checksum of a whole file. It finds damage, and is no digest.
///
/// ```
/// use plyfold_core::block_sums::{BlockSums, Checksum};
///
/// let checksum = BlockSums::read_all(&b"content"[..])?.checksum();
/// assert_eq!(checksum.to_string().parse::<Checksum>()?, checksum);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Checksum(u64);

impl Checksum {
    const NAME: &str = "xxh3-1m:";

    /// That of a file of this size, with these [bytes](super::BlockSums::to_bytes) as the checksums of its blocks.
    pub fn of(size: u64, sums: &[u8]) -> Self {
        let mut xxh3 = Xxh3::default();
        xxh3.update(&size.to_le_bytes());
        xxh3.update(sums);
        Self(xxh3.finish())
    }
}

impl fmt::Display for Checksum {
    /// `xxh3-1m:` and 16 digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:016x}", Self::NAME, self.0)
    }
}

impl FromStr for Checksum {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits = text.strip_prefix(Self::NAME);
        let digits = digits.filter(|digits| digits.len() == 16 && digits.bytes().all(is_digit));
        let sum = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).map(Self);
        sum.ok_or_else(|| Error::corrupt(format!("invalid checksum {text:?}")))
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

impl TryFrom<String> for Checksum {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
