//! What one call works on, and what comes of it.

use crate::artifact::{ArtifactHandle, Made};
use crate::cache::Lease;
use crate::digest::chain_id;
use crate::format::Format;
use crate::layer::LayerForm;
use crate::materializer::Role;
use crate::materializers::Materializers;
use crate::pull::Engine;
use crate::source::RegistrySource;
use crate::{Descriptor, Digest};

/// A file of a format, in the cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MadeFile {
    /// The name that it has beside the others: those that refer to it write this name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Whether its users write to it: to a copy, for which it is [adapted](crate::Materializer::adapt).
    pub writable: bool,
    /// Its format: the one that was asked for, or one that this is made from.
    pub format: Format,
    /// The file.
    pub artifact: Box<dyn ArtifactHandle>,
    /// The layer it was made from, if it was made from one.
    pub diff_id: Option<Digest>,
    /// Whether it was in the cache before.
    pub cached: bool,
}

impl MadeFile {
    /// Whether it is a disk that is verified in place of the files that it names: by a hash tree of all of it, or by those in
    /// its partitions.
    pub fn is_verified_for_all(&self) -> bool {
        let told = self.artifact.made();
        let is_joined = self.role == Role::Descriptor && told.hash_tree.is_some();
        is_joined || !told.partitions.is_empty()
    }
}

/// An image in a format.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MadeImage {
    /// What was asked for.
    pub format: Format,
    /// Its files, then those of the format that it is made from, and so on. Files of layers are bottom first. Hash trees that
    /// were [separated](crate::Materializer::separates_hash_trees) follow all of them.
    pub files: Vec<MadeFile>,
    /// What the materializers have told, together.
    pub made: Made,
    /// Keeps the files in the cache while this or a clone of it lives.
    pub lease: Lease,
}

/// What a format of a whole image is made from.
pub(super) struct Content {
    /// What it is kept under.
    pub(super) digest: Digest,
    /// The layers and their `diff_id`s, bottom first.
    pub(super) layers: Vec<(Descriptor, Digest)>,
    /// What they are, if they are no tars.
    pub(super) forms: Vec<Option<&'static LayerForm>>,
}

impl Content {
    /// What [`Made::source`] says of it.
    pub(super) fn source(&self) -> Option<Digest> {
        let blobs: Vec<Digest> = self.layers.iter().map(|(blob, _)| blob.digest().clone()).collect();
        chain_id(&blobs)
    }
}

/// One call.
pub(super) struct Work<'a> {
    pub(super) engine: &'a Engine<'a>,
    pub(super) image: &'a RegistrySource,
    /// Those whose files of layers may be used.
    pub(super) formats: &'a Materializers,
}
