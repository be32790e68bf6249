//! Disks in one compressed file.

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom, Write as _};
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;

use plyfold_core::digest::sha256;
use plyfold_core::{ErrorKind, InputArtifact, Materializer as _};
use plyfold_vmdk::{SparseDisk, VmdkStream, check_stream};
use tempfile::NamedTempFile;

const MIB: usize = 1 << 20;

/// Bytes that compress a little.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x7f
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// A VMDK of a disk.
fn stream(format: &VmdkStream, disk: &File) -> Vec<u8> {
    let mut file = NamedTempFile::new().unwrap();
    std::io::copy(&mut &*disk, &mut file).unwrap();
    of(format, &file)
}

fn of(format: &VmdkStream, disk: &NamedTempFile) -> Vec<u8> {
    let mut out = tempfile::tempfile().unwrap();
    format.join(&[InputArtifact::local(disk.path(), None).unwrap()], &mut out).unwrap();
    let mut bytes = Vec::new();
    out.rewind().unwrap();
    out.read_to_end(&mut bytes).unwrap();
    bytes
}

fn of_bytes(format: &VmdkStream, bytes: &[u8]) -> Vec<u8> {
    let mut disk = NamedTempFile::new().unwrap();
    disk.write_all(bytes).unwrap();
    of(format, &disk)
}

/// What the crate's own reader reads.
fn read(vmdk: &[u8]) -> plyfold_core::Result<Vec<u8>> {
    let mut disk = SparseDisk::new(Cursor::new(vmdk))?;
    let mut bytes = Vec::new();
    disk.read_to_end(&mut bytes).map_err(|e| plyfold_core::Error::io("reading", e))?;
    Ok(bytes)
}

/// Text, noise, zeros, and noise again across the end of a table.
fn mixed() -> Vec<u8> {
    let text: Vec<u8> =
        (0..200_000).flat_map(|number: u32| format!("line {number}\n").into_bytes()).collect();
    let mut disk = [&text[..], &noise(3 * MIB), &vec![0; 5 * MIB], &noise(100_000)].concat();
    disk.resize(31 * MIB + 12_345, 0);
    disk.extend(noise(3 * MIB + 77));
    disk
}

/// Nothing but zeros is skipped, and all grains of zeros are.
#[test]
fn zeros_are_skipped() {
    let mixed = mixed();
    for (bytes, least) in [(&mixed[..], 25 * MIB), (&vec![0; 40 * MIB], 40 * MIB), (&noise(MIB), 0)] {
        let mut disk = SparseDisk::new(Cursor::new(of_bytes(&VmdkStream::new(), bytes))).unwrap();
        let (mut at, mut skipped, size) = (0, 0, disk.summary().size);
        while at < size {
            let next = disk.data_from(at).unwrap().unwrap_or(size);
            assert!(next >= at && next <= size);
            let hole = bytes.get(at as usize..bytes.len().min(next as usize)).unwrap_or_default();
            assert!(hole.iter().all(|byte| *byte == 0), "{at} to {next}");
            skipped += (next - at) as usize;
            at = next + 65_536;
        }
        assert!(skipped >= least, "{skipped} of {size}");
        assert_eq!(disk.data_from(size).unwrap(), None);
    }
}

#[test]
fn a_disk_reads_back_identical() {
    let mixed = mixed();
    for bytes in [
        &[][..],
        b"x",
        &noise(65_535),
        &noise(65_536),
        &noise(65_537),
        &noise(MIB + 1),
        &vec![0; 40 * MIB],
        &mixed,
    ] {
        let vmdk = of_bytes(&VmdkStream::new(), bytes);
        let disk = read(&vmdk).unwrap();
        assert_eq!(disk.len(), bytes.len().max(1).next_multiple_of(MIB));
        assert!(
            disk.starts_with(bytes) && disk[bytes.len()..].iter().all(|byte| *byte == 0),
            "{}",
            bytes.len()
        );
        assert!(vmdk.len().is_multiple_of(512));
    }
    // From anywhere.
    let mut disk = SparseDisk::new(Cursor::new(of_bytes(&VmdkStream::new(), &mixed))).unwrap();
    for at in [32 * MIB - 10, 5, 33 * MIB, 65_530, 3 * MIB] {
        let mut part = [0; 20];
        disk.seek(SeekFrom::Start(at as u64)).unwrap();
        disk.read_exact(&mut part).unwrap();
        assert_eq!(part, mixed[at..at + 20], "{at}");
    }
}

/// The bytes are part of the cache key: a change of them raises `Format::version`.
#[test]
fn same_input_same_bytes_on_any_number_of_threads() {
    let disk = mixed();
    for (level, pinned) in [
        (1, "5e95b1e42a2980b6a0ea6b5c973850c30685b0b46b9e40c6d6e71d9c0fafeec2"),
        (6, "3f60681ad099ecfc1cdfb8a277fc96079a4b976d80d287579a6fb83d74d1d760"),
        (9, "c205b6521a968fd301ba93ab8d3dad3ec9b9320d0eb129881917a418e248b82b"),
    ] {
        let format = VmdkStream::new().level(level).unwrap();
        for threads in [1, 2, 8] {
            let made = of_bytes(&format.threads(NonZero::new(threads).unwrap()), &disk);
            assert_eq!(sha256(&made).digest(), pinned, "level {level}, {threads} threads");
        }
    }
}

/// Its holes cost nothing.
#[test]
fn zeros_are_left_out() {
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(200 << 20).unwrap();
    disk.write_all_at(b"end", (100 << 20) - 3).unwrap();
    let vmdk = stream(&VmdkStream::new(), &disk);
    assert!(vmdk.len() < 72 << 10, "{} bytes", vmdk.len());
    assert!(read(&vmdk).unwrap()[..100 << 20].ends_with(b"end"));
}

#[test]
fn the_identity_follows_the_content() {
    let cid = |bytes: &[u8]| {
        let vmdk = of_bytes(&VmdkStream::new(), bytes);
        SparseDisk::new(Cursor::new(vmdk)).unwrap().summary().cid.unwrap()
    };
    let noise = noise(MIB);
    let mut other = noise.clone();
    other[700_000] ^= 1;
    let shifted = [vec![0; 65_536], noise.clone()].concat();
    let cids = [cid(&noise), cid(&other), cid(&shifted)];
    assert!(cids[0] != cids[1] && cids[0] != cids[2] && cids.iter().all(|cid| *cid < 1 << 31), "{cids:x?}");
}

/// What a changed byte makes of a disk is an error or the disk as it was.
#[test]
fn a_changed_byte_is_found() {
    let bytes = [noise(70_000), vec![0; 200_000], noise(5_000)].concat();
    let vmdk = of_bytes(&VmdkStream::new(), &bytes);
    let disk = read(&vmdk).unwrap();
    let mut harmless = 0;
    for at in (0..vmdk.len()).filter(|at| *at < 512 || at % 397 == 0) {
        let mut changed = vmdk.clone();
        changed[at] ^= 0x11;
        match read(&changed) {
            // A place in a table that means zeros, or the size of the disk.
            Ok(found) if found != disk => harmless += 1,
            Ok(_) => {}
            Err(e) => assert!([ErrorKind::Corrupt, ErrorKind::Unsupported].contains(e.kind()), "{at}: {e}"),
        }
    }
    assert!(harmless < 8, "{harmless} changes are not found");
    for length in (0..vmdk.len()).step_by(1021) {
        let cut = read(&vmdk[..length]);
        assert!(cut.is_err_and(|e| *e.kind() == ErrorKind::Corrupt), "cut to {length}");
    }
}

#[test]
fn what_is_not_read_is_said() {
    let vmdk = of_bytes(&VmdkStream::new(), &noise(MIB));
    let kind = |at: usize, value: &[u8]| {
        let mut changed = vmdk.clone();
        changed[at..at + value.len()].copy_from_slice(value);
        read(&changed).err().map(|e| e.kind().clone())
    };
    let parent = vmdk.windows(18).position(|text| text == b"parentCID=ffffffff").unwrap();
    assert_eq!(kind(0, b"COWD"), Some(ErrorKind::Corrupt));
    assert_eq!(kind(4, &[4]), Some(ErrorKind::Unsupported));
    assert_eq!(kind(20, &[0; 8]), Some(ErrorKind::Corrupt));
    assert_eq!(kind(20, &u64::MAX.to_le_bytes()), Some(ErrorKind::Corrupt));
    assert_eq!(kind(12, &u64::MAX.to_le_bytes()), Some(ErrorKind::Corrupt));
    assert_eq!(kind(44, &[255; 4]), Some(ErrorKind::Unsupported));
    assert_eq!(kind(73, b"\r\n\r\n"), Some(ErrorKind::Corrupt));
    assert_eq!(kind(77, &[9]), Some(ErrorKind::Unsupported));
    assert_eq!(kind(parent, b"parentCID=12345678"), Some(ErrorKind::Unsupported));
    // QEMU opens that file whatever the CID of the parent is.
    let line = vmdk.windows(12).position(|text| text == b"\ncreateType=").unwrap();
    assert_eq!(kind(line, b"\nparentFileNameHint=\"a\"\n"), Some(ErrorKind::Unsupported));
    // Of a file without sectors it takes the descriptor for that of another disk.
    assert_eq!(kind(12, &[0; 8]), Some(ErrorKind::Corrupt));
    let error = VmdkStream::new().join(&[], &mut tempfile::tempfile().unwrap()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
}

/// qemu opens a parent that the sectors behind the header name, whatever the header says of a descriptor.
#[test]
fn a_named_parent_is_refused_and_only_what_is_written_here_is_exact() {
    let good = of_bytes(&VmdkStream::new(), &noise(MIB));
    let check = |bytes: &[u8]| check_stream(&bytes[..21 * 512], &bytes[bytes.len() - 3 * 512..]);
    check(&good).unwrap();
    let with = |at: usize, by: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + by.len()].copy_from_slice(by);
        bytes
    };
    let hint = b"parentFileNameHint=\"/etc/passwd\"\n";
    assert_eq!(read(&good).unwrap(), noise(MIB));
    for bad in [with(4096, hint), {
        let mut bytes = with(4096, hint);
        // No descriptor, for readers who look at the header.
        bytes[28..44].fill(0);
        let end = bytes.len() - 1024;
        bytes[end + 28..end + 44].fill(0);
        bytes
    }] {
        assert_eq!(*read(&bad).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(*check(&bad).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    // Any bit of the header, of the descriptor and of the end, but for the identity.
    let places = (0..21 * 512).chain(good.len() - 1536..good.len());
    let cid = 512 + 36..512 + 44;
    let directory = good.len() - 1024 + 56..good.len() - 1024 + 64;
    for at in places.filter(|at| !cid.contains(at) && !directory.contains(at)) {
        assert!(check(&with(at, &[good[at] ^ 1])).is_err(), "{at}");
    }
    assert!(check(&good[..good.len() - 512]).is_err() && check_stream(&[], &[]).is_err());
}
