//! Files made from layers and from images.
//!
//! An artifact is present when its [checksum](super::checksum) is there and fits. The checksum gets its name last, so that an
//! incomplete artifact is not used, and it has the checksums of blocks that show later damage. They are computed while the artifact is
//! written. Until then its maker holds the lock on it: an artifact without a checksum and without a lock was left by a killed process.
//!
//! Both are synced at the same time, then named, and one sync of their folder makes both names durable. A power cut may leave either name
//! alone, or the new checksum beside an older artifact: its content is compared before it is used, since the time of its last write is
//! another one.
//!
//! Artifacts are readable by all, in folders that are for the store's owner alone: what is put elsewhere may be a hard
//! link to one, whose mode is the same, and a virtual machine's monitor often runs as another user.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plyfold_core::block_sums::Reading;
use plyfold_core::blocking::Stop;
use plyfold_core::durable::{parent, sync_folder};
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, ArtifactWriter, Digest, Error, ErrorKind, LocalArtifact, Made,
    Output, Result, digest,
};

use super::checksum::{self, Checksum, Seen};
use super::queue::{Queued, is_read_only};
use super::sidecar;
use crate::durable::{self, Temp};
use crate::early_sync::EarlyFile;
use crate::files;
use crate::root::Root;

/// Where an artifact belongs: under its format the folders that containerd's EROFS snapshotter looks in.
#[derive(Clone, Debug)]
pub(super) struct ArtifactPath {
    folders: [String; 4],
    file: String,
}

impl ArtifactPath {
    pub(super) fn of(key: &ArtifactKey) -> Result<Self> {
        let (format, mut folder) = (&key.format, key.format.to_string());
        // In `name-vN-options` the first part that reads as a version is N, unless the name has such a part itself: then a
        // character that no format has marks the place.
        if folder.contains('+') {
            return Err(invalid(&folder, format.extension));
        }
        if format.is_ambiguous() {
            folder.replace_range(format.name.len()..=format.name.len(), "+");
        }
        Self::new(&folder, &key.content, format.extension)
    }

    pub(super) fn new(format: &str, content: &Digest, extension: &str) -> Result<Self> {
        digest::supported(content)?;
        let safe = |text: &str| {
            let known = |c: u8| c.is_ascii_alphanumeric() || b"-_.=+".contains(&c);
            !text.is_empty() && !text.starts_with('.') && text.bytes().all(known)
        };
        if !safe(format) || !safe(extension) {
            return Err(invalid(format, extension));
        }
        let (algorithm, hex) = (content.algorithm().to_string(), content.digest());
        let folders = ["artifacts".to_owned(), format.to_owned(), algorithm, hex[..2].to_owned()];
        Ok(Self { folders, file: format!("{hex}.{extension}") })
    }

    pub(super) fn path(&self, root: &Root) -> PathBuf {
        self.folders.iter().fold(root.path().to_owned(), |path, folder| path.join(folder)).join(&self.file)
    }

    /// The name of the temporary file: never that of a lease or of a blob, whatever the format is called, and short
    /// enough with any options.
    pub(super) fn temp(&self) -> String {
        let hash = digest::sha256(format!("{}/{}", self.folders.join("/"), self.file).as_bytes());
        let extension = self.file.split_once('.').map_or("", |(_, extension)| extension);
        format!("artifact-{}.{extension}", hash.digest())
    }

    /// The name of the temporary file of its checksum.
    fn checksum_temp(&self) -> String {
        format!("{}.checksum", self.temp())
    }

    /// The name of the temporary file of its sidecar.
    fn sidecar_temp(&self) -> String {
        format!("{}{}", self.temp(), sidecar::SUFFIX)
    }
}

fn invalid(format: &str, extension: &str) -> Error {
    let message = format!("format {format:?} with extension {extension:?} is not a valid file name");
    Error::new(ErrorKind::Internal, message)
}

/// Begins to make an artifact; `None` while another process makes it.
pub(super) fn begin(root: &Arc<Root>, place: &ArtifactPath, queued: &Queued) -> Result<Option<Artifact>> {
    let path = place.path(root);
    if let Some(checksum) = checksum::trusted(&path)? {
        return Ok(Some(present(path, checksum)));
    }
    let claimed = match Temp::claim(root, &place.temp()) {
        // What may have been written to is read again, and nothing is noted.
        Err(e) if is_read_only(&e) => {
            let checksum = checksum::reread(&path)?.ok_or(e)?;
            return Ok(Some(present(path, checksum)));
        }
        claimed => claimed?,
    };
    let Some(mut temp) = claimed else { return Ok(None) };
    // Another process has given the file its place, which frees the name of the temporary one.
    if is_being_committed(&path)? {
        return Ok(None);
    }
    if let Some(checksum) = checksum::renewed(root, &place.checksum_temp(), &path)? {
        return Ok(Some(present(path, checksum)));
    }
    temp.file().set_len(0).map_err(|e| Error::io("emptying a temporary file", e))?;
    let (root, place, queued) = (root.clone(), place.clone(), queued.clone());
    let written = EarlyFile::new(temp.share()?);
    let writer = DiskArtifact { root, place, temp, written, queued, stop: Stop::default() };
    Ok(Some(Artifact::Vacant(Box::new(writer))))
}

/// A finished artifact that shows no write since it was made.
pub(super) fn find(root: &Root, place: &ArtifactPath) -> Result<Option<Box<dyn ArtifactHandle>>> {
    let path = place.path(root);
    let found = checksum::trusted(&path)?;
    Ok(found.map(|checksum| Box::new(handle(path, checksum)) as _))
}

/// Whether the maker of an artifact that has its place still holds the lock on it: the checksum is to come. What has one
/// is complete, and a lock on it is that of a user of a link.
fn is_being_committed(path: &Path) -> Result<bool> {
    // One whose mode was changed cannot be opened, and has been there for a while.
    Ok(checksum::read(path)?.is_none() && durable::is_free(path)? == Some(false))
}

fn present(path: PathBuf, checksum: Checksum) -> Artifact {
    Artifact::Present(Box::new(handle(path, checksum)))
}

fn handle(path: PathBuf, checksum: Checksum) -> LocalArtifact {
    LocalArtifact::of_checksum(path, checksum.size, checksum.made, checksum.blocks)
}

/// Removes an artifact: its checksum first, because an artifact without a checksum counts as missing.
pub(super) fn remove(path: &Path) -> Result<()> {
    files::remove(&checksum::path_of(path))?;
    files::remove(path)?;
    files::remove(&sidecar::path_of(path))?;
    sync_folder(parent(path))
}

#[derive(Debug)]
struct DiskArtifact {
    root: Arc<Root>,
    place: ArtifactPath,
    temp: Temp,
    /// The same file.
    written: EarlyFile,
    /// Released after the file is removed, so that the next one in the queue does not find it.
    queued: Queued,
    stop: Stop,
}

impl ArtifactWriter for DiskArtifact {
    fn output(&mut self) -> &mut dyn Output {
        &mut self.written
    }

    fn stop_with(&mut self, stop: &Stop) {
        self.stop = stop.clone();
    }

    fn commit(self: Box<Self>, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
        let Self { root, place, temp, written, queued: _queued, stop } = *self;
        // A checksum that is longer than what is read of it would be none.
        let made = made.bounded();
        let path = place.path(&root);
        let folders = place.folders.each_ref().map(String::as_str);
        durable::folder(&root, &folders, root.private)?;
        // An existing checksum belongs to an older file: remove it, because it does not match this one.
        let record = checksum::path_of(&path);
        if fs::symlink_metadata(&record).is_ok_and(|stale| stale.is_file()) {
            files::remove(&record)?;
        }
        let written = written.finish().map_err(|e| Error::io(format!("writing {}", path.display()), e))?;
        let in_the_making = temp.share()?;
        temp.set_mode(&path, checksum::MODE)?;
        let beside = sidecar::path_of(&path);
        if let Some(text) = sidecar::text(&made) {
            durable::write_document(&root, &place.sidecar_temp(), &beside, checksum::MODE, text.as_bytes())?;
        }
        // The disk takes the artifact while blocks that have to be read again are read, from memory, and the checksum is written.
        let (synced, recorded) = std::thread::scope(|scope| {
            let syncing = scope.spawn(|| temp.sync(&path));
            let recorded = written.sums(&Reading::on_all_cores(&stop)).and_then(|sums| {
                let (size, blocks, seen) = (sums.size(), sums.checksum(), Seen::of(&in_the_making)?);
                let checksum = Checksum { size, blocks, seen, made };
                let proof =
                    durable::filled(&root, &place.checksum_temp(), &checksum.to_bytes(&path, &sums)?)?;
                proof.set_mode(&record, root.mode(0o444))?;
                proof.sync(&record)?;
                Ok((checksum, proof))
            });
            (syncing.join(), recorded)
        });
        let broken = |_| Err(Error::new(ErrorKind::Internal, "a syncing thread panicked"));
        // Each of the two proves itself, so that one sync of their folder is enough, whichever name a power cut leaves.
        let named = synced.unwrap_or_else(broken).and(recorded).and_then(|(checksum, proof)| {
            temp.rename(&path)?;
            proof.rename(&record)?;
            sync_folder(parent(&path))?;
            Ok(checksum)
        });
        let checksum = named.inspect_err(|_| {
            // What may not outlive a power cut must not be taken for stored.
            for file in [&record, &path, &beside] {
                drop(fs::remove_file(file));
            }
        })?;
        Ok(Box::new(handle(path, checksum)))
    }
}
