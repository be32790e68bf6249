//! Data that hash trees are made of.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use plyfold_core::blocking::Stop;
use plyfold_verity::{RootHash, TreeLayout, Work};

/// Bytes of which no two blocks are the same.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(step).flatten().take(size).collect()
}

/// The bytes of a file.
pub(crate) fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub(crate) fn work() -> Work {
    Work::new(&Stop::default())
}

/// Writes the tree of `data` into it or into a file of its own.
pub(crate) fn write(layout: &TreeLayout, data: &File, tree: &File) -> RootHash {
    layout.write(data, &mut tree.try_clone().unwrap(), None, &work()).unwrap()
}
