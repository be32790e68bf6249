//! Where Linux looks for the devices of a merged EROFS image that is mounted without them: on the one flat disk behind
//! it, from 6.4 on (the kernel's `fs/erofs/erofs_fs.h`).

use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};

use plyfold_core::{ArtifactReader, Error, InputArtifact, Result};

use crate::fault::DiskFault;

/// Where the superblock begins.
const SUPERBLOCK: u64 = 1024;
/// `magic`, at 0.
const MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();
/// The bytes of a device slot, the unit of `devt_slotoff`.
const SLOT: u64 = 128;

/// Where a file goes, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Place {
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

/// The places of a merged image, the first file, and of its layers, as its device table says.
pub(crate) fn places(files: &[InputArtifact]) -> Result<Vec<Place>> {
    let [merged, layers @ ..] = files else { return Err(DiskFault::Empty.into()) };
    let mut file = ArtifactReader::open(&*merged.artifact)?;
    let superblock: [u8; 128] = read(&mut file, SUPERBLOCK)?;
    let [bits, ..] = field::<1>(&superblock, 12);
    if field(&superblock, 0) != MAGIC || !(9..=16).contains(&bits) {
        return Err(DiskFault::NotMerged.into());
    }
    // Of 32 bits each, so the bytes fit into 48.
    let bytes = |slot: &[u8; 128], at| u64::from(u32::from_le_bytes(field(slot, at))) << bits;
    let devices = usize::from(u16::from_le_bytes(field(&superblock, 86)));
    if devices != layers.len() {
        return Err(DiskFault::Devices(devices, layers.len()).into());
    }
    let first = Place { offset: 0, size: bytes(&superblock, 36) };
    if merged.artifact.size() != first.size {
        return Err(DiskFault::MergedSize(merged.artifact.size(), first.size).into());
    }
    let table = u64::from(u16::from_le_bytes(field(&superblock, 88))) * SLOT;
    let mut places = vec![first];
    for (layer, number) in layers.iter().zip(0..) {
        let slot: [u8; 128] = read(&mut file, table + number * SLOT)?;
        let place = Place { offset: bytes(&slot, 68), size: bytes(&slot, 64) };
        if layer.artifact.size() != place.size {
            let fault = Error::from(DiskFault::LayerSize(layer.artifact.size(), place.size));
            return Err(fault.with_context("layer", &layer.name));
        }
        if places.last().is_some_and(|last| place.offset < last.end()) {
            return Err(Error::from(DiskFault::Overlap).with_context("layer", &layer.name));
        }
        places.push(place);
    }
    Ok(places)
}

fn read(file: &mut ArtifactReader, at: u64) -> Result<[u8; 128]> {
    let mut bytes = [0; 128];
    match file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut bytes)) {
        Ok(()) => Ok(bytes),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(DiskFault::NotMerged.into()),
        Err(e) => Err(Error::io("reading the merged image", e)),
    }
}

/// `N` bytes of a structure; every caller's lie within it.
fn field<const N: usize>(of: &[u8; 128], at: usize) -> [u8; N] {
    std::array::from_fn(|index| of.get(at + index).copied().unwrap_or_default())
}
