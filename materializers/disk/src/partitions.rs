//! Files as partitions (UEFI Specification 2.10, chapter 5).

use std::fmt::{self, Write as _};
use std::io::{self, Read, Seek, SeekFrom, Write};

use gpt::DiskDevice;
use gpt::disk::LogicalBlockSize;
use gpt::header::{HeaderBuilder, HeaderError};
use gpt::mbr::{MBRError, ProtectiveMBR};
use gpt::partition::Partition;
use gpt::partition_types;
use plyfold_core::digest::Hasher;
use plyfold_core::{
    ArtifactReader, Digest, Error, Format, Input, InputArtifact, Made, Materializer, Output, OutputSpec,
    Result, Role, Sink,
};
use plyfold_verity::tree_key;
use uuid::Uuid;

use crate::blocks::Blocks;
use crate::fault::DiskFault;
use crate::parts::{Part, PartitionTrees, hashed, parts};

/// Bytes of a sector: every size and place of the table counts in it.
pub(crate) const SECTOR: u64 = 512;
/// Where partitions may begin, and what the size of the disk is a multiple of.
pub(crate) const ALIGNMENT: u64 = 1 << 20;
/// The partitions that Linux finds on a disk (`DISK_MAX_PARTS`, less the disk itself).
const MOST: usize = 255;
/// Entries of a table, and what more of them are a multiple of.
const ENTRIES: u32 = 128;
/// The bytes of the second table, which ends the disk, with the most entries.
pub(crate) const BACKUP: u64 = SECTOR + 2 * ENTRIES as u64 * 128;

/// One disk with a partition for the merged image, `merged`, and for each layer, `layer-00`, `layer-01`, …, bottom first.
///
/// Each partition begins at a whole MiB and ends with its file. There are 128 entries, or 256 for more than 128
/// partitions; more than 255 are refused, because Linux would not find them. All GUIDs come from the content.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Gpt {
    blocks: Blocks,
    pub(crate) hash_trees: Option<PartitionTrees>,
}

impl Gpt {
    /// A disk of file systems with blocks of this many bytes: 512, 1024, 2048 or 4096, which is the default.
    pub fn with_block_size(bytes: u32) -> Self {
        Self { blocks: Blocks::of(bytes), hash_trees: None }
    }

    /// The same with a dm-verity hash tree for the image in each partition: of files that have such trees behind their
    /// data. In partitions of their own, `merged-verity`, `layer-00-verity`, …, they follow all the others, whose numbers
    /// stay as they are.
    #[must_use]
    pub fn with_hash_trees(mut self, trees: PartitionTrees) -> Self {
        self.hash_trees = Some(trees);
        self
    }

    /// What there is to know of the disk.
    pub(crate) fn made(self, files: &[InputArtifact], parts: &[Part<'_>], table: &Table) -> Result<Made> {
        let made = Made::of_files(files);
        match self.hash_trees {
            Some(trees) => Ok(made.with_partitions(hashed(files, parts, &table.starts(), trees)?)),
            None => Ok(made),
        }
    }
}

impl Materializer for Gpt {
    fn format(&self) -> Format {
        let options = tree_key(self.blocks.key(), self.hash_trees);
        Format { name: "gpt", version: 1, options, extension: "gpt" }
    }

    fn input(&self) -> Input {
        let trees = self.hash_trees.map(|_| "verity=append");
        Input::Artifacts { format: "erofs-merged", options: self.blocks.merged_with(trees) }
    }

    fn has_hash_tree(&self) -> bool {
        self.hash_trees.is_some()
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        vec![OutputSpec::new(Role::Image, "gpt")]
    }

    fn is_self_contained(&self) -> bool {
        true
    }

    fn join(&self, files: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        let parts = parts(files, self.hash_trees)?;
        let table = Table::with(files, &parts)?;
        let out = out.output(Role::Image)?;
        out.set_len(table.size).map_err(writing)?;
        for (part, start) in parts.iter().zip(table.starts()) {
            out.seek(SeekFrom::Start(start)).map_err(writing)?;
            let mut file = ArtifactReader::open(&*part.file.artifact)?;
            file.seek(SeekFrom::Start(part.from)).map_err(|e| Error::io("reading a file of the disk", e))?;
            file.copy_some(part.size, out)?;
        }
        table.write(&mut Device(out))?;
        self.made(files, &parts, &table)
    }
}

/// What is written around the files.
pub(crate) struct Table {
    pub(crate) guid: Uuid,
    pub(crate) partitions: Vec<Partition>,
    /// The size of the disk in bytes.
    pub(crate) size: u64,
}

impl Table {
    /// Checks everything that can be wrong before a byte is written. The parts are those of the files.
    pub(crate) fn with(files: &[InputArtifact], parts: &[Part<'_>]) -> Result<Self> {
        if parts.is_empty() {
            return Err(DiskFault::Empty.into());
        }
        if parts.len() > MOST {
            return Err(DiskFault::Partitions(parts.len(), MOST).into());
        }
        let mut identity = identity(files)?;
        if parts.len() > files.len() {
            identity.push_str("verity/");
        }
        let guid = Uuid::new_v5(&Uuid::NAMESPACE_URL, identity.as_bytes());
        let (mut partitions, mut end) = (Vec::new(), ALIGNMENT);
        for Part { name, file, size, .. } in parts {
            if *size == 0 || !size.is_multiple_of(SECTOR) {
                return Err(Error::from(DiskFault::Sectors(*size)).with_context("file", &file.name));
            }
            let start = end.next_multiple_of(ALIGNMENT);
            end = start.checked_add(*size).filter(|end| *end < 1 << 62).ok_or(DiskFault::Size)?;
            partitions.push(Partition {
                part_type_guid: partition_types::LINUX_FS,
                part_guid: Uuid::new_v5(&guid, name.as_bytes()),
                first_lba: start / SECTOR,
                last_lba: end / SECTOR - 1,
                flags: 0,
                name: name.clone(),
            });
        }
        let size = (end + BACKUP).next_multiple_of(ALIGNMENT);
        Ok(Self { guid, partitions, size })
    }

    /// The first byte of each partition.
    fn starts(&self) -> Vec<u64> {
        self.partitions.iter().map(|partition| partition.first_lba * SECTOR).collect()
    }

    /// Writes the first table and the last one to a disk of zeros.
    pub(crate) fn write<D: DiskDevice>(&self, device: &mut D) -> Result<()> {
        let last = self.size / SECTOR - 1;
        // A protective MBR that says less than the disk has, where 32 bits do not hold it (section 5.2.3).
        let mbr = ProtectiveMBR::with_lb_size(u32::try_from(last).unwrap_or(u32::MAX));
        mbr.overwrite_lba0(device).map_err(|e| match e {
            MBRError::Io(e) => writing(e),
            other => writing(io::Error::other(other)),
        })?;
        let entries = (self.partitions.len() as u32).next_multiple_of(ENTRIES);
        for primary in [false, true] {
            let header = HeaderBuilder::new()
                .disk_guid(self.guid)
                .num_parts(entries)
                .backup_lba(last)
                .primary(primary)
                .build(LogicalBlockSize::Lb512);
            let mut header = header.map_err(of_header)?;
            for (partition, index) in self.partitions.iter().zip(0..) {
                let size = header.part_size;
                partition
                    .write_to_device(device, index, header.part_start, LogicalBlockSize::Lb512, size)
                    .map_err(writing)?;
            }
            // The rest of the entries is zero by itself: nothing was written there. The header's checksum is of what is
            // in the file.
            let write =
                if primary { gpt::header::Header::write_primary } else { gpt::header::Header::write_backup };
            write(&mut header, device, LogicalBlockSize::Lb512).map_err(of_header)?;
        }
        Ok(())
    }
}

/// What the files are: by the digest of their layer, else of themselves.
fn identity(files: &[InputArtifact]) -> Result<String> {
    let mut identity = String::from("gpt:");
    for file in files {
        let digest = file.diff_id.clone().map_or_else(|| own_digest(file), Ok)?;
        let _ = write!(identity, "{digest}={}/", file.artifact.size());
    }
    Ok(identity)
}

fn own_digest(file: &InputArtifact) -> Result<Digest> {
    let mut hasher = Hasher::sha256();
    let read = hasher.read_all(ArtifactReader::open(&*file.artifact)?);
    read.map_err(|e| Error::io("reading a file of the disk", e).with_context("file", &file.name))?;
    Ok(hasher.finish())
}

pub(crate) fn writing(error: io::Error) -> Error {
    Error::io("writing the disk", error)
}

fn of_header(error: HeaderError) -> Error {
    match error {
        HeaderError::Io(error) => writing(error),
        other => writing(io::Error::other(other)),
    }
}

/// The output as the crate `gpt` takes it.
struct Device<'a>(&'a mut dyn Output);

impl fmt::Debug for Device<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Device")
    }
}

impl Read for Device<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Device<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for Device<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}
