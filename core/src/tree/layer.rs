//! From one layer's entries, in the order of its tar, to what the layer says.

use crate::Result;
use crate::layer::whiteout::{Change, classify};
use crate::layer::{DataExtent, Entry, EntryKind, FileKind, ImagePath, Metadata};

use super::builder::LayerTreeBuilder;
use super::fault::TreeFault;
use super::pending::{LowerLink, PendingLinks};
use super::resolve::Missing;
use super::{HeapSize, Kind, Node, NodeId, Tree};

/// What one layer says: files that it brings, whiteouts, opaque directories, and links to files below it.
#[derive(Clone, Debug)]
pub struct LayerTree<C> {
    /// The layer's own files and whiteouts.
    pub tree: Tree<C>,
    /// Hard links to files that lower layers have, in a deterministic order.
    pub lower_links: Vec<LowerLink>,
    /// Names at which no lower layer may have a symbolic link, in order: the layer would have changed something
    /// behind the link before it took the link's name, and this tree does not hold that.
    pub assumed: Vec<ImagePath>,
}

impl<C: HeapSize> LayerTreeBuilder<C> {
    /// Takes the next entry. `content` is asked where the bytes of a regular file lie, given its size and its
    /// runs of data; it is the moment to read them.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for entries that the rules refuse,
    /// [`Limit`](crate::ErrorKind::Limit) beyond the [`TreeLimits`](crate::layer::TreeLimits), and what `content`
    /// reports.
    pub fn insert(
        &mut self,
        entry: Entry,
        content: impl FnOnce(u64, Option<&[DataExtent]>) -> Result<C>,
    ) -> Result<()> {
        let Entry { path, kind, metadata } = entry;
        // A mark is one by its name: Docker, Podman and umoci take an entry of any type for it.
        match classify(&path)? {
            Change::Ignored => return Ok(()),
            Change::Opaque(directory) => return self.opaque(&directory),
            Change::Whiteout(hidden) => return self.whiteout(&hidden),
            Change::Plain => {}
        }
        let kind = match kind {
            EntryKind::HardLink { target } => return self.hard_link(&path, &target),
            EntryKind::Node(kind) => kind,
        };
        let kind = match kind {
            FileKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            // Overlayfs' form of a whiteout, in tars of overlay upper directories.
            FileKind::CharDevice { major: 0, minor: 0 } => return self.whiteout(&path),
            FileKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            FileKind::Directory(()) => return self.directory(&path, metadata),
            FileKind::Fifo => Kind::Fifo,
            FileKind::File { size, content: extents } => {
                Kind::File { size, content: content(size, extents.as_deref())? }
            }
            FileKind::Socket => Kind::Socket,
            FileKind::Symlink { target } => Kind::Symlink { target },
        };
        let parent = self.parent(&path)?;
        let id = self.push(kind, metadata)?;
        self.place(parent, path.name(), id)
    }

    /// Settles what depends on the whole layer: links to later files, link counts.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) beyond the [`TreeLimits`](crate::layer::TreeLimits).
    pub fn finish(mut self) -> Result<LayerTree<C>> {
        let mut lower_links = std::mem::take(&mut self.links).settle(&mut self.tree)?;
        let assumed = self.assumed()?;
        self.tree.finish();
        for node in self.tree.nodes.iter_mut() {
            if let Kind::Directory(directory) = &mut node.kind
                && directory.opaque
            {
                directory.whiteouts = super::names::NONE;
            }
        }
        lower_links.retain(|link| self.tree.is_named(link.directory));
        Ok(LayerTree { tree: self.tree, lower_links, assumed })
    }

    fn directory(&mut self, path: &ImagePath, metadata: Metadata) -> Result<()> {
        let mut id = NodeId::ROOT;
        if !path.is_root() {
            let parent = self.parent(path)?;
            let existing = self.tree.child(parent, path.name());
            let Some(existing) = existing.filter(|id| self.tree.node(*id).directory().is_some()) else {
                let replaces = existing.is_some()
                    || self.tree.is_hidden(parent, path.name())
                    || self.links.contains(parent, path.name());
                let directory = super::Directory { opaque: replaces, ..super::Directory::default() };
                let id = self.push(Kind::Directory(directory), metadata)?;
                return self.place(parent, path.name(), id);
            };
            id = existing;
        }
        let node = self.node(Kind::Fifo, metadata)?;
        self.tree.node_mut(id).take_metadata(node);
        if let Some(directory) = self.tree.directory_mut(id) {
            directory.late |= directory.implied && id != NodeId::ROOT;
            directory.implied = false;
        }
        Ok(())
    }

    fn hard_link(&mut self, path: &ImagePath, target: &ImagePath) -> Result<()> {
        if classify(target)? != Change::Plain {
            return Err(TreeFault::LinkToWhiteout(path.clone(), target.clone()).into());
        }
        let parent = self.parent(path)?;
        let target_parent = self.tree.parent_of(target, Missing::Absent)?;
        if target.is_root() || (target_parent == Some(parent) && target.name() == path.name()) {
            let fault = TreeFault::HardLink(path.to_string(), target.clone(), "is no other file");
            return Err(fault.into());
        }
        let own = target_parent.and_then(|parent| self.tree.child(parent, target.name()));
        // What no entry made may be a symbolic link below.
        let is_lower = |id: &NodeId| self.tree.node(*id).directory().is_some_and(|d| d.implied);
        if let Some(id) = own.filter(|id| !is_lower(id)) {
            if self.tree.node(id).directory().is_some() {
                return Err(TreeFault::LinkToDirectory(path.clone()).into());
            }
            return self.place(parent, path.name(), id);
        }
        // A link to an earlier link is to the same file.
        let earlier = target_parent.and_then(|parent| self.links.target(parent, target.name()));
        let target = match earlier.cloned() {
            Some(earlier) => earlier,
            None if self.assume_links(target)? => {
                return Err(TreeFault::Order(target.clone(), "links through another hard link").into());
            }
            None => {
                let (real, assumed) = self.tree.real_path(target)?;
                if self.tree.hides(&real) == Some(true) {
                    return Err(TreeFault::HiddenTarget(path.clone(), target.clone()).into());
                }
                for path in assumed {
                    self.assume(path)?;
                }
                real
            }
        };
        self.leave(parent, path.name())?;
        // What follows finds neither a directory there nor a lower layer's.
        self.tree.hide(parent, path.name())?;
        self.last_parent = None;
        self.tree.charge(PendingLinks::bytes(path.name(), &target))?;
        self.links.insert(parent, path.name(), target);
        Ok(())
    }

    /// Hides what lower layers have in the directory. Only what stands before the mark says which one that is.
    fn opaque(&mut self, directory: &ImagePath) -> Result<()> {
        self.assume_links(&directory.join(b"."))?;
        if let Some(id) = self.tree.directory_at(directory, Missing::Imply)? {
            self.leave_children(id)?;
            if let Some(directory) = self.tree.directory_mut(id) {
                directory.opaque = true;
            }
        }
        Ok(())
    }

    /// Hides the name in lower layers. As for [`Self::opaque`], what follows does not move the mark.
    fn whiteout(&mut self, hidden: &ImagePath) -> Result<()> {
        if hidden.is_root() {
            return Err(TreeFault::Malformed("the root directory is a whiteout").into());
        }
        self.assume_links(hidden)?;
        // This layer's file replaces the lower layers' entry: there is nothing below it to hide.
        let Some(parent) = self.tree.parent_of(hidden, Missing::Imply)? else { return Ok(()) };
        if let Some(child) = self.tree.child(parent, hidden.name()) {
            self.leave(parent, hidden.name())?;
            if let Some(directory) = self.tree.directory_mut(child) {
                directory.opaque = true;
                directory.implied = false;
            }
            return Ok(());
        }
        if self.links.contains(parent, hidden.name()) {
            return Ok(());
        }
        self.tree.hide(parent, hidden.name())
    }

    fn parent(&mut self, path: &ImagePath) -> Result<NodeId> {
        if path.is_root() {
            return Err(TreeFault::Malformed("the layer's root is not a directory").into());
        }
        if let Some((last, id)) = &self.last_parent
            && last == path.parent()
        {
            return Ok(*id);
        }
        self.assume_links(path)?;
        // `Replace` always ends in a directory.
        let parent = self.tree.parent_of(path, Missing::Replace)?.unwrap_or(NodeId::ROOT);
        let (mut last, _) = self.last_parent.take().unwrap_or((Vec::new(), parent));
        last.clear();
        last.extend_from_slice(path.parent());
        self.last_parent = Some((last, parent));
        Ok(parent)
    }

    fn place(&mut self, parent: NodeId, name: &[u8], id: NodeId) -> Result<()> {
        self.links.remove(parent, name);
        if self.tree.child(parent, name).is_some() {
            // What is replaced may lie on the way to the last parent.
            self.last_parent = None;
            self.leave(parent, name)?;
        }
        self.tree.link(parent, name, id)
    }

    fn push(&mut self, kind: Kind<C>, metadata: Metadata) -> Result<NodeId> {
        let node = self.node(kind, metadata)?;
        self.tree.push(node)
    }

    fn node(&mut self, kind: Kind<C>, mut metadata: Metadata) -> Result<Node<C>> {
        let set = self.tree.share(std::mem::take(&mut metadata.xattrs).into())?;
        Ok(Node { xattrs: set, ..Node::new(kind, metadata) })
    }
}
