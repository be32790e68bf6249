//! What the superblock of an image says, also of images that [`Reader`](crate::Reader) does not read.

use std::io::{Read, Seek};

use plyfold_core::layer::Timestamp;
use plyfold_core::{KernelVersion, Result};

use crate::compress::format::{DEFLATE, LZ4, LZMA, ZSTD};
use crate::fault::ErofsFault;
use crate::format::{
    COMPAT_CHECKSUM, DeviceSlot, INCOMPAT_48BIT, INCOMPAT_CONFIGS, INCOMPAT_PADDING, MAGIC,
    SUPERBLOCK_OFFSET, Superblock,
};
use crate::reader::ImageBytes;

/// Bits of `feature_compat` by the kernel's names: what readers may ignore.
const COMPATIBLE: [(u32, &str); 6] = [
    (1, "sb_chksum"),
    (2, "mtime"),
    (4, "xattr_filter"),
    (8, "shared_ea_in_metabox"),
    (0x10, "plain_xattr_pfx"),
    (0x20, "ishare_xattrs"),
];
/// Bits of `feature_incompat`, some of them of two features: what readers have to know.
const INCOMPATIBLE: [(u32, &str); 9] = [
    (1, "lz4_0padding"),
    (2, "compr_cfgs"),
    (4, "chunked_file"),
    (8, "device_table"),
    (0x10, "ztailpacking"),
    (0x20, "fragments"),
    (0x40, "xattr_prefixes"),
    (INCOMPAT_48BIT, "48bit"),
    (0x100, "metabox"),
];

/// What the superblock of an EROFS image says.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The block size in bytes.
    pub block_size: u32,
    /// The size of the image without its devices, in blocks.
    pub blocks: u64,
    /// The number of inodes.
    pub inodes: u64,
    /// The compression algorithms that files may have, by the kernel's names, as far as the superblock says it: without a
    /// list of them, `lz4` is the only one there is.
    pub algorithms: Vec<String>,
    /// The oldest Linux that mounts the image, where pages have 4096 bytes.
    pub kernel: KernelVersion,
    /// The features by the kernel's names, those that any reader may ignore first; unknown bits as a number.
    pub features: Vec<String>,
    /// The time of inodes that store none.
    pub time: Timestamp,
    /// The volume's UUID.
    pub uuid: [u8; 16],
    /// The volume's name, without the zeros behind it.
    pub label: Vec<u8>,
    /// Whether the superblock has a checksum, which is right then.
    pub has_checksum: bool,
    /// Further devices that the image refers to.
    pub devices: Vec<DeviceSummary>,
    /// Bytes of the file or device that the image is in.
    pub size: u64,
}

/// A further device of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceSummary {
    /// What the device is, as text of who made the image: here the sha256 of a layer's tar.
    pub tag: Vec<u8>,
    /// Its size in blocks.
    pub blocks: u32,
    /// Where it begins on the one disk that image and devices make, in blocks.
    pub start: u32,
}

impl Summary {
    /// Whether these bytes, 1,028 or more from a file's start, begin an EROFS image.
    pub fn is_image(start: &[u8]) -> bool {
        start.get(SUPERBLOCK_OFFSET..).is_some_and(|start| start.starts_with(&MAGIC.to_le_bytes()))
    }

    /// Reads the superblock and the device table.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for what is no EROFS image, or one with a wrong checksum;
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for blocks of a size that no kernel has;
    /// [`Io`](plyfold_core::ErrorKind::Io) of `source`.
    pub fn read(source: impl Read + Seek) -> Result<Self> {
        let mut source = ImageBytes::new(source)?;
        let superblock: Superblock = source.record(SUPERBLOCK_OFFSET as u64).map_err(no_image)?;
        if superblock.magic != MAGIC {
            return Err(ErofsFault::NoImage.into());
        }
        if !(9..=16).contains(&superblock.blkszbits) {
            return Err(ErofsFault::SuperblockBits(superblock.blkszbits).into());
        }
        source.check_sum(&superblock)?;
        let device = |DeviceSlot { tag, blocks, uniaddr, .. }| DeviceSummary {
            tag: until_nul(&tag),
            blocks: blocks.get(),
            start: uniaddr.get(),
        };
        let devices = source.devices(&superblock)?.into_iter().map(device).collect();
        let mut features = Vec::new();
        for (bits, names) in [
            (superblock.feature_compat.get(), &COMPATIBLE[..]),
            (superblock.feature_incompat.get(), &INCOMPATIBLE),
        ] {
            let set = names.iter().filter(|(bit, _)| bits & bit != 0);
            features.extend(set.map(|(_, name)| (*name).to_owned()));
            let unknown = names.iter().fold(bits, |bits, (bit, _)| bits & !bit);
            features.extend((unknown != 0).then(|| format!("{unknown:#x}")));
        }
        let (major, minor) = superblock.kernel();
        Ok(Self {
            algorithms: algorithms(&superblock),
            kernel: KernelVersion { major, minor },
            block_size: 1 << superblock.blkszbits,
            blocks: superblock.block_count(),
            inodes: superblock.inos.get(),
            features,
            time: superblock.epoch.into(),
            uuid: superblock.uuid,
            label: until_nul(&superblock.volume_name),
            has_checksum: superblock.feature_compat & COMPAT_CHECKSUM != 0,
            devices,
            size: source.size(),
        })
    }
}

/// The names of compression algorithms.
fn algorithms(superblock: &Superblock) -> Vec<String> {
    let incompat = superblock.feature_incompat.get();
    let bits = match superblock.available_compr_algs.get() {
        // The field is then how far LZ4 reaches back, also in images without compressed files.
        _ if incompat & INCOMPAT_CONFIGS == 0 => u16::from(incompat & INCOMPAT_PADDING != 0) << LZ4,
        bits => bits,
    };
    let known = [(LZ4, "lz4"), (LZMA, "lzma"), (DEFLATE, "deflate"), (ZSTD, "zstd")];
    let unknown = known.iter().fold(bits, |bits, (number, _)| bits & !(1 << number));
    let names =
        known.iter().filter(|(number, _)| bits & 1 << number != 0).map(|(_, name)| (*name).to_owned());
    names.chain((unknown != 0).then(|| format!("{unknown:#x}"))).collect()
}

fn no_image(error: plyfold_core::Error) -> plyfold_core::Error {
    match error.detail() {
        Some(ErofsFault::Outside(..)) => ErofsFault::NoImage.into(),
        _ => error,
    }
}

fn until_nul(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}
