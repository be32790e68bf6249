//! Disks without any tool: the suite, bytes, refusals.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::digest::sha256;
use plyfold_core::{Error, ErrorKind, InputArtifact, Materializer, Output, Result, Role, Sink};
use plyfold_disk::{DiskFault, Gpt, Raw};
use plyfold_erofs::Options;
use tempfile::TempDir;

#[path = "../common/mod.rs"]
mod common;
mod over_files;
mod reader;
mod suite;

use common::{entries, layers, with_merged};

/// A layer with one file of its own.
fn tar(number: usize) -> Vec<u8> {
    LayerBuilder::new().file(format!("f{number}"), 0o644, number.to_string().as_bytes()).finish()
}

/// A merged image of so many layers, and the layers.
fn files(count: usize) -> (TempDir, Vec<InputArtifact>) {
    let folder = TempDir::new().unwrap();
    let layers =
        layers(&(0..count).map(tar).collect::<Vec<_>>(), folder.path(), &Options::default()).unwrap();
    let files = with_merged(&layers, &folder.path().join("disk"), &Options::default()).unwrap();
    (folder, files)
}

fn disk(format: &dyn Materializer, files: &[InputArtifact]) -> File {
    let mut disk = tempfile::tempfile().unwrap();
    format.join(files, &mut disk).unwrap();
    disk
}

fn bytes(disk: &File) -> Vec<u8> {
    let mut bytes = vec![0; disk.metadata().unwrap().len() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn content(file: &InputArtifact) -> Vec<u8> {
    fs::read(file.artifact.path().unwrap()).unwrap()
}

/// A sink that must not be written to.
struct Untouched;

impl Sink for Untouched {
    fn output(&mut self, _: Role) -> Result<&mut dyn Output> {
        panic!("the files are checked before anything is written")
    }

    fn scratch(&mut self) -> Result<File> {
        panic!("a disk needs no scratch file")
    }
}

fn refused(format: &dyn Materializer, files: &[InputArtifact]) -> Error {
    format.join(files, &mut Untouched).unwrap_err()
}

/// The bytes are part of the cache key: a change of them raises `Format::version`.
#[test]
fn same_input_same_bytes() {
    let digest = |format: &dyn Materializer| sha256(&bytes(&disk(format, &files(3).1))).digest().to_owned();
    for (format, pinned) in [
        (
            &Raw::default() as &dyn Materializer,
            "d891ed172966c36cac61aaca123d772e4476644a919896daa761b81d516be24d",
        ),
        (&Gpt::default(), "ac8ae5bf725edd12d33a103e3bffc191e9aac2928f6d9de1defe2a257e7513c3"),
    ] {
        assert_eq!(digest(format), pinned, "{format:?}");
    }
}

#[test]
fn a_raw_disk_is_its_files_and_zeros_up_to_2_mib() {
    let (_folder, files) = files(3);
    let disk = bytes(&disk(&Raw::default(), &files));
    let joined: Vec<u8> = files.iter().flat_map(content).collect();
    assert_eq!(disk.len(), 2 << 20);
    assert!(disk.starts_with(&joined) && disk[joined.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_partition_holds_one_file() {
    let (_folder, files) = files(3);
    let disk = disk(&Gpt::default(), &files);
    let found = entries(&disk, 1).unwrap();
    let names: Vec<&str> = found.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["merged", "layer-00", "layer-01", "layer-02"]);
    for (entry, file) in found.iter().zip(&files) {
        assert!(entry.first.is_multiple_of(1 << 20), "{entry:?}");
        let mut held = vec![0; (entry.last + 1 - entry.first) as usize];
        disk.read_exact_at(&mut held, entry.first).unwrap();
        assert!(held == content(file), "{entry:?}");
    }
    let size = disk.metadata().unwrap().len();
    assert!(size.is_multiple_of(1 << 20) && found.iter().all(|entry| entry.last < size), "{size}");
    assert_eq!(entries(&disk, size / 512 - 1).unwrap(), found, "the table at the end");
    // The protective MBR: one partition of type 0xEE over all sectors but its own.
    let mbr = &bytes(&disk)[..512];
    assert_eq!((mbr[446], mbr[450], &mbr[510..]), (0, 0xee, &[0x55, 0xaa][..]));
    assert_eq!(mbr[454..462], [1_u32.to_le_bytes(), (size as u32 / 512 - 1).to_le_bytes()].concat());
    assert!(mbr[..446].iter().chain(&mbr[462..510]).all(|byte| *byte == 0));
}

/// A machine may have several disks, with layers in common: a GUID means one partition of one disk.
#[test]
fn guids_follow_the_content_of_the_whole_disk() {
    let guids = |files: &[InputArtifact]| -> Vec<[u8; 16]> {
        let disk = disk(&Gpt::default(), files);
        let disk_guid = std::array::from_fn(|at| bytes(&disk)[512 + 56 + at]);
        std::iter::once(disk_guid).chain(entries(&disk, 1).unwrap().iter().map(|entry| entry.guid)).collect()
    };
    let (_one, three) = files(3);
    let (_other, again) = files(3);
    let (_third, two) = files(2);
    assert_eq!(guids(&three), guids(&again), "another folder");
    let all: HashSet<[u8; 16]> = [guids(&three), guids(&two)].concat().into_iter().collect();
    assert_eq!(all.len(), 5 + 4);
    // Of version 5, in the byte order of UEFI: the first three fields are little-endian.
    assert!(all.iter().all(|guid| guid[7] >> 4 == 5 && guid[8] >> 6 == 2), "{all:x?}");
    // Without the digest of its tar a layer is known by its own.
    let bare: Vec<_> = again
        .iter()
        .map(|file| InputArtifact::new(&*file.name, file.role, file.artifact.clone(), None))
        .collect();
    assert_ne!(guids(&bare), guids(&three));
    assert_eq!(guids(&bare), guids(&bare));
}

#[test]
fn a_table_grows_to_what_linux_finds_and_not_beyond() {
    let (_folder, three) = files(2);
    let many = |count: usize| vec![three[1].clone(); count];
    for (count, entries_of_table) in [(1, 128), (128, 128), (129, 256), (255, 256)] {
        let disk = disk(&Gpt::default(), &many(count));
        let head = bytes(&disk)[512..1024].to_vec();
        assert_eq!(head[80..84], u32::to_le_bytes(entries_of_table), "{count}");
        assert_eq!(entries(&disk, 1).unwrap().len(), count);
        assert_eq!(
            entries(&disk, 1).unwrap().last().map_or(0, |entry| entry.name.len()),
            if count > 102 {
                9
            } else if count > 1 {
                8
            } else {
                6
            }
        );
    }
    let error = refused(&Gpt::default(), &many(256));
    assert_eq!((error.kind(), error.hint().is_some()), (&ErrorKind::Limit, true), "{error}");
    assert_eq!(error.detail(), Some(&DiskFault::Partitions(256, 255)));
}

#[test]
fn files_that_do_not_fit_each_other_are_refused_before_anything_is_written() {
    let (folder, three) = files(3);
    let local = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        InputArtifact::local(&path, None).unwrap()
    };
    let merged = content(&three[0]);
    let changed = |at: usize, value: &[u8]| {
        let mut merged = merged.clone();
        merged[at..at + value.len()].copy_from_slice(value);
        merged
    };
    let with = |first: InputArtifact| [&[first], &three[1..]].concat();
    let longer = [content(&three[2]), vec![0; 4096]].concat();
    let table = usize::from(u16::from_le_bytes([merged[1024 + 88], merged[1024 + 89]])) * 128;
    let (layer, size) = (content(&three[2]).len() as u64, merged.len() as u64);
    let cases = [
        (vec![], DiskFault::Empty, ErrorKind::Config),
        (three[..3].to_vec(), DiskFault::Devices(3, 2), ErrorKind::Config),
        (three[1..].to_vec(), DiskFault::Devices(0, 2), ErrorKind::Config),
        (with(local("short", b"no image")), DiskFault::NotMerged, ErrorKind::Config),
        (with(local("none", &vec![0; 8192])), DiskFault::NotMerged, ErrorKind::Config),
        (with(local("bits", &changed(1024 + 12, &[64]))), DiskFault::NotMerged, ErrorKind::Config),
        (with(local("table", &changed(1024 + 88, &[255; 2]))), DiskFault::NotMerged, ErrorKind::Config),
        (
            with(local("cut", &merged[..merged.len() - 512])),
            DiskFault::MergedSize(size - 512, size),
            ErrorKind::Corrupt,
        ),
        (
            vec![three[0].clone(), three[1].clone(), local("longer", &longer), three[3].clone()],
            DiskFault::LayerSize(layer + 4096, layer),
            ErrorKind::Config,
        ),
        (with(local("overlap", &changed(table + 128 + 68, &[0; 4]))), DiskFault::Overlap, ErrorKind::Corrupt),
    ];
    for (files, fault, kind) in cases {
        let error = refused(&Raw::default(), &files);
        assert_eq!((error.detail(), error.kind()), (Some(&fault), &kind), "{error}");
    }
    assert_eq!(refused(&Gpt::default(), &[]).detail(), Some(&DiskFault::Empty));
    for bytes in [&[0_u8; 0][..], &[0; 513]] {
        let error = refused(&Gpt::default(), &[three[0].clone(), local("part", bytes)]);
        assert_eq!(error.detail(), Some(&DiskFault::Sectors(bytes.len() as u64)), "{error}");
    }
}

/// A file that is shorter than it says would show the next file's bytes, or zeros.
#[test]
fn a_file_that_shrinks_is_an_error() {
    let (folder, three) = files(3);
    let path = three[3].artifact.path().map(Path::to_owned).unwrap();
    File::options().write(true).open(path).unwrap().set_len(4096).unwrap();
    for format in [&Raw::default() as &dyn Materializer, &Gpt::default()] {
        let error = format.join(&three, &mut tempfile::tempfile().unwrap()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.context("path").is_some_and(|path| path.contains("layer-2")), "{error:?}");
    }
    drop(folder);
}
