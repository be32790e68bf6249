//! From layer images in the store to a set of files that appears whole.

use std::path::{Path, PathBuf};

use plyfold_core::layer::{TreeBudget, TreeLimits};
use plyfold_core::{
    Advice, Error, ErrorKind, InputArtifact, LocalArtifact, Made, Materializer as _, OneFile, PulledLayer,
    Result, Role,
};
use plyfold_erofs::{ErofsMerged, OverlayDifferences};

#[cfg(feature = "ext4")]
use super::set::UPPER;
#[cfg(feature = "vmdk")]
use super::set::VMDK;
use super::set::{MERGED, Set};
use super::{Disks, Form, Rootfs};
use crate::whole::{FileOptions, Stop};

/// The files to make, checked as far as possible before the work.
#[derive(Debug)]
pub(super) struct Plan {
    form: Form,
    out: PathBuf,
    files: FileOptions,
    strict: bool,
    limits: TreeLimits,
    budget: TreeBudget,
    #[cfg(feature = "ext4")]
    upper: Option<plyfold_ext4::Ext4Upper>,
}

/// The layers' images that a pull has left in the store, bottom first.
pub(super) fn artifacts(layers: &[PulledLayer]) -> Result<Vec<InputArtifact>> {
    let artifacts = layers.iter().map(|layer| {
        Some(InputArtifact::new("", Role::Image, layer.artifact.clone()?, layer.diff_id.clone()))
    });
    // An artifact, as opposed to an image, has layers that are no tars.
    artifacts
        .collect::<Option<_>>()
        .ok_or_else(|| Error::new(ErrorKind::Unsupported, "not an image: it holds no root file system"))
}

impl Plan {
    pub(super) fn new(rootfs: &Rootfs, out: &Path) -> Result<Self> {
        rootfs.files.check()?;
        Ok(Self {
            form: rootfs.form,
            out: out.to_owned(),
            files: rootfs.files,
            strict: rootfs.strict,
            limits: rootfs.limits.tree.clone(),
            budget: rootfs.budget.clone(),
            #[cfg(feature = "ext4")]
            upper: rootfs.upper.map(plyfold_ext4::Ext4Upper::new).transpose()?,
        })
    }

    /// Makes all files in another folder, then gives them their place.
    pub(super) fn compose(self, layers: &[InputArtifact], stop: &Stop) -> Result<Disks> {
        if layers.is_empty() {
            let error =
                Error::new(ErrorKind::Unsupported, "the image has no layers, and so no root file system");
            return Err(error.with_hint("an image that was made from scratch needs a layer of files first"));
        }
        let overlay_differences = if self.form == Form::ErofsLayers {
            self.overlay_differences(layers, stop)?
        } else {
            OverlayDifferences::default()
        };
        let needs_merged = self.form != Form::ErofsLayers || overlay_differences.count > 0;
        let mut set = Set::new(&self.out, self.files, stop)?;
        let digits = (layers.len() - 1).to_string().len().max(2);
        let names: Vec<_> = (0..layers.len()).map(|index| format!("layer-{index:0digits$}.erofs")).collect();
        let mut disks = Disks { overlay_differences, ..Disks::default() };
        for (layer, name) in layers.iter().zip(&names) {
            disks.layers.push(
                set.add(name, |file| file.fill_from(layer.artifact.path().unwrap_or(Path::new(""))))?.0,
            );
        }
        if needs_merged {
            let merged = set.add(MERGED, |file| self.merger(stop).join(layers, file).map(drop))?;
            #[cfg(feature = "vmdk")]
            if self.form == Form::Vmdk {
                let extents = extents(merged.1, layers, &names);
                let vmdk = set.add(VMDK, |file| {
                    plyfold_vmdk::Vmdk::new().join(&extents, &mut OneFile(Role::Descriptor, file)).map(drop)
                })?;
                disks.vmdk = Some(vmdk.0);
            }
            disks.merged = Some(merged.0);
        }
        #[cfg(feature = "ext4")]
        if let Some(upper) = &self.upper {
            let upper = upper.clone().root(root(&self.merger(stop), layers, set.folder())?)?;
            let upper = set.add_writable(UPPER, |file| {
                upper.join(&[], file)?;
                file.replaces_no_used_disk()
            })?;
            disks.upper = Some(upper.0);
        }
        set.publish()?;
        Ok(disks)
    }

    /// What merges layers, once: it gives its part of the shared memory back when it is dropped.
    fn merger(&self, stop: &Stop) -> ErofsMerged {
        let share = Some(self.budget.share_until(stop.flag()));
        ErofsMerged::default().with_limits(TreeLimits { share, ..self.limits.clone() })
    }

    /// What overlayfs would not show as it is.
    fn overlay_differences(&self, layers: &[InputArtifact], stop: &Stop) -> Result<OverlayDifferences> {
        #[cfg(feature = "ext4")]
        let stacked = self.upper.is_some();
        #[cfg(not(feature = "ext4"))]
        let stacked = false;
        let found = self.merger(stop).overlay_differences(layers, stacked)?;
        match found.examples.first() {
            Some(first) if self.strict => {
                let message = format!("overlayfs would not show the image as it is: {first}");
                let others = match found.count {
                    1 => String::new(),
                    count => format!(", and {} more names", count - 1),
                };
                Err(Error::new(ErrorKind::Unsupported, message + &others).with_advice(Advice::ChooseFormat {
                    words: "{} shows it as it is",
                    formats: vec!["erofs-merged"],
                }))
            }
            _ => Ok(found),
        }
    }
}

/// The root directory of the image: what the layers say of it together.
#[cfg(feature = "ext4")]
fn root(
    merger: &ErofsMerged,
    layers: &[InputArtifact],
    folder: &Path,
) -> Result<plyfold_core::layer::Metadata> {
    // Only metadata is merged and written; the file has no name and goes away with this function.
    let image = tempfile::tempfile_in(folder).map_err(|e| Error::io("creating a temporary file", e));
    let mut image = image.map_err(|e| e.with_context("path", folder.display()))?;
    merger.join(layers, &mut image)?;
    let plyfold_core::tree::Node { mode, uid, gid, mtime, xattrs, .. } =
        plyfold_erofs::Reader::new(image)?.root()?;
    Ok(plyfold_core::layer::Metadata { mode, uid, gid, mtime, xattrs: xattrs.to_vec() })
}

/// The parts of the one disk by their names beside the descriptor: the merged image refers to its layers by their
/// offset on it.
#[cfg(feature = "vmdk")]
fn extents(merged: u64, layers: &[InputArtifact], names: &[String]) -> Vec<InputArtifact> {
    let merged = LocalArtifact::new(MERGED.into(), merged, Made::default());
    let merged = InputArtifact::new(MERGED, Role::Image, Box::new(merged), None);
    let layers = layers.iter().zip(names).map(|(layer, name)| {
        InputArtifact::new(name, Role::Image, layer.artifact.clone(), layer.diff_id.clone())
    });
    std::iter::once(merged).chain(layers).collect()
}
