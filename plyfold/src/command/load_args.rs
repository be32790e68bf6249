//! The arguments of `load`.

/// What is loaded, and how.
#[derive(clap::Args, Debug)]
pub(crate) struct Load {
    /// A docker-archive, an oci-archive, a layout directory, or a URI of one; `-` is standard input
    pub(crate) archive: String,
    /// Load this image and not all; can be given several times. @N is its place in the archive's list, the first is @0
    #[arg(long = "image", value_name = "NAME|@N|DIGEST")]
    pub(crate) images: Vec<String>,
    /// Show the images with their sizes and platforms, and load nothing
    #[arg(long, conflicts_with_all = ["images", "keep_names", "no_referrers"])]
    pub(crate) list: bool,
    /// Leave names alone that stand for other images in the store; what the archive has under them is loaded by its digest
    #[arg(long)]
    pub(crate) keep_names: bool,
    /// Leave out what refers to the images, such as signatures and SBOMs
    #[arg(long)]
    pub(crate) no_referrers: bool,
}
