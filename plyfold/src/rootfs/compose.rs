//! From layer images in the store to a set of files that appears whole.

use std::path::{Path, PathBuf};

use plyfold_core::{Error, ErrorKind, LayerArtifact, Materializer as _, PullResult, Result};
use plyfold_erofs::ErofsMerged;

use super::directory::Directory;
use super::{Disks, Form, Rootfs};
use crate::whole::{Stop, WholeFile};

/// What is to be made, checked as far as it can be before the work.
#[derive(Debug)]
pub(super) struct Plan {
    form: Form,
    out: PathBuf,
    #[cfg(feature = "ext4")]
    upper: Option<plyfold_ext4::Ext4Upper>,
}

/// The layers' images that a pull has left in the store, bottom first.
pub(super) fn artifacts(pulled: &PullResult) -> Result<Vec<LayerArtifact>> {
    let artifacts = pulled.layers.iter().map(|layer| {
        let (path, size) = layer.artifact.clone()?;
        Some(LayerArtifact { path, size, diff_id: layer.diff_id.clone() })
    });
    // An artifact, as opposed to an image, has layers that are no tars.
    artifacts.collect::<Option<_>>().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "not an image: it holds no root file system")
            .with_image(&pulled.reference)
    })
}

impl Plan {
    #[cfg_attr(
        not(feature = "ext4"),
        expect(clippy::unnecessary_wraps, reason = "nothing but an upper can be wrong")
    )]
    pub(super) fn new(rootfs: &Rootfs, out: &Path) -> Result<Self> {
        Ok(Self {
            form: rootfs.form,
            out: out.to_owned(),
            #[cfg(feature = "ext4")]
            upper: rootfs.upper.map(plyfold_ext4::Ext4Upper::new).transpose()?,
        })
    }

    /// Makes all files under other names, then gives them theirs.
    pub(super) fn compose(self, layers: &[LayerArtifact], stop: &Stop) -> Result<Disks> {
        if layers.is_empty() {
            let error =
                Error::new(ErrorKind::Unsupported, "the image has no layers, and so no root file system");
            return Err(error.with_hint("an image that was made from scratch needs a layer of files first"));
        }
        let directory = Directory::at(&self.out)?;
        let mut set = Set { out: &self.out, stop, files: Vec::new() };
        let digits = (layers.len() - 1).to_string().len().max(2);
        let names: Vec<_> = (0..layers.len()).map(|index| format!("layer-{index:0digits$}.erofs")).collect();
        let mut disks = Disks::default();
        for (layer, name) in layers.iter().zip(&names) {
            let path = set.add(name, |file| file.fill_from(&layer.path))?;
            disks.layers.push(path);
        }
        if self.form != Form::ErofsLayers {
            disks.merged = Some(set.add(MERGED, |file| ErofsMerged::default().image(layers, file))?);
        }
        #[cfg(feature = "vmdk")]
        if self.form == Form::Vmdk {
            let extents = extents(set.last_size()?, layers, &names);
            disks.vmdk =
                Some(set.add("rootfs.vmdk", |file| plyfold_vmdk::Vmdk::new().image(&extents, file))?);
        }
        #[cfg(feature = "ext4")]
        if let Some(upper) = self.upper {
            let upper = upper.root(set.root(layers)?)?;
            disks.upper = Some(set.add(UPPER, |file| {
                upper.image(&[], file)?;
                file.replaces_no_used_disk()
            })?);
        }
        set.publish()?;
        directory.keep();
        Ok(disks)
    }
}

/// Files that appear together.
struct Set<'a> {
    out: &'a Path,
    stop: &'a Stop,
    files: Vec<WholeFile>,
}

impl Set<'_> {
    /// Adds a file, and yields the path that it will have.
    fn add(&mut self, name: &str, content: impl FnOnce(&mut WholeFile) -> Result<()>) -> Result<PathBuf> {
        self.stop.check()?;
        let target = self.out.join(name);
        let mut file = WholeFile::create(&target, self.stop)?;
        content(&mut file).map_err(|e| e.with_context("path", target.display()))?;
        self.files.push(file);
        Ok(target)
    }

    /// The size of the file that was added last.
    #[cfg(feature = "vmdk")]
    fn last_size(&self) -> Result<u64> {
        self.files.last().map_or(Ok(0), WholeFile::size)
    }

    /// The root directory of the image: what the layers say of it together.
    #[cfg(feature = "ext4")]
    fn root(&self, layers: &[LayerArtifact]) -> Result<plyfold_core::layer::Metadata> {
        // Only metadata is merged and written; the file has no name and goes away with this function.
        let merged = tempfile::tempfile_in(self.out).map_err(|e| Error::io("creating a temporary file", e));
        let mut merged = merged.map_err(|e| e.with_context("path", self.out.display()))?;
        ErofsMerged::default().image(layers, &mut merged)?;
        let plyfold_core::tree::Node { mode, uid, gid, mtime, xattrs, .. } =
            plyfold_erofs::Reader::new(merged)?.root()?;
        Ok(plyfold_core::layer::Metadata { mode, uid, gid, mtime, xattrs: xattrs.to_vec() })
    }

    /// Gives all files their names, or none.
    fn publish(self) -> Result<()> {
        let mut published = Vec::with_capacity(self.files.len());
        for file in self.files {
            let target = file.target().to_owned();
            if let Err(e) = file.publish() {
                for path in published {
                    // The first error is the one to tell.
                    let _ = std::fs::remove_file(path);
                }
                return Err(e);
            }
            published.push(target);
        }
        Ok(())
    }
}

const MERGED: &str = "merged.erofs";
#[cfg(feature = "ext4")]
const UPPER: &str = "upper.ext4";

/// The parts of the one disk by their names beside the descriptor: the merged image knows its layers by their
/// place on it.
#[cfg(feature = "vmdk")]
fn extents(merged: u64, layers: &[LayerArtifact], names: &[String]) -> Vec<LayerArtifact> {
    let merged = LayerArtifact { path: MERGED.into(), size: merged, diff_id: None };
    let layers =
        layers.iter().zip(names).map(|(layer, name)| LayerArtifact { path: name.into(), ..layer.clone() });
    std::iter::once(merged).chain(layers).collect()
}
