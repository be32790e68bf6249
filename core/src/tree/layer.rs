//! From one layer's entries, in the order of its tar, to what the layer says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::layer::whiteout::{Change, classify};
use crate::layer::{DataExtent, Entry, EntryKind, ImagePath, Metadata};
use crate::{Error, Result};

use super::resolve::Missing;
use super::{Kind, Node, NodeId, Tree, Xattrs};

/// What one layer says: files that it brings, whiteouts, opaque directories, and links to files below it.
#[derive(Clone, Debug)]
pub struct LayerTree<C> {
    /// The layer's own files and whiteouts.
    pub tree: Tree<C>,
    /// Hard links to files that only lower layers have, in a deterministic order.
    pub lower_links: Vec<LowerLink>,
}

/// A hard link whose file is in a lower layer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LowerLink {
    /// The directory that it stands in.
    pub directory: NodeId,
    /// Its name there. The directory has no child of that name.
    pub name: Box<[u8]>,
    /// The file, as the lower layers name it.
    pub target: ImagePath,
}

/// A name in a directory.
type Place = (NodeId, Box<[u8]>);

/// Builds a [`LayerTree`]. See [the module](super) for the rules.
#[derive(Debug)]
pub struct LayerTreeBuilder<C> {
    tree: Tree<C>,
    sets: HashSet<Xattrs>,
    /// Hard links whose target has not been seen yet.
    links: BTreeMap<Place, ImagePath>,
}

impl<C> LayerTreeBuilder<C> {
    /// A builder for an empty layer.
    pub fn new() -> Self {
        Self { tree: Tree::new(), sets: HashSet::new(), links: BTreeMap::new() }
    }

    /// Takes the next entry. `content` is asked where the bytes of a regular file lie, given its size and its
    /// runs of data; it is the moment to read them.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for entries that the rules refuse, and what `content` reports.
    pub fn insert(
        &mut self,
        entry: Entry,
        content: impl FnOnce(u64, Option<&[DataExtent]>) -> Result<C>,
    ) -> Result<()> {
        let Entry { path, kind, metadata } = entry;
        let change = classify(&path)?;
        if matches!(change, Change::Opaque(_) | Change::Whiteout(_))
            && !matches!(kind, EntryKind::File { .. } | EntryKind::HardLink { .. })
        {
            return Err(Error::corrupt(format!("the whiteout {path} is not a regular file")));
        }
        match change {
            Change::Ignored => return Ok(()),
            Change::Opaque(directory) => return self.opaque(&directory),
            Change::Whiteout(hidden) => return self.whiteout(&hidden),
            Change::Plain => {}
        }
        let kind = match kind {
            EntryKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            // Overlayfs' form of a whiteout, in tars of overlay upper directories.
            EntryKind::CharDevice { major: 0, minor: 0 } => return self.whiteout(&path),
            EntryKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            EntryKind::Directory => return self.directory(&path, metadata),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::File { size, extents } => {
                Kind::File { size, content: content(size, extents.as_deref())? }
            }
            EntryKind::HardLink { target } => return self.hard_link(&path, target),
            EntryKind::Socket => Kind::Socket,
            EntryKind::Symlink { target } => Kind::Symlink { target: target.into() },
        };
        let parent = self.parent(&path)?;
        let id = self.push(kind, metadata);
        self.place(parent, path.name(), id);
        Ok(())
    }

    /// Settles what depends on the whole layer: links to later files, link counts.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for hard links in a circle or to a directory.
    pub fn finish(mut self) -> Result<LayerTree<C>> {
        let mut lower_links = self.settle_links()?;
        self.tree.finish();
        for node in &mut self.tree.nodes {
            if let Kind::Directory(directory) = &mut node.kind
                && directory.opaque
            {
                directory.whiteouts.clear();
            }
        }
        lower_links.retain(|link| self.tree.is_named(link.directory));
        Ok(LayerTree { tree: self.tree, lower_links })
    }

    fn directory(&mut self, path: &ImagePath, metadata: Metadata) -> Result<()> {
        let existing = if path.is_root() {
            Some(NodeId::ROOT)
        } else {
            let parent = self.parent(path)?;
            let existing = self.tree.child(parent, path.name());
            if existing.is_none_or(|id| self.tree.node(id).directory().is_none()) {
                let id = self.push(Kind::Directory(super::Directory::default()), metadata);
                let parent_directory = self.tree.node(parent).directory();
                let hidden = parent_directory.is_some_and(|parent| parent.whiteouts.contains(path.name()));
                let replaces =
                    hidden || existing.is_some() || self.links.contains_key(&(parent, path.name().into()));
                if let Some(directory) = self.tree.directory_mut(id) {
                    directory.opaque = replaces;
                }
                self.place(parent, path.name(), id);
                return Ok(());
            }
            existing
        };
        let node = self.node(Kind::Fifo, metadata);
        if let Some(id) = existing {
            self.tree.node_mut(id).take_metadata(node);
            if let Some(directory) = self.tree.directory_mut(id) {
                directory.implied = false;
            }
        }
        Ok(())
    }

    fn hard_link(&mut self, path: &ImagePath, target: ImagePath) -> Result<()> {
        if classify(&target)? != Change::Plain {
            return Err(Error::corrupt(format!("{path} is a hard link to the whiteout {target}")));
        }
        let parent = self.parent(path)?;
        let target_parent = self.tree.parent_of(&target, Missing::Absent)?;
        if target.is_root() || (target_parent == Some(parent) && target.name() == path.name()) {
            return Err(Error::corrupt(format!("{path} is a hard link to {target}, which is no other file")));
        }
        if let Some(id) = target_parent.and_then(|parent| self.tree.child(parent, target.name())) {
            self.check_link(path, id)?;
            self.place(parent, path.name(), id);
        } else {
            if self.hides(&target)? {
                return Err(Error::corrupt(format!(
                    "{path} is a hard link to {target}, which its layer hides"
                ))
                .with_hint("the link stands behind a whiteout of its target, or what replaces it"));
            }
            if let Some(directory) = self.tree.directory_mut(parent) {
                directory.children.remove(path.name());
                directory.whiteouts.remove(path.name());
            }
            self.links.insert((parent, path.name().into()), target);
        }
        Ok(())
    }

    /// Whether what the layer has so far hides this name, which it does not have, in lower layers.
    fn hides(&mut self, path: &ImagePath) -> Result<bool> {
        let components: Vec<&[u8]> = path.components().collect();
        let mut here = NodeId::ROOT;
        for (depth, name) in components.iter().enumerate() {
            let Some(directory) = self.tree.node(here).directory() else { return Ok(true) };
            let Some(child) = self.tree.child(here, name) else {
                return Ok(directory.opaque || directory.whiteouts.contains(*name));
            };
            here = child;
            if let Kind::Symlink { .. } = self.tree.node(child).kind {
                let link = ImagePath::from_clean(components[..=depth].join(&b'/'));
                let Some(target) = self.tree.directory_at(&link, Missing::Absent)? else { return Ok(false) };
                here = target;
            }
        }
        Ok(false)
    }

    fn check_link(&self, path: &ImagePath, target: NodeId) -> Result<()> {
        if self.tree.node(target).directory().is_some() {
            return Err(Error::corrupt(format!("{path} is a hard link to a directory")));
        }
        Ok(())
    }

    /// Names the files that links were waiting for; what the layer does not have is left to lower layers.
    fn settle_links(&mut self) -> Result<Vec<LowerLink>> {
        #[derive(Clone)]
        enum End {
            Lower(ImagePath),
            Node(NodeId),
            Open,
        }
        let links: Vec<(Place, ImagePath)> = self.links.clone().into_iter().collect();
        let mut ends: HashMap<Place, End> = HashMap::new();
        for (place, first) in &links {
            let mut way = Vec::new();
            let (mut at, mut target) = (place.clone(), first.clone());
            let end = loop {
                match ends.get(&at) {
                    Some(End::Open) => {
                        return Err(Error::corrupt(format!("hard links to {target} form a circle")));
                    }
                    Some(end) => break end.clone(),
                    None => {}
                }
                ends.insert(at.clone(), End::Open);
                way.push(at);
                let Some(parent) = self.tree.parent_of(&target, Missing::Absent)? else {
                    break End::Lower(target);
                };
                if let Some(id) = self.tree.child(parent, target.name()) {
                    self.check_link(&target, id)?;
                    break End::Node(id);
                }
                at = (parent, target.name().into());
                match self.links.get(&at) {
                    Some(next) => target = next.clone(),
                    None => break End::Lower(target),
                }
            };
            ends.extend(way.into_iter().map(|place| (place, end.clone())));
        }
        let mut lower = Vec::new();
        for ((directory, name), _) in links {
            match ends.remove(&(directory, name.clone())) {
                Some(End::Node(id)) => self.tree.link(directory, &name, id),
                Some(End::Lower(target)) => lower.push(LowerLink { directory, name, target }),
                Some(End::Open) | None => {}
            }
        }
        Ok(lower)
    }

    /// Hides what lower layers have in the directory. Only what stands before the mark says which one that is.
    fn opaque(&mut self, directory: &ImagePath) -> Result<()> {
        if let Some(id) = self.tree.directory_at(directory, Missing::Imply)?
            && let Some(directory) = self.tree.directory_mut(id)
        {
            directory.opaque = true;
        }
        Ok(())
    }

    /// Hides the name in lower layers. As for [`Self::opaque`], what follows does not move the mark.
    fn whiteout(&mut self, hidden: &ImagePath) -> Result<()> {
        if hidden.is_root() {
            return Err(Error::corrupt("the root directory is a whiteout"));
        }
        // Below a file of this layer nothing of the lower layers is left to hide.
        let Some(parent) = self.tree.parent_of(hidden, Missing::Imply)? else { return Ok(()) };
        if let Some(child) = self.tree.child(parent, hidden.name()) {
            if let Some(directory) = self.tree.directory_mut(child) {
                directory.opaque = true;
                directory.implied = false;
            }
        } else if !self.links.contains_key(&(parent, hidden.name().into()))
            && let Some(directory) = self.tree.directory_mut(parent)
        {
            directory.whiteouts.insert(hidden.name().into());
        }
        Ok(())
    }

    fn parent(&mut self, path: &ImagePath) -> Result<NodeId> {
        if path.is_root() {
            return Err(Error::corrupt("the layer's root is not a directory"));
        }
        let parent = self.tree.parent_of(path, Missing::Replace)?;
        // `Replace` always ends in a directory.
        Ok(parent.unwrap_or(NodeId::ROOT))
    }

    fn place(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        if !self.links.is_empty() {
            self.links.remove(&(parent, name.into()));
        }
        self.tree.link(parent, name, id);
    }

    fn push(&mut self, kind: Kind<C>, metadata: Metadata) -> NodeId {
        let node = self.node(kind, metadata);
        self.tree.push(node)
    }

    fn node(&mut self, kind: Kind<C>, metadata: Metadata) -> Node<C> {
        let xattrs = if let Some(known) = self.sets.get(&*metadata.xattrs) {
            Arc::clone(known)
        } else {
            let set: Xattrs = metadata.xattrs.into();
            self.sets.insert(Arc::clone(&set));
            set
        };
        let Metadata { mode, uid, gid, mtime, .. } = metadata;
        Node { kind, mode, uid, gid, mtime, xattrs, names: 0 }
    }
}

impl<C> Default for LayerTreeBuilder<C> {
    fn default() -> Self {
        Self::new()
    }
}
