//! Layers and root file systems as text, so that a test can say what it expects.

mod line;
mod mounted;
mod overlay;

use std::collections::HashMap;
use std::io::Cursor;

use plyfold_core::layer::{DataExtent, Entry, EntryKind, FileKind, LayerOptions, LayerTar, Metadata};
use plyfold_core::tree::{Kind, LayerTreeBuilder, MergedTree, NodeId, Tree};
use plyfold_core::{Error, Result, printable};

use self::line::escaped;
pub use self::line::{ContentText, TreeLine};
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
            EntryKind::Node(FileKind::File { size, content: extents }) => {
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
    lines_by_node(tree, |_, place, size| content(place, size))
}

/// An image's tree as text, with the content of its files.
///
/// # Errors
/// Those of [`MergedTree::read_at`].
pub fn merged(image: &MergedTree) -> Result<Vec<TreeLine>> {
    let content = |id, size| ContentText::read(size, |offset, buffer| image.read_at(id, offset, buffer));
    lines_by_node(image.tree(), |id, _, size| content(id, size))
}

fn lines_by_node<C>(
    tree: &Tree<C>,
    mut content: impl FnMut(NodeId, &C, u64) -> Result<String>,
) -> Result<Vec<TreeLine>> {
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
            (None, Kind::File { size, content: place }) => format!("file {}", content(id, place, *size)?),
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

/// The metadata of a directory that no entry made.
pub fn is_implied(line: &TreeLine) -> bool {
    let Metadata { mode: _, uid, gid, mtime, .. } = Metadata::default();
    line.mode == 0o755 && line.owner == (uid, gid) && line.mtime == (mtime.seconds, mtime.nanos)
}
