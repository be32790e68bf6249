//! What is damaged is found, and named.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use plyfold_core::{Error, ErrorKind};
use plyfold_verity::{Parameters, RootHash, TreeLayout, VerityFault};

use crate::data::{bytes, noise, work, write};
use crate::file;

/// Three levels: of 20, 2 and 1 blocks; the last block of data is alone in its block of the tree.
const BLOCKS: u64 = 16 * 19 + 1;

fn appended() -> (TreeLayout, RootHash, File) {
    let small = Parameters::default().with_data_block_size(512).unwrap().with_hash_block_size(512).unwrap();
    let data = file(&noise(BLOCKS as usize * 512));
    let layout = TreeLayout::appended(small, BLOCKS * 512).unwrap();
    let root = write(&layout, &data, &data);
    (layout, root, data)
}

/// As a reader does that knows the root hash alone.
fn verify(root: &RootHash, file: &File) -> Result<(), Error> {
    match TreeLayout::find(file)? {
        Some((layout, _)) => layout.verify(root, file, file, &work()),
        None => Err(Error::corrupt("no tree")),
    }
}

fn flip(file: &File, offset: u64, bit: u8) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], offset).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (layout, root, file) = appended();
    verify(&root, &file).unwrap();
    let size = bytes(&file).len() as u64;
    assert_eq!(size, (BLOCKS + 1 + 1 + 2 + 20) * 512);
    let superblock = layout.hash_offset();
    let uuid = superblock + 16..superblock + 32;
    // Every byte of the superblock, and some of every block.
    let blocks = (0..superblock).step_by(101).chain((superblock + 512..size).step_by(11));
    for offset in (superblock..superblock + 512).chain(blocks) {
        let bit = (offset % 8) as u8;
        flip(&file, offset, bit);
        let found = verify(&root, &file);
        if uuid.contains(&offset) {
            found.unwrap();
        } else {
            let error = found.expect_err(&format!("byte {offset}"));
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{offset}: {error}");
            if offset < superblock {
                let block = offset / 512;
                assert_eq!(error.detail(), Some(&VerityFault::DataBlock(block, block * 512)), "{offset}");
            } else if offset >= layout.tree_offset() + 512 {
                let named = matches!(error.detail(), Some(VerityFault::HashBlock(_, _, at)) if *at == offset / 512 * 512);
                assert!(named, "{offset}: {error}");
            }
        }
        flip(&file, offset, bit);
    }
    verify(&root, &file).unwrap();
}

/// Data in small blocks before a tree in large ones.
#[test]
fn padding_is_zero() {
    let mixed = Parameters::default().with_data_block_size(512).unwrap();
    for has_superblock in [true, false] {
        let data = file(&noise(9 * 512));
        let layout = TreeLayout::appended(mixed.clone(), 9 * 512).unwrap();
        let layout = if has_superblock { layout } else { layout.without_superblock().unwrap() };
        let root = write(&layout, &data, &data);
        layout.verify(&root, &data, &data, &work()).unwrap();
        let behind = layout.hash_offset() + 512;
        for offset in [9 * 512, 8191, behind, layout.tree_offset() - 1] {
            flip(&data, offset, 2);
            let error = layout.verify(&root, &data, &data, &work()).unwrap_err();
            if has_superblock || offset < layout.hash_offset() {
                assert_eq!(error.detail(), Some(&VerityFault::Padding(offset)));
            }
            flip(&data, offset, 2);
        }
    }
}

#[test]
fn the_first_bad_block_is_named() {
    let (layout, root, file) = appended();
    for block in [300, 17, 304] {
        flip(&file, block * 512 + 5, 3);
    }
    let error = verify(&root, &file).unwrap_err();
    assert_eq!(error.to_string(), "data block 17, at byte 8704, does not match the hash tree");
    // A block of the tree comes before, as the data cannot be verified by it.
    flip(&file, layout.end() - 1, 0);
    let error = verify(&root, &file).unwrap_err();
    let at = layout.end() - 512;
    assert_eq!(error.to_string(), format!("block 19 of level 0 of the hash tree, at byte {at}, is damaged"));
}

#[test]
fn another_root_hash_is_refused() {
    let (_, root, file) = appended();
    let other = RootHash::new([1; 32]);
    let error = verify(&other, &file).unwrap_err();
    assert_eq!(error.detail(), Some(&VerityFault::Root(other.to_string(), root.to_string())));
    // One block has no tree.
    let data = crate::file(&noise(4096));
    let layout = TreeLayout::appended(Parameters::default(), 4096).unwrap();
    let root = write(&layout, &data, &data);
    verify(&root, &data).unwrap();
    assert!(verify(&other, &data).is_err());
    flip(&data, 4095, 7);
    assert!(verify(&root, &data).is_err());
}

/// A digest in an unused place changes the digest of its block, so only the maker of a tree can put it there.
#[test]
fn unused_places_are_zero() {
    let small = Parameters::default().with_hash_block_size(512).unwrap().with_salt_text("-").unwrap();
    let (data, tree) = (file(&noise(3 * 4096)), file(&[]));
    let layout = TreeLayout::beside(small, 3 * 4096).unwrap();
    write(&layout, &data, &tree);
    flip(&tree, layout.end() - 1, 0);
    let root = plyfold_core::digest::sha256(&bytes(&tree)[512..1024]);
    let error = layout.verify(&root.digest().parse().unwrap(), &data, &tree, &work()).unwrap_err();
    assert_eq!(error.detail(), Some(&VerityFault::HashBlock(0, 0, 512)));
}

#[test]
fn files_that_end_early_are_corrupt() {
    let (data, tree) = (file(&noise(300 * 4096)), file(&[]));
    let layout = TreeLayout::beside(Parameters::default(), 300 * 4096).unwrap();
    let root = write(&layout, &data, &tree);
    layout.verify(&root, &data, &tree, &work()).unwrap();
    data.set_len(300 * 4096 - 1).unwrap();
    for outcome in [layout.verify(&root, &data, &tree, &work()), layout.root_hash(&data, &work()).map(drop)] {
        let error = outcome.unwrap_err();
        assert!(matches!(error.detail(), Some(VerityFault::Ended(..))), "{error}");
    }
    data.set_len(300 * 4096).unwrap();
    for size in [0, 511, 512, 4096, layout.end() - 1] {
        tree.set_len(size).unwrap();
        let read =
            TreeLayout::read(&tree, 0).and_then(|(layout, _)| layout.verify(&root, &data, &tree, &work()));
        assert_eq!(*read.unwrap_err().kind(), ErrorKind::Corrupt, "{size}");
    }
}

/// Numbers of a superblock decide neither how much memory is taken nor whether the program ends.
#[test]
fn any_superblock_is_a_layout_or_an_error() {
    let (layout, root, file) = appended();
    let good = bytes(&file)[layout.hash_offset() as usize..][..512].to_vec();
    let random = noise(20_000);
    for (round, bytes) in random.chunks_exact(10).enumerate() {
        let mut superblock = good.clone();
        for pair in bytes.chunks_exact(2).take(1 + round % 5) {
            // Behind the signature; more often where numbers are.
            let range = if pair[0] < 128 { 64..82 } else { 8..512 };
            let at = range.start + (usize::from(pair[0]) * 7 + round) % range.len();
            superblock[at] = pair[1];
        }
        file.write_all_at(&superblock, layout.hash_offset()).unwrap();
        if let Ok((read, _)) = TreeLayout::read(&file, layout.hash_offset()) {
            assert!(read.end() >= read.tree_offset() && read.tree_offset() >= read.hash_offset() + 512);
            let is_same = read == layout;
            assert_eq!(read.verify(&root, &file, &file, &work()).is_ok(), is_same, "{read:?}");
        }
        let _ = verify(&root, &file);
    }
}
