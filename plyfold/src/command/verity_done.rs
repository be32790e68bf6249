//! What `verity` tells of a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::materializers::verity::{RootHash, TreeLayout, Uuid};
use crate::shell::quoted;
use serde_json::{Value, json};

use super::hash_tree::TreeDocument;
use super::hash_trees::blocks;
use super::size::Size;

/// What was made or verified.
pub(crate) struct Done {
    pub(crate) file: PathBuf,
    pub(crate) layout: TreeLayout,
    pub(crate) root: RootHash,
    pub(crate) uuid: Option<Uuid>,
    /// The file with the tree, and its size.
    pub(crate) tree: Option<(PathBuf, u64)>,
    pub(crate) sidecar: Option<PathBuf>,
    /// Whether the data is the disk of a VMDK, which is no block device here.
    pub(crate) is_of_vmdk: bool,
    pub(crate) is_verified: bool,
}

impl Done {
    pub(crate) fn document(&self) -> Value {
        let tree = self.tree.as_ref();
        let mut hash_tree = TreeDocument::read(&self.layout, &self.root, self.uuid);
        if let Some((path, _)) = tree {
            let open = (!self.is_of_vmdk).then(|| self.open_line(path));
            hash_tree = hash_tree.at(path, None, self.layout.hash_offset()).opened_by(open);
        }
        // Not every path is UTF-8, as JSON is.
        let path = |path: &Path| path.display().to_string();
        json!({
            "path": path(&self.file),
            "verified": self.is_verified,
            "hash_tree": hash_tree,
            "size": tree.map(|(_, size)| size),
            "sidecar": self.sidecar.as_deref().map(path),
            "table": tree.map(|_| self.table()),
        })
    }

    pub(crate) fn text(&self) -> String {
        let parameters = self.layout.parameters();
        let mut text = format!("root hash  {}\n", self.root);
        let done = if self.is_verified { "verified " } else { "data     " };
        let _ = writeln!(text, "{done}  {}  {}", self.file.display(), blocks(&self.layout));
        let Some((tree, size)) = &self.tree else { return text };
        let offset = match self.layout.hash_offset() {
            0 => Size(*size).to_string(),
            offset => format!("at byte {offset}"),
        };
        let _ = writeln!(text, "hash tree  {}  {offset}", tree.display());
        let _ = writeln!(text, "salt       {}", parameters.salt_text());
        text.extend(self.uuid.map(|uuid| format!("uuid       {uuid}\n")));
        text.extend(self.sidecar.as_ref().map(|path| format!("sidecar    {}\n", path.display())));
        if self.is_verified {
            return text;
        }
        if !self.is_of_vmdk {
            let _ = writeln!(text, "\nTo open it here, as root:\n\n  {}", self.open_line(tree));
        }
        let devices = if self.is_appended() { "/dev/vda" } else { "/dev/vda, the hash tree /dev/vdb" };
        let table = self.table();
        text + &format!(
            "\nFor the command line of a guest's kernel, where the data is {devices}:\n\n  dm-mod.create=\"verity,,,ro,{table}\"\n"
        )
    }

    fn is_appended(&self) -> bool {
        self.tree.as_ref().is_some_and(|(tree, _)| *tree == self.file)
    }

    /// The table for a guest, where the file is the first disk, and a file with the tree the second.
    fn table(&self) -> String {
        self.layout.table(&self.root, "/dev/vda", if self.is_appended() { "/dev/vda" } else { "/dev/vdb" })
    }

    /// The command that opens the device as `/dev/mapper/NAME`.
    fn open_line(&self, tree: &Path) -> String {
        let absolute = |path: &Path| quoted(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let mut line =
            format!("veritysetup open {} verity {} {}", absolute(&self.file), absolute(tree), self.root);
        if self.layout.hash_offset() > 0 {
            let _ = write!(line, " --hash-offset={}", self.layout.hash_offset());
        }
        if !self.layout.has_superblock() {
            let parameters = self.layout.parameters();
            let _ = write!(
                line,
                " --no-superblock --data-blocks={} --data-block-size={} --hash-block-size={} --salt={}",
                self.layout.data_blocks(),
                parameters.data_block_size(),
                parameters.hash_block_size(),
                parameters.salt_text()
            );
        }
        line
    }
}
