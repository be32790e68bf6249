//! Layers as tars, written entry by entry.

use tar::{EntryType, Header};

/// A layer's tar under construction.
#[derive(Clone, Debug, Default)]
pub struct LayerBuilder {
    tar: Vec<u8>,
    /// PAX records for the next entry, owner, time and mode to use for it.
    pax: Vec<(String, Vec<u8>)>,
}

/// The time of entries that do not set their own: 2024-01-02 03:04:05 UTC.
pub const MTIME: u64 = 1_704_164_645;

impl LayerBuilder {
    /// An empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A directory.
    #[must_use]
    pub fn dir(self, path: impl AsRef<[u8]>, mode: u32) -> Self {
        self.entry(EntryType::Directory, path, mode, b"", |_| {})
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, mode: u32, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, mode, content, |_| {})
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<[u8]>, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, 0o777, b"", |header| link(header, target))
    }

    /// A hard link.
    #[must_use]
    pub fn hard_link(self, path: impl AsRef<[u8]>, target: &str) -> Self {
        self.entry(EntryType::Link, path, 0o644, b"", |header| link(header, target))
    }

    /// A character device.
    #[must_use]
    pub fn char_device(self, path: impl AsRef<[u8]>, mode: u32, major: u32, minor: u32) -> Self {
        self.entry(EntryType::Char, path, mode, b"", |header| device(header, major, minor))
    }

    /// A block device.
    #[must_use]
    pub fn block_device(self, path: impl AsRef<[u8]>, mode: u32, major: u32, minor: u32) -> Self {
        self.entry(EntryType::Block, path, mode, b"", |header| device(header, major, minor))
    }

    /// A named pipe.
    #[must_use]
    pub fn fifo(self, path: impl AsRef<[u8]>, mode: u32) -> Self {
        self.entry(EntryType::Fifo, path, mode, b"", |_| {})
    }

    /// A whiteout of `path` (OCI image spec, `layer.md#whiteouts`).
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let slash = if parent.is_empty() { "" } else { "/" };
        self.file(format!("{parent}{slash}.wh.{name}"), 0o644, b"")
    }

    /// An opaque whiteout of everything that lower layers have below `dir`.
    #[must_use]
    pub fn opaque(self, dir: &str) -> Self {
        self.file(format!("{dir}/.wh..wh..opq"), 0o644, b"")
    }

    /// A PAX record for the next entry.
    #[must_use]
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// An extended attribute of the next entry (`SCHILY.xattr`).
    #[must_use]
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// The owner of the next entry, as PAX records of any size.
    #[must_use]
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.pax("uid", uid.to_string()).pax("gid", gid.to_string())
    }

    /// The time of the next entry, as seconds with a fraction.
    #[must_use]
    pub fn mtime(self, text: &str) -> Self {
        self.pax("mtime", text)
    }

    /// A sparse file in PAX 1.0 form: real size, and its runs of data at their offsets.
    #[must_use]
    pub fn sparse_file(self, path: &str, mode: u32, size: u64, runs: &[(u64, &[u8])]) -> Self {
        let map = runs.iter().map(|(offset, data)| format!("{offset}\n{}\n", data.len()));
        let mut stored = format!("{}\n{}", runs.len(), map.collect::<String>()).into_bytes();
        stored.resize(stored.len().next_multiple_of(512), 0);
        for (_, data) in runs {
            stored.extend_from_slice(data);
        }
        self.pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", path)
            .pax("GNU.sparse.realsize", size.to_string())
            .file("GNUSparseFile.0/data", mode, &stored)
    }

    /// Any entry; `change` has the last word on the header.
    #[must_use]
    pub fn entry(
        mut self,
        kind: EntryType,
        path: impl AsRef<[u8]>,
        mode: u32,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut path = path.as_ref().to_vec();
        if kind == EntryType::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        if path.len() > 100 {
            self.pax.push(("path".to_owned(), path.clone()));
        }
        self.flush_pax();
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..100].fill(0);
        let head = path.len().min(100);
        header.as_mut_bytes()[..head].copy_from_slice(&path[..head]);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(MTIME);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.append(&header, content);
        self
    }

    /// The finished tar: two zero blocks at the end.
    pub fn finish(mut self) -> Vec<u8> {
        self.tar.resize(self.tar.len() + 1024, 0);
        self.tar
    }

    fn flush_pax(&mut self) {
        if self.pax.is_empty() {
            return;
        }
        let records: Vec<u8> = self.pax.drain(..).flat_map(|(key, value)| record(&key, &value)).collect();
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..9].copy_from_slice(b"PaxHeader");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.append(&header, &records);
    }

    fn append(&mut self, header: &Header, content: &[u8]) {
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
    }
}

/// One PAX record, `LENGTH key=value\n`; the length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn link(header: &mut Header, target: &str) {
    // Bytes 157..257 hold the link name; longer ones come from a PAX record.
    let bytes = target.as_bytes();
    let head = bytes.len().min(100);
    header.as_mut_bytes()[157..157 + head].copy_from_slice(&bytes[..head]);
}

fn device(header: &mut Header, major: u32, minor: u32) {
    // Seven octal digits each, at 329 and 337.
    header.as_mut_bytes()[329..337].copy_from_slice(format!("{major:07o}\0").as_bytes());
    header.as_mut_bytes()[337..345].copy_from_slice(format!("{minor:07o}\0").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        assert_eq!(record("a", b"1"), b"6 a=1\n");
        assert_eq!(record("path", &[b'x'; 90]).len(), 99);
        assert_eq!(record("path", &[b'x'; 91]).len(), 101);
    }

    #[test]
    fn the_tar_crate_reads_it() {
        let long = "d/".repeat(80) + "name";
        let tar = LayerBuilder::new().owner(3_000_000, 1).file(&long, 0o600, b"hello").finish();
        let mut archive = tar::Archive::new(&tar[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(*entry.path_bytes(), *long.as_bytes());
        assert_eq!(entry.header().uid().unwrap(), 3_000_000);
        assert_eq!(entry.size(), 5);
    }
}
