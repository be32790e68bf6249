//! The descriptor as a value: written by `Display`, read by [`Descriptor::parse`].

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use plyfold_core::{Beneath, Digest, Error, Irregular, Result};

/// Bytes of a sector, the unit of every size and offset in a descriptor.
pub const SECTOR: u64 = 512;

/// The longest descriptor in bytes: qemu reads no more.
pub const MAX_DESCRIPTOR: usize = (1 << 20) - 1;

/// The longest path in bytes: qemu reads no more.
const MAX_PATH: usize = 511;

/// The CID that stands for "no parent".
const NO_PARENT: &str = "ffffffff";

/// The key of the file of a parent, which some readers open whatever the CID says, and wherever in the text it stands.
pub(crate) const PARENT: &str = "parentFileNameHint";

/// The most sectors of a disk: its bytes fit into a signed 64-bit file offset.
const MAX_SECTORS: u64 = i64::MAX as u64 / SECTOR;
/// The most sectors of an extent, and in front of it in its file: the file's bytes are no more than a disk's.
const MOST: u64 = MAX_SECTORS / 2;

/// A flat disk without a parent: its content identity and its extents.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Descriptor {
    cid: u32,
    extents: Vec<Extent>,
}

/// A run of sectors of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Extent {
    path: String,
    sectors: u64,
    offset: u64,
}

impl Descriptor {
    /// Joins `extents`. `cid` is the identity of the content; all its bits set would mean that there is none.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for no extent, [`Limit`](plyfold_core::ErrorKind::Limit) for
    /// more than 2^63 bytes of disk or [`MAX_DESCRIPTOR`] bytes of text.
    pub fn new(cid: u32, extents: Vec<Extent>) -> Result<Self> {
        if extents.is_empty() {
            return Err(Error::config("a VMDK needs at least one extent"));
        }
        let sectors = extents.iter().try_fold(0_u64, |sum, extent| sum.checked_add(extent.sectors));
        if sectors.is_none_or(|sectors| sectors > MAX_SECTORS) {
            return Err(Error::limit("a VMDK disk is at most 2^63 bytes"));
        }
        let descriptor = Self { cid, extents };
        let length = descriptor.to_string().len();
        if length > MAX_DESCRIPTOR {
            return Err(Error::limit(format!(
                "a VMDK descriptor of {length} bytes is cut off at 1 MiB by qemu"
            ))
            .with_hint("join fewer or shorter-named files"));
        }
        Ok(descriptor)
    }

    /// Reads a descriptor.
    ///
    /// Strict where readers differ: what one of them would skip or take for something else is an error.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for text that is no descriptor, and for one with control characters or an
    /// empty line in front of an extent, [`Limit`](plyfold_core::ErrorKind::Limit) as for writing,
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for extents other than `RW … FLAT`, for disks with a
    /// parent, and for a path that goes up by `..`.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_DESCRIPTOR {
            return Err(Error::limit(format!("a VMDK descriptor is longer than {MAX_DESCRIPTOR} bytes")));
        }
        // The file of a disk below for some readers, wherever it stands.
        if text.contains(PARENT) {
            return Err(Error::unsupported("the VMDK names a parent disk"));
        }
        let (mut version, mut cid, mut parent) = (None, None, None);
        let mut extents = Vec::new();
        let mut is_behind_empty = false;
        for line in text.lines() {
            // QEMU separates words at any of them.
            if line.contains(|c: char| c.is_control() && c != '\t') {
                return Err(malformed(line));
            }
            let line = line.trim_ascii();
            // QEMU skips empty lines to the next word, and takes an extent behind one twice.
            let is_twice = std::mem::replace(&mut is_behind_empty, line.is_empty()) && is_extent(line);
            if is_twice {
                return Err(Error::corrupt("an empty line is in front of an extent of the VMDK descriptor")
                    .with_hint("qemu would take the extent twice"));
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if is_extent(line) {
                extents.push(Extent::parse(line)?);
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| malformed(line))?;
            let field = match key.trim_ascii_end() {
                "version" => &mut version,
                "CID" => &mut cid,
                "parentCID" => &mut parent,
                _ => continue,
            };
            if field.replace(value.trim_ascii_start()).is_some() {
                return Err(malformed(line));
            }
        }
        if !matches!(version, Some("1" | "2" | "3")) {
            return Err(Error::corrupt("the VMDK descriptor has no version 1 to 3"));
        }
        if parent.is_some_and(|parent| parent != NO_PARENT) {
            return Err(Error::unsupported("the VMDK has a parent disk"));
        }
        let cid = cid.and_then(|cid| u32::from_str_radix(cid, 16).ok());
        let cid = cid.ok_or_else(|| Error::corrupt("the VMDK descriptor has no CID"))?;
        if extents.is_empty() {
            return Err(Error::corrupt("the VMDK descriptor has no extents"));
        }
        Self::new(cid, extents)
    }

    /// The identity of the disk's content.
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// The extents in the order of the disk.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.sectors() * SECTOR
    }

    fn sectors(&self) -> u64 {
        self.extents.iter().map(|extent| extent.sectors).sum()
    }

    /// Checks that each file exists and reaches to the end of its extent; `folder` is the descriptor's.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for a file that is too short: readers show zeros in its
    /// place. [`NotFound`](plyfold_core::ErrorKind::NotFound) for one that is missing; those of [`Extent::file_size`].
    pub fn check(&self, folder: &Path) -> Result<()> {
        self.check_in(&beneath(folder)?)
    }

    pub(crate) fn check_in(&self, folder: &Beneath) -> Result<()> {
        for extent in &self.extents {
            let length = extent.file_size(folder)?.ok_or_else(|| extent.missing())?;
            let needed = extent.start() + extent.size();
            if length < needed {
                return Err(Error::corrupt(format!(
                    "a file of the VMDK has {length} bytes instead of {needed}"
                ))
                .with_context("file", &extent.path));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Descriptor {
    /// The descriptor's text (VMware, "Virtual Disk Format 5.0", "The Layout Basics").
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // IDE's geometry, which only old firmware uses.
        let (heads, sectors) = (16, 63);
        let cylinders = (self.sectors() / (heads * sectors)).clamp(1, 16383);
        writeln!(f, "# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID={NO_PARENT}", self.cid)?;
        writeln!(f, "createType=\"twoGbMaxExtentFlat\"\n\n# Extent description")?;
        self.extents.iter().try_for_each(|extent| writeln!(f, "{extent}"))?;
        writeln!(f, "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"")?;
        writeln!(f, "ddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"{heads}\"")?;
        writeln!(f, "ddb.geometry.sectors = \"{sectors}\"\nddb.adapterType = \"ide\"")
    }
}

impl Extent {
    /// `sectors` of the file at the path `text`, from its sector `offset` on.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a path that does not mean the same file to every reader, and for no
    /// sectors; [`Limit`](plyfold_core::ErrorKind::Limit) for 2^62 bytes or more, or so many in front of them.
    pub fn new(text: &str, sectors: u64, offset: u64) -> Result<Self> {
        let Some(why) = fault(text) else {
            // Qemu takes no such extent for one.
            if sectors == 0 {
                return Err(Error::config(
                    "a VMDK cannot name this file: none of it would be part of the disk",
                )
                .with_context("path", text));
            }
            if sectors > MOST || offset > MOST {
                return Err(Error::limit(format!(
                    "a VMDK cannot name {sectors} sectors from sector {offset} on: at most {MOST} from {MOST} on"
                ))
                .with_context("path", text));
            }
            return Ok(Self { path: text.to_owned(), sectors, offset });
        };
        Err(Error::config(format!("a VMDK cannot name this file: its path {why}"))
            .with_context("path", text)
            .with_hint(
                "use a short path relative to the descriptor, without `..`, quotes, colons and control characters",
            ))
    }

    /// `RW SECTORS FLAT "PATH" OFFSET`
    fn parse(line: &str) -> Result<Self> {
        let (head, rest) = line.split_once('"').unwrap_or((line, ""));
        // QEMU takes a quote for a part of the word that it touches.
        if !head.ends_with([' ', '\t']) && !rest.is_empty() {
            return Err(malformed(line));
        }
        let head: Vec<_> = head.split_ascii_whitespace().collect();
        let &["RW", sectors, "FLAT"] = head.as_slice() else {
            return Err(Error::unsupported(format!("a VMDK extent that is not RW and FLAT: {line:?}"))
                .with_hint("qemu would leave it out and show a shorter disk"));
        };
        let (path, offset) = rest.split_once('"').ok_or_else(|| malformed(line))?;
        if leaves(path) {
            return Err(Error::unsupported("the VMDK names a file outside of its folder")
                .with_context("path", path)
                .with_hint("put the files of the disk beside its descriptor"));
        }
        match (sectors.parse(), offset.trim_ascii().parse()) {
            (Ok(sectors), Ok(offset)) => Self::new(path, sectors, offset).map_err(|_| malformed(line)),
            _ => Err(malformed(line)),
        }
    }

    /// The file, relative to the descriptor's folder, and within it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The bytes of the file in the descriptor's folder; `None` when there is none.
    ///
    /// # Errors
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for what is no regular file, or behind a symbolic link: it may be
    /// a file outside of the folder. [`Io`](plyfold_core::ErrorKind::Io) for a file that cannot be looked at.
    pub fn file_size(&self, folder: &Beneath) -> Result<Option<u64>> {
        folder.size(self.path.as_ref()).map_err(|e| self.failed("looking at", e))
    }

    /// The file, as [`file_size`](Self::file_size) finds it.
    pub(crate) fn open(&self, folder: &Beneath) -> Result<File> {
        let file = folder.open(self.path.as_ref()).map_err(|e| self.failed("opening", e))?;
        file.ok_or_else(|| self.missing())
    }

    fn missing(&self) -> Error {
        let error = Error::not_found("a file of the VMDK is missing").with_context("file", &self.path);
        error.with_hint("bring it back beside the descriptor, which names it")
    }

    fn failed(&self, action: &str, error: io::Error) -> Error {
        let error = match Irregular::of(&error) {
            Some(why) => Error::unsupported(format!("a file of the VMDK is not read: {why}"))
                .with_hint("put the files of the disk beside its descriptor, as copies or hard links"),
            None => Error::io(format!("{action} a file of the VMDK"), error),
        };
        error.with_context("file", &self.path)
    }

    /// How many bytes of the file are part of the disk.
    pub fn size(&self) -> u64 {
        self.sectors * SECTOR
    }

    /// The first of them in the file.
    pub fn start(&self) -> u64 {
        self.offset * SECTOR
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RW {} FLAT \"{}\" {}", self.sectors, self.path, self.offset)
    }
}

/// The folder of a descriptor.
pub(crate) fn beneath(folder: &Path) -> Result<Beneath> {
    let opened = Beneath::new(folder);
    opened.map_err(|e| Error::io("opening the folder of a VMDK", e).with_context("path", folder.display()))
}

/// Whether a line describes an extent of any kind: it begins with an access mode.
fn is_extent(line: &str) -> bool {
    matches!(line.split_ascii_whitespace().next(), Some("RW" | "RDONLY" | "NOACCESS"))
}

/// Why a path cannot stand in a descriptor, as the end of "its path …".
fn fault(path: &str) -> Option<&'static str> {
    let (first, _) = path.split_once('/').unwrap_or((path, ""));
    let faults = [
        (path.is_empty(), "is empty"),
        (path.len() > MAX_PATH, "is longer than 511 bytes"),
        (path.starts_with('/'), "is absolute"),
        (leaves(path), "goes up by .."),
        (path.contains('"'), "has a quote"),
        (path.contains(char::is_control), "has a control character"),
        (first.contains(':'), "begins like a protocol, with a colon"),
    ];
    faults.into_iter().find_map(|(is_so, fault)| is_so.then_some(fault))
}

/// Whether a path may lead out of its folder. One that comes back is refused, too: by symbolic links `a/..` is elsewhere.
fn leaves(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// The identity of content by its digest, in 31 bits: values with the upper bit set include `ffffffff`, "no parent".
pub(crate) fn cid_of(content: &Digest) -> u32 {
    let start = content.digest().get(..8).unwrap_or_default();
    u32::from_str_radix(start, 16).unwrap_or_default() & 0x7fff_ffff
}

fn malformed(line: &str) -> Error {
    let shown: String = line.chars().take(80).collect();
    Error::corrupt(format!("not a line of a VMDK descriptor: {shown:?}"))
}
