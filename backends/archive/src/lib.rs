//! docker-archive and oci-archive tar files, and tars of root file systems, as plyfold backends.
//!
//! What `docker save`, `podman save`, `skopeo copy` and `buildah push` write into one file: the layout of
//! Docker before and since version 25, OCI layouts, several images, plain or compressed as a whole. Both schemes
//! read both forms; an archive that is both at once (Docker 25 and later) is read as the OCI layout, which loses
//! nothing.
//!
//! Nothing is ever unpacked. One pass over the tar's headers notes where each member lies, seeking over its
//! content; reading a blob is reading a range of the file. Names in the archive are keys of that table and never
//! paths of the host, so no name can lead out of it. An archive that is compressed as a whole is first expanded
//! into an unlinked temporary file of bounded size, see [`Config::spool_limit`].
//!
//! Both schemes write an OCI layout with Docker's list, `manifest.json`, over the same blobs, so every digest is kept. What the
//! archive has stays. It is written to a file beside it, which takes its place when the names are set: all of them or none.
//!
//! # What a docker-archive lacks
//! As Docker before version 25 writes it, it holds configs and uncompressed layers, no manifests. The manifest is generated here, always the same for the
//! same image: canonical JSON, OCI media types, each layer under its `diff_id`. So digests of manifests and
//! compressed layers differ from the registry's, while the config's digest (the image id) and the `diff_id`s are
//! those of the original.
//!
//! # The tar of a root file system
//! `tar:FILE` is no archive of images: [`TarImage`] makes an image of one layer of it, as `docker import` does.
//!
//! # A Docker daemon
//! With the feature `daemon`, `Daemon` reads and writes the images of a Docker daemon by the archives that it saves and loads.
//!
//! ```no_run
//! use plyfold_archive::{Archive, Config};
//! use plyfold_core::{ImageRegistryExt as _, Platform, reference};
//!
//! # async fn run() -> plyfold_core::Result<()> {
//! let archive = Archive::new("images.tar", Config::default());
//! let image = archive.image(&reference::parse("alpine:3.20")?, &Platform::host()).await?;
//! # Ok(())
//! # }
//! ```

mod backend;
mod config;
#[cfg(feature = "daemon")]
mod daemon;
mod docker;
mod images;
mod members;
mod oci;
mod rootfs;
mod spool;
mod write;

pub use backend::Archive;
pub use config::Config;
#[cfg(feature = "daemon")]
pub use daemon::{Daemon, DaemonConfig, DaemonFault};
pub use rootfs::TarImage;
