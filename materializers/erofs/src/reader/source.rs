//! Random reads of metadata, in windows that are kept.

use std::io::{Read, Seek, SeekFrom};

use plyfold_core::{Error, Result};
use zerocopy::{FromBytes, IntoBytes};

use crate::fault::ErofsFault;
use crate::format::{
    COMPAT_CHECKSUM, DEVICE_SLOT_SIZE, DeviceSlot, METABOX, SUPERBLOCK_OFFSET, Superblock, checksum,
};

const WINDOW: u64 = 32 << 10;
const WINDOWS: usize = 64;

/// An image's bytes, and those of its metabox from [`METABOX`] on. Every read is checked against their size.
#[derive(Debug)]
pub(crate) struct ImageBytes<R> {
    inner: R,
    size: u64,
    /// The windows last read, by their place modulo [`WINDOWS`]: place and bytes.
    windows: Vec<(u64, Vec<u8>)>,
    metabox: Vec<u8>,
}

impl<R: Read + Seek> ImageBytes<R> {
    pub(crate) fn new(mut inner: R) -> Result<Self> {
        let size = inner.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { inner, size, windows: vec![(u64::MAX, Vec::new()); WINDOWS], metabox: Vec::new() })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that inodes and their data may have: those of the image and of its metabox.
    pub(super) fn all(&self) -> u64 {
        self.size.saturating_add(self.metabox.len() as u64)
    }

    /// What is read from [`METABOX`] on.
    pub(super) fn set_metabox(&mut self, metabox: Vec<u8>) {
        self.metabox = metabox;
    }

    /// Fills `buffer` with metadata.
    pub(crate) fn metadata(&mut self, mut at: u64, mut buffer: &mut [u8]) -> Result<()> {
        if at & METABOX != 0 {
            return self.boxed(at, buffer);
        }
        self.check(at, buffer.len())?;
        while !buffer.is_empty() {
            let place = at / WINDOW;
            let held = &mut self.windows[(place % WINDOWS as u64) as usize];
            if held.0 != place {
                let length = WINDOW.min(self.size - place * WINDOW) as usize;
                held.0 = u64::MAX;
                held.1.resize(length, 0);
                self.inner.seek(SeekFrom::Start(place * WINDOW)).map_err(failed)?;
                self.inner.read_exact(&mut held.1).map_err(failed)?;
                held.0 = place;
            }
            let bytes = &held.1[(at % WINDOW) as usize..];
            let count = bytes.len().min(buffer.len());
            buffer[..count].copy_from_slice(&bytes[..count]);
            at += count as u64;
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    /// Checks the superblock's checksum, if it has one.
    pub(crate) fn check_sum(&mut self, superblock: &Superblock) -> Result<()> {
        if superblock.feature_compat & COMPAT_CHECKSUM == 0 {
            return Ok(());
        }
        let mut summed = vec![0; superblock.checksummed()];
        self.metadata(SUPERBLOCK_OFFSET as u64, &mut summed)?;
        summed[4..8].fill(0);
        if superblock.checksum != checksum(&summed) {
            return Err(ErofsFault::Malformed("the superblock's checksum is wrong").into());
        }
        Ok(())
    }

    /// The device table.
    pub(crate) fn devices(&mut self, superblock: &Superblock) -> Result<Vec<DeviceSlot>> {
        let mut devices = Vec::new();
        for slot in 0..u64::from(superblock.extra_devices) {
            let at = (u64::from(superblock.devt_slotoff) + slot) * DEVICE_SLOT_SIZE as u64;
            devices.push(self.record(at)?);
        }
        Ok(devices)
    }

    /// A structure of the metadata.
    pub(crate) fn record<T: FromBytes + IntoBytes>(&mut self, at: u64) -> Result<T> {
        let mut record = T::new_zeroed();
        self.metadata(at, record.as_mut_bytes())?;
        Ok(record)
    }

    /// Fills `buffer` with a file's data, which is not kept.
    pub(crate) fn data(&mut self, at: u64, buffer: &mut [u8]) -> Result<()> {
        if at & METABOX != 0 {
            return self.boxed(at, buffer);
        }
        self.check(at, buffer.len())?;
        self.inner.seek(SeekFrom::Start(at)).map_err(failed)?;
        self.inner.read_exact(buffer).map_err(failed)
    }

    fn boxed(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let start = at & !METABOX;
        let bytes =
            usize::try_from(start).ok().and_then(|start| self.metabox.get(start..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(ErofsFault::OutsideMetabox(start, self.metabox.len()))?);
        Ok(())
    }

    fn check(&self, at: u64, length: usize) -> Result<()> {
        match at.checked_add(length as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(ErofsFault::Outside(at, self.size).into()),
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("reading an image", error)
}
