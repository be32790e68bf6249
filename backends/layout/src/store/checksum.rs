//! The record that proves an artifact: it is complete, and nothing has written to it since.
//!
//! A file elsewhere may be a hard link to an artifact, and a write to that one changes the artifact. So a checksum has,
//! beside the size and the [checksums of the blocks](plyfold_core::block_sums), the time of the last write and the mode that the
//! file had then. A hit compares size, time and mode; where one differs, the content is read again in full before it is used. The
//! time of the inode is no help: it changes with every link. A writer who sets the time back is found by a verification alone.
//!
//! The form: a line of JSON, a line with the XXH3 of the first one and of the artifact's place in the store, and the checksums of the
//! blocks, which the first line has a checksum of. A hit reads the two lines. What does not have this form, or is that of another artifact,
//! is no checksum, and the artifact is made again.

use std::fs::{File, Metadata, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use plyfold_core::block_sums::{self, BlockSums, Reading};
use plyfold_core::blocking::Stop;
use plyfold_core::xxh3::Xxh3;
use plyfold_core::{Error, ErrorKind, Made, Result};

use crate::durable;
use crate::files;
use crate::root::Root;

/// The mode of every artifact: for all to read.
pub(super) const MODE: u32 = 0o444;
/// Much more than the lines of any checksum have: notes are at most 4 KiB, each of their bytes six in JSON, and each of 255
/// partitions takes less than 1 KiB.
const LINES: u64 = 512 << 10;
/// The most bytes that are read of the checksums of blocks: those of 8 TiB without a block of zeros.
const SUMS: u64 = 64 << 20;

/// What is written beside an artifact when it is complete.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checksum {
    pub(super) size: u64,
    /// Of the checksums of the blocks.
    pub(super) blocks: block_sums::Checksum,
    /// The file as it was when its content was last known to be right.
    pub(super) seen: Seen,
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
    pub(super) fn to_bytes(&self, artifact: &Path, sums: &BlockSums) -> Result<Vec<u8>> {
        let line = serde_json::to_vec(self);
        let mut bytes =
            line.map_err(|e| Error::new(ErrorKind::Internal, "writing a checksum").with_source(e))?;
        let check = check_of(&bytes, artifact);
        bytes.extend_from_slice(check.as_bytes());
        bytes.extend_from_slice(&sums.to_bytes());
        Ok(bytes)
    }

    /// The two lines, and what is there of the rest.
    fn parse<'a>(bytes: &'a [u8], artifact: &Path) -> Option<(Self, &'a [u8])> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = bytes.split_at(end);
        let check = check_of(line, artifact);
        let rest = rest.strip_prefix(check.as_bytes())?;
        Some((serde_json::from_slice(line).ok()?, rest))
    }

    /// The modes that the file has and that it was recorded with, when they differ.
    pub(super) fn other_mode(&self, found: &Metadata) -> Option<(u32, u32)> {
        let (mode, recorded) = (Seen::in_metadata(found).mode, self.seen.mode);
        (mode != recorded).then_some((mode, recorded))
    }
}

/// The second line: of the first one, and of the folders and the name that the artifact has in the store.
fn check_of(line: &[u8], artifact: &Path) -> String {
    /// The format, the algorithm, the first digits, and the file.
    const NAMES: usize = 4;
    let mut sum = Xxh3::default();
    sum.update(line);
    artifact.iter().rev().take(NAMES).for_each(|name| {
        sum.update(b"\n");
        sum.update(name.as_bytes());
    });
    format!("\n{:016x}\n", sum.finish())
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
    Ok(checksum.filter(|checksum| checksum.seen == Seen::in_metadata(&found)))
}

/// The checksum of an artifact whose content is what its checksum says, after reading all of it.
pub(super) fn reread(path: &Path) -> Result<Option<Checksum>> {
    Ok(checked(path)?.map(|checked| checked.checksum))
}

/// As [`reread`], for callers that hold the right to make the artifact; `temp` is the name of the temporary file of its
/// checksum. The mode is set back, and the checksum then says what the file shows now: the next hit is cheap again.
pub(super) fn renewed(root: &Root, temp: &str, path: &Path) -> Result<Option<Checksum>> {
    // The previous holder of that right may have done it.
    if let Some(checksum) = trusted(path)? {
        return Ok(Some(checksum));
    }
    let Some(Checked { checksum, sums, file, mut seen }) = checked(path)? else { return Ok(None) };
    let restored = file.set_permissions(Permissions::from_mode(MODE));
    let noted = restored.map_err(|e| Error::io("setting the mode back", e)).and_then(|()| {
        seen.mode = Seen::of(&file)?.mode;
        let before = checksum.to_bytes(path, &sums)?;
        let after = Checksum { seen, ..checksum.clone() }.to_bytes(path, &sums)?;
        let target = path_of(path);
        durable::replace_document(root, temp, &target, 0o444, (&before, &after))
    });
    // The content is right all the same; the next hit reads it once more.
    noted.unwrap_or_else(|e| tracing::debug!("noting that {} is unchanged: {e}", path.display()));
    Ok(Some(checksum))
}

/// An artifact whose content is what its checksum says.
struct Checked {
    checksum: Checksum,
    sums: BlockSums,
    file: File,
    /// What the file showed before it was read.
    seen: Seen,
}

fn checked(path: &Path) -> Result<Option<Checked>> {
    let Some(found) = metadata(path)? else { return Ok(None) };
    let Some((checksum, sums)) = read_with_sums(path)? else { return Ok(None) };
    if checksum.size != found.len() {
        return Ok(None);
    }
    let opened = files::open(path).map_err(|e| Error::io(format!("opening {}", path.display()), e));
    let Some(file) = opened? else { return Ok(None) };
    let seen = Seen::of(&file)?;
    let stop = Stop::default();
    let damaged = match block_sums::damaged(&file, &sums, &Reading::on_all_cores(&stop)) {
        Err(e) if *e.kind() == ErrorKind::Corrupt => Some(e.message().to_owned()),
        damaged => block_sums::mismatch(&damaged?),
    };
    if let Some(why) = damaged {
        tracing::warn!(
            "{} was written to since it was made, perhaps through a link: it is not used: {why}",
            path.display()
        );
        return Ok(None);
    }
    Ok(Some(Checked { checksum, sums, file, seen }))
}

/// The checksum of an artifact, without those of its blocks; `None` when it is missing or invalid. One that cannot be read
/// for another reason is an error: the artifact may be complete.
pub(super) fn read(path: &Path) -> Result<Option<Checksum>> {
    let bytes = bytes(path, LINES)?;
    Ok(bytes.and_then(|bytes| Checksum::parse(&bytes, path).map(|(checksum, _)| checksum)))
}

/// The same with the checksums of its blocks.
pub(super) fn read_with_sums(path: &Path) -> Result<Option<(Checksum, BlockSums)>> {
    let Some(bytes) = bytes(path, LINES + SUMS)? else { return Ok(None) };
    let Some((checksum, sums)) = Checksum::parse(&bytes, path) else { return Ok(None) };
    if block_sums::Checksum::of(checksum.size, sums) != checksum.blocks {
        return Ok(None);
    }
    Ok(BlockSums::parse(checksum.size, sums).map(|sums| (checksum, sums)))
}

/// The bytes of the file beside an artifact, so many at most.
fn bytes(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let checksum = path_of(path);
    if metadata(&checksum)?.is_none() {
        return Ok(None);
    }
    let opened = files::open(&checksum).map_err(|e| Error::io(format!("opening {}", checksum.display()), e));
    let Some(opened) = opened? else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = opened.take(limit).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(format!("reading {}", checksum.display()), e))?;
    Ok(Some(bytes))
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
