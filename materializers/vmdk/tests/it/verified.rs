//! Hash trees of joined disks.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;

use plyfold_core::blocking::Stop;
use plyfold_core::{
    ErrorKind, InputArtifact, LocalArtifact, Made, Materializer as _, Output, Result, Role, Sink, TreePlace,
};
use plyfold_verity::{Parameters, TreeLayout, Work};
use plyfold_vmdk::{Descriptor, FlatDisk, Vmdk};

/// The descriptor and the tree.
struct Files(File, File);

impl Sink for Files {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        Ok(if role == Role::Descriptor { &mut self.0 } else { &mut self.1 })
    }

    fn scratch(&mut self) -> Result<File> {
        Ok(tempfile::tempfile()?)
    }
}

/// Files of these blocks, each of its own bytes.
fn inputs(folder: &Path, blocks: &[usize]) -> Vec<InputArtifact> {
    let file = |(number, blocks): (usize, &usize)| {
        let (path, size) = (folder.join(number.to_string()), blocks * 4096);
        let content: Vec<u8> = (0..size).map(|at| (at / 4096 * 7 + number) as u8).collect();
        std::fs::write(&path, content).unwrap();
        let file = LocalArtifact::new(path, size as u64, Made::default());
        InputArtifact::new(number.to_string(), Role::Image, Box::new(file), None)
    };
    blocks.iter().enumerate().map(file).collect()
}

fn bytes(mut of: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    of.rewind().unwrap();
    of.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_tree_is_that_of_the_whole_disk_and_the_same_at_both_places() {
    for blocks in [&[1][..], &[2, 1], &[300, 1, 129], &[1, 1, 1]] {
        let folder = tempfile::tempdir().unwrap();
        let files = inputs(folder.path(), blocks);
        let size = blocks.iter().sum::<usize>() as u64 * 4096;
        let plain = Vmdk::new().descriptor(&files).unwrap();
        let mut trees = Vec::new();
        for place in [TreePlace::Append, TreePlace::Separate] {
            let mut out = Files(tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
            let told = Vmdk::new().with_hash_tree(place).join(&files, &mut out).unwrap();
            let tree = told.hash_tree.unwrap();
            assert_eq!((tree.place, tree.data_size()), (place, size));
            let descriptor = String::from_utf8(bytes(out.0)).unwrap();
            let (descriptor, hashes) = (Descriptor::parse(&descriptor).unwrap(), bytes(out.1));
            std::fs::write(folder.path().join("rootfs.verity"), &hashes).unwrap();
            let mut disk = tempfile::tempfile().unwrap();
            std::io::copy(&mut FlatDisk::new(&descriptor, folder.path()).unwrap(), &mut disk).unwrap();
            let root = tree.root_hash().parse().unwrap();
            let work = Work::new(&Stop::default());
            if place == TreePlace::Append {
                let (layout, _) = TreeLayout::find(&disk).unwrap().expect("the disk ends with a tree");
                assert_eq!((layout.hash_offset(), tree.hash_offset), (size, size));
                layout.verify(&root, &disk, &disk, &work).unwrap();
                assert_eq!(descriptor.extents().last().unwrap().path(), "rootfs.verity");
                assert_ne!(descriptor.cid(), plain.cid(), "the content is another one");
            } else {
                let layout = TreeLayout::beside(Parameters::default(), size).unwrap();
                let hashes = File::open(folder.path().join("rootfs.verity")).unwrap();
                layout.verify(&root, &disk, &hashes, &work).unwrap();
                assert_eq!((descriptor, tree.hash_offset), (plain.clone(), 0));
            }
            trees.push((root, hashes));
        }
        assert!(trees[0] == trees[1], "{blocks:?}");
    }
}

/// A tree behind a file of the disk is no part of it, and 512-byte blocks have trees of such.
#[test]
fn smaller_blocks_have_trees_of_such() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), [3; 512 * 3]).unwrap();
    let file = LocalArtifact::new(folder.path().join("a"), 512 * 3, Made::default());
    let file = InputArtifact::new("a", Role::Image, Box::new(file), None);
    let mut out = Files(tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let vmdk = Vmdk::new().sector_blocks().with_hash_tree(TreePlace::Append);
    let tree = vmdk.join(std::slice::from_ref(&file), &mut out).unwrap().hash_tree.unwrap();
    assert_eq!((tree.data_block_size, tree.hash_block_size, tree.hash_offset), (512, 512, 512 * 3));
    assert_eq!(vmdk.format().to_string(), "vmdk-v1-b512-verity-append");
}

/// Nothing of a tree is written for a disk that there is not, or that ends too early.
#[test]
fn files_that_are_no_disk_are_found_first() {
    let folder = tempfile::tempdir().unwrap();
    let vmdk = Vmdk::new().with_hash_tree(TreePlace::Separate);
    let mut out = Files(tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let name = LocalArtifact::new(folder.path().join("0"), 4096, Made::default());
    let absolute = InputArtifact::new("/0", Role::Image, Box::new(name), None);
    assert_eq!(*vmdk.join(&[absolute], &mut out).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(*vmdk.join(&[], &mut out).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(out.1.metadata().unwrap().len(), 0);
    let files = inputs(folder.path(), &[2]);
    File::options().write(true).open(folder.path().join("0")).unwrap().set_len(4096).unwrap();
    let error = vmdk.join(&files, &mut out).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!((out.0.metadata().unwrap().len(), out.1.metadata().unwrap().len()), (0, 0));
}
