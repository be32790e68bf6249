//! Container images from anywhere into block devices that virtual machines and kernels mount.
//!
//! This crate is [`plyfold_core`], all of it, with the backends and materializers that its features choose:
//!
//! | feature | links |
//! |---|---|
//! | `archive` | [`backends::archive`]: docker-archive and oci-archive files, and tars of root file systems |
//! | `daemon` | [`backends::archive::Daemon`]: images of a Docker daemon, over its socket; brings `archive` |
//! | `layout` | [`backends::layout`]: OCI layout directories, those of `dir:`, and the store |
//! | `object-store` | [`backends::object_store`]: images that machines share in object storage |
//! | `registry` | [`backends::registry`]: OCI registries over HTTP |
//! | `disk` | [`materializers::disk`]: several images in one raw file, with a partition table or without; brings `vmdk` |
//! | `erofs` | [`materializers::erofs`]: layers, merged images and flat ones |
//! | `ext4` | [`materializers::ext4`]: whole images as ext4, and empty upper disks |
//! | `sync` | `Images::sync`: the images of a list, from many places into one |
//! | `verity` | [`materializers::verity`]: dm-verity hash trees of any of them |
//! | `vmdk` | [`materializers::vmdk`]: several images as one disk, and a disk compressed |
//! | `command` | [`command`]: the `plyfold` program |
//!
//! All are on by default, each works alone, and none changes what another does.
//!
//! `registry` brings `reqwest` with its default TLS: `rustls` with `aws-lc-rs`. A program with a `reqwest` or `rustls` of
//! its own uses them as ever, and installs no provider: `examples/with-reqwest` is one. Cargo gives both one `reqwest`
//! with the features of both (`object-store` adds `http2`, of which the registry's client makes no use), so its `Client::new` wants a CA certificate on the machine, as by default. A program that
//! chooses `ring` for `rustls` has two providers, and has to name its own.

pub use plyfold_core::*;

/// The backends and caches that are linked into this program; [`Backends::linked`] and [`Caches::linked`] find them by URI
/// scheme.
pub mod backends {
    #[cfg(feature = "archive")]
    pub use plyfold_archive as archive;
    #[cfg(feature = "layout")]
    pub use plyfold_layout as layout;
    #[cfg(feature = "object-store")]
    pub use plyfold_object_store as object_store;
    #[cfg(feature = "registry")]
    pub use plyfold_registry as registry;
}

/// The materializers that this crate was built with.
pub mod materializers {
    #[cfg(feature = "disk")]
    pub use plyfold_disk as disk;
    #[cfg(feature = "erofs")]
    pub use plyfold_erofs as erofs;
    #[cfg(feature = "ext4")]
    pub use plyfold_ext4 as ext4;
    #[cfg(feature = "verity")]
    pub use plyfold_verity as verity;
    #[cfg(feature = "vmdk")]
    pub use plyfold_vmdk as vmdk;
}

pub mod atomic_file;
#[cfg(feature = "command")]
pub mod command;
#[cfg(all(feature = "disk", feature = "erofs", feature = "ext4"))]
pub mod disk_file;

mod in_use;
mod regular_file;
mod shell;

mod images;
mod rootfs;
#[cfg(feature = "sync")]
mod sync;

pub use images::{Images, LoadedImage, Saved};
#[cfg(feature = "sync")]
pub use images::{SyncOptions, SyncTarget};
pub use rootfs::{Disk, DiskSet, Disks, Rootfs, VerifiedFile, snapshot};
#[cfg(feature = "sync")]
pub use sync::{SyncChange, SyncFault, SyncList, SyncReport, SyncedName};
