//! What reading layers may take: an option of many verbs.

use crate::layer::{LayerLimits, TreeLimits};
use clap::Args as Group;

use super::size;

/// What the metadata of layers may take: an option of every verb that reads layers.
#[derive(Clone, Copy, Debug, Group)]
pub(crate) struct Bounds {
    /// How much memory the extended attributes, links and the like of a layer, or of an image, may take; files and
    /// names are bounded in proportion [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_metadata: Option<u64>,
}

impl Bounds {
    pub(crate) fn layer(self) -> LayerLimits {
        let tree = self.max_metadata.map_or_else(TreeLimits::default, TreeLimits::of);
        let default = LayerLimits::default();
        LayerLimits { entries: default.entries.max(tree.files), tree, ..default }
    }
}
