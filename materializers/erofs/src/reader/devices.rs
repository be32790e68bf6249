//! Which device data is on.

use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::tree::Tree;

use super::image::Reader;
use crate::content::Content;

impl<R: Read + Seek> Reader<R> {
    /// Whether a file's data is on a device that is not behind the image.
    pub(crate) fn lacks(&self, content: &Content) -> bool {
        let device = content.device().checked_sub(1).and_then(|device| self.devices.get(usize::from(device)));
        device.is_some_and(|device| {
            let end = u64::from(device.uniaddr.get()) + u64::from(device.blocks.get());
            end * self.superblock.block_size() > self.source.size()
        })
    }

    /// The tree of one of several layers' images, so that no data of two is on one device: their own blocks, and what
    /// follows them. It is for comparing alone, and links are not counted: no data is read from where compressed files and the ends of files are said to
    /// be.
    pub(crate) fn tree_of_layer(&mut self, layer: usize) -> Result<Tree<Content>> {
        let own = u16::try_from(layer * 2 + 1).unwrap_or(u16::MAX - 1);
        let mut tree = self.unfinished_tree()?;
        for content in tree.contents_mut() {
            let device = own + u16::from(content.device() != 0);
            content.mark(device);
        }
        Ok(tree)
    }
}
