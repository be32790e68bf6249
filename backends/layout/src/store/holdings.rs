//! What the store holds, as a collection has to know it.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io::Read;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use plyfold_core::cache::{DamagedPart, Head, Held, HeldArtifact, Holdings};
use plyfold_core::manifest::limits;
use plyfold_core::{Digest, Error, ErrorKind, Result};

use super::{items, lease, remains};
use crate::files::for_each;
use crate::root::Root;

/// What the store holds, and where its artifacts are, in the same order.
pub(super) fn holdings(root: &Root) -> Result<(Holdings, Vec<PathBuf>)> {
    let listed = root.index()?;
    let index = &listed.0;
    let mut holdings = Holdings {
        names: index.names(),
        pins: index.pins().cloned().collect(),
        leased: leased(root)?,
        partials: remains::partials(root)?,
        ..Holdings::default()
    };
    for (top, has_name) in index.nameless() {
        // A name that is no reference is a name all the same.
        let list = if has_name { &mut holdings.roots } else { &mut holdings.nameless };
        list.push(top.clone());
    }
    let mut paths = Vec::new();
    for item in items::all(root)?.into_iter().filter(|item| item.kind.is_file()) {
        let held = Held { size: item.size, used: item.used };
        match item.part {
            DamagedPart::Blob(digest) => drop(holdings.blobs.insert(digest, held)),
            DamagedPart::Artifact(_, content) => {
                holdings.artifacts.push(HeldArtifact { content, held });
                paths.push(item.path);
            }
            _ => {}
        }
    }
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
pub(super) fn document(root: &Root, digest: &Digest) -> Result<Option<Bytes>> {
    let at = |e| Error::io(format!("reading {digest}"), e);
    let file = match root.open_file(digest) {
        Ok(Some((file, _))) => file,
        // It is absent or no regular file.
        Ok(None) => return Ok(None),
        Err(e) if *e.kind() == ErrorKind::Corrupt => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut content = Vec::new();
    (&file).take(Head::PEEK as u64).read_to_end(&mut content).map_err(at)?;
    if !Head::may_be(&content) {
        return Ok(None);
    }
    file.take(limits::MANIFEST).read_to_end(&mut content).map_err(at)?;
    Ok(Some(content.into()))
}

/// The digests that leases of running processes protect.
pub(super) fn leased(root: &Root) -> Result<HashSet<Digest>> {
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

pub(super) fn held(metadata: &Metadata) -> Held {
    Held { size: metadata.len(), used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH) }
}
