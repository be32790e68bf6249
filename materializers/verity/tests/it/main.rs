//! Trees that are made, found and verified.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::File;
use std::io::Write as _;

mod damage;
#[path = "../data/mod.rs"]
mod data;
mod holes;
mod images;
mod made;

/// A file with that content.
pub(crate) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}
