//! Which files in an output folder are those of a set.
//!
//! Files of an older set are removed, so a name belongs to one only when that is certain. Those of layers, with and without
//! `.dmverity`, and the constants below do where the record of the older set has them, all others when the older set has
//! listed them. A format may be called anything, such as `rootfs.tar`, and a file of that name may be the user's; so may a
//! `layer-00.erofs` or a `merged.erofs` of another tool.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use plyfold_core::manifest::limits;
use plyfold_core::snapshot::{RECORD, SetRecord};

use crate::regular_file;

pub(in super::super) const MERGED: &str = "merged.erofs";
pub(in super::super) const UPPER: &str = "upper.ext4";
const ROOTFS: &str = "rootfs.ext4";
pub(in super::super) const VMDK: &str = "rootfs.vmdk";
/// Disks that guests write to. They stay where a new set has none in their place.
pub(super) const WRITTEN: [&str; 2] = [ROOTFS, UPPER];
/// The file that lists the further names of a set, one a line, behind the number of its own inode: one that came with a
/// folder, from an archive or a repository, may list what is the user's. It is written only when there are such names.
pub(super) const LIST: &str = ".plyfold-set";

/// A list that is longer was not written here: 10,000 layers take 160 KiB.
const LONGEST: u64 = 1 << 20;

/// The names that a set has listed and recorded.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct SetNames {
    listed: BTreeSet<String>,
    known: Known,
}

/// Which of the names that sets have without a list are those of the set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
enum Known {
    /// Those that the record has.
    Recorded(BTreeSet<String>),
    /// All of them.
    #[default]
    All,
}

impl SetNames {
    /// What the list and the record of an older set in a folder say; nothing where there is neither.
    pub(super) fn listed_in(folder: &Path) -> Self {
        Self { known: Known::in_folder(folder), ..Self::waiting_in(folder) }
    }

    /// The same in a folder of our own, in which files wait: nothing else has these names there.
    pub(super) fn waiting_in(folder: &Path) -> Self {
        Self::read(folder).map_or_else(Self::default, |names| Self::of(names.lines()))
    }

    /// The names of a list that was written in this place.
    fn read(folder: &Path) -> Option<String> {
        let list = regular_file::open(folder, LIST).ok()??;
        let inode = list.metadata().ok()?.ino();
        let mut text = String::new();
        list.take(LONGEST + 1).read_to_string(&mut text).ok()?;
        let (first, names) = text.split_once('\n').filter(|_| text.len() as u64 <= LONGEST)?;
        (first == inode.to_string()).then(|| names.to_owned())
    }

    /// Those of the names that have to be listed. What no set can have, such as `../a`, is left out.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let others = names.into_iter().filter(|name| is_name(name) && !is_known(name));
        Self { listed: others.map(str::to_owned).collect(), known: Known::All }
    }

    /// Whether a name is one of the set.
    pub(super) fn has(&self, name: &OsStr) -> bool {
        name.to_str()
            .is_some_and(|name| tells(OsStr::new(name)) || self.known.has(name) || self.listed.contains(name))
    }

    /// Whether no list is needed.
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// The list as it is written to a file of this inode.
    pub(super) fn list(&self, inode: u64) -> String {
        let lines: String = self.listed.iter().flat_map(|name| [name, "\n"]).collect();
        format!("{inode}\n{lines}")
    }
}

impl Known {
    fn in_folder(folder: &Path) -> Self {
        let Ok(Some(record)) = regular_file::open(folder, RECORD) else {
            return Self::Recorded(BTreeSet::new());
        };
        let mut bytes = Vec::new();
        let read = record.take(limits::CONFIG + 1).read_to_end(&mut bytes);
        match read.map_err(Into::into).and_then(|_| SetRecord::parse(&bytes)) {
            Ok(record) => Self::Recorded(record.files.into_iter().map(|file| file.name).collect()),
            // That of another version: there is a set, but which files are its own is not known.
            Err(_) => Self::All,
        }
    }

    /// Whether a name is one of the set. Disks that guests write to are not in the record of a set that came later; what was
    /// written to is kept in any case.
    fn has(&self, name: &str) -> bool {
        is_known(name)
            && match self {
                Self::Recorded(names) => names.contains(name) || WRITTEN.contains(&name),
                Self::All => true,
            }
    }
}

/// Disks of an older set in a folder that guests may have written to: those whose names are not `is_of_set`.
pub(in super::super) fn left_in(
    folder: &Path,
    is_of_set: impl Fn(&str) -> bool,
) -> impl Iterator<Item = PathBuf> {
    let left = WRITTEN.into_iter().filter(move |name| !is_of_set(name)).map(|name| folder.join(name));
    left.filter(|path| path.symlink_metadata().is_ok())
}

/// Whether it is the name of a file that says which files are the set's.
pub(super) fn tells(name: &OsStr) -> bool {
    name == LIST || name == RECORD
}

/// Names that a set has without a list: `layer-NUMBER.erofs`, `layer-NUMBER.erofs.dmverity` and the constants.
fn is_known(name: &str) -> bool {
    let layer = name.strip_suffix(".dmverity").unwrap_or(name);
    let number = layer.strip_prefix("layer-").and_then(|rest| rest.strip_suffix(".erofs"));
    let is_layer =
        number.is_some_and(|digits| digits.len() >= 2 && digits.bytes().all(|c| c.is_ascii_digit()));
    is_layer || WRITTEN.contains(&name) || [MERGED, VMDK].contains(&name)
}

/// Whether it is `STEM.EXTENSION` as formats name their files.
fn is_name(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    name.split_once('.').is_some_and(|(stem, extension)| plain(stem) && plain(extension))
}
