//! A disk of several files that tests read back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use plyfold_core::{InputArtifact, LocalArtifact, Made, Materializer as _, OneFile, Result, Role};
use plyfold_vmdk::Vmdk;
use tempfile::TempDir;

pub(crate) const GIB: u64 = 1 << 30;

/// A folder with `disk.vmdk` and files of the given sizes, each with marks that tell its places apart.
pub(crate) struct Disk {
    pub(crate) folder: TempDir,
    pub(crate) files: Vec<InputArtifact>,
}

impl Disk {
    pub(crate) fn new(vmdk: &Vmdk, files: &[(&str, u64)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut layers = Vec::new();
        for (name, size) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let file = File::create(path)?;
            file.set_len(*size)?;
            let around =
                (0..=size / (2 * GIB)).flat_map(|n| [(2 * GIB * n).saturating_sub(512), 2 * GIB * n]);
            for offset in around.chain([0, size - 512]).filter(|offset| *offset < *size) {
                file.write_all_at(format!("{} at {offset}", layers.len()).as_bytes(), offset)?;
            }
            let file = LocalArtifact::new(name.into(), *size, Made::default());
            layers.push(InputArtifact::new(*name, Role::Image, Box::new(file), None));
        }
        let descriptor = File::create(folder.path().join("disk.vmdk"))?;
        vmdk.join(&layers, &mut OneFile(Role::Descriptor, descriptor))?;
        vmdk.descriptor(&layers)?.check(folder.path())?;
        Ok(Self { folder, files: layers })
    }
}
