//! The file beside an artifact that containerd reads the root hash of a layer from.
//!
//! It is there before the artifact, and goes after it: an artifact with a hash tree is never seen without the file. It has
//! nothing that the artifact's checksum does not have.

use std::fs::Metadata;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use plyfold_core::{Error, Made, Result, TreePlace};

use crate::files;

/// What it is called behind the name of the artifact.
pub(super) const SUFFIX: &str = ".dmverity";

/// What the file has, of an artifact with a hash tree behind its data.
pub(super) fn text(made: &Made) -> Option<String> {
    let tree = made.hash_tree.as_ref()?;
    (tree.place == TreePlace::Append).then(|| tree.sidecar())
}

/// Whether what is there is what its artifact needs.
pub(super) fn is_sound(artifact: &Path, made: &Made) -> Result<bool> {
    let Some(text) = text(made) else { return Ok(true) };
    let path = path_of(artifact);
    if !files::look(&path)?.as_ref().is_some_and(Metadata::is_file) {
        return Ok(false);
    }
    let failed = |e| Error::io(format!("reading {}", path.display()), e);
    let Some(file) = files::open(&path).map_err(failed)? else { return Ok(false) };
    let mut bytes = Vec::new();
    file.take(text.len() as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes == text.as_bytes())
}

pub(super) fn path_of(artifact: &Path) -> PathBuf {
    let mut name = artifact.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}
