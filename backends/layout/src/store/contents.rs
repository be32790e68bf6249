//! What lies in the store's folders.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use plyfold_core::cache::{Head, Held, HeldArtifact, Holdings};
use plyfold_core::manifest::limits;
use plyfold_core::{Descriptor, Digest, Error, MediaType, Result, digest};

use super::lease;
use crate::root::Root;

/// The algorithms of blobs that can be verified. Others are someone else's, and left alone.
const ALGORITHMS: [&str; 3] = ["sha256", "sha384", "sha512"];

/// What the store holds, and where its artifacts are, in the same order.
pub(super) fn holdings(root: &Root) -> Result<(Holdings, Vec<PathBuf>)> {
    let listed = root.index()?;
    let index = &listed.0;
    let mut holdings = Holdings {
        names: index.names(),
        pins: index.pins().cloned().collect(),
        leased: leased(root)?,
        blobs: blobs(root)?,
        ..Holdings::default()
    };
    for (top, has_name) in index.nameless() {
        // A name that is no reference is a name all the same.
        let list = if has_name { &mut holdings.roots } else { &mut holdings.nameless };
        list.push(top.clone());
    }
    let mut paths = Vec::new();
    for_each_artifact(root, |diff_id, path, metadata| {
        holdings.artifacts.push(HeldArtifact { diff_id, held: held(metadata) });
        paths.push(path);
    })?;
    Ok((holdings, paths))
}

/// Those of the blobs that are manifests or indexes.
pub(super) fn heads(root: &Root, blobs: Vec<Digest>) -> Result<Vec<Head>> {
    let mut heads = Vec::new();
    for digest in blobs {
        if let Some(content) = document(root, &digest)? {
            heads.extend(Head::of(&digest, content));
        }
    }
    Ok(heads)
}

/// The content of a blob that begins like a document.
fn document(root: &Root, digest: &Digest) -> Result<Option<Bytes>> {
    let at = |e| Error::io(format!("reading {digest}"), e);
    let Ok(metadata) = fs::symlink_metadata(root.blob_path(digest)) else { return Ok(None) };
    let blob = Descriptor::new(MediaType::Other(String::new()), metadata.len(), digest.clone());
    // What is gone by now, or was replaced by something else, is no document of ours.
    let Ok(file) = root.open_blob(&blob) else { return Ok(None) };
    let mut content = Vec::new();
    (&file).take(Head::PEEK as u64).read_to_end(&mut content).map_err(at)?;
    if !Head::may_be(&content) {
        return Ok(None);
    }
    file.take(limits::MANIFEST).read_to_end(&mut content).map_err(at)?;
    Ok(Some(content.into()))
}

fn blobs(root: &Root) -> Result<HashMap<Digest, Held>> {
    let mut blobs = HashMap::new();
    for algorithm in ALGORITHMS {
        for_each(&root.path().join("blobs").join(algorithm), |entry, metadata| {
            let name = entry.file_name();
            if let Some(digest) = digest_of(algorithm, &name).filter(|_| metadata.is_file()) {
                blobs.insert(digest, held(metadata));
            }
            Ok(())
        })?;
    }
    Ok(blobs)
}

/// What the leases protect whose holders live.
fn leased(root: &Root) -> Result<HashSet<Digest>> {
    let mut leased = HashSet::new();
    for_each(&root.path().join("ingest"), |entry, metadata| {
        let is_lease = entry.file_name().to_str().is_some_and(|name| name.starts_with(lease::LEASE));
        if is_lease && metadata.is_file() {
            leased.extend(lease::read(&entry.path())?.into_iter().flatten());
        }
        Ok(())
    })?;
    Ok(leased)
}

/// Every artifact of whatever format, sealed or not.
fn for_each_artifact(root: &Root, mut each: impl FnMut(Digest, PathBuf, &Metadata)) -> Result<()> {
    for_each_shelf(root, |algorithm, shelf| {
        for_each(shelf, |entry, metadata| {
            let name = entry.file_name();
            if artifact_of_seal(&name).is_none()
                && metadata.is_file()
                && let Some(diff_id) = made_from(algorithm, &name)
            {
                each(diff_id, entry.path(), metadata);
            }
            Ok(())
        })
    })
}

/// Seals whose artifact is gone.
pub(super) fn for_each_lone_seal(
    root: &Root,
    mut each: impl FnMut(&Path, &Metadata) -> Result<()>,
) -> Result<()> {
    for_each_shelf(root, |algorithm, shelf| {
        for_each(shelf, |entry, metadata| {
            let name = entry.file_name();
            let Some(artifact) = artifact_of_seal(&name) else { return Ok(()) };
            let is_ours = metadata.is_file() && made_from(algorithm, OsStr::new(artifact)).is_some();
            if is_ours && fs::symlink_metadata(shelf.join(artifact)).is_err() {
                return each(&entry.path(), metadata);
            }
            Ok(())
        })
    })
}

/// The folders `artifacts/<format>/<algorithm>/<xx>`.
fn for_each_shelf(root: &Root, mut each: impl FnMut(&str, &Path) -> Result<()>) -> Result<()> {
    for format in folders(&root.path().join("artifacts"))? {
        for algorithm in ALGORITHMS {
            for shelf in folders(&format.join(algorithm))? {
                each(algorithm, &shelf)?;
            }
        }
    }
    Ok(())
}

fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for_each(path, |entry, metadata| {
        folders.extend(metadata.is_dir().then(|| entry.path()));
        Ok(())
    })?;
    Ok(folders)
}

/// Calls `each` for what is in a folder; a missing folder is empty. What vanishes meanwhile is left out, and links
/// are not followed.
pub(super) fn for_each(
    folder: &Path,
    mut each: impl FnMut(&DirEntry, &Metadata) -> Result<()>,
) -> Result<()> {
    let at = |e| Error::io(format!("reading the folder {}", folder.display()), e);
    if fs::symlink_metadata(folder).is_ok_and(|found| !found.is_dir()) {
        return Ok(());
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(at(e)),
    };
    for entry in entries {
        let entry = entry.map_err(at)?;
        match entry.metadata() {
            Ok(metadata) => each(&entry, &metadata)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(at(e)),
        }
    }
    Ok(())
}

pub(super) fn held(metadata: &Metadata) -> Held {
    Held { size: metadata.len(), used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH) }
}

fn artifact_of_seal(name: &OsStr) -> Option<&str> {
    name.to_str()?.strip_suffix(super::artifact::SEAL)
}

fn made_from(algorithm: &str, name: &OsStr) -> Option<Digest> {
    let (hex, _extension) = name.to_str()?.split_once('.')?;
    digest::parse(&format!("{algorithm}:{hex}")).ok()
}

fn digest_of(algorithm: &str, name: &OsStr) -> Option<Digest> {
    digest::parse(&format!("{algorithm}:{}", name.to_str()?)).ok()
}
