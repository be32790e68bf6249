//! Overlayfs' way to write down what a layer takes away, so that layer images stack as its lowers.
//!
//! - A whiteout is a character device 0:0. All of a layer share one inode.
//! - `trusted.overlay.opaque` = "y": nothing below shows through.
//! - `trusted.overlay.origin`, empty: the directory holds whiteouts. Without it overlayfs shows the devices of a
//!   directory that exists in one layer only.
//! - A hard link to a file of a lower layer is an empty file with `trusted.overlay.metacopy` and
//!   `trusted.overlay.redirect`. Overlayfs refuses to open it unless mounted with `metacopy=on`, in place of
//!   showing an empty file; the merged image has the true link.
//! - `trusted.overlay.plyfold.implied`: no entry made this directory. Overlayfs takes no notice, and shows it
//!   with its own 0755 root:root; the merged image shows the lower layers' metadata.
//!
//! Overlayfs hides all of these from its users.

use plyfold_core::layer::{ImagePath, Metadata};
use plyfold_core::tree::{Kind, LayerTree, LowerLink, Node, Tree, Xattrs};
use plyfold_core::{Error, Result};

use crate::content::Content;
use crate::format::NULL_BLOCK;

const IMPLIED: &[u8] = b"trusted.overlay.plyfold.implied";
const METACOPY: &[u8] = b"trusted.overlay.metacopy";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const ORIGIN: &[u8] = b"trusted.overlay.origin";
const REDIRECT: &[u8] = b"trusted.overlay.redirect";

/// Whether an xattr of this name is overlayfs' own: no layer may bring one along.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// A layer as a tree of real files.
pub(crate) fn to_overlay(layer: LayerTree<Content>) -> Tree<Content> {
    let LayerTree { mut tree, lower_links } = layer;
    let mut device = None;
    for id in tree.ids().collect::<Vec<_>>() {
        let Some(directory) = tree.node(id).directory() else { continue };
        let whiteouts: Vec<Box<[u8]>> = directory.whiteouts().map(Into::into).collect();
        let marks = [
            (directory.implied, IMPLIED, &b"y"[..]),
            (directory.opaque, OPAQUE, b"y"),
            (!whiteouts.is_empty(), ORIGIN, b""),
        ];
        for (_, name, value) in marks.into_iter().filter(|(wanted, ..)| *wanted) {
            mark(tree.node_mut(id), name, value);
        }
        for name in whiteouts {
            let device = *device.get_or_insert_with(|| {
                tree.push(Node::new(Kind::CharDevice { major: 0, minor: 0 }, Metadata::default()))
            });
            tree.link(id, &name, device);
        }
    }
    for LowerLink { directory, name, target } in lower_links {
        tracing::warn!(%target, "a hard link to a file of a lower layer needs the merged image");
        let kind = Kind::File { size: 0, content: Content::blocks(0, NULL_BLOCK) };
        let mut node = Node::new(kind, Metadata::default());
        mark(&mut node, METACOPY, b"");
        mark(&mut node, REDIRECT, &[b"/", target.as_bytes()].concat());
        let id = tree.push(node);
        tree.link(directory, &name, id);
    }
    tree.finish();
    tree
}

/// A layer out of the tree of its image.
pub(crate) fn from_overlay(mut tree: Tree<Content>) -> Result<LayerTree<Content>> {
    let mut lower_links = Vec::new();
    for id in tree.ids().collect::<Vec<_>>() {
        let node = tree.node(id);
        let Some(directory) = node.directory() else { continue };
        let (mut whiteouts, mut links) = (Vec::new(), Vec::new());
        for (name, child) in directory.children() {
            let child = tree.node(child);
            match &child.kind {
                Kind::CharDevice { major: 0, minor: 0 } => whiteouts.push(Box::from(name)),
                Kind::File { .. } => {
                    if let Some(target) = value(&child.xattrs, REDIRECT) {
                        let (name, target) = (name.into(), path(target)?);
                        links.push(LowerLink { directory: id, name, target });
                    }
                }
                _ => {}
            }
        }
        let (implied, opaque) =
            (value(&node.xattrs, IMPLIED).is_some(), value(&node.xattrs, OPAQUE).is_some());
        let node = tree.node_mut(id);
        if let Kind::Directory(directory) = &mut node.kind {
            directory.implied = implied;
            directory.opaque = opaque;
        }
        if node.xattrs.iter().any(|(name, _)| is_reserved(name)) {
            node.xattrs = node.xattrs.iter().filter(|(name, _)| !is_reserved(name)).cloned().collect();
        }
        for name in &whiteouts {
            tree.hide(id, name);
        }
        for link in &links {
            tree.unlink(id, &link.name);
        }
        lower_links.extend(links);
    }
    tree.finish();
    Ok(LayerTree { tree, lower_links })
}

fn mark(node: &mut Node<Content>, name: &[u8], value: &[u8]) {
    let mut xattrs = node.xattrs.to_vec();
    let at = xattrs.partition_point(|(other, _)| &**other < name);
    xattrs.insert(at, (name.to_vec(), value.to_vec()));
    node.xattrs = xattrs.into();
}

fn value<'a>(xattrs: &'a Xattrs, name: &[u8]) -> Option<&'a [u8]> {
    xattrs.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
}

fn path(redirect: &[u8]) -> Result<ImagePath> {
    let mut path = ImagePath::ROOT;
    for component in redirect.strip_prefix(b"/").unwrap_or_default().split(|byte| *byte == b'/') {
        if matches!(component, b"" | b"." | b"..") {
            return Err(Error::corrupt("a layer image redirects a file to no path"));
        }
        path = path.join(component);
    }
    Ok(path)
}
