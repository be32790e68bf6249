//! Archives of images: what `docker load`, `podman load`, `ctr image import`, skopeo and plyfold read.
//!
//! By default an archive is an OCI layout (OCI image spec, `image-layout.md`) as a tar, with Docker's list `manifest.json`
//! over the same blobs: every reader finds its own form, and no digest changes. The form of `docker save` before version 25,
//! which has no manifests, is made on request.
//!
//! The same images give the same bytes: members are sorted by name, belong to root and have no time, and documents list by
//! name.

pub use contents::{Contents, SaveImage, content_of};
pub use docker_list::DockerList;
pub use header::{file_header, folder_header, link_header};
pub use oci::DELTA;
pub use options::{ArchiveForm, SaveBase, SaveFault, SaveOptions};
pub use stream::TarReader;

mod contents;
mod docker;
mod docker_list;
mod expand;
mod file_copy;
mod gather;
mod header;
mod index;
mod member;
mod oci;
mod options;
mod stream;
mod writer;
