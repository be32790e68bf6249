//! Where a materializer writes: files of a cache, as long as the call waits for them.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::artifact::{Artifact, ArtifactHandle, ArtifactWriter, Made};
use crate::blocking::Stop;
use crate::durable::temporary_file;
use crate::format::Output;
use crate::layer::TreeLimits;
use crate::materializer::{OutputSpec, Role, Sink};
use crate::range_write::RangeWrite;
use crate::{Advice, Error, ErrorKind, Result};

/// All files of a format.
pub(crate) struct Writers {
    slots: Vec<Slot>,
    scratch: Option<PathBuf>,
    limits: TreeLimits,
    stop: Stop,
}

/// A finished file, and whether it was there before.
pub(crate) type Finished = (OutputSpec, Box<dyn ArtifactHandle>, bool);

impl Writers {
    /// No files yet. They take no more once the work is stopped: a materializer may have much to write after it has read
    /// all.
    pub(crate) fn new(scratch: Option<PathBuf>, limits: TreeLimits, stop: Stop) -> Self {
        Self { slots: Vec::new(), scratch, limits, stop }
    }

    /// Adds a file. One that the cache has is written again and dropped: the bytes are the same.
    pub(crate) fn add(&mut self, output: OutputSpec, found: Artifact) -> Result<()> {
        let target = match found {
            Artifact::Present(artifact) => Target::Spare(self.scratch()?, artifact),
            Artifact::Vacant(writer) => Target::Artifact(writer),
        };
        self.slots.push(Slot { output, target, is_asked: false, stop: self.stop.clone() });
        Ok(())
    }

    /// The folder for temporary files.
    pub(crate) fn folder(&self) -> Result<&Path> {
        self.scratch.as_deref().ok_or_else(|| {
            Error::config("no folder is known for the temporary files of this format")
                .with_advice(Advice::GiveFolder)
        })
    }

    /// Makes the files visible, the first one last: it is the one that others refer to. All of them have to be made.
    pub(crate) fn commit(self, format: &str, made: &Made, stop: &Stop) -> Result<Vec<Finished>> {
        stop.check()?;
        if let Some(slot) = self.slots.iter().find(|slot| !slot.is_asked) {
            let role = slot.output.role;
            let message = format!("the format {format} lists a file as its {role}, and has not made it");
            return Err(Error::new(ErrorKind::Internal, message));
        }
        // Whatever was pushed to its fields.
        let made = &made.bounded();
        let finished = self.slots.into_iter().rev().map(|slot| match slot.target {
            Target::Artifact(mut writer) => {
                writer.stop_with(stop);
                Ok((slot.output, writer.commit(made)?, false))
            }
            Target::Spare(_, artifact) => Ok((slot.output, artifact, true)),
        });
        let mut finished: Vec<Finished> = finished.collect::<Result<_>>()?;
        finished.reverse();
        Ok(finished)
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
        temporary_file(self.folder()?)
    }

    fn limits(&self) -> TreeLimits {
        self.limits.clone()
    }
}

/// What becomes of the bytes.
enum Target {
    Artifact(Box<dyn ArtifactWriter>),
    /// The cache has this file.
    Spare(File, Box<dyn ArtifactHandle>),
}

/// One file.
struct Slot {
    output: OutputSpec,
    target: Target,
    /// Whether the materializer has asked for it.
    is_asked: bool,
    stop: Stop,
}

impl Slot {
    fn file(&mut self) -> io::Result<&mut dyn Output> {
        self.stop.check()?;
        Ok(match &mut self.target {
            Target::Artifact(writer) => writer.output(),
            Target::Spare(file, _) => file,
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

impl RangeWrite for Slot {
    fn copy_range(&mut self, source: &File, from: u64, length: u64) -> io::Result<()> {
        /// Bytes between two looks at whether the call is over.
        const STEP: u64 = 64 << 20;
        let mut done = 0;
        while done < length {
            let step = STEP.min(length - done);
            self.file()?.copy_range(source, from.saturating_add(done), step)?;
            done += step;
        }
        Ok(())
    }
}
