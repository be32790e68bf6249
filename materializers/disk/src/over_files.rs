//! A partition table over files that stay where they are.

use std::fmt;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

use plyfold_core::{
    Error, Format, Input, InputArtifact, Made, Materializer, Output, OutputSpec, Result, Role, Sink, seek_to,
};
use plyfold_vmdk::{Descriptor, Extent};

use crate::partitions::{ALIGNMENT, BACKUP, Gpt, SECTOR, Table, writing};
use crate::parts::{Part, PartitionTrees, parts};

/// What is written around the files: the first MiB of the disk with its table, a MiB of zeros, of which there are as many
/// between the files as it takes, and the end of the disk with the last table.
const TABLES: &str = "partitions.gpt";
/// Where the zeros begin in that file, and where they end.
const ZEROS: u64 = ALIGNMENT;
const TAIL: u64 = ZEROS + ALIGNMENT;

/// The disk of [`Gpt`](crate::Gpt), byte for byte, as a VMDK descriptor that names the files in place of a copy of them.
///
/// The tables and the gaps between partitions are in a second file, `partitions.gpt`. All files have to be in the folder of
/// the descriptor, by their [names](InputArtifact::name).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct VmdkGpt(Gpt);

impl VmdkGpt {
    /// A disk of file systems with blocks of this many bytes: 512, 1024, 2048 or 4096, which is the default.
    pub fn with_block_size(bytes: u32) -> Self {
        Self(Gpt::with_block_size(bytes))
    }

    /// As [`Gpt::with_hash_trees`].
    #[must_use]
    pub fn with_hash_trees(self, trees: PartitionTrees) -> Self {
        Self(self.0.with_hash_trees(trees))
    }
}

impl Materializer for VmdkGpt {
    fn format(&self) -> Format {
        Format { name: "vmdk-gpt", version: 1, options: self.0.format().options, extension: "vmdk" }
    }

    fn input(&self) -> Input {
        self.0.input()
    }

    fn has_hash_tree(&self) -> bool {
        self.0.has_hash_tree()
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        vec![
            OutputSpec::new(Role::Descriptor, "vmdk"),
            OutputSpec::new(Role::Sidecar, "gpt").with_stem("partitions"),
        ]
    }

    fn join(&self, files: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        let parts = parts(files, self.0.hash_trees)?;
        let table = Table::with(files, &parts)?;
        let (extents, tail) = extents(&table, &parts)?;
        // What has its highest bit set may say that there is no parent.
        let cid = u32::from_be_bytes(*table.guid.as_bytes().first_chunk().unwrap_or(&[0; 4])) & 0x7fff_ffff;
        let text = Descriptor::new(cid, extents)?.to_string();
        let tables = out.output(Role::Sidecar)?;
        tables.set_len(TAIL + table.size - tail).map_err(writing)?;
        table.write(&mut Around { file: tables, tail, size: table.size, position: 0 })?;
        let descriptor = out.output(Role::Descriptor)?;
        descriptor.write_all(text.as_bytes()).map_err(|e| Error::io("writing a VMDK descriptor", e))?;
        self.0.made(files, &parts, &table)
    }
}

/// The extents of the whole disk, and where the last of them begins.
fn extents(table: &Table, parts: &[Part<'_>]) -> Result<(Vec<Extent>, u64)> {
    let mut extents = vec![Extent::new(TABLES, ALIGNMENT / SECTOR, 0)?];
    let mut end = ALIGNMENT;
    let fill = |extents: &mut Vec<Extent>, from: u64, to: u64| {
        // Less than a MiB: partitions begin at whole ones.
        if from < to {
            extents.push(Extent::new(TABLES, (to - from) / SECTOR, ZEROS / SECTOR)?);
        }
        Ok::<_, Error>(())
    };
    for (part, partition) in parts.iter().zip(&table.partitions) {
        fill(&mut extents, end, partition.first_lba * SECTOR)?;
        end = (partition.last_lba + 1) * SECTOR;
        extents.push(Extent::new(&part.file.name, part.size / SECTOR, part.from / SECTOR)?);
    }
    // At a multiple of 4096 where the files have such sizes.
    let tail = (table.size - BACKUP.next_multiple_of(4096)).max(end);
    fill(&mut extents, end, tail)?;
    extents.push(Extent::new(TABLES, (table.size - tail) / SECTOR, TAIL / SECTOR)?);
    Ok((extents, tail))
}

/// The disk as it is written to: its first MiB and what is from `tail` on, in the file that holds both.
struct Around<'a> {
    file: &'a mut dyn Output,
    tail: u64,
    size: u64,
    position: u64,
}

impl Around<'_> {
    /// Goes to the position in the file; how many bytes are there.
    fn seek_file(&mut self) -> io::Result<usize> {
        let (at, end) = match self.position {
            at if at < ALIGNMENT => (at, ALIGNMENT),
            at if at >= self.tail => (at - self.tail + TAIL, self.size - self.tail + TAIL),
            // The table does not reach so far.
            _ => return Err(ErrorKind::InvalidInput.into()),
        };
        self.file.seek(SeekFrom::Start(at))?;
        Ok(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX))
    }
}

impl fmt::Debug for Around<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Around")
    }
}

impl Read for Around<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.seek_file()?.min(buffer.len());
        let count = self.file.read(&mut buffer[..count])?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Around<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.seek_file()?.min(bytes.len());
        let count = self.file.write(&bytes[..count])?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Around<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = seek_to(to, self.position, self.size)?;
        Ok(self.position)
    }
}
