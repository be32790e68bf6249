//! The empty ext4 disk beside EROFS images.

use plyfold_core::{MadeImage, Materializer as _, Result, Role};
use plyfold_erofs::ErofsMerged;
use plyfold_ext4::Ext4Upper;

use super::disks::{Disk, Disks};
use super::overlay::layers;
use super::set::names::UPPER;
use super::set::{Purpose, Set};

/// Adds the upper, whose root is that of the image.
pub(super) fn add(upper: Ext4Upper, made: &MadeImage, set: &mut Set<'_>, disks: &mut Disks) -> Result<()> {
    let upper = upper.root(ErofsMerged::root(&layers(made))?)?;
    let (path, size) = set.add(UPPER, Purpose::Write, |file| {
        upper.join(&[], file)?;
        file.replaces_no_used_disk()
    })?;
    disks.upper = Some(path.clone());
    disks.files.push(Disk { path, role: Role::Image, format: upper.format().name.to_owned(), size });
    Ok(())
}
