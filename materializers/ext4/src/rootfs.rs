//! A whole image as one ext4 file system.

use std::io::SeekFrom;

use plyfold_core::tree::MergedTree;
use plyfold_core::{
    Digest, Error, Format, Input, Made, Materializer, Output, OutputSpec, Result, Role, Sink, Size, TreePlace,
};
use plyfold_verity::{tree_key, tree_outputs, with_tree};
use uuid::Uuid;

use crate::extents::Extents;
use crate::fault::Ext4Fault;
use crate::format::{BLOCK_SIZE, Checksum};
use crate::geometry::Geometry;
use crate::layout::journal_blocks;
use crate::plan::Plan;
use crate::populate::{Settings, write};
use crate::resize::resize;
use crate::upper::MAX_SIZE;

/// The smallest journal, in bytes: 1,024 blocks (`JBD2_MIN_JOURNAL_BLOCKS`).
pub const MIN_JOURNAL: u64 = 4 << 20;

/// The largest journal, in bytes.
pub const MAX_JOURNAL: u64 = 32 << 30;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// The least room that a file system without a chosen size has for more, in bytes.
const SPARE: u64 = 64 << 20;

/// Makes one ext4 file system of a whole OCI image: a root disk that can be written to, without an overlay.
///
/// It holds what the image shows, with owners, times to the nanosecond, links, devices and extended attributes, and an
/// empty `lost+found/` unless the image has a file of this name. A run of 64 KiB of zeros or more is a hole (longer ones in
/// files above 2 GiB), whether it was one in the layer or not. Large directories are hash trees.
///
/// Without a [hash tree](Self::with_hash_tree) a cache keeps the smallest file system that holds the image, for all sizes: [`image`](Materializer::image) writes it.
/// [`adapt`](Materializer::adapt) grows a copy of it to the [size](Self::size), as [`resize`](crate::resize()) does: what
/// is free is a hole of the file, and no inode table is written beyond the inodes in use.
///
/// What ext4 cannot express:
/// - xattrs outside of `user.`, `trusted.`, `security.` and POSIX ACLs are left out, which
///   [`Made::losses`](plyfold_core::Made::losses) tells;
/// - a time outside of 1901 to 2446, a file of 16 TiB or more, a file of more than 65,000 names, a symbolic link of 4,096 bytes, a device number over
///   4095:1048575, or xattrs whose names take more than a block of 4 KiB are a
///   [`Limit`](plyfold_core::ErrorKind::Limit) error, and an ACL that is not one is
///   [`Corrupt`](plyfold_core::ErrorKind::Corrupt).
///
/// The same image and options give the same bytes, however its layers were packed. Give each disk its own
/// [`uuid`](Self::uuid) where a guest tells disks apart by it. Linux mounts it from 3.18 on; from 4.13 where the xattrs of
/// a file take more than 4 KiB.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ext4Rootfs {
    size: Option<u64>,
    journal: Journal,
    label: String,
    uuid: Option<[u8; 16]>,
    hash_tree: Option<TreePlace>,
}

/// The journal of a file system.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Journal {
    /// Of a size that follows from that of the content: 4 MiB below 128 MiB, 16 MiB below 1 GiB, 32 MiB below 2 GiB and
    /// 64 MiB above. On a sparse host file it becomes allocated as the guest writes.
    #[default]
    Auto,
    /// None: for a disk that is thrown away after a crash.
    None,
    /// Of so many bytes, from [`MIN_JOURNAL`] to [`MAX_JOURNAL`], in whole blocks of 4096 bytes.
    Bytes(u64),
}

impl Ext4Rootfs {
    /// A file system with a journal and room for a quarter more than its content, at least for 64 MiB more.
    pub fn new() -> Self {
        Self::default()
    }

    /// The size of the disk in bytes. What the content does not take costs no room on the host, and milliseconds.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) above [`MAX_SIZE`] and for what is not a multiple of 4096. A size that
    /// is too small for the image is found when the image is known, before anything is written.
    pub fn size(mut self, bytes: u64) -> Result<Self> {
        if bytes > MAX_SIZE || bytes == 0 {
            return Err(Ext4Fault::RootfsSize(Size(bytes)).into());
        }
        if !bytes.is_multiple_of(BLOCK) {
            let fault = Error::from(Ext4Fault::Blocks(bytes));
            // Files of no image fit into so few bytes: a unit is missing.
            return Err(if bytes < 1 << 20 {
                fault.with_hint("write a size with its unit, such as 512M or 8G")
            } else {
                fault.with_hint(format!("the next size that is, is {} bytes", bytes.next_multiple_of(BLOCK)))
            });
        }
        self.size = Some(bytes);
        Ok(self)
    }

    /// The journal.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a size that a journal cannot have.
    pub fn journal(mut self, journal: Journal) -> Result<Self> {
        if let Journal::Bytes(bytes) = journal
            && !((MIN_JOURNAL..=MAX_JOURNAL).contains(&bytes) && bytes.is_multiple_of(BLOCK))
        {
            return Err(Ext4Fault::Journal(bytes).into());
        }
        self.journal = journal;
        Ok(self)
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

    /// The file system's UUID; by default version 5 of `ext4:image/DIFF_ID/DIFF_ID/…` in the URL namespace, the layers
    /// bottom first, or of `ext4:image` for layers that were read without hashing.
    #[must_use]
    pub fn uuid(mut self, uuid: [u8; 16]) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// The same as a root disk that stays as it is, with a dm-verity hash tree of the whole disk, in blocks of 4096 bytes.
    ///
    /// It is mounted read-only. So it has no more room than its content takes, unless it has a [size](Self::size), which is
    /// then that of the artifact, and no journal, unless one is asked for. [`adapt`](Materializer::adapt) changes nothing.
    #[must_use]
    pub fn with_hash_tree(mut self, place: TreePlace) -> Self {
        self.hash_tree = Some(place);
        self
    }

    /// The options that are no defaults, for a cache key: lower-case letters, digits and `-`. The size is one of them where
    /// there is a hash tree of it: else a copy is grown to it.
    fn key(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.size.filter(|_| self.hash_tree.is_some()).map(|size| format!("s{size}")));
        match self.journal {
            Journal::Auto => {}
            Journal::None => parts.push("j0".to_owned()),
            Journal::Bytes(bytes) => parts.push(format!("j{bytes}")),
        }
        if !self.label.is_empty() {
            parts.push(self.label.bytes().fold("l".to_owned(), |text, byte| format!("{text}{byte:02x}")));
        }
        if let Some(uuid) = self.uuid {
            parts.push(format!("u{:032x}", u128::from_be_bytes(uuid)));
        }
        tree_key(parts.join("-"), self.hash_tree)
    }

    /// The blocks of the journal beside so many of files.
    fn journal_blocks(&self, inodes: u64, data: u64) -> u64 {
        match self.journal {
            Journal::None => 0,
            Journal::Auto if self.hash_tree.is_some() => 0,
            Journal::Bytes(bytes) => bytes / BLOCK,
            Journal::Auto => {
                Geometry::least(inodes, data).map_or(0, |least| journal_blocks(least.blocks).into())
            }
        }
    }

    /// Checks that a file system of so many bytes has no more than the size that is asked for.
    fn check_size(&self, needed: u64) -> Result<()> {
        match self.size.filter(|size| *size < needed) {
            None => Ok(()),
            Some(size) => {
                let hint = format!("the least size that would do is {needed} bytes ({})", Size(needed));
                Err(Error::from(Ext4Fault::TooSmall(Size(size))).with_hint(hint))
            }
        }
    }
}

impl Materializer for Ext4Rootfs {
    fn format(&self) -> Format {
        Format { name: "ext4", version: 2, options: self.key(), extension: "ext4" }
    }

    fn input(&self) -> Input {
        Input::Image
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        let image = OutputSpec::new(Role::Image, "ext4");
        if self.hash_tree.is_none() { vec![image.writable()] } else { tree_outputs(image, self.hash_tree) }
    }

    fn has_hash_tree(&self) -> bool {
        self.hash_tree.is_some()
    }

    /// Grows the file system to its size, but for one with a hash tree, which has it.
    fn adapt(&self, _: Role, copy: &mut dyn Output) -> Result<()> {
        if self.hash_tree.is_some() {
            return Ok(());
        }
        let length = copy.seek(SeekFrom::End(0)).map_err(|e| Error::io("looking at an ext4 disk", e))?;
        self.check_size(length)?;
        let more = (length / 4).max(SPARE);
        let size = self.size.unwrap_or((length + more).next_multiple_of(1 << 20).min(MAX_SIZE));
        resize(copy, size).map(drop)
    }

    /// Writes the smallest file system that holds the image into `out`, which must be empty: what is not written has to
    /// read as zeros. [`adapt`](Self::adapt) grows it.
    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        with_tree(self.hash_tree, BLOCK_SIZE as u32, None, out, |out| {
            let made = self.write(image, out)?;
            if let Some(size) = self.size.filter(|_| self.hash_tree.is_some()) {
                resize(out.output(Role::Image)?, size)?;
            }
            Ok(made)
        })
    }
}

impl Ext4Rootfs {
    fn write(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        let layers = image.diff_ids();
        let uuid = self.uuid.unwrap_or_else(|| derived("ext4:image", layers));
        let plan = Plan::new(image, Checksum::new(&uuid))?;
        // Room for a quarter more files: unused inodes are zeros, and groups that are added bring more.
        let inodes = u64::from(plan.inodes) + u64::from(plan.inodes / 4);
        let journal = self.journal_blocks(inodes, plan.blocks);
        // The journal is in runs of at least half of a group.
        let journal_tree = Extents::tree_blocks(journal / (1 << 14) + 2);
        let least = Geometry::least(inodes, plan.blocks + journal + journal_tree);
        let geometry = least.ok_or(Ext4Fault::TooLarge)?;
        self.check_size(geometry.blocks * BLOCK)?;
        let settings = Settings {
            uuid,
            hash_seed: derived("ext4:hash-seed", layers),
            label: &self.label,
            journal_blocks: journal,
        };
        let made = if plan.attributes.has_large_values() {
            Made::default().with_kernel(4, 13)
        } else {
            Made::default().with_kernel(3, 18)
        };
        write(plan, geometry, &settings, out.output(Role::Image)?)?;
        Ok(made)
    }
}

/// 16 bytes that follow from the layers.
fn derived(purpose: &str, layers: &[Option<Digest>]) -> [u8; 16] {
    let mut name = purpose.to_owned();
    for layer in layers {
        let Some(layer) = layer else {
            purpose.clone_into(&mut name);
            break;
        };
        name.push('/');
        name.push_str(layer.as_ref());
    }
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).into_bytes()
}
