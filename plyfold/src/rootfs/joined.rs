//! Partitions as one device: that on which Linux looks for the layers of a merged image, from 6.4 on.

use std::path::{Path, PathBuf};

use super::disks::Disks;

impl Disks {
    /// What a guest's kernel makes of the partitions of its `disk`, in the words of its command line: a device for each one
    /// that has a hash tree, and the last one of all of them (the kernel's
    /// `Documentation/admin-guide/device-mapper/dm-init.rst`). `None` where their sizes are not known.
    pub(super) fn joined_partitions(&self, disk: &str) -> Option<Vec<String>> {
        let (mut devices, mut parts) = (Vec::new(), Vec::new());
        for (of, index) in self.verified_partitions().iter().zip(0..) {
            let (image, holder) = (of.image.number, of.holder.number);
            let table = of.tree.table(&format!("{disk}{image}"), &format!("{disk}{holder}"));
            devices.push(format!("p{image},,,ro,{table}"));
            parts.push((format!("/dev/dm-{index}"), of.tree.data_size()));
        }
        if parts.is_empty() {
            let sizes = self.partition_sizes()?.into_iter().zip(1..);
            parts = sizes.map(|(size, number)| (format!("{disk}{number}"), size)).collect();
        }
        let (mut tables, mut end) = (Vec::new(), 0);
        for (part, size) in parts {
            let sectors = size / 512;
            tables.push(format!("{end} {sectors} linear {part} 0"));
            end += sectors;
        }
        devices.push(format!("rootfs,,,ro,{}", tables.join(",")));
        Some(devices)
    }

    /// Whether the one disk has a partition for each file.
    pub(crate) fn has_partitions(&self) -> bool {
        let is_in = |stream: &PathBuf| sizes_on_stream(stream).is_some();
        self.gpt.is_some() || self.partitions.is_some() || self.stream.as_ref().is_some_and(is_in)
    }

    /// The bytes of each partition, where none has a hash tree.
    fn partition_sizes(&self) -> Option<Vec<u64>> {
        if let Some(gpt) = &self.gpt {
            return sizes_on(gpt);
        }
        if let Some(stream) = &self.stream {
            return sizes_on_stream(stream);
        }
        let size = |path: &PathBuf| self.files.iter().find(|file| file.path == *path).map(|file| file.size);
        let sizes: Option<Vec<u64>> = self.merged.iter().chain(&self.layers).map(size).collect();
        sizes.filter(|sizes| !sizes.is_empty())
    }
}

#[cfg(feature = "disk")]
fn sizes_on(gpt: &Path) -> Option<Vec<u64>> {
    let disk = std::fs::File::open(gpt).ok()?;
    let partitions = plyfold_disk::Partitions::new(disk).ok()?;
    Some(partitions.list().iter().map(|partition| partition.size).collect())
}

#[cfg(feature = "disk")]
fn sizes_on_stream(stream: &Path) -> Option<Vec<u64>> {
    let disk = plyfold_vmdk::SparseDisk::new(std::fs::File::open(stream).ok()?).ok()?;
    let partitions = plyfold_disk::Partitions::new(disk).ok()?;
    Some(partitions.list().iter().map(|partition| partition.size).collect())
}

#[cfg(not(feature = "disk"))]
fn sizes_on_stream(_: &Path) -> Option<Vec<u64>> {
    None
}

#[cfg(not(feature = "disk"))]
fn sizes_on(_: &Path) -> Option<Vec<u64>> {
    None
}
