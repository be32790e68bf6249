//! Partitions whose content stays in its files.

use std::fs::{self, File};
use std::path::Path;

use plyfold_core::digest::sha256;
use plyfold_core::{Error, ErrorKind, InputArtifact, Materializer as _, Output, Result, Role, Sink};
use plyfold_disk::{DiskFault, Gpt, VmdkGpt};
use plyfold_vmdk::{Descriptor, FlatDisk};
use tempfile::TempDir;

use crate::{bytes, disk, files, refused};

/// The two files of a disk.
struct Two {
    descriptor: File,
    tables: File,
}

impl Two {
    fn in_folder(folder: &Path) -> Self {
        let create =
            |name| File::options().read(true).write(true).create(true).truncate(true).open(folder.join(name));
        Self { descriptor: create("rootfs.vmdk").unwrap(), tables: create("partitions.gpt").unwrap() }
    }
}

impl Sink for Two {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        match role {
            Role::Descriptor => Ok(&mut self.descriptor),
            Role::Sidecar => Ok(&mut self.tables),
            other => Err(Error::unsupported(other.to_string())),
        }
    }

    fn scratch(&mut self) -> Result<File> {
        panic!("a disk needs no scratch file")
    }
}

/// Files under the names that they have in their folder.
fn named(files: &[InputArtifact]) -> Vec<InputArtifact> {
    let name =
        |file: &InputArtifact| Path::new(&file.name).file_name().unwrap().to_string_lossy().into_owned();
    let named = |file| InputArtifact::new(name(file), file.role, file.artifact.clone(), file.diff_id.clone());
    files.iter().map(named).collect()
}

fn joined(folder: &TempDir, files: &[InputArtifact]) -> Descriptor {
    VmdkGpt::default().join(files, &mut Two::in_folder(folder.path())).unwrap();
    Descriptor::parse(&fs::read_to_string(folder.path().join("rootfs.vmdk")).unwrap()).unwrap()
}

/// The bytes are part of the cache key: a change of them raises `Format::version`.
#[test]
fn same_input_same_bytes() {
    let (folder, files) = files(2);
    joined(&folder, &named(&files));
    let expected = "\
# Disk DescriptorFile
version=1
CID=25de6cc9
parentCID=ffffffff
createType=\"twoGbMaxExtentFlat\"

# Extent description
RW 2048 FLAT \"partitions.gpt\" 0
RW 16 FLAT \"merged.erofs\" 0
RW 2032 FLAT \"partitions.gpt\" 2048
RW 24 FLAT \"layer-0.erofs\" 0
RW 2024 FLAT \"partitions.gpt\" 2048
RW 24 FLAT \"layer-1.erofs\" 0
RW 1952 FLAT \"partitions.gpt\" 2048
RW 72 FLAT \"partitions.gpt\" 4096
";
    let text = fs::read_to_string(folder.path().join("rootfs.vmdk")).unwrap();
    assert!(text.starts_with(expected), "{text}");
    let tables = sha256(&fs::read(folder.path().join("partitions.gpt")).unwrap());
    assert_eq!(
        tables.digest(),
        "c96548dcb390d79d2d744fe69e778e14cc6e62811c8ed70635d14fdca7cfb29f",
        "the tables"
    );
}

#[test]
fn the_disk_is_that_of_partitions() {
    let (folder, three) = files(3);
    let three = named(&three);
    let mut layer = three[1].clone();
    for count in [1, 4, 128, 129, 255] {
        let mut files = three.clone();
        files.resize_with(count, || layer.clone());
        let mut ours = tempfile::tempfile().unwrap();
        let descriptor = joined(&folder, &files);
        std::io::copy(&mut FlatDisk::new(&descriptor, folder.path()).unwrap(), &mut ours).unwrap();
        assert!(bytes(&ours) == bytes(&disk(&Gpt::default(), &files)), "{count} partitions");
        layer.diff_id = None;
    }
}

/// Without a copy of the files: what is made takes a MiB at most.
#[test]
fn little_is_written() {
    let (folder, three) = files(3);
    joined(&folder, &named(&three));
    let tables = fs::metadata(folder.path().join("partitions.gpt")).unwrap();
    let taken = std::os::unix::fs::MetadataExt::blocks(&tables) * 512;
    assert!(taken < 1 << 20 && tables.len() < 4 << 20, "{taken} of {} bytes", tables.len());
}

#[test]
fn what_no_reader_finds_is_refused_before_anything_is_written() {
    let (_folder, three) = files(1);
    for name in ["/absolute", "../up", "a/../b", "quote\"", ""] {
        let renamed = InputArtifact::new(name, Role::Image, three[1].artifact.clone(), None);
        let error = refused(&VmdkGpt::default(), &[named(&three)[0].clone(), renamed]);
        assert_eq!((error.kind(), error.hint().is_some()), (&ErrorKind::Config, true), "{name}: {error}");
    }
    let many = vec![named(&three)[1].clone(); 256];
    assert_eq!(refused(&VmdkGpt::default(), &many).detail(), Some(&DiskFault::Partitions(256, 255)));
    assert_eq!(refused(&VmdkGpt::default(), &[]).detail(), Some(&DiskFault::Empty));
}
