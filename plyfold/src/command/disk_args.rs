//! The options of the verbs that make and change single disks.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::layer::ImagePath;
use crate::materializers::verity::{RootHash, Uuid};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{ArgGroup, Args as Group};
use uuid::Uuid as ImageUuid;

use super::bounds::Bounds;
use super::written_files::Durably;
use super::{hints, plugins, size};

/// Options of `disk`.
#[derive(Debug, Group)]
pub(crate) struct Disk {
    /// The disk's size, such as 512M, 8G or 1TiB
    #[arg(long, value_parser = disk_size)]
    pub(crate) size: u64,
    /// The file to write
    #[arg(long, value_name = "FILE.ext4", value_parser = file)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) durably: Durably,
}

/// Options of `patch`.
#[derive(Debug, Group)]
#[command(group = ArgGroup::new("changes").required(true).multiple(true).args(["tar", "remove", "add"]))]
pub(crate) struct Patch {
    /// The file with the image: one of the whole root file system, such as of `materialize --as erofs`
    pub(crate) file: PathBuf,
    /// A tar of changes, plain or compressed by gzip or zstd; - is standard input; may be given several times
    #[arg(long)]
    pub(crate) tar: Vec<PathBuf>,
    /// A file or a directory in the image that is to go; may be given several times
    #[arg(long, value_name = "PATH", value_parser = OsStringValueParser::new().try_map(|path| removed(&path)))]
    pub(crate) remove: Vec<ImagePath>,
    /// A file of this machine, and where it is to be in the image; may be given several times
    #[arg(long, value_name = "PATH=FILE", value_parser = OsStringValueParser::new().try_map(|pair| added(&pair)))]
    pub(crate) add: Vec<Added>,
    /// The UUID of the image [default: one derived from the old one and from the changes]
    #[arg(long, value_parser = image_uuid)]
    pub(crate) uuid: Option<ImageUuid>,
    /// Do not wait until it is on the disk: a power cut soon afterwards may leave neither image
    #[arg(long)]
    pub(crate) no_sync: bool,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
}

/// A file of the host, and where it is to be in the image.
#[derive(Clone, Debug)]
pub(crate) struct Added {
    pub(crate) path: ImagePath,
    pub(crate) file: PathBuf,
}

/// Options of `resize`.
#[derive(Debug, Group)]
pub(crate) struct Resize {
    /// The file with the disk
    pub(crate) file: PathBuf,
    /// The size that it gets, such as 20G or 1TiB
    #[arg(value_parser = disk_size)]
    pub(crate) size: u64,
    /// Do not wait until it is on the disk
    #[arg(long)]
    pub(crate) no_sync: bool,
}

/// Options of `verity`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Group)]
pub(crate) struct Verity {
    /// A file that is to be a read-only block device, such as an EROFS image; with --as, an image
    #[arg(value_name = "FILE|IMAGE")]
    pub(crate) file: PathBuf,
    /// Show the root hashes of an image in this format, which is pulled if it is not in the store
    #[arg(
        long = "as",
        value_name = "FORMAT",
        value_parser = plugins::formats_named(),
        conflicts_with_all = [
            "hash_tree", "append", "sidecar", "check", "roots", "salt", "data_block_size", "hash_block_size", "uuid",
            "no_superblock",
        ]
    )]
    pub(crate) format: Option<String>,
    /// An option of the format, such as block-size=512; may be given several times; `formats` lists them [default: verity=append]
    #[arg(short = 'm', long = "format-option", value_name = "KEY=VALUE", requires = "format")]
    pub(crate) format_option: Vec<String>,
    /// Write the root hashes to this file, which must not be there, in place of showing them
    #[arg(long, value_name = "FILE.json", requires = "format", value_parser = file)]
    pub(crate) out: Option<PathBuf>,
    /// Keep the root hashes in the store as a referrer of the image, which `push --referrers` pushes with it
    #[arg(long, requires = "format", conflicts_with = "out")]
    pub(crate) attach: bool,
    /// The file to write the tree to; it must not be there. With --check, the file to read it from
    #[arg(long, value_name = "FILE", conflicts_with = "append", value_parser = file)]
    pub(crate) hash_tree: Option<PathBuf>,
    /// Put the tree behind the data, in the same file: a clone or a copy with the tree takes its place
    #[arg(long)]
    pub(crate) append: bool,
    /// Write FILE.dmverity, too, where containerd reads the root hash
    #[arg(long, requires = "append", conflicts_with_all = ["check", "no_superblock"])]
    pub(crate) sidecar: bool,
    /// Verify the file, or the disk of a VMDK, against this root hash, in place of making a tree; without --hash-tree by
    /// the tree that it ends with, if it has one. Of a disk with partitions give that of each, or NAME=ROOT for some
    #[arg(long, value_name = "[NAME=]ROOT", value_parser = expected)]
    pub(crate) check: Vec<Expected>,
    /// The same with the root hashes of a document, which `verity IMAGE --as FORMAT` writes
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["check", "sidecar", "uuid", "no_superblock"])]
    pub(crate) roots: Option<PathBuf>,
    /// What is hashed in front of every block, in hexadecimal digits; - is nothing [default: 32 zero bytes]
    #[arg(long, value_name = "HEX")]
    pub(crate) salt: Option<String>,
    /// The bytes of data that each digest is of: 512, 1024, 2048 or 4096 [default: 4096]
    #[arg(long, value_name = "BYTES")]
    pub(crate) data_block_size: Option<u32>,
    /// The bytes of each block of the tree: 512, 1024, 2048 or 4096 [default: 4096]
    #[arg(long, value_name = "BYTES")]
    pub(crate) hash_block_size: Option<u32>,
    /// The UUID in the superblock [default: one derived from the root hash]
    #[arg(long, conflicts_with_all = ["check", "no_superblock"], value_parser = uuid)]
    pub(crate) uuid: Option<Uuid>,
    /// Write no superblock, or expect none
    #[arg(long)]
    pub(crate) no_superblock: bool,
    #[command(flatten)]
    pub(crate) durably: Durably,
}

pub(super) fn disk_size(text: &str) -> Result<u64, String> {
    size::parse(text).map_err(|why| format!("{why}; a disk has from 64 MiB to 16 TiB"))
}

/// A root hash, and the partition of the image that has to have it, by its name or its number.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) name: Option<String>,
    pub(crate) root: RootHash,
}

fn expected(text: &str) -> Result<Expected, String> {
    // A name may have such a sign, a root hash has none.
    let (name, root) =
        text.rsplit_once('=').map_or((None, text), |(name, root)| (Some(name.to_owned()), root));
    let root = root.parse().map_err(|e| hints::on_one_line(&e))?;
    Ok(Expected { name, root })
}

fn uuid(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|e| hints::on_one_line(&e))
}

fn image_uuid(text: &str) -> Result<ImageUuid, String> {
    ImageUuid::try_parse(text).map_err(|_| "it is no UUID".to_owned())
}

fn removed(path: &OsStr) -> Result<ImagePath, String> {
    let path = ImagePath::parse(path.as_bytes()).map_err(|e| hints::on_one_line(&e))?;
    if path.is_root() {
        return Err("the root directory stays".to_owned());
    }
    Ok(path)
}

fn added(pair: &OsStr) -> Result<Added, String> {
    let mut parts = pair.as_bytes().splitn(2, |byte| *byte == b'=');
    let (Some(path), Some(file)) = (parts.next(), parts.next().filter(|file| !file.is_empty())) else {
        return Err("write PATH=FILE".to_owned());
    };
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if matches!(name, b"" | b"." | b"..") {
        return Err("the path ends without the name of a file".to_owned());
    }
    if name.starts_with(b".wh.") {
        return Err("names that begin with .wh. are those of whiteouts".to_owned());
    }
    let path = ImagePath::parse(path).map_err(|e| hints::on_one_line(&e))?;
    Ok(Added { path, file: OsString::from_vec(file.to_vec()).into() })
}

/// A file that is written at random offsets, and so cannot be a pipe.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    match text {
        "-" => Err("a disk image cannot go through a pipe; ./- is a file of that name".to_owned()),
        path => Ok(path.into()),
    }
}
