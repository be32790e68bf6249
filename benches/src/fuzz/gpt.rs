//! Disks with partitions.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::files::Files as _;
use plyfold_core::{InputArtifact, Materializer as _};
use plyfold_disk::{Gpt, Partitions};
use plyfold_erofs::{ErofsMerged, Reader};
use plyfold_ext4::{Ext4Files, Ext4Rootfs, Journal};

use super::corpus::{self, two_layers};
use super::outcome::{Outcome, of};
use crate::result::Result;

/// Disks with partitions: a merged image with its layers, the same with hash trees, and file systems of one partition.
pub(super) fn disks() -> Result<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let [one, other] = two_layers(folder.path())?;
    let file = |name: &str, bytes: Vec<u8>| -> Result<InputArtifact> {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(InputArtifact::local(&path, None)?)
    };
    let layers = [one.clone(), other.clone()];
    let merged = file("merged", corpus::written(|out| ErofsMerged::default().join(&layers, out))?)?;
    let small = LayerBuilder::new().file("f", 0o644, b"x").finish();
    let none = Ext4Rootfs::new().journal(Journal::None)?;
    let ext4 = file("ext4", corpus::written(|out| none.image(&corpus::image(&[small])?, out))?)?;
    let disks = [vec![merged, one.clone(), other], vec![one; 3], vec![ext4]];
    disks.iter().map(|files| Ok(corpus::written(|out| Gpt::default().join(files, out))?)).collect()
}

/// Makes the checksums of a first partition table right: of the entries, and of the header (UEFI Specification 2.10, 5.3.2).
pub(super) fn sums(bytes: &mut [u8]) {
    let Some((header, rest)) = bytes.get_mut(512..).and_then(|bytes| bytes.split_at_mut_checked(512)) else {
        return;
    };
    let number =
        |at: usize| header[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
    // In front of the table stand the sector of the boot record and the header's own.
    let start = number(72).saturating_sub(2).saturating_mul(512);
    let length = number(80).saturating_mul(number(84));
    if let Some(entries) = rest.get(start..start.saturating_add(length)) {
        header[88..92].copy_from_slice(&crc32(entries).to_le_bytes());
    }
    header[16..20].fill(0);
    let sum = crc32(&header[..92]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The reader of partitions, and the file system in them.
pub(super) fn read(input: &[u8]) -> Outcome {
    let mut file = tempfile::tempfile().map_err(|e| e.to_string())?;
    file.write_all(input).map_err(|e| e.to_string())?;
    of(Partitions::new(file), |mut partitions| {
        let (mut start, length) = (0, input.len() as u64);
        for partition in partitions.list().to_vec() {
            let end = partition.start.checked_add(partition.size).filter(|end| *end <= length);
            let Some(end) = end else { return Err(format!("{partition:?} ends beyond the disk")) };
            // At both ends: together they may be many times as large as the disk.
            for within in [0, partition.size.saturating_sub(4096)] {
                let from = partition.start + within;
                let expected = &input[from as usize..(from + 4096).min(end) as usize];
                let mut found = vec![0; expected.len()];
                let read = partitions.seek(SeekFrom::Start(start + within)).map(drop);
                read.and_then(|()| partitions.read_exact(&mut found)).map_err(|e| e.to_string())?;
                if found != expected {
                    return Err(format!("{partition:?} is read elsewhere"));
                }
            }
            start += partition.size;
        }
        let found =
            of(Reader::new(&mut partitions).and_then(|mut reader| reader.tree().map(drop)), |()| Ok(false))?;
        of(Ext4Files::new(partitions).and_then(|mut files| files.list(b"/").map(drop)), |()| Ok(false))
            .map(|refused| found && refused)
    })
}
