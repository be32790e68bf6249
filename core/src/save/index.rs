//! `index.json` of an archive.

use std::path::Path;

use crate::layout_index::LayoutIndex;
use crate::{Descriptor, Reference, reference};

/// The `index.json` with these names, each in full for every tool: one with a digest has its repository and the digest.
pub(super) fn index_json(names: &[(Reference, Descriptor)]) -> Vec<u8> {
    let mut index = LayoutIndex::new(Path::new(""));
    for (name, descriptor) in names {
        match name.digest() {
            Some(_) => index.set(&reference::by_digest(name, descriptor.digest()), descriptor, true),
            None => index.set(name, descriptor, true),
        }
    }
    index.to_bytes()
}
