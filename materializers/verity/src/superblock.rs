//! The superblock of a hash tree, by the names of cryptsetup's wiki. All numbers are little endian.

use plyfold_core::{Error, Result};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::fault::VerityFault;
use crate::layout::{SUPERBLOCK_SIZE, TreeLayout};
use crate::parameters::Parameters;
use crate::tree_uuid::Uuid;

pub(crate) const SIGNATURE: [u8; 8] = *b"verity\0\0";
const ALGORITHM: &str = "sha256";

#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Superblock {
    signature: [u8; 8],
    version: U32,
    /// 1: the salt stands in front of the block.
    hash_type: U32,
    uuid: [u8; 16],
    /// Padded with NUL.
    algorithm: [u8; 32],
    data_block_size: U32,
    hash_block_size: U32,
    data_blocks: U64,
    salt_size: U16,
    reserved: [u8; 6],
    salt: [u8; 256],
    reserved_2: [u8; 168],
}

const _: () = assert!(size_of::<Superblock>() as u64 == SUPERBLOCK_SIZE);

/// The superblock of a tree.
pub(crate) fn encode(layout: &TreeLayout, uuid: Uuid) -> Vec<u8> {
    let parameters = layout.parameters();
    let (mut algorithm, mut salt) = ([0; 32], [0; 256]);
    algorithm[..ALGORITHM.len()].copy_from_slice(ALGORITHM.as_bytes());
    salt[..parameters.salt().len()].copy_from_slice(parameters.salt());
    let superblock = Superblock {
        signature: SIGNATURE,
        version: 1.into(),
        hash_type: 1.into(),
        uuid: *uuid.as_bytes(),
        algorithm,
        data_block_size: parameters.data_block_size().into(),
        hash_block_size: parameters.hash_block_size().into(),
        data_blocks: layout.data_blocks().into(),
        salt_size: (parameters.salt().len() as u16).into(),
        reserved: [0; 6],
        salt,
        reserved_2: [0; 168],
    };
    superblock.as_bytes().to_vec()
}

/// Reads a superblock that was found at `offset`.
pub(crate) fn decode(bytes: &[u8], offset: u64) -> Result<(TreeLayout, Uuid)> {
    let Some(read) = Superblock::read_from_bytes(bytes).ok().filter(|read| read.signature == SIGNATURE)
    else {
        return Err(VerityFault::NoSuperblock(offset).into());
    };
    let algorithm = read.algorithm.split(|byte| *byte == 0).next().unwrap_or_default();
    if read.version != 1 {
        return Err(VerityFault::Version(read.version.get()).into());
    }
    if read.hash_type != 1 {
        return Err(VerityFault::HashType(read.hash_type.get()).into());
    }
    if algorithm != ALGORITHM.as_bytes() {
        return Err(VerityFault::Algorithm(String::from_utf8_lossy(algorithm).into_owned()).into());
    }
    let salt = usize::from(read.salt_size.get());
    let Some((salt, behind)) = read.salt.split_at_checked(salt) else {
        return Err(VerityFault::Superblock("its salt is longer than 256 bytes").into());
    };
    let reserved = [&read.algorithm[ALGORITHM.len()..], &read.reserved, behind, &read.reserved_2];
    if reserved.iter().any(|bytes| bytes.iter().any(|byte| *byte != 0)) {
        return Err(VerityFault::Superblock("what is reserved in it is not zero").into());
    }
    let sizes = [read.data_block_size.get(), read.hash_block_size.get()];
    for size in sizes {
        // veritysetup takes such sizes, kernels with pages of 4096 bytes do not.
        if size.is_power_of_two() && (8192..=512 << 10).contains(&size) {
            return Err(VerityFault::LargeBlocks(size).into());
        }
    }
    let damaged = |why| move |e: Error| Error::from(VerityFault::Superblock(why)).with_source(e);
    let parameters = Parameters::default().with_data_block_size(sizes[0]);
    let parameters = parameters.and_then(|parameters| parameters.with_hash_block_size(sizes[1]));
    let parameters = parameters.map_err(damaged("no tree has its block sizes"))?.with_salt(salt)?;
    if read.data_blocks == 0 {
        return Err(VerityFault::Superblock("it is of no data").into());
    }
    let layout = TreeLayout::new(parameters, read.data_blocks.get(), offset, true);
    let layout = layout.map_err(damaged("no file is as large as it says"))?;
    Ok((layout, Uuid::read(read.uuid)))
}
