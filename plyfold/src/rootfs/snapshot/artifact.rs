//! Disks of a folder as an artifact that pulls and copies read, as from any other backend.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::durable::temporary_file;
use plyfold_core::snapshot::Snapshot;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Digest, Error, ImageRegistry, RawManifest, Reference, Result, reference,
};

use super::disk::FileReader;
use super::disks_to_save::DisksToSave;
use super::scan::DiskFolder;
use crate::blocking::Stop;
use crate::regular_file;

/// A snapshot of the disks in a folder, by whatever name it is asked for.
#[derive(Clone)]
pub(super) struct SetArtifact(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    snapshot: Snapshot,
    notes: Vec<String>,
    manifest: RawManifest,
    document: Arc<[u8]>,
    blobs: HashMap<Digest, Place>,
}

/// Where a blob is.
enum Place {
    /// In a file of the set.
    Disk(String),
    /// In a file without a name.
    Delta(Arc<File>),
}

impl SetArtifact {
    /// Reads the disks; deltas go to files without a name in `scratch`. Their other content is read when it is asked for.
    pub(super) fn of(from: &DisksToSave, scratch: &Path, attached: bool, stop: &Stop) -> Result<Self> {
        let DisksToSave { folder, live } = from;
        let disks = DiskFolder::open(folder, stop)?;
        let notes = disks.judged(*live)?;
        let (mut files, mut blobs) = (Vec::new(), HashMap::new());
        for of in &disks.record.files {
            let disk = disks.disk(of)?;
            let (file, place) = if of.writable {
                let mut delta = temporary_file(scratch)?;
                (disks.delta(&disk, scratch, &mut delta)?, Place::Delta(Arc::new(delta)))
            } else {
                (disks.whole(&disk, &disk.file)?, Place::Disk(of.name.clone()))
            };
            blobs.insert(file.stored().0.clone(), place);
            files.push(file);
        }
        let snapshot = disks.snapshot(files)?;
        let manifest = snapshot.manifest(attached)?;
        let document = snapshot.to_json().into();
        Ok(Self(Arc::new(Inner { folder: folder.clone(), snapshot, notes, manifest, document, blobs })))
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.0.snapshot
    }

    pub(super) fn notes(&self) -> &[String] {
        &self.0.notes
    }

    pub(super) fn manifest(&self) -> &RawManifest {
        &self.0.manifest
    }

    pub(super) fn descriptor(&self) -> &Descriptor {
        self.0.manifest.descriptor()
    }

    fn missing(&self, digest: &Digest) -> Error {
        Error::not_found(format!("no such content: {digest}")).with_endpoint(self)
    }
}

#[async_trait]
impl ImageRegistry for SetArtifact {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        match reference::digest_of(name)? {
            Some(digest) if digest != *self.0.manifest.digest() => Err(self.missing(&digest)),
            _ => Ok(self.0.manifest.clone()),
        }
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let inner = &self.0;
        let at = range.resolve(blob.size())?.start;
        let file = match inner.blobs.get(blob.digest()) {
            Some(Place::Delta(file)) => Arc::clone(file),
            Some(Place::Disk(name)) => {
                let opened = regular_file::open(&inner.folder, name)?;
                Arc::new(opened.ok_or_else(|| self.missing(blob.digest()))?)
            }
            None if inner.manifest.image()?.config().digest() == blob.digest() => {
                let mut document = io::Cursor::new(inner.document.clone());
                document.set_position(at);
                return Blob::from_reader(blob, range, document);
            }
            None => return Err(self.missing(blob.digest())),
        };
        Blob::from_reader(blob, range, FileReader { file, at })
    }
}

impl fmt::Display for SetArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.folder.display())
    }
}

impl fmt::Debug for SetArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SetArtifact").field(&self.0.folder).finish()
    }
}
