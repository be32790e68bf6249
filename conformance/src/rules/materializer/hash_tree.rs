//! dm-verity's hash trees (the kernel's `verity.rst`, and cryptsetup's wiki), made once more and compared.

use plyfold_core::digest::Hasher;
use plyfold_core::{Digest, HashTree, HashedPartition, PartitionRange, TreePlace};

/// The bytes of a digest in a tree.
const DIGEST: usize = 32;
/// The bytes of a superblock.
const SUPERBLOCK: usize = 512;

/// Panics unless `tree` is of every byte of an image, and stands in `file`, which is the image when the tree is behind
/// it.
pub(super) fn assert_is_of(tree: &HashTree, image: &[u8], file: &[u8], is_behind: bool) {
    let (data_block, hash_block) = (tree.data_block_size as usize, tree.hash_block_size as usize);
    assert!(data_block >= 512 && hash_block >= 512, "blocks of {data_block} and {hash_block} bytes");
    let (at, size) = (tree.hash_offset as usize, tree.data_size() as usize);
    let whole = if is_behind { at } else { image.len() };
    assert!(size <= whole && whole <= image.len(), "{size} bytes are verified, the image has {whole}");
    let padding = &image[size..whole];
    assert!(
        padding.len() < hash_block && padding.iter().all(|byte| *byte == 0),
        "{} bytes are not verified",
        padding.len()
    );
    assert_eq!(file[at..at + SUPERBLOCK], superblock(tree, &file[at + 16..at + 32]), "the superblock");
    let salt = unhex(&tree.salt);
    let (levels, root) = levels(&image[..size], &salt, data_block, hash_block);
    assert_eq!(root, tree.root, "the root hash");
    let start = (at + SUPERBLOCK).next_multiple_of(hash_block);
    assert!(file[at + SUPERBLOCK..start].iter().all(|byte| *byte == 0), "bytes behind the superblock");
    assert!(file[start..] == levels.concat(), "the tree");
}

/// Panics unless each partition of a disk of so many layers has the hash tree of all of its image, where that is said.
pub(super) fn assert_are_of_partitions(partitions: &[HashedPartition], layers: usize, disk: &[u8]) {
    assert!(partitions.len() >= layers, "{} partitions of {layers} layers", partitions.len());
    let bytes = |of: &PartitionRange| &disk[of.start as usize..][..of.size as usize];
    for HashedPartition { name, image, holder, tree, .. } in partitions {
        let is_behind = tree.place == TreePlace::Append;
        assert_eq!(image.number == holder.number, is_behind, "where the hash tree of {name} is");
        assert_is_of(tree, bytes(image), bytes(holder), is_behind);
    }
}

/// The levels, that of the root first, and the digest of that one.
fn levels(data: &[u8], salt: &[u8], data_block: usize, hash_block: usize) -> (Vec<Vec<u8>>, Digest) {
    let digests = |blocks: &[u8], size: usize| -> Vec<Digest> {
        let digest = |block: &[u8]| {
            let mut hasher = Hasher::sha256();
            hasher.update(salt);
            hasher.update(block);
            hasher.finish()
        };
        blocks.chunks(size).map(digest).collect()
    };
    let mut below = digests(data, data_block);
    let mut levels = Vec::new();
    while below.len() > 1 {
        let in_block = hash_block / DIGEST;
        let mut level = Vec::new();
        for digests in below.chunks(in_block) {
            let start = level.len();
            for digest in digests {
                level.extend(unhex(digest.digest()));
            }
            level.resize(start + hash_block, 0);
        }
        below = digests(&level, hash_block);
        levels.insert(0, level);
    }
    (levels, below.remove(0))
}

/// The superblock: all of it is known but its UUID, which is not zero.
fn superblock(tree: &HashTree, uuid: &[u8]) -> [u8; SUPERBLOCK] {
    assert!(uuid.iter().any(|byte| *byte != 0), "a UUID of zeros, which containerd refuses");
    let (salt, mut bytes) = (unhex(&tree.salt), [0; SUPERBLOCK]);
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"verity\0\0");
    // The version, and the type: the salt comes first.
    put(8, &1_u32.to_le_bytes());
    put(12, &1_u32.to_le_bytes());
    put(16, uuid);
    put(32, b"sha256");
    put(64, &tree.data_block_size.to_le_bytes());
    put(68, &tree.hash_block_size.to_le_bytes());
    put(72, &tree.data_blocks.to_le_bytes());
    put(80, &(salt.len() as u16).to_le_bytes());
    put(88, &salt);
    bytes
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(digit).collect()
}
