//! What a hash tree depends on beside the data.

use plyfold_core::Result;

use crate::fault::VerityFault;
use crate::hex;

/// The longest salt, in bytes: what a superblock has room for.
const MAX_SALT: usize = 256;

/// What a hash tree depends on beside the data. The defaults are those of containerd: blocks of 4096 bytes, and 32 zero
/// bytes as the salt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parameters {
    data_block_size: u32,
    hash_block_size: u32,
    salt: Vec<u8>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { data_block_size: 4096, hash_block_size: 4096, salt: vec![0; 32] }
    }
}

impl Parameters {
    /// The bytes of data that one digest is of: 512, 1024, 2048 or 4096. It is the smallest unit that can be read of the
    /// device, so a file system on it has blocks of at least this size.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for any other size.
    pub fn with_data_block_size(mut self, bytes: u32) -> Result<Self> {
        self.data_block_size = block_size(bytes)?;
        Ok(self)
    }

    /// The bytes of one block of the tree, which holds a digest for every 32 of them: 512, 1024, 2048 or 4096.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for any other size.
    pub fn with_hash_block_size(mut self, bytes: u32) -> Result<Self> {
        self.hash_block_size = block_size(bytes)?;
        Ok(self)
    }

    /// What is hashed in front of every block, at most 256 bytes; none is possible.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a longer one.
    pub fn with_salt(mut self, salt: &[u8]) -> Result<Self> {
        if salt.len() > MAX_SALT {
            return Err(VerityFault::Salt(salt.len()).into());
        }
        self.salt = salt.to_vec();
        Ok(self)
    }

    /// As [`with_salt`](Self::with_salt), in hexadecimal digits; `-` is none.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for anything else, and for more than 256 bytes.
    pub fn with_salt_text(self, text: &str) -> Result<Self> {
        let salt = if text == "-" { Some(Vec::new()) } else { hex::decode(text).filter(|it| !it.is_empty()) };
        let salt = salt.ok_or_else(|| VerityFault::SaltDigits(text.to_owned()))?;
        self.with_salt(&salt)
    }

    /// The bytes of data that one digest is of.
    pub fn data_block_size(&self) -> u32 {
        self.data_block_size
    }

    /// The bytes of one block of the tree.
    pub fn hash_block_size(&self) -> u32 {
        self.hash_block_size
    }

    /// What is hashed in front of every block.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The salt as the kernel's table has it: hexadecimal digits, or `-` for none.
    pub fn salt_text(&self) -> String {
        if self.salt.is_empty() { "-".to_owned() } else { self.salt_hex() }
    }

    /// The salt in hexadecimal digits, as documents have it: an empty text for none.
    pub fn salt_hex(&self) -> String {
        hex::encode(&self.salt)
    }
}

fn block_size(bytes: u32) -> Result<u32> {
    if !bytes.is_power_of_two() || !(512..=4096).contains(&bytes) {
        return Err(VerityFault::BlockSize(bytes).into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::Parameters;
    use plyfold_core::ErrorKind;

    #[test]
    fn what_no_tree_can_have_is_refused() {
        let bad = [
            Parameters::default().with_data_block_size(256),
            Parameters::default().with_data_block_size(1536),
            Parameters::default().with_hash_block_size(0),
            Parameters::default().with_hash_block_size(8192),
            Parameters::default().with_salt(&[0; 257]),
            Parameters::default().with_salt_text(""),
            Parameters::default().with_salt_text("0"),
            Parameters::default().with_salt_text("zz"),
        ];
        for parameters in bad {
            assert_eq!(parameters.unwrap_err().kind(), &ErrorKind::Config);
        }
    }

    #[test]
    fn a_salt_is_text_both_ways() {
        let salted = |text| Parameters::default().with_salt_text(text).unwrap();
        assert_eq!((salted("-").salt(), salted("-").salt_text().as_str()), (&[][..], "-"));
        assert_eq!((salted("00Ff").salt(), salted("00Ff").salt_text().as_str()), (&[0, 0xff][..], "00ff"));
        assert_eq!(salted(&"ab".repeat(256)).salt().len(), 256);
    }
}
