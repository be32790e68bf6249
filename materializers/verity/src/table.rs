//! The kernel's table.

use crate::layout::TreeLayout;
use crate::root_hash::RootHash;

impl TreeLayout {
    /// The line of a device-mapper table that opens the verified device, in 512-byte sectors (the kernel's `verity.rst`):
    /// of the block device `data`, and of the one that the tree is on, which may be the same.
    ///
    /// ```
    /// use plyfold_verity::{Parameters, RootHash, TreeLayout};
    ///
    /// let layout = TreeLayout::appended(Parameters::default().with_salt_text("-")?, 8192)?;
    /// let line = layout.table(&RootHash::new([0xab; 32]), "/dev/vda", "/dev/vda");
    /// let root = "ab".repeat(32);
    /// assert_eq!(line, format!("0 16 verity 1 /dev/vda /dev/vda 4096 4096 2 3 sha256 {root} -"));
    /// # Ok::<(), plyfold_core::Error>(())
    /// ```
    pub fn table(&self, root: &RootHash, data: &str, tree: &str) -> String {
        let parameters = self.parameters();
        format!(
            "0 {} verity 1 {data} {tree} {} {} {} {} sha256 {root} {}",
            self.data_size() / 512,
            parameters.data_block_size(),
            parameters.hash_block_size(),
            self.data_blocks(),
            self.tree_offset() / u64::from(parameters.hash_block_size()),
            parameters.salt_text(),
        )
    }
}
