//! A layer that is no tar, while it is read.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::entry::{Entry, EntryKind, FileKind};
use super::fault::{LayerFault, TarFault};
use super::form::{LayerEntries, LayerForm};
use super::limits::LayerLimits;
use super::options::{Compression, LayerOptions};
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
    /// Where they are if the layer is stored as it is.
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

    /// Writes all bytes, to their verified end: those of the file that has them, so that it may share its blocks.
    pub(super) fn write_to(&self, bytes: &mut Uncompressed, mut out: &mut dyn Output) -> Result<()> {
        let Some(file) = self.stored() else { return copy(bytes, &mut out) };
        let size = self.verified(bytes, &file)?;
        out.copy_range(&file, 0, size).map_err(writing)
    }

    /// The file that has the layer's bytes, if it is stored and not compressed.
    fn stored(&self) -> Option<File> {
        let file = File::open(self.stored.as_ref()?).ok()?;
        let mut head = [0; 4];
        file.read_exact_at(&mut head, 0).ok()?;
        (Compression::by_magic(&head) == Compression::None).then_some(file)
    }

    /// Reads all bytes to their verified end, and checks that this is the file that has them; how many there are.
    fn verified(&self, bytes: &mut Uncompressed, file: &File) -> Result<u64> {
        copy(bytes, &mut std::io::sink())?;
        let size = bytes.totals().map_or(0, |totals| totals.tar.size);
        let stored = file.metadata().map_err(|e| Error::io("looking at a layer", e))?.len();
        if stored != size {
            let error = Error::corrupt(format!("a stored layer of {size} bytes has {stored}"));
            return Err(self.stored.iter().fold(error, |e, path| e.with_context("path", path.display())));
        }
        Ok(size)
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
        if let Some(file) = self.stored() {
            self.verified(bytes, &file)?;
            return Ok(file);
        }
        let file = match &self.scratch {
            Some(folder) => temporary_file(folder)?,
            None => tempfile::tempfile().map_err(|e| Error::io("making a temporary file", e))?,
        };
        let mut out = BufWriter::with_capacity(PIECE, file);
        copy(bytes, &mut out)?;
        out.into_inner().map_err(|e| writing(e.into_error()))
    }
}

/// Copies all bytes of a layer, to their verified end.
fn copy(bytes: &mut Uncompressed, out: &mut dyn Write) -> Result<()> {
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
