//! Layers and root file systems as text, so that a test can say what it expects.

mod mounted;
mod overlay;

use std::collections::HashMap;
use std::fmt;
use std::io::Cursor;

use plyfold_core::digest::Hasher;
use plyfold_core::layer::{DataExtent, Entry, EntryKind, LayerOptions, LayerTar, Metadata};
use plyfold_core::tree::{Kind, LayerTreeBuilder, NodeId, Tree};
use plyfold_core::{Error, Result, printable};

pub use self::mounted::mounted;
pub use self::overlay::overlaid;

/// One entry of a layer and what its data is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LayerEntry {
    /// The entry.
    pub entry: Entry,
    /// Its data, as [`ContentText`] says it.
    pub content: String,
}

/// Reads a layer to its verified end.
///
/// # Errors
/// Those of [`LayerTar`].
pub fn read_layer(tar: &mut LayerTar) -> Result<Vec<LayerEntry>> {
    let mut entries = Vec::new();
    while let Some(entry) = tar.next_entry()? {
        let content = match &entry.kind {
            EntryKind::File { size, extents } => {
                let all = [DataExtent { offset: 0, length: *size }];
                file_content(tar, *size, extents.as_deref().unwrap_or(&all))?
            }
            _ => String::new(),
        };
        entries.push(LayerEntry { entry, content });
    }
    tar.finish()?;
    Ok(entries)
}

/// Reads a plain tar, as [`read_layer`] does.
///
/// # Errors
/// Those of [`LayerTar`].
pub fn read_tar(tar: Vec<u8>) -> Result<Vec<LayerEntry>> {
    read_layer(&mut LayerTar::new(Cursor::new(tar), LayerOptions::default())?)
}

fn file_content(tar: &mut LayerTar, size: u64, extents: &[DataExtent]) -> Result<String> {
    let mut content = ContentText::new(size);
    for extent in extents {
        let (mut offset, mut left) = (extent.offset, extent.length);
        while left > 0 {
            let bytes = tar.data()?;
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                return Err(Error::corrupt("a file has less data than its entry says"));
            }
            content.data(offset, &bytes[..count]);
            tar.consume(count);
            (offset, left) = (offset + count as u64, left - count as u64);
        }
    }
    Ok(content.finish())
}

/// A file's content as text, the same however its holes are stored: `SIZE "text"` for a short text, otherwise its
/// size and the start of a hash over the blocks that are not all zeros.
#[derive(Debug)]
pub struct ContentText {
    size: u64,
    number: u64,
    block: Vec<u8>,
    short: Vec<u8>,
    hasher: Hasher,
}

const ZEROS: &[u8] = &[0; ContentText::BLOCK];

impl ContentText {
    const BLOCK: usize = 4096;
    const SHORT: u64 = 40;

    /// The text of a file of this size, of which nothing is known yet: all zeros.
    pub fn new(size: u64) -> Self {
        let short = vec![0; if size <= Self::SHORT { size as usize } else { 0 }];
        Self { size, number: 0, block: vec![0; Self::BLOCK], short, hasher: Hasher::sha256() }
    }

    /// Data at an offset; offsets ascend.
    pub fn data(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, within) = (offset / Self::BLOCK as u64, (offset % Self::BLOCK as u64) as usize);
            let count = bytes.len().min(Self::BLOCK - within);
            if bytes[..count] == ZEROS[..count] {
                (offset, bytes) = (offset + count as u64, &bytes[count..]);
                continue;
            }
            if number != self.number {
                self.flush();
                self.number = number;
            }
            self.block[within..within + count].copy_from_slice(&bytes[..count]);
            if let Some(short) = self.short.get_mut(within..within + count).filter(|_| number == 0) {
                short.copy_from_slice(&bytes[..count]);
            }
            bytes = &bytes[count..];
            offset += count as u64;
        }
    }

    /// The text.
    pub fn finish(mut self) -> String {
        self.flush();
        let printable = self.short.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        if self.size <= Self::SHORT && printable {
            return format!("{} {:?}", self.size, String::from_utf8_lossy(&self.short));
        }
        format!("{} {}", self.size, &self.hasher.finish().digest()[..12])
    }

    fn flush(&mut self) {
        if self.block != ZEROS {
            self.hasher.update(&self.number.to_le_bytes());
            self.hasher.update(&self.block);
            self.block.fill(0);
        }
    }
}

/// One name of a root file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreeLine {
    /// The path, escaped.
    pub path: String,
    /// What it is and holds: `dir`, `file 5 "hello"` (see [`ContentText`]), `-> target`, `char 1:3`, `= /first/name`.
    pub what: String,
    /// Permission bits.
    pub mode: u16,
    /// Numeric owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Names of a file; 2 and the subdirectories of a directory.
    pub links: u32,
    /// Extended attributes, values escaped.
    pub xattrs: Vec<String>,
}

impl fmt::Display for TreeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what, mode, owner: (uid, gid), mtime: (seconds, nanos), links, xattrs } = self;
        write!(f, "{path} {mode:04o} {uid}:{gid} {seconds}.{nanos:09} {links} {what}")?;
        xattrs.iter().try_for_each(|xattr| write!(f, " {xattr}"))
    }
}

/// The root file system of these layers, bottom first.
///
/// # Errors
/// Those of [`LayerTreeBuilder`] and [`Tree::from_layers`].
pub fn stacked(layers: Vec<Vec<LayerEntry>>) -> Result<Vec<TreeLine>> {
    let layers = layers.into_iter().map(|entries| {
        let mut builder = LayerTreeBuilder::new();
        for LayerEntry { entry, content } in entries {
            builder.insert(entry, |_, _| Ok(content))?;
        }
        builder.finish()
    });
    let tree = Tree::from_layers(layers)?;
    lines(&tree, |content, _| Ok(content.clone()))
}

/// A tree as text; `content` says what a file of that size holds, as [`ContentText`] does.
///
/// # Errors
/// Those of `content`.
pub fn lines<C>(tree: &Tree<C>, mut content: impl FnMut(&C, u64) -> Result<String>) -> Result<Vec<TreeLine>> {
    let mut first_names: HashMap<NodeId, String> = HashMap::new();
    let mut lines = Vec::new();
    for (path, id) in tree.walk() {
        let (path, node) = (path.to_string(), tree.node(id));
        let what = match (first_names.get(&id), &node.kind) {
            (Some(first), _) => format!("= {first}"),
            (None, Kind::BlockDevice { major, minor }) => format!("block {major}:{minor}"),
            (None, Kind::CharDevice { major, minor }) => format!("char {major}:{minor}"),
            (None, Kind::Directory(_)) => "dir".to_owned(),
            (None, Kind::Fifo) => "fifo".to_owned(),
            (None, Kind::File { size, content: place }) => format!("file {}", content(place, *size)?),
            (None, Kind::Socket) => "socket".to_owned(),
            (None, Kind::Symlink { target }) => format!("-> {}", printable(&String::from_utf8_lossy(target))),
        };
        first_names.entry(id).or_insert_with(|| path.clone());
        let xattrs = node.xattrs.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
        lines.push(TreeLine {
            path,
            what,
            mode: node.mode,
            owner: (node.uid, node.gid),
            mtime: (node.mtime.seconds, node.mtime.nanos),
            links: tree.links(id),
            xattrs: xattrs.collect(),
        });
    }
    Ok(lines)
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The metadata of a directory that no entry made.
pub fn is_implied(line: &TreeLine) -> bool {
    let Metadata { mode: _, uid, gid, mtime, .. } = Metadata::default();
    line.mode == 0o755 && line.owner == (uid, gid) && line.mtime == (mtime.seconds, mtime.nanos)
}
