//! The inodes that an image will have, before they have places.
//!
//! They stand in the order of a breadth-first walk, so the children of a directory are neighbours, and the root comes
//! first. The order follows from names alone, however the tree was built. An image of millions of files is planned in
//! 16 bytes for each, and 8 more for a directory: an inode is made when its place is found, and made again when it is
//! written.

use std::cmp::Reverse;
use std::collections::HashMap;

use plyfold_core::Result;
use plyfold_core::layer::Timestamp;
use plyfold_core::tree::{Kind, NodeId, Tree};

use crate::directory::{self, DirectorySize};
use crate::fault::ErofsFault;
use crate::format::{
    COMPACT_SIZE, EXTENDED_SIZE, Inode, LAYOUT_PLAIN, S_IFREG, SLOT, Time, device_number, dirent_type,
    type_bits,
};
use crate::options::Options;
use crate::xattr::{SetId, XattrTable};

/// No number: the node has not been seen.
const UNSEEN: u32 = 0;
/// The node has been seen, its number comes with its place.
const SEEN: u32 = u32::MAX;

/// More different times are counted by sorting.
const MAX_TIMES: usize = 4096;

/// One inode that will be.
#[derive(Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) id: NodeId,
    pub(crate) parent: NodeId,
    pub(crate) xattrs: SetId,
}

/// Every inode of a tree, and what they share.
pub(crate) struct Inodes<'a, C> {
    pub(crate) tree: &'a Tree<C>,
    pub(crate) xattrs: XattrTable,
    pub(crate) epoch: Time,
    pub(crate) planned: Vec<Planned>,
    mtime: Option<Timestamp>,
    /// By node.
    nids: Vec<u32>,
    /// The size of each directory, in the order of their inodes.
    pub(crate) directories: Vec<DirectorySize>,
}

impl<'a, C> Inodes<'a, C> {
    pub(crate) fn new(tree: &'a Tree<C>, options: &Options) -> Result<Self> {
        let mut inodes = Self::collected(tree, options.mtime, None, options.block_size)?;
        inodes.epoch = inodes.most_frequent_mtime().into();
        Ok(inodes)
    }

    /// As [`Inodes::new`], with a given time for those inodes that store none, and one inode more that has no name.
    pub(crate) fn of_epoch(
        tree: &'a Tree<C>,
        epoch: Time,
        unnamed: Option<NodeId>,
        block_size: u32,
    ) -> Result<Self> {
        let mut inodes = Self::collected(tree, None, unnamed, block_size)?;
        inodes.epoch = epoch;
        Ok(inodes)
    }

    fn collected(
        tree: &'a Tree<C>,
        mtime: Option<Timestamp>,
        unnamed: Option<NodeId>,
        block_size: u32,
    ) -> Result<Self> {
        let mut inodes = Self {
            tree,
            xattrs: XattrTable::new(),
            epoch: Time::default(),
            planned: Vec::with_capacity(tree.capacity()),
            mtime,
            nids: vec![UNSEEN; tree.capacity()],
            directories: Vec::new(),
        };
        inodes.collect(unnamed, block_size)?;
        inodes.xattrs.settle()?;
        Ok(inodes)
    }

    /// Every inode, breadth first: the list is its own queue.
    fn collect(&mut self, unnamed: Option<NodeId>, block_size: u32) -> Result<()> {
        self.plan(NodeId::ROOT, NodeId::ROOT);
        let mut at = 0;
        while let Some(Planned { id, parent, .. }) = self.planned.get(at).copied() {
            let node = self.tree.node(id);
            let added = self.xattrs.add(&node.xattrs);
            self.planned[at].xattrs =
                added.map_err(|e| match self.tree.walk().find(|(_, found)| *found == id) {
                    Some((path, _)) => e.with_context("path", path),
                    None => e,
                })?;
            if node.directory().is_some() {
                let mut size = DirectorySize::default();
                for (name, child) in directory::entries(self.tree, id, parent) {
                    size.add(name, block_size);
                    self.plan(child, id);
                }
                self.directories.push(size);
            }
            at += 1;
        }
        if let Some(id) = unnamed {
            self.plan(id, NodeId::ROOT);
            self.planned[at].xattrs = self.xattrs.add(&self.tree.node(id).xattrs)?;
        }
        Ok(())
    }

    /// Lists an inode, once.
    fn plan(&mut self, id: NodeId, parent: NodeId) {
        if self.nids[id.index()] == UNSEEN {
            self.nids[id.index()] = SEEN;
            self.planned.push(Planned { id, parent, xattrs: SetId::default() });
        }
    }

    fn mtime(&self, id: NodeId) -> Timestamp {
        self.mtime.unwrap_or(self.tree.node(id).mtime)
    }

    /// The time that most inodes have: they do not need to store it. Of equally frequent ones the earliest.
    fn most_frequent_mtime(&self) -> Timestamp {
        let (mut counts, mut run) = (HashMap::new(), (Timestamp::default(), 0));
        // Neighbours mostly have the same.
        for planned in &self.planned {
            let time = self.mtime(planned.id);
            if time != run.0 {
                *counts.entry(run.0).or_insert(0_u32) += run.1;
                run = (time, 0);
                if counts.len() > MAX_TIMES {
                    return self.most_frequent_of_many();
                }
            }
            run.1 += 1;
        }
        *counts.entry(run.0).or_insert(0) += run.1;
        let most = counts.into_iter().max_by_key(|(time, count)| (*count, Reverse(*time)));
        most.map(|(time, _)| time).unwrap_or_default()
    }

    /// The same of any number of times, in 4 bytes for each inode.
    fn most_frequent_of_many(&self) -> Timestamp {
        let mut order: Vec<NodeId> = self.planned.iter().map(|planned| planned.id).collect();
        order.sort_unstable_by_key(|id| self.mtime(*id));
        let runs = order.chunk_by(|one, next| self.mtime(*one) == self.mtime(*next));
        // The last of equal maxima wins: the earliest time is looked at last.
        let most = runs.rev().max_by_key(|run| run.len()).and_then(<[_]>::first);
        most.map(|id| self.mtime(*id)).unwrap_or_default()
    }

    /// The inode, but for where its data lies.
    pub(crate) fn inode(&self, at: usize) -> Result<Inode> {
        let Planned { id, xattrs, .. } = self.planned[at];
        let node = self.tree.node(id);
        let (mut size, mut location) = (0, 0);
        match &node.kind {
            Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
                let number = device_number(*major, *minor);
                location = number.ok_or(ErofsFault::DeviceNumber(*major, *minor))?;
            }
            Kind::File { size: bytes, .. } => size = *bytes,
            Kind::Symlink { target } => size = target.len() as u64,
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
        Ok(Inode {
            xattr_icount: self.xattrs.icount(xattrs).into(),
            mode: (type_bits(&node.kind) | node.mode & 0o7777).into(),
            size: size.into(),
            location: location.into(),
            ino: (at as u32 + 1).into(),
            uid: node.uid.into(),
            gid: node.gid.into(),
            mtime: self.mtime(id).into(),
            // Without a name there is the one that the superblock knows.
            nlink: self.tree.links(id).max(1).into(),
            ..Inode::default().with_layout(LAYOUT_PLAIN)
        })
    }

    /// The inode of the file of all fragments, which has no name.
    pub(crate) fn packed(&self, size: u64) -> Inode {
        Inode {
            mode: S_IFREG.into(),
            size: size.into(),
            ino: (self.planned.len() as u32 + 1).into(),
            mtime: self.epoch,
            nlink: 1.into(),
            ..Inode::default()
        }
    }

    /// The bytes of an inode in the smallest form that holds it, without its xattrs.
    pub(crate) fn own_size(&self, inode: &Inode) -> u64 {
        if inode.compact(self.epoch).is_some() { COMPACT_SIZE } else { EXTENDED_SIZE }
    }

    /// Gives an inode its place, in bytes from the start of the metadata area.
    pub(crate) fn number(&mut self, at: usize, offset: u64) -> Result<()> {
        let nid = u32::try_from(offset / SLOT).ok().filter(|nid| *nid != SEEN);
        self.nids[self.planned[at].id.index()] = nid.ok_or(ErofsFault::Inodes)?;
        Ok(())
    }

    /// The number of a node's inode, once it has a place.
    pub(crate) fn nid(&self, id: NodeId) -> u32 {
        self.nids[id.index()]
    }

    /// What a directory's entry says of a node.
    pub(crate) fn target(&self, id: NodeId) -> (u64, u8) {
        (self.nid(id).into(), dirent_type(type_bits(&self.tree.node(id).kind)))
    }
}
