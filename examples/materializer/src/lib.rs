//! A third party's materializer: an image as a cpio archive in the form that Linux unpacks into its first root file
//! system (`newc`; Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! A program that links this crate (`use example_cpio as _;`) makes it by `--as cpio`; nothing else has to know about
//! it.

mod archive;

use std::collections::HashMap;
use std::io::BufWriter;

use plyfold_core::layer::ImagePath;
use plyfold_core::tree::{FileData, Kind, MergedTree, Node, NodeId};
use plyfold_core::{Error, Format, FormatEntry, Input, Made, Materializer, Result, Role, Sink, Size};

use archive::{Archive, Header};

/// The longest name, its NUL not counted (`PATH_MAX`): the kernel leaves longer ones out.
const NAME_MAX: usize = 4095;
/// The largest file: its size has 8 hexadecimal digits.
const FILE_MAX: u64 = u32::MAX as u64;
/// The name of the entry that ends an archive. A file of that name would end it, too.
const TRAILER: &[u8] = b"TRAILER!!!";

plyfold_core::register!(FormatEntry {
    name: "cpio",
    package: env!("CARGO_PKG_NAME"),
    summary: "one cpio archive, for use as an initramfs",
    options: "",
    open: |options| {
        options.refuse()?;
        Ok(Box::new(Cpio))
    },
});

/// Makes an initramfs of a whole image.
///
/// What the format cannot hold: extended attributes (a [note](Made::notes) says how many files lose theirs), nanoseconds,
/// and times before 1970 or after 2106, which become the nearest that it holds. A file of 4 GiB or more and a
/// path of more than 4,095 bytes are [`Limit`](plyfold_core::ErrorKind::Limit) errors.
#[derive(Clone, Copy, Debug)]
pub struct Cpio;

impl Materializer for Cpio {
    fn format(&self) -> Format {
        Format { name: "cpio", version: 2, options: String::new(), extension: "cpio" }
    }

    fn input(&self) -> Input {
        Input::Image
    }

    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        let out = BufWriter::with_capacity(1 << 20, out.output(Role::Image)?);
        let mut writer =
            Writer { image, out: Archive::new(out), linked: HashMap::new(), files: 0, stripped: 0 };
        for (path, id) in image.tree().walk() {
            writer.name(&path, id).map_err(|e| e.with_context("path", &path))?;
        }
        writer.out.end(TRAILER)?;
        let made = Made::default();
        Ok(match writer.stripped {
            0 => made,
            1 => made.with_note("1 file loses its extended attributes: cpio has none"),
            many => made.with_note(format!("{many} files lose their extended attributes: cpio has none")),
        })
    }
}

struct Writer<'a, W> {
    image: &'a MergedTree,
    out: Archive<W>,
    /// Of files with several names, the inode number, and how many are still to come: the last one brings the content.
    linked: HashMap<NodeId, (u32, u32)>,
    /// Inode numbers in use. They follow from the names alone: a node's own number depends on how the tree was read.
    files: u32,
    /// Files with extended attributes.
    stripped: u64,
}

impl<W: std::io::Write + std::io::Seek> Writer<'_, W> {
    fn name(&mut self, path: &ImagePath, id: NodeId) -> Result<()> {
        let node = self.image.tree().node(id);
        let links = self.image.tree().links(id);
        // Numbers begin with 1: 0 means no file to some readers.
        let next = self.files.checked_add(1).ok_or_else(|| Error::limit("2^32 files"))?;
        let (mut inode, mut is_first, mut is_last) = (next, true, true);
        if links > 1 && node.directory().is_none() {
            let (number, left) = self.linked.entry(id).or_insert((next, links));
            (inode, is_first) = (*number, *left == links);
            *left -= 1;
            is_last = *left == 0;
        }
        self.files += u32::from(is_first);
        self.stripped += u64::from(is_first && !node.xattrs.is_empty());
        let mut header = header(inode, node, links)?;
        if let Kind::File { .. } = node.kind
            && !is_last
        {
            header.size = 0;
        }
        self.out.header(&name(path)?, &header)?;
        match &node.kind {
            Kind::File { .. } if is_last => self.out.content(self.image, id, header.size.into()),
            Kind::Symlink { target } => self.out.data(target),
            _ => Ok(()),
        }
    }
}

/// The name of an entry: relative, without a slash at its start.
fn name(path: &ImagePath) -> Result<Vec<u8>> {
    let name = match path.as_bytes() {
        b"" => b".".to_vec(),
        TRAILER => [b"./", TRAILER].concat(),
        name => name.to_vec(),
    };
    if name.len() > NAME_MAX {
        return Err(Error::limit(format!(
            "a path of {} bytes, the limit of an initramfs is {NAME_MAX}",
            name.len()
        )));
    }
    Ok(name)
}

fn header(inode: u32, node: &Node<FileData>, links: u32) -> Result<Header> {
    // File types of `inode(7)`.
    let (kind, size, device) = match &node.kind {
        Kind::BlockDevice { major, minor } => (0o060_000, 0, (*major, *minor)),
        Kind::CharDevice { major, minor } => (0o020_000, 0, (*major, *minor)),
        Kind::Directory(_) => (0o040_000, 0, (0, 0)),
        Kind::Fifo => (0o010_000, 0, (0, 0)),
        Kind::File { size, .. } => (0o100_000, *size, (0, 0)),
        Kind::Socket => (0o140_000, 0, (0, 0)),
        Kind::Symlink { target } => (0o120_000, target.len() as u64, (0, 0)),
    };
    let size = u32::try_from(size)
        .map_err(|_| Error::limit(format!("a file of {}", Size(size).beyond(Size(FILE_MAX)))))?;
    Ok(Header {
        inode,
        mode: kind | u32::from(node.mode),
        links,
        owner: (node.uid, node.gid),
        mtime: u32::try_from(node.mtime.seconds.clamp(0, u32::MAX.into())).unwrap_or(u32::MAX),
        size,
        device,
    })
}
