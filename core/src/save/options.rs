//! How archives are written.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::progress::Progress;
use crate::pull::Retry;
use crate::{Digest, MediaType, Platform};

crate::fault! {
    /// Why images are not saved.
    pub enum SaveFault;
    Artifact(MediaType) => (Unsupported, "the form of docker save before version 25 holds no artifact of type {0}"),
    Documents(String) => (Limit, "the images have more than {0}"),
    Holds(&'static str) => (Unsupported, "the form of docker save before version 25 holds no {0}", "choose the form of an OCI layout"),
    Index => (Config, "the form of docker save before version 25 holds images of one platform, and the index has more", "choose a platform"),
    NoImage => (NotFound, "none of the manifests that the index lists is there"),
}

/// The form of an archive.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ArchiveForm {
    /// That of `docker save` before version 25: `manifest.json`, configs and uncompressed layers. It has no manifests: the
    /// digests of configs and the `diff_id`s are kept, no others.
    Docker,
    /// An OCI layout. Every digest is kept.
    #[default]
    Oci,
}

/// How images are saved.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// Adds Docker's list, `manifest.json`, to an OCI layout: versions of Docker without the containerd store read nothing
    /// else. Of an index it lists the first of the [platforms](Self::platforms), or this host's, or else the first that
    /// there is.
    pub docker_list: bool,
    /// The form of the archive.
    pub form: ArchiveForm,
    /// Which platforms of an index are saved. One: its manifest has the name then. Several: the index has the name, with what
    /// is saved of it. None: the index, with every manifest that is there.
    pub platforms: Vec<Platform>,
    /// Where events go.
    pub progress: Progress,
    /// Saves what refers to the images, too, and cosign's tags: as names `ALGORITHM-HEX` beside those of the images
    /// (distribution-spec, "Referrers Tag Schema").
    pub referrers: bool,
    /// What happens after a failed attempt to read.
    pub retry: Retry,
    /// The folder of temporary files for layers that are expanded; by default that of the system.
    pub scratch: Option<PathBuf>,
    /// Content that the archive is loaded over: layers, and the blobs of artifacts, that are in it are left out. Manifests and
    /// configs are always saved. The archive lists what it lacks in `plyfold-delta.json`.
    pub since: Vec<SaveBase>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            docker_list: true,
            form: ArchiveForm::default(),
            platforms: Vec::new(),
            progress: Progress::none(),
            referrers: false,
            retry: Retry::default(),
            scratch: None,
            since: Vec::new(),
        }
    }
}

/// Content that the receiver of an archive has.
#[derive(Clone, Debug)]
pub struct SaveBase {
    pub(super) name: String,
    pub(super) content: HashSet<Digest>,
}

impl SaveBase {
    /// Content by its digests, and what it is called in `plyfold-delta.json` and in the errors of a receiver that does not
    /// have it.
    pub fn new(name: impl Into<String>, content: impl IntoIterator<Item = Digest>) -> Self {
        Self { name: name.into(), content: content.into_iter().collect() }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }
}
