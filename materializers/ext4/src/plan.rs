//! What a file system of an image needs, before a byte is written: its inodes in their order, and how many blocks.
//!
//! Inodes stand in the order of a breadth-first walk, so the children of a directory are neighbours. The order follows
//! from names alone, however the tree was built.

use plyfold_core::Result;
use plyfold_core::tree::{FileData, Kind, MergedTree, NodeId, Tree};

use crate::attributes::AttributeTable;
use crate::data::{BUFFER, LARGEST_FILE, most_blocks as data_blocks};
use crate::directory;
use crate::fault::Ext4Fault;
use crate::format::{Body, Checksum, EARLIEST, LATEST, LOST_FOUND_INODE, ROOT_INODE, put32};

/// The name of the directory where e2fsck puts what has lost its name.
pub(crate) const LOST_FOUND: &[u8] = b"lost+found";
/// The most names of a file that is no directory (`EXT4_LINK_MAX`).
const MOST_LINKS: u32 = 65_000;
/// The longest text of a symbolic link: one block with its NUL.
const LONGEST_LINK: usize = 4095;

/// One inode that will be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) id: NodeId,
    pub(crate) parent: NodeId,
}

/// Every inode of an image's tree.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) image: &'a MergedTree,
    /// The first is the root.
    pub(crate) order: Vec<Planned>,
    /// By node; 0 for one without a name.
    numbers: Vec<u32>,
    pub(crate) attributes: AttributeTable,
    /// Whether the root has a `lost+found` of the image's own.
    pub(crate) has_lost_found: bool,
    /// The last inode of a name; those of attributes' values come behind it.
    pub(crate) last: u32,
    /// The number of the last inode.
    pub(crate) inodes: u32,
    /// The most blocks that all files take.
    pub(crate) blocks: u64,
}

impl<'a> Plan<'a> {
    /// The plan for an image.
    ///
    /// # Errors
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for what ext4 cannot hold, with the path;
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for an ACL that is not one.
    pub(crate) fn new(image: &'a MergedTree, checksum: Checksum) -> Result<Self> {
        let tree = image.tree();
        let own = tree.child(NodeId::ROOT, LOST_FOUND);
        let mut plan = Self {
            image,
            order: Vec::new(),
            numbers: vec![0; tree.capacity()],
            attributes: AttributeTable::new(checksum),
            has_lost_found: own.is_some(),
            last: LOST_FOUND_INODE,
            inodes: 0,
            blocks: 0,
        };
        let directory = own.filter(|id| tree.node(*id).directory().is_some());
        if own.is_some() && directory.is_none() {
            // The inode is one like any other.
            plan.last -= 1;
        }
        plan.collect(directory)?;
        let (values, blocks) = plan.attributes.settle(plan.last + 1);
        plan.inodes = plan.last.checked_add(values).ok_or(Ext4Fault::Inodes)?;
        plan.blocks += blocks + u64::from(!plan.has_lost_found);
        Ok(plan)
    }

    /// Every inode, breadth first: the list is its own queue.
    fn collect(&mut self, lost_found: Option<NodeId>) -> Result<()> {
        let tree = self.image.tree();
        self.numbers[NodeId::ROOT.index()] = ROOT_INODE;
        if let Some(id) = lost_found {
            self.numbers[id.index()] = LOST_FOUND_INODE;
        }
        self.order.push(Planned { id: NodeId::ROOT, parent: NodeId::ROOT });
        let (mut at, mut buffer) = (0, vec![0; BUFFER]);
        while let Some(Planned { id, .. }) = self.order.get(at).copied() {
            let node = tree.node(id);
            let blocks = self.node_blocks(id, &mut buffer).and_then(|blocks| {
                self.attributes.add(&node.xattrs)?;
                Ok(blocks)
            });
            self.blocks += blocks.map_err(|e| match path(tree, id) {
                Some(path) => e.with_context("path", path),
                None => e,
            })?;
            for (_, child) in tree.children(id) {
                if Some(child) == lost_found {
                    self.order.push(Planned { id: child, parent: id });
                } else if self.numbers[child.index()] == 0 {
                    self.last = self.last.checked_add(1).ok_or(Ext4Fault::Inodes)?;
                    self.numbers[child.index()] = self.last;
                    self.order.push(Planned { id: child, parent: id });
                }
            }
            at += 1;
        }
        Ok(())
    }

    /// The most blocks that a node takes, its attributes apart.
    fn node_blocks(&self, id: NodeId, buffer: &mut [u8]) -> Result<u64> {
        let tree = self.image.tree();
        let node = tree.node(id);
        if node.directory().is_none() && tree.links(id) > MOST_LINKS {
            return Err(Ext4Fault::Links(tree.links(id)).into());
        }
        if !(EARLIEST..=LATEST).contains(&node.mtime.seconds) {
            return Err(Ext4Fault::Time(node.mtime.seconds).into());
        }
        match &node.kind {
            Kind::Directory(_) => {
                let extra = (id == NodeId::ROOT && !self.has_lost_found).then_some(LOST_FOUND);
                let names = tree.children(id).map(|(name, _)| name).chain(extra);
                Ok(directory::most_blocks(names))
            }
            Kind::File { size, .. } if *size > LARGEST_FILE => Err(Ext4Fault::File(*size).into()),
            Kind::File { size, .. } => data_blocks(self.image, (id, *size), buffer),
            Kind::Symlink { target } if target.is_empty() || target.len() > LONGEST_LINK => {
                Err(Ext4Fault::Target(target.len()).into())
            }
            Kind::Symlink { target } => Ok(u64::from(!is_short(target))),
            Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
                device(*major, *minor).map(|_| 0)
            }
            Kind::Fifo | Kind::Socket => Ok(0),
        }
    }

    /// The number of a node's inode.
    pub(crate) fn number(&self, id: NodeId) -> u32 {
        self.numbers[id.index()]
    }
}

/// Whether a symbolic link's text stands in its inode, with a NUL behind it.
pub(crate) fn is_short(target: &[u8]) -> bool {
    target.len() < 60
}

/// `i_block` of a device: the number in the old form if it fits, else in the new one (`kdev_t.h`).
pub(crate) fn device(major: u32, minor: u32) -> Result<Body> {
    let mut body = Body::default();
    match (major, minor) {
        (0..=0xff, 0..=0xff) => put32(&mut body.0, 0, major << 8 | minor),
        (0..=0xfff, 0..=0xf_ffff) => put32(&mut body.0, 4, minor & 0xff | major << 8 | (minor & !0xff) << 12),
        _ => return Err(Ext4Fault::DeviceNumber(major, minor).into()),
    }
    Ok(body)
}

/// The first name of a node, for an error.
fn path(tree: &Tree<FileData>, id: NodeId) -> Option<String> {
    let mut names = tree.walk();
    names.find(|(_, found)| *found == id).map(|(path, _)| path.to_string())
}
