//! What lies where blobs and artifacts belong. Foreign files are passed over.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use plyfold_core::cache::DamagedPart;
use plyfold_core::{Digest, Error, Result, digest};
use rustix::fs::FileType;

use super::artifact::ArtifactPath;
use super::sidecar;
use crate::files::{self, for_each};
use crate::root::Root;

/// A file, or whatever stands in its place.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The blob or the artifact that belongs there.
    pub(super) part: DamagedPart,
    pub(super) path: PathBuf,
    pub(super) kind: FileType,
    pub(super) size: u64,
    /// When it was stored or leased last: leases set the time of the content.
    pub(super) used: SystemTime,
    /// When its content or its inode changed last, in nanoseconds since 1970. Unlike the time of the content alone,
    /// no user can set it.
    pub(super) changed: i128,
    pub(super) identity: Identity,
}

/// Which file it is, whatever its name: device and inode.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

impl Item {
    fn new(part: DamagedPart, path: PathBuf, found: &Metadata) -> Self {
        Self {
            part,
            path,
            kind: FileType::from_raw_mode(found.mode()),
            size: found.len(),
            used: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            changed: i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec()),
            identity: identity(found),
        }
    }
}

/// Everything.
pub(super) fn all(root: &Root) -> Result<Vec<Item>> {
    let mut items = blobs(root, |_| true)?;
    items.extend(artifacts(root, |_| true)?);
    Ok(items)
}

/// The blobs that are `wanted`.
pub(super) fn blobs(root: &Root, wanted: impl Fn(&Digest) -> bool) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let blobs = root.path().join("blobs");
    refuse_other_than_folder(&blobs)?;
    for algorithm in ["sha256", "sha384", "sha512"] {
        let folder = blobs.join(algorithm);
        refuse_other_than_folder(&folder)?;
        for_each(&folder, |entry, found| {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|hex| digest::parse(&format!("{algorithm}:{hex}")).ok());
            if let Some(digest) = digest.filter(&wanted) {
                items.push(Item::new(DamagedPart::Blob(digest), entry.path(), found));
            }
            Ok(())
        })?;
    }
    Ok(items)
}

/// The artifacts whose content is `wanted`, of every format: `artifacts/<format>/<algorithm>/<xx>/<hex>.<extension>`.
/// Checksums and other files beside them are no artifacts: their extension has more than one part.
pub(super) fn artifacts(root: &Root, wanted: impl Fn(&Digest) -> bool) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    each_in_shards(root, |format, content, extension, path, found| {
        if !extension.contains('.') && wanted(&content) {
            items.push(Item::new(DamagedPart::Artifact(format.to_owned(), content), path, found));
        }
    })?;
    Ok(items)
}

/// Checksums and sidecars beside which there is no artifact, and where that would be.
pub(super) fn lone_companions(root: &Root) -> Result<Vec<(ArtifactPath, PathBuf, Metadata)>> {
    let mut companions = Vec::new();
    each_in_shards(root, |format, content, extension, path, found| {
        let of_checksum = extension.strip_suffix(".checksum");
        let Some(extension) = of_checksum.or_else(|| extension.strip_suffix(sidecar::SUFFIX)) else { return };
        // An invalid format name is not from this store.
        let Ok(place) = ArtifactPath::new(format, &content, extension) else { return };
        if !extension.contains('.') && fs::symlink_metadata(place.path(root)).is_err() {
            companions.push((place, path, found.clone()));
        }
    })?;
    Ok(companions)
}

/// Calls `each` with format, content, extension and path of every file that is named after a layer or an image.
fn each_in_shards(root: &Root, mut each: impl FnMut(&str, Digest, &str, PathBuf, &Metadata)) -> Result<()> {
    let artifacts = root.path().join("artifacts");
    refuse_other_than_folder(&artifacts)?;
    for_each_below(&artifacts, 3, &mut |entry, found| {
        let path = entry.path();
        let names: Option<Vec<&str>> = path.iter().rev().take(4).map(OsStr::to_str).collect();
        if let Some([file, shard, algorithm, format]) = names.as_deref()
            && let Some((hex, extension)) = file.split_once('.').filter(|(hex, _)| hex.starts_with(shard))
            && let Ok(content) = digest::parse(&format!("{algorithm}:{hex}"))
        {
            each(format, content, extension, path.clone(), found);
        }
        Ok(())
    })
}

/// Calls `each` for what is so many levels below a folder. What is no folder on the way there, such as a link to one, is
/// not from this store.
fn for_each_below(
    folder: &Path,
    levels: usize,
    each: &mut impl FnMut(&DirEntry, &Metadata) -> Result<()>,
) -> Result<()> {
    for_each(folder, |entry, found| match levels {
        0 => each(entry, found),
        _ => for_each_below(&entry.path(), levels - 1, each),
    })
}

/// An error for anything else in the place of a folder, because it could lead outside.
fn refuse_other_than_folder(path: &Path) -> Result<()> {
    match files::look(path)? {
        Some(found) if !found.is_dir() => {
            Err(Error::corrupt(format!("{} is not a directory", path.display())))
        }
        _ => Ok(()),
    }
}
