//! The partitions of a disk, read back.

use std::io::{Cursor, Read as _, Seek as _, SeekFrom, Write as _};

use plyfold_core::ErrorKind;
use plyfold_disk::{DiskFault, Gpt, PartitionTable, Partitions, has_partitions};

use crate::{bytes, content, disk, entries, files};

fn read(disk: &[u8]) -> plyfold_core::Result<Partitions<Cursor<&[u8]>>> {
    Partitions::new(Cursor::new(disk))
}

#[test]
fn what_was_written_is_read() {
    let (_folder, three) = files(3);
    let made = disk(&Gpt::default(), &three);
    let bytes = bytes(&made);
    assert!(has_partitions(&bytes[..1024]) && !has_partitions(&content(&three[0])) && !has_partitions(b""));
    let mut partitions = read(&bytes).unwrap();
    let listed: Vec<_> =
        partitions.list().iter().map(|of| (of.name.clone(), of.start, of.start + of.size - 1)).collect();
    let written: Vec<_> =
        entries(&made, 1).unwrap().into_iter().map(|of| (of.name, of.first, of.last)).collect();
    assert_eq!(listed, written);
    let joined: Vec<u8> = three.iter().flat_map(content).collect();
    let mut found = Vec::new();
    partitions.read_to_end(&mut found).unwrap();
    assert!(found == joined, "the partitions behind each other are the files");
    for at in [0, 8191, 8192, joined.len() - 3] {
        let mut part = [0; 3];
        partitions.seek(SeekFrom::Start(at as u64)).unwrap();
        partitions.read_exact(&mut part).unwrap();
        assert_eq!(part, joined[at..at + 3], "{at}");
    }
    let (_folder, layer) = files(1);
    let many = bytes_of(&vec![layer[1].clone(); 255]);
    assert_eq!(read(&many).unwrap().list().len(), 255);
}

fn bytes_of(files: &[plyfold_core::InputArtifact]) -> Vec<u8> {
    bytes(&disk(&Gpt::default(), files))
}

/// A partition that is read is one by itself, and what is behind the table may be elsewhere.
#[test]
fn partitions_are_read_from_any_of_them_on() {
    let (_folder, three) = files(3);
    let whole = bytes_of(&three);
    let table = PartitionTable::of_start(Cursor::new(&whole[..1 << 20])).unwrap();
    assert_eq!(*read(&whole).unwrap().table(), table);
    assert_eq!((table.disk_size, table.partitions.len()), (whole.len() as u64, three.len()));
    for cut in [1 << 20, whole.len() - 512 * 80] {
        let error = read(&whole[..cut]).map(drop).unwrap_err();
        let size = (cut / 512 * 512) as u64;
        assert_eq!(error.detail(), Some(&DiskFault::Short(table.disk_size, size)), "{error}");
    }
    // The type of Linux's file systems, as text has it.
    let kind =
        [0x0f, 0xc6, 0x3d, 0xaf, 0x84, 0x83, 0x47, 0x72, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
    assert!(table.partitions.iter().all(|of| of.kind == kind && of.guid != [0; 16] && of.guid != table.guid));
    let contents: Vec<_> = three.iter().map(content).collect();
    for first in 0..=three.len() {
        let mut found = Vec::new();
        read(&whole).unwrap().starting_with(first).read_to_end(&mut found).unwrap();
        assert!(found == contents[first..].concat(), "from {first} on");
    }
    // Parts of partitions, each up to the place of the next one.
    let mut found = Vec::new();
    read(&whole).unwrap().with_places(&[4096, 8192]).unwrap().read_to_end(&mut found).unwrap();
    assert!(found == [&contents[0][..4096], &contents[1][..4096], &contents[2]].concat());
    let of_one = |places: &[u64]| read(&whole).unwrap().starting_with(2).with_places(places).map(drop);
    assert!(of_one(&[1]).is_ok());
    let error = read(&whole).unwrap().with_places(&[8192, 8192]).map(drop).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    // A place beyond what 63 bits of bytes hold is no place.
    let mut far = whole;
    far[512 + 32..512 + 40].fill(0xff);
    far[512 + 16..512 + 20].fill(0);
    let header = crc(&far[512..604]);
    far[512 + 16..512 + 20].copy_from_slice(&header.to_le_bytes());
    assert!(PartitionTable::of_start(Cursor::new(&far)).is_err() && read(&far).is_err());
}

/// No byte of the table can change, and no end can be missing, without an error.
#[test]
fn a_damaged_table_is_found() {
    let (_folder, two) = files(2);
    let whole = bytes_of(&two);
    for at in (510..604).chain(1024..1024 + 4 * 128) {
        let mut changed = whole.clone();
        changed[at] ^= 0x80;
        let error = read(&changed).map(drop).unwrap_err();
        assert!([ErrorKind::Corrupt, ErrorKind::Limit].contains(error.kind()), "{at}: {error}");
    }
    for length in [0, 511, 520, 604, 1024, 17_000, 1 << 20, 3 << 20] {
        let error = read(&whole[..length]).map(drop).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{length}: {error}");
    }
}

/// With checksums that are right: sizes are checked before anything is taken for them.
#[test]
fn a_table_that_claims_too_much_is_refused() {
    let (_folder, two) = files(2);
    let whole = bytes_of(&two);
    let faults = |changes: &[(usize, &[u8])]| {
        let mut changed = whole.clone();
        for (at, value) in changes {
            changed[*at..*at + value.len()].copy_from_slice(value);
        }
        let entries = crc(&changed[1024..1024 + 128 * 128]);
        changed[512 + 88..512 + 92].copy_from_slice(&entries.to_le_bytes());
        changed[512 + 16..512 + 20].fill(0);
        let header = crc(&changed[512..604]);
        changed[512 + 16..512 + 20].copy_from_slice(&header.to_le_bytes());
        let found = read(&changed).map(|found| found.list().len()).map_err(|e| detail(&e));
        // The kernel does not go to each place of a file.
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&changed).unwrap();
        assert_eq!(Partitions::new(file).map(|found| found.list().len()).map_err(|e| detail(&e)), found);
        found
    };
    let fault = |at: usize, value: &[u8]| faults(&[(at, value)]);
    assert_eq!(fault(512 + 40, &[34]), Ok(3));
    assert_eq!(fault(512 + 80, &[255; 4]), Err(Some(DiskFault::Entries(u32::MAX, 128))));
    assert_eq!(fault(512 + 84, &[0, 16]), Err(Some(DiskFault::Entries(128, 4096))));
    assert_eq!(fault(1024 + 40, &[255; 8]), Err(Some(DiskFault::Beyond(1))));
    assert_eq!(fault(1024 + 128 + 32, &[255; 8]), Err(Some(DiskFault::Beyond(2))));
    assert_eq!(fault(1024 + 128 + 40, &[0, 0, 1]), Err(Some(DiskFault::Beyond(2))));
    assert_eq!(fault(512 + 72, &[255; 8]), Err(Some(DiskFault::Table)));
    assert_eq!(fault(512 + 72, &[0, 0, 0, 0, 0, 0, 0x60, 0]), Err(Some(DiskFault::Table)));
    // An entry without a type is unused, whatever stands in the rest (section 5.3.3).
    assert_eq!(fault(1024 + 128, &[0; 16]), Ok(2));
    // What Linux refuses, and what it and libblkid tell apart (`is_gpt_valid`, `is_pmbr_valid`): the header's size, its own
    // place, the usable sectors, no entries; the boot record's signature, its type and its sector.
    let last = (whole.len() / 512 - 1) as u64;
    for (at, value) in [
        (512 + 12, &[91, 0][..]),
        (512 + 12, &[1, 2]),
        (512 + 24, &[5]),
        (512 + 40, &[1]),
        (512 + 40, &(last + 1).to_le_bytes()),
        (512 + 48, &(last + 1).to_le_bytes()),
        (512 + 48, &33_u64.to_le_bytes()),
        (512 + 80, &[0]),
    ] {
        assert_eq!(fault(at, value), Err(Some(DiskFault::Table)), "{at}: {value:?}");
    }
    for (at, value) in [(510, &[0, 0][..]), (446 + 4, &[0x83]), (446 + 8, &[2])] {
        assert_eq!(fault(at, value), Err(Some(DiskFault::Unprotected)), "{at}: {value:?}");
    }
    assert_eq!(fault(446 + 16 + 4, &[0x83]), Ok(3), "a hybrid MBR");
    // The second partition is the first one's place, or ends in the third one, or comes before what is usable.
    let (first, third) = (2048_u64.to_le_bytes(), &whole[1024 + 256 + 32..1024 + 256 + 40]);
    assert_eq!(faults(&[(1152 + 32, &first), (1152 + 40, &first)]), Err(Some(DiskFault::Shared(1, 2))));
    assert_eq!(fault(1152 + 40, third), Err(Some(DiskFault::Shared(2, 3))));
    assert_eq!(fault(1024 + 32, &33_u64.to_le_bytes()), Err(Some(DiskFault::Beyond(1))));
    let second = u64::from_le_bytes(whole[1152 + 32..1152 + 40].try_into().unwrap());
    let before = (second - 1).to_le_bytes();
    assert_eq!(fault(1152 + 40, &before), Err(Some(DiskFault::Beyond(2))), "of no sector");
}

fn detail(error: &plyfold_core::Error) -> Option<DiskFault> {
    error.detail::<DiskFault>().cloned()
}

/// CRC-32 as the UEFI Specification has it.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
