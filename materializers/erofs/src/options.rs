//! What may vary between images of the same content.

use plyfold_core::layer::Timestamp;

use crate::compress::algorithm::{BLOCK, Compression};
use crate::fault::ErofsFault;
use plyfold_core::{Result, TreePlace};

/// Choices that change an image's bytes. The defaults give an image that Linux mounts from 5.4 on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    pub(crate) block_size: u32,
    pub(crate) label: [u8; 16],
    pub(crate) mtime: Option<Timestamp>,
    pub(crate) uuid: Option<[u8; 16]>,
}

impl Default for Options {
    fn default() -> Self {
        Self { block_size: 4096, label: [0; 16], mtime: None, uuid: None }
    }
}

impl Options {
    /// The block size in bytes: 512, 1024, 2048 or 4096. Less than 4096 makes images of small files smaller, and
    /// needs Linux 6.4. All layers of one merged image have the same.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for any other size.
    pub fn with_block_size(mut self, bytes: u32) -> Result<Self> {
        if !bytes.is_power_of_two() || !(512..=4096).contains(&bytes) {
            return Err(ErofsFault::BlockSize(bytes).into());
        }
        self.block_size = bytes;
        Ok(self)
    }

    /// The volume's name.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for more than 15 bytes, and for a NUL.
    pub fn with_label(mut self, label: &str) -> Result<Self> {
        if label.len() >= self.label.len() || label.contains('\0') {
            return Err(ErofsFault::Label.into());
        }
        self.label = [0; 16];
        self.label[..label.len()].copy_from_slice(label.as_bytes());
        Ok(self)
    }

    /// One modification time for every file, in place of the layer's.
    #[must_use]
    pub fn with_mtime(mut self, mtime: Timestamp) -> Self {
        self.mtime = Some(mtime);
        self
    }

    /// The volume's UUID, in place of the one derived from what the image is made of.
    #[must_use]
    pub fn with_uuid(mut self, uuid: [u8; 16]) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// What the layers of a merged image need of these, as text: their block size is the same, and they have hash trees if
    /// it has one.
    pub(crate) fn layers(&self, hash_tree: Option<TreePlace>) -> plyfold_core::Options {
        let size = (self.block_size != Self::default().block_size)
            .then(|| format!("block-size={}", self.block_size));
        let tree = hash_tree.map(|place| format!("verity={place}"));
        let texts: Vec<String> = size.into_iter().chain(tree).collect();
        // A text with `=` is always an option.
        plyfold_core::Options::parse(texts.iter().map(String::as_str)).unwrap_or_default()
    }

    /// Checks that files of an image with these options can be compressed.
    pub(crate) fn check_compression(&self) -> Result<()> {
        if self.block_size != BLOCK {
            return Err(ErofsFault::CompressedBlocks(self.block_size).into());
        }
        Ok(())
    }

    /// As [`Options::key`], and how files are compressed.
    pub(crate) fn key_with(&self, compression: Option<&Compression>) -> String {
        let (own, compression) = (self.key(), compression.map(Compression::key).unwrap_or_default());
        let between = if own.is_empty() || compression.is_empty() { "" } else { "-" };
        [&own, between, &compression].concat()
    }

    /// The choices that are no defaults, for a cache key: lower-case letters, digits and `-`.
    pub(crate) fn key(&self) -> String {
        let mut parts = Vec::new();
        if self.block_size != Self::default().block_size {
            parts.push(format!("b{}", self.block_size));
        }
        if self.label != [0; 16] {
            parts.push(format!("l{:032x}", u128::from_be_bytes(self.label)));
        }
        if let Some(Timestamp { seconds, nanos }) = self.mtime {
            parts.push(format!("t{:x}-{nanos:x}", seconds.cast_unsigned()));
        }
        if let Some(uuid) = self.uuid {
            parts.push(format!("u{:032x}", u128::from_be_bytes(uuid)));
        }
        parts.join("-")
    }
}

#[cfg(test)]
mod tests {
    use super::Options;
    use plyfold_core::ErrorKind;
    use plyfold_core::layer::Timestamp;

    #[test]
    fn every_choice_is_in_the_key() {
        let defaults = Options::default();
        let all = [
            defaults.clone(),
            defaults.clone().with_block_size(512).unwrap(),
            defaults.clone().with_label("a").unwrap(),
            defaults.clone().with_label("b").unwrap(),
            defaults.clone().with_mtime(Timestamp { seconds: -1, nanos: 1 }),
            defaults.clone().with_mtime(Timestamp { seconds: -1, nanos: 2 }),
            defaults.clone().with_uuid([1; 16]),
        ];
        let keys: std::collections::BTreeSet<String> = all.iter().map(Options::key).collect();
        assert_eq!(keys.len(), all.len());
        assert!(keys.iter().flat_map(|key| key.chars()).all(|c| c.is_ascii_alphanumeric() || c == '-'));
        assert_eq!(defaults.key(), "");
    }

    #[test]
    fn choices_that_no_image_can_have_are_refused() {
        let bad = [
            Options::default().with_block_size(256),
            Options::default().with_block_size(1536),
            Options::default().with_block_size(8192),
            Options::default().with_label("sixteen bytes ok"),
            Options::default().with_label("a\0b"),
        ];
        for options in bad {
            assert_eq!(options.unwrap_err().kind(), &ErrorKind::Config);
        }
    }
}
