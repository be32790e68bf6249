//! The members of an archive.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Descriptor, Digest};

/// The members of an archive by their names, in the order that they are written in.
pub(super) type Members = BTreeMap<String, Member>;

/// What a member has.
#[derive(Clone, Debug)]
pub(super) enum Member {
    /// A blob of an image, as it is, from the source of this number.
    Blob(Descriptor, usize),
    /// A document.
    Bytes(Bytes),
    /// A layer, expanded: the blob, its source, and what the expanded tar hashes to.
    Layer(Descriptor, usize, Digest),
}

impl Member {
    /// Bytes of its blob, as that is stored.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Blob(blob, _) | Self::Layer(blob, ..) => blob.size(),
            Self::Bytes(_) => 0,
        }
    }
}
