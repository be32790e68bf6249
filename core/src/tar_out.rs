//! Writing tar: ustar headers by the `tar` crate, and PAX records for what they cannot hold.

use std::io::Write;

use tar::{EntryType, Header};

use crate::{Error, Result};

/// Bytes of a header, and what the data of an entry is padded to.
pub(crate) const BLOCK: u64 = 512;
/// What 11 octal digits hold (POSIX ustar, size and mtime).
pub(crate) const LONG_MAX: u64 = 0o777_7777_7777;

/// A tar on its way to `W`.
pub(crate) struct TarOut<W> {
    out: W,
    /// Bytes so far.
    written: u64,
}

impl<W: Write> TarOut<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, written: 0 }
    }

    /// A header, behind one with its PAX records if it has any.
    pub(crate) fn header(&mut self, mut header: Header, pax: &Pax) -> Result<()> {
        self.extension(&pax.0)?;
        header.set_cksum();
        self.data(header.as_bytes())
    }

    /// The header of a regular file that is no part of an image: the same for the same name and size.
    pub(crate) fn member(&mut self, name: &str, size: u64) -> Result<()> {
        self.plain(name, EntryType::Regular, 0o444, size)
    }

    /// The header of such a folder.
    pub(crate) fn folder(&mut self, name: &str) -> Result<()> {
        self.plain(&format!("{name}/"), EntryType::Directory, 0o755, 0)
    }

    /// The header of a link to another member.
    pub(crate) fn link(&mut self, name: &str, target: &str, is_hard: bool) -> Result<()> {
        let (mut header, mut pax) = (Header::new_ustar(), Pax::default());
        field(&mut header, 157, target.as_bytes(), "linkpath", &mut pax);
        let kind = if is_hard { EntryType::Link } else { EntryType::Symlink };
        self.named((header, pax), name, kind, 0o777, 0)
    }

    fn plain(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        self.named((Header::new_ustar(), Pax::default()), name, kind, mode, size)
    }

    fn named(
        &mut self,
        (mut header, mut pax): (Header, Pax),
        name: &str,
        kind: EntryType,
        mode: u32,
        size: u64,
    ) -> Result<()> {
        field(&mut header, 0, name.as_bytes(), "path", &mut pax);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        set_size(&mut header, size, &mut pax);
        self.header(header, &pax)
    }

    /// How many bytes it has so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    fn extension(&mut self, records: &[u8]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..9].copy_from_slice(b"PaxHeader");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.data(header.as_bytes())?;
        self.data(records)?;
        self.pad()
    }

    pub(crate) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.written = self.written.wrapping_add(bytes.len() as u64);
        self.out.write_all(bytes).map_err(|e| Error::io("writing the tar", e))
    }

    /// Data that `write` writes to the output by itself: `length` bytes, or it fails.
    pub(crate) fn data_by(&mut self, length: u64, write: impl FnOnce(&mut W) -> Result<()>) -> Result<()> {
        self.written = self.written.wrapping_add(length);
        write(&mut self.out)
    }

    /// Fills the last block of an entry's data.
    pub(crate) fn pad(&mut self) -> Result<()> {
        let rest = self.written.wrapping_neg() % BLOCK;
        self.data(&[0; BLOCK as usize][..rest as usize])
    }

    pub(crate) fn end(mut self) -> Result<()> {
        self.data(&[0; 2 * BLOCK as usize])?;
        self.out.flush().map_err(|e| Error::io("writing the tar", e))
    }
}

/// Puts a size into its field, and into PAX when it is too large for that.
pub(crate) fn set_size(header: &mut Header, size: u64, pax: &mut Pax) {
    header.set_size(size);
    if size > LONG_MAX {
        pax.add("size", size.to_string().as_bytes());
    }
}

/// Puts a text into a field of 100 bytes, and into PAX when it is longer.
pub(crate) fn field(header: &mut Header, at: usize, text: &[u8], key: &str, pax: &mut Pax) {
    let held = text.len().min(100);
    header.as_mut_bytes()[at..at + held].copy_from_slice(&text[..held]);
    if text.len() > held {
        pax.add(key, text);
    }
}

/// The records of an extended header.
#[derive(Default)]
pub(crate) struct Pax(Vec<u8>);

impl Pax {
    /// `"%d %s=%s\n"`, where the number counts its own digits.
    pub(crate) fn add(&mut self, key: impl AsRef<[u8]>, value: &[u8]) {
        let key = key.as_ref();
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        for part in [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_beyond_8_gib_and_a_long_name_are_read_back() {
        for (name, size) in [("a", 0), ("a", LONG_MAX), ("b", LONG_MAX + 1), (&*"n".repeat(150), 9 << 30)] {
            let mut bytes = Vec::new();
            TarOut::new(&mut bytes).member(name, size).unwrap();
            let mut tar = tar::Archive::new(&bytes[..]);
            let entry = tar.entries().unwrap().next().unwrap().unwrap();
            assert_eq!((entry.size(), &*entry.path_bytes()), (size, name.as_bytes()));
            assert_eq!(bytes.len(), if size > LONG_MAX || name.len() > 100 { 1536 } else { 512 });
        }
    }
}
