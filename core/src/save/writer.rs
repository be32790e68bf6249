//! Writing the members of an archive.

use std::collections::VecDeque;
use std::fs::File;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;

use super::expand::expanded;
use super::file_copy::{self, FileCheck, FileCopy};
use super::gather::SaveImage;
use super::member::{Member, Members};
use super::options::SaveOptions;
use crate::blocking::Stop;
use crate::manifest::is_foreign;
use crate::progress::{Event, Started};
use crate::pull::Row;
use crate::range_write::RangeWrite;
use crate::resumed::{BlobOpener, ResumedBlob};
use crate::tar_out::TarOut;
use crate::{Descriptor, Digest, Error, ErrorKind, Result, select};

/// Blobs that are hashed at the same time.
const CHECKS: usize = 4;

/// What writes an archive.
pub(super) struct Writer {
    pub(super) images: Vec<SaveImage>,
    pub(super) members: Members,
    pub(super) options: SaveOptions,
    pub(super) runtime: Handle,
}

impl Writer {
    /// Writes all members, and the end when every one is verified.
    pub(super) fn write(self, out: &mut dyn RangeWrite, stop: &Stop) -> Result<()> {
        let mut writing = Writing { writer: &self, tar: TarOut::new(out), stop, checks: VecDeque::new() };
        let mut folders = Vec::new();
        for (name, member) in &self.members {
            stop.check()?;
            writing.folders(name, &mut folders)?;
            writing.member(name, member)?;
        }
        while writing.checks.front().is_some() {
            writing.check()?;
        }
        writing.tar.end()
    }
}

struct Writing<'a> {
    writer: &'a Writer,
    tar: TarOut<&'a mut dyn RangeWrite>,
    stop: &'a Stop,
    checks: VecDeque<Check<'a>>,
}

/// A file that was copied, while it is hashed.
struct Check<'a> {
    hashed: FileCheck,
    started: Started,
    image: &'a SaveImage,
}

impl<'a> Writing<'a> {
    /// The folders of a name that were not written yet.
    fn folders(&mut self, name: &'a str, written: &mut Vec<&'a str>) -> Result<()> {
        for (at, _) in name.match_indices('/') {
            let folder = &name[..at];
            if !written.contains(&folder) {
                self.tar.folder(folder)?;
                written.push(folder);
            }
        }
        Ok(())
    }

    fn member(&mut self, name: &str, member: &'a Member) -> Result<()> {
        match member {
            Member::Bytes(bytes) => {
                self.tar.member(name, bytes.len() as u64)?;
                self.tar.data(bytes)?;
                self.tar.pad()
            }
            Member::Blob(blob, at) => {
                let image = &self.writer.images[*at];
                self.blob(name, image, blob).map_err(|e| about(e, image, blob))
            }
            Member::Layer(blob, at, diff_id) => {
                let image = &self.writer.images[*at];
                let started = self.writer.options.progress.start(blob, 0);
                let source = opener(image, self.writer, self.stop);
                let file = expanded(source, blob, diff_id, &self.writer.options);
                let file = file.map_err(|e| about(e, image, blob))?;
                let size = file.metadata().map_err(|e| Error::io("reading the size of a layer", e))?.len();
                self.tar.member(name, size)?;
                self.copy(&file, size)?;
                started.done();
                self.tar.pad()
            }
        }
    }

    fn blob(&mut self, name: &str, image: &'a SaveImage, blob: &Descriptor) -> Result<()> {
        let started = self.writer.options.progress.start(blob, 0);
        let mut row = Row::default();
        let source = opener(image, self.writer, self.stop);
        let mut opened = match source.open(blob, 0, &mut row) {
            // Such a layer may exist only at its own URL.
            Err(e) if is_foreign(blob.media_type()) && *e.kind() == ErrorKind::NotFound => {
                let message =
                    format!("{} may not be redistributed, is not there, and is not saved", blob.digest());
                self.writer.options.progress.emit(Event::Warning { message });
                return Ok(());
            }
            opened => opened?,
        };
        self.tar.member(name, blob.size())?;
        if let Some(file) = opened.take_file() {
            let Some(checksum) = opened.xxh3() else { return self.file(image, blob, file, started) };
            let (written, stop) = (self.tar.written(), self.stop);
            self.tar.data_by(blob.size(), |out| {
                file_copy::copy_known(blob, &file, checksum, (out, written), stop)
            })?;
            started.done();
            return self.tar.pad();
        }
        self.streamed(source.resumed(opened, row)?, blob.digest())?;
        started.done();
        self.tar.pad()
    }

    /// Copies a file, while it is hashed by another thread.
    fn file(&mut self, image: &'a SaveImage, blob: &Descriptor, file: File, started: Started) -> Result<()> {
        if self.checks.len() == CHECKS {
            self.check()?;
        }
        let (copy, hashed) = FileCopy::new(blob, file, self.stop)?;
        self.checks.push_back(Check { hashed, started, image });
        let (written, stop) = (self.tar.written(), self.stop);
        match self.tar.data_by(blob.size(), |out| copy.write(out, written, stop)) {
            Err(e) => {
                // A file that is too short is damaged: the check says so.
                while !self.checks.is_empty() {
                    self.check()?;
                }
                Err(e)
            }
            Ok(()) => self.tar.pad(),
        }
    }

    /// Waits for the oldest check.
    fn check(&mut self) -> Result<()> {
        let Some(Check { hashed, started, image }) = self.checks.pop_front() else { return Ok(()) };
        hashed.outcome().map_err(|e| e.with_image(&image.image).with_endpoint(&image.registry))?;
        started.done();
        Ok(())
    }

    /// Writes the first `size` bytes of a file.
    fn copy(&mut self, file: &File, size: u64) -> Result<()> {
        self.tar.data_by(size, |out| {
            let copied = out.copy_range(file, 0, size);
            copied.map_err(|e| Error::io("writing the tar", e))
        })
    }

    /// Writes a blob piece by piece, and goes on where an attempt failed.
    fn streamed(&mut self, mut blob: ResumedBlob, digest: &Digest) -> Result<()> {
        while let Some(chunk) = blob.chunk()? {
            self.tar.data(&chunk)?;
            let received = blob.done();
            self.writer.options.progress.emit(Event::BlobProgress { digest: digest.clone(), received });
        }
        Ok(())
    }
}

fn opener(image: &SaveImage, writer: &Writer, stop: &Stop) -> BlobOpener {
    let Writer { options, runtime, .. } = writer;
    let (registry, name) = (image.registry.clone(), image.image.clone());
    let open = move |blob: Descriptor, range| {
        let (registry, name) = (registry.clone(), name.clone());
        async move { select::blob(&*registry, &name, &blob, range).await }.boxed()
    };
    BlobOpener {
        open: Box::new(open),
        retry: options.retry,
        progress: options.progress.clone(),
        runtime: runtime.clone(),
        stop: stop.clone(),
    }
}

fn about(error: Error, image: &SaveImage, blob: &Descriptor) -> Error {
    error.with_image(&image.image).with_endpoint(&image.registry).with_context("blob", blob.digest())
}
