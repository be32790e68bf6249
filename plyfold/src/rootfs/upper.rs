//! The empty ext4 disk beside EROFS images.

use plyfold_core::layer::Metadata;
use plyfold_core::tree::Node;
use plyfold_core::{ArtifactReader, Error, ErrorKind, MadeImage, Materializer as _, Result, Role};
use plyfold_erofs::Reader;
use plyfold_ext4::Ext4Upper;

use super::disks::{Disk, Disks};
use super::options::MERGED;
use super::set::names::UPPER;
use super::set::{Purpose, Set};

/// Adds the upper, whose root is that of `merged`.
pub(super) fn add(upper: Ext4Upper, merged: &MadeImage, set: &mut Set<'_>, disks: &mut Disks) -> Result<()> {
    let upper = upper.root(root(merged)?)?;
    let (path, size) = set.add(UPPER, Purpose::Write, |file| {
        upper.join(&[], file)?;
        file.replaces_no_used_disk()
    })?;
    disks.upper = Some(path.clone());
    disks.files.push(Disk { path, role: Role::Image, format: upper.format().name.to_owned(), size });
    Ok(())
}

/// The root directory of the image: what the layers say of it together.
fn root(image: &MadeImage) -> Result<Metadata> {
    let merged = image.files.iter().find(|file| file.format.name == MERGED);
    let merged = merged
        .ok_or_else(|| Error::new(ErrorKind::Internal, "there is no merged image to read the root from"))?;
    let image = ArtifactReader::open(&*merged.artifact)?;
    let Node { mode, uid, gid, mtime, xattrs, .. } = Reader::new(image)?.root()?;
    Ok(Metadata { mode, uid, gid, mtime, xattrs: xattrs.to_vec() })
}
