//! OCI image layout directories (OCI image spec, `image-layout.md`), twice, and the directories of skopeo's `dir:`:
//!
//! - [`Layout`]: any layout directory as a registry, under the scheme `oci:`. Layouts of other tools are read
//!   strictly: a blob is a regular file of the declared size, or it is an error.
//! - [`Directory`]: the directory of one image under the scheme `dir:`, which is no layout.
//! - [`Store`]: a layout as the place where images are kept, which many processes may write at once:
//!
//! ```text
//! oci-layout  index.json  blobs/<algorithm>/<hex>           what every OCI tool reads
//! artifacts/<format>/<algorithm>/<xx>/<hex>.<extension>     files made from layers, by diff_id, each with a checksum
//! ingest/                                                   temporary files, partial downloads, leases, single flights
//! locks/                                                    files to lock, never deleted
//! quarantine/                                               damaged content
//! ```
//!
//! # The order that loses nothing
//! Temporary file in `ingest/` → bytes, hashed on the way → size and digest → read-only → `fdatasync` → rename →
//! `fsync` of the directory. Only then names: `index.json` to a temporary file, `fsync`, rename, `fsync` of the
//! directory, under an exclusive lock. Folders are synced into their parents when they are made. Whatever fails
//! drops the temporary file; a failed `fsync` is never tried again, because the kernel may have dropped the data.
//!
//! # Who owns a temporary file
//! The process that holds the `flock` on it. It is named after what it will become, so the lock is also the right to
//! write that blob, across tasks and processes; the kernel frees it when its holder ends, and the next one continues
//! with the bytes. After locking, a holder checks that the file still stands under its name: the one before may
//! have published or removed it.

mod backend;
mod config;
mod dir;
mod durable;
mod early_sync;
mod files;
mod root;
mod store;
mod watch;

pub use backend::Layout;
pub use config::Config;
pub use dir::Directory;
pub use store::Store;
