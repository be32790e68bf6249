//! Images of layers, and disks of them.

use std::io::Cursor;

use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::MergedTree;
use plyfold_core::{Materializer as _, Result, Role};
use plyfold_ext4::Ext4Rootfs;
use tempfile::{NamedTempFile, TempPath};

/// The image of layers, bottom first.
pub(crate) fn merged(tars: &[Vec<u8>]) -> Result<MergedTree> {
    let layers = tars.iter().map(|tar| LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default()));
    let scratch = tempfile::tempdir()?;
    MergedTree::read(layers, TreeLimits::default(), scratch.path())
}

/// The smallest file system of layers.
pub(crate) fn smallest(tars: &[Vec<u8>], rootfs: &Ext4Rootfs) -> Result<TempPath> {
    let mut file = NamedTempFile::new()?;
    rootfs.image(&merged(tars)?, file.as_file_mut())?;
    Ok(file.into_temp_path())
}

/// The file system of layers in the size that was asked for.
pub(crate) fn disk(tars: &[Vec<u8>], rootfs: &Ext4Rootfs) -> Result<TempPath> {
    let mut file = NamedTempFile::new()?;
    rootfs.image(&merged(tars)?, file.as_file_mut())?;
    rootfs.adapt(Role::Image, file.as_file_mut())?;
    Ok(file.into_temp_path())
}
