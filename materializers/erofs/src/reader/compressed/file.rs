//! The data of compressed files.

use std::io::{Read, Seek};

use plyfold_core::Result;

use super::super::image::Reader;
use super::decode::decode;
use super::extent::{Extent, Place};
use crate::content::DataLayout;
use crate::fault::ErofsFault;
use crate::format::METABOX;

impl<R: Read + Seek> Reader<R> {
    /// Reads a compressed file from `offset` on, as much as lies in one extent.
    pub(in crate::reader) fn read_compressed(
        &mut self,
        nid: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        match self.decoded(nid, offset, 0)? {
            Found::Bytes => Ok(self.decoded[0].copy(offset, buffer)),
            Found::Fragment { at, length } => {
                let count = length.min(buffer.len() as u64) as usize;
                self.read_packed(at, &mut buffer[..count])
            }
            Found::Hole(length) => Ok(zeros(length, buffer)),
        }
    }

    /// Reads from the packed inode.
    fn read_packed(&mut self, at: u64, buffer: &mut [u8]) -> Result<usize> {
        let Some((layout, size)) = self.packed.clone() else {
            return Err(ErofsFault::Malformed("a fragment has no packed inode").into());
        };
        if at.checked_add(buffer.len() as u64).is_none_or(|end| end > size) {
            return Err(ErofsFault::Malformed("a fragment ends behind the packed inode").into());
        }
        let DataLayout::Compressed { nid, .. } = layout else {
            return self.read_plain(&layout, size, at, buffer);
        };
        match self.decoded(nid, at, 1)? {
            Found::Bytes => Ok(self.decoded[1].copy(at, buffer)),
            Found::Hole(length) => Ok(zeros(length, buffer)),
            Found::Fragment { .. } => {
                Err(ErofsFault::Malformed("the packed inode refers to the packed inode").into())
            }
        }
    }

    /// Makes the extent that has a byte of a file the decoded one of `slot`.
    fn decoded(&mut self, nid: u64, offset: u64, slot: usize) -> Result<Found> {
        let held = &self.decoded[slot];
        if held.map.as_ref().is_none_or(|(of, _)| *of != nid) {
            let map = self.file_map(nid)?;
            self.decoded[slot].map = Some((nid, map));
            self.decoded[slot].bytes.clear();
        }
        let held = &mut self.decoded[slot];
        if held.has(offset) {
            return Ok(Found::Bytes);
        }
        held.bytes.clear();
        let Some((_, map)) = &mut held.map else { return Err(ErofsFault::NoInode(nid).into()) };
        let Extent { start, end, place } = map.extent(&mut self.source, offset)?;
        let cluster = match place {
            Place::Fragment(at) => {
                let at = at.checked_add(offset - start);
                let at = at.ok_or(ErofsFault::Malformed("a fragment ends behind the packed inode"))?;
                return Ok(Found::Fragment { at, length: end - offset });
            }
            Place::Hole => return Ok(Found::Hole(end - offset)),
            Place::Cluster(cluster) => cluster,
        };
        let padded = map.padded;
        let blocks = self.superblock.block_count();
        let image = blocks * self.superblock.block_size();
        let is_boxed = cluster.at & METABOX != 0;
        if !is_boxed && cluster.at.saturating_add(cluster.length.into()) > image {
            return Err(ErofsFault::DeviceEnd(blocks).into());
        }
        held.cluster.resize(cluster.length as usize, 0);
        self.source.data(cluster.at, &mut held.cluster)?;
        held.bytes.resize((end - start) as usize, 0);
        if let Err(error) = decode(&cluster, &held.cluster, &mut held.bytes, padded) {
            held.bytes.clear();
            return Err(error);
        }
        held.start = start;
        Ok(Found::Bytes)
    }
}

/// Where a byte of a file is.
enum Found {
    /// Among the decoded ones.
    Bytes,
    /// In the packed inode, from `at` on, with so many behind it.
    Fragment { at: u64, length: u64 },
    /// Nowhere: so many zeros.
    Hole(u64),
}

fn zeros(length: u64, buffer: &mut [u8]) -> usize {
    let count = length.min(buffer.len() as u64) as usize;
    buffer[..count].fill(0);
    count
}
