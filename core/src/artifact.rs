//! Artifacts: the files that a cache keeps beside the blobs, made from layers and from whole images.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;

use dyn_clone::DynClone;
use serde::{Deserialize, Serialize};

use crate::block_sums::Checksum;
use crate::blocking::Stop;
use crate::digest::chain_id;
use crate::format::{Format, Output};
use crate::hash_tree::{HashTree, HashedPartition};
use crate::{Digest, Error, ErrorKind, Result};

/// The identity of a file made from a layer or from an image.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ArtifactKey {
    /// How it was made.
    pub format: Format,
    /// What it was made from: a layer's `diff_id`, which is the digest of its uncompressed tar, or the
    /// [ChainID](chain_id) of an image's layers. For an image of one layer both are the same digest. The
    /// [index](crate::layer::gzip_index) of a blob is made from the blob, whose digest it is then.
    pub content: Digest,
}

impl ArtifactKey {
    /// The key of what is made from one layer.
    pub fn layer(format: Format, diff_id: Digest) -> Self {
        Self { format, content: diff_id }
    }

    /// The key of what is made from an image, by the `diff_id`s of its layers, bottom first. `None` without layers.
    pub fn image(format: Format, diff_ids: &[Digest]) -> Option<Self> {
        chain_id(diff_ids).map(|content| Self { format, content })
    }

    /// The key of another file of the same format and input.
    #[must_use]
    pub fn with_extension(&self, extension: &'static str) -> Self {
        let format = Format { extension, ..self.format.clone() };
        Self { format, content: self.content.clone() }
    }
}

/// A Linux version, `MAJOR.MINOR`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct KernelVersion {
    /// The first number.
    pub major: u16,
    /// The second number.
    pub minor: u16,
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<KernelVersion> for String {
    fn from(version: KernelVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for KernelVersion {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let numbers =
            text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) = numbers
            .ok_or_else(|| Error::corrupt(format!("{text:?} is not a kernel version such as 5.15")))?;
        Ok(Self { major, minor })
    }
}

/// What a materializer tells about what it has made, beside the files. A cache keeps it with the first file, so that a
/// hit tells the same.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Made {
    /// The oldest Linux that can mount it.
    pub kernel: Option<KernelVersion>,
    /// What a user should know, such as content that the format cannot hold: short sentences.
    pub notes: Vec<String>,
    /// What of the content no file system keeps: short sentences. They hold for whatever is made of these files, too, and
    /// the engine adds them there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<String>,
    /// The hash tree of its image, if one was made. It is that of these files alone: what is made of them has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_tree: Option<HashTree>,
    /// For a disk: the partitions whose images have hash trees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<HashedPartition>,
    /// What it was made from, as it came: the digest of the layer's blob, or the [ChainID](chain_id) of those of all
    /// layers. The engine sets it, and takes nothing out of a cache that was made from something else, unless that has
    /// been read and found to have the same content: which content a blob has is said by an image alone, and
    /// another image may say something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
}

impl Made {
    /// At most this many partitions are kept: Linux finds no more.
    pub const PARTITIONS: usize = 255;
    /// At most this many notes are kept.
    pub const NOTES: usize = 16;
    /// The longest note, in bytes of UTF-8; the rest is cut off.
    pub const NOTE_BYTES: usize = 256;

    /// The same with a kernel version.
    #[must_use]
    pub fn with_kernel(mut self, major: u16, minor: u16) -> Self {
        self.kernel = Some(KernelVersion { major, minor });
        self
    }

    /// The same with a hash tree.
    #[must_use]
    pub fn with_hash_tree(mut self, tree: HashTree) -> Self {
        self.hash_tree = Some(tree);
        self
    }

    /// The same with partitions whose images have hash trees, at most [`PARTITIONS`](Self::PARTITIONS).
    #[must_use]
    pub fn with_partitions(mut self, partitions: Vec<HashedPartition>) -> Self {
        self.partitions = partitions;
        self.partitions.truncate(Self::PARTITIONS);
        self
    }

    /// The same, of what it was made from.
    #[must_use]
    pub fn with_source(self, source: Option<Digest>) -> Self {
        Self { source, ..self }
    }

    /// Whether there is a hash tree of it, or of its partitions.
    pub fn is_hashed(&self) -> bool {
        self.hash_tree.is_some() || !self.partitions.is_empty()
    }

    /// The same with one more note; beyond [`NOTES`](Self::NOTES) it is left out, beyond
    /// [`NOTE_BYTES`](Self::NOTE_BYTES) it is cut.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        push(&mut self.notes, note.into());
        self
    }

    /// The same with further [losses](Self::losses), each once, with the bounds of notes.
    #[must_use]
    pub fn with_losses(mut self, losses: impl IntoIterator<Item: Into<String>>) -> Self {
        for loss in losses.into_iter().map(Into::into) {
            if !self.losses.contains(&loss) {
                push(&mut self.losses, loss);
            }
        }
        self
    }

    /// All that a user should know: the losses, and the notes.
    pub fn told(&self) -> Vec<String> {
        self.losses.iter().chain(&self.notes).cloned().collect()
    }

    /// The same with as many and as long notes as are kept: whatever was put into the fields.
    #[must_use]
    pub fn bounded(&self) -> Self {
        let none = Self { kernel: self.kernel, hash_tree: self.hash_tree.clone(), ..Self::default() };
        let none = none.with_partitions(self.partitions.clone()).with_source(self.source.clone());
        let none = none.with_losses(self.losses.iter().take(Self::NOTES).cloned());
        self.notes.iter().take(Self::NOTES).fold(none, Self::with_note)
    }

    /// What holds for several files together: the newest kernel, and all notes, each once. A hash tree is of one file, and
    /// so is a source: those of `other` are left out.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.kernel = self.kernel.max(other.kernel);
        for note in &other.notes {
            if !self.notes.contains(note) {
                self = self.with_note(note.clone());
            }
        }
        self.with_losses(other.losses.iter().cloned())
    }

    /// Whether there is neither a kernel version nor a note nor a hash tree.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Adds a note within the bounds of [`Made`].
fn push(notes: &mut Vec<String>, mut note: String) {
    if notes.len() < Made::NOTES {
        let mut end = note.len().min(Made::NOTE_BYTES);
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        notes.push(note);
    }
}

/// A finished file of a cache. Never written to. Blocking: for threads that may wait. Clones share it.
pub trait ArtifactHandle: DynClone + fmt::Debug + Send + Sync + 'static {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// What its materializer has told.
    fn made(&self) -> &Made;

    /// The checksum of its bytes, where the cache knows it without a read (rule C 207
    /// `an_artifact_is_read_at_any_offset`).
    fn checksum(&self) -> Option<Checksum> {
        None
    }

    /// Where it is, if it is a file of this machine.
    fn path(&self) -> Option<&Path>;

    /// The file of this machine that it is a part of, and where it begins there, if it is no file by itself.
    fn part_of(&self) -> Option<(&Path, u64)> {
        None
    }

    /// Reads some bytes from an offset; 0 at the end only.
    ///
    /// # Errors
    /// What the file system or the network reports.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads a range in order: `each` gets its bytes, piece by piece, of at most 256 KiB. Where content is asked for over a
    /// network, one request is made for all of the range. Pieces are handed out as they come, and damage may be found behind
    /// them: what was made of them is dropped with any error.
    ///
    /// # Contract
    /// C 207 `an_artifact_is_read_at_any_offset`.
    ///
    /// # Errors
    /// Those of `each`, and as [`read_at`](Self::read_at); [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when the file
    /// ends before the range does.
    fn read_range(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        const PIECE: u64 = 256 << 10;
        let mut at = range.start;
        let mut buffer =
            vec![0; usize::try_from(PIECE.min(range.end.saturating_sub(at))).unwrap_or_default()];
        while at < range.end {
            let wanted = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
            match self.read_at(at, &mut buffer[..wanted]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    each(buffer.get(..count).ok_or(io::ErrorKind::InvalidData)?)?;
                    at += count as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

dyn_clone::clone_trait_object!(ArtifactHandle);

/// A finished file of this machine. It is opened by the first read, and later reads are of the same file.
#[derive(Clone, Debug)]
pub struct LocalArtifact(Arc<Local>);

#[derive(Debug)]
struct Local {
    path: PathBuf,
    size: u64,
    made: Made,
    checksum: Option<Checksum>,
    file: OnceLock<File>,
}

impl LocalArtifact {
    /// The file at a path, whose size is known.
    pub fn new(path: PathBuf, size: u64, made: Made) -> Self {
        Self(Arc::new(Local { path, size, made, checksum: None, file: OnceLock::new() }))
    }

    /// The same of a file whose checksum is known, too.
    pub fn of_checksum(path: PathBuf, size: u64, made: Made, checksum: Checksum) -> Self {
        Self(Arc::new(Local { path, size, made, checksum: Some(checksum), file: OnceLock::new() }))
    }

    fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.0.file.get() {
            return Ok(file);
        }
        let opened = File::open(&self.0.path)?;
        Ok(self.0.file.get_or_init(|| opened))
    }
}

impl ArtifactHandle for LocalArtifact {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn made(&self) -> &Made {
        &self.0.made
    }

    fn checksum(&self) -> Option<Checksum> {
        self.0.checksum
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.0.path)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file()?.read_at(buffer, offset)
    }
}

/// The result of [`CacheProvider::artifact`](crate::CacheProvider::artifact).
#[derive(Debug)]
pub enum Artifact {
    /// The finished file.
    Present(Box<dyn ArtifactHandle>),
    /// The file is missing, and this caller alone may make it now.
    Vacant(Box<dyn ArtifactWriter>),
}

/// One artifact being made. Dropping it without [`commit`](Self::commit) leaves nothing behind (rule C 186
/// `a_dropped_artifact_leaves_nothing`). Blocking: for the thread that runs the materializer.
pub trait ArtifactWriter: fmt::Debug + Send {
    /// Where to write, in any order; empty at first (rule C 280 `an_artifact_is_written_in_any_order`).
    fn output(&mut self) -> &mut dyn Output;

    /// Hands over what says whether the work is cancelled, before the commit: one that takes long asks it.
    fn stop_with(&mut self, stop: &Stop) {
        let _ = stop;
    }

    /// Makes the file durable, then visible, with what its materializer has told.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Cancelled`](crate::ErrorKind::Cancelled): nothing becomes visible.
    fn commit(self: Box<Self>, made: &Made) -> Result<Box<dyn ArtifactHandle>>;
}

/// Reads a finished file from its start, as one open file: for callers that want [`io::Read`] and [`io::Seek`]. What a
/// cache answers is checked: [`ArtifactHandle::read_at`] is not.
#[derive(Debug)]
pub struct ArtifactReader {
    artifact: Box<dyn ArtifactHandle>,
    /// The same, if it is a file of this machine, or a part of one, which begins there.
    own: Option<(LocalArtifact, u64)>,
    position: u64,
}

impl ArtifactReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn open(artifact: &dyn ArtifactHandle) -> Result<Self> {
        let Some((path, start)) = artifact.path().map(|path| (path, 0)).or_else(|| artifact.part_of()) else {
            return Ok(Self { artifact: dyn_clone::clone_box(artifact), own: None, position: 0 });
        };
        // A file of its own: it is closed with the reader, and not with the handle.
        let own = LocalArtifact::new(path.to_owned(), artifact.size(), Made::default());
        own.file().map_err(|e| Error::io(format!("opening {}", path.display()), e))?;
        let artifact: Box<dyn ArtifactHandle> = match start {
            0 => Box::new(own.clone()),
            _ => dyn_clone::clone_box(artifact),
        };
        Ok(Self { artifact, own: Some((own, start)), position: 0 })
    }

    /// Copies the rest of the file to `out`, at its position: by [`RangeWrite::copy_range`](crate::RangeWrite::copy_range) for a file of this machine.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Corrupt`](crate::ErrorKind::Corrupt) when the file has fewer bytes than it says.
    pub fn copy_to(&mut self, out: &mut dyn Output) -> Result<()> {
        self.copy_some(u64::MAX, out)
    }

    /// The same for at most this many bytes.
    ///
    /// # Errors
    /// As [`copy_to`](Self::copy_to).
    pub fn copy_some(&mut self, most: u64, out: &mut dyn Output) -> Result<()> {
        let (from, size) = (self.position, self.artifact.size());
        let length = size.saturating_sub(from).min(most);
        let copied = match &self.own {
            Some((own, start)) => {
                own.file().and_then(|file| out.copy_range(file, start.saturating_add(from), length))
            }
            None => self.artifact.read_range(from..from + length, &mut |piece| out.write_all(piece)),
        };
        self.position = from + length;
        copied.map_err(|e| {
            let (error, key) = match e.kind() {
                io::ErrorKind::UnexpectedEof => {
                    (Error::corrupt(format!("a file has fewer than its {size} bytes")), "path")
                }
                _ => (Error::io("copying a file", e), "source"),
            };
            self.artifact.path().iter().fold(error, |error, path| error.with_context(key, path.display()))
        })
    }
}

impl io::Read for ArtifactReader {
    /// 0 at the size of the file only: one that ends earlier is [`Corrupt`](crate::ErrorKind::Corrupt).
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (position, size) = (self.position, self.artifact.size());
        let left = usize::try_from(size.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let read = loop {
            match self.artifact.read_at(position, &mut buffer[..wanted]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let error = match read {
            Ok(0) => Error::corrupt(format!("a file of the cache ends after {position} of {size} bytes")),
            Ok(count) if count <= wanted => {
                self.position += count as u64;
                return Ok(count);
            }
            Ok(count) => {
                let message =
                    format!("a cache was asked for {wanted} bytes, and says that it has read {count}");
                Error::new(ErrorKind::Internal, message)
            }
            Err(e) => Error::io("reading a file of the cache", e),
        };
        Err(match self.artifact.path() {
            Some(path) => error.with_context("artifact", path.display()),
            None => error,
        }
        .into())
    }
}

impl io::Seek for ArtifactReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.position = seek_to(to, self.position, self.artifact.size())?;
        Ok(self.position)
    }
}

/// Where [`io::Seek::seek`] leads in something of `size` bytes, from `position` on. Beyond the end is allowed.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for what is in front of the start.
pub fn seek_to(to: io::SeekFrom, position: u64, size: u64) -> io::Result<u64> {
    let to = match to {
        io::SeekFrom::Start(to) => Some(to),
        io::SeekFrom::Current(by) => position.checked_add_signed(by),
        io::SeekFrom::End(by) => size.checked_add_signed(by),
    };
    to.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
