//! The record that proves an artifact: it is complete, and nothing has written to it since.
//!
//! A file elsewhere may be a hard link to an artifact, and a write to that one changes the artifact. So a checksum has,
//! beside digest and size, the time of the last write and the mode that the file had then. A hit compares size, time
//! and mode; where one differs, the content is read again in full before it is used. The time of the inode is no help:
//! it changes with every link. A writer who sets the time back is found by a verification alone.

use std::fs::{File, Metadata, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use plyfold_core::digest::Hasher;
use plyfold_core::{Digest, Error, ErrorKind, Made, Result};

use crate::durable;
use crate::files;
use crate::root::Root;

/// The mode of every artifact: for all to read.
pub(super) const MODE: u32 = 0o444;

/// What is written beside an artifact when it is complete.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub(super) struct Checksum {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// The file as it was when its content was last known to be right; not in checksums of earlier versions.
    #[serde(default)]
    pub(super) seen: Option<Seen>,
    /// What the materializer has told; left out when it has told nothing.
    #[serde(default, skip_serializing_if = "Made::is_default")]
    pub(super) made: Made,
}

/// What of a file changes when it is written to, or opened for others to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub(super) struct Seen {
    /// The last write: seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    /// The bits of permission.
    mode: u32,
}

impl Checksum {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let bytes = serde_json::to_vec(self);
        bytes.map_err(|e| Error::new(ErrorKind::Internal, "writing a checksum").with_source(e))
    }

    /// The modes that the file has and that it was recorded with, when they differ.
    pub(super) fn other_mode(&self, found: &Metadata) -> Option<(u32, u32)> {
        let (mode, recorded) = (Seen::in_metadata(found).mode, self.seen?.mode);
        (mode != recorded).then_some((mode, recorded))
    }
}

impl Seen {
    pub(super) fn of(file: &File) -> Result<Self> {
        let metadata = file.metadata().map_err(|e| Error::io("looking at an artifact", e))?;
        Ok(Self::in_metadata(&metadata))
    }

    fn in_metadata(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { modified, mode: metadata.mode() & 0o7777 }
    }
}

/// The checksum of an artifact that shows no write since it was recorded.
pub(super) fn trusted(path: &Path) -> Result<Option<Checksum>> {
    let Some(found) = metadata(path)? else { return Ok(None) };
    let checksum = read(path)?.filter(|checksum| checksum.size == found.len());
    Ok(checksum.filter(|checksum| checksum.seen == Some(Seen::in_metadata(&found))))
}

/// The checksum of an artifact whose content is what its checksum says, after reading all of it.
pub(super) fn reread(path: &Path) -> Result<Option<Checksum>> {
    Ok(checked(path)?.map(|(checksum, ..)| checksum))
}

/// As [`reread`], for callers that hold the right to make the artifact; `temp` is the name of the temporary file of its
/// checksum. The mode is set back, and the checksum then says what the file shows now: the next hit is cheap again.
pub(super) fn renewed(root: &Root, temp: &str, path: &Path) -> Result<Option<Checksum>> {
    // The previous holder of that right may have done it.
    if let Some(checksum) = trusted(path)? {
        return Ok(Some(checksum));
    }
    let Some((checksum, file, mut seen)) = checked(path)? else { return Ok(None) };
    let restored = file.set_permissions(Permissions::from_mode(MODE));
    let noted = restored.map_err(|e| Error::io("setting the mode back", e)).and_then(|()| {
        seen.mode = Seen::of(&file)?.mode;
        let before = checksum.to_bytes()?;
        let after = Checksum { seen: Some(seen), ..checksum.clone() }.to_bytes()?;
        let target = path_of(path);
        durable::replace_document(root, temp, &target, 0o444, (&before, &after))
    });
    // The content is right all the same; the next hit reads it once more.
    noted.unwrap_or_else(|e| tracing::debug!("noting that {} is unchanged: {e}", path.display()));
    Ok(Some(checksum))
}

/// An artifact whose content is what its checksum says, and what its file showed before that was read.
fn checked(path: &Path) -> Result<Option<(Checksum, File, Seen)>> {
    let Some(found) = metadata(path)? else { return Ok(None) };
    let Some(checksum) = read(path)?.filter(|checksum| checksum.size == found.len()) else { return Ok(None) };
    let opened = files::open(path).map_err(|e| Error::io(format!("opening {}", path.display()), e));
    let Some(file) = opened? else { return Ok(None) };
    let seen = Seen::of(&file)?;
    if hash(&file)? != (checksum.digest.clone(), checksum.size) {
        tracing::warn!(
            "{} was written to since it was made, perhaps through a link: it is not used",
            path.display()
        );
        return Ok(None);
    }
    Ok(Some((checksum, file, seen)))
}

/// The content of an artifact's checksum; `None` when it is missing or invalid. One that cannot be read
/// for another reason is an error: the artifact may be complete.
pub(super) fn read(path: &Path) -> Result<Option<Checksum>> {
    /// Much more than any checksum has: notes are at most 4 KiB, each of their bytes six in JSON, and each of 255 partitions
    /// takes less than 1 KiB.
    const LIMIT: u64 = 512 << 10;
    let checksum = path_of(path);
    if metadata(&checksum)?.is_none() {
        return Ok(None);
    }
    let opened = files::open(&checksum).map_err(|e| Error::io(format!("opening {}", checksum.display()), e));
    let Some(opened) = opened? else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = opened.take(LIMIT).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(format!("reading {}", checksum.display()), e))?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// The digest and the size of a file from its start.
pub(super) fn hash(file: impl Read) -> Result<(Digest, u64)> {
    let mut hasher = Hasher::sha256();
    let size = hasher.read_all(file).map_err(|e| Error::io("reading an artifact", e))?;
    Ok((hasher.finish(), size))
}

pub(super) fn path_of(artifact: &Path) -> PathBuf {
    let mut name = artifact.as_os_str().to_owned();
    name.push(".checksum");
    name.into()
}

/// What is known of a regular file; `None` when there is none.
fn metadata(path: &Path) -> Result<Option<Metadata>> {
    Ok(files::look(path)?.filter(Metadata::is_file))
}
