//! The empty upper disk: its options and what they make of the cache key.

use plyfold_core::layer::{Metadata, Timestamp};
use plyfold_core::{Error, Result, Size};
use sha2::{Digest as _, Sha256};

use crate::fault::Ext4Fault;
use crate::format::BLOCK_SIZE;
use crate::xattr::Xattrs;

/// The smallest disk, in bytes: 64 MiB.
pub const MIN_SIZE: u64 = 64 << 20;

/// The largest disk, in bytes: 16 TiB.
pub const MAX_SIZE: u64 = 16 << 40;

/// An empty ext4 disk to be the upper of an overlay: `upper/`, `work/` and `lost+found/`.
///
/// Deterministic: the same options give the same bytes, so the default UUID is the same for all disks of one
/// kind. Give each disk its own [`uuid`](Self::uuid) where a guest tells disks apart by it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ext4Upper {
    pub(crate) size: u64,
    pub(crate) uuid: Option<[u8; 16]>,
    pub(crate) label: String,
    pub(crate) journal: bool,
    pub(crate) time: Timestamp,
    pub(crate) root: Metadata,
    pub(crate) xattrs: Xattrs,
}

impl Ext4Upper {
    /// A disk of `size` bytes with a journal, times at the epoch, and an `upper/` that is 0755 root:root.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) when `size` is below [`MIN_SIZE`], above [`MAX_SIZE`] or not a
    /// multiple of 4096.
    pub fn new(size: u64) -> Result<Self> {
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(Ext4Fault::Size(Size(size)).into());
        }
        if !size.is_multiple_of(BLOCK_SIZE as u64) {
            let nearest = size.next_multiple_of(BLOCK_SIZE as u64);
            let hint = format!("the next size that is, is {nearest} bytes");
            return Err(Error::from(Ext4Fault::Blocks(size)).with_hint(hint));
        }
        Ok(Self {
            size,
            uuid: None,
            label: String::new(),
            journal: true,
            time: Timestamp::default(),
            root: Metadata { mode: 0o755, ..Metadata::default() },
            xattrs: Xattrs::default(),
        })
    }

    /// The file system's UUID; by default one of version 8 (RFC 9562 5.8) that is derived from the other options.
    #[must_use]
    pub fn uuid(mut self, uuid: [u8; 16]) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// The volume label, at most 16 bytes.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a longer label or one with a NUL.
    pub fn label(mut self, label: &str) -> Result<Self> {
        if label.len() > 16 || label.contains('\0') {
            return Err(Ext4Fault::Label(label.to_owned()).into());
        }
        label.clone_into(&mut self.label);
        Ok(self)
    }

    /// Whether the file system has a journal (the default). A disk that is thrown away after a crash needs none.
    ///
    /// It takes 4 MiB of a disk below 128 MiB, 16 MiB below 1 GiB, 32 MiB below 2 GiB and 64 MiB of others. On a
    /// sparse host file they become allocated as the guest writes.
    #[must_use]
    pub fn journal(mut self, journal: bool) -> Self {
        self.journal = journal;
        self
    }

    /// The time of creation, and of all inodes but `upper/`'s modification; the epoch by default.
    ///
    /// Times outside of what ext4 can store (1901 to 2446) become the nearest that it can, as in the kernel.
    #[must_use]
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = time;
        self
    }

    /// The mode, owner, modification time and extended attributes of `upper/`, which overlayfs shows as those of
    /// the merged root: give it those of the image's root directory.
    ///
    /// overlayfs' own attributes (`trusted.overlay.*`, `user.overlay.*`) are left out: they would hide or
    /// redirect the layers below.
    ///
    /// # Errors
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for an attribute outside of `user.`, `trusted.`,
    /// `security.` and the POSIX ACLs, [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for an ACL that is not one,
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for more attributes than fit into one block.
    pub fn root(mut self, root: Metadata) -> Result<Self> {
        self.xattrs = Xattrs::new(&root.xattrs)?;
        self.root = root;
        Ok(self)
    }

    /// The UUID that the disk gets.
    pub(crate) fn effective_uuid(&self) -> [u8; 16] {
        self.uuid.unwrap_or_else(|| {
            let mut uuid = self.derived(b"uuid");
            uuid[6] = 0x80 | (uuid[6] & 0x0f);
            uuid[8] = 0x80 | (uuid[8] & 0x3f);
            uuid
        })
    }

    /// 16 bytes that depend on every option and on `purpose`.
    pub(crate) fn derived(&self, purpose: &[u8]) -> [u8; 16] {
        let mut hash = Sha256::new();
        let mut add = |field: &[u8]| {
            hash.update((field.len() as u64).to_le_bytes());
            hash.update(field);
        };
        add(b"plyfold ext4 upper");
        add(purpose);
        add(&self.size.to_le_bytes());
        add(self.uuid.as_ref().map_or(&[][..], |uuid| uuid));
        add(self.label.as_bytes());
        add(&[u8::from(self.journal)]);
        for time in [self.time, self.root.mtime] {
            add(&time.seconds.to_le_bytes());
            add(&time.nanos.to_le_bytes());
        }
        add(&self.root.mode.to_le_bytes());
        add(&self.root.uid.to_le_bytes());
        add(&self.root.gid.to_le_bytes());
        for (name, value) in &self.root.xattrs {
            add(name);
            add(value);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        bytes
    }
}
