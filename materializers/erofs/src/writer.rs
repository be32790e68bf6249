//! The metadata of an image: inodes, directories and xattrs, behind the data that they refer to.
//!
//! ```text
//! 0        1024         data            metadata area                       shared xattrs
//! | (zero) | superblock | file blocks … | inodes + tails | directory blocks | entries |
//! ```
//!
//! The root is the first [inode](Inodes): its number must fit 16 bits.

use plyfold_core::tree::{NodeId, Tree};
use plyfold_core::{Made, Result};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::bodies::{FileBodies, Written};
use crate::content::Content;
use crate::fault::ErofsFault;
use crate::format::{
    COMPAT_CHECKSUM, COMPAT_MTIME, DEVICE_SLOT_SIZE, DeviceSlot, INCOMPAT_CHUNKS, INCOMPAT_CONFIGS,
    INCOMPAT_DEVICES, INCOMPAT_FRAGMENTS, INCOMPAT_PADDING, INCOMPAT_TAILS, MAGIC, SUPERBLOCK_OFFSET,
    Superblock, checksum,
};
use crate::inodes::Inodes;
use crate::layout::ImageLayout;
use crate::options::Options;
use crate::places::Packing;
use crate::stream::BlockStream;

/// The number of blocks that superblock and device table take.
pub(crate) fn head_blocks(options: &Options, devices: usize) -> u32 {
    let bytes = SUPERBLOCK_OFFSET + size_of::<Superblock>() + devices * DEVICE_SLOT_SIZE;
    bytes.div_ceil(options.block_size as usize) as u32
}

/// Writes all that follows the data, then the superblock, and with it the device table; what that needs of a kernel.
pub(crate) fn finish(
    tree: &Tree<Content>,
    options: &Options,
    uuid: [u8; 16],
    devices: Vec<DeviceSlot>,
    image: BlockStream<'_>,
) -> Result<Made> {
    let inodes = Inodes::new(tree, options)?;
    finish_files(inodes, &Written, Packing::InOrder, options, uuid, devices, image)
}

/// As [`finish`], of inodes whose data lies as `bodies` say.
pub(crate) fn finish_files<C, B: FileBodies<C>>(
    inodes: Inodes<'_, C>,
    bodies: &B,
    packing: Packing,
    options: &Options,
    uuid: [u8; 16],
    devices: Vec<DeviceSlot>,
    mut image: BlockStream<'_>,
) -> Result<Made> {
    let meta_block = image.block()?;
    let plan = ImageLayout::new(inodes, bodies, packing, options.block_size, meta_block)?;
    plan.write_inodes(&mut image)?;
    plan.write_blocks(&mut image)?;
    let xattr_block = image.block()?;
    let inodes = &plan.inodes;
    inodes.xattrs.write_shared(|entry| image.write(entry))?;
    let blocks = image.end()?;
    let head_blocks = head_blocks(options, devices.len());
    let mut superblock = Superblock {
        magic: MAGIC.into(),
        feature_compat: (COMPAT_CHECKSUM | COMPAT_MTIME).into(),
        blkszbits: options.block_size.ilog2() as u8,
        root_nid: (inodes.nid(NodeId::ROOT) as u16).into(),
        inos: (inodes.planned.len() as u64).into(),
        epoch: inodes.epoch,
        blocks: blocks.into(),
        meta_blkaddr: meta_block.into(),
        xattr_blkaddr: xattr_block.into(),
        uuid,
        volume_name: options.label,
        feature_incompat: if plan.has_chunks { INCOMPAT_CHUNKS } else { 0 }.into(),
        ..Superblock::new_zeroed()
    };
    let mut records = Vec::new();
    if let Some(compression) = plan.compression() {
        superblock.feature_incompat |= INCOMPAT_PADDING;
        superblock.available_compr_algs = compression.superblock_field().into();
        records = compression.record();
        if !records.is_empty() {
            superblock.feature_incompat |= INCOMPAT_CONFIGS;
        }
        if plan.has_clusters {
            superblock.feature_incompat |= INCOMPAT_TAILS;
        }
        if let Some(packed) = plan.packed {
            superblock.feature_incompat |= INCOMPAT_FRAGMENTS;
            superblock.packed_nid = u64::from(packed).into();
        }
    }
    if !devices.is_empty() {
        superblock.feature_incompat |= INCOMPAT_DEVICES;
        superblock.extra_devices = (devices.len() as u16).into();
        let table = SUPERBLOCK_OFFSET + size_of::<Superblock>();
        superblock.devt_slotoff = ((table / DEVICE_SLOT_SIZE) as u16).into();
    }
    image.finish(&head(
        &superblock,
        &records,
        devices,
        head_blocks as usize * options.block_size as usize,
    )?)?;
    let (major, minor) = superblock.kernel();
    Ok(Made::default().with_kernel(major, minor).with_losses(plan.inodes.xattrs.dropped().loss()))
}

/// The image's first blocks. Device places are given from the end of the image on and moved behind it here.
fn head(superblock: &Superblock, records: &[u8], devices: Vec<DeviceSlot>, size: usize) -> Result<Vec<u8>> {
    let mut head = vec![0; SUPERBLOCK_OFFSET];
    head.extend_from_slice(superblock.as_bytes());
    head.extend_from_slice(records);
    for mut device in devices {
        let place = device.uniaddr.get().checked_add(superblock.blocks.get());
        let place = place.filter(|place| place.checked_add(device.blocks.get()).is_some());
        device.uniaddr = place.ok_or(ErofsFault::BlocksOfAll)?.into();
        head.extend_from_slice(device.as_bytes());
    }
    head.resize(size.max(SUPERBLOCK_OFFSET + superblock.checksummed()), 0);
    let sum = checksum(&head[SUPERBLOCK_OFFSET..SUPERBLOCK_OFFSET + superblock.checksummed()]);
    head[SUPERBLOCK_OFFSET + 4..SUPERBLOCK_OFFSET + 8].copy_from_slice(&sum.to_le_bytes());
    head.truncate(size);
    Ok(head)
}
