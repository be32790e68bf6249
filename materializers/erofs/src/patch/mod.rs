//! Changes to a finished image, appended to it.
//!
//! ```text
//! | superblock, blocks of the image … | mark | blocks of new files … | all inodes, directories and xattrs |
//! ```
//!
//! The data of files that stay is where it was. The metadata is written anew as a whole, since inode numbers count from
//! where it starts, and the root's has 16 bits. Then the superblock is written, in one piece of less than a sector: until
//! then the image is the old one, from then on the new one.

mod bodies;
mod change;
mod file;
mod mark;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;

use plyfold_core::blocking::Stop;
use plyfold_core::durable::temporary_file;
use plyfold_core::layer::{LayerTar, TreeLimits};
use plyfold_core::tree::{LayerTree, NodeId, Tree, is_overlay_xattr};
use plyfold_core::{Digest, Error, Result};
use zerocopy::IntoBytes as _;

use bodies::Placer;
use change::{patched_uuid, read_change};
use file::{Cursor, Locked, PatchFile, Rests, read_exact, write_all};
use mark::ImageEnd;

use crate::content::Content;
use crate::fault::ErofsFault;
use crate::format::{
    COMPAT_CHECKSUM, COMPAT_FILTER, COMPAT_MTIME, COMPAT_PLAIN_PREFIXES, INCOMPAT_48BIT, INCOMPAT_CHUNKS,
    INCOMPAT_METABOX, INCOMPAT_PREFIXES, SUPERBLOCK_OFFSET, Superblock, checksum,
};
use crate::inodes::Inodes;
use crate::layout::ImageLayout;
use crate::overlay::is_whiteout;
use crate::places::Packing;
use crate::reader::Reader;
use crate::stream::BlockStream;

/// Optional features of the old metadata that the new one does without.
const DROPPED_COMPAT: u32 = COMPAT_FILTER | COMPAT_PLAIN_PREFIXES;

/// Patches a finished image in its place: appends changes, each a tar as of a layer, with whiteouts and opaque marks.
///
/// What becomes of the image is what an image of its root file system and of the changes, as layers above it, contains.
/// The data of files that stay is not copied, and no byte of the old image is overwritten but its superblock, whose one
/// write makes it the new image. So a mounted image stays the old one until it is mounted again, and a process that is
/// killed, a power cut or a full disk leaves the old image or the new one, complete. What a failure has appended is cut
/// off; what a killed process has appended is cut off by the next patch.
///
/// Each patch adds the whole metadata, with the last parts of files that stand in it, and old data stays: after many of
/// them a new image is smaller. New files are not compressed. The same image and the same changes give the same bytes. The UUID is version 5
/// of `erofs:patch/UUID/DIFF_ID/DIFF_ID/…` in the URL namespace, the UUID being that of the old image; it is zero for
/// changes that were read without hashing.
///
/// Patched are images of [`ErofsFlat`](crate::ErofsFlat), with any options, and those of `mkfs.erofs` that
/// [`Reader`] reads and that need no other device. An image of one layer is patched if it has no mark of overlayfs: it
/// is a root file system then.
///
/// ```
/// use plyfold_core::Materializer as _;
/// use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
/// use plyfold_core::tree::MergedTree;
/// use plyfold_erofs::{ErofsFlat, ErofsPatch, Reader};
///
/// let mut header = tar::Header::new_ustar();
/// header.set_path("hello")?;
/// header.set_size(5);
/// header.set_cksum();
/// let mut changes = tar::Builder::new(Vec::new());
/// changes.append(&header, &b"world"[..])?;
/// let changes = std::io::Cursor::new(changes.into_inner()?);
///
/// let folder = tempfile::tempdir()?;
/// let mut image = tempfile::NamedTempFile::new()?;
/// let empty = MergedTree::read([], TreeLimits::default(), folder.path())?;
/// ErofsFlat::default().image(&empty, image.as_file_mut())?;
///
/// let changes = [LayerTar::new(changes, LayerOptions::default())];
/// ErofsPatch::default().apply(image.as_file(), changes, folder.path())?;
/// let tree = Reader::new(image.reopen()?)?.tree()?;
/// assert!(tree.look_up(b"/hello", false)?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ErofsPatch {
    limits: TreeLimits,
    uuid: Option<[u8; 16]>,
    sync: bool,
    stop: Stop,
}

impl Default for ErofsPatch {
    fn default() -> Self {
        Self { limits: TreeLimits::default(), uuid: None, sync: true, stop: Stop::default() }
    }
}

/// What a patch has done.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Patched {
    /// The size of the image before, in bytes.
    pub old_size: u64,
    /// Its size now.
    pub size: u64,
    /// Bytes of it that were appended for the data of files.
    pub data: u64,
    /// Bytes of it that are the new metadata.
    pub metadata: u64,
    /// The number of inodes.
    pub inodes: u64,
    /// The volume's UUID.
    pub uuid: [u8; 16],
    /// The digests of the changes' uncompressed tars. `None` for one that was read without hashing it.
    pub diff_ids: Vec<Option<Digest>>,
}

impl ErofsPatch {
    /// Bounds on what the trees of the image and of the changes take in memory.
    #[must_use]
    pub fn with_limits(mut self, limits: TreeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The volume's UUID, in place of the one derived from the old one and the changes.
    #[must_use]
    pub fn with_uuid(mut self, uuid: [u8; 16]) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Gives up when `stop` says so; the image is the old one then.
    #[must_use]
    pub fn with_stop(mut self, stop: &Stop) -> Self {
        self.stop = stop.clone();
        self
    }

    /// Does not wait for the disk. A power cut soon afterwards may leave neither image.
    #[must_use]
    pub fn without_sync(mut self) -> Self {
        self.sync = false;
        self
    }

    /// Patches the image in `image`, a file that is open to be read and written, by changes in their order. Temporary
    /// files are made in the folder `scratch`. The file is locked meanwhile (`flock`).
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a file that is read-only or has several names, since it may be an
    /// artifact of a store, and for one with something behind the image;
    /// [`Unavailable`](plyfold_core::ErrorKind::Unavailable) while another process patches it;
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for an image with other devices, with a hash tree behind it,
    /// with marks of overlayfs, or with features that cannot be kept; those of [`Reader::tree`], of [`LayerTar`] and of [`Tree::from_layers`];
    /// [`Limit`](plyfold_core::ErrorKind::Limit), also for a file with more than 64 MiB of indexes;
    /// [`Cancelled`](plyfold_core::ErrorKind::Cancelled), [`Io`](plyfold_core::ErrorKind::Io). The image is the old one
    /// then, but for an `Io` from the disk at the very end, after which it is the old or the new one.
    pub fn apply(
        &self,
        image: &File,
        changes: impl IntoIterator<Item = Result<LayerTar>>,
        scratch: &Path,
    ) -> Result<Patched> {
        let _locked = Locked::new(image)?;
        self.apply_to(image, changes, scratch)
    }

    fn apply_to(
        &self,
        file: &dyn PatchFile,
        changes: impl IntoIterator<Item = Result<LayerTar>>,
        scratch: &Path,
    ) -> Result<Patched> {
        let open = || Reader::new(Cursor::new(file, &self.stop));
        let found = open()?;
        check_features(&found)?;
        let image_end = ImageEnd::find(file, &found.superblock)?;
        // The file may be shorter now.
        let mut reader = open()?.with_limits(self.limits.clone());
        let tree = reader.tree()?;
        check_marks(&tree)?;
        let appended = self
            .append(file, &mut reader, tree, &image_end, changes, scratch)
            .and_then(|appended| self.stop.check().map(|()| appended));
        let done = appended.and_then(|(superblock, patched)| {
            switch(file, superblock)?;
            Ok(patched)
        });
        if done.is_err() && is_old(file, &reader.superblock) {
            // What stays is cut off by the next patch.
            image_end.restore(file).unwrap_or_else(|e| tracing::warn!("{e}"));
        }
        let patched = done?;
        self.sync(file)?;
        Ok(patched)
    }

    /// Appends all but the superblock, and waits for the disk.
    fn append(
        &self,
        file: &dyn PatchFile,
        reader: &mut Reader<Cursor<'_>>,
        tree: Tree<Content>,
        image_end: &ImageEnd,
        changes: impl IntoIterator<Item = Result<LayerTar>>,
        scratch: &Path,
    ) -> Result<(Superblock, Patched)> {
        let (old, block_size) = (reader.superblock.clone(), reader.block_size());
        write_all(file, image_end.end, &image_end.mark(&old))?;
        self.sync(file)?;
        let first = old.blocks.get().checked_add(1).ok_or(ErofsFault::Blocks(block_size.into()))?;
        let mut cursor = Cursor::new(file, &self.stop);
        let mut out = BlockStream::new(&mut cursor, block_size, first)?;
        let mut rests = Rests::new(temporary_file(scratch)?, image_end.end);
        let mut diff_ids = Vec::new();
        let image = LayerTree { tree, lower_links: Vec::new(), assumed: Vec::new() };
        let layers = changes.into_iter().map(|change| {
            let (layer, diff_id) = read_change(change?, &self.limits, &mut rests, &mut out, block_size)?;
            diff_ids.push(diff_id);
            Ok(layer)
        });
        let tree = Tree::from_layers_within(std::iter::once(Ok(image)).chain(layers), self.limits.clone())?;
        let placer = Placer { file, reader, rests, block_size: block_size.into() };
        let mut new = self.metadata(tree, placer, &mut out)?;
        self.sync(file)?;
        new.uuid = self.uuid.unwrap_or_else(|| patched_uuid(old.uuid, &diff_ids));
        let bytes = |blocks: u32| u64::from(blocks) * u64::from(block_size);
        let patched = Patched {
            old_size: image_end.end,
            size: bytes(new.blocks.get()),
            data: bytes(new.meta_blkaddr.get() - first),
            metadata: bytes(new.blocks.get() - new.meta_blkaddr.get()),
            inodes: new.inos.get(),
            uuid: new.uuid,
            diff_ids,
        };
        Ok((new, patched))
    }

    /// Appends the metadata; the superblock that refers to it.
    fn metadata(
        &self,
        mut tree: Tree<Content>,
        placer: Placer<'_, '_>,
        out: &mut BlockStream<'_>,
    ) -> Result<Superblock> {
        let old = placer.reader.superblock.clone();
        let packed = match placer.reader.packed_nid() {
            Some(nid) => {
                let (node, _) = placer.reader.node(nid, &mut tree)?;
                Some(tree.push(node)?)
            }
            None => None,
        };
        let block_size = old.block_size() as u32;
        let inodes = Inodes::of_epoch(&tree, old.epoch, packed, block_size)?;
        if let Some(loss) = inodes.xattrs.dropped().loss() {
            tracing::warn!("{loss}");
        }
        let bodies = placer.place(&inodes, self.limits.clone(), out)?;
        let meta_block = out.block()?;
        let plan = ImageLayout::new(inodes, &bodies, Packing::BestFit, block_size, meta_block)?;
        plan.write_inodes(out)?;
        plan.write_blocks(out)?;
        let xattr_block = out.block()?;
        plan.inodes.xattrs.write_shared(|entry| out.write(entry))?;
        let blocks = out.end()?;
        out.flush()?;
        let chunks = if plan.has_chunks { INCOMPAT_CHUNKS } else { 0 };
        Ok(Superblock {
            feature_compat: (old.feature_compat.get() & !DROPPED_COMPAT).into(),
            feature_incompat: (old.feature_incompat.get() & !INCOMPAT_PREFIXES | chunks).into(),
            xattr_prefix_count: 0,
            xattr_prefix_start: 0.into(),
            root_nid: (plan.inodes.nid(NodeId::ROOT) as u16).into(),
            inos: (plan.inodes.planned.len() as u64).into(),
            blocks: blocks.into(),
            meta_blkaddr: meta_block.into(),
            xattr_blkaddr: xattr_block.into(),
            packed_nid: packed.map_or(0, |id| plan.inodes.nid(id).into()).into(),
            ..old
        })
    }

    fn sync(&self, file: &dyn PatchFile) -> Result<()> {
        if !self.sync {
            return Ok(());
        }
        file.sync().map_err(|e| Error::io("syncing the image", e))
    }
}

/// Makes the image the new one: one write of one structure, which is in one sector.
fn switch(file: &dyn PatchFile, mut new: Superblock) -> Result<()> {
    if new.feature_compat & COMPAT_CHECKSUM != 0 {
        let mut summed = vec![0; new.checksummed()];
        read_exact(file, SUPERBLOCK_OFFSET as u64, &mut summed)?;
        new.checksum = 0.into();
        summed[..size_of::<Superblock>()].copy_from_slice(new.as_bytes());
        new.checksum = checksum(&summed).into();
    }
    let written = file.write_at(new.as_bytes(), SUPERBLOCK_OFFSET as u64);
    match written.map_err(|e| Error::io("writing the superblock", e))? {
        count if count == size_of::<Superblock>() => Ok(()),
        _ => Err(Error::io("writing the superblock", std::io::ErrorKind::WriteZero.into())),
    }
}

/// Refuses an image of which a patch could not keep everything.
fn check_features(reader: &Reader<Cursor<'_>>) -> Result<()> {
    let superblock = &reader.superblock;
    if reader.devices() > 0 {
        return Err(ErofsFault::PatchDevices(reader.devices()).into());
    }
    let known = COMPAT_CHECKSUM | COMPAT_MTIME | DROPPED_COMPAT;
    for unknown in [
        superblock.feature_compat.get() & !known,
        superblock.feature_incompat.get() & (INCOMPAT_48BIT | INCOMPAT_METABOX),
    ] {
        if unknown != 0 {
            return Err(ErofsFault::PatchFeatures(unknown).into());
        }
    }
    Ok(())
}

/// Refuses the image of a layer, whose whiteouts are of what is below it.
fn check_marks(tree: &Tree<Content>) -> Result<()> {
    let is_mark = |id: NodeId| {
        let node = tree.node(id);
        is_whiteout(node) || node.xattrs.iter().any(|(name, _)| is_overlay_xattr(name))
    };
    if !tree.ids().any(is_mark) {
        return Ok(());
    }
    match tree.walk().find(|(_, id)| is_mark(*id)) {
        Some((path, _)) => Err(ErofsFault::PatchOverlayMark(path.to_string()).into()),
        None => Ok(()),
    }
}

/// Whether the superblock is still the old one.
fn is_old(file: &dyn PatchFile, old: &Superblock) -> bool {
    let mut found = [0; size_of::<Superblock>()];
    read_exact(file, SUPERBLOCK_OFFSET as u64, &mut found).is_ok() && found == old.as_bytes()
}
