//! A layer that is no tar, while it is read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::entry::{DataExtent, Entry, EntryKind, FileKind};
use super::fault::{LayerFault, TarFault};
use super::form::{LayerEntries, LayerForm};
use super::limits::LayerLimits;
use super::options::LayerOptions;
use super::pipeline::Uncompressed;
use crate::durable::temporary_file;
use crate::format::Output;
use crate::{Error, Result, Size};

/// Bytes of a file's data that are read at once.
const PIECE: usize = 256 << 10;

/// A layer of another form while it is read.
pub(super) struct Native {
    pub(super) form: &'static LayerForm,
    /// A folder for its bytes.
    scratch: Option<PathBuf>,
    /// A file that may have them, too.
    stored: Option<PathBuf>,
    /// Once its bytes were read to their verified end.
    entries: Option<Box<dyn LayerEntries>>,
    /// Data of the current file, and how much of it is used.
    data: Vec<u8>,
    used: usize,
}

impl Native {
    pub(super) fn new(form: &'static LayerForm, options: &LayerOptions) -> Self {
        let stored = options.layout.as_ref().zip(options.diff_id.as_ref()).map(|(layout, digest)| {
            layout.join("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
        });
        Self { form, scratch: options.scratch.clone(), stored, entries: None, data: Vec::new(), used: 0 }
    }

    /// Writes all bytes, to their verified end.
    pub(super) fn write_to(&self, bytes: &mut Uncompressed, out: &mut dyn Output) -> Result<()> {
        let stored = self.stored(bytes)?;
        write(stored.as_ref(), bytes, out)
    }

    /// A stored file, and how many of the layer's bytes it has at its start. Those have been read then.
    fn stored(&self, bytes: &mut Uncompressed) -> Result<Option<(File, u64)>> {
        let file = self.stored.as_ref().and_then(|path| File::open(path).ok());
        let Some(file) = file else { return Ok(None) };
        let count = same(bytes, &file)?;
        Ok(Some((file, count)))
    }

    /// The next entry, within the limits.
    pub(super) fn next_entry(
        &mut self,
        bytes: &mut Uncompressed,
        limits: &LayerLimits,
    ) -> Result<Option<Entry>> {
        self.data.clear();
        self.used = 0;
        let entry = self.entries(bytes, limits)?.next_entry()?;
        if let Some(entry) = &entry {
            check(entry, limits)?;
        }
        Ok(entry)
    }

    /// Reads data of the current file, unless there is some that is not used; how many bytes there are then.
    pub(super) fn ready(&mut self, bytes: &mut Uncompressed, limits: &LayerLimits) -> Result<usize> {
        if self.used == self.data.len() {
            let mut data = std::mem::take(&mut self.data);
            data.resize(PIECE, 0);
            let count = self.entries(bytes, limits)?.read(&mut data)?;
            data.truncate(count);
            (self.data, self.used) = (data, 0);
        }
        Ok(self.peek().len())
    }

    pub(super) fn peek(&self) -> &[u8] {
        &self.data[self.used..]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.used += count.min(self.data.len() - self.used);
    }

    fn entries(
        &mut self,
        bytes: &mut Uncompressed,
        limits: &LayerLimits,
    ) -> Result<&mut Box<dyn LayerEntries>> {
        if self.entries.is_none() {
            let file = self.file(bytes)?;
            self.entries = Some((self.form.open)(file, limits)?);
        }
        self.entries.as_mut().ok_or_else(|| LayerFault::Thread.into())
    }

    /// A file with all bytes, which were read to their verified end.
    fn file(&self, bytes: &mut Uncompressed) -> Result<File> {
        let stored = self.stored(bytes)?;
        if let Some((file, count)) = &stored
            && bytes.ready()? == 0
            && file.metadata().is_ok_and(|found| found.len() == *count)
        {
            return file.try_clone().map_err(|e| Error::io("reading a layer", e));
        }
        let mut file = match &self.scratch {
            Some(folder) => temporary_file(folder)?,
            None => tempfile::tempfile().map_err(|e| Error::io("making a temporary file", e))?,
        };
        write(stored.as_ref(), bytes, &mut file)?;
        Ok(file)
    }
}

/// Reads on for as long as a file has the same bytes, from its start; how many these are.
fn same(bytes: &mut Uncompressed, file: &File) -> Result<u64> {
    let (mut count, mut buffer) = (0, vec![0; PIECE]);
    while bytes.ready()? > 0 {
        let piece = bytes.peek();
        let piece = &piece[..piece.len().min(PIECE)];
        let read = &mut buffer[..piece.len()];
        // What cannot be read is not the same.
        if file.read_exact_at(read, count).is_err() || read != piece {
            break;
        }
        count += piece.len() as u64;
        let used = piece.len();
        bytes.consume(used);
    }
    Ok(count)
}

/// Writes all bytes of a layer, to their verified end. Those that a stored file has, and that have been read, are copied
/// from it, so that `out` may share its blocks.
fn write(stored: Option<&(File, u64)>, bytes: &mut Uncompressed, out: &mut dyn Output) -> Result<()> {
    if let Some((file, count)) = stored {
        out.copy_range(file, 0, *count).map_err(writing)?;
    }
    while bytes.ready()? > 0 {
        let count = bytes.peek().len();
        out.write_all(bytes.peek()).map_err(writing)?;
        bytes.consume(count);
    }
    Ok(())
}

fn writing(error: std::io::Error) -> Error {
    Error::io("writing a layer", error)
}

/// What the reader of a tar checks of each entry.
fn check(entry: &Entry, limits: &LayerLimits) -> Result<()> {
    let path = &entry.path;
    let at = |fault: TarFault| Error::from(fault).with_context("path", path);
    let length = path.as_bytes().len();
    if length > limits.path {
        return Err(at(TarFault::PathLong(length, limits.path)));
    }
    match &entry.kind {
        EntryKind::Node(FileKind::File { size, .. }) if *size > limits.file => {
            let sizes = Size(*size).beyond(Size(limits.file));
            return Err(at(TarFault::FileSize(sizes)));
        }
        EntryKind::Node(FileKind::File { content: Some(runs), .. }) if runs.len() > limits.sparse_extents => {
            return Err(at(TarFault::SparseRuns(runs.len() as u64, limits.sparse_extents)));
        }
        EntryKind::Node(FileKind::File { size, content: Some(runs) }) => {
            check_runs(runs, *size).map_err(at)?;
        }
        EntryKind::Node(FileKind::Symlink { target }) if target.len() > limits.path => {
            return Err(at(TarFault::LinkLong(target.len(), limits.path)));
        }
        _ => {}
    }
    for (name, value) in &entry.metadata.xattrs {
        if value.len() > limits.xattr {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(at(TarFault::XattrLong(name, value.len(), limits.xattr)));
        }
    }
    Ok(())
}

fn check_runs(runs: &[DataExtent], size: u64) -> std::result::Result<(), TarFault> {
    let mut end = 0;
    for DataExtent { offset, length } in runs {
        let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
        let wrong =
            || TarFault::Sparse(format!("has a run of {length} bytes at {offset}, out of order or range"));
        end = next.ok_or_else(wrong)?;
    }
    Ok(())
}
