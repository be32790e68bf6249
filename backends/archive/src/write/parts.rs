//! Blobs of an archive that have come in part. One is being written, or was when its transfer broke: behind the complete members,
//! or in the place that it got when another blob came before its rest.

use std::fs::File;
use std::sync::Arc;

use plyfold_core::digest::Hasher;
use plyfold_core::{Descriptor, Error, Result};

use super::gap::{NOTE, note};
use super::left::{Appending, Left};

/// Where the complete members and the places of parts end is `end` to each method.
#[derive(Debug)]
pub(super) struct Parts {
    file: Arc<File>,
    current: Option<Appending>,
    /// Each in a place of its own.
    others: Vec<Appending>,
    /// Whether there is a place that holds nothing.
    has_gaps: bool,
}

impl Parts {
    pub(super) fn of(file: &Arc<File>, left: &mut Left) -> Self {
        let (current, others) = (left.cut.take(), std::mem::take(&mut left.parts));
        Self { file: file.clone(), current, others, has_gaps: left.has_gaps }
    }

    /// How many bytes there are of a blob.
    pub(super) fn partial(&self, blob: &Descriptor) -> u64 {
        self.current.iter().chain(&self.others).find(|part| part.is_of(blob)).map_or(0, |part| part.size)
    }

    /// Where the last byte ends that a writer may go on from.
    pub(super) fn written(&self, end: u64) -> u64 {
        self.current.as_ref().map_or(end, |part| end.max(part.start + part.size))
    }

    /// Whether nothing has come of any blob.
    pub(super) fn is_empty(&self) -> bool {
        self.others.is_empty() && self.current.as_ref().is_none_or(|part| part.size == 0)
    }

    /// Whether all up to `end` are complete members.
    pub(super) fn is_clean(&self) -> bool {
        self.current.is_none() && self.others.is_empty() && !self.has_gaps
    }

    pub(super) fn current(&self) -> Option<&Appending> {
        self.current.as_ref()
    }

    /// Begins a blob behind the members, where the one before has its place.
    pub(super) fn begin(&mut self, part: Appending) {
        self.current = Some(part);
    }

    /// Makes a blob the current one that is here in part; whether it is.
    pub(super) fn resume(&mut self, blob: &Descriptor, end: &mut u64) -> Result<bool> {
        if self.current.as_ref().is_some_and(|part| part.is_of(blob)) {
            return Ok(true);
        }
        let Some(at) = self.others.iter().position(|part| part.is_of(blob)) else { return Ok(false) };
        let part = self.others.swap_remove(at);
        self.park(end)?;
        self.current = Some(part);
        Ok(true)
    }

    /// As [`resume`](Self::resume), for a blob that comes from its start once more.
    pub(super) fn restart(&mut self, blob: &Descriptor, end: &mut u64) -> Result<bool> {
        if !self.resume(blob, end)? {
            return Ok(false);
        }
        if let Some(part) = &mut self.current {
            (part.hasher, part.size) = (Hasher::like(&part.digest)?, 0);
        }
        self.note(*end)?;
        Ok(true)
    }

    /// Gives the current blob a place of its own, behind which others can be written.
    pub(super) fn park(&mut self, end: &mut u64) -> Result<()> {
        let Some(part) = self.current.take() else { return Ok(()) };
        let has_place = part.start < *end;
        let room = part.wanted.checked_sub(NOTE).filter(|room| *room > 0 && part.size > 0);
        let Some(room) = room else {
            self.has_gaps |= has_place;
            return Ok(());
        };
        let part = if part.size > room { part.shortened(&self.file, room)? } else { part };
        // A manifest may declare more bytes than a file can have.
        if note(&self.file, part.place(), part.size).is_err() {
            self.has_gaps |= has_place;
            return Ok(());
        }
        if !has_place {
            *end = part.next();
        }
        self.others.push(part);
        Ok(())
    }

    /// Takes account of bytes that were written of the current blob.
    pub(super) fn wrote(&mut self, bytes: &[u8], end: u64) -> Result<()> {
        if let Some(part) = &mut self.current {
            part.hasher.update(bytes);
            part.size += bytes.len() as u64;
        }
        self.note(end)
    }

    /// Leaves the current blob to the next writer.
    pub(super) fn leave(&self, end: u64) {
        let Some(part) = self.current.as_ref().filter(|part| part.start < end) else { return };
        if let Some(room) = part.wanted.checked_sub(NOTE).filter(|room| part.size > *room) {
            // All but the bytes that the note is written over. Without it the next writer has nothing of the blob.
            let _ = note(&self.file, part.place(), room);
        }
    }

    /// Ends the current blob.
    pub(super) fn end(&mut self) -> Option<Appending> {
        self.current.take()
    }

    /// Keeps nothing of a blob.
    pub(super) fn forget(&mut self, part: Option<Appending>, end: u64) {
        if let Some(part) = part.filter(|part| part.start < end) {
            self.has_gaps = true;
            // Otherwise its digest tells the next writer.
            let _ = note(&self.file, part.place(), 0);
        }
    }

    /// Notes in the place of the current blob how much of it is there.
    fn note(&self, end: u64) -> Result<()> {
        let Some(part) = self.current.as_ref().filter(|part| part.start < end) else { return Ok(()) };
        if part.size + NOTE <= part.wanted {
            note(&self.file, part.place(), part.size).map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(e: std::io::Error) -> Error {
    Error::io("writing the archive", e)
}
