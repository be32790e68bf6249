//! Disks as the newest e2fsck sees them.

use std::fs::{self, File};

use plyfold_conformance::oracle::{Mount, Need, Run, Verdict};
use plyfold_ext4::{Ext4Rootfs, Ext4Upper, Journal, MIN_SIZE, resize};

use crate::common::{disk, smallest};
use crate::rootfs::{attributes_of_any_size, directories_of_any_size, every_kind_of_file};
use crate::{MIB, clean_by, root};

const E2FSCK: &str = "e2fsck-forky";

pub(crate) const NEWEST_E2FSCK: Need = Need::Peer(E2FSCK);

pub(crate) fn the_newest_e2fsck_finds_nothing_in_an_upper() -> Verdict {
    for size in [MIN_SIZE, 128 * MIB + 4096, 300 * MIB, 1 << 30, 1 << 40] {
        let upper = Ext4Upper::new(size)?;
        for upper in [upper.clone(), upper.clone().journal(false), upper.root(root(900))?] {
            clean_by(E2FSCK, &crate::disk(&upper)?)?;
        }
    }
    Ok(())
}

/// The smallest disk, and the same at each size that it is grown to.
pub(crate) fn the_newest_e2fsck_finds_nothing_in_an_image() -> Verdict {
    for layer in [every_kind_of_file(), directories_of_any_size(), attributes_of_any_size()] {
        for journal in [Journal::None, Journal::Auto] {
            let rootfs = Ext4Rootfs::new().journal(journal)?;
            let grown = smallest(std::slice::from_ref(&layer), &rootfs)?;
            clean_by(E2FSCK, &grown)?;
            for size in [256 * MIB - 4096, 3 << 30, 9 << 30, 1 << 40] {
                resize(&mut File::options().read(true).write(true).open(&grown)?, size)?;
                clean_by(E2FSCK, &grown)?;
            }
        }
    }
    Ok(())
}

/// After the kernel has written to it.
pub(crate) fn the_newest_e2fsck_finds_nothing_in_a_used_disk() -> Verdict {
    let layer = attributes_of_any_size();
    let disk = disk(&[layer], &Ext4Rootfs::new().size(1 << 30)?)?;
    let mount = Mount::new("ext4", &*disk, "loop")?;
    for number in 0..200 {
        fs::write(mount.path().join(format!("new-{number}")), vec![7; 100_000])?;
        fs::remove_file(mount.path().join(format!("shared/{number}")))?;
    }
    mount.unmount()?;
    Run::new(E2FSCK).arg("-fn").arg(&*disk).success()?;
    Ok(())
}
