//! The archive that a kernel unpacks as its first root file system: cpio in its form `newc`
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of Linux).

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::{Error, Result};

/// The longest file that goes into an archive, in bytes.
pub(super) const LONGEST: u64 = 64 << 20;

/// An archive under construction.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    count: usize,
}

impl Archive {
    /// Adds a directory.
    pub(super) fn directory(&mut self, name: &str) {
        self.add(name, 0o040_755, b"");
    }

    /// Adds a file that can be run.
    pub(super) fn program(&mut self, name: &str, content: &[u8]) {
        self.add(name, 0o100_755, content);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn add(&mut self, name: &str, mode: usize, content: &[u8]) {
        self.count += 1;
        // Number, mode, user, group, links, time, length, four device numbers, length of the name, checksum.
        let fields = [self.count, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Names and contents end at a multiple of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Reads a file that goes into an archive.
pub(super) fn content(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| Error::io("reading a file for the initramfs", e).with_context("path", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_have_an_end() {
        let mut archive = Archive::default();
        archive.program("init", b"12345");
        let bytes = archive.finish();
        // 110 bytes of numbers, the name with its NUL, and padding; then the content and padding.
        assert_eq!((&bytes[110..115], &bytes[116..121]), (&b"init\0"[..], &b"12345"[..]));
        assert_eq!((&bytes[14..22], &bytes[54..62]), (&b"000081ed"[..], &b"00000005"[..]));
        assert_eq!((&bytes[124..130], &bytes[234..245]), (&b"070701"[..], &b"TRAILER!!!\0"[..]));
        assert_eq!(bytes.len() % 4, 0);
    }
}
