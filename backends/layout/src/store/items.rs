//! What lies where blobs and artifacts belong. Foreign files are passed over.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use plyfold_core::cache::DamagedPart;
use plyfold_core::{Digest, Error, Result, digest};
use rustix::fs::FileType;

use super::artifact::ArtifactPath;
use crate::files;
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
    /// `None` when it is gone by now.
    fn new(part: DamagedPart, path: PathBuf) -> Result<Option<Self>> {
        let Some(metadata) = files::look(&path)? else { return Ok(None) };
        Ok(Some(Self {
            part,
            path,
            kind: FileType::from_raw_mode(metadata.mode()),
            size: metadata.len(),
            used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            changed: i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
            identity: identity(&metadata),
        }))
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
    if !is_folder(&blobs)? {
        return Ok(items);
    }
    for algorithm in ["sha256", "sha384", "sha512"] {
        let folder = blobs.join(algorithm);
        for name in names(&folder)? {
            let Ok(digest) = digest::parse(&format!("{algorithm}:{name}")) else { continue };
            if wanted(&digest) {
                items.extend(Item::new(DamagedPart::Blob(digest), folder.join(name))?);
            }
        }
    }
    Ok(items)
}

/// The artifacts whose content is `wanted`, of every format: `artifacts/<format>/<algorithm>/<xx>/<hex>.<extension>`.
/// Checksums and other files beside them are no artifacts: their extension has more than one part.
pub(super) fn artifacts(root: &Root, wanted: impl Fn(&Digest) -> bool) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    each_in_shards(root, |format, content, extension, path| {
        if !extension.contains('.') && wanted(&content) {
            items.extend(Item::new(DamagedPart::Artifact(format.to_owned(), content), path)?);
        }
        Ok(())
    })?;
    Ok(items)
}

/// Checksums beside which there is no artifact, and where that would be.
pub(super) fn lone_checksums(root: &Root) -> Result<Vec<(ArtifactPath, PathBuf)>> {
    let mut checksums = Vec::new();
    each_in_shards(root, |format, content, extension, path| {
        let Some(extension) = extension.strip_suffix(".checksum") else { return Ok(()) };
        // An invalid format name is not from this store.
        let Ok(place) = ArtifactPath::new(format, &content, extension) else { return Ok(()) };
        if !extension.contains('.') && fs::symlink_metadata(place.path(root)).is_err() {
            checksums.push((place, path));
        }
        Ok(())
    })?;
    Ok(checksums)
}

/// Calls `each` with format, content, extension and path of every file that is named after a layer or an image.
fn each_in_shards(
    root: &Root,
    mut each: impl FnMut(&str, Digest, &str, PathBuf) -> Result<()>,
) -> Result<()> {
    for format in folders(&root.path().join("artifacts"))? {
        for algorithm in folders(&format)? {
            for shard in folders(&algorithm)? {
                for name in names(&shard)? {
                    let Some((hex, extension)) = name.split_once('.') else { continue };
                    let text = format!("{}:{hex}", last(&algorithm));
                    let Ok(content) = digest::parse(&text) else { continue };
                    if hex.starts_with(last(&shard)) {
                        each(last(&format), content, extension, shard.join(&name))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The last component of a path that [`folders`] has made.
fn last(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The folders in a folder.
fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for inner in names(path)?.into_iter().map(|name| path.join(name)) {
        // What is no folder there, such as a link to one, is not from this store.
        if files::look(&inner)?.is_some_and(|found| found.is_dir()) {
            folders.push(inner);
        }
    }
    Ok(folders)
}

/// The names in a folder that are UTF-8; empty when there is no such folder.
fn names(path: &Path) -> Result<Vec<String>> {
    if !is_folder(path)? {
        return Ok(Vec::new());
    }
    let at = |e| Error::io(format!("reading the directory {}", path.display()), e);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(at)? {
        names.extend(entry.map_err(at)?.file_name().into_string());
    }
    Ok(names)
}

/// Whether there is a folder; anything else in its place is an error, because it could lead outside.
fn is_folder(path: &Path) -> Result<bool> {
    match files::look(path)? {
        Some(found) if !found.is_dir() => {
            Err(Error::corrupt(format!("{} is not a directory", path.display())))
        }
        found => Ok(found.is_some()),
    }
}
