//! Whole images with hash trees: disks that stay as they are.

use std::fs::File;

use plyfold_conformance::samples;
use plyfold_core::blocking::Stop;
use plyfold_core::{ErrorKind, HashTree, Materializer as _, Output, Result, Role, Sink, TreePlace};
use plyfold_ext4::{Ext4Rootfs, Journal, Summary};
use plyfold_verity::{TreeLayout, Work};

use crate::common::merged;

/// The disk, and its tree.
struct Files(File, File);

impl Sink for Files {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        Ok(if role == Role::Image { &mut self.0 } else { &mut self.1 })
    }

    fn scratch(&mut self) -> Result<File> {
        Ok(tempfile::tempfile()?)
    }
}

fn layers() -> Vec<Vec<u8>> {
    samples::rootfs().images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect()
}

fn made(rootfs: &Ext4Rootfs) -> Result<(Files, HashTree)> {
    let mut files = Files(tempfile::tempfile()?, tempfile::tempfile()?);
    let told = rootfs.image(&merged(&layers())?, &mut files)?;
    let length = files.0.metadata()?.len();
    rootfs.adapt(Role::Image, &mut files.0)?;
    assert_eq!(files.0.metadata()?.len(), length, "it is adapted");
    Ok((files, told.hash_tree.expect("a tree is made")))
}

#[test]
fn the_tree_is_of_the_whole_disk_at_its_size() {
    let with_journal = Ext4Rootfs::new().journal(Journal::Bytes(4 << 20)).unwrap();
    for (format, size, journal) in [
        (Ext4Rootfs::new(), None, false),
        (with_journal.clone(), None, true),
        (Ext4Rootfs::new().size(96 << 20).unwrap(), Some(96 << 20), false),
        // Further groups.
        (with_journal.size(300 << 20).unwrap(), Some(300 << 20), true),
    ] {
        let mut roots = Vec::new();
        for place in [TreePlace::Append, TreePlace::Separate] {
            let format = format.clone().with_hash_tree(place);
            assert!(format.has_hash_tree() && format.outputs().iter().all(|file| !file.writable));
            let (files, tree) = made(&format).unwrap();
            let summary = Summary::read(&files.0).unwrap();
            let own = summary.blocks * u64::from(summary.block_size);
            assert_eq!((tree.place, tree.data_size()), (place, own), "all of it is verified");
            assert_eq!(summary.features.iter().any(|feature| feature == "has_journal"), journal);
            assert!(size.map_or(own < 16 << 20, |size| own == size), "{own} bytes");
            let holder = if place == TreePlace::Append { &files.0 } else { &files.1 };
            let (layout, _) = TreeLayout::read(holder, tree.hash_offset).unwrap();
            let root = tree.root_hash().parse().unwrap();
            layout.verify(&root, &files.0, holder, &Work::new(&Stop::default())).unwrap();
            roots.push(root);
        }
        assert_eq!(roots[0], roots[1]);
    }
}

#[test]
fn a_size_is_a_part_of_the_key_and_one_too_small_is_refused() {
    let verified = Ext4Rootfs::new().with_hash_tree(TreePlace::Append);
    let sized = verified.clone().size(96 << 20).unwrap();
    assert_eq!(verified.format().to_string(), "ext4-v2-verity-append");
    assert_eq!(sized.format().to_string(), "ext4-v2-s100663296-verity-append");
    let error = made(&verified.size(4096).unwrap()).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.hint().is_some()), (&ErrorKind::Config, true), "{error}");
}
