//! The bytes of a `newc` archive.

use std::io::{Seek, SeekFrom, Write};

use plyfold_core::tree::{MergedTree, NodeId};
use plyfold_core::{Error, Result};

/// The last block of an archive is filled, as by every writer of initramfs.
const BLOCK: u64 = 512;
/// Bytes of content that are copied at a time.
const CHUNK: usize = 256 << 10;
/// A hole of at least so many bytes stays one.
const HOLE: u64 = 64 << 10;

/// What an entry says of a file, its name apart.
pub(crate) struct Header {
    pub(crate) inode: u32,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: u32,
    pub(crate) size: u32,
    pub(crate) device: (u32, u32),
}

/// An archive on its way to `W`.
pub(crate) struct Archive<W> {
    out: W,
    length: u64,
}

impl<W: Write + Seek> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, length: 0 }
    }

    /// 110 bytes, then the name and its NUL, up to a multiple of 4.
    pub(crate) fn header(&mut self, name: &[u8], header: &Header) -> Result<()> {
        let Header { inode, mode, links, owner, mtime, size, device } = header;
        let fields = [
            *inode,
            *mode,
            owner.0,
            owner.1,
            *links,
            *mtime,
            *size,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        self.write(b"070701")?;
        for field in fields {
            self.write(format!("{field:08x}").as_bytes())?;
        }
        self.write(name)?;
        self.write(&[0])?;
        self.pad(4)
    }

    /// The bytes of a link, up to a multiple of 4.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)?;
        self.pad(4)
    }

    /// The bytes of a file, up to a multiple of 4.
    pub(crate) fn content(&mut self, image: &MergedTree, file: NodeId, size: u64) -> Result<()> {
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        let mut at = 0;
        for extent in image.extents(file) {
            self.hole(extent.offset - at)?;
            at = extent.offset;
            while at < extent.offset + extent.length {
                let left = extent.offset + extent.length - at;
                let wanted = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
                let count = image.read_at(file, at, &mut buffer[..wanted])?;
                self.write(&buffer[..count])?;
                at += count as u64;
            }
        }
        self.hole(size - at)?;
        self.pad(4)
    }

    /// Zeros. Many of them take no room on the disk.
    fn hole(&mut self, length: u64) -> Result<()> {
        if length < HOLE {
            return self.write(&vec![0; length as usize]);
        }
        self.length += length;
        self.out.seek(SeekFrom::Start(self.length)).map(drop).map_err(writing)
    }

    pub(crate) fn end(mut self, trailer: &[u8]) -> Result<()> {
        let nothing =
            Header { inode: 0, mode: 0, links: 1, owner: (0, 0), mtime: 0, size: 0, device: (0, 0) };
        self.header(trailer, &nothing)?;
        self.pad(BLOCK)?;
        self.out.flush().map_err(writing)
    }

    fn pad(&mut self, to: u64) -> Result<()> {
        let rest = self.length.next_multiple_of(to) - self.length;
        self.write(&[0; BLOCK as usize][..rest as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        self.out.write_all(bytes).map_err(writing)
    }
}

fn writing(error: std::io::Error) -> Error {
    Error::io("writing the archive", error)
}
