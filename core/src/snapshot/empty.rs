//! Empty disks, which are the same whenever they are made.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::check;
use super::fault::invalid;
use super::image::check_size;
use crate::layer::{Metadata, Timestamp};
use crate::{Error, Format, Result};

/// Bytes of the names and values of extended attributes: more than ext4 has room for.
const XATTR_BYTES: usize = 64 << 10;
/// Bytes of one name (`XATTR_NAME_MAX`).
const XATTR_NAME: usize = 255;

/// An empty disk that is the same whenever it is made: an `upper.ext4`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(into = "Form", try_from = "Form")]
pub struct EmptyDisk {
    /// The name and the version of its format, such as `ext4-upper-v1`.
    pub format: String,
    /// Its size in bytes.
    pub size: u64,
    /// What its root, or the root of the upper in it, has: that of the image's root.
    pub root: Metadata,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Form {
    format: String,
    size: u64,
    mode: u16,
    uid: u32,
    gid: u32,
    seconds: i64,
    #[serde(default)]
    nanos: u32,
    /// Names and values in hexadecimal digits.
    #[serde(default)]
    xattrs: Vec<(String, String)>,
}

impl EmptyDisk {
    /// An empty disk of a format, with a root like the image's.
    pub fn new(format: &Format, size: u64, root: Metadata) -> Self {
        Self { format: name_of(format), size, root }
    }

    /// Whether it is one of this format and version.
    pub fn is_of(&self, format: &Format) -> bool {
        self.format == name_of(format)
    }

    fn check(&self) -> Result<()> {
        check::format(&self.format, &self.format)?;
        check_size(self.size)?;
        let Metadata { mode, mtime, xattrs, .. } = &self.root;
        let is_name = |name: &[u8]| (1..=XATTR_NAME).contains(&name.len()) && !name.contains(&0);
        let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let is_sorted = xattrs.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let is_right = *mode <= 0o7777 && mtime.nanos < 1_000_000_000;
        if !is_right || !is_sorted || bytes > XATTR_BYTES || !xattrs.iter().all(|(name, _)| is_name(name)) {
            return Err(invalid("the root of an empty disk has attributes that no directory has"));
        }
        Ok(())
    }
}

impl From<EmptyDisk> for Form {
    fn from(EmptyDisk { format, size, root }: EmptyDisk) -> Self {
        let Metadata { mode, uid, gid, mtime: Timestamp { seconds, nanos }, xattrs } = root;
        let xattrs = xattrs.iter().map(|(name, value)| (hex(name), hex(value))).collect();
        Self { format, size, mode, uid, gid, seconds, nanos, xattrs }
    }
}

impl TryFrom<Form> for EmptyDisk {
    type Error = Error;

    fn try_from(form: Form) -> Result<Self> {
        let Form { format, size, mode, uid, gid, seconds, nanos, xattrs } = form;
        let pair = |(name, value): &(String, String)| Some((bytes(name)?, bytes(value)?));
        let xattrs: Option<Vec<_>> = xattrs.iter().map(pair).collect();
        let xattrs = xattrs.ok_or_else(|| invalid("an extended attribute is not in hexadecimal digits"))?;
        let root = Metadata { mode, uid, gid, mtime: Timestamp { seconds, nanos }, xattrs };
        let disk = Self { format, size, root };
        disk.check()?;
        Ok(disk)
    }
}

fn name_of(format: &Format) -> String {
    format!("{}-v{}", format.name, format.version)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = hex.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(digit(&pair[0])? << 4 | digit(&pair[1])?)).collect()
}
