//! Snapshots: the disks of a folder saved, and made again in another place.
//!
//! What `materialize` has made, and what guests have written to it since, is saved as a [`Snapshot`]: in a directory of
//! its own ([`save`]), in the cache of [`Images`] ([`Images::save_snapshot`]), or in any backend
//! ([`Images::push_snapshot`]). Loading verifies every file before the first one is visible.
//!
//! A disk that a guest writes to is stored as what differs from the empty disk that it was at first. It has to be at
//! rest meanwhile: one that changes while it is read is an error.

use std::io::Write as _;
use std::path::Path;

use plyfold_core::manifest::{is_index, limits};
use plyfold_core::progress::{Event, Progress};
use plyfold_core::{
    BlobRange, CacheProvider, CacheProviderExt as _, CopyOptions, Descriptor, Error, ImageRegistry,
    ImageSource as _, PullOptions, PullPolicy, PulledImage, RawManifest, Reference, Result, copy, reference,
    referrers,
};
use tokio::runtime::Handle;

pub use plyfold_core::snapshot::*;

pub use self::disks_to_save::DisksToSave;

use self::artifact::SetArtifact;
use self::folder::Folder;
pub(super) use self::folder::{missing_disk, record};
use self::restore::Restore;
use self::scan::DiskFolder;
use self::stored::Cached;
use super::disks::Disks;
use super::set::Set;
use crate::Images;
use crate::atomic_file::FileOptions;
use crate::blocking::{Stop, alone};

mod artifact;
mod disk;
mod disks_to_save;
mod empty;
mod folder;
mod restore;
mod scan;
mod stored;
#[cfg(feature = "ext4")]
pub(super) mod writable;

/// A snapshot, and the manifest that it has as an artifact: the same wherever it is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KeptSnapshot {
    /// What it says.
    pub snapshot: Snapshot,
    /// Its manifest.
    pub manifest: Descriptor,
    /// What is to be known of the disks that it was saved from, such as that one was not unmounted.
    pub notes: Vec<String>,
}

impl KeptSnapshot {
    fn new(snapshot: Snapshot) -> Result<Self> {
        let manifest = snapshot.manifest(false)?.descriptor().clone();
        Ok(Self { snapshot, manifest, notes: Vec::new() })
    }

    fn of(artifact: &SetArtifact) -> Self {
        let notes = artifact.notes().to_vec();
        Self { snapshot: artifact.snapshot().clone(), manifest: artifact.descriptor().clone(), notes }
    }
}

/// Saves the disks in a folder that [`Images::materialize`] has made, or that a snapshot was loaded into, in the directory
/// `out`, which must be new. It appears when all of it is there.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) when the folder lacks a disk, or does not say which image its disks are of;
/// [`Corrupt`](crate::ErrorKind::Corrupt) when one changes meanwhile, or is shorter than its file system;
/// [`Config`](crate::ErrorKind::Config) when something is at `out`, when a disk that guests write to is in use and not to be saved
/// [`live`](DisksToSave::live), and when the folder has a disk of older ones that guests may have written to: the snapshot would not have it;
/// [`Limit`](crate::ErrorKind::Limit) for more than [`MAX_FILES`](plyfold_core::snapshot::MAX_FILES);
/// [`Io`](crate::ErrorKind::Io).
pub async fn save(disks: impl Into<DisksToSave>, out: &Path, options: FileOptions) -> Result<KeptSnapshot> {
    let (disks, out) = (disks.into(), out.to_owned());
    alone("plyfold-snapshot", move |stop| save_in(&disks, &out, options, stop)).await
}

fn save_in(from: &DisksToSave, out: &Path, options: FileOptions, stop: &Stop) -> Result<KeptSnapshot> {
    let disks = DiskFolder::open(&from.folder, stop)?;
    let notes = disks.judged(from.live)?;
    let mut set = Set::new(out, options, stop)?;
    set.in_new_folder()?;
    let names: Vec<String> = disks.record.files.iter().map(SetFile::stored_name).collect();
    set.declare(names.iter().map(String::as_str).chain([DOCUMENT]))?;
    let scratch = set.scratch().to_owned();
    let mut files = Vec::new();
    for (of, name) in disks.record.files.iter().zip(&names) {
        let disk = disks.disk(of)?;
        set.add(name, |out| {
            files.push(if of.writable {
                disks.delta(&disk, &scratch, out)?
            } else {
                if !out.share(&disk.file) {
                    out.copy_of(&disk.file, disk.size())?;
                }
                disks.whole(&disk, out.file())?
            });
            Ok(())
        })?;
    }
    let kept = KeptSnapshot { notes, ..KeptSnapshot::new(disks.snapshot(files)?)? };
    let document = kept.snapshot.to_json();
    set.add(DOCUMENT, |out| Ok(out.write_all(&document)?))?;
    set.publish()?;
    Ok(kept)
}

/// Makes the disks of the snapshot in a directory again, in the folder `out`, as [`Images::materialize`] makes them: by
/// the same names, all of them or none.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) when there is no snapshot, or it lacks a file; [`Corrupt`](crate::ErrorKind::Corrupt) when
/// one was altered, and for what is no snapshot; [`Unsupported`](crate::ErrorKind::Unsupported) for another version;
/// [`Config`](crate::ErrorKind::Config) when `out` has a disk that a guest may have written to, or a file in the way;
/// [`Io`](crate::ErrorKind::Io). `out` is as it was then.
pub async fn load(snapshot: &Path, out: &Path, options: FileOptions) -> Result<(KeptSnapshot, Disks)> {
    let (from, out) = (Folder(snapshot.to_owned()), out.to_owned());
    alone("plyfold-snapshot", move |stop| {
        let kept = KeptSnapshot::new(from.snapshot()?)?;
        let restore = Restore { snapshot: &kept.snapshot, from: &from, stop };
        let disks = restore.write_to(&out, options)?;
        Ok((kept, disks))
    })
    .await
}

/// Reads the snapshot in a directory, every byte of it.
///
/// # Errors
/// As [`load`], but for those about the output.
pub async fn verify(snapshot: &Path) -> Result<KeptSnapshot> {
    let from = Folder(snapshot.to_owned());
    alone("plyfold-snapshot", move |stop| {
        let kept = KeptSnapshot::new(from.snapshot()?)?;
        Restore { snapshot: &kept.snapshot, from: &from, stop }.verify(&std::env::temp_dir())?;
        Ok(kept)
    })
    .await
}

/// Whether a snapshot is in a directory, by the name of its document.
pub fn is_in(directory: &Path) -> bool {
    directory.join(DOCUMENT).is_file()
}

impl Images {
    /// Saves the disks in a folder as [`save`] does, in the cache under a name that is not taken. There
    /// [`collect`](Self::collect) keeps it as long as it has a name; [`remove`](Self::remove) takes the name away.
    ///
    /// With `attached` it is a referrer of its image: as long as the cache has that by a name, the snapshot stays, too. It is
    /// then listed among what refers to the image, in the repository of the name that the image had: by its digest it is
    /// found there without a name of its own, and a [push with referrers](CopyOptions::referrers) of the image has it.
    ///
    /// # Errors
    /// As [`save`]; [`Config`](crate::ErrorKind::Config) when the name stands for something else; those of the cache.
    pub async fn save_snapshot(
        &self,
        disks: impl Into<DisksToSave>,
        name: &Reference,
        attached: bool,
        progress: Progress,
    ) -> Result<KeptSnapshot> {
        // Dropped on an error, which ends it.
        let operation = progress.operation();
        let artifact = self.artifact(disks.into(), attached).await?;
        let cache = self.cache();
        let there = cache.find_descriptor(name).await?;
        if there.is_some_and(|there| there.digest() != artifact.descriptor().digest()) {
            let error = Error::config("the name stands for something else in the store").with_image(name);
            return Err(error.with_hint("choose another name, or remove that one first"));
        }
        operation.hand_over();
        let options = PullOptions { policy: PullPolicy::Always, progress, ..PullOptions::default() };
        let stored = cache.image_pull(&artifact, name, &options).await?;
        let image = &artifact.snapshot().image;
        // An image that is not here cannot be pushed from here, and nothing would take the list away.
        if attached && cache.stat(&image.digest).await?.is_some() {
            let name = reference::parse(&image.reference)?;
            cache.list_referrers(&name, std::slice::from_ref(artifact.manifest())).await?;
        }
        drop(stored);
        Ok(KeptSnapshot::of(&artifact))
    }

    /// Saves the disks in a folder as [`save`] does, as an artifact of a backend under a name, which is taken from what it
    /// stood for. Cached content is not needed, and nothing is cached.
    ///
    /// # Errors
    /// As [`save`] and [`copy`](fn@plyfold_core::copy).
    pub async fn push_snapshot(
        &self,
        disks: impl Into<DisksToSave>,
        to: &dyn ImageRegistry,
        target: &Reference,
        attached: bool,
        options: &CopyOptions,
    ) -> Result<KeptSnapshot> {
        let operation = options.progress.operation();
        let artifact = self.artifact(disks.into(), attached).await?;
        let image = reference::parse(&artifact.snapshot().image.reference)?;
        let [place, of_image] = [target, &image].map(reference::repository_of);
        if attached && place != of_image {
            let message =
                format!("what lists referrers by repository lists it in {place}, and not in {of_image}");
            options.progress.emit(Event::Warning { message });
        }
        operation.hand_over();
        copy(&artifact, target, to, target, options).await?;
        Ok(KeptSnapshot::of(&artifact))
    }

    async fn artifact(&self, disks: DisksToSave, attached: bool) -> Result<SetArtifact> {
        let scratch = self.temporary();
        alone("plyfold-snapshot", move |stop| SetArtifact::of(&disks, &scratch, attached, stop)).await
    }

    /// Makes the disks of a snapshot that was [pulled](Self::pull) again, as [`load`] does.
    ///
    /// # Errors
    /// As [`load`]; [`Unsupported`](crate::ErrorKind::Unsupported) for an image; those of the cache.
    pub async fn load_snapshot(
        &self,
        snapshot: &PulledImage,
        out: &Path,
        options: FileOptions,
    ) -> Result<(KeptSnapshot, Disks)> {
        let out = out.to_owned();
        self.with_snapshot(snapshot, move |restore, _| restore.write_to(&out, options)).await
    }

    /// Reads a snapshot that was [pulled](Self::pull), every byte of it.
    ///
    /// # Errors
    /// As [`Images::load_snapshot`], but for those about the output.
    pub async fn verify_snapshot(&self, snapshot: &PulledImage) -> Result<KeptSnapshot> {
        let verify = |restore: &Restore<'_>, scratch: &Path| restore.verify(scratch);
        self.with_snapshot(snapshot, verify).await.map(|(kept, ())| kept)
    }

    async fn with_snapshot<T: Send + 'static>(
        &self,
        image: &PulledImage,
        work: impl FnOnce(&Restore<'_>, &Path) -> Result<T> + Send + 'static,
    ) -> Result<(KeptSnapshot, T)> {
        let (source, runtime, scratch) = (self.source(image), Handle::current(), self.temporary());
        let at = |e: Error| e.with_image(&image.reference);
        let wanted = Snapshot::document_of(source.raw()).map_err(at)?;
        let document = source.blob(&wanted, BlobRange::FULL).await.map_err(at)?;
        let document = document.bytes(limits::CONFIG).await.map_err(at)?;
        let snapshot = Snapshot::of_manifest(source.raw(), &document).map_err(at)?;
        let manifest = source.raw().descriptor().clone();
        let kept = KeptSnapshot { snapshot, manifest, notes: Vec::new() };
        let done = alone("plyfold-snapshot", move |stop| {
            let from = Cached { source, runtime };
            let done = work(&Restore { snapshot: &kept.snapshot, from: &from, stop }, &scratch)?;
            Ok((kept, done))
        });
        done.await.map_err(at)
    }

    /// The snapshots in the cache, sorted by name. One that is attached to an image and has no name of its own any more is
    /// named by its digest in the repository of the image.
    ///
    /// # Errors
    /// Those of the cache; [`Corrupt`](crate::ErrorKind::Corrupt) for a snapshot that is damaged.
    pub async fn snapshots(&self) -> Result<Vec<(Reference, KeptSnapshot)>> {
        let cache = self.cache();
        let (mut found, mut attached) = (Vec::new(), Vec::new());
        for (name, descriptor) in cache.list().await? {
            let at = |e: Error| e.with_image(&name);
            if let Some(kept) = snapshot_of(&*cache, &descriptor).await.map_err(at)? {
                found.push((name, kept));
            } else if reference::is_list_of_referrers(&name) && is_index(descriptor.media_type()) {
                for child in attached_to(&*cache, &descriptor).await.map_err(at)? {
                    if let Some(kept) = snapshot_of(&*cache, &child).await.map_err(at)? {
                        attached.push((reference::by_digest(&name, child.digest()), kept));
                    }
                }
            }
        }
        attached.retain(|(_, kept)| {
            found.iter().all(|(_, named)| named.manifest.digest() != kept.manifest.digest())
        });
        found.extend(attached);
        found.sort_by_cached_key(|(name, _)| name.whole());
        Ok(found)
    }

    /// The snapshot that a name stands for in the cache; `None` when it stands for something else, or nothing.
    ///
    /// # Errors
    /// As [`Images::snapshots`].
    pub async fn snapshot(&self, name: &Reference) -> Result<Option<KeptSnapshot>> {
        let cache = self.cache();
        let Some(descriptor) = cache.find_descriptor(name).await? else { return Ok(None) };
        snapshot_of(&*cache, &descriptor).await.map_err(|e| e.with_image(name))
    }
}

/// The manifests of a list of referrers.
async fn attached_to(cache: &dyn CacheProvider, list: &Descriptor) -> Result<Vec<Descriptor>> {
    manifest(cache, list).await?.map_or_else(|| Ok(Vec::new()), |list| referrers::listed(&list))
}

/// The snapshot that a descriptor leads to, if it is one.
async fn snapshot_of(cache: &dyn CacheProvider, top: &Descriptor) -> Result<Option<KeptSnapshot>> {
    if !plyfold_core::manifest::is_manifest(top.media_type()) {
        return Ok(None);
    }
    let Some(raw) = manifest(cache, top).await? else { return Ok(None) };
    if !raw.image().is_ok_and(is_snapshot) {
        return Ok(None);
    }
    let document = cache.content(&Snapshot::document_of(&raw)?, limits::CONFIG).await?;
    let snapshot = Snapshot::of_manifest(&raw, &document)?;
    Ok(Some(KeptSnapshot { snapshot, manifest: raw.descriptor().clone(), notes: Vec::new() }))
}

/// The manifest of a descriptor; `None` when its content is gone.
async fn manifest(cache: &dyn CacheProvider, of: &Descriptor) -> Result<Option<RawManifest>> {
    let bytes = Error::found(cache.content(of, limits::MANIFEST).await)?;
    bytes.map(|bytes| RawManifest::described(bytes, of)).transpose()
}
