//! Overlayfs' format for what a layer removes, so that layer images stack as its lowers.
//!
//! - A whiteout is a character device 0:0. All of a layer share one inode.
//! - `trusted.overlay.opaque` = "y": nothing below shows through.
//! - `trusted.overlay.origin`, empty: the directory holds whiteouts. Without it overlayfs shows the devices of a
//!   directory that exists in one layer only.
//! - A hard link to a file of a lower layer is an empty file with `trusted.overlay.metacopy` and
//!   `trusted.overlay.redirect`. Overlayfs refuses to open it unless mounted with `metacopy=on`, in place of
//!   showing an empty file; the merged image has the true link.
//! - `trusted.overlay.plyfold.links`: names of this directory that are links to a lower layer's file, if one has it,
//!   each with its target. What overlayfs shows under them is the layer's own file.
//! - `trusted.overlay.plyfold.assumed`, of the root: names at which no lower layer may have a symbolic link.
//! - `trusted.overlay.plyfold.late`: the directory's entry stood behind entries below it.
//! - `trusted.overlay.plyfold.implied`: no entry made this directory. Overlayfs ignores the mark, and shows it
//!   with its own 0755 root:root; the merged image shows the lower layers' metadata.
//!
//! Overlayfs hides all of these from its users.

use std::collections::HashMap;

use plyfold_core::layer::{Entry, ImagePath, LayerTar, Metadata};
use plyfold_core::tree::{
    HeapSize, Kind, LayerTree, LowerLink, Node, NodeId, Tree, Xattrs, is_overlay_xattr,
};
use plyfold_core::{Result, printable};

use crate::content::Content;
use crate::fault::ErofsFault;

const ASSUMED: &[u8] = b"trusted.overlay.plyfold.assumed";
const IMPLIED: &[u8] = b"trusted.overlay.plyfold.implied";
const LATE: &[u8] = b"trusted.overlay.plyfold.late";
const LINKS: &[u8] = b"trusted.overlay.plyfold.links";
const METACOPY: &[u8] = b"trusted.overlay.metacopy";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const ORIGIN: &[u8] = b"trusted.overlay.origin";
const REDIRECT: &[u8] = b"trusted.overlay.redirect";

/// The longest value of one list; further ones have a number behind their name.
const LIST_MAX: usize = 60_000;

/// The next entry of a layer without attributes that are overlayfs' own, which no layer may set.
pub(crate) fn next_entry(tar: &mut LayerTar) -> Result<Option<Entry>> {
    let mut entry = tar.next_entry()?;
    if let Some(entry) = &mut entry {
        entry.metadata.xattrs.retain(|(name, _)| !is_overlay_xattr(name));
    }
    Ok(entry)
}

/// Whether a file is a whiteout.
pub(crate) fn is_whiteout(node: &Node<Content>) -> bool {
    matches!(node.kind, Kind::CharDevice { major: 0, minor: 0 })
}

/// A layer as a tree of real files. Those without a byte have the content `empty`.
pub(crate) fn to_overlay<C: Clone + HeapSize>(layer: LayerTree<C>, empty: &C) -> Result<Tree<C>> {
    let LayerTree { mut tree, lower_links, assumed } = layer;
    let mut own_links: HashMap<NodeId, Vec<u8>> = HashMap::new();
    let mut others = Vec::new();
    for link in lower_links {
        if tree.child(link.directory, &link.name).is_some() {
            let list = own_links.entry(link.directory).or_default();
            for part in [&link.name, link.target.as_bytes()] {
                list.extend_from_slice(part);
                list.push(0);
            }
        } else {
            others.push(link);
        }
    }
    let mut device = None;
    for id in tree.ids() {
        let Some(directory) = tree.node(id).directory() else { continue };
        let (implied, late, opaque) = (directory.implied, directory.late, directory.opaque);
        let hides = tree.whiteouts(id).next().is_some();
        let mut marks = Vec::new();
        marks.extend(implied.then(|| (IMPLIED.to_vec(), b"y".to_vec())));
        marks.extend(late.then(|| (LATE.to_vec(), b"y".to_vec())));
        marks.extend(opaque.then(|| (OPAQUE.to_vec(), b"y".to_vec())));
        marks.extend(hides.then(|| (ORIGIN.to_vec(), Vec::new())));
        marks.extend(parts(LINKS, &own_links.remove(&id).unwrap_or_default()));
        if id == NodeId::ROOT {
            let list = assumed.iter().flat_map(|path| [path.as_bytes(), &[0]]);
            marks.extend(parts(ASSUMED, &list.flatten().copied().collect::<Vec<_>>()));
        }
        if !marks.is_empty() {
            marks.extend(tree.node(id).xattrs.to_vec());
            marks.sort();
            tree.node_mut(id).xattrs = tree.share(marks.into())?;
        }
        if hides {
            let shared = match device {
                Some(shared) => shared,
                None => tree.push(Node::new(Kind::CharDevice { major: 0, minor: 0 }, Metadata::default()))?,
            };
            device = Some(shared);
            tree.show_whiteouts(id, shared);
        }
    }
    for LowerLink { directory, name, target } in others {
        let link = printable(&String::from_utf8_lossy(&name));
        tracing::warn!(link, %target, "a hard link to a file of a lower layer cannot be opened in a layer's image");
        let kind = Kind::File { size: 0, content: empty.clone() };
        let redirect = [b"/", target.as_bytes()].concat();
        let xattrs = vec![(METACOPY.to_vec(), Vec::new()), (REDIRECT.to_vec(), redirect)];
        let id = tree.push(Node::new(kind, Metadata { xattrs, ..Metadata::default() }))?;
        tree.link(directory, &name, id)?;
    }
    tree.finish();
    Ok(tree)
}

/// A list in attributes of that name.
fn parts(name: &[u8], list: &[u8]) -> Marks {
    let parts = list.chunks(LIST_MAX).enumerate().map(|(number, part)| {
        let suffix = if number == 0 { String::new() } else { format!(".{number:02}") };
        ([name, suffix.as_bytes()].concat(), part.to_vec())
    });
    parts.collect()
}

/// The items of a list, each ended by a NUL.
fn items(xattrs: &Xattrs, name: &[u8]) -> Vec<u8> {
    let parts = xattrs.iter().filter(|(found, _)| found.starts_with(name));
    parts.flat_map(|(_, value)| value).copied().collect()
}

/// Attributes by name and value.
type Marks = Vec<(Vec<u8>, Vec<u8>)>;

/// A layer out of the tree of its image, whose links need not be counted, and are not.
pub(crate) fn from_overlay(mut tree: Tree<Content>) -> Result<LayerTree<Content>> {
    let mut lower_links = Vec::new();
    let mut assumed = Vec::new();
    let mut unmarked = HashMap::new();
    for id in tree.ids() {
        if tree.node(id).directory().is_none() {
            continue;
        }
        let mut has_links = false;
        tree.hide_children(id, |child| {
            has_links |= !child.xattrs.is_empty() && is_lower_link(&child.xattrs);
            is_whiteout(child)
        })?;
        let first = lower_links.len();
        for (name, child) in tree.children(id).filter(|_| has_links) {
            let child = tree.node(child);
            if matches!(child.kind, Kind::File { .. })
                && let Some(target) = child.xattrs.value(REDIRECT)
            {
                lower_links.push(LowerLink { directory: id, name: name.into(), target: path(target)? });
            }
        }
        for link in lower_links.iter().skip(first) {
            tree.unlink(id, &link.name);
        }
        let node = tree.node_mut(id);
        let xattrs = node.xattrs.clone();
        if let Kind::Directory(directory) = &mut node.kind {
            directory.implied = false;
            directory.late = xattrs.value(LATE).is_some();
            directory.opaque = xattrs.value(OPAQUE).is_some();
        }
        if is_implied(&xattrs) {
            tree.imply(id)?;
        }
        let node = tree.node_mut(id);
        if xattrs.iter().any(|(name, _)| is_overlay_xattr(name)) {
            let known = unmarked.entry(xattrs.clone());
            node.xattrs = known.or_insert_with(|| without_marks(&xattrs)).clone();
            own_links(id, &xattrs, &mut lower_links)?;
            if id == NodeId::ROOT {
                for path in items(&xattrs, ASSUMED).split_inclusive(|byte| *byte == 0) {
                    assumed.push(clean(path.strip_suffix(&[0]).unwrap_or(path))?);
                }
            }
        }
    }
    Ok(LayerTree { tree, lower_links, assumed })
}

/// A layer as overlayfs takes it: it knows whiteouts, and of opaque directories all but the root. Where a single
/// layer is mounted without overlayfs, there are no whiteouts either.
pub(crate) fn as_shown(mut tree: Tree<Content>, stacked: bool) -> Result<LayerTree<Content>> {
    for id in tree.ids() {
        if stacked {
            tree.hide_children(id, is_whiteout)?;
        }
        let node = tree.node_mut(id);
        let opaque = stacked && id != NodeId::ROOT && node.xattrs.value(OPAQUE).is_some();
        if let Kind::Directory(directory) = &mut node.kind {
            directory.implied = false;
            directory.opaque = opaque;
            if node.xattrs.iter().any(|(name, _)| is_overlay_xattr(name)) {
                node.xattrs = without_marks(&node.xattrs);
            }
        }
    }
    Ok(LayerTree { tree, lower_links: Vec::new(), assumed: Vec::new() })
}

/// Whether a file stands for a hard link to a lower layer's.
pub(crate) fn is_lower_link(xattrs: &Xattrs) -> bool {
    xattrs.value(REDIRECT).is_some()
}

/// Where a lower layer has the data of a file that is a copy of its metadata alone.
pub(crate) fn data_below(xattrs: &Xattrs) -> Option<String> {
    xattrs.value(METACOPY)?;
    let path = xattrs.value(REDIRECT).map(|path| printable(&String::from_utf8_lossy(path)));
    Some(path.unwrap_or_else(|| "the same path".to_owned()))
}

/// The attribute of a set by which overlayfs would show something else than the layer has, or that says of it what no
/// tar can say.
pub(crate) fn foreign_mark(xattrs: &Xattrs, is_directory: bool) -> Option<String> {
    /// What overlayfs keeps of an upper directory, and does not look at in a lower one.
    const IDLE: [&[u8]; 5] = [
        b"trusted.overlay.impure",
        b"trusted.overlay.nlink",
        b"trusted.overlay.protattr",
        b"trusted.overlay.upper",
        b"trusted.overlay.uuid",
    ];
    let is_known = |name: &[u8], value: &[u8]| match name {
        ORIGIN => true,
        OPAQUE | IMPLIED | LATE => is_directory && value == b"y",
        _ => IDLE.contains(&name),
    };
    let mut marks = xattrs.iter().filter(|(name, _)| is_overlay_xattr(name));
    let (name, _) = marks.find(|(name, value)| !is_known(name, value))?;
    Some(printable(&String::from_utf8_lossy(name)))
}

/// Whether overlayfs looks for whiteouts in the directory with these attributes wherever it is.
pub(crate) fn is_origin(xattrs: &Xattrs) -> bool {
    xattrs.value(ORIGIN).is_some()
}

/// Whether the directory with these attributes hides what lower layers have in it.
pub(crate) fn is_opaque(xattrs: &Xattrs) -> bool {
    xattrs.value(OPAQUE).is_some()
}

/// Whether the entry of the directory with these attributes stood behind entries below it.
pub(crate) fn is_late(xattrs: &Xattrs) -> bool {
    xattrs.value(LATE).is_some()
}

/// Whether no entry made the directory with these attributes.
pub(crate) fn is_implied(xattrs: &Xattrs) -> bool {
    xattrs.value(IMPLIED).is_some()
}

/// What is left of a set without overlayfs' own.
pub(crate) fn without_marks(xattrs: &Xattrs) -> Xattrs {
    xattrs.iter().filter(|(name, _)| !is_overlay_xattr(name)).collect()
}

/// Adds the links that a directory's `links` list.
fn own_links(directory: NodeId, xattrs: &Xattrs, links: &mut Vec<LowerLink>) -> Result<()> {
    let list = items(xattrs, LINKS);
    let mut parts = list.split(|byte| *byte == 0);
    while let (Some(name), Some(target)) = (parts.next().filter(|name| !name.is_empty()), parts.next()) {
        links.push(LowerLink { directory, name: name.into(), target: clean(target)? });
    }
    Ok(())
}

fn path(redirect: &[u8]) -> Result<ImagePath> {
    clean(redirect.strip_prefix(b"/").unwrap_or_default())
}

fn clean(target: &[u8]) -> Result<ImagePath> {
    let mut path = ImagePath::ROOT;
    for component in target.split(|byte| *byte == b'/') {
        if matches!(component, b"" | b"." | b"..") {
            return Err(ErofsFault::Malformed("a layer image redirects a file to no path").into());
        }
        path = path.join(component);
    }
    Ok(path)
}
