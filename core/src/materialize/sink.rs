//! Where a materializer of whole images writes.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::artifact::ArtifactWriter;
use crate::format::Output;
use crate::layer::TreeLimits;
use crate::materializer::{OutputSpec, Role, Sink};
use crate::{Error, ErrorKind, Result};

/// All files of a format.
pub(super) struct Writers {
    pub(super) slots: Vec<Slot>,
    pub(super) scratch: Option<PathBuf>,
    pub(super) limits: TreeLimits,
}

impl Writers {
    /// The folder for temporary files.
    pub(super) fn folder(&self) -> Result<&PathBuf> {
        self.scratch.as_ref().ok_or_else(|| {
            Error::config("no folder is known for the temporary files of this format")
                .with_hint("give one by MaterializeOptions::scratch")
        })
    }

    /// A file without a name.
    pub(super) fn spare(&self) -> Result<File> {
        let folder = self.folder()?;
        let at = |e| Error::io("making a temporary file", e).with_context("path", folder.display());
        tempfile::tempfile_in(folder).map_err(at)
    }
}

impl Sink for Writers {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        match self.slots.iter_mut().find(|slot| slot.output.role == role) {
            Some(slot) => {
                slot.is_asked = true;
                Ok(slot)
            }
            None => Err(Error::unsupported(format!("the format lists no file that is its {role}"))),
        }
    }

    fn scratch(&mut self) -> Result<File> {
        self.spare()
    }

    fn limits(&self) -> TreeLimits {
        self.limits.clone()
    }
}

/// What becomes of the bytes.
pub(super) enum Target {
    Artifact(Box<dyn ArtifactWriter>),
    /// The cache has this file.
    Spare(File),
}

/// A file that takes no more writes once the future that waits for it is dropped.
pub(super) struct Slot {
    output: OutputSpec,
    target: Target,
    /// Whether the materializer has asked for it.
    pub(super) is_asked: bool,
    is_over: Arc<AtomicBool>,
}

impl Slot {
    pub(super) fn new(output: OutputSpec, target: Target, is_over: Arc<AtomicBool>) -> Self {
        Self { output, target, is_asked: false, is_over }
    }

    pub(super) fn role(&self) -> Role {
        self.output.role
    }

    pub(super) fn into_parts(self) -> (OutputSpec, Target) {
        (self.output, self.target)
    }

    fn file(&mut self) -> io::Result<&mut dyn Output> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(cancelled().into());
        }
        Ok(match &mut self.target {
            Target::Artifact(writer) => writer.output(),
            Target::Spare(file) => file,
        })
    }
}

impl Read for Slot {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file()?.read(buf)
    }
}

impl Write for Slot {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file()?.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.file()?.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file()?.flush()
    }
}

impl Seek for Slot {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file()?.seek(position)
    }
}

impl Output for Slot {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.file()?.set_len(length)
    }
}

/// The error that a materializer gets when the future that waits for its files was dropped.
pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the conversion was cancelled")
}
