//! From finished artifacts to a set of files that appears whole.

use std::path::{Path, PathBuf};

use plyfold_core::{Error, MadeFile, MadeImage, Result, Role};
use plyfold_erofs::OverlayDifferences;

use super::set::Set;
#[cfg(feature = "ext4")]
use super::set::UPPER;
use super::{Disk, Disks, LAYERS, MERGED, Rootfs, STACKABLE, VMDK};
use crate::atomic_file::FileOptions;
use crate::blocking::Stop;

/// The files to make, checked as far as possible before the work.
#[derive(Debug)]
pub(super) struct Plan {
    out: PathBuf,
    files: FileOptions,
    #[cfg(feature = "ext4")]
    upper: Option<plyfold_ext4::Ext4Upper>,
}

impl Plan {
    pub(super) fn new(rootfs: &Rootfs, out: &Path) -> Result<Self> {
        rootfs.files.check()?;
        let name = rootfs.format.format().name;
        if rootfs.upper.is_some() && !STACKABLE.contains(&name) {
            let message = format!("{name} has no upper: overlayfs stacks EROFS images");
            return Err(
                Error::config(message).with_hint(format!("an upper goes with {}", STACKABLE.join(", ")))
            );
        }
        Ok(Self {
            out: out.to_owned(),
            files: rootfs.files,
            #[cfg(feature = "ext4")]
            upper: rootfs.upper.map(plyfold_ext4::Ext4Upper::new).transpose()?,
        })
    }

    /// Puts all files into another folder, then gives them their place. The root directory is that of `merged`.
    pub(super) fn compose(
        self,
        made: &MadeImage,
        merged: &MadeImage,
        overlay_differences: OverlayDifferences,
        stop: &Stop,
    ) -> Result<Disks> {
        let mut set = Set::new(&self.out, self.files, stop)?;
        let mut disks = Disks { overlay_differences, kernel: made.made.kernel, ..Disks::default() };
        disks.notes.clone_from(&made.made.notes);
        set.declare(made.files.iter().map(|file| file.name.as_str()))?;
        for file in in_order(&made.files) {
            if is_upper_link(file, &made.files) {
                set.refers(&file.name);
            }
            let (path, size) = set.add(&file.name, |out| out.fill_from_artifact(&*file.artifact))?;
            match file.format.name {
                LAYERS => disks.layers.push(path.clone()),
                MERGED => disks.merged = Some(path.clone()),
                VMDK => disks.vmdk = Some(path.clone()),
                _ => {}
            }
            disks.files.push(Disk { path, role: file.role, format: file.format.name.to_owned(), size });
        }
        #[cfg(feature = "ext4")]
        if let Some(upper) = self.upper {
            self::upper(upper, merged, &mut set, &mut disks)?;
        }
        #[cfg(not(feature = "ext4"))]
        let _ = (merged, Role::Image);
        set.publish()?;
        Ok(disks)
    }
}

/// What is made from others comes behind them.
fn in_order(files: &[MadeFile]) -> impl Iterator<Item = &MadeFile> {
    let (links, lowest): (Vec<_>, Vec<_>) = files.iter().partition(|file| is_upper_link(file, files));
    lowest.into_iter().chain(links.into_iter().rev())
}

/// Whether a file is made from others of the set.
fn is_upper_link(file: &MadeFile, files: &[MadeFile]) -> bool {
    files.last().is_some_and(|lowest| lowest.format.name != file.format.name)
}

/// Adds the upper.
#[cfg(feature = "ext4")]
fn upper(
    upper: plyfold_ext4::Ext4Upper,
    merged: &MadeImage,
    set: &mut Set<'_>,
    disks: &mut Disks,
) -> Result<()> {
    use plyfold_core::Materializer as _;

    let upper = upper.root(root(merged)?)?;
    let (path, size) = set.add_writable(UPPER, |file| {
        upper.join(&[], file)?;
        file.replaces_no_used_disk()
    })?;
    disks.upper = Some(path.clone());
    disks.files.push(Disk { path, role: Role::Image, format: upper.format().name.to_owned(), size });
    Ok(())
}

/// The root directory of the image: what the layers say of it together.
#[cfg(feature = "ext4")]
fn root(image: &MadeImage) -> Result<plyfold_core::layer::Metadata> {
    let merged = image.files.iter().find(|file| file.format.name == MERGED);
    let merged = merged.ok_or_else(|| {
        Error::new(plyfold_core::ErrorKind::Internal, "there is no merged image to read the root from")
    })?;
    let image = plyfold_core::ArtifactReader::open(&*merged.artifact)?;
    let plyfold_core::tree::Node { mode, uid, gid, mtime, xattrs, .. } =
        plyfold_erofs::Reader::new(image)?.root()?;
    Ok(plyfold_core::layer::Metadata { mode, uid, gid, mtime, xattrs: xattrs.to_vec() })
}
