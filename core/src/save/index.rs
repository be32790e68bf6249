//! `index.json` of an archive.

use std::path::Path;

use crate::layout_index::LayoutIndex;
use crate::{Descriptor, Reference};

/// The `index.json` with these names, each in full for every tool; what is named by a digest has no name.
pub(super) fn index_json(names: &[(Reference, Descriptor)]) -> Vec<u8> {
    let mut index = LayoutIndex::new(Path::new(""));
    // Entries without a name stay in the order that they are added in.
    let mut nameless: Vec<&Descriptor> =
        names.iter().filter(|one| one.0.digest().is_some()).map(|one| &one.1).collect();
    nameless.sort_by_key(|descriptor| descriptor.digest().as_ref());
    for descriptor in nameless {
        index.add(descriptor);
    }
    for (name, descriptor) in names.iter().filter(|one| one.0.digest().is_none()) {
        index.set(name, descriptor, true);
    }
    index.to_bytes()
}
