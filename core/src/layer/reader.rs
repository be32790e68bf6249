//! The tar reader: blocks in, entries and their data out.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::FileExt as _;

use super::assemble::{self, Extensions};
use super::fault::{LayerFault, TarFault};
use super::form::LayerForm;
use super::gzip_index::IndexedGzip;
use super::header::{BLOCK, Header, until_nul};
use super::native::Native;
use super::pax::{Globals, Pax};
use super::pipeline::Uncompressed;
use super::spans::Spans;
use super::sparse::Sparse;
use super::{Compression, Entry, EntryKind, FileKind, LayerLimits, LayerOptions, LayerSummary, Warning};
use crate::format::Output;
use crate::tree::Watched;
use crate::{Descriptor, Error, Result, Size};

/// A layer's tar, decompressed, hashed and parsed while it is read.
///
/// Entries come in the tar's order. What is delivered before [`LayerTar::finish`] has returned `Ok` is not yet
/// verified. An error is final: every later call repeats it. Dropping it stops its threads.
pub struct LayerTar {
    bytes: Uncompressed,
    limits: LayerLimits,
    blob: Option<Descriptor>,
    globals: Globals,
    entries: u64,
    /// Whether a header was seen.
    begun: bool,
    /// Stored bytes of the current file that were not consumed.
    left: u64,
    /// Bytes between the current file's data and the next header.
    padding: u64,
    /// Whether the end of the archive was seen.
    ended: bool,
    warnings: Vec<Warning>,
    failure: Option<Error>,
    /// What it is in place of a tar.
    native: Option<Native>,
    /// The file that the bytes are read from.
    file: Option<Watched>,
}

impl LayerTar {
    /// A layer out of its compressed or plain bytes. No byte of `source` is read here: this never waits. Its first bytes are
    /// read by the first call that reads, the rest by another thread.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a digest that cannot be verified, [`Io`](crate::ErrorKind::Io) when
    /// no thread can be started.
    pub fn new(source: impl Read + Send + 'static, options: LayerOptions) -> Result<Self> {
        options.check()?;
        Ok(Self::of(Uncompressed::new(source, &options), options))
    }

    fn of(bytes: Uncompressed, options: LayerOptions) -> Self {
        let native = options.form.map(|form| Native::new(form, &options));
        Self {
            bytes,
            limits: options.limits,
            blob: options.blob,
            globals: Globals::default(),
            entries: 0,
            begun: false,
            left: 0,
            padding: 0,
            ended: false,
            warnings: Vec::new(),
            failure: None,
            native,
            file: None,
        }
    }

    /// What the layer is, if it is no tar. Its entries come after its bytes were read to their verified end, and went to
    /// [`LayerOptions::scratch`].
    pub fn form(&self) -> Option<&'static LayerForm> {
        self.native.as_ref().map(|native| native.form)
    }

    /// Writes the uncompressed bytes of a layer that is no tar, to their verified end, for formats that keep them as they
    /// are. It has no entries any more. A layer that [is stored](LayerOptions::layout) is copied by
    /// [`RangeWrite::copy_range`](crate::RangeWrite::copy_range), so that it may share its blocks.
    ///
    /// # Errors
    /// As [`LayerTar::finish`]; [`Io`](crate::ErrorKind::Io) from `out`; [`Internal`](crate::ErrorKind::Internal) for a
    /// tar, and once entries were read.
    pub fn write_to(&mut self, out: &mut dyn Output) -> Result<()> {
        self.guarded(|tar| match &tar.native {
            Some(native) if !tar.begun && !tar.ended => {
                tar.ended = true;
                native.write_to(&mut tar.bytes, out)
            }
            _ => {
                let message = "the bytes of a layer are written before its first entry, and if it is no tar";
                Err(Error::new(crate::ErrorKind::Internal, message))
            }
        })
    }

    /// As [`LayerTar::new`], out of a gzip blob that several threads decode. Its bytes are not hashed as they come: the `diff_id`
    /// proves them.
    ///
    /// # Errors
    /// As [`LayerTar::new`]; [`Config`](crate::ErrorKind::Config) with options that want the digest of the blob.
    pub fn indexed(decoded: IndexedGzip, options: LayerOptions) -> Result<Self> {
        if options.hashes_blob() {
            return Err(Error::config("a layer that is decoded by an index is not hashed as it comes"));
        }
        options.check()?;
        Ok(Self::of(Uncompressed::spans(Spans::new(decoded, options.clone())?), options))
    }

    /// As [`LayerTar::new`], where `source` yields all bytes of `file`. If it is a plain tar,
    /// a [`MergedTree`](crate::tree::MergedTree) leaves content where it is.
    ///
    /// # Errors
    /// As [`LayerTar::new`]; [`Io`](crate::ErrorKind::Io) of the file.
    pub fn in_file(source: impl Read + Send + 'static, file: File, options: LayerOptions) -> Result<Self> {
        // Before the first byte is read, so that every later write is seen.
        let file = Watched::new(file)?;
        let is_plain = options.form.is_none() && is_plain(&file.file)?;
        Ok(Self { file: Some(file).filter(|_| is_plain), ..Self::new(source, options)? })
    }

    /// As [`LayerTar::in_file`], and nothing is [hashed](crate::layer::Hashing): of a plain tar, content that is skipped is not
    /// read. There is no other thread: [`LayerTar::next_entry`] and [`LayerTar::data`] wait for `source`.
    ///
    /// # Errors
    /// As [`LayerTar::in_file`]; [`Config`](crate::ErrorKind::Config) with options that want a digest.
    pub fn in_file_unhashed(
        source: impl Read + Seek + Send + 'static,
        file: File,
        options: LayerOptions,
    ) -> Result<Self> {
        if options.hashes_blob() || options.hashes_tar() {
            return Err(Error::config("a layer that is hashed is read as a whole"));
        }
        let file = Watched::new(file)?;
        if options.form.is_some() || !is_plain(&file.file)? {
            return Self::new(source, options);
        }
        let bytes = Uncompressed::plain(source, file.size(), &options);
        Ok(Self { file: Some(file), ..Self::of(bytes, options) })
    }

    /// The file of [`LayerTar::in_file`], where the tar is in it as it is.
    pub(crate) fn plain_file(&mut self) -> Option<Watched> {
        self.file.take()
    }

    /// The bounds that the layer is read within.
    pub fn limits(&self) -> &LayerLimits {
        &self.limits
    }

    /// The place in the uncompressed tar of what comes next: after [`LayerTar::next_entry`] of the first byte of the
    /// file's data, which a tar begins at a multiple of 512. Without meaning for a layer that is no tar.
    pub fn position(&self) -> u64 {
        self.bytes.position()
    }

    /// Writes the uncompressed tar to `copy` while it is read, every byte of it up to the verified end, what follows the
    /// entries included. For formats that keep the tar itself. An error of `copy` is one of the calls that read.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a layer that is no tar;
    /// [`Internal`](crate::ErrorKind::Internal) once entries were read.
    pub fn copy_to(&mut self, copy: impl Write + Send + 'static) -> Result<()> {
        if let Some(form) = self.form() {
            return Err(LayerFault::NoTar(form.name).into());
        }
        if self.begun || self.ended || !self.bytes.copy_to(Box::new(copy)) {
            let message = "the copy of a layer's tar has to begin before its first entry is read";
            return Err(Error::new(crate::ErrorKind::Internal, message));
        }
        Ok(())
    }

    /// The next entry; what is left of the one before is skipped. `None` at the end of the archive.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for what is no tar or names no place in an image,
    /// [`Limit`](crate::ErrorKind::Limit), [`Ambiguous`](crate::ErrorKind::Ambiguous), [`Unsupported`](crate::ErrorKind::Unsupported)
    /// for multi-volume archives and the like; whatever the source reports.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.guarded(Self::advance)
    }

    /// The next stored bytes of the current file, empty at the end of its data. Holes are not delivered: the
    /// runs of [`EntryKind::Node`] follow each other.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when the tar ends within the file; whatever the source reports.
    pub fn data(&mut self) -> Result<&[u8]> {
        let count = self.guarded(|tar| {
            if let Some(native) = &mut tar.native {
                return if tar.ended { Ok(0) } else { native.ready(&mut tar.bytes, &tar.limits) };
            }
            if tar.left == 0 {
                return Ok(0);
            }
            match tar.bytes.ready()? {
                0 => Err(truncated("a file's data")),
                count => Ok(count.min(usize::try_from(tar.left).unwrap_or(usize::MAX))),
            }
        })?;
        let bytes = self.native.as_ref().map_or_else(|| self.bytes.peek(), Native::peek);
        Ok(&bytes[..count])
    }

    /// Moves on by `count` of the bytes that [`LayerTar::data`] returned.
    pub fn consume(&mut self, count: usize) {
        if let Some(native) = &mut self.native {
            return native.consume(count);
        }
        let count = count.min(self.bytes.peek().len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= count as u64;
        self.bytes.consume(count);
    }

    /// Hands the next `length` bytes of the current file's data to `take`, piece by piece.
    ///
    /// # Errors
    /// As [`LayerTar::data`], also when the file has fewer; those of `take`.
    pub fn copy_data(&mut self, length: u64, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let bytes = self.data()?;
            if bytes.is_empty() {
                return Err(truncated("a file's data"));
            }
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            take(&bytes[..count])?;
            self.consume(count);
            left -= count as u64;
        }
        Ok(())
    }

    /// Reads the stream to its true end and checks both digests: the check of everything delivered before.
    /// Entries that were not read are not parsed.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) with a [`Mismatch`](crate::Mismatch) when content is not what was promised;
    /// otherwise as [`LayerTar::next_entry`].
    pub fn finish(&mut self) -> Result<LayerSummary> {
        self.guarded(Self::verdict)
    }

    /// Runs a step; a failure stays.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(failure) = &self.failure {
            return Err(failure.bare());
        }
        step(self).inspect_err(|e| self.failure = Some(e.bare()))
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        if let Some(native) = &mut self.native {
            self.begun = true;
            let entry = native.next_entry(&mut self.bytes, &self.limits)?;
            self.ended = entry.is_none();
            entry.iter().try_for_each(|_| self.count())?;
            return Ok(entry);
        }
        self.skip_data()?;
        let mut before = Extensions::default();
        while let Some(block) = self.header()? {
            let header =
                Header::new(&block).map_err(|e| if self.begun { e } else { no_tar(&block).unwrap_or(e) })?;
            self.begun = true;
            match header.typeflag() {
                // Of two extensions of one kind the last counts, as in Go and in GNU tar.
                b'x' | b'X' => {
                    let body = self.extension(&header)?;
                    before.pax = Some(Pax::parse(&body, &self.limits)?);
                }
                b'g' => {
                    let body = self.extension(&header)?;
                    self.globals.add(Pax::parse(&body, &self.limits)?, &self.limits)?;
                }
                b'L' => before.long_name = self.long_text(&header)?,
                b'K' => before.long_link = self.long_text(&header)?,
                flag if assemble::is_known(flag) => return self.entry(&header, before).map(Some),
                _ => self.unknown(&header, &std::mem::take(&mut before))?,
            }
        }
        self.ended = true;
        Ok(None)
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(TarFault::Entries(self.limits.entries).into());
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header<'_>, mut before: Extensions) -> Result<Entry> {
        self.count()?;
        let pax = before.pax.take().unwrap_or_default().over(&self.globals);
        let stored = assemble::stored(header, &pax, before.long_name.as_deref())?;
        let limits = self.limits.clone();
        let sparse = if assemble::is_file(header.typeflag()) {
            let in_data = header.typeflag() != b'S';
            let mut left = stored;
            Sparse::read(header, &pax, &limits, || {
                if in_data {
                    left = left.checked_sub(BLOCK as u64).ok_or_else(|| truncated("a sparse file's map"))?;
                }
                self.block()?.ok_or_else(|| truncated("a sparse file's map"))
            })?
        } else {
            None
        };
        let map_bytes = sparse.as_ref().map_or(0, |sparse| sparse.map_bytes);
        let entry = assemble::entry(header, &before, &pax, sparse, &limits)?;
        self.left = stored.saturating_sub(map_bytes);
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
        if entry.kind == EntryKind::Node(FileKind::Directory(())) {
            // A GNU dump directory (`D`) has a list of names as data, which is skipped.
            self.skip_data()?;
        }
        Ok(entry)
    }

    /// Leaves the current entry's data behind.
    fn skip_data(&mut self) -> Result<()> {
        while self.left > 0 {
            match self.bytes.skip(self.left)? {
                0 => return Err(truncated("a file's data")),
                count => self.left -= count,
            }
        }
        while self.padding > 0 {
            match self.bytes.skip(self.padding)? {
                // Some writers do not fill the last block; the file itself is complete.
                0 => break,
                count => self.padding -= count,
            }
        }
        self.padding = 0;
        Ok(())
    }

    /// The next header block, `None` at the end of the archive: two blocks of zeros, or nothing more.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let block = self.block()?;
        if block.is_some_and(|block| block != [0; BLOCK]) {
            return Ok(block);
        }
        let second = if block.is_some() { self.block()? } else { None };
        match second {
            Some([0, rest @ ..]) if rest.iter().all(|byte| *byte == 0) => self.refuse_erofs()?,
            // Readers disagree whether a lone block of zeros ends the archive.
            Some(_) => {
                return Err(TarFault::Malformed("a lone block of zeros stands between tar entries").into());
            }
            None if !self.begun && block.is_none() => self.warn(Warning::Empty),
            None if self.entries == 0 => {}
            None => self.warn(Warning::MissingEnd),
        }
        Ok(None)
    }

    /// Refuses an image that starts like a tar without entries, and would be one of an empty root file system.
    fn refuse_erofs(&mut self) -> Result<()> {
        /// The superblock's first bytes, which follow 1,024 others.
        const MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();
        let is_first = self.entries == 0 && self.position() == 2 * BLOCK as u64;
        if is_first && self.bytes.ready()? >= MAGIC.len() && self.bytes.peek().starts_with(&MAGIC) {
            return Err(LayerFault::Erofs.into());
        }
        Ok(())
    }

    /// The next block, `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            BLOCK => Ok(Some(block)),
            0 => Ok(None),
            count => {
                let other = if self.begun { None } else { no_tar(&block[..count]) };
                Err(other.unwrap_or_else(|| truncated("a block")))
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let count = self.bytes.ready()?.min(buffer.len() - filled);
            if count == 0 {
                break;
            }
            buffer[filled..filled + count].copy_from_slice(&self.bytes.peek()[..count]);
            self.bytes.consume(count);
            filled += count;
        }
        Ok(filled)
    }

    /// The body of an extended header, padding left behind.
    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let size = header.size()?;
        if size > self.limits.extension_header {
            return Err(TarFault::Extension(size, Size(self.limits.extension_header)).into());
        }
        let mut body = vec![0; size.next_multiple_of(BLOCK as u64) as usize];
        if self.fill(&mut body)? < body.len() {
            return Err(truncated("an extended header"));
        }
        body.truncate(size as usize);
        Ok(body)
    }

    /// The body of a GNU long name: ends with its first NUL or its last byte. An empty one says nothing.
    fn long_text(&mut self, header: &Header<'_>) -> Result<Option<Vec<u8>>> {
        let body = self.extension(header)?;
        Ok(Some(until_nul(&body).to_vec()).filter(|text| !text.is_empty()))
    }

    /// Leaves out an entry of a type that POSIX reserves or a vendor defined: GNU's volume labels, Solaris' access
    /// rights. GNU tar and bsdtar make a file of what they do not know, as POSIX advises, and what reads layers
    /// (Docker, containerd, umoci) refuses it. A file that says nothing in any image is no reason to refuse one.
    fn unknown(&mut self, header: &Header<'_>, before: &Extensions) -> Result<()> {
        self.count()?;
        let pax = before.pax.clone().unwrap_or_default().over(&self.globals);
        // The name serves the warning alone; that of a label is any text.
        let path = assemble::path(header, before, &pax, &self.limits).unwrap_or_default();
        self.left = assemble::stored(header, &pax, before.long_name.as_deref())?;
        self.padding = self.left.next_multiple_of(BLOCK as u64) - self.left;
        self.warn(Warning::Skipped { path, typeflag: header.typeflag() });
        self.skip_data()
    }

    fn warn(&mut self, warning: Warning) {
        /// A layer of many such entries must not fill memory.
        const WARNINGS: usize = 100;
        if self.warnings.len() < WARNINGS {
            self.warnings.push(warning);
        }
    }

    fn verdict(&mut self) -> Result<LayerSummary> {
        let mut trailing = false;
        loop {
            let count = self.bytes.ready()?;
            if count == 0 {
                break;
            }
            trailing |= self.native.is_none()
                && self.ended
                && !trailing
                && self.bytes.peek().iter().any(|byte| *byte != 0);
            self.bytes.consume(count);
        }
        self.left = 0;
        self.padding = 0;
        self.ended = true;
        if trailing {
            self.warn(Warning::TrailingData);
        }
        let totals = self.bytes.totals().ok_or_else(|| truncated("the stream"))?.clone();
        let mut warnings = self.warnings.clone();
        if let Some(media_type) = self.blob.as_ref().map(Descriptor::media_type)
            && Compression::by_media_type(media_type).is_some_and(|promised| promised != totals.compression)
        {
            let media_type = media_type.clone();
            warnings.push(Warning::CompressionMismatch { media_type, found: totals.compression });
        }
        Ok(LayerSummary {
            diff_id: totals.tar.digest,
            size: totals.tar.size,
            blob: totals.blob.digest,
            blob_size: totals.blob.size,
            compression: totals.compression,
            warnings,
        })
    }
}

impl fmt::Debug for LayerTar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerTar")
            .field("entries", &self.entries)
            .field("left", &self.left)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// Whether a file is a plain tar, and no pipe.
fn is_plain(file: &File) -> Result<bool> {
    let mut start = [0; BLOCK];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(Compression::by_magic(&start) == Compression::None),
        // It is a pipe, or no tar.
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotSeekable) => Ok(false),
        Err(e) => Err(Error::io("reading a layer", e)),
    }
}

fn truncated(within: &'static str) -> Error {
    TarFault::Truncated(within).into()
}

/// What the first bytes of a layer say that it is, where it is something else than a tar.
fn no_tar(start: &[u8]) -> Option<Error> {
    const OTHERS: [(&[u8], &str, &str); 5] = [
        (b"\xfd7zXZ\0", "xz", "xz -dc"),
        (b"BZh", "bzip2", "bzip2 -dc"),
        (b"\x5d\0\0", "lzma", "xz -dc"),
        (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc"),
        (b"\x1f\x9d", "compress", "gzip -dc"),
    ];
    if let Some((_, name, program)) = OTHERS.iter().find(|(magic, ..)| start.starts_with(magic)) {
        let error = Error::from(LayerFault::Compressed(name));
        return Some(error.with_hint(format!("expand it first: {program} FILE")));
    }
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    let is_whole_text = !start.is_empty() && start.iter().all(is_text);
    is_whole_text.then(|| LayerFault::Malformed("the layer is text, and no tar").into())
}
