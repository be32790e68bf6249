//! Bounds on a layer.

use super::budget::TreeShare;

/// Bounds that keep memory, disk and time finite for any layer. Beyond one: [`Limit`](crate::ErrorKind::Limit).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LayerLimits {
    /// Entries in the layer.
    pub entries: u64,
    /// Bytes of the uncompressed tar.
    pub uncompressed: u64,
    /// Uncompressed bytes for each compressed one, judged from the first GiB of output on. Deflate reaches
    /// 1,032 at most; zstd reaches tens of thousands, and such frames are bombs or empty disks.
    pub ratio: u64,
    /// Bytes of a path (once it is cleaned, and without a whiteout's prefix) or of a link's target.
    pub path: usize,
    /// Bytes of one component of a path, without a whiteout's prefix.
    pub component: usize,
    /// Bytes of one PAX extended header, GNU long name, or GNU long link name.
    pub extension_header: u64,
    /// Bytes of all global PAX headers' records that say something about files: every file is read with them.
    pub global_records: u64,
    /// Runs of data in one sparse file.
    pub sparse_extents: usize,
    /// Bytes of one file, holes included.
    pub file: u64,
    /// Bytes of one extended attribute's value: what Linux stores at most.
    pub xattr: usize,
    /// What the layer's metadata takes in memory.
    pub tree: TreeLimits,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            uncompressed: 1 << 40,
            ratio: 10_000,
            path: 4096,
            component: 255,
            extension_header: 1 << 20,
            global_records: 4 << 10,
            sparse_extents: 1 << 18,
            file: 1 << 44,
            xattr: 1 << 16,
            tree: TreeLimits::default(),
        }
    }
}

/// Bounds on what the metadata of a layer, or of an image of many layers, takes in memory. Beyond one:
/// [`Limit`](crate::ErrorKind::Limit).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreeLimits {
    /// Files of any kind. A file takes up to 110 bytes of memory, its names apart, with what a format takes to write it.
    pub files: u64,
    /// Bytes of all names. A name takes 17 bytes besides.
    pub names: u64,
    /// Bytes of all extended attributes, targets of symbolic links, whiteouts, runs of sparse files, links to lower
    /// layers, and directories that no entry made with the names in them. Each counts with what it takes besides its
    /// own bytes.
    pub metadata: u64,
    /// The conversion's part of the memory that several conversions [share](super::TreeBudget); without one it shares
    /// none. A pull gives each conversion a part of [`PullOptions::budget`](crate::PullOptions::budget).
    pub share: Option<TreeShare>,
}

impl TreeLimits {
    /// The default limits in proportion to this many bytes of [`metadata`](Self::metadata), whose default is
    /// [`TreeLimits::METADATA`].
    ///
    /// ```
    /// use plyfold_core::layer::TreeLimits;
    ///
    /// assert_eq!(TreeLimits::of(TreeLimits::METADATA), TreeLimits::default());
    /// assert_eq!(TreeLimits::of(2 * TreeLimits::METADATA).names, 512 << 20);
    /// ```
    pub fn of(metadata: u64) -> Self {
        let default = Self::default();
        let scaled = |limit: u64| {
            let scaled = u128::from(limit) * u128::from(metadata) / u128::from(Self::METADATA);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        Self { files: scaled(default.files), names: scaled(default.names), metadata, share: None }
    }

    /// The default of [`metadata`](Self::metadata).
    pub const METADATA: u64 = 64 << 20;
}

impl Default for TreeLimits {
    /// Ten million files, 256 MiB of names, 64 MiB of metadata: a hundred times what large
    /// images have.
    fn default() -> Self {
        Self { files: 10_000_000, names: 256 << 20, metadata: Self::METADATA, share: None }
    }
}
