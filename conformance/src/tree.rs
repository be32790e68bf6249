//! Layers and root file systems as text, so that a test can say what it expects.

use std::collections::HashMap;
use std::fmt;

use plyfold_core::layer::{DataExtent, Entry, EntryKind, LayerTar, Metadata};
use plyfold_core::tree::{Kind, LayerTreeBuilder, NodeId, Tree};
use plyfold_core::{Result, digest, printable};

/// One entry of a layer and what its data is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LayerEntry {
    /// The entry.
    pub entry: Entry,
    /// Its data as text: short texts themselves, a digest of anything else, runs of data of a sparse file.
    pub content: String,
}

/// Reads a layer to its verified end.
///
/// # Errors
/// Those of [`LayerTar`].
pub fn read_layer(tar: &mut LayerTar) -> Result<Vec<LayerEntry>> {
    let mut entries = Vec::new();
    while let Some(entry) = tar.next_entry()? {
        let mut data = Vec::new();
        loop {
            let bytes = tar.data()?;
            if bytes.is_empty() {
                break;
            }
            data.extend_from_slice(bytes);
            let count = bytes.len();
            tar.consume(count);
        }
        let content = match &entry.kind {
            EntryKind::File { size, extents } => described(*size, extents.as_deref(), &data),
            _ => String::new(),
        };
        entries.push(LayerEntry { entry, content });
    }
    tar.finish()?;
    Ok(entries)
}

fn described(size: u64, extents: Option<&[DataExtent]>, data: &[u8]) -> String {
    let readable = data.len() <= 40 && data.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let content = match std::str::from_utf8(data) {
        Ok(text) if readable => format!("{text:?}"),
        _ => digest::sha256(data).digest()[..12].to_owned(),
    };
    let runs = extents.map(|extents| {
        extents.iter().map(|run| format!(" {}+{}", run.offset, run.length)).collect::<String>()
    });
    format!("{size} {content}{}", runs.map_or(String::new(), |runs| format!(" at{runs}")))
}

/// One name of a root file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreeLine {
    /// The path, escaped.
    pub path: String,
    /// What it is and holds: `dir`, `file 5 "hello"`, `-> target`, `char 1:3`, `= /first/name`.
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
    let mut first_names: HashMap<NodeId, String> = HashMap::new();
    let lines = tree.walk().map(|(path, id)| {
        let path = path.to_string();
        let what = match first_names.get(&id) {
            Some(first) => format!("= {first}"),
            None => what(&tree.node(id).kind),
        };
        first_names.entry(id).or_insert_with(|| path.clone());
        let node = tree.node(id);
        let xattrs = node.xattrs.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
        TreeLine {
            path,
            what,
            mode: node.mode,
            owner: (node.uid, node.gid),
            mtime: (node.mtime.seconds, node.mtime.nanos),
            links: tree.links(id),
            xattrs: xattrs.collect(),
        }
    });
    Ok(lines.collect())
}

fn what(kind: &Kind<String>) -> String {
    match kind {
        Kind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
        Kind::CharDevice { major, minor } => format!("char {major}:{minor}"),
        Kind::Directory(_) => "dir".to_owned(),
        Kind::Fifo => "fifo".to_owned(),
        Kind::File { content, .. } => format!("file {content}"),
        Kind::Socket => "socket".to_owned(),
        Kind::Symlink { target } => format!("-> {}", printable(&String::from_utf8_lossy(target))),
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The metadata of a directory that no entry made.
pub fn is_implied(line: &TreeLine) -> bool {
    let Metadata { mode: _, uid, gid, mtime, .. } = Metadata::default();
    line.mode == 0o755 && line.owner == (uid, gid) && line.mtime == (mtime.seconds, mtime.nanos)
}
