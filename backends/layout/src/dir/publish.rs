//! How an image becomes that of its directory.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;

use plyfold_core::blocking::Stop;
use plyfold_core::cache::lacking;
use plyfold_core::{Digest, Error, RawManifest, Result};

use super::folder::{Folder, TOP, VERSION, document_name, is_content, is_part, read_top};
use super::needs::Needs;
use super::record::{self, RECORD};
use crate::durable;
use crate::files;

/// Makes `top` the image, and removes what only the one before has needed.
///
/// # Errors
/// `NotFound` with what is missing but for `absent`: the image is the one before then.
pub(super) fn publish(folder: &Folder, top: &RawManifest, absent: &[Digest], stop: &Stop) -> Result<()> {
    // Of two processes the second one sees what the first has removed.
    let _lock = durable::lock_at(&folder.path().join(VERSION))?;
    let new = Needs::of(folder, top, Some(absent), stop)?;
    if !new.missing.is_empty() {
        let error = lacking("content is not in the directory", &new.missing);
        return Err(error.with_hint("push blobs before manifests, and manifests before their index"));
    }
    let old = folder.top()?;
    let mut gone = HashSet::new();
    if old.as_ref() != Some(top.bytes()) {
        folder.write(TOP, &top.bytes()[..], stop)?;
        // Without the rest it is the image all the same.
        let old = old.and_then(|bytes| read_top(bytes).ok());
        let old = old.and_then(|old| Needs::of(folder, &old, None, stop).ok());
        gone = old.map_or_else(HashSet::new, |old| old.files);
        gone.insert(document_name(top.digest()));
        gone.retain(|name| !new.files.contains(name));
    }
    folder.end(|is_alone| {
        if let Err(e) = clean(folder, &gone, is_alone.then_some(&new.files)) {
            tracing::warn!("removing what is not needed any more in {}: {e}", folder.path().display());
        }
    });
    Ok(())
}

/// Removes files, and signatures of what is gone. If what is `needed` is given no other copy by plyfold runs: then also what
/// copies that were cancelled or killed have left.
fn clean(folder: &Folder, gone: &HashSet<String>, needed: Option<&HashSet<String>>) -> Result<()> {
    let written = needed.map(|_| record::read(folder.path())).transpose()?.unwrap_or_default();
    files::for_each(folder.path(), |entry, found| {
        let name = entry.file_name();
        let (Some(name), true) = (name.to_str(), found.is_file()) else { return Ok(()) };
        let is_left = needed.is_some() && is_part(name) && durable::is_free(&entry.path())?.unwrap_or(false);
        let is_stray = needed.is_some_and(|needed| !needed.contains(name))
            && is_content(name)
            && written.contains(&(name.to_owned(), found.ino()));
        if is_left || is_stray || gone.contains(name) || is_signature(name, gone) {
            files::remove(&entry.path())?;
        }
        Ok::<(), Error>(())
    })?;
    match needed {
        Some(_) => files::remove(&folder.path().join(RECORD)),
        None => Ok(()),
    }
}

/// Whether a file is a signature of the image before, `signature-N`, or of one in it, `HEX.signature-N`, where anything of it
/// is gone.
fn is_signature(name: &str, gone: &HashSet<String>) -> bool {
    let Some((of, number)) = name.rsplit_once("signature-") else { return false };
    let is_gone = |hex: &str| gone.contains(&format!("{hex}.manifest.json"));
    number.bytes().all(|c| c.is_ascii_digit())
        && !number.is_empty()
        && !gone.is_empty()
        && (of.is_empty() || of.strip_suffix('.').is_some_and(is_gone))
}
