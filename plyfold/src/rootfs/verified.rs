//! How the disks are opened that have hash trees.

use std::path::Path;

use plyfold_core::{HashTree, HashedPartition, Role, TreePlace};

use super::disks::{Disk, Disks};
use super::options::{VMDK, VMDK_STREAM};
use crate::shell::{absolute, quoted};

/// An image with a hash tree.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct VerifiedFile<'a> {
    /// The image.
    pub disk: &'a Disk,
    /// Its tree.
    pub tree: &'a HashTree,
    /// The file that the tree is in.
    pub tree_file: &'a Path,
}

impl Disks {
    /// The images that have hash trees, in the order of [`files`](Self::files).
    pub fn verified(&self) -> impl Iterator<Item = VerifiedFile<'_>> {
        self.files.iter().filter_map(|disk| {
            let tree = disk.hash_tree.as_ref()?;
            let is_its = |file: &&Disk| {
                let is_tree = file.role == Role::HashTree && file.format == disk.format;
                is_tree && file.path.file_stem() == disk.path.file_stem()
            };
            let own = self.files.iter().find(is_its);
            let other = own.filter(|_| tree.place == TreePlace::Separate);
            Some(VerifiedFile { disk, tree, tree_file: &other.unwrap_or(disk).path })
        })
    }

    /// Whether there is a hash tree of any file or partition.
    #[cfg(feature = "command")]
    pub(crate) fn has_hash_trees(&self) -> bool {
        self.verified().next().is_some() || !self.verified_partitions().is_empty()
    }

    /// The tree of the image at a path, and the file that it is in.
    pub(super) fn verified_at(&self, image: &Path) -> Option<VerifiedFile<'_>> {
        self.verified().find(|found| found.disk.path == image)
    }
}

impl VerifiedFile<'_> {
    /// The name that the verified device gets by [`open_line`](Self::open_line): that of the file, without its
    /// extension.
    pub fn device(&self) -> String {
        let stem = self.disk.path.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    }

    /// The command by which root opens the device `/dev/mapper/NAME`, of which the kernel verifies each block that is
    /// read; `None` for a file that is not the disk itself, but names its files (`vmdk`) or has it compressed (`vmdk-stream`).
    pub fn open_line(&self) -> Option<String> {
        if [VMDK, VMDK_STREAM].contains(&&*self.disk.format) {
            return None;
        }
        let (data, tree) = (quoted(&absolute(&self.disk.path)), quoted(&absolute(self.tree_file)));
        Some(open_line(self.tree, &data, &self.device(), &tree))
    }
}

/// The commands of a guest that open the partitions of its first disk, and mount them at `place`.
pub(super) fn mount_partitions(partitions: &[HashedPartition], disk: &str, place: &str) -> String {
    let (mut line, mut devices) = (String::new(), String::new());
    for HashedPartition { image, holder, tree, .. } in partitions {
        let (image, holder) = (image.number, holder.number);
        line += &open_line(tree, &format!("{disk}{image}"), &format!("p{image}"), &format!("{disk}{holder}"));
        line += " && ";
        // Short names: all options together have the room of a page.
        if image > 1 {
            devices.extend([",device=p", &image.to_string()]);
        }
    }
    line + &format!("(cd /dev/mapper; mount -t erofs -o ro{devices} p1 {place})")
}

/// The same of devices or files, quoted as need be.
pub(super) fn open_line(tree: &HashTree, data: &str, name: &str, tree_device: &str) -> String {
    let offset = match tree.hash_offset {
        0 => String::new(),
        offset => format!(" --hash-offset={offset}"),
    };
    format!("veritysetup open {data} {name} {tree_device} {}{offset}", tree.root_hash())
}
